@testable import EngineAPI
import Glibc
import Linux
import Model
import Testing

@Suite("an engine that misbehaves")
struct FaultTests {
  private static let ok = "HTTP/1.1 200 OK\r\n"
  private static let limits = {
    var limits = EngineLimits()
    limits.call = .seconds(4)
    limits.answer = 1 << 20
    limits.listing = 1 << 20
    return limits
  }()

  /// Runs `body` against a fake that does `behaviour` for `/info` and `/exec/x/start`.
  private func with(
    _ behaviours: [String: FakeEngine.Behaviour], version: String = "1.41",
    _ body: (Engine, FakeEngine) async throws -> Void
  ) async throws {
    let fake = try FakeEngine(behaviours, version: version)
    defer { fake.stop() }
    let engine = try await Engine.connect(to: fake.endpoint, on: Rig.loop, limits: Self.limits)
    try await body(engine, fake)
    await engine.close()
    try await within { await fake.awaitConnections(atMost: 0) }
  }

  @Test("nobody listening is unreachable, and the text says where and what to do")
  func unreachable() async {
    let failed = await failure {
      _ = try await Engine.connect(to: EngineEndpoint(socket: "/nowhere/engine.sock"), on: Rig.loop)
    }
    guard case .unreachable(let socket, let reason) = failed else {
      Issue.record("\(String(describing: failed))")
      return
    }
    #expect(socket == "/nowhere/engine.sock" && reason == "No such file or directory")
    let long = await failure {
      let path = "/" + String(repeating: "x", count: 200)
      _ = try await Engine.connect(to: EngineEndpoint(socket: path), on: Rig.loop)
    }
    #expect("\(String(describing: long))".contains("107"))
  }

  @Test(
    "torn, hung and garbled answers each give their failure",
    arguments: [
      ("hung", FakeEngine.Behaviour.hang(after: ""), "timedOut"),
      ("hung inside the head", .hang(after: "HTTP/1.1 200 OK\r\nContent-"), "timedOut"),
      ("hung inside the body", .hang(after: "\(ok)Content-Length: 100\r\n\r\n{"), "timedOut"),
      ("closed at once", .answer(""), "interrupted"),
      ("torn body", .answer("\(ok)Content-Length: 100\r\n\r\n{"), "interrupted"),
      ("torn chunk", .answer("\(ok)Transfer-Encoding: chunked\r\n\r\n40\r\n{"), "interrupted"),
      ("not HTTP", .answer("SSH-2.0-OpenSSH_9.2\r\n"), "malformed"),
      ("not JSON", .answer("\(ok)Content-Length: 5\r\n\r\nhello"), "malformed"),
      ("nothing", .answer("\(ok)Content-Length: 0\r\n\r\n"), "malformed"),
      ("deep JSON", .answer("\(ok)\r\n\(String(repeating: "[", count: 100_000))"), "malformed"),
      ("endless body", .endless(head: "\(ok)\r\n", chunk: String(repeating: "[1,", count: 10_000)), "malformed"),
      ("endless head", .endless(head: ok, chunk: "X-Header: \(String(repeating: "x", count: 1000))\r\n"), "malformed"),
      (
        "1 GiB", .endless(head: "\(ok)Content-Length: 1073741824\r\n\r\n", chunk: String(repeating: " ", count: 65536)),
        "malformed"
      ),
      ("500 garbage", .answer("HTTP/1.1 500 Oops\r\nContent-Length: 11\r\n\r\n<html>\u{1}\u{2}\n\n\n"), "refused"),
      ("500 torn", .answer("HTTP/1.1 500 Oops\r\nContent-Length: 120\r\n\r\n<html>"), "interrupted"),
      (
        "500 endless", .endless(head: "HTTP/1.1 500 Oops\r\n\r\n", chunk: String(repeating: "x", count: 65536)),
        "malformed"
      ),
      (
        "redirect", .answer("HTTP/1.1 307 Elsewhere\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"),
        "malformed"
      ),
    ])
  func calls(_ name: String, _ behaviour: FakeEngine.Behaviour, _ expected: String) async throws {
    try await with(["info": behaviour]) { engine, fake in
      let failed = try await within(.seconds(10)) { await failure { _ = try await engine.info() } }
      #expect(failed?.kind == expected, "\(String(describing: failed))")
      #expect(fake.sent < 16 << 20)
      // The engine value is not harmed by it.
      _ = try await engine.ping()
    }
  }

  @Test("memory stays bounded while an engine sends without end")
  func memory() async throws {
    let flood = FakeEngine.Behaviour.endless(head: "\(Self.ok)\r\n", chunk: String(repeating: "{}\n", count: 20_000))
    try await with(["events": flood, "info": flood]) { engine, _ in
      let before = try residentBytes()
      let stream = try await engine.events()
      var iterator = stream.makeAsyncIterator()
      for _ in 0..<20 { #expect(await failure { _ = try await engine.info() } != nil) }
      #expect(try residentBytes() - before < 16 << 20)
      stream.cancel()
      #expect(await failure { while try await iterator.next() != nil {} } == .cancelled)
    }
  }

  @Test(
    "a connection to be taken over fails as clearly",
    arguments: [
      ("hung", FakeEngine.Behaviour.hang(after: ""), "timedOut"),
      ("hung inside the head", .hang(after: "HTTP/1.1 101 UPGRADED\r\n"), "timedOut"),
      ("closed at once", .answer(""), "interrupted"),
      ("torn head", .answer("HTTP/1.1 101 UPGR"), "interrupted"),
      ("not HTTP", .answer("hello there\r\n\r\n"), "malformed"),
      (
        "endless head", .endless(head: "HTTP/1.1 101 X\r\n", chunk: "X: \(String(repeating: "x", count: 1000))\r\n"),
        "malformed"
      ),
      ("409", .answer("HTTP/1.1 409 C\r\nContent-Length: 24\r\n\r\n{\"message\":\"is paused\"}\n"), "conflict"),
      (
        "409 in chunks, kept open",
        .hang(
          after: "HTTP/1.1 409 C\r\nTransfer-Encoding: chunked\r\n\r\n18\r\n{\"message\":\"is paused\"}\n\r\n0\r\n\r\n"),
        "conflict"
      ),
      (
        "500 without end", .endless(head: "HTTP/1.1 500 X\r\n\r\n", chunk: String(repeating: "x", count: 65536)),
        "refused"
      ),
    ])
  func hijack(_ name: String, _ behaviour: FakeEngine.Behaviour, _ expected: String) async throws {
    try await with(["start": behaviour]) { engine, _ in
      let failed = try await within(.seconds(10)) {
        await failure { _ = try await engine.startExec("x", terminal: false) }
      }
      #expect(failed?.kind == expected, "\(String(describing: failed))")
      _ = try await engine.ping()
    }
  }

  @Test("bytes that arrive with the head of a taken-over connection belong to its stream")
  func together() async throws {
    let frame = "\u{1}\0\0\0\0\0\0\u{5}hello"
    let answer = "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n\(frame)\(frame)"
    try await with(["start": .answer(answer)]) { engine, _ in
      let conversation = try await engine.startExec("x", terminal: false)
      let (output, _) = try await within { try await read(conversation.output) }
      #expect(output == "hellohello")
    }
  }

  @Test("a frame larger than allowed, a wrong one and a torn one end the stream")
  func frames() async throws {
    for (bytes, what) in [
      ("\u{1}\0\0\0\u{7f}\0\0\0x", "larger"), ("\u{9}\0\0\0\0\0\0\u{1}x", "framed"),
      ("\u{1}\0\0\0\0\0\0\u{9}x", "inside"),
    ] {
      try await with(["logs": .answer("\(Self.ok)\r\n\(bytes)")]) { engine, _ in
        let failed = await failure { _ = try await read(engine.containerLogs("x", terminal: false)) }
        #expect("\(String(describing: failed))".contains(what))
      }
    }
  }

  @Test("a stream on which nothing comes is timed out when asked, not while its reader is slow")
  func idle() async throws {
    let quiet = FakeEngine.Behaviour.hang(after: "\(Self.ok)\r\n{\"read\":\"x\"}\n")
    try await with(["stats": quiet]) { engine, _ in
      var iterator = try await engine.containerStats("x", idle: .milliseconds(200)).makeAsyncIterator()
      #expect(try await iterator.next() != nil)
      let failed = try await within { [iterator] in
        var iterator = iterator
        do { _ = try await iterator.next() } catch { return error as? EngineFailure }
        return nil
      }
      #expect(failed == .timedOut(operation: "read the usage of container x", after: .milliseconds(200)))
    }
  }

  @Test("cancelled calls and dropped streams close their connections and leave no descriptor")
  func leaks() async throws {
    let behaviours: [String: FakeEngine.Behaviour] = [
      "info": .hang(after: ""), "events": .hang(after: "\(Self.ok)\r\n{}\n"),
      "start": .hang(after: "HTTP/1.1 101 UPGRADED\r\n\r\n"),
    ]
    try await with(behaviours) { engine, fake in
      let before = try Folder(opening: "/proc/self/fd").names().count
      for _ in 0..<50 {
        let call = Task { try await engine.info() }
        call.cancel()
        _ = await call.result
        _ = try await engine.events()
        _ = try await engine.startExec("x", terminal: false)
      }
      try await within { await fake.awaitConnections(atMost: 1) }
      let after = try Folder(opening: "/proc/self/fd").names().count
      // Other suites run beside this one and open some of their own.
      #expect(after - before < 40)
    }
  }

  @Test("a kept connection that the engine has closed is not used again")
  func stale() async throws {
    try await with(["info": .once("\(Self.ok)Content-Length: 2\r\n\r\n{}")]) { engine, _ in
      for _ in 0..<20 { _ = try await engine.info() }
    }
  }

  @Test("what was sent as a secret is cut out of the engine's words")
  func secrets() async throws {
    let message = "bad variable PASSWORD=hunter2-hunter2"
    let body = "{\"message\":\"\(message)\"}"
    let answer = "HTTP/1.1 400 Bad\r\nContent-Length: \(body.utf8.count)\r\n\r\n\(body)"
    try await with(["create": .answer(answer), "exec": .answer(answer)]) { engine, _ in
      var spec = ContainerSpec(image: "x")
      spec.environment = [("PASSWORD", "hunter2-hunter2")]
      let failed = await failure { _ = try await engine.createContainer(spec, named: "a") }
      #expect(
        failed == .refused(operation: "create container a", status: 400, message: "bad variable PASSWORD=[hidden]"))
      var exec = ExecSpec(["x"])
      exec.environment = spec.environment
      let second = await failure { _ = try await engine.createExec(in: "a", exec) }
      #expect(!"\(String(describing: second))".contains("hunter2"))
    }
  }

  @Test("an engine that refuses an upload early is heard at once")
  func earlyRefusal() async throws {
    let answer = "HTTP/1.1 400 Bad\r\nContent-Length: 26\r\nConnection: close\r\n\r\n{\"message\":\"not a tar......\"}"
    try await with(["load": .answer(answer)]) { engine, _ in
      let endless = ByteSource { [UInt8](repeating: 0, count: 65536) }
      let failed = try await within {
        await failure { for try await _ in try await engine.loadImages(endless) {} }
      }
      // The engine closing while we send may be seen before its words.
      #expect(failed != nil)
    }
  }

  @Test("the version spoken is one both know; without one the reason is told")
  func negotiation() async throws {
    try await with([:], version: "1.44") { engine, _ in #expect(engine.apiVersion == APIVersion(1, 44)) }
    let newer = "\(Self.ok)Content-Length: 24\r\n\r\n{\"MinAPIVersion\":\"1.44\"}"
    try await with(["version": .json(newer)], version: "1.99") { engine, fake in
      #expect(engine.apiVersion == .newest)
      _ = await failure { _ = try await engine.info() }
      #expect(fake.requests.last == "GET /v1.47/info HTTP/1.1")
    }
    let tooNew = "\(Self.ok)Content-Length: 24\r\n\r\n{\"MinAPIVersion\":\"1.90\"}"
    for (behaviours, version, words) in [
      (["version": FakeEngine.Behaviour.json(tooNew)], "1.99", "1.90"), ([:], "1.40", "1.40"),
      ([:], "2", "Api-Version"),
    ] {
      let failed = await failure { try await with(behaviours, version: version) { _, _ in } }
      #expect("\(String(describing: failed))".contains(words))
    }
  }
}

extension EngineFailure {
  /// The case's name.
  var kind: String {
    switch self {
    case .unreachable: "unreachable"
    case .timedOut: "timedOut"
    case .interrupted: "interrupted"
    case .refused: "refused"
    case .unauthorized: "unauthorized"
    case .notFound: "notFound"
    case .conflict: "conflict"
    case .malformed: "malformed"
    case .unsupported: "unsupported"
    case .sourceFailed: "sourceFailed"
    case .cancelled: "cancelled"
    }
  }
}
