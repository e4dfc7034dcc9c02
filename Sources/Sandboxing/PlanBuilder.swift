package import FileSystems
internal import Linux
package import Model

/// Why a policy cannot become a plan on this host; the text is for the user.
package enum PlanProblem: Error, Sendable, Equatable, CustomStringConvertible {
  case program(ProgramProblem)
  case unknownCapability(String)
  case unknownLimit(String)
  case badIdentity(String)
  case notSupported(String)
  case rootfs(String)

  package var description: String {
    switch self {
    case .program(let problem): problem.description
    case .unknownCapability(let name): "\(name) is not a capability this build knows"
    case .unknownLimit(let name): "\(name) is not a resource limit"
    case .badIdentity(let text): text
    case .notSupported(let what): "\(what) is not supported yet for native apps"
    case .rootfs(let text): text
    }
  }
}

extension LaunchPlan.Identity {
  /// Whether the app has these ids itself.
  package func has(uid: UInt32, gid: UInt32) -> Bool {
    func holds(_ map: [LaunchPlan.IDRange], _ id: UInt32, _ own: UInt32) -> Bool {
      id == own || map.contains { $0.inside <= id && id - $0.inside < $0.count }
    }
    return holds(uidMap, uid, self.uid) && holds(gidMap, gid, self.gid)
  }

  /// Whether a uid of the host is one of the app's.
  package func isOwn(hostUID: UInt32) -> Bool {
    guard namespaces.contains(.user) else { return hostUID == uid }
    return uidMap.contains { $0.outside <= hostUID && hostUID - $0.outside < $0.count }
  }
}

extension LaunchPlan {
  /// Where a native app on networks learns names from.
  package struct NameSources: Sendable, Equatable {
    /// A file of the supervisor's that is rewritten where it lies; bound at /etc/hosts.
    package var hosts: String
    /// Name servers' addresses.
    package var resolvers: [String]
    package init(hosts: String, resolvers: [String]) {
      self.hosts = hosts
      self.resolvers = resolvers
    }
  }

  /// What `policy` asks that native apps do not have yet; nil: all can be had.
  package static func unsupported(_ policy: Policy) -> PlanProblem? {
    let network = policy.network
    switch network.mode {
    case .none, .bridge, .named: break
    case .host where policy.preset != .privileged: return .badIdentity("network_mode: host needs sandbox: privileged")
    case .host: break
    }
    if policy.securityOptions.contains(where: { $0.hasPrefix("apparmor=") && $0 != "apparmor=unconfined" }) {
      return .notSupported("security_opt: apparmor")
    }
    if network.mode != .host, network.ports.contains(where: { $0.transport == .udp }) {
      return .notSupported("publishing udp ports")
    }
    return nil
  }

  /// The plan for one launch. Looks at the host's files (where the program is, what /bin is), changes nothing. `image`: its root, of an
  /// app whose policy has one, with the folders that the image declares volumes. `devices`: where the
  /// nodes of the policy's devices are.
  package init(
    _ launch: Launch, _ table: MountTable, _ membership: Membership, _ places: Places, _ walls: Walls,
    _ names: NameSources? = nil, image: ImageRoot? = nil, imageVolumes: [String] = [], devices: String? = nil
  ) throws(PlanProblem) {
    let policy = launch.policy
    if let problem = Self.unsupported(policy) { throw problem }
    let place: ProgramPlace
    do throws(ProgramProblem) { place = try Self.place(policy, launch.instead) } catch { throw .program(error) }
    self.init(app: policy.id.name, generation: launch.generation, nonce: launch.nonce)
    self.membership = membership
    self.places = places
    self.walls = walls
    identity = try Self.identity(of: launch)
    self.image = image
    try buildRoot(policy, table, place, names, imageVolumes, devices: devices)
    program.limits = try Self.resourceLimits(policy)
    program.instead = launch.instead
    streams.input = policy.opensInput
    streams.terminal = policy.terminal
    if let size = launch.terminalSize { (streams.columns, streams.rows) = (size.columns, size.rows) }
    if policy.network.mode != .host {
      ports = policy.network.ports.map { Port(address: $0.hostAddress, outside: $0.hostPort, inside: $0.appPort) }
    }
    logMaximumSize = policy.logging.maximumSize.count
    logMaximumFiles = UInt32(clamping: policy.logging.maximumFiles)
    loader = policy.loader
  }

  /// The app's own program, also where something else runs: its root is then the same. One that is not there keeps nothing else
  /// from running.
  private static func place(_ policy: Policy, _ instead: [String]) throws(ProgramProblem) -> ProgramPlace {
    do throws(ProgramProblem) { return try ProgramPlace(policy) } catch {
      guard !instead.isEmpty else { throw error }
      var other = policy
      other.entry = instead
      return try ProgramPlace(other)
    }
  }

  // MARK: Identity

  /// Who an app is, inside and outside: what a plan says, and what attestation compares the kernel's word with.
  package static func identity(of launch: Launch) throws(PlanProblem) -> Identity {
    let policy = launch.policy
    let privileged = policy.preset == .privileged
    var identity = Identity()
    identity.namespaces = [.mount, .pid, .ipc, .uts]
    if policy.network.mode != .host { identity.namespaces.insert(.network) }
    identity.hostName = hostName(policy)
    identity.outOfMemoryAdjustment = policy.limits.oomScoreAdjustment
    let (uid, gid): (UInt32, UInt32) =
      switch policy.user {
      case .auto, .image: (1000, 1000)
      case .given(let uid, let gid): (uid, gid)
      }
    if privileged {
      let own = if case .given = policy.user { false } else { true }
      identity.uid = own ? launch.uidBase + uid : uid
      identity.gid = own ? launch.uidBase + gid : gid
    } else {
      identity.namespaces.insert(.user)
      guard ([uid, gid] + policy.supplementaryGroups).allSatisfy({ $0 < 65_536 }) else {
        throw .badIdentity("a native app's ids lie below 65536, its own block")
      }
      identity.uid = uid
      identity.gid = gid
      if policy.image == nil {
        identity.uidMap = map([0, uid], launch)
        identity.gidMap = map([0, gid] + policy.supplementaryGroups, launch)
      } else {
        // An image's files belong to ids of its own, all of which are the app's.
        identity.uidMap = [IDRange(inside: 0, outside: launch.uidBase, count: 65_536)]
        identity.gidMap = identity.uidMap
      }
    }
    identity.groups = policy.supplementaryGroups
    try setCapabilities(policy, privileged, &identity)
    return identity
  }

  /// What the app's host is called inside.
  package static func hostName(_ policy: Policy) -> String {
    policy.network.hostname ?? String(policy.id.name.map { $0 == "_" ? "-" : $0 })
  }

  private static func map(_ ids: [UInt32], _ launch: Launch) -> [IDRange] {
    Set(ids).sorted().map { IDRange(inside: $0, outside: launch.hostID($0)) }
  }

  private static func setCapabilities(_ policy: Policy, _ privileged: Bool, _ identity: inout Identity)
    throws(PlanProblem)
  {
    func set(_ names: [String]) throws(PlanProblem) -> UInt64 {
      var all: UInt64 = 0
      for name in names {
        guard let bits = Capability.bits(name) else { throw .unknownCapability(name) }
        all |= bits
      }
      return all
    }
    let added = try set(policy.capabilities.add)
    guard privileged else {
      identity.capabilities = added
      identity.bounding = added
      return
    }
    identity.bounding = (Capability.engineDefault & ~(try set(policy.capabilities.drop))) | added
    // As with the Engines: another user than root has them only within reach, apart from those it was given by name.
    identity.capabilities = identity.uid == 0 ? identity.bounding : added
    identity.noNewPrivileges = !policy.securityOptions.contains {
      $0 == "no-new-privileges:false" || $0 == "no-new-privileges=false"
    }
  }

  // MARK: Root and program

  private mutating func buildRoot(
    _ policy: Policy, _ table: MountTable, _ place: ProgramPlace, _ names: NameSources?, _ imageVolumes: [String],
    devices: String?
  ) throws(PlanProblem) {
    var builder = RootBuilder()
    let inside: UInt32 =
      switch policy.user {
      case .auto, .image: identity.uid
      case .given: identity.uid
      }
    if image != nil {
      let own = imageVolumes.filter { volume in !table.entries.contains { $0.target == volume } }
      builder.addToImage(policy, hostName: identity.hostName, volumes: own, names)
    } else if let rootfs = policy.rootfs {
      do throws(SystemFault) {
        try builder.addContent(
          of: Place.resolve(rootfs), readOnly: policy.readOnlyRoot, except: Set(table.entries.map(\.target)))
      } catch { throw .rootfs("the rootfs \(rootfs) cannot be read: \(error.reason)") }
    } else {
      builder.addStandard(policy, uid: identity.uid, gid: identity.gid, hostName: identity.hostName, names)
    }
    builder.addFolder("run")
    if let names, policy.rootfs != nil { builder.addNames(names, over: policy) }
    builder.addKernel(sharedMemory: policy.limits.shmSize ?? .mebibytes(64))
    if let devices { builder.addDevices(policy.devices, below: devices) }
    if policy.readiness == .notify { builder.addNotifySocket() }
    builder.addMounts(table, owner: inside)
    // After them: the app's own /run would hide it.
    builder.addDoor(places.door)
    builder.addFolder("tmp", mode: 0o1777)
    var holder: UInt32?
    switch place.holder {
    case .system(let relative):
      holder = builder.index(ofBind: "usr")
      program.relative = relative
    case .alone(let source):
      builder.addProgram(place.inside, source: source)
      holder = builder.index(ofBind: String(place.inside.dropFirst()))
    case .mount(let target, let relative):
      holder = builder.index(ofBind: String(target.dropFirst()))
      program.relative = relative
    case .image: holder = image.map { _ in Program.inImage }
    case .rootfs(let top, let relative):
      holder = builder.index(ofBind: top)
      program.relative = relative
    }
    guard let holder else { throw .program(.missing(place.inside)) }
    root = builder.items
    rootReadOnly = policy.readOnlyRoot
    program.bind = holder
    program.path = place.inside
    program.arguments = policy.entry
    program.workingFolder = policy.workingDirectory ?? "/"
    program.environment = Self.environment(policy, hasDoor: places.door != nil)
  }

  private static func environment(_ policy: Policy, hasDoor: Bool) -> [String] {
    var values = [
      "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
      "HOME": policy.rootfs == nil && policy.image == nil ? "/data" : "/",
    ]
    for entry in policy.environment where entry.secret == nil { values[entry.name] = entry.value }
    if policy.readiness == .notify { values["NOTIFY_SOCKET"] = notifySocket }
    if hasDoor { values[AppDoor.variable] = AppDoor.path }
    return values.map { "\($0.key)=\($0.value)" }.sorted()
  }

  /// What every app is held to unless the policy says otherwise: no core files, no locked memory beyond a page or so, no real
  /// time, as many files as its preset allows.
  private static func resourceLimits(_ policy: Policy) throws(PlanProblem) -> [ResourceLimit] {
    let files: UInt64 =
      switch policy.preset {
      case .minimal: 64
      case .standard: 1024
      case .privileged: 4096
      }
    var limits: [String: (soft: UInt64, hard: UInt64)] = ["core": (0, 0), "nofile": (files, files)]
    if policy.preset != .privileged {
      for (name, value) in [("memlock", 65_536), ("msgqueue", 0), ("nice", 0), ("rtprio", 0), ("stack", 8 << 20)] {
        limits[name] = (UInt64(value), UInt64(value))
      }
    }
    for limit in policy.limits.rlimits { limits[limit.name] = (limit.soft, limit.hard) }
    var result: [ResourceLimit] = []
    for (name, value) in limits.sorted(by: { $0.key < $1.key }) {
      guard let number = ResourceName.number(name) else { throw .unknownLimit(name) }
      result.append(ResourceLimit(number, soft: value.soft, hard: value.hard))
    }
    return result
  }
}
