internal import Model
internal import Policies

/// Policies as one Compose file.
enum ComposeExport {
  /// What Compose has the same words for: our canonical form is Compose's.
  private static let alike = [
    "build", "entrypoint", "environment", "working_dir", "mem_limit", "memswap_limit", "mem_reservation", "cpus",
    "cpuset", "pids_limit", "ulimits", "blkio_config", "oom_score_adj", "shm_size", "restart", "stop_signal",
    "stop_grace_period", "ports", "extra_hosts", "dns", "hostname", "read_only", "cap_add", "cap_drop", "group_add",
    "labels", "profiles", "pull_policy", "logging", "stdin_open", "tty",
  ]

  static let table: [String: Said] = {
    var table: [String: Said] = [
      "memswap_limit": .yes, "cpu_shares": .yes, "priority": .yes,
      "restart_policy": .no("restarts are spaced by the engine"),
      "rootfs": .no("a container has an image"),
      "max_runtime": .no("nothing ends a run by its time"), "max_cpu_time": .no("nothing ends a run by its CPU time"),
      "healthcheck": .yes,
      "ready": .no("an app is ready once it is started, or healthy"),
      "pre_start": .no("write it as a service that others wait for"),
      "schedule": .no("nothing runs by the clock"),
      "template": .no("there are no templates"), "instances": .no("there are no templates"),
      "update_config": .no("a service is stopped before its new container starts"),
    ]
    for key in alike { table[key] = .yes }
    for key in ["description", "publisher", "version", "category"] { table[key] = .no("write a label for people") }
    return table
  }()

  static func export(_ sources: [ExportSource]) -> Export {
    var export = Export()
    var services = JSONObject()
    var networks = JSONObject()
    var volumes = JSONObject()
    let stack = sources.first?.policy.stack ?? "default"
    let exported = Set(sources.filter { $0.obstacle == nil }.map(\.policy.id))
    for source in sources {
      var losses = Losses(source)
      defer { export.remarks += losses.remarks }
      if let obstacle = source.obstacle {
        losses.add(.dropped, "", "the app is left out: \(obstacle)")
        continue
      }
      if source.policy.stack != stack {
        losses.add(
          .changed, "stack", "one file is one project: it is in '\(stack)' now, not in '\(source.policy.stack)'")
      }
      services[source.policy.id.name] = .object(
        service(source, exported, &networks, &volumes, &losses))
      losses.addUnsaid(table)
    }
    guard !services.isEmpty else { return export }
    let document = JSONValue.object([
      "name": .string(stack), "services": .object(services), "networks": networks.isEmpty ? nil : .object(networks),
      "volumes": volumes.isEmpty ? nil : .object(volumes),
    ])
    export.files.append(("compose.yaml", "# By `supervisor export --to compose`.\n" + yamlText(document)))
    return export
  }

  private static func service(
    _ source: ExportSource, _ exported: Set<AppID>, _ networks: inout JSONObject, _ volumes: inout JSONObject,
    _ losses: inout Losses
  ) -> JSONObject {
    let policy = source.policy
    let document = effectiveDocument(policy)
    var service = JSONObject()
    if let image = policy.image { service["image"] = .string(image.reference) }
    for key in alike {
      guard let value = document[key], value.arrayValue?.isEmpty != true, value.objectValue?.isEmpty != true else {
        continue
      }
      service[key] = value
    }
    if case .build = policy.image { service["pull_policy"] = nil }
    if policy.environment.contains(where: { $0.secret != nil }) {
      service["environment"] = .object(
        policy.plainEnvironment.reduce(into: JSONObject()) { $0[$1.name] = .string($1.value) })
    }
    service["image"] = policy.image.map { .string($0.reference) }
    if !policy.entry.isEmpty { service["command"] = .array(policy.entry.map { .string($0) }) }
    if let shares = policy.shares {
      service["cpu_shares"] = .count(shares)
      if policy.limits.cpuShares == nil {
        losses.add(.changed, "priority", "it is cpu_shares: \(shares) there, and does not decide who goes first")
      }
    }
    addUser(policy, &service, &losses)
    addNetwork(policy, &service, &networks)
    addMounts(policy, &service, &volumes, &losses)
    addDependencies(policy, exported, &service, &losses)
    addRights(policy, &service, &losses)
    addHealthcheck(document, &service, &losses)
    return service
  }

  private static func addUser(_ policy: Policy, _ service: inout JSONObject, _ losses: inout Losses) {
    switch policy.user {
    case .auto: losses.add(.changed, "user", "there are no ids of an app's own: it is the image's user")
    case .image: break
    case .given(let uid, let gid): service["user"] = .string("\(uid):\(gid)")
    }
  }

  private static func addNetwork(_ policy: Policy, _ service: inout JSONObject, _ networks: inout JSONObject) {
    switch policy.network.mode {
    case .none: service["network_mode"] = "none"
    case .host: service["network_mode"] = "host"
    case .bridge:
      let name = "\(policy.id.name)-own"
      networks[name] = .object([:])
      service["networks"] = .array([.string(name)])
    case .named:
      var attached = JSONObject()
      for attachment in policy.network.attachments {
        networks[attachment.network] = .object(["name": .string(attachment.network)])
        attached[attachment.network] =
          attachment.aliases.isEmpty
          ? .null : .object(["aliases": .array(attachment.aliases.map { .string($0) })])
      }
      service["networks"] = .object(attached)
    }
  }

  private static func addMounts(
    _ policy: Policy, _ service: inout JSONObject, _ volumes: inout JSONObject, _ losses: inout Losses
  ) {
    var mounts: [JSONValue] = []
    var memory: [JSONValue] = []
    for mount in policy.mounts {
      let readOnly: JSONValue? = mount.readOnly ? true : nil
      switch mount.kind {
      case .volume(let name, let external):
        volumes[name] = external ? .object(["external": true]) : .object(["name": .string(name)])
        mounts.append(
          .object([
            "type": "volume", "source": .string(name), "target": .string(mount.target), "read_only": readOnly,
          ]))
        if !external {
          losses.add(.note, "volumes", "the data of \(name) is the supervisor's: copy it into the engine's volume")
        }
      case .bind(let path):
        mounts.append(
          .object(["type": "bind", "source": .string(path), "target": .string(mount.target), "read_only": readOnly]))
      case .memory(let size, let mode):
        var text = "\(mount.target):size=\(size.count)"
        if let mode { text += ",mode=\(String(mode, radix: 8))" }
        if mount.readOnly { text += ",ro" }
        memory.append(.string(text))
      }
    }
    if !mounts.isEmpty { service["volumes"] = .array(mounts) }
    if !memory.isEmpty { service["tmpfs"] = .array(memory) }
  }

  private static func addDependencies(
    _ policy: Policy, _ exported: Set<AppID>, _ service: inout JSONObject, _ losses: inout Losses
  ) {
    var object = JSONObject()
    for dependency in policy.dependencies {
      guard exported.contains(dependency.app) else {
        losses.add(.dropped, "depends_on", "\(dependency.app) is not in this file")
        continue
      }
      object[dependency.app.name] = .object([
        "condition": .string(dependency.condition.rawValue), "restart": dependency.restart ? true : nil,
        "required": dependency.required ? nil : false,
      ])
    }
    if !object.isEmpty { service["depends_on"] = .object(object) }
    if !object.isEmpty {
      losses.add(.note, "depends_on", "order holds at the first start only, not at boot or after a crash")
    }
  }

  private static func addRights(_ policy: Policy, _ service: inout JSONObject, _ losses: inout Losses) {
    var options = policy.securityOptions.filter { !$0.hasPrefix("no-new-privileges") }.map { JSONValue.string($0) }
    if !policy.mayGainPrivileges { options.append("no-new-privileges:true") }
    if !options.isEmpty { service["security_opt"] = .array(options) }
    if policy.isPrivileged {
      losses.add(.changed, "sandbox", "the limits and rights of the preset are written out one by one")
    } else {
      losses.add(.note, "sandbox", "the engine's own system call filter is in force there, not the supervisor's")
    }
  }

  private static func addHealthcheck(_ document: JSONValue, _ service: inout JSONObject, _ losses: inout Losses) {
    guard let check = document["healthcheck"]?.objectValue, !check.isEmpty else { return }
    var object = JSONObject()
    for (key, value) in check {
      switch key {
      case "test", "interval", "timeout", "retries", "start_period", "start_interval", "disable": object[key] = value
      case "http", "tcp": losses.add(.dropped, "healthcheck.\(key)", "checks are commands in the container there")
      case "on_failure": losses.add(.dropped, "healthcheck.on_failure", "an unhealthy service is left as it is")
      default: losses.add(.dropped, "healthcheck.\(key)", "there is no word for it")
      }
    }
    if object["test"] != nil || object["disable"] != nil { service["healthcheck"] = .object(object) }
  }
}
