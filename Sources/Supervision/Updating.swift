internal import Linux
internal import Model
internal import Policies
internal import Storage

/// Carrying out updates. Whatever decides which policy is the applied one is one commit: a daemon that dies finds the update still
/// undecided, and goes on with it, or decided.
extension Supervisor {
  // MARK: What an update is told

  func update(_ seat: Seat, _ event: UpdateEvent) {
    guard var update = self[seat]?.update else { return }
    let effects = update.handle(event)
    self[seat]?.update = update
    for effect in effects { perform(effect, seat) }
  }

  /// Called after each change of a life: what it means for the update that this generation is part of.
  func watchUpdate(_ seat: Seat, _ event: LifeEvent, _ before: Life) {
    guard let record = self[seat], let update = record.update, update.verdict == nil else { return }
    lookAtUpdate(seat)
    // What ends because it is wanted so is no failure.
    guard before.want == .running, !before.replacing else { return }
    switch event {
    case .stepFailed(let failure) where before.isStarting && failure.kind != .unavailable:
      self.update(seat, .failed(nil, failure.message))
    case .exited(let report):
      guard let instance = before.stage.instance, before.preStart == nil || !report.succeeded else { return }
      let rests =
        switch record.current.restart {
        case .no, .onFailure: report.succeeded && before.endReason == nil
        case .always, .unlessStopped: false
        }
      let reason = "it ended: \(before.endReason ?? report.reason)"
      self.update(seat, rests ? .completed(instance.generation) : .failed(instance.generation, reason))
    case .unhealthy(let why):
      self.update(seat, .failed(before.stage.instance?.generation, "unhealthy: \(why)"))
    case .want, .replace, .admitted, .held, .prepared, .created, .started, .stepFailed, .releasedToStop, .graceOver,
      .killAgain, .killRequested, .runtimeOver, .cpuTimeOver, .ready, .nextRun, .due, .paused, .cleared, .clearFailed,
      .clearAgain, .backoffOver, .giveUp, .renew, .debug, .stepTimeOver:
      return
    }
  }

  /// Whether its new generation runs, and has proved itself.
  func lookAtUpdate(_ seat: Seat) {
    guard let record = self[seat], record.update?.verdict == nil, case .running(let instance, _, _) = record.life.stage,
      record.life.want == .running, !record.life.replacing
    else { return }
    let byTime = record.attendance?.monitor == nil && record.current.readiness == .started
    update(seat, .runs(instance.generation, byTime: byTime))
    if !byTime, isReady(record) { update(seat, .proven(instance.generation)) }
  }

  // MARK: Beginning

  /// How an app comes from what is applied to another policy.
  enum Way {
    /// As ever: what runs ends, and begins anew.
    case plain
    /// The same, and this is what is gone back to.
    case tracked(previous: StoredApp)
    /// The new one begins beside what runs.
    case beside
    /// It has begun already.
    case underWay
  }

  func way(_ old: AppRecord?, _ target: Target, _ change: AppliedChange, recreate: Bool) -> Way {
    guard let old, change == .replaced, old.unadopted == nil, old.life.want == .running, old.life.debug == nil
    else { return .plain }
    let isUp = if case .running = old.life.stage { !old.life.shouldStop } else { false }
    switch target.policy.update.order {
    case .startFirst:
      guard isUp else { return .plain }
      return !recreate && next(target.id)?.effective == target.canonical ? .underWay : .beside
    case .stopFirst:
      guard target.policy.update.failureAction != .continue, !recreate else { return .plain }
      // One that has not proved itself is nothing to go back to; what was before it is.
      if old.update != nil, let previous = old.previous {
        return previous.canonical == target.base.text ? .plain : .tracked(previous: previous)
      }
      return isUp ? .tracked(previous: old.stored) : .plain
    }
  }

  /// The rows that make `row` what the app is to become, beside what it is.
  func nextRow(_ row: StoredApp, _ old: AppRecord) -> StoredApp {
    var row = row
    row.generation = next(row.id)?.stored.generation ?? old.stored.generation
    row.uidSlot = old.stored.uidSlot
    return row
  }

  /// After `row` was stored as what the app is to become.
  func beginBeside(_ row: StoredApp, _ target: Target) {
    var row = row
    apps[row.id]?.updateFailure = nil
    // What runs has not proved itself and is the applied one all the same: its own update is over.
    if let present = apps[row.id], present.update != nil { endUpdate(present.seat) }
    if let waiting = next(row.id) {
      row.generation = max(row.generation, waiting.stored.generation)
      cancelUpdateTimers(waiting.seat)
      self[waiting.seat]?.stored = row
      self[waiting.seat]?.policy = target.policy
      self[waiting.seat]?.effective = target.canonical
      self[waiting.seat]?.update = Update(target.policy, after: lastRuns[row.id] ?? row.generation)
      update(waiting.seat, .begun)
      send(.replace, to: waiting.seat)
      send(.renew, to: waiting.seat)
      send(.want(.running), to: waiting.seat)
    } else {
      let record = nextRecord(row, target.policy, target.canonical)
      beside[record.seat] = record
      update(record.seat, .begun)
      send(.want(.running), to: record.seat)
    }
    save([tell("app.update_started", row.id, ["order": "start-first", "changes": .string(target.change.words)])])
  }

  /// A record of what an app is to become.
  func nextRecord(_ row: StoredApp, _ policy: Policy, _ canonical: String) -> AppRecord {
    let number = nextNumber
    nextNumber += 1
    var record = AppRecord(
      stored: row, number: number, role: .next, policy: policy, effective: canonical, life: Life(want: .stopped),
      runtime: runtime(for: policy), since: Clock.wall())
    record.update = Update(policy, after: row.generation)
    return record
  }

  /// After the new policy was stored as the applied one, and `previous` beside it.
  func beginTracked(_ id: AppID, previous: StoredApp, _ target: Target) {
    guard let record = apps[id] else { return }
    cancelUpdateTimers(record.seat)
    apps[id]?.previous = previous
    apps[id]?.update = Update(target.policy, after: record.stored.generation)
    update(record.seat, .begun)
    save([tell("app.update_started", id, ["order": "stop-first", "changes": .string(target.change.words)])])
  }

  /// Somebody wants something else of the app than its update does.
  func giveUpUpdate(_ id: AppID, because reason: String) {
    apps[id]?.updateFailure = nil
    if let waiting = next(id) { update(waiting.seat, .givenUp(reason)) }
    if let seat = apps[id]?.seat { update(seat, .givenUp(reason)) }
  }

  // MARK: Effects

  /// Returns at once while it has a process. One without has ended already: its host, or the engine, is about to say so, which may be
  /// long after a short `monitor`.
  private func hearOfItsEnd(_ seat: Seat) async {
    while case .running(let instance, _, _) = self[seat]?.life.stage, let host = host(seat),
      await host.processes(instance).isEmpty
    {
      do { try await Task.sleep(for: .milliseconds(50)) } catch { return }
    }
  }

  private func perform(_ effect: UpdateEffect, _ seat: Seat) {
    switch effect {
    case .after(let delay, let event):
      // Cancelled once the update is decided; one that fires too late meets an update that ignores it.
      let timer = Task {
        do { try await Task.sleep(for: delay) } catch { return }
        if case .stayed = event { await hearOfItsEnd(seat) }
        if !Task.isCancelled { update(seat, event) }
      }
      self[seat]?.updateTimers.append(timer)
    case .takeOver: Task { await takeOver(seat) }
    case .settle: settleUpdate(seat)
    case .withdraw(let reason): withdraw(seat, reason)
    case .restore(let reason): Task { await restore(seat, reason) }
    case .hold(let reason):
      endUpdate(seat)
      apps[seat.app]?.updateFailure = "the update was stopped at its failure: \(reason)"
      send(.giveUp(reason), to: seat)
      save([.removeUpdate(seat.app, .previous), tell("app.update_paused", seat.app, ["reason": .string(reason)])])
    case .goOn(let reason): save([tell("app.update_failed", seat, ["reason": .string(reason)])])
    }
  }

  private func cancelUpdateTimers(_ seat: Seat) {
    for timer in self[seat]?.updateTimers ?? [] { timer.cancel() }
    self[seat]?.updateTimers = []
  }

  private func endUpdate(_ seat: Seat) {
    cancelUpdateTimers(seat)
    self[seat]?.update = nil
    self[seat]?.previous = nil
  }

  /// The policy that is applied stays so.
  private func settleUpdate(_ seat: Seat) {
    let isProven = self[seat]?.update?.verdict == .proven
    endUpdate(seat)
    save(
      [.removeUpdate(seat.app, .previous)] + (isProven ? [tell("app.updated", seat.app, ["order": "stop-first"])] : []))
  }

  /// What was to become the app is ended; what the app is was never touched.
  private func withdraw(_ seat: Seat, _ reason: String) {
    guard self[seat]?.role == .next else { return }
    endUpdate(seat)
    let told = tell("app.update_rolled_back", seat, ["order": "start-first", "reason": .string(reason)])
    self[seat]?.role = .past
    self[seat]?.stored.want = .removed
    apps[seat.app]?.updateFailure = "the update was rolled back: \(reason)"
    let present = apps[seat.app]?.launch?.generation
    save([.removeUpdate(seat.app, .next), .seatInstances(seat.app, present: present), told])
    send(.want(.removed), to: seat)
  }

  /// Makes the new generation what the app is, and ends what it was.
  private func takeOver(_ seat: Seat) async {
    let id = seat.app
    await beginChange([id])
    defer { endChange([id]) }
    guard let new = self[seat], new.role == .next, new.update?.isAccepted == true, let old = apps[id] else { return }
    var row = new.stored
    row.want = old.stored.want
    let isProven = new.update?.verdict == .proven
    do throws(StorageFailure) {
      try await setup.store.commit(
        [
          .putApp(row), .removeUpdate(id, .next), .removeUpdate(id, .previous),
          .seatInstances(id, present: new.launch?.generation),
        ], durable: true)
    } catch { return withdraw(seat, "\(error)") }
    guard var now = self[seat], var past = apps[id] else {
      // Taken down meanwhile.
      return send(.want(.removed), to: seat)
    }
    now.role = .present
    now.stored.want = past.stored.want
    now.overrides = past.overrides
    now.ignoresDependencies = past.ignoresDependencies
    // What was set beside the file may have ended meanwhile.
    var isBehind = false
    if let (policy, canonical) = try? effective(Self.document(now.stored.canonical), now.overrides, id),
      canonical != now.effective
    {
      isBehind = plan(old: now.policy, new: policy).kind > .inPlace
      (now.policy, now.effective) = (policy, canonical)
    }
    past.role = .past
    past.stored.want = .removed
    past.alarm?.cancel()
    beside[seat] = nil
    apps[id] = now
    beside[past.seat] = past
    endUpdate(seat)
    // One that was created while the commit was under way was stored as what it was then.
    save(
      [.seatInstances(id, present: now.launch?.generation)]
        + (isProven ? [tell("app.updated", id, ["order": "start-first"])] : []))
    together {
      if now.stored.want != .running { send(.want(Want(now.stored.want)), to: seat) }
      send(.want(.removed), to: past.seat)
      if isBehind { send(.replace, to: seat) }
      carryOnAfterUpdate(id)
    }
    attend(seat)
    catchUp(id)
  }

  /// Puts the policy before this one in force again (`stop-first`).
  private func restore(_ seat: Seat, _ reason: String) async {
    let id = seat.app
    await beginChange([id])
    defer { endChange([id]) }
    guard let record = apps[id], record.number == seat.number, case .failed? = record.update?.verdict,
      var row = record.previous
    else { return }
    row.want = record.stored.want
    row.uidSlot = record.stored.uidSlot
    row.generation = record.stored.generation + 1
    do throws(OperationFailure) {
      let (policy, canonical) = try effective(Self.document(row.canonical), record.overrides, id)
      do throws(StorageFailure) {
        try await setup.store.commit([.putApp(row), .removeUpdate(id, .previous)], durable: true)
      } catch { throw .storage(error) }
      guard let present = apps[id], present.number == seat.number else { return }
      row.generation = max(row.generation, present.stored.generation)
      row.want = present.stored.want
      apps[id]?.stored = row
      apps[id]?.policy = policy
      apps[id]?.effective = canonical
      apps[id]?.updateFailure = "the update was rolled back: \(reason)"
      endUpdate(seat)
      save([tell("app.update_rolled_back", id, ["order": "stop-first", "reason": .string(reason)])])
      together {
        send(.replace, to: seat)
        send(.renew, to: seat)
      }
    } catch {
      endUpdate(seat)
      apps[id]?.updateFailure = "the update failed and could not be taken back: \(reason)"
      save([
        .removeUpdate(id, .previous),
        tell("app.update_failed", id, ["reason": .string("\(reason); it cannot be taken back: \(error)")]),
      ])
    }
  }
}
