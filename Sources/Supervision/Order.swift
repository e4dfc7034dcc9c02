internal import Linux
internal import Model

extension Supervisor {
  // MARK: Restarts that carry over

  /// Restarts what depends on an app with `restart: true` when that app is restarted, whoever or whatever did it.
  func carryOn(_ id: AppID, _ before: Life, _ after: Life) {
    if after.replacing, !before.replacing, after.stage.instance != nil {
      // Dependents stop first, as at any stop.
      carry(id) { $0.condition != .completed }
    } else if case .clearing = before.stage, after.want == .running, after.isComingBack {
      carry(id) { $0.condition != .completed }
    } else if after.debug == nil, case .starting = before.stage,
      case .running(let instance, let facts, _) = after.stage,
      instance.generation > 1
    {
      // It ended or was stopped, and is there again; who has run since before then knows another instance.
      carry(id, olderThan: facts.startedAt) { _ in true }
    }
  }

  /// What depends on an app with `restart: true` has known another generation of it.
  func carryOnAfterUpdate(_ id: AppID) {
    guard let facts = apps[id]?.life.stage.facts else { return }
    carry(id, olderThan: facts.startedAt) { _ in true }
  }

  private func carry(_ id: AppID, olderThan time: WallTime? = nil, _ applies: (Policy.Dependency) -> Bool) {
    for (other, record) in apps where other != id && record.life.want == .running {
      guard case .running(_, let facts, _) = record.life.stage, !record.life.replacing,
        record.current.dependencies.contains(where: { $0.app == id && $0.restart && applies($0) }),
        time.map({ facts.startedAt < $0 }) ?? true
      else { continue }
      send(.replace, to: other)
    }
  }
}

extension Life {
  /// It has ended and is about to be run again.
  fileprivate var isComingBack: Bool {
    switch stage {
    case .waiting, .backoff: true
    case .resting, .preparing, .creating, .starting, .preStarting, .running, .stopping, .killing, .clearing, .scheduled:
      false
    }
  }
}
