package import Model

/// The daemon's `config.yaml` after checking, every default filled in.
package struct Configuration: Sendable, Equatable {
  package var instance = "default"
  package var engine = Engine.auto
  package var engineGate = EngineGate()
  package var cgroupParent = "/appsupervisor"
  package var reserve = Reserve()
  package var uidRange = UIDRange()
  package var privilegedApps: Set<String> = []
  package var externalVolumes: Set<String> = []
  package var externalNetworks: Set<String> = []
  package var unsafeHostUIDs: Set<String> = []
  /// By app: the paths of devices that its policy may name.
  package var devicesAllowed: [String: Set<String>] = [:]
  package var operators: [Operator] = []
  package var logs = Logs()
  package var metrics = Metrics.unix
  /// What the audit may take on disk.
  package var auditSize = Bytes.mebibytes(100)
  package init() {}

  package enum Engine: Sendable, Equatable {
    case auto, docker, podman, none
    /// The absolute path of its socket.
    case socket(String)
  }

  /// What is done about an engine or OCI runtime with known holes.
  package struct EngineGate: Sendable, Equatable {
    /// Versions that are refused, as `runc 1.1` or `docker 20.10`.
    package var refuse: [String] = []
    package var acceptDegraded = true
    package init() {}
  }

  /// What apps are never given.
  package struct Reserve: Sendable, Equatable {
    package var memory = Bytes.mebibytes(256)
    package var cpus = 0.1
    package init() {}
  }

  /// Where apps' host ids come from: `base`, then blocks of `size`, one for each app.
  package struct UIDRange: Sendable, Equatable {
    package var base: UInt32 = 0x200000
    package var size: UInt32 = 65536
    package init() {}
  }

  /// Someone besides root who may use the control socket.
  package struct Operator: Sendable, Equatable {
    package enum Who: Sendable, Equatable {
      case user(String)
      case group(String)
    }
    /// From the least to the most.
    package enum Role: String, Sendable, CaseIterable, Comparable {
      case viewer, `operator`, owner, admin
      package static func < (left: Role, right: Role) -> Bool { left.rank < right.rank }
      private var rank: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    }
    package var who: Who
    package var role: Role
    /// Names of stacks, `*` at the end standing for any rest.
    package var stacks: [String]
  }

  /// Where metrics are served.
  package enum Metrics: Sendable, Equatable {
    /// `metrics.sock` beside the control socket, for the same group.
    case unix
    /// An address of loopback, of either kind: whoever is on this host may read them there.
    case port(address: String, UInt16)
    case off
  }

  package struct Logs: Sendable, Equatable {
    package var maximumSize = Bytes.mebibytes(10)
    package var maximumFiles = 3
    package var total = Bytes.mebibytes(2048)
    package init() {}
  }

  /// What this configuration allows policies.
  package var rules: HostRules {
    var rules = HostRules(
      privilegedApps: privilegedApps, externalVolumes: externalVolumes, externalNetworks: externalNetworks,
      unsafeHostUIDs: unsafeHostUIDs)
    rules.uidBase = uidRange.base
    rules.devices = devicesAllowed
    return rules
  }
}

/// One key of config.yaml.
struct Setting: Sendable {
  var key: String
  var doc: String
  var form: Form
  /// What is missing for it; nil: it is in force.
  var later: String?
  var read: @Sendable (Written, inout Configuration, inout Findings) -> Void
}

let settings: [Setting] = [
  Setting(key: "instance", doc: "Part of labels, cgroups and containers' names", form: .appID) {
    node, configuration, _ in
    configuration.instance = node.text ?? ""
  },
  Setting(key: "engine", doc: "auto, docker, podman, none or unix:///PATH", form: engineForm) {
    node, configuration, _ in
    configuration.engine = engine(node.text ?? "") ?? .auto
  },
  Setting(
    key: "engine_gate", doc: "By version of engine and OCI runtime",
    form: .object([
      .init("refuse", .list(.text(most: 128)), "Versions that are refused"),
      .init("accept_degraded", .boolean, "Whether one with known holes is used, and shown as degraded"),
    ])
  ) { node, configuration, _ in
    configuration.engineGate.refuse = node["refuse"]?.texts ?? []
    configuration.engineGate.acceptDegraded = node["accept_degraded"]?.text != "false"
  },
  Setting(
    key: "cgroup_parent", doc: "Everything of ours lies below it",
    form: .checked(said: "an absolute path such as /appsupervisor", pattern: "^/[A-Za-z0-9]") { isCgroupPath($0) }
  ) { node, configuration, _ in configuration.cgroupParent = absolutePath(node.text ?? "", in: "/") },
  Setting(
    key: "reserve", doc: "Never given to apps",
    form: .object([.init("memory", .size, "Bytes"), .init("cpus", .decimal(0...4096), "Cores")])
  ) { node, configuration, _ in
    if let memory = node["memory"]?.text.flatMap({ Bytes(parsing: $0) }) { configuration.reserve.memory = memory }
    if let cpus = node["cpus"]?.text.flatMap({ Double($0) }) { configuration.reserve.cpus = cpus }
  },
  Setting(
    key: "uid_range", doc: "One block for each app, not reused until its data is gone",
    form: .object([
      .init(
        "base",
        .checked(said: "a whole number such as 0x200000", pattern: "^(0x[0-9A-Fa-f]+|[0-9]+)$") { number($0) != nil },
        "First id"),
      .init("size", .whole(65536...65536), "Ids of one app"),
    ]), read: readRange),
  names("privileged_apps", "Ids that may use sandbox: privileged and network_mode: host", .appID) {
    $0.privilegedApps = $1
  },
  names("external_volumes", "Volumes of the engine's own that apps may use; never removed by us", .objectName) {
    $0.externalVolumes = $1
  },
  names("external_networks", "Networks of the engine's own that apps may use; never removed by us", .objectName) {
    $0.externalNetworks = $1
  },
  names("unsafe_host_uids", "Ids whose containers may run as a host uid below the range", .appID) {
    $0.unsafeHostUIDs = $1
  },
  Setting(
    key: "operators", doc: "Who may use the control socket besides root", form: operatorsForm, read: readOperators),
  Setting(
    key: "logs", doc: "How much output is kept where a policy does not say",
    form: .object([
      .init("max_size", .size, "Of one file"), .init("max_file", .whole(1...1000), "Files of one app"),
      .init("total", .size, "Of all apps"),
    ])
  ) { node, configuration, findings in
    if let size = node["max_size"]?.text.flatMap({ Bytes(parsing: $0) }) { configuration.logs.maximumSize = size }
    if let files = node["max_file"]?.text.flatMap({ Int($0) }) { configuration.logs.maximumFiles = files }
    if let total = node["total"]?.text.flatMap({ Bytes(parsing: $0) }) { configuration.logs.total = total }
    if configuration.logs.maximumSize < Bytes(65536) {
      findings.error(node["max_size"] ?? node, "max_size is at least 64k")
    }
  },
  Setting(
    key: "devices_allowed", doc: "By app: devices that its policy may name, by their paths below /dev",
    form: .map(.list(.target))
  ) { node, configuration, findings in
    for member in node.members ?? [] {
      for item in member.value.list ?? [] where item.text?.hasPrefix("/dev/") != true {
        findings.error(item, "\((item.text ?? "").quoted) is not a path below /dev")
      }
      configuration.devicesAllowed[member.key] = Set(
        (member.value.list ?? []).compactMap { $0.text.map { absolutePath($0, in: "/") } })
    }
  },
  Setting(key: "audit", doc: "How much of the audit is kept", form: .object([.init("max_size", .size, "Bytes")])) {
    node, configuration, findings in
    if let size = node["max_size"]?.text.flatMap({ Bytes(parsing: $0) }) { configuration.auditSize = size }
    if configuration.auditSize < .mebibytes(1) { findings.error(node["max_size"] ?? node, "max_size is at least 1m") }
  },
  Setting(
    key: "metrics", doc: "Where numbers are served as Prometheus text",
    form: .object([
      .init(
        "listen",
        .checked(
          said: "unix, off, 127.0.0.1:PORT or [::1]:PORT",
          pattern: "^(unix|off|127\\.[0-9.]+:[0-9]+|\\[::1\\]:[0-9]+)$"
        ) {
          metrics($0) != nil
        },
        "unix (metrics.sock beside the control socket), a port of loopback, or off")
    ])
  ) { node, configuration, _ in
    if let place = node["listen"]?.text.flatMap({ metrics($0) }) { configuration.metrics = place }
  },
  later(
    "desktop", "Where the desktop is served", .object([.init("listen", .text(most: 128), "ADDRESS:PORT")]),
    "the desktop"),
  later(
    "packages", "Which packages are taken",
    .object([
      .init("trusted_keys", .list(.text()), "Public keys"),
      .init("require_signature", .boolean, "Refuse unsigned ones"),
    ]), "packages"),
  later(
    "scheduler", "How apps share the cores",
    .object([
      .init("policy", .word(["fair", "round-robin"]), "fair or round-robin"), .init("quantum", .duration, "One turn"),
    ]), "choosing the scheduler"),
]

private func names(
  _ key: String, _ doc: String, _ form: Form, _ store: @escaping @Sendable (inout Configuration, Set<String>) -> Void
) -> Setting {
  Setting(key: key, doc: doc, form: .list(form)) { node, configuration, _ in store(&configuration, Set(node.texts)) }
}

private func later(_ key: String, _ doc: String, _ form: Form, _ feature: String) -> Setting {
  Setting(key: key, doc: doc, form: form, later: feature) { _, _, _ in }
}

private let engineForm = Form.checked(
  said: "auto, docker, podman, none or unix:///PATH", pattern: "^(auto|docker|podman|none|unix:///.+)$"
) {
  engine($0) != nil
}

private func engine(_ text: String) -> Configuration.Engine? {
  switch text {
  case "auto": return .auto
  case "docker": return .docker
  case "podman": return .podman
  case "none": return Configuration.Engine.none
  default:
    guard text.hasPrefix("unix://") else { return nil }
    let path = String(text.dropFirst(7))
    return isTarget(path) && path != "/" ? .socket(absolutePath(path, in: "/")) : nil
  }
}

private func metrics(_ text: String) -> Configuration.Metrics? {
  switch text {
  case "unix": return .unix
  case "off": return .off
  default:
    guard let colon = text.lastIndex(of: ":"), let port = UInt16(text[text.index(after: colon)...]), port > 0 else {
      return nil
    }
    let address = String(text[..<colon])
    if address == "[::1]" { return .port(address: "::1", port) }
    guard address.hasPrefix("127."), isAddress(address) else { return nil }
    return .port(address: address, port)
  }
}

private func isCgroupPath(_ text: String) -> Bool {
  text.hasPrefix("/") && text.count > 1
    && text.dropFirst().split(separator: "/", omittingEmptySubsequences: false).allSatisfy { isObjectName(String($0)) }
}

/// Decimal, or hexadecimal after `0x`.
private func number(_ text: String) -> UInt32? {
  guard text.hasPrefix("0x") else { return Form.whole(text).flatMap { UInt32(exactly: $0) } }
  let digits = text.dropFirst(2)
  return digits.hasPrefix("+") || digits.hasPrefix("-") ? nil : UInt32(digits, radix: 16)
}

@Sendable private func readRange(_ node: Written, _ configuration: inout Configuration, _ findings: inout Findings) {
  guard let base = node["base"] else { return }
  let value = base.text.flatMap { number($0) } ?? 0
  // Below are the host's own users; above there must be room for blocks.
  if value < 65536 || value > 0xFF00_0000 || value % 65536 != 0 {
    findings.error(base, "base is a multiple of 65536 from 65536 to 4278190080", hint: "0x200000 is free on most hosts")
  } else {
    configuration.uidRange.base = value
  }
}

private let operatorsForm = Form.list(
  .object([
    .init("user", .text(most: 64), "A user's name or uid"), .init("group", .text(most: 64), "A group's name or gid"),
    .init(
      "role", .word(Configuration.Operator.Role.allCases.map(\.rawValue)), "viewer, operator, owner or admin",
      required: true),
    .init("stacks", .list(.text(most: 64)), "Stacks, as shop or alice-*; default: all"),
  ]))

@Sendable private func readOperators(_ node: Written, _ configuration: inout Configuration, _ findings: inout Findings)
{
  for item in node.list ?? [] {
    let who: Configuration.Operator.Who
    switch (item["user"]?.text, item["group"]?.text) {
    case (let user?, nil): who = .user(user)
    case (nil, let group?): who = .group(group)
    case (nil, nil), (_?, _?):
      findings.error(item, "an operator is a user or a group, one of the two")
      continue
    }
    guard let role = item["role"]?.text.flatMap({ Configuration.Operator.Role(rawValue: $0) }) else { continue }
    for stack in item["stacks"]?.list ?? [] {
      let name = stack.text ?? ""
      let base = name.hasSuffix("*") ? String(name.dropLast()) : name
      if !(base.isEmpty && name == "*"), !isObjectName(base) {
        findings.error(stack, "\(name.quoted) is not a stack", hint: "'*' may stand at the end only")
      }
    }
    configuration.operators.append(.init(who: who, role: role, stacks: item["stacks"]?.texts ?? ["*"]))
  }
}

/// What came of a config.yaml.
package struct ConfigurationReading: Sendable, Equatable {
  /// Nil if there are errors.
  package var configuration: Configuration?
  package var problems: [Problem]

  /// All problems as text, compiler style.
  package func rendered(file: String) -> String { problems.map { $0.rendered(file: file) }.joined() }
}

/// Reads the daemon's configuration; an empty file is all defaults. Variables are not replaced: a daemon has no caller.
package func readConfiguration(_ bytes: [UInt8]) -> ConfigurationReading {
  let text = String(decoding: bytes.prefix(FileLimits.bytes), as: UTF8.self)
  var findings = Findings()
  var configuration = Configuration()
  if let document = YAMLReading.read(bytes, environment: [:], findings: &findings), !document.isNull {
    if let members = document.members {
      for member in members { read(member, &configuration, &findings) }
    } else {
      findings.error(document, "the configuration is a map of keys, not \(document.kind)")
    }
  }
  return ConfigurationReading(
    configuration: findings.errors == 0 ? configuration : nil, problems: findings.listed(in: text))
}

private func read(_ member: Written.Member, _ configuration: inout Configuration, _ findings: inout Findings) {
  guard let setting = settings.first(where: { $0.key == member.key }) else {
    if member.key.hasPrefix("x-") { return }
    findings.error(
      member.keyNode, "unknown key \(member.key.quoted)",
      hint: findings.isFull ? nil : didYouMean(member.key, settings.map(\.key)))
    return
  }
  guard setting.form.check(member.value, &findings) else { return }
  guard let later = setting.later else { return setting.read(member.value, &configuration, &findings) }
  if member.value.list?.isEmpty == true || member.value.members?.isEmpty == true { return }
  findings.error(member.keyNode, "\(setting.key) is not supported yet", hint: "not built yet: \(later)")
}

/// The JSON Schema of config.yaml.
package func configurationSchemaDocument() -> JSONValue {
  var properties = JSONObject()
  for setting in settings {
    properties[setting.key] = described(
      setting.form, setting.later == nil ? setting.doc : "\(setting.doc). Not supported yet")
  }
  return closedObject(title: "The configuration of appsupervisor's daemon", properties, required: [])
}

/// Whether a file is the daemon's configuration rather than a policy, by its name.
package func isConfigurationFile(_ path: String) -> Bool {
  ["config.yaml", "config.yml"].contains(String(path.split(separator: "/").last ?? ""))
}
