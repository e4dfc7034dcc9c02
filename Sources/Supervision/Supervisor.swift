package import Logging
package import Model
package import Scheduling
package import Storage
internal import Linux

/// An app as checked and ready to be applied.
package struct CheckedApp: Sendable {
  package var policy: Policy
  /// The canonical document's JSON text.
  package var canonical: String
  /// The file it was read from, for messages.
  package var file: String

  package init(policy: Policy, canonical: String, file: String) {
    self.policy = policy
    self.canonical = canonical
    self.file = file
  }
}

/// What the supervisor keeps of one app.
struct AppRecord {
  var stored: StoredApp
  /// The applied policy: what the next instance is made from.
  var policy: Policy
  var life: Life
  /// What the present instance was made from; nil while there is none.
  var launch: Launch?
  /// Which host holds the present instance, or will hold the next.
  var runtime: Runtime
  /// The image id found by `prepare` for the next instance.
  var artifact = ""
  var preparing: Task<Void, Never>?
  var timers: [UInt64: Task<Void, Never>] = [:]
  /// The last usage seen: boot-clock nanoseconds and CPU nanoseconds.
  var sample: (at: Int64, cpu: UInt64)?
  var cpuPercent = 0.0
  /// When the stage last changed.
  var since: WallTime
  /// Its host could not be asked yet what became of this instance of an earlier daemon.
  var unadopted: StoredInstance?
  /// The engine that has its instance, if that is not the one this daemon uses.
  var elsewhere: String?
  var savedRest: StoredRest?
  /// `up --no-deps`: it starts whether or not what it depends on runs.
  var ignoresDependencies = false

  /// The policy that the present stage is about: the instance's own, else the applied one.
  var current: Policy { launch?.policy ?? policy }
}

/// Carries out what lives ask for, and decides when their gates open. All decisions are made without suspending.
package actor Supervisor {
  /// What a supervisor is made with.
  package struct Setup: Sendable {
    package var layout: InstanceLayout
    package var store: Store
    package var hosts: [Runtime: any AppHost]
    /// First id of the first app's block, and a block's size.
    package var uidBase: UInt32
    package var uidBlock: UInt32
    /// How much memory apps may be promised.
    package var admission: Admission
    /// The socket of the engine behind the container host; empty without one.
    package var engine: String
    /// Why there is no container host, if there is none.
    package var noEngine: String
    package var log: Logger

    package init(
      layout: InstanceLayout, store: Store, hosts: [Runtime: any AppHost], uidBase: UInt32, uidBlock: UInt32,
      admission: Admission, engine: String = "",
      noEngine: String, log: Logger
    ) {
      self.layout = layout
      self.store = store
      self.hosts = hosts
      self.uidBase = uidBase
      self.uidBlock = uidBlock
      self.admission = admission
      self.engine = engine
      self.noEngine = noEngine
      self.log = log
    }
  }

  let setup: Setup
  var apps: [AppID: AppRecord] = [:]
  /// Id blocks given out, those of removed apps with data included.
  var slots: [AppID: UInt32] = [:]
  var cursor: Int64 = 0
  /// Runtimes that were not asked yet what an earlier daemon left there: nothing is started on them before.
  var asking: Set<Runtime> = []
  var awaitingTakeOver: [CheckedContinuation<Void, Never>] = []
  /// Why a runtime does not answer now.
  var trouble: [Runtime: String] = [:]
  private var observers: [UInt64: AsyncStream<Event>.Continuation] = [:]
  private var nextNumber: UInt64 = 1
  private var converging = false
  private var convergeAgain = false

  package init(_ setup: Setup) { self.setup = setup }

  // MARK: Events out

  /// Events from now on, stored ones and transient ones (cursor 0: progress). A slow reader loses the oldest.
  package func observe() -> AsyncStream<Event> {
    let number = nextNumber
    nextNumber += 1
    let (stream, continuation) = AsyncStream.makeStream(of: Event.self, bufferingPolicy: .bufferingNewest(8192))
    observers[number] = continuation
    continuation.onTermination = { [weak self] _ in Task { await self?.stopObserving(number) } }
    return stream
  }

  private func stopObserving(_ number: UInt64) { observers[number] = nil }

  /// Tells the world, and hands back the change that stores it.
  func tell(_ name: String, _ app: AppID?, _ fields: [String: JSONValue]) -> StorageChange {
    cursor += 1
    let event = Event(cursor: cursor, time: Clock.wall(), app: app, name: name, fields: fields)
    var metadata: Logger.Metadata = [:]
    if let app { metadata["app"] = "\(app)" }
    for (key, value) in fields { metadata[key] = "\(value.stringValue ?? value.text)" }
    setup.log.info("\(name)", metadata: metadata)
    for observer in observers.values { observer.yield(event) }
    return .addEvent(event)
  }

  private func tellProgress(_ progress: WorkProgress, _ app: AppID) {
    var fields: [String: JSONValue] = ["item": .string(progress.item), "status": .string(progress.status)]
    if let done = progress.done { fields["done"] = .count(done) }
    if let total = progress.total { fields["total"] = .count(total) }
    let event = Event(time: Clock.wall(), app: app, name: "app.progress", fields: fields)
    for observer in observers.values { observer.yield(event) }
  }

  /// Stores without anybody waiting; a failure is told, and the daemon goes on with what it knows.
  func save(_ changes: [StorageChange]) {
    guard !changes.isEmpty else { return }
    // Ends with the commit.
    Task { await store(changes) }
  }

  private func store(_ changes: [StorageChange]) async {
    do throws(StorageFailure) { try await setup.store.commit(changes) } catch {
      setup.log.error("state.write_failed", metadata: ["reason": "\(error)"])
    }
  }

  // MARK: Events in

  /// The only way an app's life changes.
  func send(_ event: LifeEvent, to id: AppID) {
    guard var record = apps[id] else { return }
    let before = record.life
    let effects = record.life.handle(event, record.current, now: Clock.wall(), chance: Double.random(in: 0..<1))
    if record.life.stage != before.stage {
      record.since = Clock.wall()
      if record.life.stage.instance == nil { record.sample = nil }
    }
    apps[id] = record
    for effect in effects { perform(effect, id) }
    // What changed nothing opens no gate.
    if apps[id]?.life != before { converge() }
  }

  /// Tells several apps something at once: no gate opens before all have been told.
  func together(_ body: () -> Void) {
    let outermost = !converging
    converging = true
    body()
    guard outermost else { return }
    converging = false
    converge()
  }

  /// Opens the gates that can be opened: who may start, by priority; who may stop, once nothing that stops too depends on it.
  func converge() {
    guard !converging else {
      convergeAgain = true
      return
    }
    converging = true
    defer { converging = false }
    repeat {
      convergeAgain = false
      openStartGates()
      openStopGates()
    } while convergeAgain
  }

  private func openStartGates() {
    let waiting = apps.values.filter { if case .waiting = $0.life.stage { true } else { false } }
    guard !waiting.isEmpty else { return }
    for record in waiting where record.launch == nil && record.unadopted == nil {
      apps[record.stored.id]?.runtime = runtime(for: record.policy)
    }
    for record in waiting.sorted(by: { ($1.policy.priority, $0.stored.id) < ($0.policy.priority, $1.stored.id) }) {
      let id = record.stored.id
      guard let now = apps[id], case .waiting = now.life.stage else { continue }
      switch gate(now) {
      case .success: send(.admitted, to: id)
      case .failure(let closed): send(.held(closed.reason), to: id)
      }
    }
  }

  private func openStopGates() {
    for record in apps.values where record.life.shouldStop {
      let id = record.stored.id
      let held = apps.values.contains { other in
        other.current.dependencies.contains { $0.app == id } && other.life.stage.instance != nil
          && (other.life.want != .running || other.life.replacing)
      }
      if !held { send(.releasedToStop, to: id) }
    }
  }

  // MARK: Effects

  private func perform(_ effect: Effect, _ id: AppID) {
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
    apps[id]?.preparing = Task {
      do throws(HostFailure) {
        let artifact = try await Self.prepare(policy, pinned, host) { progress in
          // Ends at once: it only hands the progress over.
          Task { await self.tellProgress(progress, id) }
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

  private func create(_ id: AppID) {
    guard var record = apps[id], let host = setup.hosts[record.runtime] else { return }
    record.stored.generation += 1
    let launch = Launch(
      policy: placed(record.policy, record.runtime), generation: record.stored.generation, nonce: Nonce.make(),
      uidBase: setup.uidBase + record.stored.uidSlot * setup.uidBlock, artifact: record.artifact)
    record.launch = launch
    apps[id] = record
    var written = stored(launch, record, handle: "")
    let isContainer = record.runtime == .container
    Task {
      do throws(HostFailure) {
        // Before anything exists, so that a daemon that dies now leaves nothing that the next one does not know.
        try await commit([.setGeneration(id, launch.generation), .putInstance(written)], durable: isContainer)
        let instance = try await host.create(launch)
        written.instance = instance
        do throws(HostFailure) { try await commit([.putInstance(written)], durable: false) } catch {
          // best effort: what stays is found by the next daemon, because it has our labels.
          try? await host.remove(instance)
          throw error
        }
        send(.created(instance), to: id)
      } catch {
        createFailed(error, id)
      }
    }
  }

  private func commit(_ changes: [StorageChange], durable: Bool) async throws(HostFailure) {
    do throws(StorageFailure) { try await setup.store.commit(changes, durable: durable) } catch {
      throw HostFailure(.failed, "\(error)", hint: "free some space in \(setup.layout.state)")
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
      runtime: record.runtime, canonical: record.stored.canonical, folder: record.stored.folder,
      artifact: launch.artifact, engine: record.runtime == .container ? setup.engine : "")
  }

  private func start(_ instance: Instance) {
    guard let host = host(instance.app), let launch = apps[instance.app]?.launch else { return }
    Task {
      do throws(HostFailure) {
        let facts = try await host.start(instance, launch)
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
      do throws(HostFailure) {
        try await host.remove(instance)
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
    apps[id] = nil
    save([.removeApp(id), tell("app.removed", id, [:])])
  }

  // MARK: Hosts

  /// Follows what hosts tell of their own accord, until cancelled.
  package func followHosts() async {
    await withTaskGroup(of: Void.self) { group in
      for (runtime, host) in setup.hosts {
        group.addTask { await host.run() }
        group.addTask { for await event in host.events { await self.take(event, from: runtime) } }
      }
    }
  }

  private func take(_ event: HostEvent, from runtime: Runtime) async {
    switch event {
    case .exited(let instance, let report) where isPresent(instance): send(.exited(report), to: instance.app)
    case .outOfMemory(let instance) where isPresent(instance): save([tell("app.oom_kill", instance.app, [:])])
    case .changedOutside(let instance, .paused) where isPresent(instance): send(.paused(true), to: instance.app)
    case .changedOutside(let instance, .running) where isPresent(instance): send(.paused(false), to: instance.app)
    case .changedOutside(let instance, _) where isPresent(instance):
      send(
        .exited(ExitReport(cause: .unknown("removed by someone else"), startedAt: nil, endedAt: Clock.wall())),
        to: instance.app)
    case .exited, .outOfMemory, .changedOutside: break
    case .unavailable(let why):
      guard trouble[runtime] == nil else { return }
      trouble[runtime] = why
      save([tell("host.unavailable", nil, ["runtime": .string(runtime.rawValue), "reason": .string(why)])])
    case .available:
      if trouble.removeValue(forKey: runtime) != nil {
        save([tell("host.available", nil, ["runtime": .string(runtime.rawValue)])])
      }
      await adopt(runtime)
      converge()
    }
  }

  private func isPresent(_ instance: Instance) -> Bool {
    guard let present = apps[instance.app]?.life.stage.instance else { return false }
    return present.generation == instance.generation && present.nonce == instance.nonce
  }
}

/// 128 random bits in hex.
package enum Nonce {
  package static func make() -> String {
    let high = UInt64.random(in: .min ... .max)
    let low = UInt64.random(in: .min ... .max)
    return [high, low].map { part in
      let text = String(part, radix: 16)
      return String(repeating: "0", count: 16 - text.count) + text
    }.joined()
  }
}
