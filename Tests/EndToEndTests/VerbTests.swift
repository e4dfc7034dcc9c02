import Foundation
import Model
import Testing

@Suite("verbs over native apps", .serialized) struct VerbTests {
  private let sleeper = "entry: [/bin/sleep, '1000']\n"

  private func with(_ apps: [String: String], _ body: (Instance) throws -> Void) throws {
    let instance = try Instance()
    defer { instance.end() }
    for (name, yaml) in apps { try instance.write(name, "id: \(name)\n\(yaml)") }
    let up = instance.up()
    #expect(up.code == 0, "\(up.err)")
    try body(instance)
  }

  @Test(
    "`up` again with nothing changed does nothing; a limit changes while the app runs; what else changes makes it anew")
  func again() throws {
    try with(["a": sleeper, "b": sleeper]) { instance in
      let before = try #require(instance.app("a"))
      let other = try #require(instance.app("b"))
      #expect(instance.up().code == 0)
      #expect(instance.app("a")?["pid"] == before["pid"])
      #expect(instance.app("a")?["generation"] == before["generation"])
      try instance.write("a", "id: a\nmem_limit: 96m\n\(sleeper)")
      #expect(instance.up().code == 0)
      #expect(instance.app("a")?["pid"] == before["pid"])
      #expect(instance.cgroup("a", ["memory.limit_in_bytes", "memory.max"]) == "100663296")
      try instance.write("a", "id: a\nmem_limit: 96m\nenvironment: {NEW: yes}\n\(sleeper)")
      #expect(instance.up().code == 0)
      let after = try #require(instance.app("a"))
      #expect(after["pid"] != before["pid"])
      #expect((after["generation"]?.integerValue ?? 0) > (before["generation"]?.integerValue ?? 0))
      #expect(instance.app("b")?["pid"] == other["pid"], "what did not change is left alone")
      #expect(instance.up("--force-recreate").code == 0)
      #expect(instance.app("b")?["pid"] != other["pid"])
    }
  }

  @Test("a broken policy among good ones changes nothing, and what is applied stays to be read")
  func broken() throws {
    try with(["a": sleeper, "b": sleeper]) { instance in
      let before = instance.app("a")?["pid"]
      try instance.write("a", "id: a\nmem_limit: 96m\n\(sleeper)")
      try instance.write("b", "id: b\nmem_limt: 96m\n\(sleeper)")
      let up = instance.up()
      #expect(up.code == 2)
      #expect(up.err.contains("b.yaml:2:1") && up.err.contains("mem_limit"), "\(up.err)")
      #expect(instance.app("a")?["pid"] == before)
      let applied = instance.run("config", "--applied", "a")
      #expect(applied.code == 0 && !applied.out.contains("96m"), "\(applied.out)")
    }
  }

  @Test(
    "`down PATH` reaches what was loaded from there and nothing else; @STACK is a folder's name or the policy's own")
  func scope() throws {
    try with(["a": sleeper, "b": "stack: shop\n\(sleeper)", "c": "stack: shop\n\(sleeper)"]) { instance in
      let one = instance.run("down", "\(instance.policies)/a.yaml")
      #expect(one.code == 0, "\(one.err)")
      #expect(instance.app("a") == nil && instance.app("b") != nil)
      #expect(instance.run("stop", "@shop").code == 0)
      #expect(instance.run("ps", "-q", "-a", "--filter", "state=exited").out == "b\nc\n")
      #expect(instance.run("start", "@shop").code == 0)
      #expect(instance.run("ps", "-q", "--filter", "stack=shop").out == "b\nc\n")
      let nowhere = instance.run("down", "/no/such/place")
      #expect(nowhere.code == 0 || nowhere.code == 4, "\(nowhere.err)")
      #expect(instance.app("b") != nil)
      #expect(instance.run("down", "@shop").code == 0)
      #expect(instance.run("ps", "-aq").out.isEmpty)
    }
  }

  @Test("an app whose file is gone is told as an orphan, and goes only with --remove-orphans")
  func orphans() throws {
    try with(["a": sleeper, "b": sleeper, "c": "profiles: [debug]\n\(sleeper)"]) { instance in
      #expect(instance.app("c") == nil, "its profile was not asked for")
      #expect(instance.up("--profile", "debug").code == 0)
      #expect(instance.app("c")?["state"] == "running")
      try FileManager.default.removeItem(atPath: "\(instance.policies)/b.yaml")
      let told = instance.up()
      #expect(told.code == 0 && told.err.contains("b was loaded from here before"), "\(told.err)")
      #expect(!told.err.contains("c was loaded"), "its file is there: \(told.err)")
      #expect(instance.app("b")?["state"] == "running")
      #expect(instance.up("--remove-orphans").code == 0)
      eventually("b is gone") { instance.app("b") == nil }
      #expect(instance.app("a")?["state"] == "running" && instance.app("c")?["state"] == "running")
    }
  }

  @Test("`ps` filters, prints names alone, and its JSON has every promised key; `status` exits 3 for what does not run")
  func look() throws {
    try with(["a": sleeper, "done": "entry: [/bin/true]\n"]) { instance in
      instance.wait("done") { $0["state"] == "completed" }
      #expect(instance.run("ps", "-q").out == "a\n")
      #expect(instance.run("ps", "-aq").out == "a\ndone\n")
      #expect(instance.run("ps", "-q", "--filter", "state=completed").out == "done\n")
      #expect(instance.run("ps", "--filter", "colour=red").code == 2)
      let row = try #require(instance.app("a")?.objectValue)
      for key in [
        "name", "runtime", "image", "entry", "state", "status", "health", "restarts", "exit_code", "reason", "pid",
        "cpu_percent", "memory", "memory_limit", "ports", "priority", "sandbox", "container_id",
      ] { #expect(row.keys.contains(key), "\(key)") }
      let status = instance.run("status", "a", "--format", "json")
      #expect(status.code == 0)
      let layers = status.lines.first?["layers"]?.arrayValue ?? []
      #expect(!layers.isEmpty && !layers.contains { $0["status"] == "missing" }, "\(layers.map(\.text))")
      #expect(instance.run("status", "done").code == 3)
      let table = instance.run("ps", "-a").out
      #expect(table.hasPrefix("NAME ") && table.contains("Exited (0)"), "\(table)")
    }
  }

  @Test("events are numbered, start after a cursor, and are of one app when asked")
  func events() throws {
    try with(["a": sleeper, "b": sleeper]) { instance in
      let all = instance.run("events", "--format", "json").lines
      let cursors = all.compactMap { $0["cursor"]?.integerValue }
      #expect(cursors == cursors.sorted() && Set(cursors).count == cursors.count && !cursors.isEmpty)
      let last = try #require(cursors.last)
      #expect(instance.run("events", "--after", "\(last)", "--format", "json").lines.isEmpty)
      #expect(instance.run("restart", "a").code == 0)
      let later = instance.run("events", "--after", "\(last)", "--format", "json", "a").lines
      let names = later.compactMap { $0["event"]?.stringValue }
      #expect(names.contains("app.stopping") && names.contains("app.exited") && names.contains("app.started"))
      #expect(later.allSatisfy { $0["app"] == "a" && ($0["cursor"]?.integerValue ?? 0) > last })
      #expect(later.contains { $0["event"] == "app.exited" && $0["reason"]?.stringValue?.contains("SIGTERM") == true })
    }
  }

  @Test("`wait` prints each code and exits with the last one's, also for what ends while it looks")
  func wait() throws {
    try with([
      "quick": "entry: [/bin/sh, -c, 'exit 4']\n", "slow": "entry: [/bin/sh, -c, 'sleep 0.5; exit 6']\n",
    ]) { instance in
      let both = instance.run("wait", "slow", "quick", within: 20)
      #expect(both.out == "6\n4\n")
      #expect(both.code == 4)
      #expect(instance.run("start", "slow").code == 0)
      let json = instance.run("wait", "@\(instance.policies.split(separator: "/").last ?? "")", "--format", "json")
      #expect(json.code == 6)
      #expect(json.lines.map { $0["name"] } == ["quick", "slow"])
      for _ in 0..<5 {
        #expect(instance.run("start", "quick").code == 0)
        #expect(instance.run("wait", "quick", within: 20).code == 4)
      }
    }
  }

  @Test("a signal arrives; pause freezes and a stop reaches what is frozen; what runs is not removed without -f")
  func signals() throws {
    let script = "trap \"echo got usr1\" USR1; trap \"exit 9\" TERM; while :; do sleep 0.05; done"
    try with(["a": "entry: [/bin/sh, -c, '\(script)']\n"]) { instance in
      #expect(instance.run("kill", "-s", "USR1", "a").code == 0)
      eventually("the signal is seen") { instance.run("logs", "a").out.contains("got usr1") }
      #expect(instance.run("kill", "-s", "NOPE", "a").code == 2)
      #expect(instance.run("pause", "a").code == 0)
      #expect(instance.app("a")?["state"] == "paused")
      #expect(instance.run("ps").out.contains("(Paused)"))
      #expect(instance.run("unpause", "a").code == 0)
      #expect(instance.app("a")?["state"] == "running")
      let rm = instance.run("rm", "a")
      #expect(rm.code == 1 && rm.err.contains("is running"), "\(rm.err)")
      #expect(instance.run("pause", "a").code == 0)
      let stop = instance.run("stop", "a", within: 20)
      #expect(stop.code == 0, "\(stop.err)")
      #expect(instance.app("a")?["exit_code"] == 9, "it must have had its grace time, thawed")
      #expect(instance.run("kill", "a").code == 7)
      #expect(instance.run("pause", "a").code == 7)
      #expect(instance.run("rm", "a").out == "a\n")
      #expect(instance.app("a") == nil)
    }
  }

  @Test("a start that comes while the app is being stopped is remembered, and so is a stop while it starts")
  func overtaken() throws {
    let script = "trap \"sleep 0.5; exit 0\" TERM; echo up; while :; do sleep 0.05; done"
    try with(["a": "entry: [/bin/sh, -c, '\(script)']\n"]) { instance in
      let before = try #require(instance.pid("a"))
      eventually("it has set its trap") { instance.run("logs", "a").out.contains("up") }
      #expect(instance.run("api", "app.stop", #"{"apps":["a"]}"#).code == 0)
      #expect(instance.run("start", "a", within: 20).code == 0)
      let row = instance.wait("a") { $0["state"] == "running" }
      #expect(row?["pid"]?.integerValue != Int64(before))
      #expect(instance.run("api", "app.restart", #"{"apps":["a"]}"#).code == 0)
      #expect(instance.run("stop", "a", within: 20).code == 0)
      #expect(instance.app("a")?["state"] == "completed" || instance.app("a")?["state"] == "exited")
    }
  }

  @Test("the table of methods and the versions are printed, and any method can be called")
  func api() throws {
    try with(["a": sleeper]) { instance in
      let methods = instance.run("api", "--list", "--format", "json").lines.compactMap { $0["method"]?.stringValue }
      #expect(methods.contains("app.up") && methods.contains("event.subscribe") && methods.contains("image.pull"))
      #expect(instance.run("api", "app.list").out.contains("\"a\""))
      #expect(instance.run("api", "app.list", #"{"app":"a"}"#).code == 2)
      #expect(instance.run("api", "no.such").code != 0)
      let version = try #require(instance.run("version", "--format", "json").lines.first)
      #expect(version["client"]?.stringValue?.isEmpty == false)
      for key in ["version", "pid", "root", "engine"] { #expect(version["daemon"]?[key]?.isNull == false, "\(key)") }
      #expect(version["daemon"]?["root"]?.stringValue == instance.root)
    }
  }
}
