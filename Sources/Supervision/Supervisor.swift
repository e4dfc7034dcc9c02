package import Logging
package import Model
internal import Policies
package import Scheduling
package import Storage
package import Linux

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

/// What the supervisor keeps of one app, or of a generation beside what it is.
struct AppRecord {
  var stored: StoredApp
  /// Tells it from others of the same app.
  var number: UInt64 = 0
  var role = StoredInstance.Seat.present
  /// The update that is to make it what the app is, or keep it so.
  var update: Update?
  /// What is put in force again if `update` fails (`stop-first`).
  var previous: StoredApp?
  var updateTimers: [Task<Void, Never>] = []
  /// Why the last update of it was not kept.
  var updateFailure: String?
  /// The applied policy with what was set beside it: what the next instance is made from.
  var policy: Policy
  /// Its canonical document.
  var effective: String
  var overrides: [StoredOverride] = []
  /// Why what runs is not as `policy` says.
  var behind: String?
  /// What somebody else removed last.
  var removedOutside: Instance?
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
  /// What watches the run that goes on.
  var attendance: Attendance?
  /// It said that it is ready before it was seen to run.
  var heardReady = false
  /// It is stored that the run counts as ready.
  var storedReady = false
  /// Begins the next run of a schedule.
  var alarm: Task<Void, Never>?
  /// When the next run is due, as it is stored.
  var dueStored: WallTime?
  /// Runs may have been missed since; told once what the earlier daemon left is taken over.
  var missedSince: WallTime?
  /// Who wants to be there from the next run's first instruction on.
  var visitors: [Visitor] = []
  /// Who debugs it.
  var debugger: Debugger?
  /// What it said its run ends with, before that was ended.
  var ownEnd: (instance: Instance, code: Int32)?

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
    /// What schedules wait with.
    package var alarms: Alarms
    /// How apps reach us.
    package var doors: (any AppDoors)?

    package init(
      layout: InstanceLayout, store: Store, hosts: [Runtime: any AppHost], uidBase: UInt32, uidBlock: UInt32,
      admission: Admission, engine: String = "",
      noEngine: String, log: Logger, alarms: Alarms, doors: (any AppDoors)? = nil
    ) {
      self.doors = doors
      self.alarms = alarms
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
  /// Generations beside what their app is: what it is to become, and what it was.
  var beside: [Seat: AppRecord] = [:]
  /// The last generations given out.
  var lastRuns: [AppID: UInt64] = [:]
  /// Id blocks given out, those of removed apps with data included.
  var slots: [AppID: UInt32] = [:]
  var cursor: Int64 = 0
  /// Runtimes that were not asked yet what an earlier daemon left there: nothing is started on them before.
  var asking: Set<Runtime> = []
  var awaitingTakeOver: [CheckedContinuation<Void, Never>] = []
  /// Why a runtime does not answer now.
  var trouble: [Runtime: String] = [:]
  private var observers: [UInt64: AsyncStream<Event>.Continuation] = [:]
  var nextNumber: UInt64 = 1
  /// What the configuration allows policies.
  var rules = HostRules.unknown
  /// How much memory apps may be promised.
  var admission: Admission
  /// Apps that are being changed, one change at a time.
  var changing: Set<AppID> = []
  var awaitingChange: [CheckedContinuation<Void, Never>] = []
  /// Runs that are about to begin, by what they are runs of.
  var beginning: [String: Int] = [:]
  /// Ends the override that ends next.
  var expiry: Task<Void, Never>?
  private var converging = false
  private var convergeAgain = false

  package init(_ setup: Setup) {
    self.setup = setup
    admission = setup.admission
  }

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

  /// Tells of an app what another part of the daemon saw.
  package func note(_ name: String, _ app: AppID, _ fields: [String: JSONValue]) { save([tell(name, app, fields)]) }

  /// Of a generation beside what the app is, it is told which.
  func tell(_ name: String, _ seat: Seat, _ fields: [String: JSONValue]) -> StorageChange {
    var fields = fields
    if let record = self[seat], record.role != .present {
      fields["generation"] = .count(record.launch?.generation ?? record.stored.generation)
      fields["which"] = .string(record.role == .next ? "new" : "old")
    }
    return tell(name, seat.app, fields)
  }

  func tellProgress(_ progress: WorkProgress, _ app: AppID) {
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

  func store(_ changes: [StorageChange]) async {
    do throws(StorageFailure) { try await setup.store.commit(changes) } catch {
      setup.log.error("state.write_failed", metadata: ["reason": "\(error)"])
    }
  }

  // MARK: Events in

  /// The only way an app's life changes.
  func send(_ event: LifeEvent, to id: AppID) {
    if let seat = apps[id]?.seat { send(event, to: seat) }
  }

  /// The same for one generation of it.
  func send(_ event: LifeEvent, to seat: Seat) {
    guard var record = self[seat] else { return }
    let before = record.life
    let effects = record.life.handle(event, record.current, now: Clock.wall(), chance: Double.random(in: 0..<1))
    if record.life.stage != before.stage {
      record.since = Clock.wall()
      if record.life.stage.instance == nil { record.sample = nil }
    }
    self[seat] = record
    for effect in effects { perform(effect, seat) }
    if before.debug != nil, record.life.debug == nil {
      record.debugger?.finish(
        .failed(HostFailure(.failed, "\(seat.app) was to do something else before the command ran")))
    }
    if record.life.isAtRest, !record.visitors.isEmpty {
      dismiss(seat.app, record.life.failure ?? record.life.lastExit?.reason ?? "it was stopped")
    }
    if case .running = record.life.stage, record.life.stage.instance != before.stage.instance || !before.isRunning {
      catchUp(seat.app)
    }
    // What changed nothing opens no gate.
    guard self[seat]?.life != before else { return }
    if let after = self[seat]?.life {
      attend(seat)
      if self[seat]?.role == .present { carryOn(seat.app, before, after) }
      watchUpdate(seat, event, before)
    }
    converge()
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
    var waiting = apps.values.filter { if case .waiting = $0.life.stage { true } else { false } }
    waiting += beside.values.filter { if case .waiting = $0.life.stage { true } else { false } }
    guard !waiting.isEmpty else { return }
    for record in waiting where record.launch == nil && record.unadopted == nil {
      self[record.seat]?.runtime = runtime(for: record.policy)
    }
    var room = room
    for record in waiting.sorted(by: { ($1.policy.priority, $0.stored.id) < ($0.policy.priority, $1.stored.id) }) {
      let seat = record.seat
      guard let now = self[seat], case .waiting = now.life.stage else { continue }
      switch gate(now, &room) {
      case .success: send(.admitted, to: seat)
      case .failure(let closed):
        send(.held(closed.reason), to: seat)
        // Beside one that runs, room is there or it is not; and what never comes is not waited for.
        if closed.isFinal || closed.isRoom { update(seat, .failed(nil, closed.reason)) }
      }
    }
  }

  private func openStopGates() {
    for record in beside.values where record.life.shouldStop { send(.releasedToStop, to: record.seat) }
    let stopping = apps.values.filter(\.life.shouldStop)
    guard !stopping.isEmpty else { return }
    var needed: Set<AppID> = []
    for other in apps.values
    where other.life.stage.instance != nil && (other.life.want != .running || other.life.replacing) {
      needed.formUnion(other.current.dependencies.map(\.app))
    }
    for record in stopping where !needed.contains(record.stored.id) { send(.releasedToStop, to: record.stored.id) }
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
    case .exited(let instance, let report):
      if let seat = seat(of: instance) { send(.exited(settled(report, instance, seat)), to: seat) }
    case .outOfMemory(let instance): if let seat = seat(of: instance) { save([tell("app.oom_kill", seat, [:])]) }
    case .changedOutside(let instance, .paused):
      guard let seat = seat(of: instance) else { return }
      tellOutside(instance.app, "paused")
      send(.paused(true), to: seat)
    case .changedOutside(let instance, .running):
      guard let seat = seat(of: instance) else { return }
      tellOutside(instance.app, "unpaused")
      send(.paused(false), to: seat)
    case .changedOutside(let instance, _) where apps[instance.app] != nil:
      // Told by the engine's event and by who looks for the container, in either order; the app may be on its way up again.
      if apps[instance.app]?.removedOutside != instance { tellOutside(instance.app, "removed") }
      apps[instance.app]?.removedOutside = instance
      guard let seat = seat(of: instance) else { return }
      send(
        .exited(ExitReport(cause: .unknown("removed by someone else"), startedAt: nil, endedAt: Clock.wall())),
        to: seat)
    case .changedOutside: break
    case .told(let instance, let ready, let status):
      if let seat = seat(of: instance) { heard(seat, ready, status) }
    case .engineChanged(let before, let after):
      save([
        tell(
          "host.changed", nil,
          ["runtime": .string(runtime.rawValue), "from": .string(before), "to": .string(after)])
      ])
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

  /// An app that ended itself by a call has ended as it said.
  private func settled(_ report: ExitReport, _ instance: Instance, _ seat: Seat) -> ExitReport {
    guard let own = self[seat]?.ownEnd else { return report }
    self[seat]?.ownEnd = nil
    guard own.instance.generation == instance.generation, case .signal(9) = report.cause else { return report }
    var report = report
    report.cause = .code(own.code)
    return report
  }

  /// Somebody did it beside the supervisor.
  private func tellOutside(_ id: AppID, _ what: String) {
    save([tell("app.changed_outside", id, ["what": .string(what)])])
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
