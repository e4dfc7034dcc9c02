internal import Health
internal import Model
internal import Storage
internal import Scheduling

/// Why an app may not start yet, in words.
struct Closed: Error {
  var reason: String
  /// It stays so until somebody does something about it.
  var isFinal = false
  /// There is no room for it now.
  var isRoom = false
}

extension Supervisor {
  /// Whether a waiting app may start now.
  func gate(_ record: AppRecord, _ room: inout Admission.Room) -> Result<Void, Closed> {
    if let closed = hindrance(record) { return .failure(closed) }
    switch room.admit(Demand(record.policy)) {
    case .admit: return .success(())
    case .pending(let reason): return .failure(Closed(reason: reason, isRoom: true))
    }
  }

  /// What keeps a waiting app from starting besides a lack of room.
  ///
  /// `debugs`: an operator's command is to run in its place, which waits for no other app.
  func hindrance(_ record: AppRecord, debugs: Bool = false) -> Closed? {
    if asking.contains(record.runtime) {
      return Closed(reason: "asks the \(record.runtime) engine what runs there")
    }
    if let elsewhere = record.elsewhere { return Closed(reason: "its container is in another engine, \(elsewhere)") }
    if record.unadopted != nil || trouble[record.runtime] != nil {
      return Closed(
        reason: "the \(record.runtime) engine does not answer: \(trouble[record.runtime] ?? "not asked yet")")
    }
    guard setup.hosts[record.runtime] != nil else { return Closed(reason: noHost(record)) }
    guard !record.ignoresDependencies, record.life.debug == nil, !debugs else { return nil }
    return record.policy.dependencies.lazy.compactMap { self.blocked(by: $0) }.first
  }

  private func noHost(_ record: AppRecord) -> String {
    record.runtime == .container
      ? "no container engine: \(setup.noEngine); give the policy a `fallback: native`, or start an engine"
      : "this host cannot run \(record.runtime) apps"
  }

  /// Why what is depended on is not there yet; nil: it is, or is not needed.
  private func blocked(by dependency: Policy.Dependency) -> Closed? {
    let name = dependency.app
    guard let other = apps[name] else {
      return dependency.required ? Closed(reason: "needs \(name), which is not loaded", isFinal: true) : nil
    }
    guard other.life.debug == nil else { return Closed(reason: "waits for \(name), which is being debugged") }
    let lacking: Closed?
    switch dependency.condition {
    case .started: lacking = notStarted(other)
    case .healthy: lacking = notHealthy(other, isNeeded: dependency.required)
    case .completed: lacking = notCompleted(other)
    }
    guard let lacking, dependency.required || !lacking.isFinal else { return nil }
    return lacking
  }

  private func notStarted(_ other: AppRecord) -> Closed? {
    let name = other.stored.id
    if case .running = other.life.stage, !other.life.shouldStop { return nil }
    // A job that has done its work was started.
    if hasCompleted(other) { return nil }
    return hopeless(other) ?? resting(other) ?? Closed(reason: "waits for \(name)")
  }

  private func notHealthy(_ other: AppRecord, isNeeded: Bool) -> Closed? {
    let name = other.stored.id
    guard case .running = other.life.stage, !other.life.shouldStop else {
      return hopeless(other) ?? resting(other) ?? Closed(reason: "waits for \(name)")
    }
    guard other.life.isReady else { return Closed(reason: "waits for \(name) to be ready") }
    switch other.attendance?.monitor?.word {
    case .healthy: return nil
    case .starting: return Closed(reason: "waits for \(name) to be healthy")
    // It may recover, or be restarted.
    case .unhealthy: return isNeeded ? Closed(reason: "waits for \(name), which is unhealthy") : nil
    case nil:
      // Ready by its own word is as good; that it was started says nothing about its health.
      guard other.current.readiness == .started else { return nil }
      return Closed(reason: "needs \(name) to be healthy, which has no healthcheck", isFinal: true)
    }
  }

  private func notCompleted(_ other: AppRecord) -> Closed? {
    if hasCompleted(other) { return nil }
    return hopeless(other) ?? resting(other) ?? Closed(reason: "waits for \(other.stored.id) to do its work")
  }

  private func hasCompleted(_ other: AppRecord) -> Bool {
    switch other.life.stage {
    case .resting, .scheduled: break
    case .waiting, .preparing, .creating, .starting, .preStarting, .running, .stopping, .killing, .clearing, .backoff:
      return false
    }
    return other.unadopted == nil && other.life.failure == nil && other.stored.want == .running
      && other.life.lastExit?.succeeded == true
  }

  /// It failed, or nobody wants it.
  private func hopeless(_ other: AppRecord) -> Closed? {
    let name = other.stored.id
    if let failure = other.life.failure {
      return Closed(reason: "needs \(name), which failed: \(failure)", isFinal: true)
    }
    // One that could not be looked for yet may be running.
    guard other.unadopted == nil, other.stored.want != .running else { return nil }
    return Closed(reason: "needs \(name), which is stopped", isFinal: true)
  }

  /// It has ended, and nothing begins it again.
  private func resting(_ other: AppRecord) -> Closed? {
    guard other.life.stage == .resting, other.unadopted == nil, let exit = other.life.lastExit else { return nil }
    return Closed(reason: "needs \(other.stored.id), which ended: \(exit.reason)", isFinal: true)
  }

  /// Memory is promised before it is used: what running apps were promised counts, not what they use now.
  var room: Admission.Room {
    admission.room(beside: demands { _ in true })
  }

  /// The same without what one app holds.
  func room(without id: AppID) -> Admission.Room {
    admission.room(beside: demands { $0.stored.id != id || $0.role != .present })
  }

  private func demands(_ counts: (AppRecord) -> Bool) -> [Demand] {
    var demands: [Demand] = []
    for record in apps.values where holdsMemory(record.life.stage) && counts(record) {
      demands.append(Demand(record.current))
    }
    for record in beside.values where holdsMemory(record.life.stage) && counts(record) {
      demands.append(Demand(record.current))
    }
    return demands
  }

  private func holdsMemory(_ stage: Stage) -> Bool {
    switch stage {
    case .resting, .waiting, .backoff, .scheduled: false
    case .preparing, .creating, .starting, .preStarting, .running, .stopping, .killing, .clearing: true
    }
  }
}
