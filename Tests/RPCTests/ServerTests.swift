import Foundation
import Glibc
import Linux
import Model
import RPC
import Synchronization
import Testing

/// Echoes, waits, streams: enough to see what the server itself does.
private struct Echo: RPCService {
  // Each guards a number: how many notices were taken over for one peer, and how many of their senders have ended.
  static let most = Mutex(0)
  static let ended = Mutex(0)
  /// Calls of `wait` that were cancelled.
  static let cancelled = Mutex(0)

  func begin(_ call: RPCCall) throws(RPCFailure) -> RPCAnswer {
    if call.method == "now" { return .now(call.parameters) }
    if call.method == "notices" {
      let said = Mutex(0)
      return .stream("begun") { notices in
        // Ends when the peer is gone.
        do {
          while true {
            try await notices.send("notice", .string(String(repeating: "x", count: 1000)))
            said.withLock { $0 += 1 }
            Echo.most.withLock { $0 = max($0, said.withLock { $0 }) }
          }
        } catch { Echo.ended.withLock { $0 += 1 } }
      }
    }
    return .later { () throws(RPCFailure) in try await answer(call) }
  }

  private func answer(_ call: RPCCall) async throws(RPCFailure) -> JSONValue {
    switch call.method {
    case "echo": return call.parameters
    case "read":
      // What stands at the start of each descriptor that came with the call.
      return .array(
        call.descriptors.map { descriptor in
          var bytes = [UInt8](repeating: 0, count: 64)
          let got = descriptor.withRaw { pread($0, &bytes, bytes.count, 0) }
          return .string(String(decoding: bytes[..<max(0, got)], as: UTF8.self))
        })
    case "groups": return .array(call.peer.groups.map { .integer(Int64($0)) })
    case "uid": return .integer(Int64(call.peer.uid))
    case "wait":
      do { try await Task.sleep(for: .seconds(60)) } catch {
        Echo.cancelled.withLock { $0 += 1 }
        throw RPCFailure(.closed, "cancelled")
      }
      return .null
    case "count":
      do { for number in 0..<(call.parameters["n"]?.integerValue ?? 0) { try await call.send(.integer(number)) } } catch
      { throw RPCFailure(.closed, "gone") }
      return "done"
    default: throw RPCFailure(.unknownMethod, "no such method")
    }
  }
}

/// A real server on a real socket in a folder of its own.
private final class Rig: Sendable {
  let loop: EventLoop
  let server: RPCServer
  let path: String

  init() async throws {
    path = "/tmp/appsup-rpc-\(UInt64.random(in: 0 ... .max))"
    let folder = try Folder(making: path, mode: 0o700)
    loop = try EventLoop(name: "rpc-test")
    server = RPCServer(
      loop: loop, listener: try UnixSocket.listen(folder, "s", mode: 0o600), service: Echo())
    try await server.start()
  }

  func client() throws -> RPCClient { try RPCClient(path: "\(path)/s") }

  func raw() throws -> Descriptor { try UnixSocket.connect("\(path)/s") }

  func end() async {
    await server.close()
    loop.stop()
    unlink("\(path)/s")
    rmdir(path)
  }
}

/// Writes all, then reads until `enough` bytes satisfy or the peer closes; 5 s at most.
private func exchange(_ socket: borrowing Descriptor, _ text: String, until enough: (String) -> Bool = { _ in false })
  throws -> (text: String, closed: Bool)
{
  try socket.withRaw { raw in
    try writeAll(raw, Array(text.utf8)[...], "test")
    var answer: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65536)
    while !enough(String(decoding: answer, as: UTF8.self)) {
      var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
      guard poll(&wait, 1, 5000) > 0 else { return (String(decoding: answer, as: UTF8.self), false) }
      let got = read(raw, &chunk, chunk.count)
      if got <= 0 { return (String(decoding: answer, as: UTF8.self), true) }
      answer += chunk[..<got]
    }
    return (String(decoding: answer, as: UTF8.self), false)
  }
}

/// Runs blocking work on a thread of its own: the pool has as many threads as the machine has cores, and the server's answers need them.
private func blocking<Result: Sendable>(_ body: @escaping @Sendable () throws -> Result) async throws -> Result {
  try await withCheckedThrowingContinuation { continuation in
    Thread { continuation.resume(with: Swift.Result { try body() }) }.start()
  }
}

@Suite(.timeLimit(.minutes(1))) struct ServerTests {
  @Test("a peer that is not admitted is closed before it is heard") func notAdmitted() async throws {
    let path = "/tmp/appsup-rpc-\(UInt64.random(in: 0 ... .max))"
    let folder = try Folder(making: path, mode: 0o700)
    let loop = try EventLoop(name: "rpc-test")
    let server = RPCServer(
      loop: loop, listener: try UnixSocket.listen(folder, "s", mode: 0o600), service: Echo(),
      admits: { $0.uid != geteuid() })
    try await server.start()
    let socket = try UnixSocket.connect("\(path)/s")
    socket.withRaw { raw in
      var byte: UInt8 = 0
      #expect(read(raw, &byte, 1) <= 0)
    }
    #expect(await server.connectionCount == 0)
    await server.close()
    loop.stop()
    unlink("\(path)/s")
    rmdir(path)
  }

  @Test("a call is answered, with the peer the kernel names")
  func call() async throws {
    let rig = try await Rig()
    try await blocking {
      let client = try rig.client()
      #expect(try client.call("echo", .object(["a": 1])) == .object(["a": 1]))
      #expect(try client.call("uid") == .integer(Int64(getuid())))
    }
    await rig.end()
  }

  @Test("a stream's items come in order before its answer, however many there are")
  func stream() async throws {
    let rig = try await Rig()
    try await blocking {
      var numbers: [Int64] = []
      let answer = try rig.client().call("count", .object(["n": 20000])) { numbers.append($0.integerValue ?? -1) }
      #expect(answer == "done")
      #expect(numbers == Array(0..<20000))
    }
    await rig.end()
  }

  @Test("a call can be cancelled, and the connection is good for the next")
  func cancel() async throws {
    let rig = try await Rig()
    try await blocking {
      let client = try rig.client()
      var ends: [Int32] = [0, 0]
      pipe(&ends)
      close(ends[1])
      #expect(throws: RPCClient.Interrupted.self) { try client.call("wait", interrupt: ends[0]) }
      close(ends[0])
      #expect(try client.call("echo", .object(["b": 2])) == .object(["b": 2]))
    }
    await rig.end()
  }

  @Test("a batch is answered as a batch, in order, notifications without an answer")
  func batch() async throws {
    let rig = try await Rig()
    let request =
      #"[{"jsonrpc":"2.0","id":1,"method":"echo","params":{"x":1}},{"jsonrpc":"2.0","method":"echo"},{"jsonrpc":"2.0","id":"z","method":"nope"}]"#
    let answer = try await blocking { try exchange(rig.raw(), request + "\n") { $0.contains("\n") }.text }
    let list = try JSONValue(parsing: Array(answer.utf8)).arrayValue
    #expect(list?.count == 2)
    #expect(list?.first?["result"]?["x"] == 1)
    #expect(list?.last?["error"]?["code"] == -32601)
    await rig.end()
  }

  @Test(
    "what is not a frame is told so and closed, and others notice nothing",
    arguments: [
      "{\n", "{\"a\":1,\"a\":2}\n", "Content-Length: 0\r\n\r\n", "\u{0}\n", "[]\n",
      String(repeating: "[", count: 100) + "\n", "{} x\n",
    ])
  func garbage(_ text: String) async throws {
    let rig = try await Rig()
    try await blocking {
      let good = try rig.client()
      let (answer, closed) = try exchange(rig.raw(), text)
      #expect(closed)
      #expect(answer.contains("\"error\""))
      #expect(try good.call("echo", .object(["c": 3])) == .object(["c": 3]))
    }
    await rig.end()
  }

  @Test("a request that is not right is answered with its id, and the connection stays")
  func badRequests() async throws {
    let rig = try await Rig()
    let requests =
      #"{"jsonrpc":"1.0","id":5,"method":"echo"}"# + "\n" + #"{"jsonrpc":"2.0","id":6,"method":"echo","params":7}"#
      + "\n"
    let (answer, closed) = try await blocking {
      try exchange(rig.raw(), requests) { $0.filter { $0 == "\n" }.count == 2 }
    }
    #expect(!closed)
    #expect(answer.contains("\"id\":5") && answer.contains("\"id\":6") && answer.contains("-32600"))
    await rig.end()
  }

  @Test("a peer that does not read holds back its own stream and nobody else")
  func slowReader() async throws {
    let rig = try await Rig()
    try await blocking {
      let slow = try rig.raw()
      let request = #"{"jsonrpc":"2.0","id":1,"method":"count","params":{"n":10000000}}"# + "\n"
      try slow.withRaw { try writeAll($0, Array(request.utf8)[...], "test") }
      let good = try rig.client()
      for _ in 0..<200 { #expect(try good.call("echo", .object(["d": 4])) == .object(["d": 4])) }
    }
    await rig.end()
  }

  @Test("a peer that reads, but always leaves something, costs no more than what it leaves")
  func leavesSome() async throws {
    let rig = try await Rig()
    try await blocking {
      func resident() -> Int {
        let words = (try? String(contentsOfFile: "/proc/self/statm", encoding: .utf8))?.split(separator: " ") ?? []
        return words.count > 1 ? (Int(words[1]) ?? 0) * 4096 : 0
      }
      let text = String(repeating: "x", count: 32768)
      let request = Array(#"{"jsonrpc":"2.0","id":1,"method":"now","params":["\#(text)"]}"#.utf8) + [10]
      let peer = try rig.raw()
      let first = try exchange(peer, String(decoding: request, as: UTF8.self)) { $0.hasSuffix("\n") }
      let size = first.text.utf8.count
      let before = resident()
      try peer.withRaw { raw in
        var chunk = [UInt8](repeating: 0, count: 65536)
        var owed = 0
        var got = 0
        while got < 256 << 20 {
          while owed < 850 << 10 {
            try writeAll(raw, request[...], "test")
            owed += size
          }
          while owed > 650 << 10 {
            var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
            guard poll(&wait, 1, 5000) > 0 else { throw POSIXError(.ETIMEDOUT) }
            let count = read(raw, &chunk, chunk.count)
            guard count > 0 else { throw POSIXError(.EPIPE) }
            owed -= count
            got += count
          }
        }
      }
      #expect(resident() - before < 64 << 20, "\((resident() - before) >> 20) MiB")
    }
    await rig.end()
  }

  @Test("a thousand connections that come and go leave nothing behind")
  func churn() async throws {
    let rig = try await Rig()
    try await blocking { for _ in 0..<1000 { _ = try rig.client() } }
    let deadline = Clock.monotonic() + 5_000_000_000
    var open = await rig.server.connectionCount
    while open > 0, Clock.monotonic() < deadline {
      await Task.yield()
      open = await rig.server.connectionCount
    }
    #expect(open == 0)
    await rig.end()
  }

  // MARK: Descriptors

  @Test("descriptors arrive with the call they were sent with, and with no other, however frames are cut")
  func passing() async throws {
    let rig = try await Rig()
    try await blocking {
      let first = try memory("one")
      let second = try memory("two")
      let client = try rig.client()
      let both = try first.withRaw { one in
        try second.withRaw { two in try client.call("read", descriptors: [one, two]) }
      }
      #expect(both == ["one", "two"])
      #expect(try client.call("read") == [])
      // A call before it in one write, its own frame in two, and one after it.
      let socket = try rig.raw()
      let plain = #"{"jsonrpc":"2.0","id":1,"method":"read"}"# + "\n"
      let start = #"{"jsonrpc":"2.0","id":2,"meth"#
      let rest = #"od":"read"}"# + "\n" + #"{"jsonrpc":"2.0","id":3,"method":"read"}"# + "\n"
      _ = try socket.withRaw { raw in
        try first.withRaw { try UnixSocket.send(raw, Array((plain + start).utf8)[...], descriptors: [$0]) }
      }
      let answers = try exchange(socket, rest) { $0.split(separator: "\n").count == 3 }.text
      #expect(
        answers.split(separator: "\n").sorted() == [
          #"{"jsonrpc":"2.0","id":1,"result":[]}"#, #"{"jsonrpc":"2.0","id":2,"result":["one"]}"#,
          #"{"jsonrpc":"2.0","id":3,"result":[]}"#,
        ])
    }
    await rig.end()
  }

  @Test(
    "a peer that passes too many descriptors, or piles them up before a frame, is closed and costs none",
    arguments: [(9, 1), (1, 30)])
  func flood(_ count: Int, _ times: Int) async throws {
    let rig = try await Rig()
    try await blocking {
      let file = try memory("x")
      let socket = try rig.raw()
      let isClosed = socket.withRaw { raw in
        file.withRaw { fd in
          for _ in 0..<times {
            // Once it is closed, sending fails.
            do { _ = try UnixSocket.send(raw, [0x20], descriptors: Array(repeating: fd, count: count)) } catch {
              return true
            }
            usleep(2000)
          }
          var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
          var byte: UInt8 = 0
          return poll(&wait, 1, 5000) == 1 && read(raw, &byte, 1) <= 0
        }
      }
      #expect(isClosed)
      #expect(try rig.client().call("echo", .object(["a": 1])) == .object(["a": 1]))
    }
    await rig.end()
  }

  @Test("what is answered at once comes in order, however many calls one write holds, and batches too")
  func atOnce() async throws {
    let rig = try await Rig()
    let calls = (0..<5000).map { #"{"jsonrpc":"2.0","id":\#($0),"method":"now","params":[\#($0)]}"# + "\n" }.joined()
    let batch =
      #"[{"jsonrpc":"2.0","id":"a","method":"now"},{"jsonrpc":"2.0","method":"now"},{"jsonrpc":"2.0","id":"b","method":"no"}]"#
    let socket = SharedDescriptor(try rig.raw())
    let answer = try await blocking {
      let own = Descriptor(owning: socket.withRaw { dup($0) })
      return try exchange(own, calls + batch + "\n") { $0.contains("\"b\"") }
    }
    let lines = answer.text.split(separator: "\n")
    #expect(lines.count == 5001)
    for (number, line) in lines.prefix(5000).enumerated() where !line.contains("\"id\":\(number),") {
      Issue.record("\(number): \(line)")
      break
    }
    #expect(lines.last?.contains(#""id":"a","result":{}"#) == true && lines.last?.contains("-32601") == true)
    await rig.end()
  }

  @Test("a peer that does not read is told little, keeps its connection, and goes on where it was")
  func notices() async throws {
    let rig = try await Rig()
    let socket = SharedDescriptor(try rig.raw())
    let first = try await blocking {
      let own = Descriptor(owning: socket.withRaw { dup($0) })
      return try exchange(own, #"{"jsonrpc":"2.0","id":1,"method":"notices"}"# + "\n") { $0.contains("notice") }
    }
    #expect(first.text.hasPrefix(#"{"jsonrpc":"2.0","id":1,"result":"begun"}"#), "\(first.text.prefix(100))")
    // Nothing is read now: what the kernel and the server hold does not grow.
    var before = -1
    while before != Echo.most.withLock({ $0 }) {
      before = Echo.most.withLock { $0 }
      try await Task.sleep(for: .milliseconds(100))
    }
    #expect(before < 2000, "\(before) kilobytes are held for one that does not read")
    let more = try await blocking {
      let own = Descriptor(owning: socket.withRaw { dup($0) })
      return try exchange(own, #"{"jsonrpc":"2.0","id":2,"method":"now"}"# + "\n") { $0.contains(#""id":2"#) }
    }
    #expect(!more.closed && more.text.contains("notice"))
    socket.withRaw { raw in _ = shutdown(raw, Int32(SHUT_RDWR)) }
    for _ in 0..<100 where Echo.ended.withLock({ $0 }) == 0 { try await Task.sleep(for: .milliseconds(20)) }
    #expect(Echo.ended.withLock { $0 } == 1)
    await rig.end()
  }

  @Test("whoever leaves takes all calls along, batches and notifications too")
  func leaving() async throws {
    let rig = try await Rig()
    let before = Echo.cancelled.withLock { $0 }
    let calls = [
      #"{"jsonrpc":"2.0","id":1,"method":"wait"}"#, #"{"jsonrpc":"2.0","method":"wait"}"#,
      #"[{"jsonrpc":"2.0","id":2,"method":"wait"},{"jsonrpc":"2.0","method":"wait"}]"#,
      #"{"jsonrpc":"2.0","id":3,"method":"now"}"#,
    ]
    _ = try await blocking {
      try exchange(try rig.raw(), calls.joined(separator: "\n") + "\n") { $0.contains(#""id":3"#) }
    }
    for _ in 0..<100 where Echo.cancelled.withLock({ $0 }) < before + 4 {
      try await Task.sleep(for: .milliseconds(20))
    }
    #expect(Echo.cancelled.withLock { $0 } >= before + 4)
    await rig.end()
  }

  @Test("a peer's supplementary groups are what the kernel says")
  func groups() async throws {
    let rig = try await Rig()
    try await blocking {
      var own = [gid_t](repeating: 0, count: 256)
      let count = getgroups(256, &own)
      let told = try rig.client().call("groups").arrayValue?.compactMap(\.integerValue).sorted()
      #expect(told == own[..<Int(count)].map { Int64($0) }.sorted())
    }
    await rig.end()
  }
}

private func memory(_ text: String) throws -> Descriptor {
  var name = Array("/tmp/appsup-passed-XXXXXX".utf8CString)
  let file = Descriptor(owning: try check("mkstemp", "/tmp") { mkstemp(&name) })
  unlink(&name)
  try file.withRaw { try writeAll($0, Array(text.utf8)[...], "memory") }
  return file
}
