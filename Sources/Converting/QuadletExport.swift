internal import Model
internal import Policies

/// Policies as Quadlet units of Podman (podman-systemd.unit(5), 4.6 and later): what its keys do not say yet goes in PodmanArgs.
enum QuadletExport {
  static let table: [String: Said] = [
    "stack": .no("units are not grouped"), "memswap_limit": .yes, "mem_reservation": .yes, "cpu_shares": .yes,
    "cpuset": .yes, "priority": .yes, "pids_limit": .yes, "ulimits": .yes, "blkio_config": .yes,
    "oom_score_adj": .yes, "shm_size": .yes, "stop_signal": .yes, "max_runtime": .yes, "restart_policy": .yes,
    "mem_high": .yes, "logging": .yes, "healthcheck": .yes, "description": .yes, "name": .yes,
    "profiles": .no("units are enabled one by one"),
    "rootfs": .no("a container has an image"),
    "max_cpu_time": .no("nothing ends a run by its CPU time"),
    "ready": .no("write Notify= by hand if the app notifies"),
    "pre_start": .no("write ExecStartPre= by hand"), "schedule": .no("write a timer unit by hand"),
    "stdin_open": .no("nobody types into a unit"), "tty": .no("nobody types into a unit"),
    "template": .no("write a template unit by hand"), "instances": .no("write a template unit by hand"),
    "update_config": .no("a unit is stopped before it is started"),
  ]

  static func export(_ sources: [ExportSource]) -> Export {
    var export = Export()
    var volumes: Set<String> = []
    var networks: Set<String> = []
    let exported = Set(sources.filter { $0.obstacle == nil }.map(\.policy.id))
    for source in sources {
      var losses = Losses(source)
      if let obstacle = source.obstacle {
        losses.add(.dropped, "", "the app is left out: \(obstacle)")
      } else {
        let unit = container(source, exported, &losses)
        export.files.append(("\(source.policy.id).container", unit))
        if case .build(let context, let dockerfile, let arguments, let tag) = source.policy.image {
          export.files.append(("\(source.policy.id).build", build(context, dockerfile, arguments, tag)))
        }
        for mount in source.policy.mounts {
          if case .volume(let name, external: false) = mount.kind { volumes.insert(name) }
        }
        if source.policy.network.mode == .bridge { networks.insert("\(source.policy.id)-own") }
        networks.formUnion(source.policy.network.attachments.map(\.network))
        losses.addUnsaid(table)
      }
      export.remarks += losses.remarks
    }
    for name in volumes.sorted() { export.files.append(("\(name).volume", "[Volume]\nVolumeName=\(name)\n")) }
    for name in networks.sorted() { export.files.append(("\(name).network", "[Network]\nNetworkName=\(name)\n")) }
    return export
  }

  private static func build(_ context: String, _ file: String, _ arguments: [String: String], _ tag: String) -> String {
    var text = "[Build]\nImageTag=\(tag)\nSetWorkingDirectory=\(word(context))\nFile=\(word(file))\n"
    if !arguments.isEmpty {
      let flags = arguments.sorted { $0.key < $1.key }.map { "--build-arg \(word("\($0.key)=\($0.value)"))" }
      text += "PodmanArgs=\(flags.joined(separator: " "))\n"
    }
    return text
  }

  // MARK: One unit

  private static func container(_ source: ExportSource, _ exported: Set<AppID>, _ losses: inout Losses) -> String {
    let policy = source.policy
    var unit = Section("Unit")
    let title = policy.about.description.isEmpty ? policy.name : policy.about.description
    unit.add("Description", title.unicodeScalars.allSatisfy(\.isShowable) ? specifiers(title) : policy.id.name)
    for dependency in policy.dependencies {
      guard exported.contains(dependency.app) else {
        losses.add(.dropped, "depends_on", "\(dependency.app) is not among these units")
        continue
      }
      unit.add("After", "\(dependency.app).service")
      unit.add(dependency.required ? "Requires" : "Wants", "\(dependency.app).service")
      if dependency.condition != .started {
        losses.add(.changed, "depends_on", "\(dependency.app) is waited for until it is started, no longer")
      }
    }
    unit.add("StartLimitIntervalSec", seconds(policy.backoff.window))
    unit.add("StartLimitBurst", "\(policy.backoff.maximumAttempts)")
    let body = containerSection(policy, source, &losses)
    var text = unit.text + body.text + service(policy, &losses).text
    let isStarted = policy.restart == .always || policy.restart == .unlessStopped
    if isStarted { text += "\n[Install]\nWantedBy=multi-user.target default.target\n" }
    return "# By `supervisor export --to quadlet`.\n" + text
  }

  private static func service(_ policy: Policy, _ losses: inout Losses) -> Section {
    var service = Section("Service")
    switch policy.restart {
    case .no: service.add("Restart", "no")
    case .always: service.add("Restart", "always")
    case .unlessStopped:
      service.add("Restart", "always")
      losses.add(.changed, "restart", "a unit that was stopped starts again at the next boot: disable it")
    case .onFailure(let most):
      service.add("Restart", "on-failure")
      if most != nil { losses.add(.changed, "restart", "attempts are counted within restart_policy's window") }
    }
    service.add("RestartSec", seconds(policy.backoff.delay))
    if policy.backoff.multiplier != 1, source(losses, sets: "restart_policy") {
      losses.add(.dropped, "restart_policy", "each restart waits the same time")
    }
    service.add("TimeoutStopSec", seconds(policy.stopGrace + .seconds(10)))
    if let most = policy.limits.maximumRuntime { service.add("RuntimeMaxSec", seconds(most)) }
    if let high = policy.limits.memoryHigh { service.add("MemoryHigh", "\(high.count)") }
    return service
  }

  private static func source(_ losses: Losses, sets key: String) -> Bool { losses.source.canonical[key] != nil }

  private static func containerSection(_ policy: Policy, _ source: ExportSource, _ losses: inout Losses) -> Section {
    var section = Section("Container")
    var flags: [String] = []
    section.add("ContainerName", policy.id.name)
    if case .build = policy.image {
      section.add("Image", "\(policy.id).build")
    } else {
      section.add("Image", policy.image?.reference ?? "")
    }
    switch policy.image {
    case .reference(_, let rule)?: section.add("Pull", rule.rawValue)
    case .build?, nil: break
    }
    if let entrypoint = policy.entrypoint {
      let words = entrypoint.map { "\"\(quoted($0))\"" }.joined(separator: ",")
      flags.append("--entrypoint \(word("[\(words)]"))")
    }
    if !policy.entry.isEmpty { section.add("Exec", policy.entry.map(word).joined(separator: " ")) }
    for entry in policy.plainEnvironment { section.add("Environment", word("\(entry.name)=\(entry.value)")) }
    if let folder = policy.workingDirectory { flags.append("--workdir \(word(folder))") }
    switch policy.user {
    case .auto: losses.add(.changed, "user", "there are no ids of an app's own: it is the image's user")
    case .image: break
    case .given(let uid, let gid):
      section.add("User", "\(uid)")
      section.add("Group", "\(gid)")
    }
    addRights(policy, &section, &losses)
    addMounts(policy, &section, &losses)
    addNetwork(policy, &section, &flags)
    for (name, value) in policy.labels.sorted(by: { $0.key < $1.key }) {
      section.add("Label", word("\(name)=\(value)"))
    }
    addLimits(policy, &section, &flags, &losses)
    addHealthcheck(effectiveDocument(policy)["healthcheck"], &section, &losses)
    section.add("LogDriver", "k8s-file")
    flags.append("--log-opt max-size=\(policy.logging.maximumSize.count)")
    if source.canonical["logging"] != nil {
      losses.add(.changed, "logging", "one file of max-size is kept; the journal has its own limits")
    }
    if !flags.isEmpty { section.add("PodmanArgs", flags.joined(separator: " ")) }
    return section
  }

  private static func addRights(_ policy: Policy, _ section: inout Section, _ losses: inout Losses) {
    section.add("ReadOnly", policy.readOnlyRoot ? "true" : "false")
    for name in policy.capabilities.drop { section.add("DropCapability", name.lowercased()) }
    for name in policy.capabilities.add { section.add("AddCapability", name.lowercased()) }
    section.add("NoNewPrivileges", policy.mayGainPrivileges ? "false" : "true")
    for option in policy.securityOptions where option == "seccomp=unconfined" {
      section.add("SeccompProfile", "unconfined"); _ = option
    }
    for option in policy.securityOptions where option.hasPrefix("apparmor=") {
      section.add("PodmanArgs", "--security-opt \(word(option))")
    }
    for group in policy.supplementaryGroups { section.add("GroupAdd", "\(group)") }
    if !policy.isPrivileged {
      losses.add(.note, "sandbox", "podman's own system call filter is in force there, not the supervisor's")
    }
  }

  private static func addMounts(_ policy: Policy, _ section: inout Section, _ losses: inout Losses) {
    for mount in policy.mounts {
      let suffix = mount.readOnly ? ":ro" : ""
      switch mount.kind {
      case .volume(let name, let external):
        section.add("Volume", word("\(name)\(external ? "" : ".volume"):\(mount.target)\(suffix)"))
        if !external {
          losses.add(.note, "volumes", "the data of \(name) is the supervisor's: copy it into podman's volume")
        }
      case .bind(let path): section.add("Volume", word("\(path):\(mount.target)\(suffix)"))
      case .memory(let size, let mode):
        var options = "size=\(size.count)"
        if let mode { options += ",mode=\(String(mode, radix: 8))" }
        if mount.readOnly { options += ",ro" }
        section.add("Tmpfs", word("\(mount.target):\(options)"))
      }
    }
  }

  private static func addNetwork(_ policy: Policy, _ section: inout Section, _ flags: inout [String]) {
    switch policy.network.mode {
    case .none: section.add("Network", "none")
    case .host: section.add("Network", "host")
    case .bridge: section.add("Network", "\(policy.id)-own.network")
    case .named:
      for attachment in policy.network.attachments {
        section.add("Network", "\(attachment.network).network")
        for alias in attachment.aliases { flags.append("--network-alias \(word(alias))") }
      }
    }
    for port in policy.network.ports {
      let address = port.hostAddress.contains(":") ? "[\(port.hostAddress)]" : port.hostAddress
      let host = port.hostPort == 0 ? "" : "\(port.hostPort)"
      section.add("PublishPort", "\(address):\(host):\(port.appPort)/\(port.transport.rawValue)")
    }
    for host in policy.network.extraHosts { section.add("AddHost", "\(host.name):\(host.address)") }
    for server in policy.network.dns { flags.append("--dns \(server)") }
    if let name = policy.network.hostname { section.add("HostName", name) }
  }

  private static func addLimits(
    _ policy: Policy, _ section: inout Section, _ flags: inout [String], _ losses: inout Losses
  ) {
    let limits = policy.limits
    if let memory = limits.memory {
      flags.append("--memory \(memory.count)")
      flags.append("--memory-swap \(limits.memoryAndSwap.map { "\($0.count)" } ?? "-1")")
    }
    if let size = limits.memoryReservation { flags.append("--memory-reservation \(size.count)") }
    if let cpus = limits.cpus { flags.append("--cpus \(cpus)") }
    if let shares = policy.shares {
      flags.append("--cpu-shares \(shares)")
      if limits.cpuShares == nil {
        losses.add(.changed, "priority", "it is a share of the CPU there, and does not decide who goes first")
      }
    }
    if let cores = limits.cpuset { flags.append("--cpuset-cpus \(cores)") }
    section.add("PidsLimit", limits.pids.map { "\($0)" } ?? "-1")
    for limit in limits.rlimits {
      func text(_ value: UInt64) -> String { value > UInt64(Int64.max) ? "-1" : "\(value)" }
      section.add("Ulimit", "\(limit.name)=\(text(limit.soft)):\(text(limit.hard))")
    }
    if let size = limits.shmSize { section.add("ShmSize", "\(size.count)") }
    flags.append("--oom-score-adj \(limits.oomScoreAdjustment)")
    if let weight = limits.block.weight { flags.append("--blkio-weight \(weight)") }
    for (flag, rates) in [
      ("read-bps", limits.block.readBytesPerSecond), ("write-bps", limits.block.writeBytesPerSecond),
      ("read-iops", limits.block.readOperationsPerSecond), ("write-iops", limits.block.writeOperationsPerSecond),
    ] {
      for rate in rates { flags.append("--device-\(flag) \(word("\(rate.path):\(rate.rate)"))") }
    }
    flags.append("--stop-signal \(SignalName.name(of: policy.stopSignal) ?? "\(policy.stopSignal)")")
    flags.append("--stop-timeout \(Int(policy.stopGrace.seconds.rounded(.up)))")
  }

  private static func addHealthcheck(_ check: JSONValue?, _ section: inout Section, _ losses: inout Losses) {
    guard let check = check?.objectValue, !check.isEmpty else { return }
    let keys = [
      "interval": "HealthInterval", "timeout": "HealthTimeout", "retries": "HealthRetries",
      "start_period": "HealthStartPeriod",
    ]
    for (key, value) in check {
      let text = value.stringValue ?? value.text
      if key == "test" {
        let words = value.arrayValue?.compactMap(\.stringValue) ?? [text]
        let command = words.first == "CMD" || words.first == "CMD-SHELL" ? Array(words.dropFirst()) : words
        section.add("HealthCmd", command.map(word).joined(separator: " "))
      } else if let name = keys[key] {
        section.add(name, text)
      } else if key == "on_failure", text == "restart" {
        section.add("HealthOnFailure", "kill")
      } else {
        losses.add(.dropped, "healthcheck.\(key)", "checks are commands in the container there")
      }
    }
  }

  // MARK: Text

  private struct Section {
    private(set) var text: String
    init(_ name: String) { text = "\n[\(name)]\n" }
    mutating func add(_ key: String, _ value: String) { text += "\(key)=\(value)\n" }
  }

  private static func seconds(_ time: Duration) -> String { time.compact }

  /// What systemd would take for one of its own specifiers, doubled.
  private static func specifiers(_ text: String) -> String {
    text.flatMap { $0 == "%" ? "%%" : "\($0)" }.map(String.init).joined()
  }

  private static func quoted(_ text: String) -> String {
    var output = ""
    for character in text {
      switch character {
      case "\"": output += "\\\""
      case "\\": output += "\\\\"
      case "\n": output += "\\n"
      case "\t": output += "\\t"
      default: output.append(character)
      }
    }
    return output
  }

  /// One word of a systemd command line: quoted where needed, `%` and `$` doubled (systemd.service(5)).
  static func word(_ text: String) -> String {
    let doubled = text.map { $0 == "%" || $0 == "$" ? "\($0)\($0)" : "\($0)" }.joined()
    let isPlain =
      !doubled.isEmpty
      && doubled.utf8.allSatisfy { byte in
        byte > 0x20 && byte < 0x7F && !"\"'\\;#".utf8.contains(byte)
      }
    return isPlain ? doubled : "\"\(quoted(doubled))\""
  }
}
