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
    let instances = Dictionary(grouping: snapshot.instances) { $0.instance.app }
    let updates = Dictionary(uniqueKeysWithValues: snapshot.updates.map { ($0.app.id, $0) })
    lastRuns = snapshot.lastRuns
    for stored in snapshot.instances {
      lastRuns[stored.instance.app] = max(lastRuns[stored.instance.app] ?? 0, stored.instance.generation)
    }
    asking = Set(setup.hosts.keys)
    let rebooted = snapshot.values["boot_id"] != bootID
    for var row in snapshot.apps {
      let found = Left(instances[row.id] ?? [], row)
      let left = found.present
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
      recoverUpdate(updates[row.id], found, read, readInstance)
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
    for (id, time) in due {
      if apps[id]?.unadopted == nil { tellMissed(id, since: time) } else { apps[id]?.missedSince = time }
    }
  }

  /// The generations that an earlier daemon left of one app. Exactly one is what the app is.
  private struct Left {
    var present: StoredInstance?
    var next: StoredInstance?
    var past: [StoredInstance] = []

    init(_ all: [StoredInstance], _ app: StoredApp) {
      let newest = all.sorted { $0.instance.generation > $1.instance.generation }
      let claims = newest.filter { $0.seat == .present }
      present = claims.first { $0.canonical == app.canonical } ?? claims.first
      next = newest.first { $0.seat == .next }
      past = all.filter { $0 != present && $0 != next }
    }
  }

  /// Goes on with an update that was not decided, and with the end of generations whose place was taken.
  private func recoverUpdate(
    _ stored: StoredUpdate?, _ found: Left, _ read: (StoredApp) -> Result<Policy, HostFailure>,
    _ readInstance: (StoredInstance, StoredApp) -> Result<Policy, HostFailure>
  ) {
    guard let app = stored?.app.id ?? (found.next ?? found.past.first)?.instance.app, let record = apps[app] else {
      return
    }
    var past = found.past
    switch stored?.role {
    case .previous?:
      apps[app]?.previous = stored?.app
      if let generation = stored?.app.generation {
        apps[app]?.update = Update(record.policy, after: generation + 1)
        update(record.seat, .begun)
      }
      if let next = found.next { past.append(next) }
    case .next?:
      guard record.stored.want == .running, let row = stored?.app, case .success(let base) = read(row),
        let (policy, canonical) = try? effective(Self.document(row.canonical), record.overrides, app)
      else {
        save([.removeUpdate(app, .next)])
        if let next = found.next { past.append(next) }
        break
      }
      var next = nextRecord(row, record.overrides.isEmpty ? base : policy, canonical)
      restore(&next, nil, found.next, readInstance)
      beside[next.seat] = next
      update(next.seat, .begun)
    case nil: if let next = found.next { past.append(next) }
    }
    for left in past {
      let number = nextNumber
      nextNumber += 1
      var old = AppRecord(
        stored: record.stored, number: number, role: .past, policy: record.policy, effective: record.effective,
        life: Life(want: .removed), runtime: left.runtime, since: Clock.wall())
      old.stored.want = .removed
      restore(&old, nil, left, readInstance)
      beside[old.seat] = old
    }
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
      uidBase: setup.uidBase + record.stored.uidSlot * setup.uidBlock, uidCount: setup.uidBlock,
      artifact: left.artifact)
  }

  /// Asks a host what became of the instances an earlier daemon left there. Where it does not answer, they stay as they are until
  /// it does; false then.
  @discardableResult
  func adopt(_ runtime: Runtime) async -> Bool {
    guard let host = setup.hosts[runtime] else { return true }
    let left = everyone.compactMap { record -> (instance: Instance, launch: Launch)? in
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
    guard var record = everyone.first(where: { $0.unadopted?.instance == left }), let stored = record.unadopted else {
      return
    }
    let seat = record.seat
    if adoption == .gone, !left.handle.isEmpty, !stored.engine.isEmpty, stored.engine != setup.engine {
      self[seat]?.elsewhere = stored.engine
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
      self[seat] = record
      save([tell("app.adopted", seat, ["pid": .integer(Int64(facts.pid))])])
      if let limit = record.current.limits.maximumRuntime, limit > .zero {
        scheduleRest(of: limit, since: facts.startedAt, .runtimeOver, seat)
      }
      if let step = stored.preStart, step < record.policy.preStart.count, record.policy.preStart[step].timeout > .zero {
        scheduleRest(of: record.policy.preStart[step].timeout, since: facts.startedAt, .stepTimeOver, seat)
      }
      if record.policy.schedule != nil, record.life.want == .running { armSchedule(seat.app) }
      attend(seat)
      tookOver(seat)
      catchUp(left.app)
      lookAtUpdate(seat)
      // Whoever debugged it went with the earlier daemon.
      if stored.debug != nil { send(.debug(false), to: seat) }
    // Its end was told and stored by the earlier daemon, which went before all of it was gone.
    case .ended where isTold, .gone where isTold:
      record.life.stage = .clearing(left)
      self[seat] = record
      clear(left, seat)
    case .ended(let report):
      record.life.stage = .starting(left)
      self[seat] = record
      send(.exited(report), to: seat)
    // Without a handle its making was cut off: it never ran.
    case .gone where !left.handle.isEmpty:
      record.life.stage = .starting(left)
      self[seat] = record
      send(
        .exited(ExitReport(cause: .unknown("it ended while no supervisor ran"), startedAt: nil, endedAt: Clock.wall())),
        to: seat)
    case .created, .gone:
      // Made and never started: made anew from what is wanted now.
      record.life.stage = .creating
      record.life.replacing = true
      self[seat] = record
      send(.created(left), to: seat)
    }
    if let time = self[seat]?.missedSince {
      self[seat]?.missedSince = nil
      tellMissed(seat.app, since: time)
    }
  }

  private func scheduleRest(of limit: Duration, since start: WallTime, _ event: LifeEvent, _ seat: Seat) {
    let rest = limit - Clock.wall().since(start)
    schedule(event, after: max(.zero, rest), seat)
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
      for (seat, record) in beside {
        if record.unadopted != nil {
          beside[seat]?.life.want = Want(record.stored.want)
        } else if record.role == .next {
          send(.want(.running), to: seat)
        }
      }
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
