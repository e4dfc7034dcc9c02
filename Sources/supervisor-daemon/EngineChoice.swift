internal import EngineAPI
internal import Linux

/// Which engine this daemon uses (cli.md, "Engine choice").
struct EngineChoice {
  var engine: Engine?
  /// Why there is none.
  var reason: String

  /// `choice`: auto, docker, podman, none, or a socket. Auto takes the first socket that answers.
  static func find(_ choice: String, _ environment: [String: String], runtimeFolder: String?) async -> EngineChoice {
    guard choice != "none" else { return EngineChoice(engine: nil, reason: "`--engine none` was chosen") }
    let endpoints = endpoints(choice, environment, runtimeFolder)
    guard !endpoints.isEmpty else { return EngineChoice(engine: nil, reason: "'\(choice)' is neither docker, podman, none nor a socket's path") }
    do {
      let loop = try EventLoop(name: "engine")
      var reasons: [String] = []
      for endpoint in endpoints {
        do throws(EngineFailure) { return EngineChoice(engine: try await Engine.connect(to: endpoint, on: loop), reason: "") } catch {
          reasons.append("\(endpoint.socket): \(short(error))")
        }
      }
      loop.stop()
      return EngineChoice(engine: nil, reason: reasons.joined(separator: "; "))
    } catch { return EngineChoice(engine: nil, reason: "\(error)") }
  }

  private static func short(_ failure: EngineFailure) -> String {
    if case .unreachable(_, let reason) = failure { reason } else { failure.description }
  }

  private static func endpoints(_ choice: String, _ environment: [String: String], _ runtimeFolder: String?) -> [EngineEndpoint] {
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
