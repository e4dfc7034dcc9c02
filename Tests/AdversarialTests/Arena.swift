import Foundation
import Glibc
import Model
import Synchronization
import Testing

/// The probe, built once a run from `Tests/adversarial`.
enum Probe {
  /// A folder that an app's user may enter, not in /tmp.
  static let folder: String = {
    let scratch = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/var/tmp"
    let folder = "\(scratch)/appsup-probe-\(getpid())"
    try? FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    return folder
  }()

  static let path: String? = {
    // Where there is no compiler.
    if let built = ProcessInfo.processInfo.environment["SUPERVISOR_TEST_PROBE"] {
      try? FileManager.default.copyItem(atPath: built, toPath: "\(folder)/probe")
      return "\(folder)/probe"
    }
    let sources = "\(Instance.sources)/Tests/adversarial"
    let names = ((try? FileManager.default.contentsOfDirectory(atPath: sources)) ?? []).filter { $0.hasSuffix(".c") }
    let built = Shell.run(
      ["cc", "-static", "-O1", "-Wall", "-Wextra", "-Werror", "-o", "\(folder)/probe"]
        + names.sorted().map { "\(sources)/\($0)" })
    if built.code != 0 { Issue.record("the probe was not built; a C compiler and libc.a are needed: \(built.err)") }
    return built.code == 0 ? "\(folder)/probe" : nil
  }()

  static func clear() { try? FileManager.default.removeItem(atPath: folder) }
}

/// One instance in which an attacker and an innocent app run side by side, with all that an attack could touch watched.
final class Arena {
  let ground: Ground
  let instance: Instance
  let recorder: Recorder?
  let honeypots: Honeypots
  private let attacker: Control
  private let canary: Control
  /// Where an innocent app sends back what it gets.
  let echoPort: UInt16
  private var before: Watched?
  private var digestBefore = ""
  let probe: String

  init(_ ground: Ground) throws {
    self.ground = ground
    probe = try #require(Probe.path)
    echoPort = try Honeypots.freePort()
    honeypots = try Honeypots()
    if let rig = ground.rig {
      let recorder = try Recorder(to: try #require(rig.socket))
      self.recorder = recorder
      instance = try Instance(engine: recorder.path)
    } else {
      recorder = nil
      instance = try Instance()
    }
    attacker = try Control("\(instance.root)-attacker")
    canary = try Control("\(instance.root)-canary")
    try prepareSecrets()
    try FileManager.default.createDirectory(atPath: "\(instance.root)/config", withIntermediateDirectories: true)
    try "privileged_apps: [as-privileged]\n".write(
      toFile: "\(instance.root)/config/config.yaml", atomically: true, encoding: .utf8)
    try instance.write("canary", app("canary", ["serve"], control: canary, "mem_limit: 64m\npids_limit: 16\n"))
    try instance.write(
      "echo", app("echo", ["echo", "7000"], "ports: ['127.0.0.1:\(echoPort):7000']\nmem_limit: 64m\n"))
    let up = instance.up()
    try #require(up.code == 0, "\(up.err)")
    instance.knownID = instance.id
    // What it knows of its surroundings holds the canary's and the daemon's numbers.
    try instance.write("attacker", app("attacker", ["serve"], control: attacker))
    let second = instance.up()
    try #require(second.code == 0, "\(second.err)")
    before = try watched()
    digestBefore = digest
  }

  func end() {
    instance.end()
    attacker.end()
    canary.end()
    honeypots.end()
    recorder?.end()
    try? FileManager.default.removeItem(atPath: secret)
  }

  // MARK: Apps

  /// What anybody on the host may read: only the app's own root stands between.
  private var secret: String { "\(instance.root)-secret" }

  private func prepareSecrets() throws {
    try "a secret of the host\n".write(toFile: secret, atomically: true, encoding: .utf8)
    chmod(secret, 0o644)
    // A program that would give its starter root, with the attacker's own files.
    try FileManager.default.copyItem(atPath: probe, toPath: "\(attacker.folder)/suid")
    chown("\(attacker.folder)/suid", 0, 0)
    chmod("\(attacker.folder)/suid", 0o4755)
  }

  /// A policy that runs the probe under the default preset.
  func app(
    _ name: String, _ words: [String], control: Control? = nil, readsOnly: Bool = false, _ more: String = ""
  ) -> String {
    let rule = readsOnly ? ", read_only: true" : ""
    var mounts = control.map { ["{type: bind, source: \($0.folder), target: /control\(rule)}"] } ?? []
    var entry = probe
    if ground != .native {
      entry = "/probe"
      mounts.append("{type: bind, source: \(probe), target: /probe, read_only: true}")
    }
    let image = ground == .native ? "" : "image: \(Rig.image)\n"
    let volumes = mounts.isEmpty ? "" : "volumes: [\(mounts.joined(separator: ", "))]\n"
    return "id: \(name)\n\(image)entry: [\(([entry] + words).joined(separator: ", "))]\nstop_grace_period: 1s\n"
      + volumes + "environment:\n" + surroundings.map { "  \($0.key): \"\($0.value)\"\n" }.sorted().joined() + more
  }

  /// What an attacker could know of the host.
  var surroundings: [String: String] {
    let others = [instance.pid("canary"), instance.daemon, getpid()].compactMap { $0 }.map(String.init)
    return [
      "PROBE_SECRETS": [
        secret, "\(instance.root)/state/state.db", "\(instance.root)/log/daemon.log", "\(Instance.programs)/supervisor",
      ].joined(separator: ":"),
      "PROBE_SOCKETS": (["\(instance.root)/run/supervisor.sock"] + [ground.rig?.socket].compactMap { $0 }).joined(
        separator: ":"),
      "PROBE_SUID": "/control/suid", "PROBE_PIDS": others.joined(separator: ","),
      "PROBE_PORT": String(honeypots.port), "PROBE_ADDRESSES": honeypots.addresses.joined(separator: ","),
      "PROBE_ABSTRACT": honeypots.name,
    ]
  }

  /// Has the attacker that is up try one attack.
  func attack(_ name: String) throws -> Answer { try attacker.ask(name) }

  /// Runs an attack as an app of its own until it has told what came of it; it may go on.
  func launch(
    _ name: String, _ words: [String], control: Control? = nil, readsOnly: Bool = false, _ more: String = ""
  ) throws -> Outcome {
    let id = name.lowercased()
    let file = try instance.write(id, app(id, words, control: control, readsOnly: readsOnly, more))
    return instance.run("up", "-d", "--wait", "--progress", "quiet", file)
  }

  /// The probe's lines in an app's log; waits for `count` of them or the app's end.
  func answers(_ name: String, _ count: Int = 1, seconds: Double = 120) -> [Answer] {
    let id = name.lowercased()
    var deadline = Date().addingTimeInterval(seconds)
    var answers: [Answer] = []
    repeat {
      let isUp = instance.app(id)?["state"] == "running"
      // Not all of a flood; what an engine read last need not be what was written last.
      answers = Answer.all(in: instance.run("logs", "--tail", "\(count + 50)", id).out)
      if answers.count >= count { return answers }
      // The log of one that has just ended is on its way from the engine.
      if !isUp { deadline = min(deadline, Date().addingTimeInterval(10)) }
      usleep(100_000)
    } while Date() < deadline
    return answers
  }

  /// Takes an app of `launch` away, its data too.
  func remove(_ name: String) {
    let id = name.lowercased()
    let down = instance.run("down", id, "--data", "-y", "--progress", "quiet")
    if down.code != 0 { Issue.record("\(name) could not be removed: \(down.err)") }
    try? FileManager.default.removeItem(atPath: "\(instance.policies)/\(id).yaml")
  }

  /// From now on an innocent app and an operator are asked how they do.
  func pulse() -> Pulse {
    Pulse(port: echoPort) { [instance = Unchecked(instance)] in
      instance.value.run("ps", "-q", within: 30).code == 0
    }
  }

  // MARK: What must hold after each attack

  private struct Watched {
    var daemon: Int32
    var daemonBegan: String
    var files: Int
    var threads: Int
    var resident: Int
    var canary: Int32
    var attackers: Int
    var mounts: Int
    var names: [String]
    var taint: String
  }

  private func watched() throws -> Watched {
    // One call for all that the daemon is asked.
    let rows = instance.run("ps", "-a", "--format", "json").lines
    let daemon = try #require(before?.daemon ?? instance.daemon)
    let canary = rows.first { $0["name"] == "canary" }?["pid"]?.integerValue ?? -1
    func text(_ path: String) -> String { (try? String(contentsOfFile: path, encoding: .utf8)) ?? "" }
    let status = text("/proc/\(daemon)/status").split(separator: "\n")
    func number(_ name: String) -> Int {
      status.first { $0.hasPrefix(name) }.flatMap { Int($0.filter(\.isNumber)) } ?? -1
    }
    let began = text("/proc/\(daemon)/stat").split(separator: ")").last?.split(separator: " ").dropFirst(19).first
    return Watched(
      daemon: daemon, daemonBegan: String(began ?? "?"), files: Process.files(daemon).count,
      threads: number("Threads:"), resident: number("VmRSS:"), canary: Int32(canary), attackers: attackers,
      mounts: text("/proc/self/mountinfo").split(separator: "\n").filter { $0.contains(instance.root) }.count,
      // A generation's number aside, which a restart changes, and filters, which are kept by their content.
      names: ((try? FileManager.default.subpathsOfDirectory(atPath: "\(instance.root)/run")) ?? []).filter {
        !$0.hasPrefix("seccomp/") && $0 != "binds"
      }.map { $0.replacing(/\.[0-9]+(?=\.|\/|$)/, with: "") }.sorted(),
      taint: text("/proc/sys/kernel/tainted"))
  }

  /// Tasks of the attacker that is up.
  private var attackers: Int {
    guard let id = instance.knownID else { return -1 }
    for base in ["pids", ""] {
      let path = "/sys/fs/cgroup/\(base)/appsupervisor-\(id.prefix(8))/attacker/pids.current"
      if let text = try? String(contentsOfFile: path, encoding: .utf8) { return Int(text.filter(\.isNumber)) ?? -1 }
    }
    return -1
  }

  /// Of what an attack must not change: files of the host, the programs that start apps, how cgroups are set.
  private var digest: String {
    var files = ["/etc/hosts", "/etc/fstab", "/etc/profile", "/etc/nsswitch.conf", secret, probe]
    for base in ["memory", "pids", "devices", "freezer", ""] {
      for name in ["release_agent", "notify_on_release", "cgroup.subtree_control"] {
        files.append("/sys/fs/cgroup/\(base)/\(name)")
      }
    }
    let sums =
      Shell.run(["sha256sum", "--"] + files.filter { access($0, R_OK) == 0 }).out
      + Shell.run(
        ["stat", "-c", "%n %i %s %Y %Z %a"]
          + ["supervisor-shim", "supervisor-daemon"].map { "\(Instance.programs)/\($0)" }
      ).out
    // Who may become whom; packages may add lines meanwhile.
    let root = (try? String(contentsOfFile: "/etc/shadow", encoding: .utf8))?.split(separator: "\n").first
    return "\(sums)\(root ?? "")"
  }

  /// The checks after each attack; `what` names it. An attacker that is still there must hold no more tasks than before.
  /// `isUp`: the app of `launch` still runs, and has its own shim.
  func check(_ what: String, isUp: Bool = false) throws {
    let before = try #require(before)
    let comment: Comment = "after \(what)"
    // O2: who is innocent can still do what it needs; that an operator is answered shows below.
    let innocent = try canary.ask("innocent")
    #expect(innocent.verdict == "succeeded" && innocent.steps.allSatisfy { $0.result == "succeeded" }, comment)
    // O1: the same daemon, no bigger; O4: nothing is left.
    var now = try watched()
    let deadline = Date().addingTimeInterval(30)
    func settled() -> Bool {
      if isUp {
        let own = what.lowercased()
        now.names.removeAll { $0.hasPrefix("shims/\(own).") || $0 == "apps/\(own)" || $0.hasPrefix("apps/\(own)/") }
      }
      return now.files <= before.files + 8 && now.threads <= before.threads + 8
        && now.resident <= before.resident + 16 * 1024
        && now.attackers <= before.attackers && now.mounts == before.mounts && now.names == before.names
    }
    while !settled(), Date() < deadline {
      usleep(100_000)
      now = try watched()
    }
    if !settled() { Issue.record("\(comment): something is left: \(now), before: \(before)") }
    #expect(now.daemonBegan == before.daemonBegan, comment)
    #expect(now.canary == before.canary, comment)
    // O3: nothing is changed; O6: nobody was visited, and the kernel is well.
    #expect(digest == digestBefore, comment)
    #expect(now.taint == before.taint, comment)
    #expect(honeypots.visits == 0, comment)
  }

  // MARK: One for each runtime

  // Guards: arenas that stand. Tests of this target run one after another.
  private static let standing = Mutex<[Ground: Held]>([:])

  /// SAFETY: used by one test at a time, since all suites of this target are run without parallelism.
  private struct Held: @unchecked Sendable { let arena: Arena }

  static func on(_ ground: Ground) throws -> Arena {
    if let known = standing.withLock({ $0[ground] }) { return known.arena }
    let held = Held(arena: try Arena(ground))
    standing.withLock { $0[ground] = held }
    return held.arena
  }

  static func endAll() {
    let all = standing.withLock { standing in
      defer { standing = [:] }
      return standing
    }
    for held in all.values { held.arena.end() }
  }
}

/// Ends all arenas when the suite it is on has ended.
struct Arenas: SuiteTrait, TestScoping {
  func provideScope(
    for test: Test, testCase: Test.Case?, performing function: @Sendable () async throws -> Void
  ) async throws {
    defer {
      Measures.tell()
      Arena.endAll()
      Probe.clear()
    }
    try await function()
  }
}
