import Glibc
import Linux
import Model
import Testing

/// What a runtime's own tests bring to the contract: how to make a host, and policies that run a shell script in it.
protocol HostRig: Sendable {
  /// A host with folders and groups of the test's own.
  func makeHost() async throws -> any AppHost
  /// Takes the place of a daemon's death: the host object is let go of, what it runs goes on.
  func drop(_ host: any AppHost) async
  /// A policy that runs `script` in a shell.
  func policy(_ name: String, _ script: String) throws -> Policy
  /// Takes away all that is left.
  func tearDown() async
}

/// A host with its events, as the tests use it.
final class Stage: Sendable {
  let rig: any HostRig
  let host: any AppHost
  private let watcher: Watcher

  init(_ rig: any HostRig) async throws {
    self.rig = rig
    host = try await rig.makeHost()
    watcher = Watcher(host.events)
  }

  /// Creates and starts one generation of an app.
  func run(_ policy: Policy, generation: UInt64 = 1, uidBase: UInt32 = 0x20_0000, isBeside: Bool = false) async throws
    -> Running
  {
    let artifact = try await host.prepare(policy) { _ in }
    let launch = Launch(
      policy: policy, generation: generation, nonce: String(UInt64.random(in: .min ... .max), radix: 16),
      uidBase: uidBase, artifact: artifact, isBeside: isBeside)
    let instance = try await host.create(launch)
    do {
      let facts = try await host.start(instance, launch)
      return Running(instance: instance, launch: launch, facts: facts)
    } catch {
      try? await host.remove(instance)
      throw error
    }
  }

  /// How it ended, at most `seconds` later.
  func end(_ running: Running, within seconds: Double = 20) async throws -> ExitReport {
    try await watcher.end(of: running.instance, within: seconds)
  }

  /// All it wrote, after it ended.
  func output(_ running: Running, _ query: LogQuery = LogQuery()) async throws -> String {
    var bytes: [UInt8] = []
    for try await chunk in host.logs(running.instance.app, running.instance, query) { bytes += chunk.bytes }
    return String(decoding: bytes, as: UTF8.self)
  }

  /// Runs a script to its end and returns what it wrote.
  func complete(_ policy: Policy) async throws -> (report: ExitReport, output: String) {
    let running = try await run(policy, generation: UInt64(Clock.monotonic()))
    let report = try await end(running)
    let text = try await output(running)
    try await host.remove(running.instance)
    return (report, text)
  }
}

struct Running: Sendable {
  var instance: Instance
  var launch: Launch
  var facts: RunFacts
}

struct TooLate: Error { var what: String }

/// Collects a host's events, so that each test can wait for its own.
actor Watcher {
  private var ends: [Instance: ExitReport] = [:]
  private var waiting: [Instance: CheckedContinuation<Void, Never>] = [:]

  init(_ events: AsyncStream<HostEvent>) {
    // Ends with the host.
    Task { [weak self] in for await event in events { await self?.take(event) } }
  }

  private func take(_ event: HostEvent) {
    guard case .exited(let instance, let report) = event else { return }
    ends[instance] = report
    waiting.removeValue(forKey: instance)?.resume()
  }

  func end(of instance: Instance, within seconds: Double) async throws -> ExitReport {
    if ends[instance] == nil {
      let deadline = Task {
        try await Task.sleep(for: .seconds(seconds))
        self.giveUp(instance)
      }
      await withCheckedContinuation { waiting[instance] = $0 }
      deadline.cancel()
    }
    guard let report = ends[instance] else { throw TooLate(what: "\(instance.app) did not end in \(seconds) s") }
    return report
  }

  private func giveUp(_ instance: Instance) { waiting.removeValue(forKey: instance)?.resume() }
}

func eventually(_ what: Comment, _ condition: () async throws -> Bool) async throws {
  for _ in 0..<2000 {
    if try await condition() { return }
    try await Task.sleep(for: .milliseconds(5))
  }
  Issue.record(what)
}

/// What every runtime must do. A runtime's suite calls each with its own rig.
enum HostContract {
  static func withStage(_ rig: any HostRig, _ body: (Stage) async throws -> Void) async throws {
    let stage = try await Stage(rig)
    do { try await body(stage) } catch {
      await rig.drop(stage.host)
      await rig.tearDown()
      throw error
    }
    await rig.drop(stage.host)
    await rig.tearDown()
  }

  static func exitCode(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let (report, output) = try await stage.complete(rig.policy("code", "echo hello; echo oops >&2; exit 3"))
      #expect(report.cause == .code(3))
      #expect(!report.outOfMemory)
      #expect(output.contains("hello\n") && output.contains("oops\n"))
      let started = try #require(report.startedAt)
      #expect(report.endedAt >= started)
    }
  }

  static func signalled(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let running = try await stage.run(rig.policy("signal", "exec sleep 1000"))
      try await stage.host.signal(running.instance, 15)
      #expect(try await stage.end(running).cause == .signal(15))
      try await stage.host.remove(running.instance)
    }
  }

  static func stubborn(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let running = try await stage.run(rig.policy("stubborn", "trap '' TERM; echo up; while :; do sleep 1; done"))
      try await eventually("it is up") { try await stage.output(running).contains("up") }
      try await stage.host.signal(running.instance, 15)
      await #expect(throws: TooLate.self) { try await stage.end(running, within: 0.3) }
      try await stage.host.kill(running.instance)
      #expect(try await stage.end(running).exitCode == 137)
      try await stage.host.remove(running.instance)
    }
  }

  static func environment(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      var policy = try rig.policy("env", "echo $GREETING from $(pwd) with $#")
      policy.environment = [.init(name: "GREETING", value: "hello world")]
      policy.workingDirectory = "/tmp"
      #expect(try await stage.complete(policy).output == "hello world from /tmp with 0\n")
    }
  }

  static func missingProgram(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      var policy = try rig.policy("nothing", "true")
      policy.entry = ["/usr/bin/no-such-program"]
      let failure = await #expect(throws: HostFailure.self) { try await stage.run(policy) }
      #expect(failure?.kind == .missing)
      #expect(failure?.description.contains("/usr/bin/no-such-program") == true)
    }
  }

  static func paused(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let running = try await stage.run(rig.policy("paused", "while :; do echo tick; sleep 0.01; done"))
      let host = stage.host
      func ticks() async throws -> Int { try await stage.output(running).count }
      try await eventually("it ticks") { try await ticks() > 0 }
      try await host.setPaused(running.instance, true)
      try await eventually("it stands still") {
        let before = try await ticks()
        try await Task.sleep(for: .milliseconds(60))
        return try await ticks() == before
      }
      let still = try await ticks()
      try await host.setPaused(running.instance, false)
      try await eventually("it goes on") { try await ticks() > still }
      try await host.setPaused(running.instance, true)
      // A frozen app can be killed all the same.
      try await host.kill(running.instance)
      #expect(try await stage.end(running).exitCode == 137)
      try await host.remove(running.instance)
    }
  }

  static func outOfMemory(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let policy = try rig.policy("hungry", "x=0123456789abcdef; while :; do x=$x$x; done")
      let (report, _) = try await stage.complete(policy)
      #expect(report.outOfMemory)
      #expect(report.exitCode == 137)
      #expect(report.reason == "out of memory")
    }
  }

  static func tasksAreLimited(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      var policy = try rig.policy("bomb", "(while :; do sleep 1000 & done) & exec sleep 1000")
      policy.limits.pids = 32
      let running = try await stage.run(policy)
      try await eventually("it is at its limit") { try await stage.host.usage(running.instance).pids >= 29 }
      for _ in 0..<20 { #expect(try await stage.host.usage(running.instance).pids <= 32) }
      try await stage.host.kill(running.instance)
      _ = try await stage.end(running)
      try await stage.host.remove(running.instance)
    }
  }

  static func limitsInForce(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let running = try await stage.run(rig.policy("limits", "exec sleep 1000"))
      let layers = try await stage.host.enforcement(running.instance, running.launch)
      #expect(layers.first { $0.name == "mem_limit" }?.status == .enforced)
      #expect(layers.first { $0.name == "pids_limit" }?.status == .enforced)
      #expect(layers.filter { $0.status == .missing } == [])
      let usage = try await stage.host.usage(running.instance)
      #expect(usage.memoryLimit == .mebibytes(64))
      try await stage.host.kill(running.instance)
      _ = try await stage.end(running)
      try await stage.host.remove(running.instance)
    }
  }

  static func secondStart(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let running = try await stage.run(rig.policy("twice", "exec sleep 1000"))
      let failure = await #expect(throws: HostFailure.self) {
        try await stage.host.start(running.instance, running.launch)
      }
      #expect(failure?.kind == .conflict)
      try await stage.host.kill(running.instance)
      _ = try await stage.end(running)
      try await stage.host.remove(running.instance)
      // Safe to repeat.
      try await stage.host.remove(running.instance)
    }
  }

  static func adoptRunning(_ rig: any HostRig) async throws {
    try await withStage(rig) { first in
      let running = try await first.run(rig.policy("survivor", "echo before; read x < /dev/null; sleep 1000"))
      // The stream ends with the app; the first bytes say that it has written.
      for try await _ in first.host.logs(running.instance.app, running.instance, LogQuery(follow: true)) { break }
      await rig.drop(first.host)
      let second = try await Stage(rig)
      let (found, removed) = try await second.host.adopt([(running.instance, running.launch)])
      guard case .running(let facts, paused: false) = found[running.instance] else {
        Issue.record("found \(found)")
        return
      }
      #expect(facts.pid == running.facts.pid)
      #expect(removed.isEmpty)
      #expect(try await second.output(running) == "before\n")
      try await second.host.signal(running.instance, 15)
      #expect(try await second.end(running).cause == .signal(15))
      try await second.host.remove(running.instance)
      await rig.drop(second.host)
    }
  }

  static func adoptEnded(_ rig: any HostRig) async throws {
    try await withStage(rig) { first in
      let running = try await first.run(rig.policy("meanwhile", "sleep 0.3; echo last words; exit 7"))
      await rig.drop(first.host)
      try await Task.sleep(for: .milliseconds(800))
      let second = try await Stage(rig)
      let (found, _) = try await second.host.adopt([(running.instance, running.launch)])
      guard case .ended(let report) = found[running.instance] else {
        Issue.record("found \(found)")
        return
      }
      #expect(report.cause == .code(7))
      #expect(report.startedAt != nil)
      #expect(try await second.output(running) == "last words\n")
      try await second.host.remove(running.instance)
      let again = try await second.host.adopt([(running.instance, running.launch)])
      #expect(again.found[running.instance] == .gone)
      await rig.drop(second.host)
    }
  }

  static func adoptSweeps(_ rig: any HostRig) async throws {
    try await withStage(rig) { first in
      let running = try await first.run(rig.policy("stranger", "exec sleep 1000"))
      await rig.drop(first.host)
      let second = try await Stage(rig)
      let (_, removed) = try await second.host.adopt([])
      #expect(removed.count == 1)
      try await eventually("it is gone") { kill(running.facts.pid, 0) != 0 }
      await rig.drop(second.host)
    }
  }

  static func tail(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let running = try await stage.run(rig.policy("tail", "for i in 1 2 3 4 5 6; do echo line $i; done; printf end"))
      _ = try await stage.end(running)
      #expect(try await stage.output(running, LogQuery(tail: 2)) == "line 6\nend")
      #expect(try await stage.output(running, LogQuery(tail: 0)) == "")
      #expect(try await stage.output(running, LogQuery(tail: 100)).hasPrefix("line 1\n"))
      #expect(try await stage.output(running, LogQuery(since: WallTime(nanoseconds: .max))) == "")
      #expect(try await stage.output(running, LogQuery(until: WallTime(nanoseconds: 0))) == "")
      try await stage.host.remove(running.instance)
    }
  }

  static func follow(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let running = try await stage.run(
        rig.policy("follow", "echo one; sleep 0.1; echo two; sleep 0.1; echo three; exit 1"))
      // Ends by itself, because the instance does.
      #expect(try await stage.output(running, LogQuery(follow: true)) == "one\ntwo\nthree\n")
      _ = try await stage.end(running)
      try await stage.host.remove(running.instance)
    }
  }

  /// Two generations of one app, each under its own limits; the end of one leaves the other alone, also over a change of daemons.
  static func beside(_ rig: any HostRig) async throws {
    try await withStage(rig) { first in
      let script = "echo began $N; trap 'echo ends $N; exit 0' TERM; while :; do sleep 0.05; done"
      var policy = try rig.policy("pair", script)
      policy.limits.memory = .mebibytes(64)
      policy.environment.append(.init(name: "N", value: "one"))
      let old = try await first.run(policy, generation: 1)
      policy.limits.memory = .mebibytes(48)
      policy.environment = policy.environment.map { $0.name == "N" ? .init(name: "N", value: "two") : $0 }
      let new = try await first.run(policy, generation: 2, isBeside: true)
      #expect(try await first.host.usage(old.instance).memoryLimit == .mebibytes(64))
      #expect(try await first.host.usage(new.instance).memoryLimit == .mebibytes(48))
      #expect(await Set(first.host.processes(old.instance)).isDisjoint(with: first.host.processes(new.instance)))
      await rig.drop(first.host)
      let second = try await Stage(rig)
      let (found, removed) = try await second.host.adopt([
        (old.instance, old.launch), (new.instance, new.launch),
      ])
      #expect(removed.isEmpty)
      for instance in [old.instance, new.instance] {
        guard case .running? = found[instance] else {
          Issue.record("\(instance.generation): \(String(describing: found[instance]))")
          return
        }
      }
      try await second.host.signal(old.instance, 15)
      #expect(try await second.end(old).cause == .code(0))
      try await second.host.remove(old.instance)
      #expect(try await second.host.usage(new.instance).memoryLimit == .mebibytes(48))
      #expect(await !second.host.processes(new.instance).isEmpty)
      #expect(try await second.output(new, LogQuery(run: 1)) == "began one\nends one\n")
      #expect(try await second.output(new, LogQuery(run: 2)) == "began two\n")
      let both = try await second.output(new)
      #expect(both.contains("ends one\n") && both.contains("began two\n"), "\(both)")
      // And the next one has the app's own group again, while the one beside it is still there.
      policy.limits.memory = .mebibytes(40)
      let third = try await second.run(policy, generation: 3)
      try await second.host.kill(new.instance)
      #expect(try await second.end(new).cause == .signal(9))
      try await second.host.remove(new.instance)
      #expect(try await second.host.usage(third.instance).memoryLimit == .mebibytes(40))
      try await second.host.kill(third.instance)
      _ = try await second.end(third)
      try await second.host.remove(third.instance)
      await #expect(throws: HostFailure.self) { try await second.host.usage(new.instance) }
      await rig.drop(second.host)
    }
  }

  static func adoptCreated(_ rig: any HostRig) async throws {
    try await withStage(rig) { first in
      let launch = Launch(
        policy: try rig.policy("halfway", "echo ran"), generation: 1, nonce: "abcd", uidBase: 0x20_0000,
        artifact: try await first.host.prepare(rig.policy("halfway", "echo ran")) { _ in })
      let instance = try await first.host.create(launch)
      await rig.drop(first.host)
      let second = try await Stage(rig)
      let (found, _) = try await second.host.adopt([(instance, launch)])
      #expect(found[instance] == .created)
      // Nothing of it ran, and it can be started by the new daemon.
      let facts = try await second.host.start(instance, launch)
      let running = Running(instance: instance, launch: launch, facts: facts)
      #expect(try await second.end(running).cause == .code(0))
      #expect(try await second.output(running) == "ran\n")
      try await second.host.remove(instance)
      await rig.drop(second.host)
    }
  }

  static func createdIsRemoved(_ rig: any HostRig) async throws {
    try await withStage(rig) { stage in
      let policy = try rig.policy("never", "echo ran")
      let artifact = try await stage.host.prepare(policy) { _ in }
      let launch = Launch(policy: policy, generation: 1, nonce: "abcd", uidBase: 0x20_0000, artifact: artifact)
      let instance = try await stage.host.create(launch)
      try await stage.host.remove(instance)
      let running = Running(
        instance: instance, launch: launch, facts: RunFacts(pid: 0, startedAt: WallTime(nanoseconds: 0)))
      #expect(try await stage.output(running) == "")
    }
  }
}
