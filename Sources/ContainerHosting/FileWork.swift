internal import Cgroups
internal import FileSystems
internal import Linux
internal import Model
internal import Scheduling

/// A thread for work on files that may wait for the disk, so that no thread of the pool does.
actor FileWork {
  private nonisolated let loop: EventLoop
  nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }
  /// Folders in which this daemon pinned something that is still to be used.
  private var pinned: Set<String> = []

  init() throws(SystemFault) { loop = try EventLoop(name: "container-files") }

  deinit { loop.stop() }

  /// `pins`: where its sources are pinned.
  func prepare(_ table: MountTable, pins: String? = nil) throws(HostFailure) {
    if let pins { pinned.insert(pins) }
    do throws(MountProblem) { try table.prepareSources() } catch { throw HostFailure(error) }
  }

  /// Whether the engine behind `socket` sees what was pinned; it would give the container empty folders otherwise. One that does not
  /// can only be trusted with paths, and so only with those that root's own policies name.
  func pinsAreSeen(_ table: MountTable, socket: String, isRoots: Bool) throws(HostFailure) -> Bool {
    let pid: Int32
    do throws(SystemFault) {
      let connection = try UnixSocket.connect(socket)
      pid = try connection.withRaw { (raw) throws(SystemFault) in try UnixSocket.peer(raw).pid }
    } catch { throw HostFailure(.unavailable, "the engine cannot be reached: \(error)") }
    if table.pinsAreSeen(by: pid) { return true }
    guard isRoots else {
      throw HostFailure(
        .refused,
        "the engine does not see what the supervisor mounts, so neither secrets nor another user's folders can be given to a container",
        hint: "Run both in one mount namespace")
    }
    return false
  }

  /// Tells systemd the limits of a group that is its.
  func hold(_ group: AppCgroup, _ limits: Limits, _ share: CPUShare) throws(HostFailure) {
    guard let slice = group.slice else { return }
    do throws(SystemdFault) { try slice.hold(limits, share: share, group.hierarchy) } catch {
      throw HostFailure(
        .failed, "systemd did not take the limits of \(slice.unit): \(error)",
        hint: "the engine's cgroup driver is systemd, so its manager must answer: `systemctl status`")
    }
  }

  func tellProtection(_ group: AppCgroup) {
    // Best effort: it is in force, and lost only when systemd reloads before the next app changes it.
    try? group.tellProtection()
  }

  func release(_ group: AppCgroup) {
    // Best effort: one that stays holds limits and no process, and is made use of by the next start.
    try? group.slice?.release()
  }

  /// The interfaces of a process's network namespace.
  func links(of pid: Int32) throws(SystemFault) -> [NetworkLink] {
    let process = try Pidfd(of: pid)
    let home = SharedDescriptor(try Namespaces.ownNetwork())
    return try Namespaces.inNetwork(of: process, home: home) { () throws(SystemFault) in try NetworkLinks.list() }
  }

  /// What leaves an interface of a process's network namespace is held to so many bits a second.
  func shape(_ name: String, of pid: Int32, bitsPerSecond: UInt64) throws(SystemFault) {
    let process = try Pidfd(of: pid)
    let home = SharedDescriptor(try Namespaces.ownNetwork())
    try Namespaces.inNetwork(of: process, home: home) { () throws(SystemFault) in
      try NetworkLinks.shape(name, bitsPerSecond: bitsPerSecond)
    }
  }

  func checkSecrets(_ policy: Policy, _ layout: InstanceLayout) throws(HostFailure) {
    do throws(SecretProblem) { try SecretDelivery.check(policy, layout) } catch {
      throw HostFailure(.refused, error.description)
    }
  }

  func deliver(_ secrets: SecretDelivery) throws(HostFailure) -> [(name: String, value: String)] {
    do throws(SecretProblem) { return try secrets.deliver() } catch {
      throw HostFailure(.refused, error.description)
    }
  }

  func sweepSecrets(_ layout: InstanceLayout, keeping runs: Set<String>) {
    SecretDelivery.sweep(layout, .container, keeping: runs)
    DeviceDelivery.sweep(layout, .container, keeping: runs)
  }

  func checkDevices(_ policy: Policy) throws(HostFailure) {
    do throws(DeviceProblem) { try DeviceDelivery.check(policy) } catch {
      throw HostFailure(.refused, error.description)
    }
  }

  func deliver(_ devices: DeviceDelivery) throws(HostFailure) {
    do throws(DeviceProblem) { _ = try devices.deliver() } catch {
      throw HostFailure(.refused, error.description)
    }
  }

  func takeBack(run: String, _ layout: InstanceLayout) {
    SecretDelivery.takeBack(layout, .container, run: run)
    DeviceDelivery.takeBack(layout, .container, run: run)
  }

  func changedSecrets(_ policy: Policy, _ layout: InstanceLayout) -> [String] { SecretMemory(layout).changed(policy) }

  func unpin(_ folder: String) {
    MountTable.unpinAll(folder)
    pinned.remove(folder)
  }

  /// Takes away what an earlier daemon pinned in the folders of `place`, but for those in `keeping`.
  func unpinOthers(in place: String, keeping: Set<String>) {
    MountTable.unpinAll(in: place, keeping: pinned.union(keeping))
  }

  func usages(_ all: [(Instance, AppCgroup, Int32)], details: Bool) -> [Instance: Usage] {
    var usages: [Instance: Usage] = [:]
    for (instance, group, process) in all where group.exists {
      usages[instance] = details ? group.detailedUsage(network: process) : group.usage()
    }
    return usages
  }

  /// Puts a filter where an engine can read it, and returns the path. The name says the content, so it is written once.
  func storeFilter(_ json: String, in folder: String) throws(HostFailure) -> String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in json.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    let name = "\(String(hash, radix: 16)).json"
    do throws(SystemFault) {
      let place = try Folder(making: folder, mode: 0o700)
      if let there = try? place.read(name), there == Array(json.utf8) { return "\(folder)/\(name)" }
      try place.replace(name, with: Array(json.utf8), mode: 0o600)
      return "\(folder)/\(name)"
    } catch {
      throw HostFailure(.failed, "the system call filter could not be stored: \(error)")
    }
  }

  /// Takes away what an instance saw of our sockets.
  func removeSockets(_ run: String, _ name: String) {
    // Best effort: an empty folder that stays is made use of by nobody, and goes with the next boot.
    _ = try? Tree.remove("apps", name, in: run)
  }

  func append(_ chunks: [LogChunk], run: UInt64, to log: DrainedLog) throws(SystemFault) {
    try log.append(chunks, run: run)
  }

  func read(_ log: DrainedLog, _ query: LogQuery, from position: DrainedLog.Position?) throws(SystemFault) -> (
    chunks: [LogChunk], next: DrainedLog.Position?
  ) {
    try log.read(query, from: position)
  }
}

extension HostFailure {
  init(_ problem: MountProblem) {
    let kind: Kind =
      switch problem {
      case .missingSource: .missing
      case .notMade: .failed
      case .badTarget, .duplicateTarget, .nested, .badSource, .forbiddenSource, .linkedSource, .externalVolume: .refused
      }
    self.init(kind, problem.description)
  }
}
