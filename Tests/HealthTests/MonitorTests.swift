import Model
import Testing

@testable import Health

private let millisecond: Int64 = 1_000_000

private func check(
  _ test: Healthcheck.Test = .tcp(port: 80), retries: UInt32 = 3, startPeriod: Duration = .zero,
  interval: Duration = .seconds(10)
) -> Healthcheck.Settled {
  .init(
    test: test, interval: interval, timeout: .seconds(1), retries: retries, startPeriod: startPeriod,
    startInterval: .seconds(1), onFailure: .restart)
}

@Suite("A run's health") struct MonitorTests {
  @Test("so many failures in a row make it unhealthy, and one success healthy again")
  func retries() {
    var monitor = Monitor(check(), began: 0)
    for (failures, expected) in [(1, HealthWord.starting), (2, .starting), (3, .unhealthy), (4, .unhealthy)] {
      let result = monitor.take(.unhealthy("no"), from: 0, to: 1)
      #expect(monitor.word == expected)
      #expect(result.change == (failures == 3 ? .unhealthy : nil))
    }
    #expect(monitor.take(.healthy, from: 0, to: 1).change == .healthy)
    #expect(monitor.failing == 0)
    for _ in 0..<2 { #expect(monitor.take(.unhealthy("no"), from: 0, to: 1).change == nil) }
    #expect(monitor.take(.healthy, from: 0, to: 1).change == nil, "two failures of three were none")
    for _ in 0..<2 { _ = monitor.take(.unhealthy("no"), from: 0, to: 1) }
    #expect(monitor.word == .healthy, "counting began anew")
  }

  @Test("failures before the first success do not count while it starts; later ones do")
  func startPeriod() {
    var monitor = Monitor(check(retries: 1, startPeriod: .seconds(5)), began: 0)
    for second in Int64(0)..<5 {
      #expect(
        monitor.take(.unhealthy("no"), from: second * 1000 * millisecond, to: second * 1000 * millisecond).change == nil
      )
    }
    #expect(monitor.take(.unhealthy("no"), from: 5000 * millisecond, to: 5000 * millisecond).change == .unhealthy)
    var other = Monitor(check(retries: 1, startPeriod: .seconds(5)), began: 0)
    #expect(other.take(.healthy, from: 0, to: 0).change == .healthy)
    #expect(other.take(.unhealthy("no"), from: 1, to: 1).change == .unhealthy, "its first success ended the start")
  }

  @Test("while it starts it is tried soon, then less and less often, at most start_interval apart")
  func early() {
    var monitor = Monitor(check(startPeriod: .seconds(60)), began: 0)
    var now: Int64 = 0
    var pauses: [Int64] = []
    for _ in 0..<12 {
      let next = monitor.take(.unhealthy("no"), from: now, to: now).next
      pauses.append((next - now) / millisecond)
      now = next
    }
    #expect(pauses == [2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000, 1000])
    var command = Monitor(check(.command(["x"]), startPeriod: .seconds(60)), began: 0)
    #expect(command.take(.unhealthy("no"), from: 0, to: 0).next == 100 * millisecond)
  }

  @Test("checks begin an interval apart however long they take, and never pile up")
  func pace() {
    var monitor = Monitor(check(), began: 0)
    #expect(monitor.take(.healthy, from: 100, to: 3000 * millisecond).next == 100 + 10_000 * millisecond)
    let late = monitor.take(.unhealthy("timeout"), from: 0, to: 30_000 * millisecond).next
    #expect(late > 30_000 * millisecond)
  }

  @Test("what could not be tried says nothing")
  func unknown() {
    var monitor = Monitor(check(retries: 1), began: 0)
    _ = monitor.take(.healthy, from: 0, to: 0)
    for _ in 0..<10 { #expect(monitor.take(.unknown("no engine"), from: 0, to: 0).change == nil) }
    #expect(monitor.word == .healthy)
  }
}

@Suite("What apps say of themselves") struct SayingTests {
  @Test("READY=1 and STATUS= are read, the rest is passed over")
  func messages() {
    func message(_ text: String) -> NotifyMessage { NotifyMessage(Array(text.utf8)) }
    #expect(message("READY=1").ready)
    #expect(
      message("STATUS=up\nREADY=1\nWATCHDOG=1\n")
        == {
          var m = NotifyMessage([]); m.ready = true; m.status = "up"; return m
        }())
    for other in ["READY=0", "READY=11", "XREADY=1", "", "\n\n", "=", "READY"] {
      #expect(!message(other).ready, "\(other)")
    }
    #expect(message("STATUS=\u{1B}[2Jgone\u{202E}x").status == "[2Jgone x")
    #expect(message("STATUS=" + String(repeating: "é", count: 5000)).status?.count == 200)
    #expect(NotifyMessage([0xFF, 0xFE, 0x0A] + Array("READY=1".utf8)).ready)
  }

  @Test("text in output is found wherever its pieces are cut, in each stream by itself")
  func lines() {
    let text = Array("starting\nnow listening on 80\n".utf8)
    for cut in 0...text.count {
      var watch = LineWatch("listening on")
      let first = watch.take(Array(text[..<cut]), .output)
      #expect(first == .found || watch.take(Array(text[cut...]), .output) == .found, "cut at \(cut)")
    }
    var mixed = LineWatch("ready")
    #expect(mixed.take(Array("rea".utf8), .output) == .open)
    #expect(mixed.take(Array("dy".utf8), .error) == .open)
    #expect(mixed.take(Array("dy".utf8), .output) == .found)
  }

  @Test("an app that writes without end is not read without end")
  func endless() {
    var watch = LineWatch("never")
    let piece = [UInt8](repeating: 0x78, count: 1 << 20)
    var outcome = LineWatch.Outcome.open
    for _ in 0...64 { outcome = watch.take(piece, .output) }
    #expect(outcome == .tooMuch)
  }

  @Test(
    "only the status of an answer counts",
    arguments: [
      ("HTTP/1.1 200 OK\r\n", true), ("HTTP/1.0 302 Found\r\n", true), ("HTTP/1.1 503 Service", false),
      ("HTTP/1.1 404\r\n", false), ("HTTP/2 200 OK", false), ("SSH-2.0-OpenSSH", false), ("HTTP/1.1 2x0 OK", false),
      ("HTTP/1.1 -00 OK", false), ("\0\0\0\0\0\0\0\0\0\0\0\0", false),
    ])
  func answers(_ text: String, _ good: Bool) {
    var whole = HTTPAnswer()
    #expect((whole.take(Array(text.utf8)[...], ended: false) == .healthy) == good)
    var slow = HTTPAnswer()
    var outcome: ProbeOutcome?
    for byte in text.utf8 { outcome = outcome ?? slow.take([byte], ended: false) }
    #expect((outcome == .healthy) == good)
    var cut = HTTPAnswer()
    #expect(cut.take(Array(text.utf8.prefix(5))[...], ended: false) == nil)
    #expect(cut.take([], ended: true) != .healthy)
  }
}
