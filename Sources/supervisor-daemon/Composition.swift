internal import Calls
internal import Cgroups
internal import ContainerHosting
internal import Control
internal import EngineAPI
internal import Glibc
internal import ImageStorage
internal import Linux
internal import Logging
internal import Model
internal import Networking
internal import Policies
internal import ProcessHosting
internal import RPC
internal import Scheduling
internal import Storage
internal import Supervision
internal import Telemetry

/// The daemon's parts, made in order: each has what it needs before it exists.
struct Composition {
  let layout: InstanceLayout
  let store: Store
  let snapshot: StorageSnapshot
  let supervisor: Supervisor
  let interface: AppInterface
  let server: RPCServer
  let standing: Standing
  let reload: Reload
  let log: Logger
  private let fabric: NetworkFabric
  private let metrics: Metrics?
  private let end: AsyncStream<Void>
  private let requestEnd: AsyncStream<Void>.Continuation
  private let reloads: AsyncStream<Void>
  private let requestReload: AsyncStream<Void>.Continuation
  private let loop: EventLoop

  static let environment: [String: String] = {
    var variables: [String: String] = [:]
    var entry = environ
    while let text = entry.pointee {
      let pair = String(cString: text).split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      if pair.count == 2 { variables[String(pair[0])] = String(pair[1]) }
      entry = entry.advanced(by: 1)
    }
    return variables
  }()

  static func make(_ folders: InstancePlace.Folders, _ flags: Flags, _ log: Logger) async -> Composition {
    let configuration = readConfiguration(folders)
    do {
      try refuseEmptied(folders)
      try keepToOurselves("state.db", in: Folder(opening: folders.state))
      let store = try Store(path: "\(folders.state)/state.db")
      var snapshot = try await store.load()
      let id = try await identity(store, &snapshot)
      let layout = InstanceLayout(
        config: folders.config, state: folders.state, run: folders.run, log: folders.log,
        name: name(configuration, flags, id), id: id,
        cgroupBase: configuration.cgroupParent)
      let loop = try EventLoop(name: "control")
      let rules = configuration.rules
      let choice = flags.engine ?? configuration.engine.text
      let engineLoop = try EventLoop(name: "engine")
      let found = await EngineChoice.find(
        choice, environment, runtimeFolder: getuid() == 0 ? nil : environment["XDG_RUNTIME_DIR"], on: engineLoop)
      log.notice(
        "engine.chosen",
        metadata: [
          "choice": "\(choice)", "engine": "\(found.endpoint.map { "\($0)" } ?? "none")", "reason": "\(found.reason)",
        ])
      if choice != "auto" { refuseOtherEngine(found, choice, snapshot, layout) }
      let images = try ImageStore(folder: layout.images, program: "/proc/self/exe")
      if let trouble = images.trouble { log.error("images.quarantined", metadata: ["reason": "\(trouble)"]) }
      let interface = try AppInterface(
        run: folders.run, version: Build.version, store: store, decisions: snapshot.decisions,
        parents: snapshot.parents, log: log)
      let fabric = try NetworkFabric(layout) { name, reason in log.warning("\(name)", metadata: ["reason": "\(reason)"])
      }
      let hosts = try makeHosts(layout, found.endpoint, configuration, engineLoop, interface, fabric, images)
      if let containers = hosts[.container] as? ContainerHost { await fabric.use(containers) }
      let supervisor = Supervisor(
        .init(
          layout: layout, store: store, hosts: hosts, uidBase: ids(configuration).base,
          uidBlock: ids(configuration).size,
          admission: Admission(capacity: HostMemory.capacity(), reserve: configuration.reserve.memory),
          engine: found.endpoint?.socket ?? "", noEngine: found.reason, log: log, alarms: Alarms(on: loop),
          doors: interface))
      await interface.use(try KnownApps(supervisor))
      let standing = Standing(rules: rules, authority: Operators.authority(configuration, log))
      let reload = Reload(configuration, folders, environment, supervisor, standing, log)
      let (reloads, requestReload) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
      let (end, requestEnd) = AsyncStream.makeStream(of: Void.self)
      let parts = EngineParts(
        access: found.endpoint.map { EngineAccess($0, on: engineLoop) },
        containers: hosts[.container] as? ContainerHost,
        images: StoreParts(store: images) { await supervisor.imagesInUse }, choice: choice, reason: found.reason,
        layout: layout,
        data: AppData(layout: layout) { await supervisor.volumesInUse }, reloading: { await reload.run() },
        end: { requestEnd.yield() })
      let facts = DaemonFacts(
        version: Build.version, pid: getpid(), root: rootText(flags.place, folders), layout: layout)
      let service = ControlService(
        supervisor: supervisor, facts: facts, parts: parts, standing: standing, interface: interface, store: store,
        audit: try Audit(folder: folders.log, maximumSize: configuration.auditSize) { fault in
          log.error("audit.not_written", metadata: ["reason": "\(fault)"])
        }, counted: { Counted.call($0, denied: $1) })
      let server = RPCServer(
        loop: loop, listener: try Operators.listen(folders.run, "supervisor.sock", configuration, log),
        service: service,
        quota: PeerQuota { [own = geteuid()] in $0.uid != 0 && $0.uid != own })
      return Composition(
        layout: layout, store: store, snapshot: snapshot, supervisor: supervisor, interface: interface,
        server: server,
        standing: standing, reload: reload, log: log, fabric: fabric,
        metrics: Metrics.make(configuration, folders, supervisor, on: loop, log), end: end, requestEnd: requestEnd,
        reloads: reloads, requestReload: requestReload, loop: loop)
    } catch let failure as StorageFailure {
      fail(78, "\(failure)", "the folder is \(folders.state)")
    } catch {
      fail(1, "the daemon cannot start: \(error)", "`supervisor doctor` checks this host")
    }
  }

  /// Containers that run in one engine cannot be looked after through another: one that was asked for by name is refused as long as
  /// the kernel shows any of them. (With `auto` another may have been found because theirs is down: then they wait.)
  private static func refuseOtherEngine(
    _ found: EngineChoice, _ choice: String, _ snapshot: StorageSnapshot, _ layout: InstanceLayout
  ) {
    // best effort: where cgroups cannot be read at all, making the hosts says so.
    guard let hierarchy = try? CgroupHierarchy.detect() else { return }
    let others = snapshot.instances.filter { stored in
      guard stored.runtime == .container, !stored.engine.isEmpty, stored.engine != found.endpoint?.socket else {
        return false
      }
      let app = stored.instance.app
      let generation = stored.instance.ownGroup
      let slice = CgroupName.slice(
        base: layout.cgroupBase, instance: layout.name, app: app, generation: generation)
      return [
        AppCgroup(hierarchy, parent: layout.cgroupParent, app: app, generation: generation, kind: .container),
        AppCgroup(hierarchy, slice: slice),
      ].contains { (try? $0.isPopulated) == true }
    }
    guard let first = others.first else { return }
    let names = others.map(\.instance.app.name).sorted().joined(separator: ", ")
    fail(
      78, "the engine cannot be changed to '\(choice)' while containers run in \(first.engine): \(names)",
      "start the daemon with `--engine \(first.engine)`, take these apps down, then change the engine")
  }

  /// An empty file is a database without apps; where apps were kept it is one that has lost them.
  private static func refuseEmptied(_ folders: InstancePlace.Folders) throws {
    let path = "\(folders.state)/state.db"
    guard File.exists("\(folders.state)/runs"), !File.exists("\(path)-wal") else { return }
    // best effort: what cannot be read for another reason is told when it is opened.
    guard (try? File.tail(path, 1))?.isEmpty ?? !File.exists(path) else { return }
    throw StorageFailure.damaged(path: path, why: "it is empty or gone, though apps have run here")
  }

  /// Nobody else may read what apps are given in their environment. A new database's companions take their mode from it.
  private static func keepToOurselves(_ database: String, in folder: borrowing Folder) throws(SystemFault) {
    for name in ["", "-wal", "-shm"].map({ database + $0 })
    where name == database || File.exists("\(folder.path)/\(name)") {
      let file = try folder.open(name, O_RDWR | O_CREAT, mode: 0o600)
      try file.withRaw { (raw) throws(SystemFault) in _ = try check("chmod", name) { fchmod(raw, 0o600) } }
    }
  }

  private static func rootText(_ place: InstancePlace, _ folders: InstancePlace.Folders) -> String {
    if case .root(let root) = place { root } else { folders.state }
  }

  /// config.yaml, or its defaults; a wrong one ends the daemon with 78 and every problem.
  private static func readConfiguration(_ folders: InstancePlace.Folders) -> Configuration {
    let path = "\(folders.config)/config.yaml"
    let bytes: [UInt8]
    do throws(SystemFault) { bytes = try File.read(path, limit: 1 << 20 + 1) } catch  where error.code == ENOENT {
      return Configuration()
    } catch { fail(78, "the configuration cannot be read: \(error)", "check the file's permissions") }
    let reading = Policies.readConfiguration(bytes)
    guard let configuration = reading.configuration else {
      fail(
        78, "the configuration is not valid\n" + reading.problems.map { $0.rendered(file: path) }.joined(),
        "`supervisor policy check \(path)` checks it")
    }
    return configuration
  }

  /// The instance's own random id, made once.
  private static func identity(_ store: Store, _ snapshot: inout StorageSnapshot) async throws -> String {
    if let id = snapshot.values["instance_id"] { return id }
    let id = Nonce.make()
    try await store.setValue("instance_id", id)
    snapshot.values["instance_id"] = id
    return id
  }

  /// An instance under a root of its own is named by its id, so that several can run side by side.
  private static func name(_ configuration: Configuration, _ flags: Flags, _ id: String) -> String {
    if configuration.instance != Configuration().instance { return configuration.instance }
    if case .system = flags.place { return "default" }
    return String(id.prefix(8))
  }

  /// Root has a block of ids for each app. An ordinary user has 65536 in all (subuid(5)), so each app gets one of them.
  private static func ids(_ configuration: Configuration) -> (base: UInt32, size: UInt32) {
    getuid() == 0
      ? (configuration.uidRange.base, configuration.uidRange.size)
      : (SubordinateIDs.own()?.first ?? configuration.uidRange.base, 1)
  }

  private static func makeHosts(
    _ layout: InstanceLayout, _ endpoint: EngineEndpoint?, _ configuration: Configuration, _ loop: EventLoop,
    _ doors: any AppDoors, _ fabric: NetworkFabric, _ images: ImageStore
  ) throws -> [Runtime: any AppHost] {
    let hierarchy = try CgroupHierarchy.detect()
    var hosts: [Runtime: any AppHost] = [:]
    hosts[.native] = try NativeHost(
      layout: layout, hierarchy: hierarchy, shimPath: Programs.find("supervisor-shim"), images: images,
      engineSockets: endpoint.map { [$0.socket] } ?? [], doors: doors, fabric: getuid() == 0 ? fabric : nil)
    guard let endpoint else { return hosts }
    var settings = ContainerSettings(endpoint: endpoint, layout: layout, hierarchy: hierarchy)
    settings.doors = doors
    settings.uidRangeBase = ids(configuration).base
    settings.externalVolumes = configuration.externalVolumes
    settings.externalNetworks = configuration.externalNetworks
    settings.unsafeHostUIDs = Set(configuration.unsafeHostUIDs.compactMap { AppID($0) })
    settings.gate = EngineGate(
      refused: configuration.engineGate.refuse, acceptsDegraded: configuration.engineGate.acceptDegraded)
    // An ordinary user has none: what the policy asks of one is refused.
    if getuid() == 0 { settings.fabric = fabric }
    hosts[.container] = try ContainerHost(settings, on: loop)
    return hosts
  }

  // MARK: Running

  /// Serves until asked to end. Apps are not touched by the end.
  func run(interrupts: Int32) async {
    watch(interrupts)
    await withTaskGroup(of: Void.self) { group in
      group.addTask { await supervisor.followHosts() }
      let events = await supervisor.observe()
      group.addTask { for await event in events { await interface.publish(event) } }
      await supervisor.recover(
        snapshot, bootID: BootID.read(), rules: standing.rules, read: readStored, readInstance: readInstance)
      group.addTask { await supervisor.takeOver() }
      group.addTask { await metrics?.run(log) }
      group.addTask { await fabric.run() }
      group.addTask { await Notify.watch { _ = await supervisor.lastCursor } }
      // What the first caller sees is what runs, unless an engine takes its time.
      await supervisor.tookOver(within: .seconds(1))
      do throws(SystemFault) { try await server.start() } catch {
        fail(1, "the control socket cannot be served: \(error)", "check \(layout.run)")
      }
      Notify.send("READY=1\nMAINPID=\(getpid())")
      log.notice(
        "daemon.ready",
        metadata: ["pid": "\(getpid())", "instance": "\(layout.name)", "socket": "\(layout.controlSocket)"])
      group.addTask { for await _ in reloads { _ = await reload.run() } }
      for await _ in end { break }
      Notify.send("STOPPING=1")
      await server.close()
      group.cancelAll()
    }
    await store.close()
    removeEmptyGroups()
  }

  /// The instance's groups would outlast an instance without apps; those that hold apps or shims cannot be removed.
  private func removeEmptyGroups() {
    // best effort: an empty group costs next to nothing.
    guard let hierarchy = try? CgroupHierarchy.detect() else { return }
    // best effort: as above; a shim may need a moment to be gone.
    _ = try? AppCgroup.shims(hierarchy, parent: layout.cgroupParent).remove(within: .milliseconds(200))
    // best effort: as above; monitors leave by themselves.
    _ = try? AppCgroup.monitors(hierarchy, parent: layout.cgroupParent).remove()
    AppCgroup.removeParent(hierarchy, parent: layout.cgroupParent)
  }

  /// SIGTERM and SIGINT end the daemon, SIGHUP has it read its configuration again.
  private func watch(_ interrupts: Int32) {
    guard interrupts >= 0 else {
      fail(1, "signals cannot be read: \(SystemFault.text(of: -interrupts))", "`supervisor doctor` checks this host")
    }
    loop.submit { [loop, requestEnd, requestReload] in
      // The descriptor lives as long as the process.
      do throws(SystemFault) {
        try loop.watch(interrupts, .read) { _ in
          // struct signalfd_siginfo, 128 bytes, begins with the number.
          var facts = [UInt32](repeating: 0, count: 32)
          while facts.withUnsafeMutableBytes({ Glibc.read(interrupts, $0.baseAddress, $0.count) }) == 128 {
            if facts[0] == UInt32(SIGHUP) { requestReload.yield() } else { requestEnd.yield() }
          }
        }
      } catch {
        requestEnd.yield()
      }
      loop.setInterest(interrupts, .read)
    }
  }

  private func readStored(_ app: StoredApp) -> Result<Policy, HostFailure> { readBack(app.canonical) }

  private func readInstance(_ instance: StoredInstance, _ app: StoredApp) -> Result<Policy, HostFailure> {
    readBack(instance.canonical)
  }

  private func readBack(_ canonical: String) -> Result<Policy, HostFailure> {
    // best effort: reported just below.
    guard let document = try? JSONValue(parsing: Array(canonical.utf8)) else {
      return .failure(
        HostFailure(.failed, "its applied copy cannot be read", hint: "load its policy file again with `supervisor up`")
      )
    }
    let reading = Policies.readApplied(document, rules: standing.rules)
    guard let policy = reading.policy else {
      let why = reading.problems.map(\.message).joined(separator: "; ")
      return .failure(
        HostFailure(
          .refused, "its applied copy is not valid any more: \(why)",
          hint: "change its policy file and `supervisor up` it again"))
    }
    return .success(policy)
  }
}

/// Tells one boot of this host from another.
enum BootID {
  static func read() -> String {
    // best effort: without it no reboot is noticed.
    let text = (try? File.text("/proc/sys/kernel/random/boot_id")) ?? ""
    return String(text.prefix { $0 != "\n" })
  }
}

/// Memory of this host, in all.
enum HostMemory {
  static func capacity() -> Bytes {
    // best effort: nothing is admitted without it, which says so.
    let text = (try? File.text("/proc/meminfo")) ?? ""
    let line = text.split(separator: "\n").first { $0.hasPrefix("MemTotal:") } ?? ""
    let kilobytes = line.split(separator: " ").dropFirst().first.flatMap { UInt64($0) } ?? 0
    return Bytes(kilobytes << 10)
  }
}

/// Programs installed with this one.
enum Programs {
  /// `name` beside this program, or in `../libexec/appsupervisor`; the first place if it is in neither, so that the error names it.
  static func find(_ name: String) -> String {
    let own = realpath("/proc/self/exe", nil).map { path in
      defer { free(path) }
      return String(cString: path)
    }
    let folder = (own ?? "/usr/bin/x").split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" }
    let places = ["\(folder)/\(name)", "\(folder)/../libexec/appsupervisor/\(name)"]
    return places.first { access($0, X_OK) == 0 } ?? places[0]
  }
}

extension Configuration.Engine {
  /// As `--engine` writes it.
  var text: String {
    switch self {
    case .auto: "auto"
    case .docker: "docker"
    case .podman: "podman"
    case .none: "none"
    case .socket(let path): path
    }
  }
}
