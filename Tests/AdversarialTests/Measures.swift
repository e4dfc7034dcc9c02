import Foundation
import Glibc
import Synchronization
import Testing

/// Figures of a run, printed at its end: they are told, not asserted, since a busy machine is no fault of the supervisor's. What is
/// asserted is a bound that a hang would miss.
enum Measures {
  /// Longer than this nobody waits, however busy the machine is.
  static let longestWait = 5.0
  private static let lines = Mutex<[String]>([])

  static func note(_ line: String) { lines.withLock { $0.append(line) } }

  static func tell() {
    let all = lines.withLock { lines in
      defer { lines = [] }
      return lines
    }
    for line in all { print("measured: \(line)") }
  }

  /// `p50 3 ms, p99 12 ms, longest 20 ms (57)`
  static func summary(_ seconds: [Double]) -> String {
    guard !seconds.isEmpty else { return "none" }
    let sorted = seconds.sorted()
    func at(_ part: Double) -> Int {
      Int((sorted[min(sorted.count - 1, Int(Double(sorted.count) * part))] * 1000).rounded())
    }
    return "p50 \(at(0.5)) ms, p99 \(at(0.99)) ms, longest \(at(1)) ms (\(sorted.count))"
  }

  static func now() -> Double {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Double(time.tv_sec) + Double(time.tv_nsec) / 1e9
  }
}

/// How long an innocent app's answers and an operator's `ps` take while something else goes on.
final class Pulse: Sendable {
  private struct State {
    var echoes: [Double] = []
    var lists: [Double] = []
    var failures: [String] = []
    var isOver = false
    var threads = 2
  }
  private let state = Mutex(State())

  /// `port`: of an app on 127.0.0.1 that sends back what it gets; every 50 ms. `list`: what an operator does; three times a second.
  init(port: UInt16?, list: @escaping @Sendable () -> Bool) {
    Thread.detachNewThread { [self] in
      if let port { beat(port) }
      state.withLock { $0.threads -= 1 }
    }
    Thread.detachNewThread { [self] in
      while !state.withLock({ $0.isOver }) {
        let began = Measures.now()
        let isGood = list()
        let took = Measures.now() - began
        state.withLock {
          $0.lists.append(took)
          if !isGood { $0.failures.append("an operator was not answered") }
        }
        usleep(300_000)
      }
      state.withLock { $0.threads -= 1 }
    }
  }

  private func beat(_ port: UInt16) {
    var raw: Int32 = -1
    defer { close(raw) }
    while !state.withLock({ $0.isOver }) {
      if raw < 0 { raw = Self.connect(port) }
      let began = Measures.now()
      var bytes = [UInt8](repeating: 7, count: 8)
      let isBack =
        raw >= 0 && send(raw, bytes, bytes.count, Int32(MSG_NOSIGNAL)) == 8
        && recv(raw, &bytes, 8, Int32(MSG_WAITALL)) == 8
      let took = Measures.now() - began
      state.withLock {
        $0.echoes.append(took)
        if !isBack { $0.failures.append("an innocent app did not answer") }
      }
      if !isBack {
        close(raw)
        raw = -1
      }
      usleep(50_000)
    }
  }

  private static func connect(_ port: UInt16) -> Int32 {
    let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var wait = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &wait, socklen_t(MemoryLayout<timeval>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = inet_addr("127.0.0.1")
    let isIn = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        Glibc.connect(raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    if isIn { return raw }
    close(raw)
    return -1
  }

  /// Ends it, tells what was measured, and holds it to the one bound.
  func end(_ what: String, _ more: String = "") {
    state.withLock { $0.isOver = true }
    while state.withLock({ $0.threads }) > 0 { usleep(5000) }
    let state = state.withLock { $0 }
    let echo = state.echoes.isEmpty ? "" : "an innocent app's echo \(Measures.summary(state.echoes)); "
    Measures.note("\(what): \(echo)ps \(Measures.summary(state.lists))\(more)")
    #expect(
      state.failures.isEmpty,
      "\(what): \(state.failures.count) of \(state.echoes.count + state.lists.count): \(state.failures.first ?? "")")
    #expect((state.echoes + state.lists).allSatisfy { $0 < Measures.longestWait }, "\(what)")
  }
}
