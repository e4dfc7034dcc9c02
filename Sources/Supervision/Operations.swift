internal import Health
internal import Linux
package import Model
internal import Policies
package import Storage

/// What `up` did, or would do, to one app.
package enum AppliedChange: String, Sendable {
  case created, replaced, started, unchanged
  /// Changed while it runs.
  case updated
}

/// Why an operator's request was not carried out.
package enum OperationFailure: Error, Sendable {
  case noSuchApp(AppID)
  case notRunning(AppID)
  case storage(StorageFailure)
  /// The apps are being stopped, but the next daemon will not know.
  case stopNotStored(StorageFailure)
  case host(HostFailure)
  /// What was asked for is no policy; nothing was changed.
  case invalid(String, hint: String?)
}

extension Supervisor {
  /// The id blocks' number runs out here; a block is never shared.
  private static let maximumSlots: UInt32 = 32_000

  // MARK: Up

  /// Makes the given policies the applied ones and wants them all running. All are stored in one commit: before it what can change
  /// in place is brought into force on what runs, after it the rest is woken. If any of that fails, everything stays as it was.
  ///
  /// `keepWants`: an app that is known and stopped stays stopped.
  /// `isAtRest`: none is started.
  package func apply(
    _ checked: [CheckedApp], origin: String, recreate: Bool = false, noDependencies: Bool = false,
    keepWants: Bool = false, isAtRest: Bool = false
  ) async throws(OperationFailure) -> [AppID: AppliedChange] {
    let ids = Set(checked.map(\.policy.id))
    await beginChange(ids)
    defer { endChange(ids) }
    try beginRuns(checked, origin)
    defer { if let left = beginning[origin] { beginning[origin] = left > checked.count ? left - checked.count : nil } }
    var rows: [StoredApp] = []
    var targets: [Target] = []
    var changes: [AppID: AppliedChange] = [:]
    let moved = await movedImages(checked)
    let secrets = await changedSecrets(checked)
    for app in checked {
      let id = app.policy.id
      let old = apps[id]
      let base = Self.document(app.canonical)
      let overrides = old?.overrides ?? []
      let (policy, canonical) = overrides.isEmpty ? (app.policy, app.canonical) : try effective(base, overrides, id)
      let change = difference(old, policy, moved: moved[id], secrets: secrets[id] ?? [])
      targets.append(Target(id: id, base: base, policy: policy, canonical: canonical, change: change))
      let want: StoredApp.Want = isAtRest ? .stopped : keepWants ? old?.stored.want ?? .running : .running
      changes[id] = Self.applied(old, change, recreate: recreate, want)
      rows.append(
        row(
          app, old, want, changes[id] ?? .created, origin: origin, keepsArtifact: change.kind <= .inPlace && !recreate))
    }
    var newSlots: [AppID] = []
    // Taken before anything is awaited: two requests at once never get the same block.
    for index in rows.indices {
      rows[index].uidSlot = slots[rows[index].id] ?? freeSlot()
      if slots.updateValue(rows[index].uidSlot, forKey: rows[index].id) == nil { newSlots.append(rows[index].id) }
    }
    let needed = noDependencies ? [] : stoppedDependencies(of: checked)
    let ways = zip(rows, targets).map { row, target in
      row.want == .running ? way(apps[row.id], target, changes[row.id] ?? .unchanged, recreate: recreate) : .plain
    }
    do throws(OperationFailure) {
      try await carryOut(
        recreate ? [] : targets.filter { changes[$0.id] == .updated },
        storing: zip(rows, ways).flatMap { storing($0, $1, changes[$0.id]) } + needed.map { .putApp($0) })
    } catch {
      for id in newSlots where apps[id] == nil { slots[id] = nil }
      throw error
    }
    // All are known before the first is woken: each finds what it depends on.
    for (row, (target, way)) in zip(rows, zip(targets, ways)) {
      switch way {
      case .beside, .underWay: continue
      case .tracked: if let waiting = next(row.id) { update(waiting.seat, .givenUp("another policy was applied")) }
      case .plain:
        if changes[row.id] == .replaced || next(row.id) != nil {
          giveUpUpdate(row.id, because: "another policy was applied")
        }
      }
      take(row, target)
      apps[row.id]?.updateFailure = nil
      apps[row.id]?.ignoresDependencies = noDependencies
    }
    together {
      for row in needed {
        apps[row.id]?.stored.want = .running
        send(.want(.running), to: row.id)
      }
      for (row, (target, way)) in zip(rows, zip(targets, ways)) {
        switch way {
        case .beside:
          if let old = apps[row.id] { beginBeside(nextRow(row, old), target) }
          continue
        case .underWay: continue
        case .tracked(let previous): beginTracked(row.id, previous: previous, target)
        case .plain: break
        }
        if changes[row.id] == .replaced { send(.replace, to: row.id) }
        send(.want(Want(row.want)), to: row.id)
        catchUp(row.id)
      }
    }
    return changes
  }

  /// What makes `row` the applied policy, or what the app is to become.
  private func storing(_ row: StoredApp, _ way: Way, _ change: AppliedChange?) -> [StorageChange] {
    switch way {
    case .plain:
      [.putApp(row), .removeUpdate(row.id, .next)] + (change == .replaced ? [.removeUpdate(row.id, .previous)] : [])
    case .underWay: []
    case .tracked(let previous): [.putApp(row), .putUpdate(StoredUpdate(role: .previous, app: previous))]
    case .beside:
      apps[row.id].map { [.putUpdate(StoredUpdate(role: .next, app: nextRow(row, $0)))] } ?? [.putApp(row)]
    }
  }

  /// What `up` does to an app that is known as `old`.
  private static func applied(_ old: AppRecord?, _ change: Change, recreate: Bool, _ want: StoredApp.Want)
    -> AppliedChange
  {
    guard let old else { return .created }
    if recreate { return .replaced }
    // The new policy may have another schedule.
    if case .scheduled = old.life.stage, change.kind != .none { return .replaced }
    let isUp = old.life.want == .running && !old.life.isAtRest
    switch change.kind {
    case .none, .start: return isUp || want != .running ? .unchanged : .started
    case .inPlace: return isUp || want != .running ? .updated : .started
    case .restart, .recreate, .create, .remove: return .replaced
    }
  }

  private func row(
    _ app: CheckedApp, _ old: AppRecord?, _ want: StoredApp.Want, _ change: AppliedChange, origin: String,
    keepsArtifact: Bool
  ) -> StoredApp {
    let anew = old.map { change == .replaced || (want == .running && beginsAnew($0)) } ?? false
    return StoredApp(
      id: app.policy.id, stack: app.policy.stack, origin: origin, file: app.file, folder: app.policy.baseFolder,
      canonical: app.canonical, want: want, generation: (old?.stored.generation ?? 0) + (anew ? 1 : 0), uidSlot: 0,
      artifact: keepsArtifact ? old?.stored.artifact ?? "" : "")
  }

  /// Apps that are loaded, stopped, and needed by these, directly or through others: wanted running from now on.
  private func stoppedDependencies(of checked: [CheckedApp]) -> [StoredApp] {
    var found: [AppID: StoredApp] = [:]
    var open = checked.flatMap(\.policy.dependencies).map(\.app)
    let given = Set(checked.map(\.policy.id))
    while let id = open.popLast() {
      guard !given.contains(id), found[id] == nil, let record = apps[id], record.stored.want != .running else {
        continue
      }
      var row = record.stored
      row.want = .running
      found[id] = row
      open += record.policy.dependencies.map(\.app)
    }
    return found.values.sorted { $0.id < $1.id }
  }

  /// Whether wanting it to run asks for another run. One that could not be looked for yet may be running.
  private func beginsAnew(_ record: AppRecord) -> Bool { record.unadopted == nil && record.life.wouldBeginAnew }

  private func freeSlot() -> UInt32 {
    let taken = Set(slots.values)
    return (0..<Self.maximumSlots).first { !taken.contains($0) } ?? Self.maximumSlots
  }

  private func take(_ row: StoredApp, _ target: Target) {
    let policy = target.policy
    slots[row.id] = row.uidSlot
    guard var record = apps[row.id] else {
      apps[row.id] = AppRecord(
        stored: row, policy: policy, effective: target.canonical, life: Life(want: .stopped),
        runtime: runtime(for: policy),
        since: Clock.wall())
      return
    }
    // A generation given out while the commit was under way must not be given out twice.
    let generation = max(row.generation, record.stored.generation)
    record.stored = row
    record.stored.generation = generation
    record.policy = policy
    record.effective = target.canonical
    if record.life.stage.instance == nil, record.launch == nil { record.runtime = runtime(for: policy) }
    apps[row.id] = record
  }

  /// The runtime a policy gets here: its own, or its fallback where no engine is to be had.
  func runtime(for policy: Policy) -> Runtime {
    guard policy.runtime == .container, setup.hosts[.container] == nil, policy.fallback == .native else {
      return policy.runtime
    }
    return .native
  }

  /// Apps last loaded from `origin` that are not among `kept`.
  package func orphans(of origin: String, keeping kept: Set<AppID>) -> [AppID] {
    apps.values.filter { $0.stored.origin == origin && !kept.contains($0.stored.id) }.map(\.stored.id).sorted()
  }

  /// What the origin of runs of a template begins with; its id follows.
  package static let runsOf = "run:"

  /// Refuses more runs of a template than it says, those included that are only about to be known.
  private func beginRuns(_ checked: [CheckedApp], _ origin: String) throws(OperationFailure) {
    guard origin.hasPrefix(Self.runsOf), let most = checked.map(\.policy.maximumInstances).min() else { return }
    let ids = Set(checked.map(\.policy.id))
    let going = apps.values.count { $0.stored.origin == origin && !$0.life.isAtRest && !ids.contains($0.stored.id) }
    let all = going + beginning[origin, default: 0]
    guard all + checked.count <= Int(most) else {
      let name = origin.dropFirst(Self.runsOf.count)
      throw .host(
        HostFailure(
          .conflict,
          "\(all) \(all == 1 ? "run" : "runs") of \(name) go on, as many as `instances: {max: \(most)}` allows",
          hint: "wait until one has ended (`supervisor ps`), or raise `instances`"))
    }
    beginning[origin, default: 0] += checked.count
  }

  // MARK: Wishes

  /// Wants the apps so; the wish is stored before it is acted on. A stop goes on also where it cannot be stored, which is then
  /// told: a full disk must not keep anything running.
  /// `grace` takes the place of the policies' `stop_grace_period` this once.
  package func want(_ want: Want, _ ids: [AppID], grace: Duration? = nil) async throws(OperationFailure) {
    try await wish(want, ids, anew: false, grace)
  }

  /// Ends what runs and starts it again, in dependency order; what rests is started.
  package func restart(_ ids: [AppID], grace: Duration? = nil) async throws(OperationFailure) {
    try await wish(.running, ids, anew: true, grace)
  }

  private func wish(_ want: Want, _ ids: [AppID], anew: Bool, _ grace: Duration?) async throws(OperationFailure) {
    let stored = StoredApp.Want(want)
    let ids = want == .running ? ids : ids + ids.flatMap { runsBeside($0) }.filter { !ids.contains($0) }
    var generations: [(id: AppID, generation: UInt64)] = []
    for id in ids {
      guard let record = apps[id] else { throw .noSuchApp(id) }
      let isNew = want == .running && (anew || beginsAnew(record))
      generations.append((id, record.stored.generation + (isNew ? 1 : 0)))
    }
    var unstored: OperationFailure?
    let changes = generations.map { StorageChange.setWant($0.id, stored, generation: $0.generation) }
    do throws(StorageFailure) { try await setup.store.commit(changes) } catch {
      guard want == .stopped else { throw .storage(error) }
      unstored = .stopNotStored(error)
    }
    together {
      for (id, generation) in generations {
        guard let present = apps[id]?.stored.generation else { continue }
        apps[id]?.updateFailure = nil
        if want != .running { giveUpUpdate(id, because: want == .removed ? "it was taken down" : "it was stopped") }
        apps[id]?.stored.want = stored
        apps[id]?.stored.generation = max(present, generation)
        apps[id]?.life.grace = grace
        // Being stopped already: at most this long from now on.
        if let grace, case .stopping = apps[id]?.life.stage {
          schedule(.graceOver, after: grace, Seat(app: id, number: apps[id]?.number ?? 0))
        }
        var isWaiting = false
        if case .scheduled = apps[id]?.life.stage { isWaiting = want == .running }
        send(.want(want), to: id)
        // Who starts an app that waits for its next run means now.
        if isWaiting { send(.due, to: id) } else if anew { send(.replace, to: id) }
      }
    }
    if let unstored { throw unstored }
    // The next daemon knows it already; here the disk does, while the apps are on their way.
    do throws(StorageFailure) { try await setup.store.sync() } catch {
      throw want == .stopped ? .stopNotStored(error) : .storage(error)
    }
  }

  /// Sends a signal; SIGKILL goes to every process of the app.
  package func signal(_ number: Int32, _ ids: [AppID]) async throws(OperationFailure) {
    for id in ids {
      guard let record = apps[id] else { throw .noSuchApp(id) }
      guard let instance = record.life.stage.instance, record.life.stage.facts != nil,
        let host = setup.hosts[record.runtime]
      else {
        throw .notRunning(id)
      }
      do throws(HostFailure) {
        if number == 9 { try await host.kill(instance) } else { try await host.signal(instance, number) }
      } catch { throw .host(error) }
    }
  }

  /// Kills every process of a running instance, whose run then counts as ended with `code`.
  package func end(_ instance: Instance, code: Int32) async throws(OperationFailure) {
    guard let seat = seat(of: instance), let record = self[seat], let host = setup.hosts[record.runtime],
      let present = record.life.stage.instance, record.life.stage.facts != nil
    else { throw .notRunning(instance.app) }
    self[seat]?.ownEnd = (present, code)
    do throws(HostFailure) { try await host.kill(present) } catch { throw .host(error) }
  }

  /// Kills what is being stopped at once, without waiting out its grace time.
  package func hurry(_ ids: [AppID]) {
    for id in ids {
      if case .stopping = apps[id]?.life.stage { send(.killRequested, to: id) }
    }
  }

  package func setPaused(_ paused: Bool, _ ids: [AppID]) async throws(OperationFailure) {
    for id in ids {
      guard let record = apps[id] else { throw .noSuchApp(id) }
      guard case .running(let instance, _, let before) = record.life.stage, let host = setup.hosts[record.runtime]
      else { throw .notRunning(id) }
      guard before != paused else { continue }
      do throws(HostFailure) { try await host.setPaused(instance, paused) } catch { throw .host(error) }
      send(.paused(paused), to: id)
    }
  }

  /// Gives back the id block of an app whose data was removed.
  package func releaseIDs(_ id: AppID) {
    guard apps[id] == nil else { return }
    slots[id] = nil
    save([.releaseIDs(id)])
  }

  // MARK: Waiting

  /// How far an app has come towards what it is wanted to be.
  package enum Progress: Sendable, Equatable {
    case underWay
    case done
    /// It will not get there without help: why.
    case stuck(String)
  }

  /// `untilReady`: a running app is there only once it is ready and healthy.
  package func progress(of id: AppID, untilReady: Bool = false) -> Progress {
    guard let record = apps[id] else { return .done }
    if record.life.want != .running {
      if record.life.isAtRest, record.life.want == .stopped || others(id).isEmpty { return .done }
      // Its processes were killed through the kernel; the rest is for a runtime that may be away for long.
      for one in [record] + others(id) {
        switch one.life.stage {
        case .killing, .clearing:
          if let why = trouble[one.runtime] { return .stuck("\(why); it goes on when that answers again") }
        default: break
        }
      }
      return .underWay
    }
    if next(id) != nil || untilReady && record.update != nil { return .underWay }
    if let failure = record.updateFailure { return .stuck(failure) }
    switch record.life.stage {
    case .running: return record.life.shouldStop || untilReady && !isReady(record) ? .underWay : .done
    case .resting:
      if let failure = record.life.failure { return .stuck(failure) }
      // It was to become ready, and never will.
      let exit = untilReady && record.policy.readiness != .started ? record.life.lastExit : nil
      if let exit, !exit.succeeded { return .stuck("it ended: \(exit.reason)") }
      return .done
    case .scheduled: return .done
    case .waiting:
      guard let closed = hindrance(record), closed.isFinal else { return .underWay }
      return .stuck(closed.reason)
    case .preparing, .creating, .starting, .preStarting, .stopping, .killing, .clearing, .backoff: return .underWay
    }
  }

  /// Whether it counts as ready and, if it is checked, is healthy.
  func isReady(_ record: AppRecord) -> Bool {
    record.life.isReady && record.attendance?.monitor.map { $0.word == .healthy } ?? true
  }
}

extension StoredApp.Want {
  init(_ want: Want) {
    self =
      switch want {
      case .running: .running
      case .stopped: .stopped
      case .removed: .removed
      }
  }
}

extension Want {
  init(_ stored: StoredApp.Want) {
    self =
      switch stored {
      case .running: .running
      case .stopped: .stopped
      case .removed: .removed
      }
  }
}
