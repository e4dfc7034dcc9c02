internal import Model

/// What the kernel lets an app do.
let rightsFields: [Field] = [
  Field(
    "cap_add", "Capabilities the app keeps", .list(capability), .recreate, read: readAdded,
    show: { .strings($0.capabilities.add) }),
  Field(
    "cap_drop", "Capabilities the app loses; default: ALL", .list(capability), .recreate,
    read: { $1.policy.capabilities.drop = Set($0.texts.map(capabilityName)).sorted() },
    show: { .strings($0.capabilities.drop) }),
  Field(
    "security_opt", "seccomp=PROFILE, apparmor=NAME, no-new-privileges:true", .list(.text()), .recreate,
    read: readSecurityOptions,
    show: { .strings($0.securityOptions) }),
  Field(
    "group_add", "Further groups, as numbers", .list(.whole(0...0xFFFF_FFFE)),
    read: { $1.policy.supplementaryGroups = Set($0.texts.compactMap { UInt32($0) }).sorted() },
    show: { .array($0.supplementaryGroups.map { .count($0) }) }),
  Field(
    "permissions", "What the app may ask of the supervisor: AREA.VERB[:SCOPE], `deny:` in front wins over all others",
    .list(.text(most: 1200)), .inPlace, read: readPermissions,
    show: { policy in
      .strings(policy.permissions.granted.map(\.description) + policy.permissions.denied.map { "deny:\($0)" })
    }),
]

/// What every app of a preset may ask for, whatever its file says.
func presetPermissions(_ preset: Policy.Preset) -> [Permission] {
  switch preset {
  case .minimal: [Permission(.log), Permission(.time)]
  case .standard: [Permission(.log), Permission(.time), Permission(.systemInfo)]
  case .privileged: []
  }
}

@Sendable private func readPermissions(_ node: Written, _ draft: inout Draft) {
  for item in node.items {
    let text = item.text ?? ""
    let isDenied = text.hasPrefix("deny:")
    do throws(Permission.Problem) {
      let permission = try Permission(parsing: isDenied ? String(text.dropFirst(5)) : text)
      if isDenied {
        if !draft.policy.permissions.denied.contains(permission) { draft.policy.permissions.denied.append(permission) }
        continue
      }
      guard permission.right.isBuilt else {
        draft.findings.error(
          item, "\(permission.right.rawValue) is not supported yet",
          hint: "leave it out: the calls that it opens do not exist in this version")
        continue
      }
      if !draft.policy.permissions.granted.contains(permission) { draft.policy.permissions.granted.append(permission) }
    } catch {
      let name = text.split(separator: ":").first { $0 != "deny" }.map { String($0) } ?? text
      let near = nearest(to: name, in: Right.allCases.map(\.rawValue)).map { "did you mean \($0)?" }
      draft.findings.error(item, error.message, hint: near ?? error.hint)
    }
  }
}

/// capabilities(7), by the kernel's numbers.
let capabilityNames = [
  "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
  "LINUX_IMMUTABLE",
  "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
  "SYS_CHROOT",
  "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
  "LEASE",
  "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND",
  "AUDIT_READ",
  "PERFMON", "BPF", "CHECKPOINT_RESTORE",
]

/// What `standard` may add: those the engines give by default.
let ordinaryCapabilities: Set<String> = [
  "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP",
  "SETGID",
  "SETPCAP", "SETUID", "SYS_CHROOT",
]

@Sendable func capabilityName(_ text: String) -> String {
  let upper = text.uppercased()
  return upper.hasPrefix("CAP_") ? String(upper.dropFirst(4)) : upper
}

private let capability = Form.checked(said: "a capability such as NET_BIND_SERVICE", pattern: "^[A-Za-z_]+$") {
  let name = capabilityName($0)
  return name == "ALL" || capabilityNames.contains(name)
}

@Sendable private func readAdded(_ node: Written, _ draft: inout Draft) {
  draft.policy.capabilities.add = Set(node.texts.map(capabilityName)).sorted()
  for item in node.items {
    let name = capabilityName(item.text ?? "")
    switch draft.policy.preset {
    case .privileged: break
    case .minimal: draft.findings.error(item, "sandbox minimal keeps no capability", hint: "use sandbox: standard")
    case .standard:
      if !ordinaryCapabilities.contains(name) {
        draft.findings.error(
          item, "\(name) needs sandbox: privileged",
          hint: "standard may keep \(ordinaryCapabilities.sorted().joined(separator: ", "))")
      }
    }
  }
}

@Sendable private func readSecurityOptions(_ node: Written, _ draft: inout Draft) {
  let isPrivileged = draft.policy.preset == .privileged
  for item in node.items {
    let text = item.text ?? ""
    let separator = text.firstIndex { $0 == "=" || $0 == ":" } ?? text.endIndex
    let key = String(text[..<separator])
    let value = String(text[separator...].dropFirst())
    switch (key, value) {
    case ("no-new-privileges", ""), ("no-new-privileges", "true"):
      draft.policy.securityOptions.append("no-new-privileges=true")
    case ("no-new-privileges", "false"), ("seccomp", "unconfined"), ("apparmor", "unconfined"):
      if !isPrivileged { draft.findings.error(item, "\(text.quoted) needs sandbox: privileged") }
      draft.policy.securityOptions.append("\(key)=\(value)")
    case ("seccomp", _) where isPath(value):
      draft.findings.error(
        item, "a filter of one's own is not supported yet", hint: "leave it out: our own filter is always in force")
    case ("apparmor", _) where isPath(value): draft.policy.securityOptions.append("apparmor=\(value)")
    default:
      draft.findings.error(
        item, "\(text.quoted) is not a security option that is supported",
        hint: "apparmor=NAME and no-new-privileges:true are")
    }
  }
}
