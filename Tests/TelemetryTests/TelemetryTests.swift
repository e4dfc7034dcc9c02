import Foundation
import Glibc
import Linux
import Testing

@testable import Telemetry

@Suite("Numbers as Prometheus text") struct RegistryTests {
  @Test("counters, gauges and timers are written by their kind, sorted, with labels that cannot break a line")
  func text() {
    let registry = PrometheusRegistry()
    registry.describe("a_total", "How often.")
    registry.add("a_total", [("x", "1")])
    registry.add("a_total", [("x", "1")], 2)
    registry.set("b-gauge", [("say", "\"hi\"\\\n")], 1.5)
    registry.series("t_seconds", [], isTimer: true)?.recordNanoseconds(2_500_000_000)
    #expect(
      registry.text == """
        # HELP a_total How often.
        # TYPE a_total counter
        a_total{x="1"} 3
        # TYPE b_gauge gauge
        b_gauge{say="\\"hi\\"\\\\\\n"} 1.5
        # TYPE t_seconds summary
        t_seconds_sum 2.5
        t_seconds_count 1

        """)
  }

  @Test("an app that is gone leaves no series; one that has no limit or check has none for it")
  func samples() {
    let registry = PrometheusRegistry()
    var web = AppSample(app: "web", stack: "shop", runtime: "native", state: "running")
    web.isRunning = true
    web.memory = 1 << 20
    registry.update([web, AppSample(app: "db", stack: "shop", runtime: "container", state: "failed")])
    #expect(registry.text.contains("appsupervisor_app_memory_bytes{app=\"web\",stack=\"shop\"} 1048576\n"))
    #expect(registry.text.contains("state=\"failed\"} 1"))
    #expect(!registry.text.contains("_healthy"))
    web.state = "paused"
    registry.update([web])
    #expect(!registry.text.contains("db") && !registry.text.contains("state=\"running\""))
  }

  @Test("no more than so many series are kept; the rest is counted")
  func bounded() {
    let registry = PrometheusRegistry()
    for number in 0..<(PrometheusRegistry.mostSeries + 7) { registry.set("n", [("i", "\(number)")], 1) }
    #expect(registry.count == PrometheusRegistry.mostSeries)
    #expect(registry.text.hasSuffix("appsupervisor_metrics_dropped_total 7\n"))
  }
}

@Suite("The page of metrics", .timeLimit(.minutes(1))) struct MetricsServerTests {
  private func with(isPort: Bool = false, _ body: @escaping @Sendable (String) throws -> Void) async throws {
    let path = "/tmp/appsup-metrics-\(UInt64.random(in: 0 ... .max))"
    let folder = try Folder(making: path, mode: 0o700)
    let loop = try EventLoop(name: "metrics-test")
    let server = MetricsServer(try UnixSocket.listen(folder, "m", mode: 0o600), isPort: isPort, on: loop) { "a 1\n" }
    try await server.start()
    try await withCheckedThrowingContinuation { (done: CheckedContinuation<Void, any Error>) in
      Thread { done.resume(with: Result { try body("\(path)/m") }) }.start()
    }
    loop.stop()
    try FileManager.default.removeItem(atPath: path)
  }

  private static func ask(_ path: String, _ request: String) throws -> String {
    let socket = try UnixSocket.connect(path)
    return try socket.withRaw { raw in
      try writeAll(raw, Array(request.utf8)[...], "request")
      return String(decoding: try readAll(raw, "answer", limit: 1 << 20), as: UTF8.self)
    }
  }

  @Test("GET /metrics is answered, all else refused, whatever comes")
  func answers() async throws {
    try await with { path in
      let good = try Self.ask(path, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
      #expect(good.hasPrefix("HTTP/1.1 200 ") && good.hasSuffix("\r\n\r\na 1\n"))
      #expect(try Self.ask(path, "HEAD /metrics HTTP/1.0\r\n\r\n").hasSuffix("\r\n\r\n"))
      for (request, code) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"), ("POST /metrics HTTP/1.1\r\n\r\n", "405"), ("nonsense\r\n\r\n", "400"),
        ("GET /metrics SMTP\r\n\r\n", "400"), (String(repeating: "x", count: 9000), "431"),
      ] {
        let answer = try Self.ask(path, request)
        #expect(answer.hasPrefix("HTTP/1.1 \(code) "), "\(code)")
      }
    }
  }

  @Test("on a port, a browser that was led here by another name gets nothing")
  func rebinding() async throws {
    try await with(isPort: true) { path in
      let led = try Self.ask(path, "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n")
      let own = try Self.ask(path, "GET /metrics HTTP/1.1\r\nHost: 127.0.0.1:9700\r\n\r\n")
      #expect(led.hasPrefix("HTTP/1.1 421 ") && own.hasPrefix("HTTP/1.1 200 "))
      let six = try Self.ask(path, "GET /metrics HTTP/1.1\r\nHost: [::1]:9700\r\n\r\n")
      let near = try Self.ask(path, "GET /metrics HTTP/1.1\r\nHost: [::1].evil.example\r\n\r\n")
      #expect(six.hasPrefix("HTTP/1.1 200 ") && near.hasPrefix("HTTP/1.1 421 "))
    }
  }

  @Test("connections that say nothing hold no place for ever, and more than 16 at once are turned away")
  func many() async throws {
    try await with { path in
      var idle: [SharedDescriptor] = []
      for _ in 0..<40 { idle.append(SharedDescriptor(try UnixSocket.connect(path))) }
      usleep(200_000)
      // Those beyond the bound are closed already.
      let closed = idle.count { socket in
        var wait = pollfd(fd: socket.withRaw { $0 }, events: Int16(POLLIN), revents: 0)
        return poll(&wait, 1, 0) == 1
      }
      #expect(closed == 24)
      var wait = pollfd(fd: idle[0].withRaw { $0 }, events: Int16(POLLIN), revents: 0)
      #expect(poll(&wait, 1, 8000) == 1, "the first are closed after 5 s")
      #expect(try Self.ask(path, "GET /metrics HTTP/1.1\r\n\r\n").hasPrefix("HTTP/1.1 200 "))
    }
  }
}
