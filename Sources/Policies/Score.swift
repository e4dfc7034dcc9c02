package import Model

/// How exposed the host is to one app: 0 is tight, 10 is exposed, as `systemd-analyze security` counts. It judges what a policy
/// asks for, not whether the app's code is good.
package struct Score: Sendable, Equatable {
  /// One layer, how much it counts, and how far this policy opens it.
  package struct Layer: Sendable, Equatable {
    package var name: String
    /// Its share of the whole, beside the other layers' weights.
    package var weight: Double
    /// 0: closed as far as it goes; 1: as if it were not there.
    package var exposure: Double
    /// What opens it, or how it is closed.
    package var why: String

    package init(_ name: String, _ weight: Double, _ exposure: Double, _ why: String) {
      self.name = name
      self.weight = weight
      self.exposure = min(1, max(0, exposure))
      self.why = why
    }
  }

  package var layers: [Layer]

  package init(layers: [Layer]) { self.layers = layers }

  /// 0 to 10, with one decimal.
  package var value: Double {
    let whole = layers.reduce(0) { $0 + $1.weight }
    let open = layers.reduce(0) { $0 + $1.weight * $1.exposure }
    return whole > 0 ? (open / whole * 100).rounded() / 10 : 0
  }

  /// What one layer adds to the whole.
  package func cost(_ layer: Layer) -> Double {
    let whole = layers.reduce(0) { $0 + $1.weight }
    return whole > 0 ? layer.weight * layer.exposure / whole * 10 : 0
  }

  /// systemd's words for its steps, by the same bounds.
  package var word: String {
    switch value {
    case 10...: "DANGEROUS"
    case 9..<10: "UNSAFE"
    case 7.5..<9: "EXPOSED"
    case 5..<7.5: "MEDIUM"
    case 1..<5: "OK"
    case 0.1..<1: "SAFE"
    default: "PERFECT"
    }
  }

  /// The same app as it runs, where `enforcement: degrade` let layers or limits be missing.
  package func degraded(by missing: [String]) -> Score {
    guard !missing.isEmpty else { return self }
    return Score(layers: layers + [Layer("in force", 3, 1, "missing now: \(missing.joined(separator: "; "))")])
  }
}

extension Score {
  /// The score of a policy on a host that can enforce all of it.
  package init(_ policy: Policy) {
    self.init(layers: [
      Self.sandbox(policy), Self.user(policy), Self.userNamespace(policy), Self.capabilities(policy),
      Self.newPrivileges(policy), Self.seccomp(policy), Self.landlock(policy), Self.appArmor(policy),
      Self.root(policy), Self.mounts(policy), Self.devices(policy), Self.secrets(policy), Self.groups(policy),
      Self.network(policy),
      Self.ports(policy), Self.memory(policy), Self.processes(policy), Self.time(policy), Self.outOfMemory(policy),
      Self.enforcement(policy),
    ])
  }

  private static func isPrivileged(_ policy: Policy) -> Bool { policy.preset == .privileged }

  private static func sandbox(_ policy: Policy) -> Layer {
    Layer(
      "sandbox", 12, isPrivileged(policy) ? 1 : 0,
      isPrivileged(policy) ? "sandbox: privileged opens most of what follows" : "sandbox: \(policy.preset.rawValue)")
  }

  private static func user(_ policy: Policy) -> Layer {
    switch policy.user {
    case .auto: return Layer("user", 2, 0, "ids of the app's own")
    case .image: return Layer("user", 2, 0.8, "user: image is often root")
    case .given(let uid, _) where policy.runtime == .container || isPrivileged(policy):
      return Layer(
        "user", 2, uid == 0 ? 1 : uid < 0x20_0000 ? 0.6 : 0.1,
        uid == 0 ? "root of the host, where the engine does not map users" : "uid \(uid) of the host")
    case .given(let uid, _):
      return Layer("user", 2, uid == 0 ? 0.3 : 0.1, "uid \(uid) of the app's own user namespace")
    }
  }

  private static func userNamespace(_ policy: Policy) -> Layer {
    if isPrivileged(policy) { return Layer("user namespace", 1, 1, "none under sandbox: privileged") }
    return policy.runtime == .container
      ? Layer("user namespace", 1, 0.5, "the engine's affair: most have none")
      : Layer("user namespace", 1, 0, "of the app's own")
  }

  /// With which an app gets out, or nearly so.
  private static let strong: Set<String> = [
    "ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_RAWIO", "SYS_PTRACE", "SYS_BOOT", "DAC_READ_SEARCH", "BPF", "PERFMON",
    "NET_ADMIN", "SYS_TIME", "MAC_ADMIN", "MAC_OVERRIDE", "SYSLOG", "CHECKPOINT_RESTORE", "SYS_RESOURCE",
  ]

  private static func capabilities(_ policy: Policy) -> Layer {
    let added = policy.capabilities.add
    var exposure = added.reduce(0.0) { $0 + (strong.contains($1) ? 1 : 0.1) }
    let keepsAll = isPrivileged(policy) && !policy.capabilities.drop.contains("ALL")
    if keepsAll { exposure += 0.7 }
    let words = (keepsAll ? ["the engine's default set"] : []) + added
    return Layer("capabilities", 2, exposure, words.isEmpty ? "none" : words.joined(separator: ", "))
  }

  private static func newPrivileges(_ policy: Policy) -> Layer {
    let isOff = policy.securityOptions.contains("no-new-privileges=false")
    return Layer(
      "no new privileges", 1, isOff ? 1 : 0, isOff ? "set-user-id programs count" : "set-user-id programs gain nothing")
  }

  private static func seccomp(_ policy: Policy) -> Layer {
    if policy.securityOptions.contains("seccomp=unconfined") { return Layer("seccomp", 2, 1, "no filter") }
    return isPrivileged(policy)
      ? Layer("seccomp", 2, 0.3, "filter, wider for its capabilities") : Layer("seccomp", 2, 0, "filter by allow-list")
  }

  private static func landlock(_ policy: Policy) -> Layer {
    if isPrivileged(policy) { return Layer("landlock", 1, 1, "off under sandbox: privileged") }
    return policy.runtime == .container
      ? Layer("landlock", 1, 0.3, "does not apply to containers") : Layer("landlock", 1, 0, "held to its own root")
  }

  private static func appArmor(_ policy: Policy) -> Layer {
    let isOff = policy.securityOptions.contains("apparmor=unconfined")
    return Layer("apparmor", 0.5, isOff ? 1 : 0, isOff ? "unconfined" : "not taken away")
  }

  private static func root(_ policy: Policy) -> Layer {
    Layer(
      "root file system", 1, policy.readOnlyRoot ? 0 : 1, policy.readOnlyRoot ? "read-only" : "writable")
  }

  private static func mounts(_ policy: Policy) -> Layer {
    var exposure = 0.0
    var words: [String] = []
    for mount in policy.mounts {
      switch mount.kind {
      case .bind(let source):
        exposure += mount.readOnly ? 0.1 : 0.4
        words.append("\(source)\(mount.readOnly ? ", read-only" : ", writable")")
      case .volume(let name, external: true):
        exposure += 0.2
        words.append("the engine's volume \(name)")
      case .volume, .memory: break
      }
    }
    return Layer("host files", 2, exposure, words.isEmpty ? "none of the host's" : words.joined(separator: "; "))
  }

  private static func devices(_ policy: Policy) -> Layer {
    let devices = policy.devices
    return Layer(
      "devices", 1, Double(devices.count) * 0.4,
      devices.isEmpty ? "none of the host's" : devices.map { "\($0.source) (\($0.access))" }.joined(separator: ", "))
  }

  private static func secrets(_ policy: Policy) -> Layer {
    let variables = policy.environment.filter { $0.secret != nil }.map(\.name)
    let exposure = variables.isEmpty ? 0 : policy.runtime == .container ? 1 : 0.4
    return Layer(
      "secrets", 0.5, exposure,
      variables.isEmpty
        ? policy.secrets.isEmpty ? "none" : "files in memory"
        : "in the environment: \(variables.joined(separator: ", "))")
  }

  private static func groups(_ policy: Policy) -> Layer {
    let groups = policy.supplementaryGroups
    return Layer(
      "groups", 0.5, Double(groups.count) * 0.5,
      groups.isEmpty ? "none but its own" : "group_add \(groups.map { "\($0)" }.joined(separator: ", "))")
  }

  private static func network(_ policy: Policy) -> Layer {
    switch policy.network.mode {
    case .none: Layer("network", 2, 0, "none")
    case .named:
      Layer("network", 2, 0.4, "shared with \(policy.network.attachments.map(\.network).joined(separator: ", "))")
    case .bridge: Layer("network", 2, 0.5, "a bridge of its own, and what lies beyond")
    case .host: Layer("network", 2, 1, "the host's")
    }
  }

  private static func ports(_ policy: Policy) -> Layer {
    func exposure(_ address: String) -> Double {
      if ["0.0.0.0", "::", ""].contains(address) { return 1 }
      return address.hasPrefix("127.") || address == "::1" ? 0.2 : 0.6
    }
    let ports = policy.network.ports
    return Layer(
      "published ports", 1, ports.map { exposure($0.hostAddress) }.max() ?? 0,
      ports.isEmpty ? "none" : ports.map { "\($0.hostAddress):\($0.hostPort)" }.joined(separator: ", "))
  }

  private static func memory(_ policy: Policy) -> Layer {
    guard let memory = policy.limits.memory else { return Layer("memory", 1, 1, "no limit") }
    let swaps = policy.limits.memoryAndSwap != memory
    return Layer("memory", 1, swaps ? 0.3 : 0, "at most \(memory)\(swaps ? ", and swap" : "")")
  }

  private static func processes(_ policy: Policy) -> Layer {
    guard let pids = policy.limits.pids else { return Layer("tasks", 1, 1, "no limit") }
    return Layer("tasks", 1, pids > 1024 ? 0.3 : 0, "at most \(pids)")
  }

  private static func time(_ policy: Policy) -> Layer {
    let limits = policy.limits
    let isBounded = limits.cpus != nil || (limits.maximumCPUTime ?? .zero) > .zero
    return Layer(
      "cpu", 0.5, isBounded ? 0 : 0.2, isBounded ? "bounded" : "a share, without a ceiling")
  }

  private static func outOfMemory(_ policy: Policy) -> Layer {
    let adjustment = policy.limits.oomScoreAdjustment
    return Layer(
      "oom_score_adj", 0.5, adjustment >= 500 ? 0 : 1 - Double(adjustment) / 500,
      adjustment >= 500 ? "killed before the host's own" : "\(adjustment): outlives others")
  }

  private static func enforcement(_ policy: Policy) -> Layer {
    policy.enforcement == .strict
      ? Layer("enforcement", 2, 0, "strict: what cannot be held is refused")
      : Layer("enforcement", 2, 1, "degrade: a layer or limit may be missing")
  }
}
