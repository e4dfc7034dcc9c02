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
  case host(HostFailure)
}

extension Supervisor {
  /// The id blocks' number runs out here; a block is never shared.
  private static let maximumSlots: UInt32 = 32_000

  // MARK: Up

  /// Makes the given policies the applied ones and wants them all running. All are stored in one commit before anything changes:
  /// if that fails, everything stays as it was.
  package func apply(_ checked: [CheckedApp], origin: String, recreate: Bool = false) async throws(OperationFailure)
    -> [AppID: AppliedChange]
  {
    var rows: [StoredApp] = []
    var changes: [AppID: AppliedChange] = [:]
    for app in checked {
      let id = app.policy.id
      let old = apps[id]
      let same = old.map { plan(old: $0.policy, new: app.policy).kind == .none } == true && !recreate
      changes[id] =
        old == nil
        ? .created
        : same ? (old?.life.want == .running && old?.life.isAtRest == false ? .unchanged : .started) : .replaced
      rows.append(
        StoredApp(
          id: id, stack: app.policy.stack, origin: origin, file: app.file, folder: app.policy.baseFolder,
          canonical: app.canonical,
          want: .running, generation: old?.stored.generation ?? 0, uidSlot: slots[id] ?? freeSlot(besides: rows),
          artifact: same ? old?.stored.artifact ?? "" : ""))
    }
    do throws(StorageFailure) { try await setup.store.commit(rows.map { .putApp($0) }, durable: true) } catch {
      throw .storage(error)
    }
    // All are known before the first is woken: each finds what it depends on.
    for (row, app) in zip(rows, checked) { take(row, app.policy) }
    together {
      for row in rows {
        if changes[row.id] == .replaced { send(.replace, to: row.id) }
        send(.want(.running), to: row.id)
      }
    }
    return changes
  }

  private func freeSlot(besides rows: [StoredApp]) -> UInt32 {
    let taken = Set(slots.values).union(rows.map(\.uidSlot))
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

  /// Wants the apps so; the wish is stored before it is acted on.
  package func want(_ want: Want, _ ids: [AppID]) async throws(OperationFailure) {
    var rows: [StoredApp] = []
    for id in ids {
      guard var row = apps[id]?.stored else { throw .noSuchApp(id) }
      row.want = want == .running ? .running : .stopped
      rows.append(row)
    }
    do throws(StorageFailure) { try await setup.store.commit(rows.map { .putApp($0) }, durable: true) } catch {
      throw .storage(error)
    }
    together {
      for id in ids {
        apps[id]?.stored.want = want == .running ? .running : .stopped
        send(.want(want), to: id)
      }
    }
  }

  /// Ends what runs and starts it again, in dependency order; what rests is started.
  package func restart(_ ids: [AppID]) async throws(OperationFailure) {
    try await want(.running, ids)
    together { for id in ids { send(.replace, to: id) } }
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
