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
  func run(_ policy: Policy, generation: UInt64 = 1, uidBase: UInt32 = 0x20_0000) async throws -> Running {
    let artifact = try await host.prepare(policy) { _ in }
    let launch = Launch(
      policy: policy, generation: generation, nonce: String(UInt64.random(in: .min ... .max), radix: 16),
      uidBase: uidBase, artifact: artifact)
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
    let running = try await run(policy)
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
}
