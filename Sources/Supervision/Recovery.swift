internal import Linux
internal import Logging
package import Model
package import Policies
package import Storage

extension Supervisor {
  /// Loads what an earlier daemon knew; `takeOver` follows. `read` turns a stored canonical document back into its
  /// policy; one that cannot be read any more leaves its app at rest with the reason, and its instance alone.
  package func recover(
    _ snapshot: StorageSnapshot, bootID: String, rules: HostRules = .unknown,
    read: (StoredApp) -> Result<Policy, HostFailure>,
    readInstance: (StoredInstance, StoredApp) -> Result<Policy, HostFailure>
  ) async {
    self.rules = rules
    cursor = snapshot.lastCursor
    slots = snapshot.idSlots
    let rests = Dictionary(uniqueKeysWithValues: snapshot.rests.map { ($0.app, $0) })
    let instances = Dictionary(uniqueKeysWithValues: snapshot.instances.map { ($0.instance.app, $0) })
    asking = Set(setup.hosts.keys)
    let rebooted = snapshot.values["boot_id"] != bootID
    for var row in snapshot.apps {
      let left = instances[row.id]
      var policy = Policy(id: row.id, stack: row.stack, runtime: left?.runtime ?? .native, baseFolder: row.folder)
      var unreadable: String?
      switch read(row) {
      case .success(let applied): policy = applied
      case .failure(let failure):
        // It stays known, and what runs of it runs on: it can be seen and stopped, not started.
        unreadable = failure.description
        save([tell("app.unreadable", row.id, ["reason": .string(failure.description)])])
      }
      if rebooted, policy.restart == .always { row.want = .running }
      let (overrides, ended) = stillHeld(snapshot.overrides[row.id] ?? [])
      var canonical = row.canonical
      if unreadable == nil, !overrides.isEmpty {
        do throws(OperationFailure) {
          (policy, canonical) = try effective(Self.document(row.canonical), overrides, row.id)
        } catch {
          unreadable = "\(error)"
          save([tell("app.unreadable", row.id, ["reason": .string("\(error)")])])
        }
      }
      if !ended.isEmpty {
        save([.setOverrides(row.id, overrides)])
        for item in ended { save([tell("app.override_ended", row.id, ["key": .string(item.key)])]) }
      }
      var record = AppRecord(
        stored: row, policy: policy, effective: canonical, overrides: overrides, life: Life(want: .stopped),
        runtime: runtime(for: policy), since: Clock.wall())
      restore(&record, rests[row.id], left, readInstance)
      if let unreadable { record.life.failure = unreadable }
      apps[row.id] = record
    }
    if rebooted {
      do throws(StorageFailure) { try await setup.store.setValue("boot_id", bootID) } catch {
        setup.log.error("state.write_failed", metadata: ["reason": "\(error)"])
      }
    }
    let due = snapshot.apps.compactMap { row in
      snapshot.values["due.\(row.id)"].flatMap { Int64($0) }.map { (row.id, WallTime(nanoseconds: $0)) }
    }
    for (id, time) in due { apps[id]?.dueStored = time }
    armExpiry()
    startWanted()
    for (id, time) in due { tellMissed(id, since: time) }
  }

  /// Overrides that still hold, and those that ended while no daemon ran.
  private func stillHeld(_ overrides: [StoredOverride]) -> (held: [StoredOverride], ended: [StoredOverride]) {
    let now = Clock.wall()
    return (overrides.filter { !$0.isOver(now) }, overrides.filter { $0.isOver(now) })
  }

  /// Takes over what runs, one runtime beside the other: an engine that hangs keeps no native app waiting. Ends once every host
  /// has answered, or is cancelled.
  package func takeOver() async {
    await withTaskGroup(of: Void.self) { group in
      for runtime in setup.hosts.keys { group.addTask { await self.adoptUntilAnswered(runtime) } }
    }
  }

  private func adoptUntilAnswered(_ runtime: Runtime) async {
    while await !adopt(runtime) {
      do { try await Task.sleep(for: .seconds(2)) } catch { return }
    }
  }

  /// Returns once every host was asked, or after `limit`.
  package func tookOver(within limit: Duration) async {
    let timer = Task {
      // Cancelled below.
      try await Task.sleep(for: limit)
      settledTakeOver()
    }
    defer { timer.cancel() }
    guard !asking.isEmpty else { return }
    await withCheckedContinuation { awaitingTakeOver.append($0) }
  }

  func settledTakeOver() {
    for waiting in awaitingTakeOver { waiting.resume() }
    awaitingTakeOver = []
  }

  private func restore(
    _ record: inout AppRecord, _ rest: StoredRest?, _ left: StoredInstance?,
    _ readInstance: (StoredInstance, StoredApp) -> Result<Policy, HostFailure>
  ) {
    record.savedRest = rest
    record.life.lastExit = rest?.exit
    record.life.failure = rest?.failure
    record.life.restarts = rest?.restarts ?? 0
    guard let left else { return }
    record.runtime = left.runtime
    record.unadopted = left
    record.life.preStart = left.preStart
    record.stored.generation = max(record.stored.generation, left.instance.generation)
    // best effort: the applied policy describes it nearly as well.
    let policy = (try? readInstance(left, record.stored).get()) ?? record.policy
    record.launch = Launch(
      policy: forStep(left.preStart, placed(policy, left.runtime)), generation: left.instance.generation,
      nonce: left.instance.nonce,
      uidBase: setup.uidBase + record.stored.uidSlot * setup.uidBlock, artifact: left.artifact)
  }

  /// Asks a host what became of the instances an earlier daemon left there. Where it does not answer, they stay as they are until
  /// it does; false then.
  @discardableResult
  func adopt(_ runtime: Runtime) async -> Bool {
    guard let host = setup.hosts[runtime] else { return true }
    let left = apps.values.compactMap { record -> (instance: Instance, launch: Launch)? in
      guard record.runtime == runtime, let unadopted = record.unadopted, let launch = record.launch else { return nil }
      return (unadopted.instance, launch)
    }
    defer {
      asking.remove(runtime)
      converge()
      if asking.isEmpty { settledTakeOver() }
    }
    do throws(HostFailure) {
      let (found, removed) = try await host.adopt(left)
      trouble[runtime] = nil
      asking.remove(runtime)
      for name in removed { save([tell("host.removed_unknown", nil, ["name": .string(name)])]) }
      // All are known before the first is acted on: each finds what it depends on.
      together { for (instance, _) in left { settle(instance, found[instance] ?? .gone) } }
      return true
    } catch {
      trouble[runtime] = error.message
      save([tell("host.unavailable", nil, ["runtime": .string(runtime.rawValue), "reason": .string(error.message)])])
      return false
    }
  }

  private func settle(_ left: Instance, _ adoption: Adoption) {
    guard var record = apps[left.app], let stored = record.unadopted, stored.instance == left else { return }
    if adoption == .gone, !left.handle.isEmpty, !stored.engine.isEmpty, stored.engine != setup.engine {
      apps[left.app]?.elsewhere = stored.engine
      return
    }
    record.unadopted = nil
    record.elsewhere = nil
    // Asked for anew while it was looked for, or before the earlier daemon could end it: what ran is not what is wanted.
    let isOld = left.generation < record.stored.generation
    record.life.replacing = isOld || (record.life.stage != .resting && !adoption.isRunning)
    record.life.want = Want(record.stored.want)
    let isTold = record.life.lastExit != nil && record.savedRest?.generation == left.generation
    if let debug = stored.debug { record.life.debug = .init(isHere: true, rests: debug == .rests) }
    switch adoption {
    case .running(let facts, let paused):
      record.life.stage =
        stored.preStart == nil ? .running(left, facts, paused: paused) : .preStarting(left, facts)
      record.life.isReady = stored.preStart == nil && (stored.isReady || record.current.readiness == .started)
      if facts.saidReady, record.current.readiness == .notify { record.heardReady = true }
      record.since = facts.startedAt
      apps[left.app] = record
      save([tell("app.adopted", left.app, ["pid": .integer(Int64(facts.pid))])])
      if let limit = record.current.limits.maximumRuntime, limit > .zero {
        scheduleRest(of: limit, since: facts.startedAt, .runtimeOver, left.app)
      }
      if let step = stored.preStart, step < record.policy.preStart.count, record.policy.preStart[step].timeout > .zero {
        scheduleRest(of: record.policy.preStart[step].timeout, since: facts.startedAt, .stepTimeOver, left.app)
      }
      if record.policy.schedule != nil, record.life.want == .running { armSchedule(left.app) }
      attend(left.app)
      tookOver(left.app)
      catchUp(left.app)
      // Whoever debugged it went with the earlier daemon.
      if stored.debug != nil { send(.debug(false), to: left.app) }
    // Its end was told and stored by the earlier daemon, which went before all of it was gone.
    case .ended where isTold, .gone where isTold:
      record.life.stage = .clearing(left)
      apps[left.app] = record
      clear(left)
    case .ended(let report):
      record.life.stage = .starting(left)
      apps[left.app] = record
      send(.exited(report), to: left.app)
    // Without a handle its making was cut off: it never ran.
    case .gone where !left.handle.isEmpty:
      record.life.stage = .starting(left)
      apps[left.app] = record
      send(
        .exited(ExitReport(cause: .unknown("it ended while no supervisor ran"), startedAt: nil, endedAt: Clock.wall())),
        to: left.app)
    case .created, .gone:
      // Made and never started: made anew from what is wanted now.
      record.life.stage = .creating
      record.life.replacing = true
      apps[left.app] = record
      send(.created(left), to: left.app)
    }
  }

  private func scheduleRest(of limit: Duration, since start: WallTime, _ event: LifeEvent, _ id: AppID) {
    let rest = limit - Clock.wall().since(start)
    schedule(event, after: max(.zero, rest), id)
  }

  /// Starts what is wanted and was not there to be taken over, and goes on removing what was to be removed.
  private func startWanted() {
    together {
      for (id, record) in apps where record.unadopted == nil && record.life.stage == .resting {
        switch record.stored.want {
        case .running where !restsForGood(record): send(.want(.running), to: id)
        case .removed: send(.want(.removed), to: id)
        case .running, .stopped: break
        }
      }
      for (id, record) in apps where record.unadopted != nil { apps[id]?.life.want = Want(record.stored.want) }
    }
  }

  /// An app that ended by its own rule, or failed, before the daemon went is not started again by the next one, unless it was
  /// asked for again since.
  private func restsForGood(_ record: AppRecord) -> Bool {
    guard record.life.failure == record.savedRest?.failure else { return true }
    // It waits for its next run.
    guard record.policy.schedule == nil else { return false }
    guard let rest = record.savedRest, rest.generation >= record.stored.generation else { return false }
    if record.life.failure != nil { return true }
    guard let exit = record.life.lastExit else { return false }
    switch record.policy.restart {
    case .no: return true
    case .onFailure: return exit.succeeded
    case .always, .unlessStopped: return false
    }
  }
}

extension Adoption {
  fileprivate var isRunning: Bool {
    switch self {
    case .running: true
    case .created, .ended, .gone: false
    }
  }
}
