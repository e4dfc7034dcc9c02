import Model
import Testing

@testable import Policies

@Suite("Values are read by the type of their field") struct ScalarTests {
  @Test("restart: no is the policy, not false", arguments: ["no", "\"no\"", "'no'"])
  func no(_ text: String) throws {
    #expect(try container("restart: \(text)").restart == .no)
  }

  @Test("22:22 is a port pair with and without quotes")
  func sexagesimal() throws {
    let plain = try container("ports: [22:22]")
    let quoted = try container("ports: [\"22:22\"]")
    #expect(plain == quoted)
    #expect(plain.network.ports == [PublishedPort(hostPort: 22, appPort: 22)])
  }

  @Test("booleans are true and false only", arguments: ["yes", "no", "on", "off", "True", "TRUE", "1", "y", "~", "[]"])
  func booleans(_ text: String) {
    let errors = reading("id: a\nimage: i\nread_only: \(text)\n").errors
    #expect(errors.count == 1)
    #expect(errors.first?.line == 3)
  }

  @Test("a mode is octal however it is written", arguments: ["0640", "640", "0o640", "\"0640\""])
  func modes(_ text: String) throws {
    let policy = try container("volumes: [{type: memory, target: /m, size: 1m, mode: \(text)}]")
    #expect(policy.mounts.first?.kind == .memory(size: .mebibytes(1), mode: 0o640))
  }

  @Test(
    "numbers are plain decimals",
    arguments: ["1e3", "0x10", "010", "0o10", "1_000", "+5", "1.0", "five", ".inf", "[1]"])
  func numbers(_ text: String) {
    #expect(reading("id: a\nimage: i\npids_limit: \(text)\n").errors.map(\.line) == [3])
  }

  @Test("a number written otherwise is shown as it should be")
  func numberHints() {
    #expect(reading("id: a\nimage: i\npids_limit: 1e3\n").errors.first?.hint == "write 1000")
    #expect(reading("id: a\nimage: i\nread_only: yes\n").errors.first?.hint == "write true")
    #expect(reading("id: a\nimage: i\nmax_runtime: 30\n").errors.first?.hint == "add a unit: 30s or 30ms")
  }

  @Test("text stays text, whatever it looks like", arguments: ["1.10", "yes", "0x1F", "2024-01-01", "1e3", "true"])
  func text(_ text: String) throws {
    #expect(try container("version: \(text)").about.version == text)
    #expect(try container("environment: {A: \(text)}").environment.first?.value == text)
  }

  @Test(
    "sizes are 1024-based",
    arguments: [
      ("6m", 6 << 20), ("6291456", 6 << 20), ("1.5g", 3 << 29), ("10MB", 10 << 20), ("7000kb", 7000 << 10),
      ("8388608b", 8 << 20),
    ])
  func sizes(_ text: String, _ bytes: UInt64) throws {
    #expect(try container("mem_limit: \(text)\nmem_high: \(text)").limits.memory?.count == bytes)
  }

  @Test("no size", arguments: ["12x", "-5m", "m", "1,5g", "9223372036854775808", "", "[]"])
  func badSizes(_ text: String) {
    #expect(!complaints("mem_limit: \(text)").isEmpty)
  }

  @Test("durations carry their units")
  func durations() throws {
    #expect(try container("max_runtime: 1h5m30s20ms").limits.maximumRuntime == .milliseconds(3_930_020))
    #expect(try container("max_runtime: 0").limits.maximumRuntime == nil)
    for text in ["10", "1x", "-5s", "1h 5m", "s"] { #expect(!complaints("max_runtime: \(text)").isEmpty, "\(text)") }
  }

  @Test("a key without a value is an error", arguments: ["ports:", "mem_limit: ~", "name: null"])
  func nothing(_ line: String) {
    #expect(complaints(line).count == 1)
  }

  @Test(
    "limits hold at n and not at n + 1",
    arguments: [
      ("mem_limit: 6m", "mem_limit: 6291455"), ("pids_limit: 4194304", "pids_limit: 4194305"),
      ("cpu_shares: 2", "cpu_shares: 1"),
      ("cpu_shares: 262144", "cpu_shares: 262145"), ("priority: 10", "priority: 11"),
      ("oom_score_adj: 1000", "oom_score_adj: 1001"),
      ("oom_score_adj: 500", "oom_score_adj: 499"), ("blkio_config: {weight: 10}", "blkio_config: {weight: 9}"),
      ("blkio_config: {weight: 1000}", "blkio_config: {weight: 1001}"), ("cpus: 0.01", "cpus: 0.009"),
      ("cpus: 4096", "cpus: 4097"),
      ("ports: [\"1:65535\"]", "ports: [\"1:65536\"]"), ("ports: [\"1-1024:1-1024\"]", "ports: [\"1-1025:1-1025\"]"),
      ("stop_grace_period: 1h", "stop_grace_period: 3600001ms"), ("cpuset: \"8191\"", "cpuset: \"8192\""),
      ("ulimits: {nofile: 1048576}", "ulimits: {nofile: 1048577}"),
      ("logging: {options: {max-size: 64k}}", "logging: {options: {max-size: 65535}}"),
      ("tmpfs: /t:size=4k", "tmpfs: /t:size=4095"), ("restart: on-failure:1", "restart: on-failure:0"),
      ("schema: 1", "schema: 2"),
      ("stop_signal: 64", "stop_signal: 65"),
      ("name: \(String(repeating: "n", count: 128))", "name: \(String(repeating: "n", count: 129))"),
      ("stack: \(String(repeating: "s", count: 63))", "stack: \(String(repeating: "s", count: 64))"),
    ])
  func bounds(_ good: String, _ bad: String) throws {
    _ = try container(good)
    #expect(complaints(bad).count == 1, "\(bad)")
  }

  @Test(
    "an id is a safe name",
    arguments: ["A", "-a", "_a", "a b", "a/b", "..", "a.b", "ä", String(repeating: "a", count: 64)])
  func ids(_ id: String) {
    #expect(reading("id: \"\(id)\"\nimage: i\n").policy == nil)
  }
}
