internal import Model
internal import Policies

/// One service on its way to a policy. What Compose and policies write alike is passed on; Policies' reader judges it at the end.
struct ServiceImport {
  struct Attached {
    var name: String
    var isExternal: Bool
    var aliases: [String]
  }

  let project: ComposeProject
  let service: Written.Member
  let id: String
  /// The service's map, for the place of what it does not write itself.
  let node: Written
  var members: [(key: String, value: Written)] = []
  var remarks: [Remark] = []
  var problems: [Problem] = []
  /// Files whose content the Compose file holds.
  var contents: [Import.File] = []
  var networks: [Attached] = []
  private var aliases: [String] = []
  private var hasNetworkMode = false

  init(_ project: ComposeProject, _ service: Written.Member) {
    self.project = project
    self.service = service
    id = project.ids[service.key] ?? service.key
    node = service.value
  }

  mutating func set(_ key: String, _ value: Written) {
    members.removeAll { $0.key == key }
    members.append((key, value))
  }

  func value(_ key: String) -> Written? { members.first { $0.key == key }?.value }

  mutating func remark(_ kind: Remark.Kind, _ node: Written, _ key: String, _ reason: String) {
    remarks.append(
      Remark(
        kind, file: project.source.path, line: node.place.line, column: node.place.column, app: service.key, key: key,
        reason))
  }

  /// Everything the service says, and what Compose means where it says nothing.
  mutating func translate() {
    let entry = service.keyNode
    set("id", entry.made(id))
    set("stack", entry.made(project.name))
    set("runtime", entry.made("container"))
    if id != service.key {
      aliases.append(service.key)
      remark(.note, entry, "", "the app is named \(id)")
    }
    for member in extended(node, depth: 0) where !member.key.hasPrefix("x-") && !member.value.isNull {
      take(member)
    }
    if !hasNetworkMode, networks.isEmpty { attach("default", [], node) }
    for place in networks.indices { networks[place].aliases += aliases }
    fillIn()
  }

  /// The service's members, with those of the service of the same file that it extends.
  private mutating func extended(_ node: Written, depth: Int) -> [Written.Member] {
    let own = node.members ?? []
    guard let extends = node["extends"] else { return own }
    let name = extends.text ?? extends["service"]?.text ?? ""
    guard extends["file"] == nil, depth < 8, let base = project.root["services"]?[name] else {
      remark(.dropped, extends, "extends", "only services of the same file can be extended: write its keys here")
      return own.filter { $0.key != "extends" }
    }
    var result = extended(base, depth: depth + 1).filter { $0.key != "depends_on" }
    for member in own where member.key != "extends" {
      guard let place = result.firstIndex(where: { $0.key == member.key }) else {
        result.append(member)
        continue
      }
      result[place].value = Self.merged(result[place].value, member.value)
    }
    return result
  }

  /// Maps join, lists follow each other, everything else is replaced.
  private static func merged(_ base: Written, _ own: Written) -> Written {
    if let first = base.members, let second = own.members {
      let keys = Set(second.map(\.key))
      return own.with(.map(first.filter { !keys.contains($0.key) } + second))
    }
    if let first = base.list, let second = own.list { return own.with(.list(first + second)) }
    return own
  }

  // MARK: One key

  /// Keys that are taken apart here, and are never one value.
  private static let collections: Set<String> = [
    "depends_on", "networks", "ports", "volumes", "secrets", "configs", "deploy", "links",
  ]

  private mutating func take(_ member: Written.Member) {
    let key = member.key
    let value = member.value
    if value.text != nil, Self.collections.contains(key) {
      remark(.dropped, value, key, "it is a list or a map")
      return
    }
    switch key {
    case "command": set("entry", value)
    case "build": takeBuild(value)
    case "container_name": if let name = value.text, name != id { aliases.append(name.lowercased()) }
    case "depends_on": takeDependencies(value)
    case "networks": takeNetworks(value)
    case "network_mode": takeNetworkMode(value)
    case "ports": takePorts(value)
    case "volumes": takeVolumes(value)
    case "secrets", "configs": takeFiles(key, value)
    case "deploy": takeDeploy(value)
    case "env_file": set(key, envFiles(value))
    case "links":
      for link in value.list ?? [] where link.text?.contains(":") == true {
        remark(.dropped, link, key, "the other service has no second name here: write it as an alias on its network")
      }
    case "expose", "init", "attach": break
    case "cpu_quota", "cpu_period": takeQuota()
    case "cpu_count": set("cpus", value)
    case "scale" where value.text == "1": break
    case "privileged" where value.text == "true":
      set("sandbox", value.made("privileged"))
      remark(
        .note, member.keyNode, key,
        "it becomes sandbox: privileged, which starts only where privileged_apps of config.yaml lists \(id)")
    case "user":
      let name = value.text ?? ""
      let isNumeric = !name.isEmpty && name.utf8.allSatisfy { (0x30...0x39).contains($0) || $0 == 0x3A }
      if isNumeric {
        set(key, value)
      } else {
        remark(.changed, value, key, "a name is the image's to know: write UID:GID; the image's own user is used")
      }
    case _ where refusedKeys[key] != nil || key == "runtime":
      if value.isFalse { return }
      remark(.dropped, member.keyNode, key, refusedKeys[key] ?? "the supervisor chooses the runtime")
    case _ where composeKeys.contains(key): set(key, value)
    default: remark(.dropped, member.keyNode, key, "it is no key of Compose that is known")
    }
  }

  private mutating func takeBuild(_ value: Written) {
    var parts: [(String, Written)] = [
      ("context", value.made(project.place(value["context"]?.text ?? value.text ?? ".")))
    ]
    for member in value.members ?? [] where member.key != "context" {
      if ["dockerfile", "args", "target"].contains(member.key) {
        parts.append((member.key, member.value))
      } else {
        remark(.dropped, member.keyNode, "build.\(member.key)", "the engine's own way of building is used")
      }
    }
    set("build", value.made(map: parts))
  }

  private mutating func takeDependencies(_ value: Written) {
    var pairs: [(String, Written)] = []
    for item in value.list ?? [] {
      let name = item.text ?? ""
      pairs.append((project.ids[name] ?? name, item.with(.null)))
    }
    for member in value.members ?? [] { pairs.append((project.ids[member.key] ?? member.key, member.value)) }
    set("depends_on", value.made(map: pairs))
  }

  private mutating func takeQuota() {
    guard let quota = node["cpu_quota"], let micros = quota.text.flatMap({ Double($0) }), micros > 0 else { return }
    let period = node["cpu_period"]?.text.flatMap { Double($0) } ?? 100_000
    let cpus = (micros / max(period, 1) * 1000).rounded() / 1000
    set("cpus", quota.made("\(cpus)"))
  }

  private func envFiles(_ value: Written) -> Written {
    let items = (value.list ?? [value]).map { item -> Written in
      if let path = item.text { return item.made(project.place(path)) }
      return item.made(
        map: (item.members ?? []).filter { $0.key != "format" }.map {
          ($0.key, $0.key == "path" ? $0.value.made(project.place($0.value.text ?? "")) : $0.value)
        })
    }
    return value.made(list: items)
  }

  // MARK: Network

  mutating func attach(_ key: String, _ extra: [String], _ node: Written) {
    let network = project.network(key)
    networks.append(Attached(name: network.name, isExternal: network.isExternal, aliases: extra))
    if network.isExternal {
      remark(
        .note, node, "networks.\(key)",
        "if \(network.name) is the engine's own, list it under external_networks of config.yaml")
    }
  }

  private mutating func takeNetworks(_ value: Written) {
    hasNetworkMode = true
    for item in value.list ?? [] { attach(item.text ?? "", [], item) }
    for member in value.members ?? [] {
      attach(member.key, (member.value["aliases"]?.list ?? []).compactMap(\.text), member.keyNode)
      for option in member.value.members ?? [] where option.key != "aliases" {
        remark(
          .dropped, option.keyNode, "networks.\(member.key).\(option.key)",
          option.key == "priority" ? "the first network is the first one named" : "the engine chooses addresses")
      }
    }
  }

  private mutating func takeNetworkMode(_ value: Written) {
    hasNetworkMode = true
    switch value.text ?? "" {
    case "none": set("network_mode", value)
    case "bridge", "default": set("network_mode", value.made("bridge"))
    case "host":
      set("network_mode", value)
      set("sandbox", value.made("privileged"))
      remark(
        .changed, value, "network_mode",
        "the host's network needs sandbox: privileged, and \(id) under privileged_apps of config.yaml")
    default:
      remark(
        .dropped, value, "network_mode", "an app never shares another one's network: it is put on the project's")
      attach("default", [], value)
    }
  }

  private mutating func takePorts(_ value: Written) {
    var items: [Written] = []
    var isOpen = false
    for item in value.list ?? [] {
      guard let text = item.text else {
        var pairs = (item.members ?? []).filter { !$0.key.hasPrefix("x-") }.map { ($0.key, $0.value) }
        if item["host_ip"] == nil {
          pairs.append(("host_ip", item.made("0.0.0.0")))
          isOpen = true
        }
        items.append(item.made(map: pairs))
        continue
      }
      let colons = text.count { $0 == ":" }
      let hasAddress = text.hasPrefix("[") || colons >= 2
      if hasAddress {
        items.append(item)
      } else {
        items.append(item.made(colons == 1 ? "0.0.0.0:\(text)" : "0.0.0.0::\(text)"))
        isOpen = true
      }
    }
    if isOpen {
      remark(.note, value, "ports", "published on every address, as Compose does: without 0.0.0.0 it is 127.0.0.1 only")
    }
    set("ports", value.made(list: items))
  }

  // MARK: What is not written

  /// What Compose's silence means: the image's user, a root that can be written, and the engine's capabilities.
  private mutating func fillIn() {
    let facts = node["image"]?.text.flatMap { project.source.images[$0] }
    let isPrivileged = value("sandbox")?.text == "privileged"
    if value("user") == nil { set("user", node.made("image")) }
    if value("read_only") == nil { set("read_only", node.made("false")) }
    let userText = value("user")?.text ?? ""
    let mayBeRoot = userText == "image" ? facts?.runsAsRoot ?? true : userText.prefix { $0 != ":" } == "0"
    if mayBeRoot, !isPrivileged {
      addCapabilities()
      let binds = (value("volumes")?.list ?? []).contains {
        $0["type"]?.text == "bind" && $0["read_only"]?.text != "true"
      }
      if binds, userText == "image" {
        remark(
          .note, node, "volumes",
          "the image may run as root beside a folder that it can write: list \(id) under unsafe_host_uids of config.yaml, or mount it read-only"
        )
      }
    }
    if facts == nil, node["image"] != nil {
      remark(
        .note, node, "image",
        "no engine says what this image's config is: its user is taken for root. Import again where it is loaded")
    }
    addImageVolumes(facts?.volumes ?? [])
    if let signal = facts?.stopSignal, !signal.isEmpty, signal != "SIGTERM", value("stop_signal") == nil {
      set("stop_signal", node.made(signal))
    }
  }

  /// What programs that start as root and then become another user need; all else of the engine's default is left out.
  private static let usual = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"]

  private mutating func addCapabilities() {
    func names(_ key: String) -> [String] {
      (node[key]?.list ?? []).compactMap(\.text).map {
        let upper = $0.uppercased()
        return upper.hasPrefix("CAP_") ? String(upper.dropFirst(4)) : upper
      }
    }
    let dropped = Set(names("cap_drop"))
    guard !dropped.contains("ALL") else { return }
    let added = Set(names("cap_add")).union(Self.usual.filter { !dropped.contains($0) })
    let place = node["cap_add"] ?? node
    set("cap_add", place.made(list: added.sorted().map { place.made($0) }))
    set("cap_drop", place.made(list: [place.made("ALL")]))
  }

  private mutating func addImageVolumes(_ folders: [String]) {
    var items = value("volumes")?.list ?? []
    for folder in folders.sorted() where !items.contains(where: { $0["target"]?.text == folder }) {
      let name = "\(project.name)_\(id)\(folder.map { $0.isLetter || $0.isNumber ? String($0) : "-" }.joined())"
      items.append(
        node.made(map: [
          ("type", node.made("volume")), ("source", node.made(String(name.prefix(63)))), ("target", node.made(folder)),
        ]))
      remark(.note, node, "volumes", "the image keeps data in \(folder): it is the volume \(name.prefix(63))")
    }
    if !items.isEmpty { set("volumes", node.made(list: items)) }
  }
}
