import Foundation
import Model
import Testing

@Suite(.serialized) struct NativeTests {
  @Test("a native app goes up, shows in ps, writes its log, and comes down")
  func slice() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write(
      "hello",
      "id: hello\nentry: [/bin/sh, -c, 'echo hello from $$$$; exec sleep 1000']\nmem_limit: 64m\npids_limit: 8\n")
    let up = instance.up()
    #expect(up.code == 0, "\(up.err)")
    let row = try #require(instance.app("hello"))
    #expect(row["state"] == "running")
    #expect(row["runtime"] == "native")
    #expect(instance.cgroup("hello", ["memory.limit_in_bytes", "memory.max"]) == "67108864")
    #expect(instance.cgroup("hello", ["pids.max"]) == "8")
    #expect(instance.run("logs", "hello").out.hasPrefix("hello from "))
    let down = instance.run("down", instance.policies)
    #expect(down.code == 0, "\(down.err)")
    #expect(instance.run("ps", "-a", "--format", "json").lines.isEmpty)
    #expect(instance.cgroup("hello", ["pids.max"]) == nil)
  }

  @Test("on a host that has been up for a year an app runs and writes as on any other")
  func longUptime() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("app", "id: app\nentry: [/bin/sh, -c, 'echo one; sleep 0.2; echo two; exec sleep 1000']\n")
    let up = instance.run(
      ["up", "-d", "--wait", "--progress", "quiet", "--engine", "none", instance.policies],
      prefix: ["unshare", "-T", "--monotonic", "31536000"])
    #expect(up.code == 0, "\(up.err)")
    eventually("all it writes is in its log") { instance.run("logs", "app").out == "one\ntwo\n" }
    #expect(instance.app("app")?["state"] == "running" && instance.app("app")?["restarts"] == 0)
  }

  @Test("exit codes, signals and out of memory are told apart")
  func exits() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("three", "id: three\nentry: [/bin/sh, -c, 'exit 3']\n")
    try instance.write("term", "id: term\nentry: [/bin/sh, -c, 'kill -SEGV $$$$']\n")
    try instance.write("hog", "id: hog\nmem_limit: 16m\nentry: [/bin/sh, -c, 'exec tail /dev/zero']\n")
    instance.up()
    #expect(instance.wait("three") { $0["state"] == "exited" }?["exit_code"] == 3)
    let term = instance.wait("term") { $0["state"] == "exited" }
    #expect(term?["exit_code"] == 139)
    #expect(term?["reason"]?.stringValue?.contains("SIGSEGV") == true)
    let hog = instance.wait("hog") { $0["state"] == "exited" }
    #expect(hog?["reason"] == "out of memory")
    #expect(instance.run("status", "three").code == 3)
  }

  @Test("stop -t lets an app be for that long and no longer, also one that is being stopped already") func grace()
    throws
  {
    let instance = try Instance()
    defer { instance.end() }
    for id in ["a", "b"] {
      try instance.write(
        id, "id: \(id)\nentry: [/bin/sh, -c, 'trap \"\" TERM; while :; do sleep 0.1; done']\nstop_grace_period: 10m\n")
    }
    #expect(instance.up().code == 0)
    let begun = Date()
    #expect(instance.run("stop", "-t", "0", "a").code == 0)
    #expect(instance.run("api", "app.stop", "{\"apps\": [\"b\"]}").code == 0)
    #expect(instance.run("stop", "--time", "200ms", "b").code == 0)
    #expect(Date().timeIntervalSince(begun) < 60)
    #expect(instance.run("stop", "-t", "-1", "a").code != 0)
    #expect(instance.run("stop", "-t", "soon", "a").code == 2)
  }

  @Test("an app that ends is restarted with growing delays, then fails with the reason")
  func crashLoop() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write(
      "loop",
      "id: loop\nentry: [/bin/sh, -c, 'exit 9']\nrestart: always\nrestart_policy: {delay: 10ms, max_attempts: 3}\n")
    _ = instance.up("--wait-timeout", "20s")
    let row = instance.wait("loop") { $0["state"] == "failed" }
    #expect(row?["restarts"] == 3)
    #expect(row?["reason"]?.stringValue?.contains("exit code 9") == true)
    let explain = instance.run("explain", "loop")
    #expect(explain.out.contains("failed"), "\(explain.out)")
  }

  @Test("kill -9 of the daemon touches no app; the next one takes it over, with the exit code of what ended meanwhile")
  func takeover() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("stay", "id: stay\nentry: [/bin/sh, -c, 'exec sleep 1000']\nrestart: always\n")
    try instance.write("short", "id: short\nentry: [/bin/sh, -c, 'sleep 1; exit 5']\n")
    #expect(instance.up().code == 0)
    let before = try #require(instance.app("stay"))
    kill(try #require(instance.daemon), SIGKILL)
    sleep(2)
    #expect(kill(Int32(before["pid"]?.integerValue ?? 0), 0) == 0, "the app must have survived")
    // `up` of nothing starts a daemon and changes nothing.
    try FileManager.default.createDirectory(atPath: "\(instance.root)/none", withIntermediateDirectories: true)
    #expect(instance.run("up", "-d", "--engine", "none", "--progress", "quiet", "\(instance.root)/none").code == 0)
    let after = try #require(instance.app("stay"))
    #expect(after["pid"] == before["pid"])
    #expect(after["restarts"] == 0)
    #expect(after["generation"] == before["generation"])
    #expect(instance.app("short")?["exit_code"] == 5)
  }

  @Test("a second daemon on one root says so and exits 78")
  func secondDaemon() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("a", "id: a\nentry: [/bin/sleep, '100']\n")
    #expect(instance.up().code == 0)
    let second = instance.run("daemon")
    #expect(second.code == 78)
    #expect(second.err.contains("another daemon"))
  }

  @Test("an app that ignores SIGTERM is killed with its whole cgroup after the grace time")
  func stubborn() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write(
      "mule",
      "id: mule\nentry: [/bin/sh, -c, 'trap \"\" TERM; (trap \"\" TERM; sleep 1000) & while :; do sleep 1; done']\nstop_grace_period: 300ms\n"
    )
    #expect(instance.up().code == 0)
    let stop = instance.run("stop", "mule", within: 10)
    #expect(stop.code == 0, "\(stop.err)")
    #expect(instance.app("mule")?["state"] == "exited")
  }

  @Test("dependencies start first and stop last")
  func order() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("db", "id: db\nentry: [/bin/sleep, '1000']\n")
    try instance.write("api", "id: api\nentry: [/bin/sleep, '1000']\ndepends_on: [db]\n")
    try instance.write("web", "id: web\nentry: [/bin/sleep, '1000']\ndepends_on: [api]\n")
    #expect(instance.up().code == 0)
    #expect(instance.run("down", instance.policies).code == 0)
    let events = instance.run("events", "--format", "json").lines
    func cursor(_ name: String, _ app: String) -> Int64 {
      events.first { $0["event"]?.stringValue == name && $0["app"]?.stringValue == app }?["cursor"]?.integerValue ?? -1
    }
    #expect(cursor("app.started", "db") < cursor("app.created", "api"))
    #expect(cursor("app.started", "api") < cursor("app.created", "web"))
    #expect(cursor("app.exited", "web") < cursor("app.stopping", "api"))
    #expect(cursor("app.exited", "api") < cursor("app.stopping", "db"))
  }

  @Test("a port in use, a missing program and a broken policy each say what, why and what next, and change nothing")
  func badInput() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("good", "id: good\nentry: [/bin/sleep, '1000']\n")
    #expect(instance.up().code == 0)
    let pid = instance.app("good")?["pid"]
    let gone = try instance.write("gone", "id: gone\nentry: [/no/such/program]\n")
    let missing = instance.run("up", "-d", "--wait", gone)
    #expect(missing.code == 1)
    #expect(missing.err.contains("/no/such/program"), "\(missing.err)")
    let broken = try instance.write("good", "id: good\nentry: [/bin/sleep, '2000']\nmem_limit: 5q\n")
    let refused = instance.run("up", "-d", "--wait", broken)
    #expect(refused.code == 2)
    #expect(refused.err.contains("good.yaml:3:12"), "\(refused.err)")
    #expect(instance.app("good")?["pid"] == pid)
    #expect(instance.run("config", "--applied", "good").out.contains("1000"))
  }

  @Test("an app that does not fit into memory waits and says why, and starts when there is room")
  func admission() throws {
    let instance = try Instance()
    defer { instance.end() }
    let host = ProcessInfo.processInfo.physicalMemory >> 20
    try instance.write("big", "id: big\nentry: [/bin/sleep, '1000']\nmem_limit: \(host * 7 / 10)m\n")
    try instance.write(
      "late",
      "id: late\nentry: [/bin/sleep, '1000']\nmem_limit: \(host * 6 / 10)m\ndepends_on: {big: {condition: service_started}}\n"
    )
    let up = instance.up("--wait-timeout", "2s")
    #expect(up.code == 124)
    #expect(instance.app("late")?["status"]?.stringValue?.contains("Pending (memory: needs") == true)
    #expect(instance.run("events", "--format", "json", "late").out.contains("app.pending"))
  }
}
