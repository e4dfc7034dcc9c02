import EngineAPI
import Glibc
import Linux
import Model
import Synchronization
import Testing

/// An Engine that misbehaves on purpose. Only for faults that a real one does not produce on demand.
final class FakeEngine: Sendable {
  enum Behaviour: Sendable, CustomTestStringConvertible {
    /// Sends this and closes.
    case answer(String)
    /// Sends this and keeps the connection open without another word.
    case hang(after: String)
    /// Sends the head, then the chunk for ever.
    case endless(head: String, chunk: String)
    /// A good answer on a kept connection.
    case json(String)
    /// A good answer, and the connection is closed though it was to be kept.
    case once(String)

    var testDescription: String { "…" }
  }

  private struct State {
    var behaviours: [String: Behaviour] = [:]
    var requests: [String] = []
    var open = 0
    var sent = 0
    var waiters: [(Int, CheckedContinuation<Void, Never>)] = []
  }

  let endpoint: EngineEndpoint
  private let loop: EventLoop
  private let state = Mutex(State())
  private let folder: String
  static let numbers = Atomic<Int>(0)

  /// Answers pings with `version`; `behaviours` say what is done for a path's last part.
  init(_ behaviours: [String: Behaviour], version: String = "1.41") throws {
    let number = Self.numbers.add(1, ordering: .relaxed).newValue
    folder = "/tmp/appsup-test-fake-\(getpid())-\(number)"
    loop = try EventLoop(name: "fake-engine")
    let directory = try Folder(making: folder)
    let listener = SharedDescriptor(try UnixSocket.listen(directory, "engine.sock", mode: 0o600))
    endpoint = EngineEndpoint(socket: "\(folder)/engine.sock")
    let ping = "HTTP/1.1 200 OK\r\nApi-Version: \(version)\r\nServer: Docker/fake\r\nContent-Length: 2\r\n\r\nOK"
    state.withLock { $0.behaviours = behaviours.merging(["_ping": .json(ping)]) { own, _ in own } }
    loop.submit { [self, loop] in
      listener.withRaw { raw in
        do {
          try loop.watch(raw, .read) { _ in
            listener.withRaw { raw in
              var client = accept(raw, nil, nil)
              while client >= 0 {
                self.serve(client)
                client = accept(raw, nil, nil)
              }
            }
          }
        } catch { fatalError("\(error)") }
      }
    }
  }

  /// Ends it and removes its socket.
  func stop() {
    loop.stop()
    unlink(endpoint.socket)
    rmdir(folder)
  }

  /// Request lines so far.
  var requests: [String] { state.withLock { $0.requests } }
  /// Bytes sent so far.
  var sent: Int { state.withLock { $0.sent } }

  /// Suspends until at most `count` connections are open.
  func awaitConnections(atMost count: Int) async {
    await withCheckedContinuation { continuation in
      let now = state.withLock { state in
        if state.open <= count { return true }
        state.waiters.append((count, continuation))
        return false
      }
      if now { continuation.resume() }
    }
  }

  private func changeOpen(_ by: Int) {
    let ready = state.withLock { state in
      state.open += by
      let ready = state.waiters.filter { state.open <= $0.0 }
      state.waiters.removeAll { state.open <= $0.0 }
      return ready
    }
    for (_, waiter) in ready { waiter.resume() }
  }

  // MARK: On the loop

  private func serve(_ client: Int32) {
    _ = fcntl(client, F_SETFL, O_NONBLOCK)
    changeOpen(1)
    var received: [UInt8] = []
    var flooding: [UInt8]?
    do {
      try loop.watch(client, .read) { [self] ready in
        if ready.contains(.write), let chunk = flooding {
          for _ in 0..<16 {
            let count = send(client, chunk, chunk.count, Int32(MSG_NOSIGNAL))
            if count < 0 { break }
            state.withLock { $0.sent += count }
          }
        }
        guard !ready.isDisjoint(with: [.read, .hangUp]) else { return }
        var buffer = [UInt8](repeating: 0, count: 65536)
        let count = read(client, &buffer, buffer.count)
        if count == 0 || (count < 0 && errno != EAGAIN) { return close(client) }
        guard count > 0 else { return }
        received += buffer[..<count]
        // A body is not waited for: what is tested does not depend on it.
        guard flooding == nil, let end = Self.headEnd(received) else { return }
        let head = String(decoding: received[..<end], as: UTF8.self)
        received = []
        if let chunk = act(client, head) {
          flooding = chunk
          loop.setInterest(client, [.read, .write])
        }
      }
    } catch { fatalError("\(error)") }
  }

  private static func headEnd(_ bytes: [UInt8]) -> Int? {
    guard bytes.count >= 4 else { return nil }
    return (4...bytes.count).first {
      bytes[$0 - 1] == 10 && bytes[$0 - 2] == 13 && bytes[$0 - 3] == 10 && bytes[$0 - 4] == 13
    }
  }

  /// Does what the path asks for; returns what is to be sent for ever.
  private func act(_ client: Int32, _ head: String) -> [UInt8]? {
    let line = String(head.prefix { $0 != "\r\n" })
    let path = line.split(separator: " ").dropFirst().first?.prefix { $0 != "?" } ?? ""
    let last = path.split(separator: "/").last.map { String($0) } ?? ""
    let behaviour = state.withLock { state in
      state.requests.append(line)
      return state.behaviours[last]
    }
    func say(_ text: String) { _ = send(client, text, text.utf8.count, Int32(MSG_NOSIGNAL)) }
    switch behaviour {
    case .answer(let text):
      say(text)
      close(client)
    case .hang(let text): say(text)
    case .endless(let head, let chunk):
      say(head)
      return Array(chunk.utf8)
    case .json(let text): say(text)
    case .once(let text):
      say(text)
      close(client)
    case nil: say("HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\n\r\n{\"message\":\"no\"}\n")
    }
    return nil
  }

  private func close(_ client: Int32) {
    loop.unwatch(client)
    Glibc.close(client)
    changeOpen(-1)
  }
}
