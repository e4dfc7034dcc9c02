import Foundation
import Glibc
import Linux
import Model
import RPC
import Synchronization
import Testing

/// Answers at once, or when it is cancelled.
private struct Waiting: RPCService {
  func begin(_ call: RPCCall) throws(RPCFailure) -> RPCAnswer {
    let method = call.method
    return .later { () throws(RPCFailure) in
      if method == "wait" {
        do { try await Task.sleep(for: .seconds(60)) } catch { throw RPCFailure(.closed, "cancelled") }
      }
      return .string(method)
    }
  }
}

/// A server whose quota binds who connects while `isBound` says so: all connections of a test have the same uid.
private final class Rig: Sendable {
  let loop: EventLoop
  let server: RPCServer
  let path: String
  let isBound = Mutex(true)
  // Guards: clients, all closed at the end.
  private let open = Mutex<[Int32]>([])

  init(_ change: (inout PeerQuota) -> Void) async throws {
    path = "/tmp/appsup-quota-\(UInt64.random(in: 0 ... .max))"
    let folder = try Folder(making: path, mode: 0o700)
    loop = try EventLoop(name: "quota-test")
    let box = Box()
    var quota = PeerQuota { _ in box.rig?.isBound.withLock { $0 } ?? true }
    change(&quota)
    server = RPCServer(
      loop: loop, listener: try UnixSocket.listen(folder, "s", mode: 0o600), service: Waiting(), quota: quota)
    box.rig = self
    try await server.start()
  }

  /// SAFETY: set once, before the server takes a connection.
  private final class Box: @unchecked Sendable { weak var rig: Rig? }

  /// A connection; reads wait for at most five seconds.
  func client() throws -> Int32 {
    let raw = try UnixSocket.connect("\(path)/s").release()
    var wait = timeval(tv_sec: 5, tv_usec: 0)
    setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
    open.withLock { $0.append(raw) }
    return raw
  }

  /// Ends one of them; its number may be another's at once.
  func hangUp(_ raw: Int32) {
    open.withLock { $0.removeAll { $0 == raw } }
    close(raw)
  }

  func end() async {
    for raw in open.withLock({ $0 }) { close(raw) }
    await server.close()
    loop.stop()
    unlink("\(path)/s")
    rmdir(path)
  }
}

private func say(_ raw: Int32, _ method: String, _ id: Int = 1) {
  let text = #"{"jsonrpc":"2.0","id":\#(id),"method":"\#(method)","params":{}}"# + "\n"
  _ = text.withCString { send(raw, $0, strlen($0), Int32(MSG_NOSIGNAL)) }
}

/// What comes within `seconds`; nil: nothing; empty: the end.
private func hear(_ raw: Int32, seconds: Double = 5) -> String? {
  var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
  guard poll(&wait, 1, Int32(seconds * 1000)) > 0 else { return nil }
  var bytes = [UInt8](repeating: 0, count: 65_536)
  let got = read(raw, &bytes, bytes.count)
  return String(decoding: bytes.prefix(max(0, got)), as: UTF8.self)
}

/// On a thread of its own: the server's answers need those of the pool.
private func blocking(_ body: @escaping @Sendable () throws -> Void) async throws {
  try await withCheckedThrowingContinuation { continuation in
    Thread { continuation.resume(with: Result { try body() }) }.start()
  }
}

@Suite("what one user's connections hold together", .timeLimit(.minutes(1))) struct QuotaTests {
  @Test("one connection too many is told so and closed; others and root are let in")
  func connections() async throws {
    let rig = try await Rig { $0.connections = 3 }
    try await blocking {
      var first: [Int32] = []
      for _ in 0..<3 {
        let raw = try rig.client()
        say(raw, "echo")
        #expect(hear(raw)?.contains("echo") == true)
        first.append(raw)
      }
      let fourth = try rig.client()
      #expect(hear(fourth)?.contains("3 connections") == true)
      #expect(hear(fourth) == "")
      rig.isBound.withLock { $0 = false }
      let root = try rig.client()
      say(root, "echo")
      #expect(hear(root)?.contains("echo") == true)
      rig.isBound.withLock { $0 = true }
      rig.hangUp(first[0])
      // Once the server has seen that.
      var again = ""
      for _ in 0..<100 where !again.contains("echo") {
        let raw = try rig.client()
        say(raw, "echo")
        again = hear(raw) ?? ""
      }
      #expect(again.contains("echo"))
    }
    await rig.end()
  }

  @Test("calls past the bound wait for one to end, on whichever connection, and root's do not")
  func calls() async throws {
    let rig = try await Rig { $0.calls = 2 }
    try await blocking {
      let first = try rig.client()
      say(first, "wait", 1)
      say(first, "wait", 2)
      usleep(100_000)
      let second = try rig.client()
      say(second, "echo")
      #expect(hear(second, seconds: 0.3) == nil)
      rig.isBound.withLock { $0 = false }
      let root = try rig.client()
      say(root, "echo")
      #expect(hear(root)?.contains("echo") == true)
      rig.hangUp(first)
      #expect(hear(second)?.contains("echo") == true)
    }
    await rig.end()
  }

  @Test("bytes of frames that do not end are bounded over all connections; what is whole is served when there is room")
  func bytes() async throws {
    let rig = try await Rig { $0.bytes = 1 << 20 }
    try await blocking {
      let part = [UInt8](repeating: UInt8(ascii: " "), count: 1 << 16)
      var taken = 0
      var clients: [Int32] = []
      for _ in 0..<4 {
        let raw = try rig.client()
        clients.append(raw)
        _ = send(raw, "[", 1, 0)
        for _ in 0..<60 {
          var wait = pollfd(fd: raw, events: Int16(POLLOUT), revents: 0)
          guard poll(&wait, 1, 100) > 0 else { break }
          let got = send(raw, part, part.count, Int32(MSG_DONTWAIT | MSG_NOSIGNAL))
          guard got > 0 else { break }
          taken += got
        }
      }
      // What the kernel keeps of each connection comes on top.
      #expect(taken < 4 << 20, "\(taken)")
      for raw in clients { rig.hangUp(raw) }
      let later = try rig.client()
      say(later, "echo")
      #expect(hear(later)?.contains("echo") == true)
    }
    await rig.end()
  }

  @Test("one who keeps more descriptors in calls under way than she may is closed, and they with her")
  func descriptors() async throws {
    let rig = try await Rig { $0.descriptors = 4 }
    try await blocking {
      func files() -> Int { (try? FileManager.default.contentsOfDirectory(atPath: "/proc/self/fd").count) ?? 0 }
      let raw = try rig.client()
      let before = files()
      let null = open("/dev/null", O_RDONLY | O_CLOEXEC)
      for id in 1...3 {
        let text = #"{"jsonrpc":"2.0","id":\#(id),"method":"wait","params":{}}"# + "\n"
        _ = try? UnixSocket.send(raw, Array(text.utf8)[...], descriptors: [null, null])
        usleep(50_000)
      }
      close(null)
      #expect(hear(raw) == "")
      for _ in 0..<100 where files() > before { usleep(20_000) }
      #expect(files() <= before)
    }
    await rig.end()
  }
}
