internal import Linux
internal import Logging
internal import Model
internal import Storage

/// Carrying out what a life asks for; each step's outcome comes back as an event.
extension Supervisor {
  func perform(_ effect: Effect, _ seat: Seat) {
    switch effect {
    case .prepare: prepare(seat)
    case .cancelPrepare: self[seat]?.preparing?.cancel()
    case .create: create(seat)
    case .start(let instance): start(instance, seat)
    case .signal(let instance, let number, let thaw):
      onHost(instance, seat) { (host) throws(HostFailure) in
        if thaw { try await host.setPaused(instance, false) }
        try await host.signal(instance, number)
      }
    case .kill(let instance): onHost(instance, seat) { (host) throws(HostFailure) in try await host.kill(instance) }
    case .clear(let instance): clear(instance, seat)
    case .after(let delay, let event): schedule(event, after: delay, seat)
    case .cancelTimers:
      for timer in self[seat]?.timers.values ?? [:].values { timer.cancel() }
      self[seat]?.timers = [:]
    case .armSchedule: armSchedule(seat.app)
    // Ends with what it began.
    case .runBeside: Task { await runBeside(seat.app) }
    case .debugOver(let end): self[seat]?.debugger?.finish(end)
    case .keepRest:
      guard var rest = self[seat]?.savedRest, let generation = self[seat]?.stored.generation else { return }
      rest.generation = generation
      self[seat]?.savedRest = rest
      save([.putRest(rest)])
    case .outdate:
      guard let record = self[seat], record.role == .present else { return }
      self[seat]?.stored.generation = record.stored.generation + 1
      save([.setGeneration(seat.app, record.stored.generation + 1)])
    case .record(let name, let fields): save([tell(name, seat, fields)] + restChange(seat))
    case .forget: forget(seat)
    }
  }

  /// The change that stores how an app rests, if that is news. An exit or a failure belongs to the generation that is there as it
  /// becomes known.
  private func restChange(_ seat: Seat) -> [StorageChange] {
    guard let record = self[seat], record.role == .present else { return [] }
    let life = record.life
    let saved = record.savedRest
    let isNews = life.lastExit != saved?.exit || (life.failure != nil && life.failure != saved?.failure)
    let rest = StoredRest(
      app: seat.app, exit: life.lastExit, failure: life.failure, restarts: life.restarts,
      generation: isNews ? record.launch?.generation ?? record.stored.generation : saved?.generation ?? 0)
    guard rest != saved else { return [] }
    self[seat]?.savedRest = rest
    return [.putRest(rest)]
  }

  func schedule(_ event: LifeEvent, after delay: Duration, _ seat: Seat) {
    let number = nextNumber
    nextNumber += 1
    // Cancelled by `.cancelTimers`; one that fires too late meets a stage that ignores it.
    self[seat]?.timers[number] = Task {
      do { try await Task.sleep(for: delay) } catch { return }
      self[seat]?.timers[number] = nil
      send(event, to: seat)
    }
  }

  func host(_ seat: Seat) -> (any AppHost)? { self[seat].flatMap { setup.hosts[$0.runtime] } }

  private func prepare(_ seat: Seat) {
    guard let record = self[seat], let host = setup.hosts[record.runtime] else { return }
    let policy = placed(record.policy, record.runtime)
    let pinned = record.stored.artifact
    // That its own program is not there may be why it is looked into.
    let instead = record.life.debug == nil ? nil : record.debugger?.instead(of: policy)
    self[seat]?.preparing = Task {
      do throws(HostFailure) {
        let tell = { @Sendable (progress: WorkProgress) in
          // Ends at once: it only hands the progress over.
          Task { await self.tellProgress(progress, seat.app) }
          return ()
        }
        let artifact: String
        do throws(HostFailure) { artifact = try await Self.prepare(policy, pinned, host, tell) } catch {
          guard error.kind == .missing, let instead else { throw error }
          artifact = try await Self.prepare(instead, pinned, host, tell)
        }
        self[seat]?.preparing = nil
        self[seat]?.artifact = artifact
        if artifact != pinned {
          self[seat]?.stored.artifact = artifact
          keepArtifact(seat)
        }
        send(.prepared, to: seat)
      } catch {
        self[seat]?.preparing = nil
        send(.stepFailed(error), to: seat)
      }
    }
  }

  private func keepArtifact(_ seat: Seat) {
    guard let record = self[seat] else { return }
    switch record.role {
    case .present: save([.setArtifact(seat.app, record.stored.artifact)])
    case .next: save([.putUpdate(StoredUpdate(role: .next, app: record.stored))])
    case .past: break
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
    // Its image stays: the host has it in its own store, or goes without.
    placed.runtime = runtime
    return placed
  }

  /// The policy of a command of `pre_start`: the app's own but for what is run, and nobody outside reaches it.
  func forStep(_ step: Int?, _ policy: Policy) -> Policy {
    guard let step, step < policy.preStart.count else { return policy }
    var policy = policy
    policy.entry = policy.preStart[step].command
    if policy.image != nil { policy.entrypoint = [] }
    policy.network.ports = []
    policy.readiness = .started
    return policy
  }

  private func create(_ seat: Seat) {
    guard var record = self[seat], let host = setup.hosts[record.runtime] else { return }
    record.stored.generation = newGeneration(seat)
    let isBeside = ([apps[seat.app]].compactMap { $0 } + others(seat.app)).contains {
      $0.number != seat.number && ($0.launch != nil || $0.unadopted != nil)
    }
    var launch = Launch(
      policy: forStep(record.life.preStart, placed(record.policy, record.runtime)),
      generation: record.stored.generation, nonce: Nonce.make(),
      uidBase: setup.uidBase + record.stored.uidSlot * setup.uidBlock, uidCount: setup.uidBlock,
      artifact: record.artifact, isBeside: isBeside)
    if record.life.preStart == nil { expect(record.visitors, &launch) }
    if let debugger = record.debugger, record.life.debug != nil { debugger.dress(&launch) }
    record.launch = launch
    self[seat] = record
    let written = stored(launch, record, handle: host.plannedHandle(launch) ?? "")
    // What is not the app yet leaves the app's own row alone.
    let change: [StorageChange] = record.role == .present ? [.setGeneration(seat.app, launch.generation)] : []
    Task {
      do throws(HostFailure) {
        let instance =
          written.instance.handle.isEmpty
          ? try await make(launch, change, recordedBefore: written, host)
          : try await make(launch, change, recordedBeside: written, host)
        send(.created(instance), to: seat)
      } catch {
        createFailed(error, launch, seat)
      }
    }
  }

  /// Recorded before anything exists, so that a daemon that dies now leaves nothing that the next one does not know; and again
  /// with what the host calls it.
  private func make(
    _ launch: Launch, _ change: [StorageChange], recordedBefore written: StoredInstance, _ host: any AppHost
  ) async throws(HostFailure) -> Instance {
    try await commit(change + [.putInstance(written)], durable: true).get()
    var named = written
    named.instance = try await host.create(launch)
    let outcome = await commit([.putInstance(named)], durable: false)
    return try await keep(named.instance, if: outcome, host)
  }

  /// Recorded while it is made, because until it is started it would end with this daemon.
  private func make(
    _ launch: Launch, _ change: [StorageChange], recordedBeside written: StoredInstance, _ host: any AppHost
  ) async throws(HostFailure) -> Instance {
    async let outcome = commit(change + [.putInstance(written)], durable: false)
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
  private func createFailed(_ failure: HostFailure, _ launch: Launch, _ seat: Seat) {
    save([.removeInstance(seat.app, generation: launch.generation)])
    self[seat]?.launch = nil
    send(.stepFailed(failure), to: seat)
  }

  private func stored(_ launch: Launch, _ record: AppRecord, handle: String) -> StoredInstance {
    StoredInstance(
      instance: Instance(
        app: record.stored.id, generation: launch.generation, nonce: launch.nonce, handle: handle,
        isBeside: launch.isBeside),
      runtime: record.runtime, canonical: record.effective, folder: record.stored.folder,
      artifact: launch.artifact, engine: record.runtime == .container ? setup.engine : "",
      preStart: record.life.preStart, debug: record.life.debug.map { $0.rests ? .rests : .goesOn }, seat: record.role)
  }

  private func start(_ instance: Instance, _ seat: Seat) {
    guard let host = host(seat), let launch = self[seat]?.launch else { return }
    let visitors = welcome(seat.app)
    Task {
      do throws(HostFailure) {
        // They miss nothing of it.
        for visitor in visitors { await visitor.enter(instance, launch, host) }
        let facts = try await host.start(instance, launch)
        for visitor in visitors { visitor.began() }
        guard self[seat]?.life.stage == .starting(instance) else { return }
        for line in facts.missing { save([tell("app.degraded", seat, ["missing": .string(line)])]) }
        send(.started(facts), to: seat)
      } catch {
        // Ended meanwhile, and perhaps on its way up again: that start's end is told already.
        guard self[seat]?.life.stage == .starting(instance) else { return }
        send(.stepFailed(error), to: seat)
      }
    }
  }

  func clear(_ instance: Instance, _ seat: Seat) {
    guard let host = host(seat) else { return }
    Task {
      // How it ended is stored before the host forgets it. A disk that is full keeps nothing from being cleared: the next
      // daemon finds the instance gone.
      if let rest = self[seat]?.savedRest { await store([.putRest(rest)]) }
      // What an operator tried is no run of the app.
      let isRun = self[seat]?.life.debug?.isHere != true
      if isRun { await recordExit(instance, seat, host) }
      do throws(HostFailure) {
        try await host.remove(instance)
        if isRun { keepOutput(instance, host) }
        await store([.removeInstance(instance.app, generation: instance.generation)])
        if self[seat]?.life.stage.instance == instance { self[seat]?.launch = nil }
        send(.cleared, to: seat)
      } catch {
        send(.clearFailed(error), to: seat)
      }
    }
  }

  /// Something asked of a host whose outcome shows in what happens to the instance, not in an answer.
  private func onHost(
    _ instance: Instance, _ seat: Seat, _ body: @escaping @Sendable (any AppHost) async throws(HostFailure) -> Void
  ) {
    guard let host = host(seat) else { return }
    Task {
      do throws(HostFailure) { try await body(host) } catch {
        save([tell("app.host_refused", seat, ["reason": .string(error.description)])])
      }
    }
  }

  private func forgetSecrets(_ app: AppID, _ record: AppRecord) {
    guard !record.policy.allSecrets.isEmpty, let host = setup.hosts[record.runtime] else { return }
    // Ends by itself, at once.
    Task { await host.forget(app) }
  }

  private func forget(_ seat: Seat) {
    guard let record = self[seat] else { return }
    // The app is not gone while anything of it is there: the last one to leave says so.
    if record.role == .present, !others(seat.app).isEmpty { return }
    for timer in record.timers.values { timer.cancel() }
    for timer in record.updateTimers { timer.cancel() }
    record.alarm?.cancel()
    record.attendance?.end()
    self[seat] = nil
    guard record.role == .present else {
      if let present = apps[seat.app], present.life.want == .removed, present.life.isAtRest { forget(present.seat) }
      return
    }
    lastRuns[seat.app] = nil
    dismiss(seat.app, "it was removed")
    forgetSecrets(seat.app, record)
    record.debugger?.finish(.failed(HostFailure(.failed, "\(seat.app) was removed")))
    forgetBeside(seat.app)
    // Ends at once.
    if let doors = setup.doors { Task { await doors.forget(seat.app) } }
    save([.removeApp(seat.app), tell("app.removed", seat.app, [:])])
  }
}
