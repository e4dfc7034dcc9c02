import Foundation
import Model
import Testing

/// Files that are read again.
@Suite("reload", .serialized) struct ReloadTests {
  private func memory(_ instance: Instance, _ app: String = "web") -> UInt64? {
    instance.cgroup(app, ["memory.limit_in_bytes", "memory.max"]).flatMap { UInt64($0) }
  }

  private func write(_ instance: Instance, _ name: String, _ text: String) throws {
    let folder = "\(instance.root)/config/policies"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try text.write(toFile: "\(folder)/\(name).yaml", atomically: true, encoding: .utf8)
  }

  private func reloads(_ instance: Instance) -> [JSONValue] {
    instance.run("events", "--format", "json").lines.filter { $0["event"] == "daemon.reloaded" }
  }

  /// Sends SIGHUP and returns what it came to.
  private func hangUp(_ instance: Instance) throws -> JSONValue {
    let before = reloads(instance).count
    kill(try #require(instance.daemon), SIGHUP)
    eventually("it has read them") { reloads(instance).count > before }
    return try #require(reloads(instance).last)
  }

  @Test("SIGHUP applies the config folder and what it can of config.yaml, and says what waits; apps run on")
  func hangUp() throws {
    try Place.native.with { instance in
      instance.startDaemon()
      let daemon = instance.daemon
      try write(instance, "web", "id: web\nentry: [/bin/sleep, '1000']\nmem_limit: 64m\nstop_grace_period: 200ms\n")
      _ = try hangUp(instance)
      let pid = instance.wait("web") { $0["state"] == "running" }?["pid"]
      // One that was stopped stays so.
      try write(instance, "off", "id: off\nentry: [/bin/sleep, '1000']\nstop_grace_period: 200ms\n")
      _ = try hangUp(instance)
      instance.wait("off") { $0["state"] == "running" }
      #expect(instance.run("stop", "off").code == 0)
      try write(instance, "web", "id: web\nentry: [/bin/sleep, '1000']\nmem_limit: 96m\nstop_grace_period: 200ms\n")
      try "privileged_apps: [root]\nuid_range: {base: 0x300000}\n".write(
        toFile: "\(instance.root)/config/config.yaml", atomically: true, encoding: .utf8)
      let done = try hangUp(instance)
      #expect(done["applied"] == ["privileged_apps"], "\(done.text)")
      #expect(done["needs_restart"] == ["uid_range"], "\(done.text)")
      #expect(done["problems"] == [])
      #expect(memory(instance) == 96 << 20)
      #expect(instance.app("web")?["pid"] == pid)
      #expect(instance.app("off")?["state"] == "exited")
      // What is privileged now may be loaded.
      try write(
        instance, "root", "id: root\nentry: [/bin/sleep, '1000']\nsandbox: privileged\nstop_grace_period: 200ms\n")
      _ = try hangUp(instance)
      instance.wait("root") { $0["state"] == "running" }
      // One wrong file, and all stay as they were.
      try write(instance, "web", "id: web\nentry: [/bin/sleep, '1000']\nmem_limit: 97m\nstop_grace_period: 200ms\n")
      try write(instance, "bad", "id: bad\nmem_limt: 1m\n")
      try "privileged_app: []\n".write(
        toFile: "\(instance.root)/config/config.yaml", atomically: true, encoding: .utf8)
      let bad = instance.run("daemon", "--reload")
      #expect(bad.code == 1)
      #expect(bad.err.contains("mem_limt") && bad.err.contains("privileged_app"), "\(bad.err)")
      #expect(memory(instance) == 96 << 20)
      #expect(instance.app("bad") == nil)
      #expect(instance.daemon == daemon)
      #expect(instance.app("root")?["state"] == "running")
    }
  }

  @Test("SIGTERM ends the daemon in good order, and apps run on")
  func terminated() throws {
    try Place.native.with { instance in
      try instance.write("web", Place.native.policy("web", 1000))
      #expect(instance.up().code == 0)
      let pid = instance.pid("web")
      let daemon = try #require(instance.daemon)
      kill(daemon, SIGTERM)
      eventually("it is gone") { Process.isZombie(daemon) || kill(daemon, 0) != 0 }
      let log = try String(contentsOfFile: "\(instance.root)/log/daemon.log", encoding: .utf8)
      #expect(log.contains("daemon.ended"), "\(log.suffix(500))")
      instance.startDaemon()
      #expect(instance.pid("web") == pid)
    }
  }

  @Test("up --watch applies files as they are written, and never half of one")
  func watch() throws {
    try Place.native.with { instance in
      let text = "id: web\nentry: [/bin/sleep, '1000']\nstop_grace_period: 200ms\nmem_limit: 64m\n"
      let path = try instance.write("web", text)
      let watching = try instance.begin(["up", "--watch", "--engine", "none", instance.policies])
      defer {
        watching.interrupt()
        #expect(watching.finish(within: 10).code == 0)
      }
      let pid = instance.wait("web") { $0["state"] == "running" }?["pid"]
      #expect(memory(instance) == 64 << 20)
      try instance.write("web", text.replacingOccurrences(of: "64m", with: "80m"))
      eventually("it is applied", seconds: 5) { memory(instance) == 80 << 20 }
      // A writer that is not done: what is there so far would be a policy, with the preset's memory.
      let file = try #require(fopen(path, "w"))
      fputs("id: web\nentry: [/bin/sleep, '1000']\nstop_grace_period: 200ms\n", file)
      fflush(file)
      try instance.write("other", "id: other\nentry: [/bin/sleep, '1000']\nstop_grace_period: 200ms\n")
      usleep(1_000_000)
      #expect(memory(instance) == 80 << 20)
      #expect(instance.app("other") == nil, "nothing is read while a file is being written")
      fputs("mem_limit: 96m\n", file)
      fclose(file)
      eventually("it is applied", seconds: 5) { memory(instance) == 96 << 20 }
      instance.wait("other") { $0["state"] == "running" }
      // What is wrong stays out, and what is right again goes in.
      try instance.write("web", text + "nonsense: true\n")
      usleep(700_000)
      #expect(memory(instance) == 96 << 20)
      try instance.write("web", text)
      eventually("it is applied", seconds: 5) { memory(instance) == 64 << 20 }
      #expect(instance.app("web")?["pid"] == pid)
    }
  }
}
