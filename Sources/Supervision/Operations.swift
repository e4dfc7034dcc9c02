internal import Linux
package import Model
internal import Policies
package import Storage

/// What `up` did, or would do, to one app.
package enum AppliedChange: String, Sendable {
  case created, replaced, started, unchanged
}

/// Why an operator's request was not carried out.
package enum OperationFailure: Error, Sendable {
  case noSuchApp(AppID)
  case notRunning(AppID)
  case storage(StorageFailure)
  /// The apps are being stopped, but the next daemon will not know.
  case stopNotStored(StorageFailure)
  case host(HostFailure)
}

extension Supervisor {
  /// The id blocks' number runs out here; a block is never shared.
  private static let maximumSlots: UInt32 = 32_000

  // MARK: Up

  /// Makes the given policies the applied ones and wants them all running. All are stored in one commit before anything
  /// changes: if that fails, everything stays as it was.
  package func apply(
    _ checked: [CheckedApp], origin: String, recreate: Bool = false, noDependencies: Bool = false
  ) async throws(OperationFailure) -> [AppID: AppliedChange] {
    var rows: [StoredApp] = []
    var changes: [AppID: AppliedChange] = [:]
    var newSlots: [AppID] = []
    for app in checked {
      let id = app.policy.id
      let old = apps[id]
      let same = old.map { plan(old: $0.policy, new: app.policy).kind == .none } == true && !recreate
      changes[id] =
        old == nil
        ? .created
        : same ? (old?.life.want == .running && old?.life.isAtRest == false ? .unchanged : .started) : .replaced
      // Taken before anything is awaited: two requests at once never get the same block.
      let slot = slots[id] ?? freeSlot()
      if slots.updateValue(slot, forKey: id) == nil { newSlots.append(id) }
      let anew = old.map { changes[id] == .replaced || beginsAnew($0) } ?? false
      rows.append(
        StoredApp(
          id: id, stack: app.policy.stack, origin: origin, file: app.file, folder: app.policy.baseFolder,
          canonical: app.canonical,
          want: .running, generation: (old?.stored.generation ?? 0) + (anew ? 1 : 0), uidSlot: slot,
          artifact: same ? old?.stored.artifact ?? "" : ""))
    }
    let needed = noDependencies ? [] : stoppedDependencies(of: checked)
    do throws(StorageFailure) {
      try await setup.store.commit((rows + needed).map { .putApp($0) }, durable: true)
    } catch {
      for id in newSlots where apps[id] == nil { slots[id] = nil }
      throw .storage(error)
    }
    // All are known before the first is woken: each finds what it depends on.
    for (row, app) in zip(rows, checked) {
      take(row, app.policy)
      apps[row.id]?.ignoresDependencies = noDependencies
    }
    together {
      for row in needed {
        apps[row.id]?.stored.want = .running
        send(.want(.running), to: row.id)
      }
      for row in rows {
        if changes[row.id] == .replaced { send(.replace, to: row.id) }
        send(.want(.running), to: row.id)
      }
    }
    return changes
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

  private func take(_ row: StoredApp, _ policy: Policy) {
    slots[row.id] = row.uidSlot
    guard var record = apps[row.id] else {
      apps[row.id] = AppRecord(
        stored: row, policy: policy, life: Life(want: .stopped), runtime: runtime(for: policy), since: Clock.wall())
      return
    }
    // A generation given out while the commit was under way must not be given out twice.
    let generation = max(row.generation, record.stored.generation)
    record.stored = row
    record.stored.generation = generation
    record.policy = policy
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

  // MARK: Wishes

  /// Wants the apps so; the wish is stored before it is acted on. A stop goes on also where it cannot be stored, which is then
  /// told: a full disk must not keep anything running.
  package func want(_ want: Want, _ ids: [AppID]) async throws(OperationFailure) {
    try await wish(want, ids, anew: false)
  }

  /// Ends what runs and starts it again, in dependency order; what rests is started.
  package func restart(_ ids: [AppID]) async throws(OperationFailure) { try await wish(.running, ids, anew: true) }

  private func wish(_ want: Want, _ ids: [AppID], anew: Bool) async throws(OperationFailure) {
    let stored = StoredApp.Want(want)
    var generations: [(id: AppID, generation: UInt64)] = []
    for id in ids {
      guard let record = apps[id] else { throw .noSuchApp(id) }
      let isNew = want == .running && (anew || beginsAnew(record))
      generations.append((id, record.stored.generation + (isNew ? 1 : 0)))
    }
    var unstored: OperationFailure?
    do throws(StorageFailure) {
      try await setup.store.commit(
        generations.map { .setWant($0.id, stored, generation: $0.generation) }, durable: true)
    } catch {
      guard want == .stopped else { throw .storage(error) }
      unstored = .stopNotStored(error)
    }
    together {
      for (id, generation) in generations {
        guard let present = apps[id]?.stored.generation else { continue }
        apps[id]?.stored.want = stored
        apps[id]?.stored.generation = max(present, generation)
        send(.want(want), to: id)
        if anew { send(.replace, to: id) }
      }
    }
    if let unstored { throw unstored }
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

  package func progress(of id: AppID) -> Progress {
    guard let record = apps[id] else { return .done }
    if record.life.want != .running { return record.life.isAtRest ? .done : .underWay }
    switch record.life.stage {
    case .running: return record.life.shouldStop ? .underWay : .done
    case .resting: return record.life.failure.map { .stuck($0) } ?? .done
    case .waiting, .preparing, .creating, .starting, .stopping, .killing, .clearing, .backoff: return .underWay
    }
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
