import Foundation
import Glibc
import Model
import Testing

extension Attacks {
  /// Attacks by who writes a policy, an image or a root file system.
  @Suite("by policies and images", .serialized) struct Images {
    static let containers = Ground.available.filter { $0 != .native }

    /// `up` of a policy that must not start, and what was said; the app is taken away again.
    private func refused(_ arena: Arena, _ name: String, _ policy: String) throws -> String {
      let file = try arena.instance.write(name, policy)
      let up = arena.instance.run("up", "-d", "--wait", "--progress", "quiet", file)
      let state = arena.instance.app(name)?["state"]?.stringValue ?? "none"
      #expect(up.code != 0 && state != "running", "\(policy)\nstate \(state)")
      arena.instance.run("down", name, "--data", "-y", "--progress", "quiet")
      try FileManager.default.removeItem(atPath: file)
      return up.err
    }

    /// A build context from what `make` puts into a folder.
    private func context(_ arena: Arena, _ dockerfile: String, _ make: (String) throws -> Void = { _ in }) throws
      -> String
    {
      let folder = "\(arena.instance.policies)/context-\(UInt32.random(in: 0 ... .max))"
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      try make(folder)
      try dockerfile.write(toFile: "\(folder)/Dockerfile", atomically: true, encoding: .utf8)
      return folder
    }

    private func built(_ name: String, _ folder: String) -> String {
      "id: \(name)\nimage: appsup-test/\(name)-\(getpid()):1\nbuild: {context: \(folder)}\nstop_grace_period: 1s\n"
    }

    @Test("A18: a working folder that is a descriptor of somebody else's is refused", arguments: Ground.available)
    func folders(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      let start = ground == .native ? "entry: [/bin/sleep, '1000']\n" : ContainerApp.sleep
      for (index, folder) in ["/proc/self/fd/7", "..", "relative", "/proc/self/fd/8/../..", "/proc/1/cwd"].enumerated()
      {
        let said = try refused(arena, "cwd\(index)", "id: cwd\(index)\n\(start)working_dir: \(folder)\n")
        #expect(said.contains("working_dir") || said.contains(folder), "\(folder): \(said)")
      }
      if ground != .native {
        let folder = try context(arena, "FROM \(Rig.image)\nWORKDIR /proc/self/fd/7\nCMD [\"/bin/sleep\", \"1000\"]\n")
        _ = try refused(arena, "imagecwd", built("imagecwd", folder))
      }
      try arena.check("A18")
    }

    @Test(
      "A20: an image whose system folders are links gets no other ones, and none of them unmasked",
      arguments: containers)
    func linkedSystem(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      for (index, name) in ["proc", "sys", "dev", "tmp"].enumerated() {
        let folder = try context(arena, "FROM scratch\nCOPY root /\n") { folder in
          try FileManager.default.createDirectory(atPath: "\(folder)/root/etc", withIntermediateDirectories: true)
          try FileManager.default.createDirectory(atPath: "\(folder)/root/elsewhere", withIntermediateDirectories: true)
          try FileManager.default.copyItem(atPath: arena.probe, toPath: "\(folder)/root/try")
          for other in ["proc", "sys", "dev", "tmp"] where other != name {
            try FileManager.default.createDirectory(
              atPath: "\(folder)/root/\(other)", withIntermediateDirectories: true)
          }
          symlink("elsewhere", "\(folder)/root/\(name)")
        }
        let id = "linked\(index)"
        let file = try arena.instance.write(
          id, built(id, folder) + "entry: [/try, stay, A03, A06, A22]\nenvironment: {PROBE_SECRETS: /etc/hosts}\n")
        _ = arena.instance.run("up", "-d", "--wait", "--progress", "quiet", file)
        // Refused, or what the probe finds is as in any other container.
        if arena.instance.app(id)?["state"] == "running" {
          let answers = arena.answers(id, 3)
          #expect(answers.count == 3)
          for answer in answers {
            let worked = answer.steps.filter { step in
              guard step.result == "succeeded" else { return false }
              let row = Table.shared.rows(answer.attack).first { $0.matches(step.call) }
              if case .known? = row?.cells[ground] { return false }
              return true
            }
            #expect(worked.isEmpty, "\(name): \(worked)")
          }
        }
        arena.remove(id)
      }
      try arena.check("A20")
    }

    @Test("A21: a place to mount on that is a link leads nowhere on the host", arguments: Ground.available)
    func linkedTargets(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      let victim = "\(arena.instance.root)-victim"
      try FileManager.default.createDirectory(atPath: victim, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: victim) }
      chmod(victim, 0o777)
      let volume = "volumes: [{type: volume, source: linked, target: /way/inside}]\n"
      if ground == .native {
        let rootfs = "\(arena.instance.policies)/rootfs"
        for name in ["bin", "proc", "dev", "tmp"] {
          try FileManager.default.createDirectory(atPath: "\(rootfs)/\(name)", withIntermediateDirectories: true)
        }
        try FileManager.default.copyItem(atPath: arena.probe, toPath: "\(rootfs)/bin/try")
        symlink(victim, "\(rootfs)/way")
        let file = try arena.instance.write(
          "linked", "id: linked\nrootfs: \(rootfs)\nentry: [/bin/try, stay, A11]\n\(volume)")
        _ = arena.instance.run("up", "-d", "--wait", "--progress", "quiet", file)
      } else {
        let folder = try context(arena, "FROM \(Rig.image)\nRUN ln -s ../../../../../../../..\(victim) /way\n")
        let file = try arena.instance.write(
          "linked", built("linked", folder) + "entry: [/bin/sleep, '1000']\n\(volume)")
        _ = arena.instance.run("up", "-d", "--wait", "--progress", "quiet", file)
      }
      #expect(try FileManager.default.contentsOfDirectory(atPath: victim) == [])
      arena.remove("linked")
      try arena.check("A21")
    }

    @Test("A61: a policy that asks for the host is refused before an engine hears of it", arguments: Ground.available)
    func wishes(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      let start = ground == .native ? "entry: [/bin/sleep, '1000']\n" : ContainerApp.sleep
      let wishes = [
        "sandbox: privileged", "privileged: true", "network_mode: host", "pid: host", "ipc: host", "userns_mode: host",
        "cgroup_parent: /", "runtime: runc", "volumes_from: [canary]", "devices: [\"/dev/vda:/dev/vda\"]",
        "volumes: [\"/:/host\"]", "volumes: [\"/proc:/host\"]", "volumes: [\"/run:/host\"]",
        "volumes: [\"/var/run/docker.sock:/docker.sock\"]", "volumes: [\"\(arena.instance.root)/state:/state\"]",
        "volumes: [\"./:/proc/sys\"]", "volumes: [{type: volume, source: ../../etc, target: /etc2}]",
        "cap_add: [NO_SUCH]", "oom_score_adj: -1000", "sysctls: {kernel.core_pattern: x}", "mem_limit: 0",
      ]
      let before = arena.recorder?.requests.filter { $0.hasPrefix("POST") }.count
      for (index, wish) in wishes.enumerated() {
        let said = try refused(arena, "wish\(index)", "id: wish\(index)\n\(start)\(wish)\n")
        #expect(!said.isEmpty, "\(wish)")
      }
      #expect(arena.recorder?.requests.filter { $0.hasPrefix("POST") }.count == before)
      try arena.check("A61")
    }

    @Test("A63: a set-uid program in an image or a root file system gives nothing", arguments: Ground.available)
    func setUID(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      let policy: String
      if ground == .native {
        let rootfs = "\(arena.instance.policies)/suid"
        for name in ["bin", "proc", "dev", "tmp"] {
          try FileManager.default.createDirectory(atPath: "\(rootfs)/\(name)", withIntermediateDirectories: true)
        }
        try FileManager.default.copyItem(atPath: arena.probe, toPath: "\(rootfs)/bin/try")
        chmod("\(rootfs)/bin/try", 0o4755)
        policy = "id: suid\nrootfs: \(rootfs)\nentry: [/bin/try, stay, A07]\nenvironment: {PROBE_SUID: /bin/try}\n"
      } else {
        let folder = try context(
          arena,
          "FROM \(Rig.image)\nCOPY try /bin/try\nRUN chmod 4755 /bin/try\nUSER 0:0\nENTRYPOINT [\"/bin/false\"]\n"
        ) { try FileManager.default.copyItem(atPath: arena.probe, toPath: "\($0)/try") }
        policy =
          built("suid", folder)
          + "entrypoint: [/bin/try, stay, A07]\nenvironment: {PROBE_SUID: /bin/try}\n"
      }
      let file = try arena.instance.write("suid", policy)
      let up = arena.instance.run("up", "-d", "--wait", "--progress", "quiet", file)
      #expect(up.code == 0, "\(up.err)")
      let answer = arena.answers("suid").first
      #expect(answer.map { Table.shared.differences($0, ground) } == [], "\(String(describing: answer))")
      arena.remove("suid")
      try arena.check("A63")
    }
  }
}

private enum ContainerApp {
  static let sleep = "image: \(Rig.image)\nentry: [/bin/sleep, '1000']\nstop_grace_period: 1s\n"
}
