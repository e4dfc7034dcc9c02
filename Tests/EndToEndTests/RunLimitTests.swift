import Foundation
import Model
import Testing

@Suite("how many runs, when, and for how long", .serialized) struct RunLimitTests {
  private func with(_ body: (Instance) throws -> Void) throws {
    let instance = try Instance()
    defer { instance.end() }
    try body(instance)
  }

  /// The instance first: what follows the file is the command's own.
  private func run(_ instance: Instance, _ name: String, _ file: String) throws -> Started {
    try Started(
      ["\(Instance.programs)/supervisor", "--root", instance.root, "run", "--name", name, file],
      ProcessInfo.processInfo.environment)
  }

  @Test("a template's runs beyond its most are refused with the reason, and allowed again once one has ended")
  func instances() throws {
    try with { instance in
      instance.startDaemon()
      let file = "\(instance.policies)/report.yaml"
      try "id: report\ntemplate: true\ninstances: {max: 2}\nentry: [/bin/sleep, '1000']\n".write(
        toFile: file, atomically: true, encoding: .utf8)
      let first = try run(instance, "r1", file)
      let second = try run(instance, "r2", file)
      for name in ["r1", "r2"] { instance.wait(name) { $0["state"] == "running" } }
      let third = instance.shell("supervisor run \(file)")
      #expect(
        third.code == 125 && third.err.contains("2 runs of report go on") && third.err.contains("max: 2"), "\(third)")
      #expect(instance.run("stop", "-t", "1s", "r1").code == 0)
      _ = first.finish(within: 20)
      #expect(instance.shell("supervisor run --rm \(file) echo more").out == "more\n")
      #expect(instance.run("stop", "-t", "1s", "r2").code == 0)
      _ = second.finish(within: 20)
    }
  }

  @Test("a step before the start that hangs ends in failed, with the reason")
  func hangingStep() throws {
    try with { instance in
      try instance.write(
        "app", "id: app\nentry: [/bin/sleep, '1000']\npre_start: [{command: [/bin/sleep, '1000'], timeout: 700ms}]\n")
      let up = instance.up()
      #expect(up.code == 1 && up.err.contains("pre_start 1 of 1, /bin/sleep: not done within 700ms"), "\(up)")
      #expect(instance.app("app")?["state"] == "failed")
    }
  }

  @Test("runs may go on beside each other; those that were missed are told, and one makes up for them where asked")
  func schedules() throws {
    try with { instance in
      let every = "cron: '* * * * *'"
      try instance.write(
        "side",
        "id: side\nentry: [/bin/sleep, '1000']\ninstances: {max: 2}\nschedule: {\(every), concurrency: allow}\n")
      try instance.write("told", "id: told\nentry: [/bin/true]\nschedule: {\(every)}\n")
      try instance.write("made", "id: made\nentry: [/bin/true]\nschedule: {\(every), missed: run}\n")
      #expect(instance.run("up", "-d", "--engine", "none", instance.policies).code == 0)
      #expect(instance.run("start", "side").code == 0)
      instance.wait("side") { $0["state"] == "running" }
      instance.wait("side-2", seconds: 80) { $0["state"] == "running" }
      #expect(instance.event("side", "app.due", "beside", "side-2") != nil)
      // The third is one too many; and a whole minute without a daemon goes by.
      eventually("the next is left out, with the reason", seconds: 80) {
        instance.history("side").contains {
          $0["event"] == "app.due" && $0["reason"]?.stringValue?.contains("max: 2") == true
        }
      }
      // One that ends at once may have no `app.started`.
      func ended() -> Int { instance.history("made").count { $0["event"] == "app.exited" } }
      instance.wait("made") { $0["state"] == "scheduled" }
      let runs = ended()
      kill(try #require(instance.daemon), SIGKILL)
      sleep(62)
      instance.startDaemon()
      for name in ["told", "made"] {
        eventually("\(name) tells what it missed") { instance.event(name, "schedule.missed") != nil }
        let missed = instance.event(name, "schedule.missed")
        #expect((missed?["count"]?.integerValue ?? 0) >= 1 && missed?["run"]?.boolValue == (name == "made"), "\(name)")
      }
      eventually("one run makes up for what was missed") { ended() > runs }
      #expect(instance.app("side")?["state"] == "running" && instance.app("side-2")?["state"] == "running")
      // With an app go its runs.
      #expect(instance.run("down", "side", "-t", "1s").code == 0)
      eventually("nothing of it is left") { instance.app("side-2") == nil }
    }
  }
}
