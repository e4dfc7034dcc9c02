internal import EngineAPI
internal import Linux
internal import Model

/// Which engine this daemon uses (cli.md, "Engine choice").
struct EngineChoice {
  /// Where it listens; nil: there is none to use.
  var endpoint: EngineEndpoint?
  /// Why there is none, or why it does not answer now.
  var reason: String

  /// `choice`: auto, docker, podman, none, or a socket. The first socket that answers is taken; one that was named, or whose socket
  /// is there, is kept though it does not answer yet.
  static func find(
    _ choice: String, _ environment: [String: String], runtimeFolder: String?, on loop: EventLoop
  ) async -> EngineChoice {
    guard choice != "none" else { return EngineChoice(endpoint: nil, reason: "`--engine none` was chosen") }
    let endpoints = endpoints(choice, environment, runtimeFolder)
    guard !endpoints.isEmpty else {
      return EngineChoice(endpoint: nil, reason: "'\(choice)' is neither docker, podman, none nor a socket's path")
    }
    var reasons: [String] = []
    // One that hangs must not keep the daemon from starting.
    var limits = EngineLimits()
    limits.connect = .seconds(2)
    limits.call = .seconds(3)
    for endpoint in endpoints {
      do throws(EngineFailure) {
        let engine = try await Engine.connect(to: endpoint, on: loop, limits: limits)
        await engine.close()
        return EngineChoice(endpoint: endpoint, reason: "")
      } catch { reasons.append("\(endpoint.socket): \(short(error))") }
    }
    let named = choice != "auto" ? endpoints.first : nil
    return EngineChoice(
      endpoint: named ?? endpoints.first { File.exists($0.socket) }, reason: reasons.joined(separator: "; "))
  }

  private static func short(_ failure: EngineFailure) -> String {
    if case .unreachable(_, let reason) = failure { reason } else { failure.description }
  }

  private static func endpoints(_ choice: String, _ environment: [String: String], _ runtimeFolder: String?)
    -> [EngineEndpoint]
  {
    let all = EngineEndpoint.candidates(given: nil, environment: { environment[$0] }, runtimeFolder: runtimeFolder)
    switch choice {
    case "auto": return all
    // The named engine's usual sockets, unless the environment names one.
    case "docker", "podman":
      if environment["DOCKER_HOST"] ?? environment["CONTAINER_HOST"] != nil { return all }
      return all.filter { $0.socket.contains(choice) }
    default: return [EngineEndpoint(parsing: choice)].compactMap { $0 }
    }
  }
}

/// The operator's own way to the engine, for images: connected when first needed, and again after it was lost.
actor EngineAccess {
  nonisolated let endpoint: EngineEndpoint
  private let loop: EventLoop
  private var connected: Engine?

  init(_ endpoint: EngineEndpoint, on loop: EventLoop) {
    self.endpoint = endpoint
    self.loop = loop
  }

  func engine() async throws(EngineFailure) -> Engine {
    if let connected {
      do throws(EngineFailure) {
        _ = try await connected.ping()
        return connected
      } catch { self.connected = nil }
    }
    let engine = try await Engine.connect(to: endpoint, on: loop)
    connected = engine
    return engine
  }
}
