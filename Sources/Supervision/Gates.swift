internal import Model
internal import Storage
internal import Scheduling

/// Why an app may not start yet, in words.
struct Closed: Error {
  var reason: String
}

extension Supervisor {
  /// Whether a waiting app may start now.
  func gate(_ record: AppRecord) -> Result<Void, Closed> {
    if asking.contains(record.runtime) {
      return .failure(Closed(reason: "asks the \(record.runtime) engine what runs there"))
    }
    if let elsewhere = record.elsewhere {
      return .failure(Closed(reason: "its container is in another engine, \(elsewhere)"))
    }
    if record.unadopted != nil || trouble[record.runtime] != nil {
      return .failure(
        Closed(reason: "the \(record.runtime) engine does not answer: \(trouble[record.runtime] ?? "not asked yet")"))
    }
    guard setup.hosts[record.runtime] != nil else { return .failure(Closed(reason: noHost(record))) }
    for dependency in record.policy.dependencies where !record.ignoresDependencies {
      if let reason = blocked(by: dependency) { return .failure(Closed(reason: reason)) }
    }
    return admission(record)
  }

  private func noHost(_ record: AppRecord) -> String {
    record.runtime == .container
      ? "no container engine: \(setup.noEngine); give the policy a `fallback: native`, or start an engine"
      : "this host cannot run \(record.runtime) apps"
  }

  private func blocked(by dependency: Policy.Dependency) -> String? {
    guard let other = apps[dependency.app] else {
      return dependency.required ? "needs \(dependency.app), which is not loaded" : nil
    }
    if case .running = other.life.stage, !other.life.shouldStop { return nil }
    guard dependency.required || other.life.isStarting else { return nil }
    if let failure = other.life.failure { return "needs \(dependency.app), which failed: \(failure)" }
    return "waits for \(dependency.app)"
  }

  /// Memory is promised before it is used: what running apps were promised counts, not what they use now.
  private func admission(_ record: AppRecord) -> Result<Void, Closed> {
    let running = apps.values.compactMap { other -> Demand? in
      other.stored.id != record.stored.id && holdsMemory(other.life.stage) ? Demand(other.current) : nil
    }
    switch setup.admission.decide(Demand(record.policy), running: running) {
    case .admit: return .success(())
    case .pending(let reason): return .failure(Closed(reason: reason))
    }
  }

  private func holdsMemory(_ stage: Stage) -> Bool {
    switch stage {
    case .resting, .waiting, .backoff: false
    case .preparing, .creating, .starting, .running, .stopping, .killing, .clearing: true
    }
  }
}
