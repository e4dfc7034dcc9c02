package import Model

/// Capabilities (capabilities(7)) by the names policies use, as bits of a set.
package enum Capability {
  private static let names = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
  ]

  /// Those the Engines give unasked; what `privileged` has.
  package static let engineDefault: UInt64 = set(engineDefaultNames)
  static let engineDefaultNames = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID", "SETFCAP", "SETPCAP",
    "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
  ]

  /// The bit of `CAP_CHOWN` or `CHOWN`; every bit for `ALL`; nil for what is none.
  package static func bits(_ name: String) -> UInt64? {
    let plain = name.hasPrefix("CAP_") ? name.dropFirst(4) : name[...]
    if plain == "ALL" { return (1 << UInt64(names.count)) - 1 }
    return names.firstIndex { $0[...] == plain }.map { 1 << UInt64($0) }
  }

  private static func set(_ names: [String]) -> UInt64 { names.reduce(0) { $0 | (bits($1) ?? 0) } }
}

extension Policy {
  /// Without `CAP_`: what `privileged` gives where the policy does not drop it, and what is added.
  package var effectiveCapabilities: [String] {
    var held = Set(capabilities.add)
    if preset == .privileged, !capabilities.drop.contains("ALL") {
      held.formUnion(Capability.engineDefaultNames)
      held.subtract(capabilities.drop)
    }
    return held.sorted()
  }
}

/// Resource limits (setrlimit(2)) by the names policies use.
package enum ResourceName {
  private static let names = [
    "cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile", "memlock", "as", "locks", "sigpending",
    "msgqueue", "nice", "rtprio", "rttime",
  ]

  /// The kernel's number.
  package static func number(_ name: String) -> Int32? { names.firstIndex(of: name).map { Int32($0) } }
}
