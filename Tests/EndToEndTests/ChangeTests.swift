import Foundation
import Model
import Testing

/// Changes of what runs, as an operator makes them.
@Suite("changes", .serialized) struct ChangeTests {
  private func memory(_ instance: Instance, _ app: String = "web") -> UInt64? {
    instance.cgroup(app, ["memory.limit_in_bytes", "memory.max"]).flatMap { UInt64($0) }
  }

  private func tasks(_ instance: Instance, _ app: String = "web") -> String? { instance.cgroup(app, ["pids.max"]) }

  /// Number of events, to see what came since.
  private func count(_ instance: Instance, _ app: String, _ event: String) -> Int {
    instance.events(app).count { $0 == event }
  }

  private static let mebibyte: UInt64 = 1 << 20

  private func plan(_ instance: Instance, _ more: String...) -> (code: Int32, apps: [String: JSONValue]) {
    let done = instance.run(["plan", "--detailed-exitcode", "--format", "json", instance.policies] + more)
    var apps: [String: JSONValue] = [:]
    for line in done.lines { if let name = line["name"]?.stringValue { apps[name] = line } }
    return (done.code, apps)
  }

  @Test("limits change while the app runs, and plan says so before", arguments: Place.available)
  func live(_ place: Place) throws {
    try place.with { instance in
      let first = "mem_limit: 64m\npids_limit: 50\ncpus: 0.5\nlabels: {tier: one}\n"
      try instance.write("web", place.policy("web", 1000, first))
      #expect(plan(instance).code == 1, "no daemon yet")
      #expect(instance.up().code == 0)
      let pid = instance.pid("web")
      let before = instance.app("web")
      #expect(plan(instance).code == 0)
      #expect(plan(instance).apps["web"]?["change"] == "none")
      for (limits, bytes, pids, cpus) in [
        ("mem_limit: 128m\npids_limit: 90\ncpus: 1\nrestart: always\n", 128 * Self.mebibyte, "90", "1"),
        ("mem_limit: 32m\npids_limit: 20\ncpus: 0.25\npriority: high\n", 32 * Self.mebibyte, "20", "0.25"),
        ("mem_limit: 48m\nmemswap_limit: 96m\npids_limit: 20\n", 48 * Self.mebibyte, "20", "none"),
      ] {
        try instance.write("web", place.policy("web", 1000, limits + "labels: {tier: one}\n"))
        let planned = plan(instance)
        #expect(planned.code == 2)
        #expect(planned.apps["web"]?["change"] == "in-place", "\(planned.apps)")
        let fields = planned.apps["web"]?["fields"]?.arrayValue ?? []
        #expect(fields.contains { $0["key"] == "mem_limit" && $0["old"] != $0["new"] }, "\(fields)")
        let up = instance.up()
        #expect(up.code == 0, "\(up.err)")
        #expect(memory(instance) == bytes)
        #expect(tasks(instance) == pids)
        #expect(instance.pid("web") == pid)
        #expect(instance.app("web")?["generation"] == before?["generation"])
        #expect(instance.app("web")?["restarts"] == 0)
        let layers = instance.status("web")?["layers"]?.arrayValue ?? []
        #expect(layers.allSatisfy { $0["status"] != "missing" }, "\(layers.filter { $0["status"] == "missing" })")
        if let rig = place.rig {
          let id = try #require(instance.app("web")?["container_id"]?.stringValue)
          let found = Process.find("/sys/fs/cgroup", id, ["memory.limit_in_bytes", "memory.max"])
          #expect(found == bytes, "\(rig): the container's own group")
        }
        if cpus == "none", place == .native { #expect(instance.cgroup("web", ["cpu.cfs_quota_us"]) ?? "-1" == "-1") }
      }
      #expect(count(instance, "web", "app.changed") == 3)
      // What is fixed at the start needs another run, and only that.
      try instance.write("web", place.policy("web", 1000, "environment: {SECRET: swordfish}\n"))
      let anew = plan(instance)
      #expect(anew.apps["web"]?["change"] == (place == .native ? "restart" : "recreate"))
      #expect(!(anew.apps["web"]?.text.contains("swordfish") ?? true))
      #expect(instance.up().code == 0)
      #expect(instance.pid("web") != pid)
    }
  }

  @Test(
    "up again with nothing changed does nothing, and an engine that hangs does not hold it up",
    arguments: Place.available)
  func again(_ place: Place) throws {
    try place.with { instance in
      try instance.write("web", place.policy("web", 1000, "mem_limit: 64m\n"))
      #expect(instance.up().code == 0)
      let before = instance.app("web")
      let events = instance.events("web").count
      // It is asked what images' names mean by now, and not waited for.
      let engine = try place.rig.map { try EnginePids.of($0) } ?? []
      for pid in engine { kill(pid, SIGSTOP) }
      let up = instance.run(["up", "-d", "--wait", "--wait-timeout", "3s", instance.policies], within: 10)
      for pid in engine { kill(pid, SIGCONT) }
      #expect(up.code == 0, "\(up.err)")
      let after = instance.wait("web") { $0["state"] == "running" && $0["reason"]?.isNull == true }
      #expect(after?["pid"] == before?["pid"])
      #expect(after?["generation"] == before?["generation"])
      #expect(instance.events("web").count == events)
    }
  }

  @Test("what is set holds over restarts, `up` and daemons, is shown, and is taken back", arguments: Place.available)
  func set(_ place: Place) throws {
    try place.with { instance in
      try instance.write("web", place.policy("web", 1000, "mem_limit: 64m\nrestart: always\n"))
      #expect(instance.up().code == 0)
      let pid = instance.pid("web")
      let set = instance.run("set", "web", "mem_limit=96m", "pids_limit=33")
      #expect(set.code == 0, "\(set.err)")
      #expect(set.out.contains("in-place"))
      #expect(memory(instance) == 96 * Self.mebibyte)
      #expect(instance.pid("web") == pid)
      #expect(instance.run("ps").out.contains("web*"))
      #expect(instance.run("status", "web").out.contains("mem_limit: 96m"))
      #expect(plan(instance).apps["web"]?["overrides"]?.arrayValue?.count == 2)
      #expect(plan(instance).code == 0)
      #expect(instance.up().code == 0)
      #expect(memory(instance) == 96 * Self.mebibyte)
      instance.killDaemon()
      instance.startDaemon()
      #expect(instance.pid("web") == pid)
      #expect(memory(instance) == 96 * Self.mebibyte)
      #expect(instance.run("restart", "web").code == 0)
      #expect(memory(instance) == 96 * Self.mebibyte)
      #expect(tasks(instance) == "33")
      let again = instance.pid("web")
      #expect(instance.run("unset", "web", "mem_limit").code == 0)
      #expect(memory(instance) == 64 * Self.mebibyte)
      #expect(tasks(instance) == "33")
      #expect(instance.run("unset", "web").code == 0)
      #expect(tasks(instance) != "33")
      #expect(instance.pid("web") == again)
      #expect(!instance.run("ps").out.contains("web*"))
      for wrong in ["mem_limit=1", "volumes=[/:/x]", "mem_limit=0", "nonsense=1", "mem_limit"] {
        #expect(instance.run("set", "web", wrong).code == 2, "\(wrong)")
      }
      #expect(instance.run("unset", "web", "cpus").code == 2)
      #expect(memory(instance) == 64 * Self.mebibyte)
      // One that needs another run gets one, and says so.
      let anew = instance.run("set", "web", "oom_score_adj=700")
      #expect(anew.code == 0, "\(anew.err)")
      #expect(anew.out.contains(place == .native ? "needs a restart" : "needs a recreate"))
      #expect(instance.pid("web") != again)
    }
  }

  @Test("what is set for a time ends by itself, also while no daemon runs")
  func expiry() throws {
    try Place.native.with { instance in
      try instance.write("web", Place.native.policy("web", 1000, "mem_limit: 64m\n"))
      #expect(instance.up().code == 0)
      let pid = instance.pid("web")
      #expect(instance.run("set", "web", "mem_limit=96m", "--for", "1s").code == 0)
      #expect(memory(instance) == 96 * Self.mebibyte)
      eventually("it is over", seconds: 10) { memory(instance) == 64 * Self.mebibyte }
      #expect(instance.app("web")?["overrides"]?.arrayValue?.isEmpty == true)
      #expect(instance.run("set", "web", "mem_limit=96m", "--for", "2s").code == 0)
      instance.killDaemon()
      usleep(2_200_000)
      instance.startDaemon()
      eventually("it is over", seconds: 10) { memory(instance) == 64 * Self.mebibyte }
      #expect(instance.pid("web") == pid)
      #expect(instance.events("web").contains("app.override_ended"))
    }
  }

  @Test("--save writes the one line and applies it; what cannot be saved changes nothing")
  func save() throws {
    try Place.native.with { instance in
      let text =
        "# notes\nid: web\nentry: [/bin/sleep, '1000']   # long\nmem_limit: 64m   # enough\n\nstop_grace_period: 200ms\n"
      let path = try instance.write("web", text)
      #expect(instance.up().code == 0)
      let pid = instance.pid("web")
      #expect(instance.run("set", "web", "mem_limit=80m").code == 0)
      let saved = instance.run("set", "web", "mem_limit=96m", "pids_limit=44", "--save")
      #expect(saved.code == 0, "\(saved.err)")
      #expect(
        try String(contentsOfFile: path, encoding: .utf8)
          == text.replacingOccurrences(of: "64m   #", with: "96m   #") + "pids_limit: 44\n")
      #expect(memory(instance) == 96 * Self.mebibyte)
      #expect(instance.app("web")?["overrides"]?.arrayValue?.isEmpty == true)
      #expect(instance.pid("web") == pid)
      #expect(plan(instance).code == 0)
      // A file that says more than what is applied is not applied by the way.
      let other = try String(contentsOfFile: path, encoding: .utf8) + "cpus: 0.5\n"
      try instance.write("web", other)
      #expect(instance.run("set", "web", "mem_limit=97m", "--save").code == 1)
      #expect(try String(contentsOfFile: path, encoding: .utf8) == other)
      #expect(memory(instance) == 96 * Self.mebibyte)
    }
  }

  @Test("less memory than is used is refused with the reason, for one app and for all that are loaded with it")
  func refused() throws {
    try Place.native.with { instance in
      let script = "x=$(head -c 50331648 /dev/zero | tr '\\0' a); while :; do sleep 1000; done"
      try instance.write("big", Place.native.script("big", script, "mem_limit: 256m\nstop_grace_period: 200ms\n"))
      try instance.write("web", Place.native.policy("web", 1000, "mem_limit: 64m\n"))
      #expect(instance.up().code == 0)
      eventually("it holds its memory") { (instance.app("big")?["memory"]?.integerValue ?? 0) > 45 << 20 }
      let pid = instance.pid("big")
      let set = instance.run("set", "big", "mem_limit=16m")
      #expect(set.code == 1)
      #expect(set.err.contains("uses") && set.err.contains("reclaim"), "\(set.err)")
      #expect(memory(instance, "big") == 256 * Self.mebibyte)
      try instance.write("big", Place.native.script("big", script, "mem_limit: 16m\nstop_grace_period: 200ms\n"))
      try instance.write("web", Place.native.policy("web", 1000, "mem_limit: 96m\n"))
      try instance.write("new", Place.native.policy("new", 1000))
      #expect(instance.up().code == 1)
      #expect(memory(instance, "big") == 256 * Self.mebibyte)
      #expect(memory(instance) == 64 * Self.mebibyte, "nothing of what was loaded together is changed")
      #expect(instance.app("new") == nil)
      #expect(instance.pid("big") == pid)
      #expect(instance.app("big")?["overrides"]?.arrayValue?.isEmpty == true)
    }
  }

  @Test(
    "a daemon killed in the middle of changes: the next one has what is applied in force", arguments: Place.available)
  func killed(_ place: Place) throws {
    try place.with { instance in
      try instance.write("web", place.policy("web", 1000, "mem_limit: 64m\npids_limit: 50\n"))
      #expect(instance.up().code == 0)
      let pid = instance.pid("web")
      for round in 0..<(place == .native ? 12 : 5) {
        let daemon = try #require(instance.daemon)
        let size = 65 + round
        let started = try instance.begin(["set", "web", "mem_limit=\(size)m", "pids_limit=\(100 + round)"])
        usleep(UInt32.random(in: 0..<(place == .native ? 25_000 : 120_000)))
        kill(daemon, SIGKILL)
        _ = started.finish(within: 20)
        eventually("the daemon is gone") { Process.isZombie(daemon) }
        instance.startDaemon()
        let row = instance.wait("web") { $0["state"] == "running" }
        let set = row?["overrides"]?.arrayValue ?? []
        let asked = set.first { $0["key"] == "mem_limit" }?["value"]?.stringValue ?? "64m"
        let wanted = try #require(UInt64(asked.dropLast())) * Self.mebibyte
        let tasksWanted = set.first { $0["key"] == "pids_limit" }?["value"]?.stringValue ?? "50"
        #expect(memory(instance) == wanted, "round \(round): \(set)")
        #expect(tasks(instance) == tasksWanted, "round \(round): \(set)")
        #expect(instance.pid("web") == pid)
        if let id = row?["container_id"]?.stringValue {
          #expect(Process.find("/sys/fs/cgroup", id, ["memory.limit_in_bytes", "memory.max"]) == wanted)
        }
      }
    }
  }

  @Test("a somebody who changes a limit by hand is corrected by the next daemon")
  func byHand() throws {
    try Place.native.with { instance in
      try instance.write("web", Place.native.policy("web", 1000, "mem_limit: 64m\n"))
      #expect(instance.up().code == 0)
      let parent = try #require(instance.version?["cgroup_parent"]?.stringValue)
      let path = try #require(
        ["/sys/fs/cgroup/pids\(parent)/web/pids.max", "/sys/fs/cgroup\(parent)/web/pids.max"].first {
          FileManager.default.fileExists(atPath: $0)
        })
      try "7".write(toFile: path, atomically: false, encoding: .utf8)
      instance.killDaemon()
      instance.startDaemon()
      #expect(tasks(instance) == "256")
    }
  }
}

extension Process {
  /// The number in a file of the cgroup whose folder's name holds `part`.
  static func find(_ root: String, _ part: String, _ files: [String]) -> UInt64? {
    for base in ["memory", "unified", ""] {
      guard let all = FileManager.default.enumerator(atPath: "\(root)/\(base)") else { continue }
      for case let path as String in all
      where path.contains(part) && files.contains(where: { path.hasSuffix("/\($0)") }) {
        let text = (try? String(contentsOfFile: "\(root)/\(base)/\(path)", encoding: .utf8)) ?? ""
        return UInt64(text.filter(\.isNumber))
      }
    }
    return nil
  }
}

/// The processes of a private engine.
enum EnginePids {
  static func of(_ rig: Rig) throws -> [Int32] {
    let folder = try #require(Rig.folder)
    let names = rig == .docker ? ["dockerd"] : ["podman"]
    return names.compactMap {
      (try? String(contentsOfFile: "\(folder)/pids/\($0)", encoding: .utf8)).flatMap {
        Int32($0.trimmingCharacters(in: .whitespacesAndNewlines))
      }
    }
  }
}
