internal import Model
internal import Storage

/// `sha256:0123456789ab`
func shortID(_ image: String) -> String { String(image.prefix(image.hasPrefix("sha256:") ? 19 : 12)) }

extension Supervisor {
  /// An engine that takes longer does not say whether a name has moved: who asks what would change waits for nobody.
  private static let patienceForNames = Duration.seconds(1)

  private enum Answer: Sendable {
    case image(name: String, id: String?)
    case late
  }

  /// What an image's name means by now, where it is not what the app was made from; nothing is fetched.
  func movedImages(_ checked: [CheckedApp]) async -> [AppID: String] {
    var asked: [Runtime: [String: Policy]] = [:]
    for app in checked {
      guard let name = pinnedName(app), let runtime = apps[app.policy.id]?.runtime, trouble[runtime] == nil else {
        continue
      }
      asked[runtime, default: [:]][name] = app.policy
    }
    var moved: [AppID: String] = [:]
    for (runtime, policies) in asked {
      guard let host = setup.hosts[runtime] else { continue }
      moved.merge(await movedImages(checked, policies, runtime, host)) { $1 }
    }
    return moved
  }

  private func movedImages(_ checked: [CheckedApp], _ asked: [String: Policy], _ runtime: Runtime, _ host: any AppHost)
    async -> [AppID: String]
  {
    let present = await withTaskGroup(of: Answer.self) { group in
      for (name, policy) in asked {
        group.addTask { .image(name: name, id: await host.present(policy)) }
      }
      group.addTask {
        // Cancelled once all have answered.
        try? await Task.sleep(for: Self.patienceForNames)
        return .late
      }
      var found: [String: String] = [:]
      var open = asked.count
      while open > 0, case .image(let name, let id)? = await group.next() {
        found[name] = id
        open -= 1
      }
      group.cancelAll()
      return found
    }
    var moved: [AppID: String] = [:]
    for app in checked {
      // Looked at after the answers: it may be another one by now.
      let record = apps[app.policy.id]
      guard let name = pinnedName(app), record?.runtime == runtime, let id = present[name],
        id != record?.stored.artifact
      else { continue }
      moved[app.policy.id] = id
    }
    return moved
  }

  /// The secrets whose content is another than the app was given; nothing of them leaves the host that compares.
  func changedSecrets(_ checked: [CheckedApp]) async -> [AppID: [String]] {
    var changed: [AppID: [String]] = [:]
    for app in checked where !app.policy.allSecrets.isEmpty {
      guard let record = apps[app.policy.id], let host = setup.hosts[record.runtime] else { continue }
      let names = await host.changedSecrets(app.policy)
      if !names.isEmpty { changed[app.policy.id] = names }
    }
    return changed
  }

  /// The image's name, of an app that has one pinned under that name.
  private func pinnedName(_ app: CheckedApp) -> String? {
    guard let record = apps[app.policy.id], !record.stored.artifact.isEmpty, runtime(for: app.policy) == record.runtime,
      let name = app.policy.image?.reference,
      record.policy.image?.reference == name
    else { return nil }
    return name
  }
}
