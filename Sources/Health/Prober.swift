package import Linux
package import Model

/// Tries over an app's own network whether it answers. One thread carries all checks; none of them waits for another.
///
/// What is at the other end may be hostile: it decides whether and what it answers, and nothing else. Addresses are the loopback's of
/// the app's network namespace, redirects are not followed, at most `HTTPAnswer.maximumBytes` are read and none kept, and after
/// the timeout the connection is gone.
package final class Prober: Sendable {
  private let loop: EventLoop
  private let home: SharedDescriptor

  /// Starts the thread.
  package init() throws(SystemFault) {
    home = SharedDescriptor(try Namespaces.ownNetwork())
    loop = try EventLoop(name: "probes")
  }

  deinit { loop.stop() }

  /// One check of `test`, which is `http` or `tcp`, in the network of the process `pid` if that lies in `cgroup` or below.
  package func probe(_ test: Healthcheck.Test, of pid: Int32, in cgroup: String, timeout: Duration) async
    -> ProbeOutcome
  {
    let target = Attempt.Target(pid: pid, cgroup: cgroup, home: home)
    let attempt: Attempt
    switch test {
    case .tcp(let port): attempt = Attempt(port: port, path: nil, target, loop)
    case .http(let port, let path): attempt = Attempt(port: port, path: path, target, loop)
    case .image, .none, .command: return .unknown("no check over the network")
    }
    return await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        loop.submit { attempt.begin(timeout) { continuation.resume(returning: $0) } }
      }
    } onCancel: {
      loop.submit { attempt.finish(.unknown("cancelled")) }
    }
  }
}

/// One check, from its socket to its outcome; everything happens on the loop.
private final class Attempt: @unchecked Sendable {
  // SAFETY: every member is touched on the loop's thread only.
  private static let drainTime = Duration.seconds(1)

  private let port: UInt16
  private let path: String?
  private let target: Target
  private let loop: EventLoop
  private var answer = HTTPAnswer()
  private var socket: SharedDescriptor?
  private var timer: EventLoop.TimerID?
  private var told: ((ProbeOutcome) -> Void)?
  private var isOver = false
  private var isSent = false
  private var firstCode: Int32 = 0

  struct Target {
    var pid: Int32
    var cgroup: String
    var home: SharedDescriptor
  }

  init(port: UInt16, path: String?, _ target: Target, _ loop: EventLoop) {
    self.port = port
    self.path = path
    self.target = target
    self.loop = loop
  }

  func begin(_ timeout: Duration, _ told: @escaping (ProbeOutcome) -> Void) {
    guard !isOver else { return told(.unknown("cancelled")) }
    self.told = told
    timer = loop.schedule(after: timeout) { [self] in
      finish(.unhealthy(isSent ? "no answer within \(timeout.compact)" : "no connection within \(timeout.compact)"))
    }
    connect(.v4)
  }

  private func connect(_ family: TCP.Family) {
    do throws(SystemFault) {
      // Looked at for each check: the number may have come to mean another process meanwhile.
      let process = try Pidfd(of: target.pid, in: target.cgroup)
      let made = SharedDescriptor(
        try Namespaces.inNetwork(of: process, home: target.home) { () throws(SystemFault) in
          try TCP.connectLoopback(port, family)
        })
      try made.withRaw { (raw) throws(SystemFault) in
        try loop.watch(raw, .write) { [self] _ in connected(raw, family) }
      }
      socket = made
    } catch  where error.call == "connect" {
      refused(error.code, family)
    } catch {
      // Its program is gone, and its end will be told; or this host cannot do it.
      finish(.unknown("its network cannot be entered: \(error)"))
    }
  }

  private func refused(_ code: Int32, _ family: TCP.Family) {
    unwatch()
    // Some servers listen on ::1 alone; what is said is why 127.0.0.1 did not answer.
    if family == .v4 {
      firstCode = code
      return connect(.v6)
    }
    finish(.unhealthy("port \(port): \(SystemFault.text(of: firstCode))"))
  }

  private func connected(_ raw: Int32, _ family: TCP.Family) {
    let code = TCP.pendingError(raw)
    guard code == 0 else { return refused(code, family) }
    guard let path else { return finish(.healthy) }
    let request =
      "GET \(path) HTTP/1.1\r\nHost: localhost:\(port)\r\nUser-Agent: appsupervisor\r\nAccept: */*\r\n"
      + "Connection: close\r\n\r\n"
    isSent = true
    // A new connection takes this much at once; one that does not has an app at the other end that does not read.
    guard (try? UnixSocket.send(raw, Array(request.utf8)[...])) == request.utf8.count else {
      return finish(.unhealthy("port \(port): the request was not taken"))
    }
    loop.unwatch(raw)
    do throws(SystemFault) {
      try loop.watch(raw, .read) { [self] _ in receive(raw) }
    } catch {
      // It is not watched, so nothing is to be taken back.
      finish(.unknown("\(error)"))
    }
  }

  private func receive(_ raw: Int32) {
    var bytes = [UInt8](repeating: 0, count: 4096)
    let got: Int
    do throws(SystemFault) { got = try TCP.receive(raw, into: &bytes) } catch {
      return finish(.unhealthy("port \(port): \(SystemFault.text(of: error.code))"))
    }
    guard let outcome = answer.take(bytes[..<got], ended: got == 0) else { return }
    guard !isOver else {
      if got == 0 || answer.isFull { drop() }
      return
    }
    report(outcome)
    guard got > 0, !answer.isFull else { return drop() }
    // What else it has to say is taken from it for a while, so that it is not cut off in the middle of its answer.
    timer = loop.schedule(after: Self.drainTime) { [self] in drop() }
  }

  private func report(_ outcome: ProbeOutcome) {
    isOver = true
    if let timer { loop.cancel(timer) }
    timer = nil
    told?(outcome)
    told = nil
  }

  func finish(_ outcome: ProbeOutcome) {
    guard !isOver else { return }
    report(outcome)
    drop()
  }

  private func drop() {
    if let timer { loop.cancel(timer) }
    timer = nil
    unwatch()
  }

  private func unwatch() {
    socket?.withRaw { loop.unwatch($0) }
    socket = nil
  }
}

/// The beginning of an answer to a request (RFC 9112, status line); nothing else of it is looked at.
struct HTTPAnswer {
  static let maximumBytes = 64 << 10
  private static let statusLine = 12

  private var head: [UInt8] = []
  private var seen = 0
  var isFull: Bool { seen >= Self.maximumBytes }

  /// What the answer means, once that is known.
  mutating func take(_ bytes: ArraySlice<UInt8>, ended: Bool) -> ProbeOutcome? {
    seen += bytes.count
    head += bytes.prefix(Self.statusLine - head.count)
    guard head.count == Self.statusLine else {
      return ended ? .unhealthy("no answer in HTTP: the connection was closed") : nil
    }
    let digits = head[9...]
    guard head.starts(with: "HTTP/1.".utf8), head[8] == UInt8(ascii: " "),
      digits.allSatisfy({ (0x30...0x39).contains($0) }), let status = Int(String(decoding: digits, as: UTF8.self))
    else { return .unhealthy("the answer is not HTTP") }
    return (200..<400).contains(status) ? .healthy : .unhealthy("HTTP status \(status)")
  }
}
