internal import Linux
internal import Model
internal import Policies
internal import Scheduling
internal import Storage

/// One app on its way from the policy that is applied to another.
struct Target {
  var id: AppID
  /// Without overrides, as its file says; what is stored.
  var base: JSONValue
  /// With overrides.
  var policy: Policy
  /// Its canonical document, with overrides.
  var canonical: String
  var change: Change
}

extension Supervisor {
  // MARK: One change of an app at a time

  /// Waits until nobody changes any of these apps, and keeps others from it until `endChange`.
  func beginChange(_ ids: Set<AppID>) async {
    while !changing.isDisjoint(with: ids) { await withCheckedContinuation { awaitingChange.append($0) } }
    changing.formUnion(ids)
  }

  func endChange(_ ids: Set<AppID>) {
    changing.subtract(ids)
    let waiting = awaitingChange
    awaitingChange = []
    for next in waiting { next.resume() }
  }

  // MARK: What a change needs

  /// What has to happen for an app to be as `new` says, as the runtime that it has, or gets, sees both.
  /// `moved`: what its image's name means by now, if that is another image than the one it was made from.
  /// `secrets`: the names of those whose content is another than it was given.
  func difference(_ record: AppRecord?, _ new: Policy, moved: String? = nil, secrets: [String] = []) -> Change {
    var change = difference(of: record, new)
    if let record, !secrets.isEmpty {
      let kind: Change.Kind = record.runtime == .native ? .restart : .recreate
      for name in secrets {
        change.fields.append(
          Change.Difference(key: "secrets.\(name)", old: "as it was given", new: "another content", kind: kind))
      }
      change.kind = max(change.kind, kind)
    }
    guard let moved, let record else { return change }
    change.fields.append(
      Change.Difference(
        key: "image", old: .string(shortID(record.stored.artifact)), new: .string(shortID(moved)),
        kind: .recreate))
    change.kind = max(change.kind, .recreate)
    return change
  }

  private func difference(of record: AppRecord?, _ new: Policy) -> Change {
    guard let record else { return plan(old: nil, new: new) }
    guard record.policy.runtime == new.runtime else { return plan(old: record.policy, new: new) }
    let change = plan(old: placed(record.policy, record.runtime), new: placed(new, record.runtime))
    // A field that this runtime has no use for still differs.
    return change.kind == .none ? plan(old: record.policy, new: new) : change
  }

  // MARK: While it runs

  /// A change of a running instance that its host made, and that can be taken back.
  private struct Done {
    var instance: Instance
    var old: Launch
    var new: Launch
    var host: any AppHost
  }

  /// Brings in-place changes into force on what runs and stores `rows` with them: all of it, or nothing. Whoever calls has begun the
  /// change of these apps.
  func carryOut(_ targets: [Target], storing rows: [StorageChange]) async throws(OperationFailure) {
    var done: [Done] = []
    var changes = rows
    do throws(OperationFailure) {
      for target in targets where target.change.kind == .inPlace {
        try checkRoom(target)
        guard let step = try await changeLive(target) else { continue }
        done.append(step)
        changes.append(
          .setInstancePolicy(target.id, generation: step.instance.generation, canonical: target.canonical))
      }
      do throws(StorageFailure) { try await setup.store.commit(changes, durable: true) } catch {
        throw .storage(error)
      }
    } catch {
      await takeBack(done)
      throw error
    }
    for step in done { settled(step.instance, step.old, step.new) }
  }

  /// Nil: nothing of it runs, or no host has anything to do.
  private func changeLive(_ target: Target) async throws(OperationFailure) -> Done? {
    guard let record = apps[target.id], let launch = record.launch, let host = setup.hosts[record.runtime],
      let instance = record.life.stage.instance, record.life.stage.facts != nil
    else { return nil }
    var new = launch
    new.policy = placed(target.policy, record.runtime)
    guard plan(old: launch.policy, new: new.policy).kind == .inPlace else { return nil }
    do throws(HostFailure) { try await host.change(instance, from: launch, to: new) } catch {
      // What has ended begins again with the new policy.
      guard error.kind != .missing else { return nil }
      throw .host(error)
    }
    return Done(instance: instance, old: launch, new: new, host: host)
  }

  private func takeBack(_ done: [Done]) async {
    for step in done.reversed() {
      do throws(HostFailure) { try await step.host.change(step.instance, from: step.new, to: step.old) } catch {
        guard error.kind != .missing else { continue }
        apps[step.instance.app]?.behind = error.message
        save([tell("app.change_failed", step.instance.app, ["reason": .string(error.description)])])
      }
    }
  }

  /// The instance runs by its new policy from here on.
  private func settled(_ instance: Instance, _ old: Launch, _ new: Launch) {
    guard let seat = apps[instance.app]?.seat, apps[instance.app]?.life.stage.instance == instance else { return }
    apps[instance.app]?.launch = new
    apps[instance.app]?.behind = nil
    save([
      tell("app.changed", instance.app, ["changes": .string(plan(old: old.policy, new: new.policy).words)])
    ])
    watchAnew(instance.app, old.policy, new.policy)
    guard old.policy.limits.maximumRuntime != new.policy.limits.maximumRuntime,
      let started = apps[instance.app]?.life.stage.facts?.startedAt
    else { return }
    // The only timers of a running app are those that end its run.
    for timer in apps[instance.app]?.timers.values ?? [:].values { timer.cancel() }
    apps[instance.app]?.timers = [:]
    guard let limit = new.policy.limits.maximumRuntime, limit > .zero else { return }
    schedule(.runtimeOver, after: max(.zero, limit - Clock.wall().since(started)), seat)
  }

  /// What watches the run does so by the policy it began with.
  private func watchAnew(_ id: AppID, _ old: Policy, _ new: Policy) {
    guard old.limits.maximumCPUTime != new.limits.maximumCPUTime || old.healthcheck != new.healthcheck else { return }
    apps[id]?.attendance?.end()
    apps[id]?.attendance = nil
    if let seat = apps[id]?.seat { attend(seat) }
  }

  /// More memory than there is to promise is not promised.
  private func checkRoom(_ target: Target) throws(OperationFailure) {
    guard let record = apps[target.id], record.life.stage.facts != nil else { return }
    let more = Demand(target.policy)
    guard more.memory > Demand(record.current).memory else { return }
    var room = room(without: target.id)
    if case .pending(let reason) = room.admit(more) {
      throw .host(
        HostFailure(
          .refused, "the limits of \(target.id) stay as they were: \(reason)",
          hint: "give it less, or stop what holds the memory"))
    }
  }

  // MARK: What was changed while nothing could be done about it

  /// Brings a run that has just begun, or was just taken over, to the policy that is applied now, if that needs no new one.
  func catchUp(_ id: AppID) {
    guard needsCatchingUp(id) else { return }
    // Ends with the host's answer.
    Task {
      await beginChange([id])
      defer { endChange([id]) }
      guard needsCatchingUp(id), let record = apps[id] else { return }
      let target = Target(
        id: id, base: .null, policy: record.policy, canonical: record.effective,
        change: Change(kind: .inPlace, fields: []))
      do throws(OperationFailure) { try await carryOut([target], storing: []) } catch {
        let reason =
          switch error {
          case .host(let failure): failure.description
          case .storage(let failure), .stopNotStored(let failure): failure.description
          case .noSuchApp, .notRunning, .invalid: "it does not run"
          }
        apps[id]?.behind = reason
        save([tell("app.change_failed", id, ["reason": .string(reason)])])
      }
    }
  }

  private func needsCatchingUp(_ id: AppID) -> Bool {
    guard let record = apps[id], let launch = record.launch, case .running = record.life.stage, !record.life.shouldStop
    else { return false }
    return plan(old: launch.policy, new: placed(record.policy, record.runtime)).kind == .inPlace
  }
}
