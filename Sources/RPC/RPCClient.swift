internal import Glibc
package import Linux
package import Model

/// One blocking connection to a server, for programs that do one thing at a time (the CLI).
///
/// Not thread-safe; a signal that is to end a stream is watched for by `interrupt`, a descriptor that becomes readable.
package final class RPCClient {
  private let socket: Descriptor
  private var reader = FrameReader(limits: RPCClient.limits)
  private var nextID: Int64 = 1

  /// Answers may be larger than requests: a list of a thousand apps.
  private static var limits: FrameLimits {
    var limits = FrameLimits()
    limits.frame = 64 << 20
    return limits
  }

  /// Connects to a socket path.
  package init(path: String) throws(SystemFault) { socket = try UnixSocket.connect(path) }

  /// What `call` came back with besides an answer.
  package enum Stop: Error { case disconnected(String), answered(RPCFailure) }

  /// The interrupt came: the call was cancelled.
  package struct Interrupted: Error {}

  /// Calls and waits. Items of a stream go to `item` as they come. When `interrupt` (a descriptor of the caller's) becomes readable
  /// or hangs up, the call is cancelled and `Interrupted` thrown; the connection stays usable.
  /// `descriptors` go with the call; the parameters speak of them by their place in the list.
  package func call(
    _ method: String, _ parameters: JSONValue = .object([:]), descriptors: [Int32] = [], interrupt: Int32 = -1,
    item: (JSONValue) throws -> Void = { _ in }
  ) throws -> JSONValue {
    let id = nextID
    nextID += 1
    try write(Outgoing.request(id, method, parameters), descriptors)
    while true {
      while let message = try nextMessage() {
        if message["method"] == "$/item" {
          if message["params"]?["id"]?.integerValue == id, let value = message["params"]?["item"] { try item(value) }
          continue
        }
        if let error = message["error"], message["id"]?.integerValue == id || message["id"] == .null {
          throw Stop.answered(Self.failure(error))
        }
        guard message["id"]?.integerValue == id else { continue }
        return message["result"] ?? .null
      }
      try fill(interrupt, id)
    }
  }

  // MARK: Several things at once

  /// What came in, by the id of the call it belongs to.
  package enum Incoming {
    case item(Int64, JSONValue)
    case answer(Int64, JSONValue)
    case failure(Int64, RPCFailure)
  }

  /// The connection, for poll(2); lent as long as this object lives.
  package var raw: Int32 { socket.withRaw { $0 } }

  /// Calls without waiting: what comes of it is `take`n under the id returned.
  package func begin(_ method: String, _ parameters: JSONValue, descriptors: [Int32] = []) throws -> Int64 {
    let id = nextID
    nextID += 1
    try write(Outgoing.request(id, method, parameters), descriptors)
    return id
  }

  /// Reads once, which waits unless the connection is ready, and takes all that is whole.
  package func take() throws -> [Incoming] {
    try read()
    var all: [Incoming] = []
    while let message = try nextMessage() {
      if message["method"] == "$/item" {
        if let id = message["params"]?["id"]?.integerValue, let value = message["params"]?["item"] {
          all.append(.item(id, value))
        }
      } else if let error = message["error"] {
        all.append(.failure(message["id"]?.integerValue ?? 0, Self.failure(error)))
      } else if let id = message["id"]?.integerValue {
        all.append(.answer(id, message["result"] ?? .null))
      }
    }
    return all
  }

  private static func failure(_ error: JSONValue) -> RPCFailure {
    RPCFailure(
      code: error["code"]?.integerValue ?? RPCFailure.Code.fault.rawValue,
      message: error["message"]?.stringValue ?? "the daemon gave no reason", data: error["data"])
  }

  private func nextMessage() throws -> JSONValue? {
    do {
      guard let frame = try reader.next() else { return nil }
      return try JSONValue(parsing: frame, limits: .engine)
    } catch let fault as FrameFault {
      throw Stop.disconnected(fault.message)
    } catch let fault as JSONSyntaxError {
      throw Stop.disconnected("the daemon sent what is \(fault.description)")
    }
  }

  private func write(_ message: JSONValue, _ descriptors: [Int32] = []) throws {
    var payload: [UInt8] = []
    message.write(to: &payload)
    let frame = Framing.headers.frame(payload)
    do throws(SystemFault) {
      try socket.withRaw { (raw) throws(SystemFault) in
        var rest = frame[...]
        var passed = descriptors
        while !rest.isEmpty {
          rest = rest.dropFirst(try UnixSocket.send(raw, rest, descriptors: passed))
          passed = []
        }
      }
    } catch { throw Stop.disconnected(SystemFault.text(of: error.code)) }
  }

  /// Waits for bytes, or for the interrupt.
  private func fill(_ interrupt: Int32, _ id: Int64) throws {
    let raw = socket.withRaw { $0 }
    var waits = [
      pollfd(fd: raw, events: Int16(POLLIN), revents: 0), pollfd(fd: interrupt, events: Int16(POLLIN), revents: 0),
    ]
    do throws(SystemFault) {
      try check("poll") { poll(&waits, interrupt >= 0 ? 2 : 1, -1) }
    } catch { throw Stop.disconnected(SystemFault.text(of: error.code)) }
    if waits[1].revents != 0 {
      try write(Outgoing.cancel(id))
      throw Interrupted()
    }
    try read()
  }

  private func read() throws {
    let raw = socket.withRaw { $0 }
    try withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 16) { buffer in
      let got: Int
      do throws(SystemFault) { got = try check("read") { Glibc.read(raw, buffer.baseAddress, buffer.count) } } catch {
        throw Stop.disconnected(SystemFault.text(of: error.code))
      }
      guard got > 0 else { throw Stop.disconnected("the daemon closed the connection") }
      reader.append(UnsafeRawBufferPointer(rebasing: buffer[..<got]))
    }
  }
}
