import Foundation
import Model
import Testing

@Suite("metrics") struct MetricsTests {
  @Test(
    "the socket tells each app's state, memory and restarts, and forgets it when it is gone; nothing of its environment"
  )
  func page() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write(
      "a", "id: a\nstack: shop\nentry: [/bin/sleep, '1000']\nmem_limit: 64m\nenvironment: {SECRET: tell-nobody}\n")
    #expect(instance.up().code == 0)
    func page() -> String {
      Shell.run([
        "curl", "-s", "--max-time", "5", "--unix-socket", "\(instance.root)/run/metrics.sock", "http://x/metrics",
      ]).out
    }
    let text = page()
    for line in [
      "appsupervisor_app_running{app=\"a\",stack=\"shop\"} 1",
      "appsupervisor_app_state{app=\"a\",stack=\"shop\",runtime=\"native\",state=\"running\"} 1",
      "appsupervisor_app_memory_limit_bytes{app=\"a\",stack=\"shop\"} 67108864",
      "appsupervisor_app_restarts_total{app=\"a\",stack=\"shop\"} 0",
    ] { #expect(text.contains(line + "\n"), "\(line)\n\(text)") }
    #expect(text.contains("appsupervisor_control_calls_total{method=\"app.up\",decision=\"allowed\"} 1"))
    #expect(text.contains("process_resident_memory_bytes "))
    #expect(!text.contains("tell-nobody"))
    #expect(instance.run("down", "a").code == 0)
    #expect(!page().contains("app=\"a\",stack"))
  }
}
