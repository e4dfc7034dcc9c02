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

  /// A value from the environment; without it the case is skipped, or fails when REQUIRE names `part`.
  static func needed(_ name: String, for part: String) throws -> String {
    if let value = environment(name) { return value }
    if isRequired(part) {
      Issue.record("REQUIRE names \(part), but \(name) is not set")
      throw Missing(name: name)
    }
    try Test.cancel("\(name) is not set: start Tests/rig/engines and pass what it prints")
  }

  struct Missing: Error { var name: String }

  /// A connection of its own to this engine, and the loop it runs on.
  func connect(_ limits: EngineLimits = Rig.limits) async throws -> Engine {
    let socket = try Self.needed("SUPERVISOR_TEST_\(rawValue.uppercased())_SOCK", for: rawValue)
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

/// Fails with `LateError` when `body` takes longer than `time`; the body is cancelled.
func within<Result: Sendable>(_ time: Duration = .seconds(30), _ body: @escaping @Sendable () async throws -> Result)
  async throws -> Result
{
  try await withThrowingTaskGroup(of: Result.self) { group in
    group.addTask { try await body() }
    group.addTask {
      try await Task.sleep(for: time)
      throw LateError(time: time)
    }
    guard let first = try await group.next() else { throw LateError(time: time) }
    group.cancelAll()
    return first
  }
}

struct LateError: Error { var time: Duration }

/// Resident memory of this process in bytes.
func residentBytes() throws -> Int {
  let fields = try File.text("/proc/self/statm").split(separator: " ")
  return (Int(fields[1]) ?? 0) * 4096
}
