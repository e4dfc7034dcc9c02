import Foundation
import Glibc
import Model
import Testing

@Suite("as a service") struct ServiceTests {
  /// What systemd listens on; `receive` waits for one message.
  private final class Listener {
    let path: String
    private let raw: Int32

    init() throws {
      path = "/tmp/appsup-notify-\(UInt32.random(in: 0 ... .max))"
      raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue), 0)
      var address = sockaddr_un()
      address.sun_family = sa_family_t(AF_UNIX)
      let name = path
      withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: name.utf8) }
      let bound = withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          bind(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
        }
      }
      try #require(bound == 0)
    }

    deinit {
      close(raw)
      unlink(path)
    }

    func receive(_ seconds: Double) -> String? {
      var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
      guard poll(&wait, 1, Int32(seconds * 1000)) == 1 else { return nil }
      var bytes = [UInt8](repeating: 0, count: 4096)
      let got = recv(raw, &bytes, bytes.count, 0)
      return String(decoding: bytes[..<max(0, got)], as: UTF8.self)
    }
  }

  @Test(
    "systemd is told when it is ready, that it is alive as often as it asks, and when it stops; a stuck one falls silent"
  )
  func protocolOfSystemd() throws {
    let listener = try Listener()
    let instance = try Instance(["NOTIFY_SOCKET": listener.path, "WATCHDOG_USEC": "400000"])
    defer { instance.end() }
    instance.startDaemon()
    var ready = listener.receive(10)
    while ready == "WATCHDOG=1" { ready = listener.receive(1) }
    let pid = try #require(instance.daemon)
    #expect(ready == "READY=1\nMAINPID=\(pid)", "\(ready ?? "nothing")")
    for _ in 0..<4 { #expect(listener.receive(0.4) == "WATCHDOG=1") }
    Glibc.kill(pid, SIGSTOP)
    while listener.receive(0) != nil {}
    #expect(listener.receive(0.6) == nil, "one that is stuck says nothing")
    Glibc.kill(pid, SIGCONT)
    #expect(listener.receive(5) == "WATCHDOG=1")
    Glibc.kill(pid, SIGHUP)
    var reloading = listener.receive(5)
    while reloading == "WATCHDOG=1" { reloading = listener.receive(5) }
    #expect(reloading?.hasPrefix("RELOADING=1\nMONOTONIC_USEC=") == true, "\(reloading ?? "nothing")")
    var again = listener.receive(5)
    while again == "WATCHDOG=1" { again = listener.receive(5) }
    #expect(again == "READY=1")
    Glibc.kill(pid, SIGTERM)
    var last: String?
    while let next = listener.receive(2) { last = next == "WATCHDOG=1" ? last : next }
    #expect(last == "STOPPING=1")
  }

  @Test("no app is told where systemd listens")
  func inherited() throws {
    let listener = try Listener()
    let instance = try Instance(["NOTIFY_SOCKET": listener.path])
    defer { instance.end() }
    try instance.write("a", "id: a\nentry: [/bin/sh, -c, 'env; exec sleep 1000']\n")
    #expect(instance.up().code == 0)
    let said = instance.run("logs", "a").out
    #expect(said.contains("PATH=") && !said.contains("NOTIFY_SOCKET"))
  }

  @Test("the unit is the one in deploy/, with the paths of this installation, and systemd finds nothing wrong with it")
  func unit() throws {
    let text = Shell.run(["\(Instance.programs)/supervisor", "enable", "--system", "--dry-run"]).out
    let deployed = try String(contentsOfFile: "\(Instance.sources)/deploy/appsupervisor.service", encoding: .utf8)
    func others(_ text: String) -> [Substring] { text.split(separator: "\n").filter { !$0.hasPrefix("ExecStart=") } }
    #expect(others(text) == others(deployed))
    #expect(text.contains("/supervisor-daemon --system\n") && deployed.contains("/usr/libexec/appsupervisor/"))
    guard access("/usr/bin/systemd-analyze", X_OK) == 0 else { return }
    let folder = "/tmp/appsup-unit-\(UInt32.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    let user = Shell.run(["\(Instance.programs)/supervisor", "enable", "--user", "--dry-run"]).out
    // A name that nothing on this host masks.
    for (name, text, flags) in [("appsup-a.service", text, []), ("appsup-b.service", user, ["--user"])] {
      try text.write(toFile: "\(folder)/\(name)", atomically: true, encoding: .utf8)
      let verify = Shell.run(
        ["env", "XDG_RUNTIME_DIR=\(folder)", "systemd-analyze", "verify"] + flags + ["\(folder)/\(name)"])
      #expect(verify.code == 0 && verify.err.isEmpty, "\(verify.err)")
    }
  }

  @Test(
    "where systemd does not run, enable writes nothing and says what to start at boot",
    .enabled(if: access("/run/systemd/system", F_OK) != 0, "systemd runs here"))
  func noSystemd() {
    for verb in ["enable", "disable"] {
      let run = Shell.run(["\(Instance.programs)/supervisor", verb, "--system"])
      #expect(run.code == 1 && run.err.contains("supervisor-daemon --system"), "\(run.err)")
    }
    #expect(access("/etc/systemd/system/appsupervisor.service", F_OK) != 0)
    #expect(Shell.run(["\(Instance.programs)/supervisor", "enable", "--root", "/tmp/x"]).code == 2)
  }

  @Test("a user's own instance lies in the XDG folders, and nobody else gets in")
  func userInstance() throws {
    let home = "/tmp/appsup-home-\(UInt32.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: home, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: home) }
    var environment = ProcessInfo.processInfo.environment
    environment["HOME"] = home
    environment["XDG_STATE_HOME"] = "\(home)/state"
    environment["XDG_RUNTIME_DIR"] = "\(home)/run"
    environment["XDG_CONFIG_HOME"] = nil
    environment["SUPERVISOR_ROOT"] = nil
    func run(_ arguments: String...) throws -> Outcome {
      try Started(["\(Instance.programs)/supervisor"] + arguments + ["--user"], environment).finish(within: 60)
    }
    try FileManager.default.createDirectory(atPath: "\(home)/policies", withIntermediateDirectories: true)
    try "id: mine\nentry: [/bin/sleep, '1000']\n".write(
      toFile: "\(home)/policies/a.yaml", atomically: true, encoding: .utf8)
    let up = try run("up", "-d", "--wait", "--engine", "none", "\(home)/policies")
    defer { _ = try? run("down", "--all", "-y", "--daemon") }
    #expect(up.code == 0, "\(up.err)")
    #expect(try run("ps", "-q").out.contains("mine"))
    for (path, mode) in [("run/appsupervisor", 0o700), ("run/appsupervisor/supervisor.sock", 0o600)] where getuid() != 0
    {
      let found = try FileManager.default.attributesOfItem(atPath: "\(home)/\(path)")[.posixPermissions] as? Int
      #expect(found == mode, "\(path)")
    }
    for path in ["state/appsupervisor/state.db", ".config/appsupervisor", "run/appsupervisor/supervisor.sock"] {
      #expect(FileManager.default.fileExists(atPath: "\(home)/\(path)"), "\(path)")
    }
  }

  @Test("its log has the journal's priorities where the journal reads it, and times where a file does")
  func journal() throws {
    let instance = try Instance(["JOURNAL_STREAM": "1:2"])
    defer { instance.end() }
    instance.startDaemon()
    let log = try String(contentsOfFile: "\(instance.root)/log/daemon.log", encoding: .utf8)
    #expect(log.hasPrefix("20") && !log.contains("\n<"), "a file is not the journal, whatever the variable says")

    let other = try Instance()
    defer {
      try? FileManager.default.removeItem(atPath: other.root)
      try? FileManager.default.removeItem(atPath: other.policies)
    }
    let file = "\(other.root)-journal"
    defer { try? FileManager.default.removeItem(atPath: file) }
    let run = try Started(
      [
        "sh", "-c",
        "exec 2>\(file); JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2); export JOURNAL_STREAM; exec \(Instance.programs)/supervisor-daemon --root \(other.root) --engine none",
      ], ProcessInfo.processInfo.environment)
    #expect(
      eventually("the daemon says it is ready") {
        ((try? String(contentsOfFile: file, encoding: .utf8)) ?? "").contains("daemon.ready")
      })
    Glibc.kill(run.pid, SIGTERM)
    #expect(run.finish(within: 20).code == 0)
    let text = try String(contentsOfFile: file, encoding: .utf8)
    #expect(!text.isEmpty && text.split(separator: "\n").filter { !$0.hasPrefix("<") }.isEmpty, "\(text)")
  }
}
