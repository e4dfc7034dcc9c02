import Foundation
import Glibc
import Linux
import Model
import Synchronization
import Testing

extension Attacks {
  /// By files that are something else than who names them thinks, or become it.
  @Suite("by files that are none", .serialized, .enabled(if: getuid() == 0, "needs root")) struct Files {
    /// Nobody waits longer for what is refused.
    private static let patience = 10.0

    private func with(_ body: (Instance, String) throws -> Void) throws {
      let instance = try Instance()
      let folder = "\(instance.root)-files"
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
      defer {
        instance.end()
        try? FileManager.default.removeItem(atPath: folder)
      }
      try body(instance, folder)
    }

    private func refused(_ outcome: Outcome, _ what: String, _ words: String...) {
      #expect(outcome.code > 0, "\(what): \(outcome.code) \(outcome.out)\(outcome.err)")
      #expect(words.contains { outcome.err.contains($0) }, "\(what): \(outcome.err)")
    }

    @Test(
      "A30: a FIFO, a socket or a device in the place of a file keeps nobody waiting, neither here nor in the daemon")
    func fifos() throws {
      try with { instance, folder in
        let fifo = "\(folder)/fifo.yaml"
        mkfifo(fifo, 0o666)
        for verb in [["policy", "check"], ["up", "-d"], ["plan"], ["explain"], ["import"]] {
          refused(instance.run(verb + [fifo], within: Self.patience), "\(verb)", "FIFO", "read")
        }
        // In a folder of policies.
        refused(instance.run(["up", "-d", folder], within: Self.patience), "a folder", "FIFO")
        unlink(fifo)
        let base = "id: files\nentry: [/bin/sleep, '1000']\nstop_grace_period: 1s\n"
        for name in ["fifo", "/dev/zero", "/dev/tty"] {
          mkfifo("\(folder)/fifo", 0o666)
          try "\(base)env_file: \(name)\n".write(toFile: "\(folder)/app.yaml", atomically: true, encoding: .utf8)
          refused(instance.run(["up", "-d", "\(folder)/app.yaml"], within: Self.patience), name, "no file", "open")
        }
        for (source, word) in [("/dev/zero", "host"), ("/dev/tty", "host"), ("\(folder)/gone", "does not exist")] {
          try "\(base)volumes: ['\(source):/x']\n".write(
            toFile: "\(folder)/app.yaml", atomically: true, encoding: .utf8)
          refused(
            instance.run(["up", "-d", "--wait", "\(folder)/app.yaml"], within: 30), source, word)
        }
        instance.run("down", "files", "-y")
        // The daemon reads its own folder by itself.
        let config = "\(instance.root)/config/policies"
        try FileManager.default.createDirectory(atPath: config, withIntermediateDirectories: true)
        try "\(base)env_file: \(folder)/fifo\n".write(toFile: "\(config)/a.yaml", atomically: true, encoding: .utf8)
        let reload = instance.run(["daemon", "--reload"], within: Self.patience)
        #expect((reload.out + reload.err).contains("FIFO"), "\(reload.code) \(reload.out)\(reload.err)")
        unlink("\(config)/a.yaml")
        mkfifo("\(config)/b.yaml", 0o666)
        let second = instance.run(["daemon", "--reload"], within: Self.patience)
        #expect((second.out + second.err).contains("FIFO"), "\(second.code) \(second.out)\(second.err)")
        #expect(instance.run(["ps"], within: Self.patience).code == 0)
      }
    }

    @Test("A31: files of a TiB that hold nothing cost what they hold, wherever they lie")
    func sparse() throws {
      try with { instance, folder in
        func sparse(_ path: String) throws {
          let raw = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0o666)
          try #require(raw >= 0 && ftruncate(raw, 1 << 40) == 0)
          close(raw)
        }
        let base = "id: files\nentry: [/bin/sleep, '1000']\nstop_grace_period: 1s\n"
        try sparse("\(folder)/big.yaml")
        refused(instance.run(["policy", "check", "\(folder)/big.yaml"], within: Self.patience), "a policy", "1 MiB")
        unlink("\(folder)/big.yaml")
        try sparse("\(folder)/big.env")
        try "\(base)env_file: big.env\n".write(toFile: "\(folder)/app.yaml", atomically: true, encoding: .utf8)
        refused(
          instance.run(["up", "-d", "\(folder)/app.yaml"], within: Self.patience), "an env_file", "read", "large")
        try base.write(toFile: "\(folder)/app.yaml", atomically: true, encoding: .utf8)
        #expect(instance.run(["up", "-d", "--wait", "--progress", "quiet", "\(folder)/app.yaml"]).code == 0)
        let daemon = try #require(instance.daemon)
        try sparse("\(instance.root)/state/apps/files/data/big")
        #expect(instance.run(["down", "files", "-y"]).code == 0)
        let found = instance.run(["prune", "--volumes", "--dry-run", "--format", "json"], within: Self.patience)
        let sizes = found.lines.flatMap { $0["items"]?.arrayValue ?? [$0] }.compactMap { $0["bytes"]?.integerValue }
        #expect(found.code == 0 && sizes.allSatisfy { $0 < 1 << 20 }, "\(found.out)\(found.err)")
        #expect(instance.run(["up", "-d", "--wait", "--progress", "quiet", "\(folder)/app.yaml"]).code == 0)
        let down = instance.run(["down", "files", "--data", "-y"], within: Self.patience)
        #expect(down.code == 0, "\(down.err)")
        #expect(!FileManager.default.fileExists(atPath: "\(instance.root)/state/apps/files"))
        #expect(instance.daemon == daemon)
      }
    }

    @Test("A31 A34: a build's folder without end is refused, and an archive that shrinks while it is read hurts nobody")
    func contexts() throws {
      guard let rig = Rig.available.first else { return }
      try rig.with { instance in
        let folder = "\(instance.root)-context"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(atPath: folder) }
        try "FROM scratch\nCOPY Dockerfile /\n".write(toFile: "\(folder)/Dockerfile", atomically: true, encoding: .utf8)
        try instance.write("a", "id: a\nimage: \(Rig.image)\nentry: [sleep, '1000']\nstop_grace_period: 1s\n")
        #expect(instance.up().code == 0)
        let daemon = try #require(instance.daemon)
        let raw = open("\(folder)/big", O_RDWR | O_CREAT | O_CLOEXEC, 0o666)
        defer { close(raw) }
        #expect(ftruncate(raw, 1 << 40) == 0)
        refused(instance.run(["build", "-t", "x:1", folder], within: 30), "a context", "GiB")
        #expect(ftruncate(raw, 1 << 30) == 0)
        let load = try instance.begin(["load", "\(folder)/big"])
        usleep(100_000)
        #expect(ftruncate(raw, 0) == 0)
        #expect(load.finish(within: 60).code > 0)
        #expect(instance.daemon == daemon)
      }
    }

    @Test(
      "A28 A32: what a folder's path leads to is changed when it was looked at, and the container gets what was looked at",
      arguments: Images.containers, ["/containers/create", "/start"])
    func swapped(_ ground: Ground, _ moment: String) throws {
      let arena = try Arena.on(ground)
      let recorder = try #require(arena.recorder)
      let folder = "\(arena.instance.root)-swap"
      for (name, word) in [("given", "right"), ("hidden", "wrong")] {
        try FileManager.default.createDirectory(
          atPath: "\(folder)/\(name)", withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
        try "\(word)\n".write(toFile: "\(folder)/\(name)/word", atomically: true, encoding: .utf8)
      }
      defer { try? FileManager.default.removeItem(atPath: folder) }
      let swaps = Mutex(0)
      recorder.watch { line in
        guard line.contains(moment), swaps.withLock({ $0 == 0 }) else { return }
        let isDone =
          rename("\(folder)/given", "\(folder)/away") == 0 && symlink("\(folder)/hidden", "\(folder)/given") == 0
        if isDone { swaps.withLock { $0 += 1 } }
      }
      defer { recorder.watch(nil) }
      let file = try arena.instance.write(
        "swapped",
        "id: swapped\nimage: \(Rig.image)\nentry: [sh, -c, 'cat /f/word; exec sleep 1000']\nstop_grace_period: 1s\n"
          + "volumes: ['\(folder)/given:/f:ro']\n")
      let up = arena.instance.run("up", "-d", "--wait", "--progress", "quiet", file)
      #expect(swaps.withLock { $0 } == 1, "nothing was swapped")
      #expect(up.code == 0, "\(up.err)")
      eventually("it has said what it sees") { !arena.instance.run("logs", "swapped").out.isEmpty }
      let said = arena.instance.run("logs", "swapped").out
      #expect(said.contains("right") && !said.contains("wrong"), "\(said)")
      let mounts = try String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)
      #expect(!mounts.contains("\(arena.instance.root)/run/binds"), "nothing stays mounted")
      arena.remove("swapped")
      try arena.check("A28")
    }

    @Test("A32: a folder that is being taken away is changed into a link and back: nothing outside changes")
    func removal() throws {
      let root = "\(ProcessInfo.processInfo.environment["TMPDIR"] ?? "/var/tmp")/appsup-removal-\(getpid())"
      let outside = "\(root)/outside"
      try FileManager.default.createDirectory(atPath: outside, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: root) }
      for index in 0..<50 { _ = FileManager.default.createFile(atPath: "\(outside)/\(index)", contents: nil) }
      let isOver = Mutex(false)
      let done = DispatchSemaphore(value: 0)
      let data = "\(root)/volumes/data"
      // The attacker: makes folders, and swaps them for links to the outside as fast as it can.
      for thread in 0..<2 {
        Thread.detachNewThread {
          while !isOver.withLock({ $0 }) {
            let (folder, link) = ("\(data)/d\(thread)", "\(data)/l\(thread)")
            mkdir(data, 0o777)
            mkdir(folder, 0o777)
            for index in 0..<8 { close(open("\(folder)/\(index)", O_CREAT | O_WRONLY, 0o666)) }
            symlink(outside, link)
            for _ in 0..<20 {
              rename(folder, "\(folder)x")
              rename(link, folder)
              rename("\(folder)x", link)
            }
          }
          done.signal()
        }
      }
      mkdir("\(root)/volumes", 0o755)
      for _ in 0..<300 { _ = try? Tree.remove("volumes", "data", in: root) }
      isOver.withLock { $0 = true }
      for _ in 0..<2 { done.wait() }
      #expect(try FileManager.default.contentsOfDirectory(atPath: outside).count == 50)
      _ = try Tree.remove("volumes", "data", in: root)
    }
  }
}
