import Foundation
import Model
import Testing

/// What goes wrong before an app is reached: each with its exit code, what, why and what to do.
@Suite("refusals", .serialized) struct RefusalTests {
  private let sleeper = "entry: [/bin/sleep, '1000']\n"

  @Test("unknown app 4, no daemon 69, bad usage 2, a second daemon 78, and each says what to do")
  func codes() throws {
    let instance = try Instance()
    defer { instance.end() }
    let none = instance.run("ps")
    #expect(none.code == 69 && none.err.contains("no daemon runs") && none.err.contains("supervisor up"), "\(none.err)")
    let json = instance.run("ps", "--format", "json")
    let error = try JSONValue(parsing: Array(json.err.utf8))["error"]
    for key in ["code", "message", "hint"] { #expect(error?[key]?.stringValue?.isEmpty == false, "\(key)") }
    for usage in [["ps", "--no-such-flag"], ["no-such-verb"], ["stop"], ["up", "--wait-timeout", "soon"]] {
      #expect(instance.run(usage).code == 2, "\(usage)")
    }
    #expect(instance.run("up", "-d", "/no/such/file.yaml").code == 2)
    try instance.write("alpha", "id: alpha\n\(sleeper)")
    #expect(instance.up().code == 0)
    for verb in [["status"], ["stop"], ["start"], ["restart"], ["kill"], ["logs"], ["explain"], ["wait"], ["rm"]] {
      let outcome = instance.run(verb + ["nobody"])
      #expect(outcome.code == 4 && outcome.err.contains("nobody"), "\(verb): \(outcome.code) \(outcome.err)")
    }
    #expect(instance.run("status", "alph").err.contains("did you mean 'alpha'"))
    #expect(instance.run("stop", "@nowhere").code == 4)
    let second = instance.run("daemon")
    #expect(second.code == 78 && second.err.contains("another daemon") && second.err.contains("hint"), "\(second.err)")
    let engine = instance.run("up", "-d", "--engine", "/no/such.sock", instance.policies)
    #expect(engine.code == 1 && engine.err.contains("daemon --stop"), "\(engine.err)")
  }

  @Test("a configuration that is not valid ends the daemon with 78 and the place, also through `up`")
  func configuration() throws {
    let instance = try Instance()
    defer { instance.end() }
    try FileManager.default.createDirectory(atPath: "\(instance.root)/config", withIntermediateDirectories: true)
    let file = "\(instance.root)/config/config.yaml"
    try "instance: default\nenginee: docker\n".write(toFile: file, atomically: true, encoding: .utf8)
    let daemon = instance.run("daemon")
    #expect(
      daemon.code == 78 && daemon.err.contains("config.yaml:2:1") && daemon.err.contains("engine"), "\(daemon.err)")
    let up = instance.run("up", "-d", instance.policies)
    #expect(up.code == 78 && up.err.contains("config.yaml:2:1"), "\(up.code): \(up.err)")
    try FileManager.default.removeItem(atPath: file)
  }

  @Test("a root that cannot be written says so and starts nothing")
  func unwritable() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("a", "id: a\n\(sleeper)")
    #expect(Shell.run(["mount", "-t", "tmpfs", "-o", "ro,size=64k", "none", instance.root]).code == 0)
    let up = instance.up()
    #expect(up.code != 0 && up.err.contains("Read-only file system"), "\(up.err)")
    let daemon = instance.run("daemon")
    #expect(daemon.code == 1 && daemon.err.contains("Read-only file system"), "\(daemon.err)")
    #expect(Shell.run(["umount", instance.root]).code == 0)
  }

  @Test("another user is told that he may not, and starts no daemon of his own there", .enabled(if: getuid() == 0))
  func permission() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("a", "id: a\n\(sleeper)")
    #expect(instance.up().code == 0)
    let other = ["/usr/bin/setpriv", "--reuid=4242", "--regid=4242", "--clear-groups"]
    for verb in [["ps"], ["stop", "a"], ["up", "-d", instance.policies]] {
      let outcome = instance.run(verb, prefix: other)
      #expect(outcome.code == 4, "\(verb): \(outcome.code)")
      #expect(outcome.err.contains("you may not use \(instance.root)/run/supervisor.sock"), "\(outcome.err)")
      #expect(outcome.err.contains("run as root"), "\(outcome.err)")
    }
    #expect(instance.app("a")?["state"] == "running")
  }

  @Test("a full disk: `up` fails whole, what runs and what only looks goes on, a stop works, and space brings all back")
  func fullDisk() throws {
    let scratch = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    let root = "\(scratch)/appsup-e2e-full-\(UInt32.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: root, withIntermediateDirectories: true)
    #expect(Shell.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=755", "none", root]).code == 0)
    let instance = try Instance(root: root)
    defer {
      try? FileManager.default.removeItem(atPath: "\(root)/ballast")
      for app in ["run", "off"] { instance.run("stop", app) }
      instance.end()
      Shell.run(["umount", root])
      try? FileManager.default.removeItem(atPath: root)
    }
    try instance.write("run", "id: run\n\(sleeper)")
    try instance.write("off", "id: off\n\(sleeper)")
    #expect(instance.up().code == 0)
    let before = try #require(instance.app("run"))
    Shell.run(["dd", "if=/dev/zero", "of=\(root)/ballast", "bs=4k"])
    try instance.write("run", "id: run\nmem_limit: 96m\n\(sleeper)")
    try instance.write("new", "id: new\n\(sleeper)")
    // The database may find room within its own files; each try takes of it.
    var up = instance.up("--wait-timeout", "5s")
    for _ in 0..<40 where up.code == 0 {
      Shell.run(["dd", "if=/dev/zero", "of=\(root)/ballast", "bs=512", "oflag=append", "conv=notrunc"])
      up = instance.up("--wait-timeout", "5s", "--force-recreate")
    }
    #expect(up.code == 1 && up.err.contains("full"), "\(up.code): \(up.err)")
    #expect(up.err.contains("free some space"), "\(up.err)")
    let held = try #require(instance.app("run"))
    #expect(held["state"] == "running" || held["state"] == "failed", "\(held.text)")
    #expect(instance.run("ps").code == 0)
    #expect(instance.run("logs", "off").code == 0)
    let stop = instance.run("stop", "off", within: 30)
    #expect(stop.code == 0 || stop.err.contains("being stopped"), "\(stop.err)")
    instance.wait("off") { $0["pid"]?.isNull == true }
    _ = before
    try FileManager.default.removeItem(atPath: "\(root)/ballast")
    let again = instance.up()
    #expect(again.code == 0, "\(again.err)")
    for app in ["run", "off", "new"] { #expect(instance.app(app)?["state"] == "running", "\(app)") }
    #expect(instance.cgroup("run", ["memory.limit_in_bytes", "memory.max"]) == "100663296")
  }
}
