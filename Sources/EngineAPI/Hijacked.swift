internal import CCurl
internal import Linux
internal import Model

/// A connection taken over from HTTP (attach, exec): our own request head, the Engine's bounded answer head, then bytes both ways.
/// Touched only on the loop; every method runs inside its transport.
final class Hijacked {
  private enum Stage {
    case connecting
    case head
    /// An error answer is being collected.
    case refused
    case open
    case ended
  }

  private struct Write {
    var bytes: [UInt8]
    var offset = 0
    var writer: CheckedContinuation<EngineFailure?, Never>?
  }

  let id: UInt64
  private let easy: UnsafeMutableRawPointer
  private let request: Request
  private let channel: ByteChannel
  private var opener: CheckedContinuation<Result<AnswerHead, EngineFailure>, Never>?
  private var stage = Stage.connecting
  private var socket: Int32 = -1
  private var watching = false
  private var head = AnswerHead()
  private var received: [UInt8] = []
  private var writes: [Write] = []
  private var inputEnding = false
  private var inputEnded = false
  /// What the full channel did not take; nothing more is read until it does.
  private var stalled: [UInt8]?
  private static let readsPerTurn = 8

  init(
    id: UInt64, easy: UnsafeMutableRawPointer, request: Request, channel: ByteChannel,
    opener: CheckedContinuation<Result<AnswerHead, EngineFailure>, Never>
  ) {
    self.id = id
    self.easy = easy
    self.request = request
    self.channel = channel
    self.opener = opener
  }

  var isOpen: Bool { stage == .open }

  // MARK: Beginning

  /// The connection stands: sends the request.
  func begin(_ socket: Int32, on transport: isolated Transport) {
    self.socket = socket
    stage = .head
    var body: [UInt8] = []
    if case .json(let document) = request.body { document.write(to: &body) }
    var lines = ["\(request.method.rawValue) \(request.target) HTTP/1.1", "Host: engine"]
    lines += request.headers.map { "\($0.0): \($0.1)" }
    lines += ["Connection: Upgrade", "Upgrade: tcp"]
    if !body.isEmpty { lines.append("Content-Type: application/json") }
    lines += ["Content-Length: \(body.count)", "", ""]
    writes.append(Write(bytes: Array(lines.joined(separator: "\r\n").utf8) + body))
    flush(on: transport)
    adjust(on: transport)
  }

  // MARK: Sending

  func write(_ bytes: [UInt8], _ writer: CheckedContinuation<EngineFailure?, Never>, on transport: isolated Transport) {
    guard stage == .open, !inputEnding, !inputEnded else {
      writer.resume(returning: .interrupted(operation: request.operation))
      return
    }
    writes.append(Write(bytes: bytes, writer: writer))
    flush(on: transport)
    adjust(on: transport)
  }

  /// Ends our side once all that was written has gone out.
  func endInput(on transport: isolated Transport) {
    guard stage == .open else { return }
    inputEnding = true
    flush(on: transport)
    adjust(on: transport)
  }

  private func flush(on transport: isolated Transport) {
    while let write = writes.first {
      var sent = 0
      let code = write.bytes.withUnsafeBytes { bytes in
        curl_easy_send(easy, bytes.baseAddress.map { $0 + write.offset }, bytes.count - write.offset, &sent)
      }
      if code == CURLE_AGAIN { return }
      guard code == CURLE_OK else {
        // The Engine takes no more input; what it still says is read to its end.
        inputEnded = true
        return failWrites(.interrupted(operation: request.operation))
      }
      writes[0].offset += sent
      guard writes[0].offset == write.bytes.count else { continue }
      writes.removeFirst()
      write.writer?.resume(returning: nil)
    }
    if inputEnding, !inputEnded {
      inputEnded = true
      UnixSocket.endWriting(socket)
    }
  }

  private func failWrites(_ failure: EngineFailure) {
    let waiting = writes
    writes = []
    for write in waiting { write.writer?.resume(returning: failure) }
  }

  // MARK: Receiving

  func ready(_ interest: EventLoop.Interest, on transport: isolated Transport) {
    if interest.contains(.write) { flush(on: transport) }
    if !interest.isDisjoint(with: [.read, .hangUp]) { receive(on: transport) }
    adjust(on: transport)
  }

  /// The reader has made room.
  func resume(on transport: isolated Transport) {
    guard let held = stalled else { return }
    stalled = nil
    deliver(held[...], on: transport)
    adjust(on: transport)
  }

  private func receive(on transport: isolated Transport) {
    for _ in 0..<Self.readsPerTurn where stage != .ended && stalled == nil {
      var count = 0
      var code = CURLE_OK
      let bytes = [UInt8](unsafeUninitializedCapacity: 32768) { buffer, used in
        code = curl_easy_recv(easy, buffer.baseAddress, buffer.count, &count)
        used = code == CURLE_OK ? count : 0
      }
      if code == CURLE_AGAIN { return }
      guard code == CURLE_OK, count > 0 else { return ended(cleanly: code == CURLE_OK, on: transport) }
      switch stage {
      case .open: deliver(bytes[...], on: transport)
      case .head, .refused:
        received += bytes
        readHead(on: transport)
      case .connecting, .ended: return
      }
    }
  }

  private func deliver(_ bytes: ArraySlice<UInt8>, on transport: isolated Transport) {
    guard !bytes.isEmpty else { return }
    switch bytes.withUnsafeBytes({ channel.offer($0) }) {
    case .taken: break
    case .full: stalled = Array(bytes)
    case .closed: end(.cancelled, on: transport)
    }
  }

  private func readHead(on transport: isolated Transport) {
    if stage == .head {
      guard let length = Self.headLength(received) else {
        guard received.count <= transport.limits.head else {
          let what = "its head is larger than \(transport.limits.head) bytes"
          return end(.malformed(operation: request.operation, what: what), on: transport)
        }
        return
      }
      let lines = received[..<length].split(separator: 10)
      let words = String(decoding: lines.first ?? [], as: UTF8.self).split(separator: " ", maxSplits: 2)
      guard words.count > 1, words[0].hasPrefix("HTTP/1."), let status = Int(words[1].prefix(3)) else {
        return end(.malformed(operation: request.operation, what: "it is not HTTP"), on: transport)
      }
      head.status = status
      for line in lines.dropFirst() { head.headers.add(line) }
      received.removeFirst(length)
      guard status == 101 || status == 200 else {
        stage = .refused
        return readRefusal(on: transport, ended: false)
      }
      stage = .open
      opener.take()?.resume(returning: .success(head))
      let rest = received
      received = []
      deliver(rest[...], on: transport)
    } else {
      readRefusal(on: transport, ended: false)
    }
  }

  /// Ends with the Engine's reason once its body is whole: as long as it says, or (in chunks) a whole JSON document.
  private func readRefusal(on transport: isolated Transport, ended: Bool) {
    let whole: Bool
    if let length = head.headers["content-length"].flatMap({ Int($0) }) {
      whole = received.count >= length
    } else {
      if let start = received.firstIndex(of: UInt8(ascii: "{")), let end = received.lastIndex(of: UInt8(ascii: "}")),
        start < end
      {
        received = Array(received[start...])
        // Best effort: until it parses, more is coming.
        whole = (try? JSONValue(parsing: received[...(end - start)], limits: .engine)) != nil
        if whole { received = Array(received[...(end - start)]) }
      } else {
        whole = false
      }
    }
    guard whole || ended || received.count > 65536 else { return }
    end(.answer(head.status, received, to: request), on: transport)
  }

  private static func headLength(_ bytes: [UInt8]) -> Int? {
    guard bytes.count >= 4 else { return nil }
    for index in 3..<bytes.count
    where bytes[index] == 10 && bytes[index - 1] == 13 && bytes[index - 2] == 10 && bytes[index - 3] == 13 {
      return index + 1
    }
    return nil
  }

  // MARK: Ending

  private func ended(cleanly: Bool, on transport: isolated Transport) {
    switch stage {
    case .open: end(cleanly ? nil : .interrupted(operation: request.operation), on: transport)
    case .refused: readRefusal(on: transport, ended: true)
    case .connecting, .head: end(.interrupted(operation: request.operation), on: transport)
    case .ended: break
    }
  }

  /// Ends the conversation and tells everyone who waits. Nil: the Engine ended it. Safe to repeat.
  func end(_ failure: EngineFailure?, on transport: isolated Transport) {
    guard stage != .ended else { return }
    stage = .ended
    if watching { transport.loop.unwatch(socket) }
    watching = false
    transport.forgetConnection(id)
    failWrites(failure ?? .interrupted(operation: request.operation))
    opener.take()?.resume(returning: .failure(failure ?? .interrupted(operation: request.operation)))
    channel.finish(failure)
  }

  /// Waits for what is of use now. Nothing: not watched at all, since a hang-up would be reported again and again.
  private func adjust(on transport: isolated Transport) {
    guard stage != .ended, socket >= 0 else { return }
    var interest: EventLoop.Interest = []
    if stalled == nil { interest.insert(.read) }
    if !writes.isEmpty { interest.insert(.write) }
    if interest.isEmpty {
      if watching { transport.loop.unwatch(socket) }
      watching = false
    } else if watching {
      transport.loop.setInterest(socket, interest)
    } else {
      watch(interest, on: transport)
    }
  }

  private func watch(_ interest: EventLoop.Interest, on transport: isolated Transport) {
    let id = id
    do throws(SystemFault) {
      try transport.loop.watch(socket, interest) { [weak transport] ready in
        transport?.assumeIsolated { transport in transport.hijacked[id]?.ready(ready, on: transport) }
      }
      watching = true
    } catch {
      end(.unreachable(socket: transport.socket, reason: "\(error)"), on: transport)
    }
  }
}
