internal import Linux
internal import Logging
internal import Model
internal import Storage

/// Carrying out what a life asks for; each step's outcome comes back as an event.
extension Supervisor {
  func perform(_ effect: Effect, _ id: AppID) {
    switch effect {
    case .prepare: prepare(id)
    case .cancelPrepare: apps[id]?.preparing?.cancel()
    case .create: create(id)
    case .start(let instance): start(instance)
    case .signal(let instance, let number, let thaw):
      onHost(instance) { (host) throws(HostFailure) in
        if thaw { try await host.setPaused(instance, false) }
        try await host.signal(instance, number)
      }
    case .kill(let instance): onHost(instance) { (host) throws(HostFailure) in try await host.kill(instance) }
    case .clear(let instance): clear(instance)
    case .after(let delay, let event): schedule(event, after: delay, id)
    case .cancelTimers:
      for timer in apps[id]?.timers.values ?? [:].values { timer.cancel() }
      apps[id]?.timers = [:]
    case .armSchedule: armSchedule(id)
    // Ends with what it began.
    case .runBeside: Task { await runBeside(id) }
    case .debugOver(let end): apps[id]?.debugger?.finish(end)
    case .keepRest:
      guard var rest = apps[id]?.savedRest, let generation = apps[id]?.stored.generation else { return }
      rest.generation = generation
      apps[id]?.savedRest = rest
      save([.putRest(rest)])
    case .outdate:
      guard let generation = apps[id].map({ $0.stored.generation + 1 }) else { return }
      apps[id]?.stored.generation = generation
      save([.setGeneration(id, generation)])
    case .record(let name, let fields): save([tell(name, id, fields)] + restChange(id))
    case .forget: forget(id)
    }
  }

  /// The change that stores how an app rests, if that is news. An exit or a failure belongs to the generation that is there as it
  /// becomes known.
  private func restChange(_ id: AppID) -> [StorageChange] {
    guard let record = apps[id] else { return [] }
    let life = record.life
    let saved = record.savedRest
    let isNews = life.lastExit != saved?.exit || (life.failure != nil && life.failure != saved?.failure)
    let rest = StoredRest(
      app: id, exit: life.lastExit, failure: life.failure, restarts: life.restarts,
      generation: isNews ? record.launch?.generation ?? record.stored.generation : saved?.generation ?? 0)
    guard rest != saved else { return [] }
    apps[id]?.savedRest = rest
    return [.putRest(rest)]
  }

  func schedule(_ event: LifeEvent, after delay: Duration, _ id: AppID) {
    let number = nextNumber
    nextNumber += 1
    // Cancelled by `.cancelTimers`; one that fires too late meets a stage that ignores it.
    apps[id]?.timers[number] = Task {
      do { try await Task.sleep(for: delay) } catch { return }
      apps[id]?.timers[number] = nil
      send(event, to: id)
    }
  }

  private func host(_ id: AppID) -> (any AppHost)? { apps[id].flatMap { setup.hosts[$0.runtime] } }

  private func prepare(_ id: AppID) {
    guard let record = apps[id], let host = setup.hosts[record.runtime] else { return }
    let policy = placed(record.policy, record.runtime)
    let pinned = record.stored.artifact
    // That its own program is not there may be why it is looked into.
    let instead = record.life.debug == nil ? nil : record.debugger?.instead(of: policy)
    apps[id]?.preparing = Task {
      do throws(HostFailure) {
        let tell = { @Sendable (progress: WorkProgress) in
          // Ends at once: it only hands the progress over.
          Task { await self.tellProgress(progress, id) }
          return ()
        }
        let artifact: String
        do throws(HostFailure) { artifact = try await Self.prepare(policy, pinned, host, tell) } catch {
          guard error.kind == .missing, let instead else { throw error }
          artifact = try await Self.prepare(instead, pinned, host, tell)
        }
        apps[id]?.preparing = nil
        apps[id]?.artifact = artifact
        if artifact != pinned {
          apps[id]?.stored.artifact = artifact
          save([.setArtifact(id, artifact)])
        }
        send(.prepared, to: id)
      } catch {
        apps[id]?.preparing = nil
        send(.stepFailed(error), to: id)
      }
    }
  }

  /// The image that was pinned when the policy was applied, as long as it is there; else what its name means now.
  private static func prepare(
    _ policy: Policy, _ pinned: String, _ host: any AppHost, _ progress: @escaping @Sendable (WorkProgress) -> Void
  ) async throws(HostFailure) -> String {
    guard !pinned.isEmpty else { return try await host.prepare(policy, progress: progress) }
    var exact = policy
    exact.image = .reference(pinned, .never)
    do throws(HostFailure) { return try await host.prepare(exact, progress: progress) } catch
      where error.kind == .missing
    {
      return try await host.prepare(policy, progress: progress)
    }
  }

  /// The policy as the given runtime sees it: a container app that fell back is a native one.
  func placed(_ policy: Policy, _ runtime: Runtime) -> Policy {
    guard policy.runtime != runtime else { return policy }
    var placed = policy
    placed.runtime = runtime
    placed.image = nil
    return placed
  }

  /// The policy of a command of `pre_start`: the app's own but for what is run, and nobody outside reaches it.
  func forStep(_ step: Int?, _ policy: Policy) -> Policy {
    guard let step, step < policy.preStart.count else { return policy }
    var policy = policy
    policy.entry = policy.preStart[step].command
    if policy.runtime == .container { policy.entrypoint = [] }
    policy.network.ports = []
    policy.readiness = .started
    return policy
  }

  private func create(_ id: AppID) {
    guard var record = apps[id], let host = setup.hosts[record.runtime] else { return }
    record.stored.generation += 1
    var launch = Launch(
      policy: forStep(record.life.preStart, placed(record.policy, record.runtime)),
      generation: record.stored.generation, nonce: Nonce.make(),
      uidBase: setup.uidBase + record.stored.uidSlot * setup.uidBlock, artifact: record.artifact)
    if record.life.preStart == nil { expect(record.visitors, &launch) }
    if let debugger = record.debugger, record.life.debug != nil { debugger.dress(&launch) }
    record.launch = launch
    apps[id] = record
    let written = stored(launch, record, handle: host.plannedHandle(launch) ?? "")
    Task {
      do throws(HostFailure) {
        let instance =
          written.instance.handle.isEmpty
          ? try await make(launch, recordedBefore: written, host)
          : try await make(launch, recordedBeside: written, host)
        send(.created(instance), to: id)
      } catch {
        createFailed(error, id)
      }
    }
  }

  /// Recorded before anything exists, so that a daemon that dies now leaves nothing that the next one does not know; and again
  /// with what the host calls it.
  private func make(_ launch: Launch, recordedBefore written: StoredInstance, _ host: any AppHost)
    async throws(HostFailure) -> Instance
  {
    let change = StorageChange.setGeneration(launch.policy.id, launch.generation)
    try await commit([change, .putInstance(written)], durable: true).get()
    var named = written
    named.instance = try await host.create(launch)
    let outcome = await commit([.putInstance(named)], durable: false)
    return try await keep(named.instance, if: outcome, host)
  }

  /// Recorded while it is made, because until it is started it would end with this daemon.
  private func make(_ launch: Launch, recordedBeside written: StoredInstance, _ host: any AppHost)
    async throws(HostFailure) -> Instance
  {
    let change = StorageChange.setGeneration(launch.policy.id, launch.generation)
    async let outcome = commit([change, .putInstance(written)], durable: false)
    let instance = try await host.create(launch)
    return try await keep(instance, if: outcome, host)
  }

  /// What could not be recorded is not kept.
  private func keep(_ instance: Instance, if outcome: Result<Void, HostFailure>, _ host: any AppHost)
    async throws(HostFailure) -> Instance
  {
    guard case .failure(let failure) = outcome else { return instance }
    // Best effort: what stays is found by the next daemon, because it has our labels.
    try? await host.remove(instance)
    throw failure
  }

  private func commit(_ changes: [StorageChange], durable: Bool) async -> Result<Void, HostFailure> {
    do throws(StorageFailure) {
      try await setup.store.commit(changes, durable: durable)
      return .success(())
    } catch {
      return .failure(HostFailure(.failed, "\(error)", hint: "free some space in \(setup.layout.state)"))
    }
  }

  /// A create that failed has left nothing, or what it left is removed here.
  private func createFailed(_ failure: HostFailure, _ id: AppID) {
    save([.removeInstance(id)])
    apps[id]?.launch = nil
    send(.stepFailed(failure), to: id)
  }

  private func stored(_ launch: Launch, _ record: AppRecord, handle: String) -> StoredInstance {
    StoredInstance(
      instance: Instance(app: record.stored.id, generation: launch.generation, nonce: launch.nonce, handle: handle),
      runtime: record.runtime, canonical: record.effective, folder: record.stored.folder,
      artifact: launch.artifact, engine: record.runtime == .container ? setup.engine : "",
      preStart: record.life.preStart, debug: record.life.debug.map { $0.rests ? .rests : .goesOn })
  }

  private func start(_ instance: Instance) {
    guard let host = host(instance.app), let launch = apps[instance.app]?.launch else { return }
    let visitors = welcome(instance.app)
    Task {
      do throws(HostFailure) {
        // They miss nothing of it.
        for visitor in visitors { await visitor.enter(instance, launch, host) }
        let facts = try await host.start(instance, launch)
        for visitor in visitors { visitor.began() }
        guard apps[instance.app]?.life.stage == .starting(instance) else { return }
        for line in facts.missing { save([tell("app.degraded", instance.app, ["missing": .string(line)])]) }
        send(.started(facts), to: instance.app)
      } catch {
        // Ended meanwhile, and perhaps on its way up again: that start's end is told already.
        guard apps[instance.app]?.life.stage == .starting(instance) else { return }
        send(.stepFailed(error), to: instance.app)
      }
    }
  }

  func clear(_ instance: Instance) {
    guard let host = host(instance.app) else { return }
    Task {
      // How it ended is stored before the host forgets it. A disk that is full keeps nothing from being cleared: the next
      // daemon finds the instance gone.
      if let rest = apps[instance.app]?.savedRest { await store([.putRest(rest)]) }
      // What an operator tried is no run of the app.
      let isRun = apps[instance.app]?.life.debug?.isHere != true
      if isRun { await recordExit(instance, host) }
      do throws(HostFailure) {
        try await host.remove(instance)
        if isRun { keepOutput(instance, host) }
        await store([.removeInstance(instance.app)])
        if apps[instance.app]?.life.stage.instance == instance { apps[instance.app]?.launch = nil }
        send(.cleared, to: instance.app)
      } catch {
        send(.clearFailed(error), to: instance.app)
      }
    }
  }

  /// Something asked of a host whose outcome shows in what happens to the instance, not in an answer.
  private func onHost(_ instance: Instance, _ body: @escaping @Sendable (any AppHost) async throws(HostFailure) -> Void)
  {
    guard let host = host(instance.app) else { return }
    Task {
      do throws(HostFailure) { try await body(host) } catch {
        save([tell("app.host_refused", instance.app, ["reason": .string(error.description)])])
      }
    }
  }

  private func forget(_ id: AppID) {
    guard let record = apps[id] else { return }
    for timer in record.timers.values { timer.cancel() }
    record.alarm?.cancel()
    record.attendance?.end()
    dismiss(id, "it was removed")
    record.debugger?.finish(.failed(HostFailure(.failed, "\(id) was removed")))
    apps[id] = nil
    forgetBeside(id)
    save([.removeApp(id), tell("app.removed", id, [:])])
  }
}
