package import Cgroups
internal import FileSystems
internal import Glibc
internal import Health
package import ImageStorage
package import Linux
package import Model
internal import Sandboxing
internal import Scheduling
internal import Seccomp
package import Networking

/// Runs native apps: each under a shim of its own, which lives on when this object and its process do not.
///
/// Everything happens on one event loop: spawning a shim takes a fraction of a millisecond, kernel files answer at once, and
/// shims tell what happens by packets.
package actor NativeHost: AppHost {
  package nonisolated let runtime = Runtime.native
  package nonisolated let events: AsyncStream<HostEvent>
  package nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  let layout: InstanceLayout
  let images: ImageStore
  let hierarchy: CgroupHierarchy
  private let shimPath: String
  private let engineSockets: [String]
  /// Nil: apps have no network but what ports lead in.
  let fabric: NetworkFabric?
  let loop: EventLoop
  /// Reads logs, apart from all else.
  let readerLoop: EventLoop
  let prober: Prober
  let reader: UsageReader
  private let tell: AsyncStream<HostEvent>.Continuation
  var runs: [Instance: Run] = [:]
  private let shims: ShimPool
  /// The kernel's ABI; 0: it has none.
  private let landlock = Landlock.abi
  private let keepsOutOfMemoryScore = Privileges.keepsOutOfMemoryScore
  /// Filters made before.
  private var filters: [(profile: SeccompProfile, program: [UInt8])] = []

  /// One instance as this host knows it.
  final class Run {
    var connection: ShimConnection?
    var state = RunState.preparing
    var waiting: [CheckedContinuation<RunState, Never>] = []
    var missing: [String] = []
    var readers: [WeakReader] = []
    var group: AppCgroup
    var limits: Limits
    var isStarted = false
    /// It was put into the packet filter.
    var isFiltered = false
    /// As asked for; the kernel takes its time to freeze the last of many.
    var isPaused = false
    /// Somebody waited for the state just told.
    var waitingForStart = false
    /// Its connection was made anew, and has told nothing yet.
    var wasReconnected = false
    /// Its end was told, or is told by a throwing `start`.
    var isEndKnown = false
    /// By its notify socket.
    var saidReady = false
    init(_ group: AppCgroup, _ limits: Limits) {
      self.group = group
      self.limits = limits
    }
  }

  let doors: (any AppDoors)?

  /// `shimPath` is the program supervisor-shim; no app is given one of `engineSockets`; `images` are what apps with an image run from.
  /// Makes the instance's folders for sockets, outcomes and logs. Apps reach the supervisor through `doors`, and each other over
  /// `fabric`, if there are any.
  package init(
    layout: InstanceLayout, hierarchy: CgroupHierarchy, shimPath: String, images: ImageStore,
    engineSockets: [String] = [], doors: (any AppDoors)? = nil, fabric: NetworkFabric? = nil
  ) throws(SystemFault) {
    self.images = images
    self.doors = doors
    self.fabric = fabric
    self.engineSockets = engineSockets
    self.layout = layout
    self.hierarchy = hierarchy
    self.shimPath = shimPath
    loop = try EventLoop(name: "native")
    readerLoop = try EventLoop(name: "native-logs")
    prober = try Prober()
    reader = UsageReader(on: readerLoop)
    (events, tell) = AsyncStream.makeStream(of: HostEvent.self)
    shims = ShimPool(path: shimPath, group: .shims(hierarchy, parent: layout.cgroupParent), loop: loop)
    for folder in [Self.sockets(layout), Self.outcomes(layout)] { _ = try Folder(making: folder, mode: 0o700) }
    _ = try Folder(making: layout.log, mode: 0o750)
    // Nobody gets past it: the way to a socket is its app's own mount.
    if doors != nil { _ = try Folder(making: "\(layout.run)/apps", mode: 0o700) }
  }

  /// Keeps a shim ready for the next start, until cancelled.
  package func run() async {
    shims.open()
    // Thirty years: it ends when this task is cancelled.
    try? await Task.sleep(for: .seconds(1 << 30))
    shims.close()
  }

  /// Ends this object's part: no event arrives any more, and what runs goes on.
  package func shutDown() {
    for run in runs.values {
      run.connection?.close()
      endReaders(run)
    }
    runs = [:]
    shims.close()
    tell.finish()
  }

  // The readers' loop stays: who reads a log to its end may still do so.
  deinit { loop.stop() }

  static func sockets(_ layout: InstanceLayout) -> String { "\(layout.run)/shims" }
  static func outcomes(_ layout: InstanceLayout) -> String { "\(layout.state)/runs" }
  static func runName(_ instance: Instance) -> String { "\(instance.app).\(instance.generation)" }

  /// `generation`: of a run that was made beside another.
  nonisolated func group(_ app: AppID, _ generation: UInt64? = nil) -> AppCgroup {
    AppCgroup(hierarchy, parent: layout.cgroupParent, app: app, generation: generation, kind: .native)
  }

  // MARK: Prepare

  /// The id of the image that the app runs from, or nothing.
  package func prepare(_ policy: Policy, progress: @escaping @Sendable (WorkProgress) -> Void) async throws(HostFailure)
    -> String
  {
    let image = try imageOf(policy)
    if image != nil, OrdinaryUser.isOurs {
      throw HostFailure(
        .refused,
        "\(policy.id) cannot run from an image here: its layers are mounted by root, and this instance is an ordinary user's",
        hint: "Use the system's instance, or your own engine")
    }
    let policy = try resolved(policy, image)
    if OrdinaryUser.isOurs,
      let lack = OrdinaryUser.lack(hierarchy) ?? OrdinaryUser.lackOfPlace(hierarchy) ?? OrdinaryUser.refusal(policy)
    {
      throw HostFailure(.refused, "\(policy.id) cannot run as a native app here: \(lack.what)", hint: lack.fix)
    }
    guard Place.isProgram(shimPath) else {
      throw HostFailure(.unavailable, "\(shimPath) is not there", hint: "Install supervisor-shim beside the daemon")
    }
    if let problem = LaunchPlan.unsupported(policy) { throw HostFailure(.refused, problem.description) }
    do throws(ProgramProblem) { _ = try ProgramPlace(policy) } catch {
      switch error {
      case .missing, .none: throw HostFailure(.missing, error.description)
      case .notAFile, .notExecutable, .badRoot, .escapes: throw HostFailure(.refused, error.description)
      }
    }
    do throws(MountProblem) { _ = try MountTable(policy, layout, uidBase: 0, engineSockets: engineSockets) } catch {
      throw HostFailure(.refused, error.description)
    }
    do throws(SecretProblem) { try SecretDelivery.check(policy, layout) } catch {
      throw HostFailure(.refused, error.description)
    }
    do throws(DeviceProblem) { try DeviceDelivery.check(policy) } catch {
      throw HostFailure(.refused, error.description)
    }
    if policy.enforcement == .strict, policy.preset != .privileged, landlock == 0 {
      throw HostFailure(
        .refused, "this kernel has no Landlock, which a native app is held by",
        hint: "Boot with landlock among `lsm=`, or set enforcement: degrade to run without it")
    }
    try await refuseUnfiltered(policy)
    let shortfalls = group(policy.id).unsupported(policy.limits)
    if policy.enforcement == .strict, let first = shortfalls.first {
      throw HostFailure(
        .refused, "a limit cannot be enforced here: \(first)",
        hint: "Change it, or set enforcement: degrade to run without it")
    }
    return image?.id.description ?? ""
  }

  // MARK: Create

  package nonisolated func plannedHandle(_ launch: Launch) -> String? {
    "\(launch.policy.id).\(launch.generation).sock"
  }

  package func create(_ launch: Launch) async throws(HostFailure) -> Instance {
    let launch = try resolved(launch)
    let app = launch.policy.id
    let instance = Instance(
      app: app, generation: launch.generation, nonce: launch.nonce, handle: plannedHandle(launch) ?? "",
      isBeside: launch.isBeside)
    guard runs[instance] == nil else { throw HostFailure(.conflict, "\(app) exists already") }
    let group = group(app, launch.ownGroup)
    if (try? group.isPopulated) == true {
      throw HostFailure(.conflict, "processes of an earlier run of \(app) are still there")
    }
    let run = Run(group, launch.policy.limits)
    do throws(SystemFault) { try group.create(launch.policy.limits) } catch {
      throw HostFailure(.failed, "the cgroup of \(app) could not be made: \(error)")
    }
    let shortfalls = group.apply(launch.policy.limits, share: CPUShare(launch.policy))
    if let first = shortfalls.first, launch.policy.enforcement == .strict {
      discard(run)
      throw HostFailure(.refused, "a limit cannot be enforced here: \(first)")
    }
    run.missing = shortfalls.map(\.description)
    if landlock == 0, launch.policy.preset != .privileged { run.missing.append("landlock: this kernel has none") }
    do throws(HostFailure) { try await build(instance, launch, run) } catch {
      runs[instance] = nil
      await doors?.close(instance)
      discard(run)
      takeBack(launch)
      await fabric?.release(instance)
      throw error
    }
    return instance
  }

  /// Its socket is made while the shim builds the sandbox: nothing of the app runs before `start`.
  private func build(_ instance: Instance, _ launch: Launch, _ run: Run) async throws(HostFailure) {
    let place = try await place(launch, run)
    try spawn(instance, launch, run, place)
    runs[instance] = run
    try await open(instance, launch.policy)
  }

  /// Starts the shim, which builds the sandbox at once and holds it until `go`: by the time the instance is recorded, starting
  /// it is one packet. Should this process die in between, the shim sees its socket closed and leaves nothing.
  private func spawn(_ instance: Instance, _ launch: Launch, _ run: Run, _ place: NetworkPlace?) throws(HostFailure) {
    let plan = try plan(launch, run, place)
    do throws(SystemFault) {
      _ = try Folder(making: plan.places.log, mode: 0o750)
      if let door = plan.places.door { _ = try Folder(making: door, mode: 0o755) }
      run.connection = try connect(shims.launch(plan), instance, run)
    } catch {
      throw HostFailure(.failed, "the shim of \(instance.app) could not be started: \(error)")
    }
  }

  private func plan(_ launch: Launch, _ run: Run, _ network: NetworkPlace?) throws(HostFailure) -> LaunchPlan {
    let policy = launch.policy
    let table: MountTable
    do throws(MountProblem) {
      // Only root can mount; without it nothing is shown with another owner, which is refused.
      let whole = try MountTable(
        policy, layout, uidBase: launch.uidBase, engineSockets: engineSockets,
        pins: OrdinaryUser.isOurs ? nil : pins(launch), pinsMappedOnly: true, secrets: secrets(launch).folder)
      table = OrdinaryUser.isOurs ? OrdinaryUser.withoutOwnFolders(whole) : whole
      try table.prepareSources()
    } catch { throw HostFailure(.refused, error.description) }
    var membership = LaunchPlan.Membership()
    membership.folder = run.group.v2Folder
    membership.files = run.group.taskFiles(policy.limits)
    membership.path = run.group.path
    membership.outOfMemoryCounter = run.group.outOfMemoryCounterFile
    membership.namespaceAtClone = hierarchy.layout == .unified
    var places = LaunchPlan.Places()
    places.sockets = Self.sockets(layout)
    places.runs = Self.outcomes(layout)
    places.log = layout.appLog(policy.id)
    places.logIsShared = launch.isBeside
    places.door = doors == nil ? nil : layout.appSockets(policy.id, launch.generation)
    let walls = try walls(policy)
    let image = try imageRoot(launch)
    do {
      let devices = devices(launch)
      try run.group.allow(devices: devices.deliver())
      var plan = try LaunchPlan(
        launch, table, membership, places, walls, network.map(Self.names), image: image?.root,
        imageVolumes: image?.volumes ?? [], devices: devices.folder)
      plan.links = network.map { Self.links($0, policy) } ?? []
      if !policy.allSecrets.isEmpty { try Self.deliver(secrets(launch), to: &plan) }
      // What a policy names cannot lie in these: its mount table was refused if it did.
      plan.ownFolders = [layout.state, layout.run, "/usr", "/dev"]
      if OrdinaryUser.isOurs { OrdinaryUser.place(&plan) }
      return plan
    } catch let problem as PlanProblem {
      throw HostFailure(.refused, problem.description)
    } catch let problem as SecretProblem {
      throw HostFailure(.refused, problem.description)
    } catch let problem as DeviceProblem {
      throw HostFailure(.refused, problem.description)
    } catch { throw HostFailure(.failed, "\(error)") }
  }

  /// Compiled once for all apps that are alike.
  private func walls(_ policy: Policy) throws(HostFailure) -> LaunchPlan.Walls {
    var walls = LaunchPlan.Walls()
    walls.landlock = policy.preset != .privileged && landlock > 0
    walls.noTCP = policy.preset == .minimal && policy.network.mode == .none
    walls.readsProcesses = policy.limits.oomScoreAdjustment > 0 && !keepsOutOfMemoryScore
    guard let profile = SeccompProfile(policy) else { return walls }
    if let known = filters.first(where: { $0.profile == profile }) {
      walls.filter = known.program
      return walls
    }
    do throws(FilterFault) { walls.filter = try FilterProgram.compile(profile) } catch {
      throw HostFailure(.failed, "the system call filter of \(policy.id) cannot be made: \(error)")
    }
    if filters.count >= 32 { filters.removeFirst() }
    filters.append((profile, walls.filter))
    return walls
  }

  /// The app's way to the supervisor, also for one that an earlier daemon started.
  func open(_ instance: Instance, _ policy: Policy) async throws(HostFailure) {
    try await doors?.open(
      instance, policy, folder: layout.appSockets(instance.app, instance.generation),
      cgroup: group(instance.app, instance.ownGroup).path)
  }

  func connect(_ socket: SharedDescriptor, _ instance: Instance, _ run: Run) throws(SystemFault) -> ShimConnection {
    try ShimConnection(
      socket, nonce: instance.nonce, on: loop,
      heard: { [unowned self] state in assumeIsolated { $0.heard(instance, state) } },
      lost: { _ in },
      told: { [unowned self] ready, status in assumeIsolated { $0.told(instance, ready, status) } })
  }

  // MARK: Start

  package func start(_ instance: Instance, _ launch: Launch) async throws(HostFailure) -> RunFacts {
    let launch = try resolved(launch)
    let run = try await startable(instance, launch)
    // The shim has bound them by then, or never will.
    defer { takeBack(launch) }
    guard run.connection?.send(.go) == true else {
      throw HostFailure(.failed, "the shim of \(instance.app) ended before the app was started")
    }
    let state: RunState
    if case .preparing = run.state {
      state = await withCheckedContinuation { run.waiting.append($0) }
    } else {
      state = run.state
    }
    switch state {
    case .preparing: throw HostFailure(.failed, "the shim of \(instance.app) ended before the app was started")
    case .running(let facts):
      try await attest(instance, launch, run, facts)
      return self.facts(facts, launch.policy, run)
    case .ended(let outcome):
      if case .neverStarted(let step, let reason, let code) = outcome.cause {
        run.isEndKnown = true
        throw Self.failure(instance.app, step, reason, code)
      }
      // It ran, and was faster than us: its end is an event like any other.
      defer { announce(instance, run, outcome) }
      return RunFacts(
        pid: 0, startedAt: WallTime(nanoseconds: outcome.startedAt ?? outcome.endedAt),
        ports: launch.policy.network.ports,
        missing: run.missing)
    }
  }

  /// The run of a created instance; one that an earlier daemon created gets a new shim, because its own left with that daemon.
  private func startable(_ instance: Instance, _ launch: Launch) async throws(HostFailure) -> Run {
    if let run = runs[instance] {
      guard !run.isStarted else { throw HostFailure(.conflict, "\(instance.app) has been started already") }
      run.isStarted = true
      return run
    }
    let group = group(instance.app, instance.ownGroup)
    guard group.exists else { throw HostFailure(.missing, "\(instance.app) was not created") }
    let run = Run(group, launch.policy.limits)
    run.isStarted = true
    do throws(HostFailure) { try await build(instance, launch, run) } catch {
      runs[instance] = nil
      run.connection?.close()
      throw error
    }
    return run
  }

  private static func failure(_ app: AppID, _ step: String, _ reason: String, _ code: Int32) -> HostFailure {
    let message = "\(app) could not be started: \(step): \(reason)"
    switch (step, code) {
    case ("ports", EADDRINUSE):
      return HostFailure(.conflict, message, hint: "Publish another port, or stop what holds this one")
    case ("program", ENOENT):
      return HostFailure(
        .missing, message, hint: "`entry` and `entrypoint` are paths in the app's root, or names looked for in its PATH"
      )
    case ("image", EINVAL):
      return HostFailure(
        .refused, message, hint: "Apps from images need idmapped layers of overlayfs: Linux 5.19, on ext4, xfs or btrfs"
      )
    case (_, ELOOP) where step.hasPrefix("mount /"):
      return HostFailure(
        .refused, message, hint: "A link of the image lies where something is mounted: it is not followed")
    case ("exec", ENOENT):
      return HostFailure(.missing, message, hint: "Its interpreter or loader is not in the app's root")
    case ("exec", EACCES): return HostFailure(.refused, message, hint: "The app's user may not run it: see its mode")
    case ("exec", ENOEXEC):
      return HostFailure(.refused, message, hint: "It is neither a program for this machine nor a #! script")
    case ("mount /proc", EPERM):
      return HostFailure(
        .refused, message, hint: "This host's own /proc is partly covered, as in a container: run on the host itself")
    case ("working_dir", _): return HostFailure(.missing, message, hint: "working_dir is a path inside the app's root")
    default: return HostFailure(.failed, message)
    }
  }

  func facts(_ facts: RunningFacts, _ policy: Policy, _ run: Run) -> RunFacts {
    var ports = policy.network.ports
    for (index, taken) in facts.ports.enumerated() where index < ports.count { ports[index].hostPort = taken }
    return RunFacts(
      pid: facts.pid, startedAt: WallTime(nanoseconds: facts.startedAt), ports: ports, missing: run.missing,
      saidReady: run.saidReady)
  }

  /// Step 19: reads from the kernel what the policy asks, and kills what lacks any of it. A process that is about to end has left
  /// its groups a moment before it says so, hence the second looks.
  private func attest(_ instance: Instance, _ launch: Launch, _ run: Run, _ facts: RunningFacts)
    async throws(HostFailure)
  {
    var wrong: LayerReport?
    var looks = 0
    while looks < 10 {
      wrong = Attestation.check(facts, launch, run.group).first {
        $0.status == .missing && (launch.policy.enforcement == .strict || $0.isLayer)
      }
      if wrong == nil { break }
      if case .ended = run.state { return }
      // What is being taken down runs nothing any more, however long that takes.
      if !Attestation.isEnding(facts.pid) { looks += 1 }
      try? await Task.sleep(for: .milliseconds(1))
    }
    if wrong == nil, run.isFiltered, let report = await networkReport(launch), report.status == .missing {
      wrong = report
    }
    guard let wrong else { return }
    // Best effort: the shim tells the end, and remove tries again.
    try? run.group.kill()
    let reason = wrong.note ?? "missing"
    throw HostFailure(
      .refused, "\(instance.app) was killed: the kernel does not show \(wrong.name) in force: \(reason)")
  }

  // MARK: What shims tell

  private func told(_ instance: Instance, _ ready: Bool, _ status: [UInt8]) {
    guard let run = runs[instance] else { return }
    run.saidReady = ready
    tell.yield(.told(instance, ready: ready, status: NotifyMessage(status).status))
  }

  private func heard(_ instance: Instance, _ state: RunState?) {
    guard let run = runs[instance] else { return }
    guard let state else { return shimGone(instance, run) }
    run.state = state
    run.wasReconnected = false
    wake(run)
    // A throwing or returning `start` comes first; it announces itself what ended before it looked.
    if case .ended(let outcome) = state, !run.waitingForStart { announce(instance, run, outcome) }
  }

  func wake(_ run: Run) {
    run.waitingForStart = !run.waiting.isEmpty
    for waiting in run.waiting { waiting.resume(returning: run.state) }
    run.waiting = []
  }

  func announce(_ instance: Instance, _ run: Run, _ outcome: RunOutcome) {
    guard !run.isEndKnown else { return }
    run.isEndKnown = true
    endReaders(run)
    tell.yield(.exited(instance, Self.report(outcome)))
  }

  static func report(_ outcome: RunOutcome) -> ExitReport {
    let cause: ExitReport.Cause =
      switch outcome.cause {
      case .code(let code): .code(code)
      case .signal(let number): .signal(number)
      case .neverStarted(let step, let reason, _): .neverStarted(step: step, reason: reason)
      }
    return ExitReport(
      cause: cause, outOfMemory: outcome.outOfMemory,
      startedAt: outcome.startedAt.map { WallTime(nanoseconds: $0) },
      endedAt: WallTime(nanoseconds: outcome.endedAt))
  }

  /// The connection ended without the shim saying how the app did. One that is alive answers at its socket; else somebody killed
  /// it, and an app nobody watches must not go on.
  private func shimGone(_ instance: Instance, _ run: Run) {
    wake(run)
    guard case .running = run.state, !run.isEndKnown else { return }
    if !run.wasReconnected, reconnect(instance, run) { return }
    run.isEndKnown = true
    endReaders(run)
    // Best effort: remove tries again, and says what is left.
    try? run.group.kill()
    tell.yield(
      .exited(
        instance,
        ExitReport(cause: .unknown("its shim was killed"), startedAt: nil, endedAt: Clock.wall())))
  }

  /// Once, until it has told something again: a shim that hangs up on us each time is not one we can work with.
  private func reconnect(_ instance: Instance, _ run: Run) -> Bool {
    run.wasReconnected = true
    do throws(SystemFault) {
      let path = "\(Self.sockets(layout))/\(Self.runName(instance)).sock"
      run.connection = try connect(SharedDescriptor(UnixSocket.connect(path, kind: .packets)), instance, run)
    } catch { return false }
    return run.connection?.send(.status) == true
  }

  private func discard(_ run: Run) {
    run.connection?.close()
    // Best effort: an empty group left over is made use of by the next launch.
    _ = try? run.group.remove()
  }
}
