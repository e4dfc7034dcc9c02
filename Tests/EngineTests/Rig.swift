import EngineAPI
import Glibc
import Linux
import Model
import Testing

/// The engines the suite runs over, as `Tests/rig/engines` starts them. One that is not there skips its cases and says why; when
/// REQUIRE names it, that is a failure.
enum Rig: String, CaseIterable, CustomTestStringConvertible {
  case docker, podman

  static let image = "appsup-test/busybox:1"
  /// Everything the tests make carries this, so that it can be found and removed.
  static let label = "io.appsupervisor.test=engine-\(getpid())"
  static let limits = {
    var limits = EngineLimits()
    limits.call = .seconds(45)
    return limits
  }()

  var testDescription: String { rawValue }

  static func environment(_ name: String) -> String? {
    getenv(name).map { String(cString: $0) }.flatMap { $0.isEmpty ? nil : $0 }
  }

  static func isRequired(_ what: String) -> Bool {
    (environment("REQUIRE") ?? "").split(separator: ",").contains { $0 == what }
  }

  /// The engines the cases run over: those whose socket is named, and those that must be there.
  static let present = allCases.filter { environment($0.variable) != nil || isRequired($0.rawValue) }
  /// Whether the registry's cases run.
  static let hasRegistry = environment("SUPERVISOR_TEST_REGISTRY") != nil || isRequired("registry")
  /// What a skip says.
  static let advice: Comment = "start Tests/rig/engines and pass what it prints as SUPERVISOR_TEST_…"

  /// Where this engine's socket is named.
  var variable: String { "SUPERVISOR_TEST_\(rawValue.uppercased())_SOCK" }

  /// A value from the environment that the case cannot do without.
  static func needed(_ name: String) throws -> String {
    guard let value = environment(name) else { throw Missing(name: name) }
    return value
  }

  struct Missing: Error { var name: String }

  /// A connection of its own to this engine, and the loop it runs on.
  func connect(_ limits: EngineLimits = Rig.limits) async throws -> Engine {
    let socket = try Self.needed(variable)
    return try await Engine.connect(to: EngineEndpoint(socket: socket), on: Self.loop, limits: limits)
  }

  /// One loop for all tests, as in the daemon.
  static let loop: EventLoop = {
    do { return try EventLoop(name: "engine-tests") } catch { fatalError("\(error)") }
  }()

  /// A container of `script` that fits every engine, labelled.
  static func spec(_ script: String) -> ContainerSpec {
    var spec = ContainerSpec(image: image)
    spec.command = ["/bin/sh", "-c", script]
    spec.labels = labels
    spec.networkDisabled = true
    spec.stopTimeout = 1
    spec.host.networkMode = "none"
    spec.host.ulimits = [Ulimit("nofile", soft: 1024, hard: 1024), Ulimit("nproc", soft: 4096, hard: 4096)]
    return spec
  }

  static var labels: [String: String] {
    let parts = label.split(separator: "=").map { String($0) }
    return [parts[0]: parts[1]]
  }
}

/// Says in the report which engines the other suites ran without.
@Suite("the engines to test with")
struct PresenceTests {
  @Test("docker is there", .enabled(if: Rig.present.contains(.docker), Rig.advice))
  func docker() async throws { _ = try await Rig.docker.connect().ping() }

  @Test("podman is there", .enabled(if: Rig.present.contains(.podman), Rig.advice))
  func podman() async throws { _ = try await Rig.podman.connect().ping() }
}

extension Engine {
  /// Waits for a container's end.
  func exitCode(of id: String) async throws -> Int64 { try await within { try await waitContainer(id).code } }

  /// Creates and starts a container for the length of `body`, and removes it whatever happens.
  func withContainer<Result>(_ spec: ContainerSpec, start: Bool = true, _ body: (String) async throws -> Result)
    async throws -> Result
  {
    let id = try await createContainer(spec, named: nil).id
    do {
      if start { try await startContainer(id) }
      let result = try await body(id)
      try await removeContainer(id, force: true, volumes: true)
      return result
    } catch {
      // Best effort: the first error is the one to see.
      try? await removeContainer(id, force: true, volumes: true)
      throw error
    }
  }
}

/// Fails with `LateError` when `body` takes longer than `time`; the body is cancelled, and not waited for.
func within<Result: Sendable>(_ time: Duration = .seconds(30), _ body: @escaping @Sendable () async throws -> Result)
  async throws -> Result
{
  let (first, ends) = AsyncThrowingStream<Result, any Error>.makeStream()
  let work = Task {
    do { ends.yield(try await body()) } catch { ends.finish(throwing: error) }
  }
  let clock = Task {
    try await Task.sleep(for: time)
    ends.finish(throwing: LateError(time: time))
  }
  defer {
    work.cancel()
    clock.cancel()
  }
  for try await result in first { return result }
  throw CancellationError()
}

struct LateError: Error { var time: Duration }

extension Engine {
  /// Runs `body` and removes the unnamed images it left (podman keeps each step of a build).
  func withoutLeftovers(_ body: () async throws -> Void) async throws {
    let before = Set(try await listImages(all: true).map(\.id))
    try await body()
    for image in try await listImages(all: true) where !before.contains(image.id) && image.tags.isEmpty {
      // Best effort: one can be gone with another, or be the base of one that is still to go.
      _ = try? await removeImage(image.id, force: true)
    }
  }
}

/// Resident memory of this process in bytes.
func residentBytes() throws -> Int {
  let fields = try File.text("/proc/self/statm").split(separator: " ")
  return (Int(fields[1]) ?? 0) * 4096
}
