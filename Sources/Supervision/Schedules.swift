internal import Linux
internal import Logging
internal import Model
internal import Policies
internal import Scheduling
internal import Storage

extension Supervisor {
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
    if record.dueStored != next {
      apps[id]?.dueStored = next
      save([.setDue(id, next)])
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

  // MARK: Runs that were missed

  /// More than so many are not counted.
  private static let mostMissed = 1000

  /// Tells which runs were due between `due` and now, while no supervisor ran; nothing of them is made up for but one run, where the
  /// policy says so (`missed: run`; systemd.timer(5) has it as Persistent=).
  func tellMissed(_ id: AppID, since due: WallTime) {
    guard let record = apps[id], let schedule = record.policy.schedule, record.stored.want == .running else { return }
    let now = Clock.wall()
    var count = 0
    var last = due
    var next: WallTime? = due
    while let time = next, time <= now, count < Self.mostMissed {
      count += 1
      last = time
      // best effort: a zone that cannot be read is told where the next run is looked for.
      next = (try? Self.next(schedule, after: time)) ?? nil
    }
    guard count > 0 else { return }
    let makesUp = schedule.missed == .run
    save([
      tell(
        "schedule.missed", id,
        [
          "count": .count(count), "first": .integer(due.nanoseconds), "last": .integer(last.nanoseconds),
          "run": .bool(makesUp),
        ])
    ])
    if makesUp { send(.due, to: id) }
  }

  // MARK: Runs beside each other

  static func origin(ofRunsBeside id: AppID) -> String { "schedule:\(id)" }

  private func beside(_ id: AppID) -> [AppRecord] {
    let origin = Self.origin(ofRunsBeside: id)
    return apps.values.filter { $0.stored.origin == origin }.sorted { $0.stored.id < $1.stored.id }
  }

  /// The apps that hold runs of `id` beside its own.
  func runsBeside(_ id: AppID) -> [AppID] { beside(id).map(\.stored.id) }

  /// Begins a run beside those that go on: as an app of its own, with the same policy but what only one can have, which is used again
  /// for the next run when this one has ended.
  func runBeside(_ id: AppID) async {
    guard let record = apps[id] else { return }
    let all = beside(id)
    let going = 1 + all.count { !$0.life.isAtRest }
    guard going < Int(record.policy.maximumInstances) else {
      save([
        tell(
          "app.due", id,
          [
            "skipped": true,
            "reason": .string(
              "\(going) runs go on, as many as `instances: {max: \(record.policy.maximumInstances)}` allows"),
          ])
      ])
      return
    }
    var document = Self.document(record.effective).objectValue ?? JSONObject()
    for key in ["ports", "schedule", "template", "hostname", "instances"] { document[key] = nil }
    var name = all.first { $0.life.isAtRest }?.stored.id
    var number = 1
    while name == nil, number < 1000 {
      number += 1
      let next = AppID("\(String(id.name.prefix(58)))-\(number)")
      if let next, apps[next] == nil { name = next }
    }
    guard let name else { return }
    document["id"] = .string(name.name)
    do throws(OperationFailure) {
      let (policy, canonical) = try effective(.object(document), [], name)
      let run = CheckedApp(policy: policy, canonical: canonical, file: record.stored.file)
      _ = try await apply([run], origin: Self.origin(ofRunsBeside: id))
      save([tell("app.due", id, ["beside": .string(name.name)])])
    } catch {
      save([tell("app.due", id, ["skipped": true, "reason": .string("a run beside it cannot begin: \(error)")])])
    }
  }

  /// With an app go its runs.
  func forgetBeside(_ id: AppID) {
    let others = runsBeside(id)
    guard !others.isEmpty else { return }
    // Ends once that is stored.
    Task {
      do throws(OperationFailure) { try await want(.removed, others) } catch {
        save([tell("app.host_refused", id, ["reason": .string("\(error)")])])
      }
    }
  }
}
