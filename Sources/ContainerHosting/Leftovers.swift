internal import EngineAPI
package import Model

extension ContainerHost {
  /// Ended containers of this instance's, by their labels, whose app is none of `known`.
  package func leftovers(besides known: Set<AppID>) async throws(HostFailure) -> [(id: String, name: String)] {
    let engine = try await link.engine()
    let all = try await asked { () throws(EngineFailure) in
      try await engine.listContainers(all: true, Filters.label("\(Label.instance)=\(settings.layout.id)"))
    }
    return all.filter { container in
      guard container.labels[Label.instance] == settings.layout.id,
        let app = container.labels[Label.app].flatMap({ AppID(stored: $0) })
      else { return false }
      return !known.contains(app) && [.created, .exited, .dead, .stopped].contains(container.status)
    }.map { ($0.id, $0.names.first ?? String($0.id.prefix(12))) }
  }

  /// Removes one of them; one that is gone, or runs again, is left alone.
  package func removeLeftover(_ id: String) async throws(HostFailure) {
    let engine = try await link.engine()
    do throws(EngineFailure) { try await engine.removeContainer(id, force: false, volumes: true) } catch {
      switch error {
      case .notFound, .conflict: return
      default: throw HostFailure(error)
      }
    }
  }
}
