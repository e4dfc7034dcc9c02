import Foundation
import Model
import Testing

/// What others do to the engine and its containers while apps run. Private engines are stopped and killed, so these need the rig.
@Suite(
  "engine trouble", .serialized,
  .enabled(if: Rig.folder != nil && !Rig.available.isEmpty, "no private engines: SUPERVISOR_TEST_RIG is not set"))
struct EngineTroubleTests {
  private func engines(_ verb: String, _ rig: Rig) throws {
    let program = try #require(Rig.engines)
    let done = Shell.run([program, verb, try #require(Rig.folder), rig.rawValue])
    #expect(done.code == 0, "\(verb) \(rig)")
  }

  /// A call at the engine itself, beside the supervisor.
  private func call(_ rig: Rig, _ method: String, _ path: String) throws {
    let socket = try #require(rig.socket)
    _ = Shell.run([
      "curl", "-s", "--max-time", "20", "-X", method, "--unix-socket", socket, "http://engine/v1.41\(path)",
    ])
  }

  /// Two apps: one in the engine, one native; returns the container's id.
  private func begin(_ instance: Instance, _ rig: Rig) throws -> String {
    let place = try #require(Place(rawValue: rig.rawValue))
    try instance.write("near", Place.native.policy("near", 1000))
    try instance.write("far", place.policy("far", 1000, "restart: always\nrestart_policy: {delay: 10ms}\n"))
    let up = instance.up()
    #expect(up.code == 0, "\(up.err)")
    return try #require(instance.app("far")?["container_id"]?.stringValue)
  }

  @Test(
    "a container that is paused, stopped or removed beside us is noticed, shown and put right", arguments: Rig.available
  )
  func outside(_ rig: Rig) throws {
    try rig.with { instance in
      var id = try begin(instance, rig)
      let near = instance.pid("near")
      try call(rig, "POST", "/containers/\(id)/pause")
      instance.wait("far", seconds: 5) { $0["state"] == "paused" }
      #expect(instance.events("far").contains("app.changed_outside"))
      try call(rig, "POST", "/containers/\(id)/unpause")
      instance.wait("far", seconds: 5) { $0["state"] == "running" }
      #expect(instance.app("far")?["container_id"]?.stringValue == id)
      for (method, path) in [
        ("POST", "/containers/ID/stop?t=0"), ("POST", "/containers/ID/kill"), ("DELETE", "/containers/ID?force=1"),
      ] {
        try call(rig, method, path.replacingOccurrences(of: "ID", with: id))
        let row = instance.wait("far", seconds: 8) {
          $0["state"] == "running" && $0["container_id"]?.stringValue != id
        }
        id = row?["container_id"]?.stringValue ?? ""
      }
      #expect(instance.run("events", "far", "--format", "json").out.contains("\"what\":\"removed\""))
      #expect(instance.pid("near") == near)
      #expect(instance.app("near")?["restarts"] == 0)
      #expect(rig.containers(of: try #require(instance.id)).count == 1)
    }
  }

  @Test(
    "an engine that hangs is noticed within 5 s and back when it goes on; native apps do not notice",
    arguments: Rig.available)
  func hang(_ rig: Rig) throws {
    try rig.with { instance in
      let id = try begin(instance, rig)
      let near = instance.pid("near")
      let far = instance.pid("far")
      let pids = try EnginePids.of(rig)
      #expect(!pids.isEmpty)
      let began = Date()
      for pid in pids { kill(pid, SIGSTOP) }
      defer { for pid in pids { kill(pid, SIGCONT) } }
      instance.wait("far", seconds: 10) { $0["reason"]?.stringValue?.isEmpty == false }
      let took = Date().timeIntervalSince(began)
      print("\(rig): a hang was noticed after \(took) s")
      #expect(took < 5)
      // What dies meanwhile is found later; what is native is served at once.
      if let far { kill(far, SIGKILL) }
      #expect(instance.run("restart", "near", within: 10).code == 0)
      #expect(instance.pid("near") != near)
      for pid in pids { kill(pid, SIGCONT) }
      let row = instance.wait("far", seconds: 10) {
        $0["state"] == "running" && $0["reason"]?.isNull == true && $0["container_id"]?.stringValue != id
      }
      #expect(row != nil)
      let names = instance.run("events", "--format", "json").lines.compactMap { $0["event"]?.stringValue }
      #expect(names.contains("host.unavailable") && names.contains("host.available"))
      #expect(rig.containers(of: try #require(instance.id)).count == 1)
    }
  }

  @Test("containers that go while the engine is down are found gone when it is back", arguments: Rig.available)
  func killed(_ rig: Rig) throws {
    try rig.with { instance in
      let id = try begin(instance, rig)
      let near = instance.pid("near")
      let far = try #require(instance.pid("far"))
      try engines("kill", rig)
      var isBack = false
      defer { if !isBack { try? engines("start", rig) } }
      instance.wait("far", seconds: 5) { $0["reason"]?.stringValue?.isEmpty == false }
      kill(far, SIGKILL)
      #expect(instance.pid("near") == near)
      try engines("start", rig)
      isBack = true
      let row = instance.wait("far", seconds: 15) {
        $0["state"] == "running" && $0["reason"]?.isNull == true && $0["container_id"]?.stringValue != id
      }
      #expect(row != nil)
      #expect(instance.pid("near") == near)
      #expect(rig.containers(of: try #require(instance.id)).count == 1)
    }
  }

  @Test("a limit is not changed halfway by an engine that does not answer", arguments: Rig.available)
  func change(_ rig: Rig) throws {
    try rig.with { instance in
      let id = try begin(instance, rig)
      let before = instance.cgroup("far", ["memory.limit_in_bytes", "memory.max"])
      let pid = instance.pid("far")
      try engines("kill", rig)
      var isBack = false
      defer { if !isBack { try? engines("start", rig) } }
      instance.wait("far", seconds: 5) { $0["reason"]?.stringValue?.isEmpty == false }
      let set = instance.run("set", "far", "mem_limit=96m", within: 20)
      #expect(set.code == 1, "\(set.out)\(set.err)")
      #expect(instance.cgroup("far", ["memory.limit_in_bytes", "memory.max"]) == before)
      #expect(instance.app("far")?["overrides"]?.arrayValue?.isEmpty == true)
      try engines("start", rig)
      isBack = true
      instance.wait("far", seconds: 15) { $0["state"] == "running" && $0["reason"]?.isNull == true }
      #expect(instance.run("set", "far", "mem_limit=96m").code == 0)
      #expect(instance.cgroup("far", ["memory.limit_in_bytes", "memory.max"]) == "100663296")
      // Docker without live-restore ends its containers when it starts again.
      guard rig == .podman else { return }
      #expect(instance.app("far")?["container_id"]?.stringValue == id)
      #expect(instance.pid("far") == pid)
    }
  }
}
