import Cgroups
import ContainerHosting
import EngineAPI
import Glibc
import Linux
import Model
import Testing

/// The engines the suite runs over. One that is not there skips its cases; when REQUIRE names it, that is a failure.
enum Rig: String, CaseIterable, CustomTestStringConvertible {
  case docker, podman

  static let image = "appsup-test/busybox:1"
  var testDescription: String { rawValue }

  /// Those that are there or must be.
  static var available: [Rig] { allCases.filter { $0.socket != nil || $0.isRequired } }

  var socket: String? { environment("SUPERVISOR_TEST_\(rawValue.uppercased())_SOCK") }

  var isRequired: Bool { (environment("REQUIRE") ?? "").split(separator: ",").contains { $0 == rawValue } }

  static let loop: EventLoop = {
    do { return try EventLoop(name: "container-tests") } catch { fatalError("\(error)") }
  }()
}

func environment(_ name: String) -> String? {
  getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
}

struct Missing: Error { var what: String }

/// One instance with a folder of its own, and a host that is being run.
final class Place: Sendable {
  let rig: Rig
  let root: String
  let settings: ContainerSettings
  let engine: Engine

  init(_ rig: Rig, change: (inout ContainerSettings) -> Void = { _ in }) async throws {
    self.rig = rig
    guard let socket = rig.socket else { throw Missing(what: "SUPERVISOR_TEST_\(rig.rawValue.uppercased())_SOCK") }
    var template = Array("\(environment("TMPDIR") ?? "/tmp")/appsup-ct.XXXXXX".utf8CString)
    root = String(cString: try #require(mkdtemp(&template)))
    let id = (0..<2).map { _ in
      let digits = String(UInt64.random(in: 0...UInt64.max), radix: 16)
      return String(repeating: "0", count: 16 - digits.count) + digits
    }.joined()
    let layout = InstanceLayout(
      config: "\(root)/config", state: "\(root)/state", run: "\(root)/run", log: "\(root)/log",
      name: "t\(id.prefix(7))",
      id: id)
    let endpoint = EngineEndpoint(socket: socket)
    var settings = ContainerSettings(endpoint: endpoint, layout: layout, hierarchy: try CgroupHierarchy.detect())
    settings.callTimeout = .seconds(45)
    change(&settings)
    self.settings = settings
    // The tests' own connection, which survives what the host's settings say.
    engine = try await Engine.connect(to: endpoint, on: Rig.loop)
  }

  /// Runs `body`, then takes everything away.
  static func with(
    _ rig: Rig, change: (inout ContainerSettings) -> Void = { _ in }, _ body: (Place) async throws -> Void
  ) async throws {
    let place = try await Place(rig, change: change)
    do { try await body(place) } catch {
      await place.tearDown()
      throw error
    }
    await place.tearDown()
  }

  func tearDown() async {
    let filter = Filters.label("io.appsupervisor.instance=\(settings.layout.id)")
    for container in (try? await engine.listContainers(all: true, filter)) ?? [] {
      try? await engine.removeContainer(container.id, force: true, volumes: true)
    }
    for network in (try? await engine.listNetworks(filter)) ?? [] { try? await engine.removeNetwork(network.name) }
    await engine.close()
    system(
      "find /sys/fs/cgroup -depth -path '*/appsupervisor-\(settings.layout.name)*' -type d -exec rmdir {} + 2>/dev/null"
    )
    system("rm -rf '\(root)'")
  }

  func host() throws -> Trial.Host { try Trial.Host(settings) }

  /// A policy that runs `script` in a shell.
  func policy(_ name: String, _ script: String) throws -> Policy {
    var policy = Policy(
      id: try #require(AppID(name)), stack: "test", runtime: .container, baseFolder: root)
    policy.image = .reference(Rig.image, .never)
    policy.entry = ["/bin/sh", "-c", script]
    policy.limits.memory = .mebibytes(64)
    policy.limits.memoryAndSwap = .mebibytes(64)
    policy.limits.pids = 64
    return policy
  }
}

/// One run of one app on a host, with its events.
struct Trial: Sendable {
  var instance: Instance
  var launch: Launch
  var facts: RunFacts

  /// A ContainerHost whose `run` runs, and what it tells.
  final class Host: Sendable {
    let host: ContainerHost
    let told = Told()
    private let tasks: [Task<Void, Never>]

    init(_ settings: ContainerSettings) throws {
      let host = try ContainerHost(settings, on: Rig.loop)
      self.host = host
      tasks = [
        Task { await host.run() }, Task { [told] in for await event in host.events { await told.add(event) } },
      ]
    }

    /// What a dead daemon does: nothing more.
    func drop() { for task in tasks { task.cancel() } }
    deinit { drop() }

    func create(_ policy: Policy, generation: UInt64 = 1, uidBase: UInt32 = 0x20_0000) async throws -> (
      Instance, Launch
    ) {
      let artifact = try await host.prepare(policy) { _ in }
      let launch = Launch(
        policy: policy, generation: generation, nonce: String(UInt64.random(in: 0...UInt64.max), radix: 16),
        uidBase: uidBase, artifact: artifact)
      return (try await host.create(launch), launch)
    }

    func run(_ policy: Policy, generation: UInt64 = 1, uidBase: UInt32 = 0x20_0000) async throws -> Trial {
      let (instance, launch) = try await create(policy, generation: generation, uidBase: uidBase)
      return Trial(instance: instance, launch: launch, facts: try await host.start(instance, launch))
    }

    func output(_ running: Trial, _ query: LogQuery = LogQuery()) async throws -> String {
      var bytes: [UInt8] = []
      for try await chunk in host.logs(running.instance.app, running.instance, query) { bytes += chunk.bytes }
      return String(decoding: bytes, as: UTF8.self)
    }

    func end(_ running: Trial, within seconds: Double = 20) async throws -> ExitReport {
      try await told.wait(seconds) { event in
        if case .exited(running.instance, let report) = event { report } else { nil }
      }
    }

    /// Runs a script to its end; removes the container.
    func complete(_ policy: Policy) async throws -> (report: ExitReport, output: String) {
      let running = try await run(policy)
      let report = try await end(running)
      let text = try await output(running)
      try await host.remove(running.instance)
      return (report, text)
    }
  }
}

struct Overdue: Error {}

/// All events so far, and waiting for one.
actor Told {
  private(set) var events: [HostEvent] = []

  func add(_ event: HostEvent) { events.append(event) }

  @discardableResult func wait<Result: Sendable>(_ seconds: Double = 20, _ pick: @Sendable (HostEvent) -> Result?)
    async throws -> Result
  {
    let end = Clock.monotonic() + Int64(seconds * 1e9)
    while Clock.monotonic() < end {
      for event in events { if let result = pick(event) { return result } }
      try await Task.sleep(for: .milliseconds(3))
    }
    throw Overdue()
  }
}

func soon(_ what: Comment, within seconds: Double = 10, _ condition: () async throws -> Bool) async throws {
  let end = Clock.monotonic() + Int64(seconds * 1e9)
  while Clock.monotonic() < end {
    if try await condition() { return }
    try await Task.sleep(for: .milliseconds(5))
  }
  Issue.record(what)
}

/// A failure of a host, by kind.
func expectFailure(
  _ kind: HostFailure.Kind, saying words: String..., sourceLocation: SourceLocation = #_sourceLocation,
  _ body: () async throws -> Void
) async {
  do {
    try await body()
    Issue.record("nothing failed", sourceLocation: sourceLocation)
  } catch let failure as HostFailure {
    #expect(failure.kind == kind, "\(failure)", sourceLocation: sourceLocation)
    for word in words {
      #expect(failure.description.contains(word), "\(failure)", sourceLocation: sourceLocation)
    }
  } catch {
    Issue.record("\(error)", sourceLocation: sourceLocation)
  }
}
