internal import Linux
internal import Logging
internal import Model
internal import Scheduling

extension Supervisor {
  // MARK: Restarts that carry over

  /// Restarts what depends on an app with `restart: true` when that app is restarted, whoever or whatever did it.
  func carryOn(_ id: AppID, _ before: Life, _ after: Life) {
    if after.replacing, !before.replacing, after.stage.instance != nil {
      // Dependents stop first, as at any stop.
      carry(id) { $0.condition != .completed }
    } else if case .clearing = before.stage, after.want == .running, after.isComingBack {
      carry(id) { $0.condition != .completed }
    } else if case .starting = before.stage, case .running(let instance, let facts, _) = after.stage,
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

  // MARK: Schedules

  /// Finds out when the next run is due, and begins it then.
  func armSchedule(_ id: AppID) {
    apps[id]?.alarm?.cancel()
    apps[id]?.alarm = nil
    guard let record = apps[id], let schedule = record.policy.schedule else { return }
    let next: WallTime?
    do throws(Zone.Problem) { next = try Self.next(schedule, after: Clock.wall()) } catch {
      save([tell("app.schedule_failed", id, ["reason": .string(error.description)])])
      return
    }
    send(.nextRun(next), to: id)
    guard let next else { return }
    apps[id]?.alarm = Task {
      do throws(SystemFault) { try await setup.alarms.wait(until: next) } catch {
        guard !Task.isCancelled else { return }
        setup.log.error("schedule.no_timer", metadata: ["reason": "\(error)"])
        return
      }
      guard !Task.isCancelled else { return }
      apps[id]?.alarm = nil
      // The clock may have been set meanwhile: then what is due is found out anew.
      if Clock.wall() < next { armSchedule(id) } else { send(.due, to: id) }
    }
  }

  private static func next(_ schedule: Schedule, after now: WallTime) throws(Zone.Problem) -> WallTime? {
    guard schedule.timezone != "UTC" else { return schedule.cron.next(after: now, in: .utc) }
    let bytes: [UInt8]
    do throws(SystemFault) {
      bytes = try File.read("/usr/share/zoneinfo/\(schedule.timezone)", limit: Zone.maximumBytes)
    } catch {
      throw Zone.Problem(description: "the time zone \(schedule.timezone) cannot be read: \(error)")
    }
    let zone = try Zone(bytes)
    return schedule.cron.next(after: now, in: zone)
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
