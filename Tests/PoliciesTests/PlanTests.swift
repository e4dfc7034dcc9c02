import Model
import Testing

@testable import Policies

@Suite("Plan") struct PlanTests {
  private func change(_ old: String, _ new: String) throws -> Change {
    plan(old: try container(old), new: try container(new))
  }

  @Test("nothing changed, added, removed")
  func ends() throws {
    let policy = try container("")
    #expect(plan(old: policy, new: policy) == Change(kind: .none, fields: []))
    #expect(plan(old: nil, new: policy).kind == .create)
    #expect(plan(old: policy, new: nil).kind == .remove)
    #expect(plan(old: nil, new: nil).kind == .none)
  }

  @Test(
    "limits and rules of life change in place",
    arguments: [
      "mem_limit: 64m", "mem_high: 64m", "cpus: 2", "cpu_shares: 99", "cpuset: \"0\"", "pids_limit: 9",
      "blkio_config: {weight: 99}", "priority: high",
      "restart: always", "restart_policy: {delay: 3s}", "max_runtime: 1h", "stop_grace_period: 3s", "description: d",
      "depends_on: [b]",
    ])
  func inPlace(_ line: String) throws { #expect(try change("", line).kind == .inPlace) }

  @Test(
    "what is fixed at creation makes a new container",
    arguments: [
      "environment: {A: 1}", "entry: [x]", "ports: [80]", "volumes: [\"d:/d\"]", "user: 5", "read_only: false",
      "ulimits: {core: 0}", "cap_add: [CHOWN]", "labels: {a: b}", "hostname: h",
    ])
  func recreate(_ line: String) throws { #expect(try change("", line).kind == .recreate) }

  @Test("a native app is restarted where a container is made anew")
  func restart() {
    func native(_ line: String) -> Policy? { reading("id: a\nentry: /bin/true\n\(line)\n").policy }
    #expect(plan(old: native(""), new: native("environment: {A: 1}")).kind == .restart)
    #expect(plan(old: native(""), new: native("ports: [80]")).kind == .recreate)
  }

  @Test("the most disturbing field decides, and each difference is shown")
  func most() throws {
    let change = try change("mem_limit: 64m", "mem_limit: 65m\nimage: j".replacing("\nimage: j", with: "\nuser: 7"))
    #expect(change.kind == .recreate)
    #expect(change.fields.map(\.key) == ["user", "mem_limit", "memswap_limit"])
    #expect(change.fields.map(\.kind) == [.recreate, .inPlace, .inPlace])
    #expect(change.fields.first?.new == "7:7")
  }

  @Test("two ways to write one thing are no change")
  func same() throws {
    #expect(try change("memoryLimitMb: 64\ncommand: a b", "mem_limit: 65536k\nentry: [a, b]").kind == .none)
    #expect(try change("", "mem_limit: 512m\nsandbox: standard\npriority: 5").kind == .none)
  }

  @Test("whatever differs between two policies, the plan shows a field for it")
  func complete() throws {
    let policies = try examples().compactMap {
      read(PolicySource(path: $0.name, folder: "/srv", bytes: $0.bytes)).policy
    }
    for old in policies {
      for new in policies where old != new { #expect(!plan(old: old, new: new).fields.isEmpty) }
    }
  }
}

@Suite("Files that are loaded together") struct TogetherTests {
  private func app(_ id: String, _ lines: String = "") -> Reading {
    var reading = reading("id: \(id)\nimage: i\n\(lines)\n")
    reading.path = "\(id).yaml"
    return reading
  }

  @Test("an id stands in one file only")
  func ids() {
    #expect(checkTogether([app("a"), app("a")]).map(\.message) == ["the id a is given twice: in a.yaml and in a.yaml"])
  }

  @Test("a dependency must be loaded or applied, unless it is not required")
  func unknown() throws {
    #expect(checkTogether([app("a", "depends_on: [cach]"), app("cache")]).map(\.hint) == ["did you mean 'cache'?"])
    #expect(checkTogether([app("a", "depends_on: {b: {required: false}}")]).isEmpty)
    #expect(checkTogether([app("a", "depends_on: [b]")], alreadyApplied: [try #require(app("b").policy)]).isEmpty)
  }

  @Test("a circle is named once, with its apps")
  func circle() {
    let problems = checkTogether([
      app("a", "depends_on: [b]"), app("b", "depends_on: [c]"), app("c", "depends_on: [b]"), app("d"),
    ])
    #expect(problems.map(\.message) == ["these apps wait for each other: b → c → b"])
    let chain = (0..<2000).map { app("a\($0)", $0 > 0 ? "depends_on: [a\($0 - 1)]" : "") }
    #expect(checkTogether(chain).isEmpty)
  }

  @Test("one host port has one app, an applied one included")
  func ports() throws {
    let clash = "a and b both publish port 80/tcp of the host"
    #expect(checkTogether([app("a", "ports: [\"80:1\"]"), app("b", "ports: [\"80:2\"]")]).map(\.message) == [clash])
    #expect(checkTogether([app("a", "ports: [\"80:1\"]"), app("b", "ports: [\"80:2/udp\"]")]).isEmpty)
    #expect(checkTogether([app("a", "ports: [\"127.0.0.2:80:1\"]"), app("b", "ports: [\"80:2\"]")]).isEmpty)
    #expect(checkTogether([app("a", "ports: [\"0.0.0.0:80:1\"]"), app("b", "ports: [\"80:2\"]")]).count == 1)
    let applied = try #require(app("b", "ports: [\"80:2\"]").policy)
    #expect(checkTogether([app("a", "ports: [\"80:1\"]")], alreadyApplied: [applied]).count == 1)
    #expect(checkTogether([app("b", "ports: [\"80:1\"]")], alreadyApplied: [applied]).isEmpty)
    #expect(checkTogether([app("a", "ports: [80]"), app("b", "ports: [80]")]).isEmpty)
  }
}
