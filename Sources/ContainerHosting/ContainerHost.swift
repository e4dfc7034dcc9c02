internal import Cgroups
internal import EngineAPI
internal import Glibc
internal import Health
package import Linux
package import Model
internal import FileSystems
internal import Networking
internal import Sandboxing
internal import Scheduling

/// Apps as containers of one engine.
///
/// `run` follows what happens at the engine and must be running for events to arrive. Calls before the engine answers, or
/// while it is away, fail as `unavailable`.
package final class ContainerHost: AppHost {
  package let runtime = Runtime.container
  package let events: AsyncStream<HostEvent>
  let told: AsyncStream<HostEvent>.Continuation
  let settings: ContainerSettings
  let link: EngineLink
  let register = Register()
  let networks: Networks
  let turnstile: Turnstile
  let files: FileWork
  let loop: EventLoop
  let prober: Prober
  let notifySockets: NotifySockets

  /// Connects to nothing yet. `loop` carries all engine connections.
  package init(_ settings: ContainerSettings, on loop: EventLoop) throws(SystemFault) {
    self.settings = settings
    self.loop = loop
    (events, told) = AsyncStream.makeStream(of: HostEvent.self)
    link = EngineLink(settings.endpoint, loop, callTimeout: settings.callTimeout)
    networks = Networks(settings)
    turnstile = Turnstile(width: settings.width)
    files = try FileWork()
    prober = try Prober()
    notifySockets = NotifySockets(on: loop)
  }

  /// Which engine answers, and what it is; for `doctor` and `status`.
  package func engineFacts() async throws(HostFailure) -> EngineFacts { try await link.facts() }

  // MARK: Before anything is made

  package func prepare(_ policy: Policy, progress: @escaping @Sendable (WorkProgress) -> Void)
    async throws(HostFailure) -> String
  {
    guard let source = policy.image else {
      throw HostFailure(.refused, "\(policy.id) has no image", hint: "Add `image` or `build` to its policy")
    }
    let engine = try await link.engine()
    let facts = try await link.facts()
    try Self.refuseEngine(facts)
    try refuseFolders(policy, facts)
    _ = try mounts(policy, uidBase: settings.uidRangeBase)
    try refuseSecretVariables(policy)
    try await files.checkSecrets(policy, settings.layout)
    try await files.checkDevices(policy)
    try refuseShortfalls(policy, cgroup(policy.id, nil, facts).unsupported(policy.limits))
    try await refuseUnfiltered(policy)
    if let memory = policy.limits.memory, memory < .mebibytes(6) {
      throw HostFailure(.refused, "mem_limit is \(memory.readable); an engine starts nothing below 6 MiB")
    }
    let image = try await Images(engine: engine, progress: progress).resolve(source, as: policy.loader)
    try Images.check(image, policy, settings)
    try refuseNeverReady(policy, image)
    return image.id
  }

  /// What the name means at the engine now; an engine that is away has nothing to compare with.
  package func present(_ policy: Policy) async -> String? {
    guard let source = policy.image else { return nil }
    // best effort: see above.
    return try? await Images(engine: link.engine(), progress: { _ in }).find(source.reference)?.id
  }

  /// Engines an app's uid or limits would not be true on.
  private static func refuseEngine(_ facts: EngineFacts) throws(HostFailure) {
    let isRoot = getuid() == 0
    if facts.isRootless, isRoot {
      throw HostFailure(
        .refused,
        "the engine at \(facts.endpoint) runs without root: an app's own uid and its limits cannot be held there",
        hint: "Use an engine that runs as root, or an instance of that engine's user: `supervisor --user`")
    }
    if !facts.isRootless, !isRoot {
      throw HostFailure(
        .refused,
        "the engine at \(facts.endpoint) runs as root, and this instance does not: it cannot make an app's group there",
        hint: "Use your user's own engine: `systemctl --user enable --now podman.socket`")
    }
    if facts.isRootless, facts.cgroupDriver != "systemd" {
      throw HostFailure(
        .refused, "the engine at \(facts.endpoint) has no cgroups of its own: no limit can be held there",
        hint: "Start it under your user's systemd, on cgroup v2: `systemctl --user enable --now podman.socket`")
    }
    if facts.remapsUsers, !facts.isRootless {
      throw HostFailure(
        .refused, "the engine at \(facts.endpoint) remaps users: an app's own uid cannot be held there yet",
        hint: "Use an engine without userns-remap")
    }
  }

  /// The numbers of apps as the engine's containers see them: one that runs without root begins to count anew.
  func seen(_ uidBase: UInt32, _ facts: EngineFacts?) -> UInt32 {
    facts?.isRootless == true ? uidBase - settings.uidRangeBase : uidBase
  }

  /// Without root nobody can give a folder to an app's own uid.
  private func refuseFolders(_ policy: Policy, _ facts: EngineFacts) throws(HostFailure) {
    guard facts.isRootless, policy.user != .image else { return }
    for mount in policy.mounts where !mount.readOnly {
      guard case .volume(let name, external: false) = mount.kind else { continue }
      throw HostFailure(
        .refused,
        "the volume \(name) of \(policy.id) cannot be made without root: it would have to belong to the app's own uid",
        hint: "Use the engine's own (`external: true`, listed under external_volumes), or tmpfs")
    }
  }

  /// The app's parent group, where this engine's driver wants it; `generation`: of a container that was made beside another.
  func cgroup(_ app: AppID, _ generation: UInt64?, _ facts: EngineFacts?) -> AppCgroup {
    guard facts?.cgroupDriver == "systemd" else {
      return AppCgroup(
        settings.hierarchy, parent: settings.layout.cgroupParent, app: app, generation: generation, kind: .container)
    }
    return AppCgroup(settings.hierarchy, slice: slice(app, generation))
  }

  func cgroup(_ instance: Instance, _ facts: EngineFacts?) -> AppCgroup {
    cgroup(instance.app, instance.ownGroup, facts)
  }

  private func slice(_ app: AppID, _ generation: UInt64?) -> String {
    CgroupName.slice(
      base: settings.layout.cgroupBase, instance: settings.layout.name, app: app, generation: generation)
  }

  private func mounts(_ policy: Policy, uidBase: UInt32, pins: String? = nil, secrets: String? = nil)
    throws(HostFailure) -> MountTable
  {
    do throws(MountProblem) {
      return try MountTable(
        policy, settings.layout, uidBase: uidBase, engineSockets: [settings.endpoint.socket], pins: pins,
        secrets: secrets)
    } catch {
      throw HostFailure(error)
    }
  }

  /// Where one container's sources are made visible while it is being started.
  func pins(_ app: AppID, _ generation: UInt64) -> String { "\(bindsFolder)/\(app).\(generation)" }
  var bindsFolder: String { "\(settings.layout.run)/binds" }

  /// Takes away what was made visible for one container.
  func unpin(_ policy: Policy, _ generation: UInt64) async {
    let binds = policy.mounts.contains { if case .bind = $0.kind { true } else { false } }
    if binds { await files.unpin(pins(policy.id, generation)) }
  }

  func refuseShortfalls(_ policy: Policy, _ shortfalls: [Shortfall]) throws(HostFailure) {
    guard policy.enforcement == .strict, let first = shortfalls.first else { return }
    throw HostFailure(
      .refused, "a limit of \(policy.id) cannot be enforced here: \(first)",
      hint: "Remove it, or set `enforcement: degrade` to run without it")
  }

  // MARK: Create

  package func create(_ launch: Launch) async throws(HostFailure) -> Instance {
    let engine = try await link.engine()
    try await refuseGated()
    return try await turnstile.pass { () throws(HostFailure) in
      try await self.createOne(launch, engine)
    }
  }

  private func createOne(_ launch: Launch, _ engine: Engine) async throws(HostFailure) -> Instance {
    let policy = launch.policy
    let name = settings.containerName(policy.id, launch.generation)
    let network = try await self.place(launch)
    var names: [String] = []
    var container: String?
    let unmade = Instance(
      app: policy.id, generation: launch.generation, nonce: launch.nonce, handle: "", isBeside: launch.isBeside)
    do throws(HostFailure) {
      names = try await networks.acquire(policy, holder: name, engine)
      var recipe = try await recipe(launch, engine, names.first)
      recipe.place = network
      let pins = recipe.table.hasPins ? self.pins(policy.id, launch.generation) : nil
      try await files.prepare(recipe.table, pins: pins)
      let variables = try await files.deliver(secrets(launch, recipe.facts))
      try await files.deliver(devices(launch, recipe.facts))
      // Without its secrets an app is not started; a folder that only root names needs no pin.
      if pins != nil || policy.hasSecretFiles,
        try await !files.pinsAreSeen(
          recipe.table, socket: settings.endpoint.socket, isRoots: policy.mayLackPins)
      {
        if let pins { await files.unpin(pins) }
        recipe.table = try mounts(policy, uidBase: recipe.uidBase)
      }
      try await open(unmade, launch)
      try refuseShortfalls(policy, try await limit(launch, recipe.facts))
      var spec = recipe.spec
      for variable in variables { spec.environment.append(variable) }
      let made = try await place(spec, name, engine)
      container = made.id
      // An engine that will not hold to something says so here, and only here.
      if let warning = made.warnings.first(where: { !$0.isEmpty }) {
        throw HostFailure(.refused, "the engine will not hold to the policy of \(policy.id): \(warning)")
      }
      for (index, network) in names.enumerated().dropFirst() {
        let endpoint = recipe.endpoint(at: index)
        try await asked { () throws(EngineFailure) in
          try await engine.connectNetwork(network, container: made.id, endpoint)
        }
      }
      let instance = Instance(
        app: policy.id, generation: launch.generation, nonce: launch.nonce, handle: made.id, isBeside: launch.isBeside)
      await register.add(
        instance, launch, .created, memory: OutOfMemoryWatch(cgroup(instance, recipe.facts)))
      return instance
    } catch {
      await unpin(policy, launch.generation)
      await takeBack(launch)
      // Best effort: what stays has our labels, and adoption removes it.
      if let container { try? await engine.removeContainer(container, force: true, volumes: true) }
      await networks.release(policy, holder: name, engine)
      await settings.doors?.close(unmade)
      await settings.fabric?.release(unmade)
      throw error
    }
  }

  /// Makes the app's group and writes its limits, before anything is in it.
  private func limit(_ launch: Launch, _ facts: EngineFacts) async throws(HostFailure) -> [Shortfall] {
    let policy = launch.policy
    let group = cgroup(policy.id, launch.ownGroup, facts)
    try await files.hold(group, policy.limits, CPUShare(policy))
    do throws(SystemFault) { try group.create(policy.limits) } catch {
      throw HostFailure(.failed, "the cgroup of \(policy.id) could not be made: \(error)")
    }
    let shortfalls = group.apply(policy.limits, share: CPUShare(policy))
    if policy.limits.memoryReservation != nil { await files.tellProtection(group) }
    return shortfalls
  }

  /// Creates it; a left-over of ours under the same name, from a call that was cut off, gives way.
  private func place(_ spec: ContainerSpec, _ name: String, _ engine: Engine) async throws(HostFailure)
    -> CreatedContainer
  {
    do throws(EngineFailure) { return try await engine.createContainer(spec, named: name) } catch {
      let isTaken =
        switch error {
        case .conflict: true;
        default: "\(error)".contains(name) && "\(error)".contains("in use")
        }
      guard isTaken, let other = try? await engine.inspectContainer(name),
        other.labels[Label.instance] == settings.layout.id, await register.entry(other.id) == nil
      else { throw Self.createFailure(error) }
      try await asked { () throws(EngineFailure) in
        try await engine.removeContainer(other.id, force: true, volumes: true)
      }
      return try await asked { () throws(EngineFailure) in try await engine.createContainer(spec, named: name) }
    }
  }

  private static func createFailure(_ failure: EngineFailure) -> HostFailure {
    guard case .notFound(_, let message) = failure else { return HostFailure(failure) }
    return HostFailure(
      .missing, "the container could not be created: \(message)", hint: "Run `up` again to fetch the image")
  }

  /// Everything about the container that follows from the policy and this engine.
  func recipe(_ launch: Launch, _ engine: Engine, _ network: String?) async throws(HostFailure) -> Recipe {
    let facts = try await link.facts()
    guard let image = try await link.image(launch.artifact) else {
      throw HostFailure(
        .missing, "the image \(launch.artifact) of \(launch.policy.id) is no longer on this host",
        hint: "Run `up` again to fetch it")
    }
    try Images.check(image, launch.policy, settings)
    let uidBase = seen(launch.uidBase, facts)
    var recipe = Recipe(
      settings: settings, facts: facts, launch: launch, uidBase: uidBase, image: image,
      // Only root can mount; without it the engine is the same user's, and whatever it opens is hers.
      table: try mounts(
        launch.policy, uidBase: uidBase, pins: getuid() == 0 ? pins(launch.policy.id, launch.generation) : nil,
        secrets: secrets(launch, facts).folder),
      network: network,
      cgroupParent: facts.cgroupDriver == "systemd"
        ? slice(launch.policy.id, launch.ownGroup) : cgroup(launch.policy.id, launch.ownGroup, facts).path)
    if engine.differences.seccompIsFile, let filter = recipe.filter {
      recipe.seccompFile = try await files.storeFilter(filter.json.text, in: "\(settings.layout.run)/seccomp")
    }
    return recipe
  }
}
