internal import EngineAPI
internal import Linux
internal import Model

/// The one connection to the engine, made when it is needed and again after it was lost.
actor EngineLink {
  private let endpoint: EngineEndpoint
  private let loop: EventLoop
  private let limits: EngineLimits
  private var current: (engine: Engine, facts: EngineFacts)?
  private var images: [String: ImageDetails] = [:]
  /// Shared by all who ask while it is made; ends by itself within the connect and call limits.
  private var connecting: Task<(engine: Engine, facts: EngineFacts), any Error>?

  init(_ endpoint: EngineEndpoint, _ loop: EventLoop, callTimeout: Duration) {
    self.endpoint = endpoint
    self.loop = loop
    var limits = EngineLimits()
    limits.call = callTimeout
    self.limits = limits
  }

  /// The engine, connected.
  func engine() async throws(HostFailure) -> Engine { try await connected().engine }

  func facts() async throws(HostFailure) -> EngineFacts { try await connected().facts }

  /// What was last known of it; asks nobody, so that one that hangs holds up nobody.
  private(set) var lastFacts: EngineFacts?

  /// Forgets a connection that no longer answers.
  func lost() {
    current = nil
    images = [:]
  }

  /// What an image id stands for never changes, so it is asked once.
  func image(_ id: String) async throws(HostFailure) -> ImageDetails? {
    if let known = images[id] { return known }
    let found = try await Images(engine: try await engine(), progress: { _ in }).find(id)
    if images.count >= 256 { images = [:] }
    if let found { images[id] = found }
    return found
  }

  private func connected() async throws(HostFailure) -> (engine: Engine, facts: EngineFacts) {
    if let current { return current }
    let task: Task<(engine: Engine, facts: EngineFacts), any Error>
    if let connecting {
      task = connecting
    } else {
      task = Task { [endpoint, loop, limits] in
        // One that hangs is found out soon, and not only when a call of ordinary length is over.
        var quick = limits
        quick.connect = .seconds(2)
        quick.call = .seconds(3)
        await (try Engine.connect(to: endpoint, on: loop, limits: quick)).close()
        let engine = try await Engine.connect(to: endpoint, on: loop, limits: limits)
        return (engine, try await Self.facts(of: engine, endpoint))
      }
      connecting = task
    }
    let result = await task.result
    if connecting == task { connecting = nil }
    switch result {
    case .success(let found):
      current = found
      lastFacts = found.facts
      return found
    case .failure(let error):
      throw (error as? EngineFailure).map { HostFailure($0) } ?? HostFailure(.failed, "\(error)")
    }
  }

  private static func facts(of engine: Engine, _ endpoint: EngineEndpoint) async throws(EngineFailure) -> EngineFacts {
    let version = try await engine.version()
    let info = try await engine.info()
    let places =
      engine.flavour == .podman
      ? ["/usr/libexec/podman/catatonit", "/usr/local/libexec/podman/catatonit", "/usr/bin/catatonit"]
      : [
        "/usr/bin/docker-init", "/usr/local/bin/docker-init", "/usr/libexec/docker/docker-init",
        "/usr/sbin/docker-init",
      ]
    return EngineFacts(
      endpoint: endpoint.description, flavour: engine.flavour.rawValue, version: version.version,
      apiVersion: engine.apiVersion.description, cgroupDriver: info.cgroupDriver, cgroupVersion: info.cgroupVersion,
      storageDriver: info.storageDriver, runtime: info.defaultRuntime,
      components: version.components.map { "\($0.name) \($0.version)" },
      remapsUsers: info.securityOptions.contains { $0.contains("userns") },
      isRootless: info.isRootless, liveRestore: info.liveRestore,
      hasInit: places.contains { File.exists($0) })
  }
}

extension HostFailure {
  /// An engine's failure in the words of a host.
  init(_ failure: EngineFailure) {
    let kind: Kind
    var hint: String?
    switch failure {
    case .unreachable, .timedOut, .interrupted: kind = .unavailable
    case .notFound: kind = .missing
    case .conflict: kind = .conflict
    case .refused(_, _, let message) where Self.isPortTaken(message):
      kind = .conflict
      hint = "Free the port, or give the app another one under `ports`"
    case .refused(_, _, let message) where message.contains("no such file or directory") && message.contains("exec"):
      kind = .missing
      hint = "Check `entry` and the image; a script also needs the interpreter named in its first line"
    case .refused, .unauthorized, .malformed, .unsupported, .sourceFailed, .cancelled: kind = .failed
    }
    self.init(kind, failure.description, hint: hint)
  }

  private static func isPortTaken(_ message: String) -> Bool {
    let words = ["port is already allocated", "address already in use", "ports are not available", "bind:"]
    let lower = message.lowercased()
    return words.contains { contains(lower, $0) }
  }

  private static func contains(_ text: String, _ part: String) -> Bool {
    let part = Array(part.utf8)
    let text = Array(text.utf8)
    guard text.count >= part.count else { return false }
    return (0...text.count - part.count).contains { text[$0..<$0 + part.count].elementsEqual(part) }
  }
}

/// Makes an engine call in the words of a host.
func asked<Result: Sendable>(
  isolation: isolated (any Actor)? = #isolation, _ body: () async throws(EngineFailure) -> Result
) async throws(HostFailure) -> Result {
  do throws(EngineFailure) { return try await body() } catch { throw HostFailure(error) }
}

/// Lets at most so many through at a time, in order of arrival.
actor Turnstile {
  private var free: Int
  private var waiting: [CheckedContinuation<Void, Never>] = []

  init(width: Int) { free = width }

  func enter() async {
    if free > 0 {
      free -= 1
    } else {
      await withCheckedContinuation { waiting.append($0) }
    }
  }

  func leave() {
    if waiting.isEmpty { free += 1 } else { waiting.removeFirst().resume() }
  }

  func pass<Result: Sendable>(
    isolation: isolated (any Actor)? = #isolation, _ body: () async throws(HostFailure) -> Result
  ) async throws(HostFailure)
    -> Result
  {
    await enter()
    do throws(HostFailure) {
      let result = try await body()
      await leave()
      return result
    } catch {
      await leave()
      throw error
    }
  }
}
