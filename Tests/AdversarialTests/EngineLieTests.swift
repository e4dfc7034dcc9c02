import Foundation
import Model
import Testing

extension Attacks {
  @Suite("by an engine that does otherwise than it was asked", .serialized) struct EngineLies {
    /// What becomes of a request on the way; the same length, so that the head still tells the truth.
    private static let lies = [
      ("\"ReadonlyRootfs\":true", "\"ReadonlyRootfz\":true"),
      ("\"ReadonlyRootfs\":true", "\"Privileged\":true    "),
      ("\"CapDrop\":[\"ALL\"]", "\"CapDrpo\":[\"ALL\"]"),
      ("\"no-new-privileges:true\"", "\"label=disable\"         "),
      ("\"seccomp=", "\"seccomb="),
      ("\"PidsLimit\":", "\"PidsLimti\":"),
      ("\"Memory\":", "\"Memroy\":"),
      ("\"CgroupParent\":", "\"CgroupPraent\":"),
      ("\"NetworkMode\":\"none\"", "\"NetworkMode\":\"host\""),
      ("\"IpcMode\":\"private\"", "\"IpcMode\":\"host\"   "),
      ("\"User\":\"", "\"Ussr\":\""),
      ("\"Ulimits\":[", "\"Ulimtis\":["),
      ("\"OomScoreAdj\":", "\"OomScroeAdj\":"),
      ("\"MaskedPaths\":[", "\"MaskedPahts\":["),
    ]

    @Test(
      "A62: an app whose container lacks what was asked for does not run, and no container stays",
      arguments: Ground.available.filter { $0 != .native })
    func dropped(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      let recorder = try #require(arena.recorder)
      let rig = try #require(ground.rig)
      let id = try #require(arena.instance.id)
      let standing = rig.containers(of: id).count
      for (from, to) in Self.lies {
        recorder.change(from, to: to)
        let file = try arena.instance.write("lied", arena.app("lied", ["stay", "A11"], "pids_limit: 50\n"))
        let up = arena.instance.run("up", "-d", "--wait", "--progress", "quiet", file)
        let changes = recorder.changes
        recorder.change(nil)
        // Podman is told some of it in other words. Tasks are counted by a group of ours above the container's.
        if to.contains("PidsLimti") {
          #expect(changes > 0 || ground == .podman)
          #expect(arena.instance.cgroup("lied", ["pids.max"]) == "50")
        } else if changes > 0 {
          #expect(up.code != 0 && arena.instance.app("lied")?["state"] != "running", "\(to): \(up.out)\(up.err)")
        } else {
          #expect(ground == .podman, "\(from) is not what is asked")
        }
        arena.remove("lied")
        #expect(rig.containers(of: id).count == standing, "\(to)")
      }
      try arena.check("A62")
    }
  }
}
