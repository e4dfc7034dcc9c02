internal import Model

/// What an app sees of files.
let fileFields: [Field] = [
  Field(
    "volumes", "Folders and memory that appear in the app", volumesForm, .recreate, read: readVolumes, show: showVolumes
  ),
  Field(
    "tmpfs", "Memory as a folder: PATH[:size=64m,mode=1777]", .oneOrMore(.text(most: 4352), said: "a path, or a list"),
    .recreate, read: readTmpfs, show: { _ in nil }),
  Field(
    "read_only", "Whether the root file system cannot be written", .boolean, .recreate,
    read: { $1.policy.readOnlyRoot = $0.text == "true" }, show: { .bool($0.readOnlyRoot) }),
]

private let volumesForm = Form.list(
  .either(
    [
      .text(most: 8192),
      .object([
        .init(
          "type", .word(["volume", "bind", "memory", "tmpfs", "overlay", "archive", "shared"]), "What stands behind it",
          required: true),
        .init("source", .path, "A volume's name, or a path"),
        .init("target", .target, "Where it appears in the app", required: true),
        .init("read_only", .boolean, "Whether the app may not write"),
        .init("size", .size, "Of memory: how much it may hold"),
        .init("mode", .mode, "Of memory: the folder's mode"),
        .init("external", .boolean, "A volume of the engine's own"),
        .init("owner", .word(["app", "keep"]), "Whose the files of a bind appear to be"),
        .init(
          "tmpfs", .object([.init("size", .size, "As size"), .init("mode", .mode, "As mode")]),
          "Compose's place for size and mode"),
        .init(
          "bind",
          .object([
            .init("create_host_path", .boolean, "Whether a missing folder is made", later: "making a missing folder"),
            .init("propagation", .text(), "Mount propagation", later: "mount propagation"),
            .init("selinux", .text(), "SELinux label", later: "SELinux labels"),
          ]), "Compose's options of binds"),
        .init(
          "volume",
          .object([
            .init("nocopy", .boolean, "Do not copy the image's files", later: "choosing nocopy"),
            .init("subpath", .text(), "A folder in the volume", later: "a folder in a volume"),
          ]), "Compose's options of volumes"),
        .init("consistency", .text(), "Accepted from Compose: one host has no other"),
      ]),
    ], said: "SOURCE:TARGET[:ro], or {type, source, target}"), most: 256)

@Sendable private func readVolumes(_ node: Written, _ draft: inout Draft) {
  for item in node.list ?? [] {
    let mount = item.text.map { shortVolume($0, item, &draft) } ?? longVolume(item, &draft)
    if let mount { add(mount, item, &draft) }
  }
}

private func add(_ mount: Mount, _ node: Written, _ draft: inout Draft) {
  let target = mount.target
  if target == "/"
    || ["/proc", "/sys", "/dev", "/run/supervisor"].contains(where: {
      target == $0 || target.hasPrefix($0 + "/") && $0 != "/dev"
    })
  {
    draft.findings.error(node, "\(target) is made by the supervisor and cannot be replaced")
  }
  if draft.policy.mounts.contains(where: { $0.target == target }) {
    draft.findings.error(node, "two mounts have the target \(target)")
  }
  if case .bind(let source) = mount.kind { checkSource(source, node, &draft) }
  draft.policy.mounts.append(mount)
}

/// Host paths that give an app the host: refused whatever the sandbox.
private let forbiddenSources = [
  "/proc", "/sys", "/dev", "/boot", "/run/docker.sock", "/var/run/docker.sock", "/run/podman", "/var/run/podman",
  "/run/containerd",
  "/var/run/containerd", "/run/crio", "/var/run/crio", "/run/appsupervisor", "/var/run/appsupervisor",
  "/var/lib/appsupervisor",
  "/etc/appsupervisor", "/var/lib/docker", "/var/lib/containers", "/run/systemd", "/var/run/systemd", "/run/dbus",
  "/var/run/dbus",
]

/// Refuses folders of the host that no app may have, by their names; links are the host's to judge.
func checkSource(_ source: String, _ node: Written, _ draft: inout Draft) {
  if forbiddenSources.contains(where: { source == $0 || source.hasPrefix($0 + "/") }) {
    draft.findings.error(node, "\(source) cannot be given to an app", hint: "it would give the app the host")
  } else if ["/", "/run", "/var", "/var/run", "/var/lib", "/etc"].contains(source) {
    draft.findings.error(
      node, "\(source) cannot be given to an app as a whole", hint: "name the folder in it that the app needs")
  }
}

/// `SOURCE:TARGET[:OPTIONS]`; a source with a slash at its start or `.` is a path, any other a volume's name.
private func shortVolume(_ text: String, _ node: Written, _ draft: inout Draft) -> Mount? {
  let parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
  guard (2...3).contains(parts.count) else {
    draft.findings.error(
      node, "\(text.quoted) is not SOURCE:TARGET[:ro]",
      hint: parts.count == 1 ? "a volume needs a name, so that its data can be found again: NAME:\(text)" : nil)
    return nil
  }
  var readOnly = false
  for option in parts.count == 3 ? parts[2].split(separator: ",", omittingEmptySubsequences: false) : [] {
    switch option {
    case "ro": readOnly = true
    case "rw": readOnly = false
    case "z", "Z":
      draft.findings.warning(
        node, "SELinux labels are not set: \(String(option).quoted) does nothing", hint: "remove it")
    // Hints to systems that run containers in a virtual machine.
    case "cached", "delegated", "consistent": break
    default:
      draft.findings.error(
        node, "\(String(option).quoted) is not an option of a volume that is supported", hint: "ro and rw are")
      return nil
    }
  }
  guard isTarget(parts[1]) else {
    draft.findings.error(node, "\(parts[1].quoted) is not \(Form.target.said)")
    return nil
  }
  let target = absolutePath(parts[1], in: "/")
  if parts[0].hasPrefix("/") || parts[0].hasPrefix(".") {
    return Mount(
      target: target, kind: .bind(source: absolutePath(parts[0], in: draft.policy.baseFolder)), readOnly: readOnly)
  }
  return named(parts[0], node, &draft).map {
    Mount(target: target, kind: .volume(name: $0, external: false), readOnly: readOnly)
  }
}

private func named(_ name: String, _ node: Written, _ draft: inout Draft) -> String? {
  guard isObjectName(name) else {
    draft.findings.error(
      node, "\(name.quoted) is not a volume's name",
      hint: name.hasPrefix("~") ? "write the whole path" : name.contains("/") ? "a path starts with / or ./" : nil)
    return nil
  }
  return name
}

private func longVolume(_ node: Written, _ draft: inout Draft) -> Mount? {
  let type = node["type"]?.text ?? ""
  let target = absolutePath(node["target"]?.text ?? "/", in: "/")
  let readOnly = node["read_only"]?.text == "true"
  let source = node["source"]?.text
  for (key, types) in [
    ("size", ["memory", "tmpfs"]), ("mode", ["memory", "tmpfs"]), ("tmpfs", ["memory", "tmpfs"]),
    ("external", ["volume"]), ("owner", ["bind"]),
  ] {
    if let option = node[key], !types.contains(type) {
      draft.findings.error(option, "\(key) does not go with type \(type)")
    }
  }
  switch type {
  case "volume":
    guard let source else {
      draft.findings.error(
        node, "a volume needs a source: its name", hint: "data without a name could not be found again")
      return nil
    }
    return named(source, node["source"] ?? node, &draft).map {
      Mount(target: target, kind: .volume(name: $0, external: node["external"]?.text == "true"), readOnly: readOnly)
    }
  case "bind":
    guard let source else {
      draft.findings.error(node, "a bind needs a source: a path")
      return nil
    }
    if source.hasPrefix("~") {
      draft.findings.error(node["source"] ?? node, "\(source.quoted) starts with '~'", hint: "write the whole path")
    }
    var mount = Mount(
      target: target, kind: .bind(source: absolutePath(source, in: draft.policy.baseFolder)), readOnly: readOnly)
    if let owner = node["owner"], owner.text == "app" {
      mount.mapsOwner = true
      if draft.policy.user == .image {
        draft.findings.error(
          owner, "owner: app needs to know who the app is, which user: image leaves to the image",
          hint: "write user: auto, or its numbers")
      }
    }
    return mount
  case "memory", "tmpfs":
    if let source = node["source"] { draft.findings.error(source, "memory has no source") }
    let sizeNode = node["size"] ?? node["tmpfs"]?["size"]
    let size = sizeNode?.text.flatMap { Bytes(parsing: $0) } ?? defaultMemorySize(draft)
    let mode = (node["mode"] ?? node["tmpfs"]?["mode"])?.text.flatMap { Form.mode($0) }
    if size < Bytes(4096) { draft.findings.error(sizeNode ?? node, "memory needs a size of at least 4k") }
    return Mount(target: target, kind: .memory(size: size, mode: mode), readOnly: readOnly)
  default:
    draft.findings.error(
      node["type"] ?? node, "volume type \(type) is not supported yet", hint: "volume, bind and memory work")
    return nil
  }
}

/// The preset's size of /tmp; the sandbox is read before the volumes.
private func defaultMemorySize(_ draft: Draft) -> Bytes {
  PresetValues.of(draft.policy.preset).temporary ?? .mebibytes(64)
}

/// `PATH[:OPTION,…]` with size, mode and the flags that always hold.
@Sendable private func readTmpfs(_ node: Written, _ draft: inout Draft) {
  for item in node.items {
    let text = item.text ?? ""
    let colon = text.firstIndex(of: ":") ?? text.endIndex
    let path = String(text[..<colon])
    guard isTarget(path) else {
      draft.findings.error(item, "\(path.quoted) is not \(Form.target.said)")
      continue
    }
    var size = defaultMemorySize(draft)
    var mode: UInt32?
    var readOnly = false
    for option in text[colon...].dropFirst().split(separator: ",") {
      let parts = option.split(separator: "=", maxSplits: 1).map(String.init)
      let value = parts.count == 2 ? parts[1] : ""
      switch parts.first ?? "" {
      case "size" where Bytes(parsing: value).map { $0 >= Bytes(4096) } == true: size = Bytes(parsing: value) ?? size
      case "mode" where Form.mode(value) != nil: mode = Form.mode(value)
      case "ro": readOnly = true
      case "rw", "nosuid", "nodev": break
      default:
        draft.findings.error(
          item, "\(String(option).quoted) is not an option of tmpfs that is supported",
          hint: "size=64m and mode=1777 are")
      }
    }
    add(
      Mount(target: absolutePath(path, in: "/"), kind: .memory(size: size, mode: mode), readOnly: readOnly), item,
      &draft)
  }
  draft.set.insert("volumes")
}

/// A file mode in octal.
func octal(_ mode: UInt32) -> String { "0" + String(mode, radix: 8) }

@Sendable private func showVolumes(_ policy: Policy) -> JSONValue? {
  .array(
    policy.mounts.map { mount in
      let readOnly: JSONValue? = mount.readOnly ? true : nil
      switch mount.kind {
      case .volume(let name, let external):
        return .object([
          "type": "volume", "source": .string(name), "target": .string(mount.target), "read_only": readOnly,
          "external": external ? true : nil,
        ])
      case .bind(let source):
        return .object([
          "type": "bind", "source": .string(source), "target": .string(mount.target), "read_only": readOnly,
          "owner": mount.mapsOwner ? "app" : nil,
        ])
      case .memory(let size, let mode):
        return .object([
          "type": "memory", "target": .string(mount.target), "size": .string(size.description),
          "mode": mode.map { .string(octal($0)) },
          "read_only": readOnly,
        ])
      }
    })
}
