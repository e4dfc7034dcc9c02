import Foundation
import Model
import Testing

/// Private engines are killed and started again, so these need the rig that Tests/run starts.
@Suite(
  "an engine that goes away", .serialized,
  .enabled(if: Rig.folder != nil && !Rig.available.isEmpty, "no private engines: SUPERVISOR_TEST_RIG is not set"))
struct EngineAwayTests {
  private func engines(_ verb: String, _ rig: Rig) throws {
    let program = try #require(Rig.engines)
    let folder = try #require(Rig.folder)
    let done = Shell.run([program, verb, folder, rig.rawValue])
    #expect(done.code == 0, "\(verb) \(rig)")
  }

  @Test(
    "native apps go on, ps shows the trouble, and containers are reconciled once it is back", arguments: Rig.available)
  func away(_ rig: Rig) throws {
    try rig.with { instance in
      let mark = Int.random(in: 1_000_000...99_000_000)
      let place = try #require(Place(rawValue: rig.rawValue))
      try instance.write("near", Place.native.policy("near", 1000))
      try instance.write("far", place.policy("far", mark, "restart: always\nrestart_policy: {delay: 10ms}\n"))
      #expect(instance.up().code == 0)
      let near = instance.app("near")
      try engines("kill", rig)
      var isBack = false
      defer { if !isBack { try? engines("start", rig) } }
      let troubled = instance.wait("far") { $0["reason"]?.stringValue?.isEmpty == false }
      #expect(troubled?["reason"]?.stringValue?.contains("docker.sock") == true || troubled?["reason"] != nil)
      #expect(instance.run("ps").out.contains("engine"), "\(instance.run("ps").out)")
      #expect(instance.app("near")?["pid"] == near?["pid"])
      #expect(instance.run("restart", "near", within: 10).code == 0)
      let pending = try instance.write("later", place.policy("later", mark + 1))
      let up = instance.run("up", "-d", "--wait", "--wait-timeout", "1s", pending)
      #expect(up.code == 124, "\(up.err)")
      #expect(instance.app("later")?["state"]?.stringValue != "failed")
      // A daemon that starts meanwhile serves what it can.
      instance.killDaemon()
      instance.startDaemon()
      #expect(instance.app("near")?["state"] == "running")
      #expect(instance.app("far")?["reason"]?.stringValue?.isEmpty == false)
      try engines("start", rig)
      isBack = true
      for app in ["far", "later"] {
        let row = instance.wait(app, seconds: 15) { $0["state"] == "running" && $0["reason"]?.isNull == true }
        #expect(row != nil, "\(app)")
      }
      let ids = rig.containers(of: try #require(instance.id))
      #expect(ids.filter { $0["State"] == "running" }.count == 2, "\(ids.map(\.text))")
      eventually("each runs once") {
        Process.all.filter { Process.command($0) == ["/bin/sleep", "\(mark)"] }.count == 1
      }
    }
  }

  @Test(
    "what is to go while the engine is away is killed by the kernel; down says what is left to do, and it is done later",
    arguments: Rig.available)
  func down(_ rig: Rig) throws {
    try rig.with { instance in
      let mark = Int.random(in: 1_000_000...99_000_000)
      let place = try #require(Place(rawValue: rig.rawValue))
      try instance.write("far", place.policy("far", mark))
      #expect(instance.up().code == 0)
      try engines("kill", rig)
      var isBack = false
      defer { if !isBack { try? engines("start", rig) } }
      #expect(instance.wait("far") { $0["reason"]?.stringValue?.isEmpty == false } != nil)
      let down = instance.run("down", "-t", "1", "far", within: 30)
      #expect(down.code == 1 && down.err.contains("goes on when that answers again"), "\(down.code) \(down.err)")
      eventually("it runs no more") { !Process.all.contains { Process.command($0) == ["/bin/sleep", "\(mark)"] } }
      try engines("start", rig)
      isBack = true
      eventually("it is gone", seconds: 30) { instance.app("far") == nil }
      #expect(rig.containers(of: try #require(instance.id)).isEmpty)
    }
  }
}
