internal import EngineAPI
internal import FileSystems
internal import Health
internal import Model
internal import Networking
internal import Sandboxing
internal import Scheduling

/// One app as one container: every field of the engine's create request, from the policy alone.
///
/// Lists are built whole here, because the engine replaces them whole; what is absent stays absent, because an empty list
/// of masked paths would mean "mask nothing".
struct Recipe {
  var settings: ContainerSettings
  var facts: EngineFacts
  var launch: Launch
  /// First of the app's ids, as its container sees them.
  var uidBase: UInt32
  var image: ImageDetails
  var table: MountTable
  /// The engine's name of the first network; nil: none or the host's.
  var network: String?
  /// Its addresses and names; nil: the engine's.
  var place: NetworkPlace?
  /// What the engine's cgroup driver wants as parent.
  var cgroupParent: String
  /// Where the filter lies as a file, for an engine that takes only that.
  var seccompFile: String?

  private var policy: Policy { launch.policy }
  private var isPrivileged: Bool { policy.preset == .privileged }

  /// What must not be seen of /proc and /sys: secrets of the kernel and other apps' timing.
  static let maskedPaths = [
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
    "/proc/sched_debug", "/proc/scsi", "/proc/timer_list", "/proc/timer_stats", "/proc/kallsyms", "/sys/firmware",
    "/sys/devices/virtual/powercap", "/sys/fs/cgroup", "/sys/kernel/vmcoreinfo", "/sys/kernel/notes",
    "/sys/kernel/boot_params",
  ]
  static let readonlyPaths = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys"]

  /// `uid:gid`; empty: the image's.
  var user: String {
    switch policy.user {
    case .auto: "\(uidBase + 1000):\(uidBase + 1000)"
    case .image: ""
    case .given(let uid, let gid): "\(uid):\(gid)"
    }
  }

  var spec: ContainerSpec {
    var spec = ContainerSpec(image: launch.artifact)
    spec.user = user
    spec.entrypoint = launch.instead.isEmpty ? policy.entrypoint : []
    spec.command = launch.instead.isEmpty ? (policy.entry.isEmpty ? nil : policy.entry) : launch.instead
    spec.openInput = policy.opensInput
    spec.inputOnce = policy.opensInput && launch.inputOnce && !policy.terminal
    spec.terminal = policy.terminal
    spec.workingDirectory = policy.workingDirectory
    spec.environment = policy.environment.filter { $0.secret == nil }.map { ($0.name, $0.value) }
    if policy.readiness == .notify {
      spec.environment.removeAll { $0.name == "NOTIFY_SOCKET" }
      spec.environment.append(("NOTIFY_SOCKET", "\(AppDoor.folder)/\(NotifySockets.name)"))
    }
    if settings.doors != nil {
      spec.environment.removeAll { $0.name == AppDoor.variable }
      spec.environment.append((AppDoor.variable, AppDoor.path))
    }
    spec.healthcheck = .none
    spec.stopSignal = SignalName.name(of: policy.stopSignal) ?? String(policy.stopSignal)
    spec.stopTimeout = Int64(policy.stopGrace.seconds.rounded(.up))
    spec.networkDisabled = policy.network.mode == .none ? true : nil
    spec.labels = policy.labels.filter { !$0.key.hasPrefix(Label.prefix) }
    for (key, value) in ownLabels { spec.labels[key] = value }
    spec.hostname = policy.network.hostname
    spec.host = host
    if let network { spec.networks[network] = endpoint(at: 0) }
    return spec
  }

  private var ownLabels: [String: String] {
    [
      Label.instance: settings.layout.id, Label.app: policy.id.name, Label.generation: String(launch.generation),
      Label.nonce: launch.nonce, Label.policyHash: Self.hash(policy),
    ]
  }

  /// The app's own name on each network, and what the policy adds.
  func aliases(at index: Int) -> [String] {
    guard index < policy.network.attachments.count else { return [policy.id.name] }
    let extra = policy.network.attachments[index].aliases.filter { $0 != policy.id.name }
    return [policy.id.name] + extra
  }

  func endpoint(at index: Int) -> NetworkEndpoint {
    let address = place.flatMap { index < $0.interfaces.count ? $0.interfaces[index].address : nil }
    return NetworkEndpoint(aliases: aliases(at: index), ipv4: address?.description)
  }

  private var host: HostSpec {
    var host = HostSpec()
    host.readonlyRoot = policy.readOnlyRoot
    host.capDrop = isPrivileged ? policy.capabilities.drop : ["ALL"]
    host.capAdd = policy.capabilities.add
    host.noNewPrivileges = !policy.securityOptions.contains("no-new-privileges=false")
    host.seccomp = seccomp
    host.securityOptions = policy.securityOptions.filter { $0.hasPrefix("apparmor=") }
    host.groupAdd = policy.supplementaryGroups.map { String($0) }
    host.resources = Resources(policy)
    host.oomScoreAdjustment = Int64(policy.limits.oomScoreAdjustment)
    host.ulimits = ulimits
    host.ipcMode = "private"
    host.cgroupnsMode = "private"
    host.cgroupParent = cgroupParent
    host.shmSize = Int64(clamping: (policy.limits.shmSize ?? .mebibytes(64)).count)
    host.maskedPaths = Self.maskedPaths
    host.readonlyPaths = Self.readonlyPaths
    let nodes = DeviceDelivery(
      settings.layout, policy, .container, run: "\(policy.id).\(launch.generation)", uidBase: uidBase)
    host.devices = policy.devices.enumerated().map {
      DeviceSpec(nodes.node($0.offset), at: $0.element.target, access: $0.element.access)
    }
    host.runsInit = facts.hasInit ? true : nil
    host.log = log
    addNetwork(&host)
    addMounts(&host)
    return host
  }

  private var log: LogSpec {
    // Podman's own driver is chosen by EngineDifferences.
    LogSpec(
      driver: "local",
      options: [
        "max-size": String(policy.logging.maximumSize.count), "max-file": String(policy.logging.maximumFiles),
        "mode": "blocking",
      ])
  }

  // MARK: Limits

  /// Given ones, and a bound for those whose default would be the engine's own.
  private var ulimits: [Ulimit] {
    var limits = policy.limits.rlimits.map {
      Ulimit($0.name, soft: Int64(clamping: $0.soft), hard: Int64(clamping: $0.hard))
    }
    for standard in [
      Ulimit("nofile", soft: 1024, hard: 1024), Ulimit("nproc", soft: 4096, hard: 4096),
      Ulimit("core", soft: 0, hard: 0),
      Ulimit("memlock", soft: 65_536, hard: 65_536),
    ] where !limits.contains(where: { $0.name == standard.name }) {
      limits.append(standard)
    }
    return limits
  }

  // MARK: The filter

  /// Which calls the container may make; nil: any.
  var filter: SeccompProfile? { SeccompProfile(policy) }

  private var seccomp: SeccompChoice {
    guard let filter else { return .unconfined }
    return .profile(json: filter.json.text, file: seccompFile)
  }

  /// Whether the kernel must show a filter in the app's processes.
  var isFiltered: Bool { filter != nil }

  // MARK: Network

  private func addNetwork(_ host: inout HostSpec) {
    switch policy.network.mode {
    case .none: host.networkMode = "none"
    case .host: host.networkMode = "host"
    case .bridge, .named: host.networkMode = network
    }
    if policy.network.mode != .host {
      // Docker's default; said for the sake of Podman, so that a uid of its own may listen on port 80 in its own network.
      host.sysctls["net.ipv4.ip_unprivileged_port_start"] = "0"
    }
    host.dns = policy.network.dns
    if place != nil, policy.network.egress?.allow != nil, host.dns.isEmpty {
      // What it may connect to is in its hosts file. The engine's own resolver would carry any other question out of the host, and with
      // it whatever an app puts into one; like this it asks where nobody answers.
      host.dns = ["127.0.0.1"]
    }
    if place == nil { host.extraHosts = policy.network.extraHosts.map { "\($0.name):\($0.address)" } }
    host.ports = policy.network.ports.map {
      PortBinding(container: $0.appPort, kind: $0.transport.rawValue, address: $0.hostAddress, host: $0.hostPort)
    }
  }

  // MARK: Mounts

  /// The app's mounts, and ours.
  var entries: [MountTable.Entry] {
    var entries = table.entries
    if let place { entries.append(.init(target: "/etc/hosts", source: .path(place.hostsFile), readOnly: true)) }
    guard policy.readiness == .notify || settings.doors != nil else { return entries }
    let source = settings.layout.appSockets(policy.id, launch.generation)
    return entries + [.init(target: AppDoor.folder, source: .path(source), readOnly: true)]
  }

  private func addMounts(_ host: inout HostSpec) {
    for entry in entries {
      switch entry.source {
      case .path(let source):
        host.mounts.append(
          MountSpec(.bind, source, at: entry.target, readOnly: entry.readOnly, propagation: "rprivate"))
      case .external(let name):
        host.mounts.append(MountSpec(.volume, name, at: entry.target, readOnly: entry.readOnly))
      case .memory(let size, let mode):
        var memory = TmpfsSpec(entry.target)
        memory.size = Int64(clamping: size.count)
        memory.inodes = 16_384
        // With an owner it needs no mode for others; runc 1.1 would prefer the mode of the image's folder anyway.
        memory.uid = entry.ownerUID
        memory.gid = entry.ownerUID
        let shown = mode ?? (entry.ownerUID == nil ? 0o1777 : 0o700)
        memory.mode = "0" + String(shown, radix: 8)
        host.tmpfs.append(memory)
      }
    }
    for path in imageVolumes {
      var nothing = TmpfsSpec(path)
      nothing.size = 4096
      nothing.isReadOnly = true
      nothing.mode = "0555"
      host.tmpfs.append(nothing)
    }
  }

  /// What the image calls a VOLUME and the policy does not mount: empty, and as read-only as the rest of the root. The engine
  /// would make a disk without limits of it.
  var imageVolumes: [String] {
    guard policy.readOnlyRoot else { return [] }
    return image.volumes.filter { path in !table.entries.contains { $0.target == path } }.sorted()
  }

  /// FNV-1a of the whole policy: tells two policies apart, and says nothing about their content.
  static func hash(_ policy: Policy) -> String {
    var hash: UInt64 = 0xcbf2_9ce4_8422_2325
    for byte in String(describing: policy).utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
    let digits = String(hash, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}
