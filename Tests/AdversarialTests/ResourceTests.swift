import Foundation
import Model
import Testing

extension Attacks {
  /// Each as an app of its own, beside an innocent one that must not notice.
  @Suite("on what is shared", .serialized) struct Resources {
    static let names = ["A33", "A37", "A38", "A39", "A40", "A41", "A43", "A44", "A46"]

    private func run(_ ground: Ground, _ name: String, _ words: [String], _ more: String = "") throws -> (Arena, Pulse)
    {
      let arena = try Arena.on(ground)
      let pulse = arena.pulse()
      let up = try arena.launch(name, words, more)
      #expect(up.code == 0, "\(up.err)")
      return (arena, pulse)
    }

    private func expect(_ arena: Arena, _ name: String) {
      let answer = arena.answers(name).first
      let differences = answer.map { Table.shared.differences($0, arena.ground) }
      #expect(
        differences == [],
        "\(name) on \(arena.ground): \(arena.instance.run("logs", name.lowercased()).out.suffix(600))")
    }

    /// It ends although it does not want to, and nothing of it stays. `pulse` has gone on since it began.
    private func stop(_ arena: Arena, _ name: String, _ pulse: Pulse) throws {
      let began = Measures.now()
      let stop = arena.instance.run("stop", "-t", "1", name.lowercased(), within: 60)
      let took = Measures.now() - began
      #expect(stop.code == 0, "\(stop.err)")
      // Its grace, two seconds, and what a busy machine takes.
      #expect(took < 3 + Measures.longestWait, "\(name) on \(arena.ground)")
      pulse.end("\(name) on \(arena.ground)", "; stop after 1 s of grace \(Int(took * 1000)) ms")
      #expect(arena.instance.app(name.lowercased())?["state"] != "running")
      arena.remove(name)
      try arena.check(name)
    }

    @Test("A09: an app that kills all it can reach ends itself and nobody else", arguments: Ground.available)
    func killAll(_ ground: Ground) throws {
      let (arena, pulse) = try run(ground, "A09", ["itself", "A09"])
      // 42: it came to its own end.
      let ended = arena.instance.wait("a09", seconds: 60) { $0["state"] != "running" && $0["exit_code"] != nil }
      #expect(ended?["exit_code"] == 42, "\(ended?.text ?? "")")
      pulse.end("A09 on \(ground)")
      arena.remove("A09")
      try arena.check("A09")
    }

    @Test("A33: files without end fill only the app's own memory and can be taken away", arguments: Ground.available)
    func files(_ ground: Ground) throws {
      let (arena, pulse) = try run(ground, "A33", ["A33"])
      expect(arena, "A33")
      pulse.end("A33 on \(ground)")
      arena.remove("A33")
      try arena.check("A33")
    }

    @Test("A37: a fork bomb, detached and deaf, comes to its limit and can be stopped", arguments: Ground.available)
    func forkBomb(_ ground: Ground) throws {
      let (arena, pulse) = try run(ground, "A37", ["stay", "A37"], "pids_limit: 64\n")
      expect(arena, "A37")
      // While it goes on.
      try arena.check("A37", isUp: true)
      try stop(arena, "A37", pulse)
    }

    @Test("A38: memory without end, of whichever kind, ends the app alone", arguments: Ground.available)
    func memory(_ ground: Ground) throws {
      let (arena, pulse) = try run(ground, "A38", ["A38"], "mem_limit: 48m\n")
      // The kernel may take the probe itself instead of its child.
      let ended = arena.instance.wait("a38", seconds: 60) { $0["state"] != "running" && $0["exit_code"] != nil }
      if ended?["reason"] != "out of memory" { expect(arena, "A38") }
      pulse.end("A38 on \(ground)")
      arena.remove("A38")
      let second = try arena.launch("A38x", ["itself", "A38x"], "mem_limit: 48m\n")
      #expect(second.code == 0, "\(second.err)")
      let end = arena.instance.wait("a38x", seconds: 60) { $0["state"] == "exited" }
      #expect(end?["reason"] == "out of memory" && end?["exit_code"] == 137)
      arena.remove("A38x")
      try arena.check("A38")
    }

    @Test("A39: 64 processes that never rest leave time for others", arguments: Ground.available)
    func busy(_ ground: Ground) throws {
      let (arena, pulse) = try run(ground, "A39", ["stay", "A39"], "cpus: 0.3\npids_limit: 80\n")
      expect(arena, "A39")
      try arena.check("A39", isUp: true)
      try stop(arena, "A39", pulse)
    }

    @Test("A40: objects of the kernel's without end are counted for the app alone", arguments: Ground.available)
    func objects(_ ground: Ground) throws {
      let (arena, pulse) = try run(ground, "A40", ["stay", "A40"])
      expect(arena, "A40")
      try arena.check("A40", isUp: true)
      try stop(arena, "A40", pulse)
    }

    @Test("A41: output without end is kept within its cap", arguments: Ground.available)
    func flood(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      // Answered beside its output, of which the end may be lost as well.
      let control = try Control("\(arena.instance.root)-flood")
      defer { control.end() }
      let pulse = arena.pulse()
      let up = try arena.launch(
        "A41", ["serve"], control: control, "logging: {options: {max-size: 1m, max-file: \"2\"}}\n")
      #expect(up.code == 0, "\(up.err)")
      #expect(Table.shared.differences(try control.ask("A41"), ground) == [])
      let size = try logSize(arena, "a41")
      #expect(size > 0 && size <= 5 << 19, "\(size)")
      try stop(arena, "A41", pulse)
    }

    /// What a log holds on the disk, the supervisor's and the engine's files together.
    private func logSize(_ arena: Arena, _ app: String) throws -> Int {
      var folders = ["\(arena.instance.root)/log/\(app)"]
      if let rig = arena.ground.rig {
        let id = try #require(arena.instance.app(app)?["container_id"]?.stringValue)
        let place = try #require(Rig.folder)
        folders.append(
          rig == .docker ? "\(place)/docker/data/containers/\(id)" : "\(place)/podman/root/overlay-containers/\(id)")
      }
      let words = Shell.run(["du", "-sb", "--apparent-size", "--"] + folders.filter { access($0, F_OK) == 0 }).out
      return words.split(separator: "\n").compactMap { $0.split(separator: "\t").first.flatMap { Int($0) } }.reduce(
        0, +)
    }

    @Test(
      "A44: an app that is stopped, deaf and stuck in the kernel is stopped nevertheless", arguments: Ground.available)
    func stubborn(_ ground: Ground) throws {
      let (arena, pulse) = try run(ground, "A44", ["stay", "A44"])
      expect(arena, "A44")
      try stop(arena, "A44", pulse)
    }

    @Test("A43: an app that writes and syncs without end holds up neither another nor what the daemon stores")
    func syncing() throws {
      let (arena, pulse) = try run(.native, "A43", ["stay", "A43"], "pids_limit: 16\n")
      var commits: [Double] = []
      for round in 0..<6 {
        let began = Measures.now()
        #expect(arena.instance.run("set", "echo", "stop_grace_period=\(2 + round)s", within: 30).code == 0)
        commits.append(Measures.now() - began)
      }
      #expect(commits.allSatisfy { $0 < Measures.longestWait }, "\(commits)")
      Measures.note("A43 on native: what an operator sets is stored in \(Measures.summary(commits))")
      #expect(arena.instance.run("unset", "echo", within: 30).code == 0)
      expect(arena, "A43")
      try stop(arena, "A43", pulse)
    }

    @Test("A46: when numbers of processes come round again, nobody is taken for another")
    func numbers() throws {
      let (arena, pulse) = try run(.native, "A46", ["A46"])
      expect(arena, "A46")
      // The daemon finds its apps by the kernel's handle, not by a number.
      #expect(arena.instance.run("restart", "attacker", within: 60).code == 0)
      pulse.end("A46 on native")
      arena.remove("A46")
      try arena.check("A46")
    }
  }
}
