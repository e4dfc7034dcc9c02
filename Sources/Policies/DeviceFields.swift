internal import Model

/// Devices of the host.
let deviceFields: [Field] = [
  Field(
    "devices", "Devices that config.yaml lists for this app: SOURCE[:TARGET[:rw]]",
    .list(.either([.text(), deviceForm], said: "SOURCE[:TARGET[:rw]], or {source, target, permissions}"), most: 64),
    .recreate, read: readDevices,
    show: { policy in
      policy.devices.isEmpty ? nil : .strings(policy.devices.map { "\($0.source):\($0.target):\($0.access)" })
    })
]

private let deviceForm = Form.object([
  .init("source", .target, "Its path on the host, as config.yaml writes it", required: true),
  .init("target", .target, "Its path in the app; default: the same"),
  .init("permissions", .text(most: 8), "r, w or rw; default: rw"),
])

@Sendable private func readDevices(_ node: Written, _ draft: inout Draft) {
  for item in node.list ?? [] {
    guard let device = device(item, &draft) else { continue }
    if draft.policy.devices.contains(where: { $0.target == device.target }) {
      draft.findings.error(item, "two devices have the target \(device.target)")
    }
    draft.policy.devices.append(device)
  }
}

private func device(_ node: Written, _ draft: inout Draft) -> DeviceGrant? {
  var parts = node.text.map { $0.split(separator: ":", omittingEmptySubsequences: false).map(String.init) } ?? []
  if let source = node["source"]?.text {
    parts = [source, node["target"]?.text ?? source, node["permissions"]?.text ?? "rw"]
  }
  guard (1...3).contains(parts.count), let source = parts.first else {
    draft.findings.error(node, "\((node.text ?? "this").quoted) is not SOURCE[:TARGET[:rw]]")
    return nil
  }
  let target = parts.count > 1 ? parts[1] : source
  let access = parts.count > 2 ? parts[2] : "rw"
  for path in [source, target] where !isTarget(path) || !absolutePath(path, in: "/").hasPrefix("/dev/") {
    draft.findings.error(node, "\(path.quoted) is not a path below /dev")
    return nil
  }
  guard ["r", "w", "rw"].contains(access) else {
    draft.findings.error(
      node, "\(access.quoted) is not r, w or rw",
      hint: access.contains("m") ? "apps make no device nodes: leave the m away" : nil)
    return nil
  }
  let device = DeviceGrant(source: absolutePath(source, in: "/"), target: absolutePath(target, in: "/"), access: access)
  let top = device.target.split(separator: "/").dropFirst().first.map(String.init) ?? ""
  if madeDevices.contains(top) {
    draft.findings.error(node, "\(device.target) is made by the supervisor and cannot be replaced")
    return nil
  }
  if let allowed = draft.rules.devices, !(allowed[draft.policy.id.name] ?? []).contains(device.source) {
    draft.findings.error(
      node, "the device \(device.source) is not allowed for \(draft.policy.id)",
      hint: "list it for \(draft.policy.id) under devices_allowed in the daemon's config.yaml")
  }
  return device
}

/// What every app's /dev has, or an engine makes in it.
private let madeDevices: Set<String> = [
  "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue", "fd", "stdin",
  "stdout",
  "stderr", "core", "supervisor",
]
