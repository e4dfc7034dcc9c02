import Foundation
import Glibc
import Linux
import Model
import RPC
import Testing

/// Gives a file that holds `text`.
private struct Giving: RPCService {
  let folder: String

  func begin(_ call: RPCCall) throws(RPCFailure) -> RPCAnswer {
    guard call.method == "give" else { return .now(call.parameters) }
    let text = call.parameters["text"]?.stringValue ?? ""
    return .handing { () throws(RPCFailure) in
      do throws(SystemFault) {
        let file = try Folder(opening: folder).open(text, O_RDWR | O_CREAT)
        try file.withRaw { (raw) throws(SystemFault) in _ = try check("write") { write(raw, text, text.utf8.count) } }
        var result = JSONObject()
        result["name"] = .string(text)
        return RPCHanded(result, SharedDescriptor(file))
      } catch { throw RPCFailure(.fault, "\(error)") }
    }
  }
}

/// A client that keeps what is passed to it.
private final class Client {
  let socket: Descriptor
  var text = ""
  var passed: [SharedDescriptor] = []

  init(_ path: String) throws { socket = try UnixSocket.connect(path) }

  func send(_ text: String) throws {
    try socket.withRaw { (raw) throws(SystemFault) in try writeAll(raw, Array(text.utf8)[...], "test") }
  }

  /// Reads until so many lines are there; 5 s at most. Never holds up the pool, which the server's calls run on.
  func lines(_ count: Int) async throws -> [JSONValue] {
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: 65536, alignment: 16)
    defer { room.deallocate() }
    let end = Clock.monotonic() + 5_000_000_000
    while text.utf8.count(where: { $0 == 0x0A }) < count, Clock.monotonic() < end {
      let isReady = socket.withRaw { raw in
        var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, 0) > 0
      }
      guard isReady else {
        try await Task.sleep(for: .milliseconds(5))
        continue
      }
      let got = try socket.withRaw { (raw) throws(SystemFault) in
        try UnixSocket.receive(raw, into: room, descriptors: &passed)
      }
      if got == 0 { break }
      text += String(decoding: room[..<got], as: UTF8.self)
    }
    return try text.split(separator: "\n").map { try JSONValue(parsing: Array($0.utf8)) }
  }

  /// What the file behind the n-th descriptor holds.
  func content(_ index: Int) -> String {
    var bytes = [UInt8](repeating: 0, count: 64)
    let got = passed[index].withRaw { pread($0, &bytes, bytes.count, 0) }
    return String(decoding: bytes[..<max(0, got)], as: UTF8.self)
  }
}

@Suite("Answers with descriptors") struct HandingTests {
  private func with(_ body: (String) async throws -> Void) async throws {
    let path = "/tmp/appsup-hand-\(UInt64.random(in: 0 ... .max))"
    let folder = try Folder(making: path, mode: 0o700)
    let loop = try EventLoop(name: "rpc-test")
    let server = RPCServer(
      loop: loop, listener: try UnixSocket.listen(folder, "s", mode: 0o600), service: Giving(folder: path))
    try await server.start()
    try await body(path)
    await server.close()
    loop.stop()
    try FileManager.default.removeItem(atPath: path)
  }

  private func give(_ id: Int, _ text: String) -> String {
    #"{"jsonrpc":"2.0","id":\#(id),"method":"give","params":{"text":"\#(text)"}}"#
  }

  @Test("a descriptor comes with its frame, and the result says which it is")
  func one() async throws {
    try await with { path in
      let client = try Client("\(path)/s")
      try client.send(give(1, "first") + "\n")
      let answers = try await client.lines(1)
      #expect(answers.first?["result"]?.text == #"{"name":"first","fd":0}"#)
      #expect(client.passed.count == 1 && client.content(0) == "first")
    }
  }

  @Test("those of a batch come with its one frame, each under its own number")
  func batch() async throws {
    try await with { path in
      let client = try Client("\(path)/s")
      let plain = #"{"jsonrpc":"2.0","id":2,"method":"now","params":{}}"#
      try client.send("[\(give(1, "a")),\(plain),\(give(3, "b"))]\n")
      let answers = try await client.lines(1).first?.arrayValue ?? []
      #expect(answers.map { $0["result"]?["fd"]?.integerValue } == [0, nil, 1])
      #expect(client.passed.count == 2 && client.content(0) == "a" && client.content(1) == "b")
    }
  }

  @Test("many asked for at once all come, in the order of the answers, however late they are read")
  func many() async throws {
    try await with { path in
      let client = try Client("\(path)/s")
      try client.send((0..<500).map { give($0, "file-\($0)") + "\n" }.joined())
      try await Task.sleep(for: .milliseconds(200))
      let answers = try await client.lines(500)
      #expect(answers.count == 500 && client.passed.count == 500)
      let failed = answers.filter { $0["result"] == nil }
      #expect(failed.isEmpty, "\(failed.first?.text ?? "")")
      for (index, answer) in answers.enumerated() where index < client.passed.count {
        #expect(client.content(index) == answer["result"]?["name"]?.stringValue)
      }
    }
  }

  @Test("what was to be passed to one who went away is closed")
  func gone() async throws {
    try await with { path in
      func count() -> Int {
        ((try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd")) ?? []).count {
          (try? FileManager.default.destinationOfSymbolicLink(atPath: "/proc/self/fd/\($0)"))?.contains("/gone-")
            == true
        }
      }
      do {
        let client = try Client("\(path)/s")
        try client.send((0..<64).map { give($0, "gone-\($0)") + "\n" }.joined())
        try await Task.sleep(for: .milliseconds(50))
      }
      for _ in 0..<100 where count() > 0 { try await Task.sleep(for: .milliseconds(20)) }
      #expect(count() == 0)
    }
  }
}
