internal import Linux
internal import Model

/// What the kernel says of a process, read from outside (proc(5)).
struct ProcessFacts: Equatable {
  var name: String
  /// Real, effective, saved, file-system.
  var uids: [UInt32]
  var gids: [UInt32]
  var groups: [UInt32]
  var effective: UInt64
  var permitted: UInt64
  var bounding: UInt64
  var inheritable: UInt64
  var ambient: UInt64
  var noNewPrivileges: Bool
  /// 2: a filter.
  var seccomp: Int
  /// Controller (or "" for v2) to path.
  var cgroups: [String: String]
  /// `Max open files` to soft and hard.
  var limits: [String: (soft: String, hard: String)]
  var mounts: [Mounted]
  var oomScoreAdjustment: Int32
  /// Those of its namespaces that are this process's own too, by their names in /proc/PID/ns.
  var sharedNamespaces: Set<String> = []
  private let pid: Int32
  private let uidMap: [IDRange]
  private let gidMap: [IDRange]

  /// Ids of a user namespace, and what they are to us.
  struct IDRange: Equatable {
    var inside: UInt32
    var outside: UInt32
    var count: UInt32

    static func read(_ text: String) -> [IDRange] {
      text.split(separator: "\n").compactMap { line in
        let words = line.split(separator: " ").compactMap { UInt32($0) }
        return words.count == 3 ? IDRange(inside: words[0], outside: words[1], count: words[2]) : nil
      }
    }
  }

  /// What an id of the process's user namespace is outside of it; nil: it is nobody there.
  func outside(uid: UInt32) -> UInt32? { Self.outside(uid, uidMap) }
  func outside(gid: UInt32) -> UInt32? { Self.outside(gid, gidMap) }

  private static func outside(_ id: UInt32, _ map: [IDRange]) -> UInt32? {
    map.first { id >= $0.inside && id - $0.inside < $0.count }.map { $0.outside + (id - $0.inside) }
  }

  /// Where a target is in the process's root: an image may have links on the way, as /var/run to /run, and the runtime follows them.
  func place(of target: String) -> String {
    guard !mounts.contains(where: { $0.target == target }), let root = try? Place.open("/proc/\(pid)/root", []),
      let place = try? root.withRaw({ (raw) throws(SystemFault) in
        try Place.open(target, in: raw, [.inRoot, .noMagicLinks])
      })
    else { return target }
    // best effort: what cannot be followed is looked for as it is written.
    return (try? place.withRaw { (raw) throws(SystemFault) in try Place.link("/proc/self/fd/\(raw)") }) ?? target
  }

  struct Mounted: Equatable {
    var target: String
    var options: [Substring]
    /// Propagation fields; empty: private.
    var propagation: [Substring]
    var type: String
    var superOptions: [Substring]
    var isReadOnly: Bool { options.contains("ro") || superOptions.contains("ro") }
  }

  static func == (left: ProcessFacts, right: ProcessFacts) -> Bool {
    left.name == right.name && left.uids == right.uids && left.bounding == right.bounding
      && left.cgroups == right.cgroups
  }

  /// Nil: no such process, or it ends just now.
  init?(_ pid: Int32) {
    guard pid > 0, let status = try? File.text("/proc/\(pid)/status"),
      let groups = try? File.text("/proc/\(pid)/cgroup"),
      let limits = try? File.text("/proc/\(pid)/limits"), let mounts = try? File.text("/proc/\(pid)/mountinfo"),
      let score = try? File.text("/proc/\(pid)/oom_score_adj"), let uids = try? File.text("/proc/\(pid)/uid_map"),
      let gids = try? File.text("/proc/\(pid)/gid_map")
    else { return nil }
    self.init(
      status: status, cgroup: groups, limits: limits, mountInfo: mounts, oomScore: score, pid: pid,
      maps: (uids, gids))
    for name in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
      // best effort: a link that cannot be read is that of a process that has ended.
      guard let theirs = try? Place.link("/proc/\(pid)/ns/\(name)") else { continue }
      if theirs == (try? Place.link("/proc/self/ns/\(name)")) { sharedNamespaces.insert(name) }
    }
  }

  /// `maps`: by default that of a process whose ids are ours.
  init?(
    status: String, cgroup: String, limits limitText: String, mountInfo: String, oomScore: String, pid: Int32 = 0,
    maps: (uids: String, gids: String) = ("0 0 4294967295", "0 0 4294967295")
  ) {
    self.pid = pid
    uidMap = IDRange.read(maps.uids)
    gidMap = IDRange.read(maps.gids)
    var fields: [Substring: Substring] = [:]
    for line in status.split(separator: "\n") {
      guard let colon = line.firstIndex(of: ":") else { continue }
      fields[line[..<colon]] = line[line.index(after: colon)...].drop { $0.isWhitespace }
    }
    // A zombie has no memory, and its other facts no meaning.
    guard let state = fields["State"], !state.hasPrefix("Z"), !state.hasPrefix("X") else { return nil }
    func numbers(_ key: Substring) -> [UInt32] {
      (fields[key] ?? "").split { $0 == "\t" || $0 == " " }.compactMap { UInt32($0) }
    }
    func mask(_ key: Substring) -> UInt64 { UInt64(fields[key] ?? "", radix: 16) ?? .max }
    name = String(fields["Name"] ?? "")
    uids = numbers("Uid")
    gids = numbers("Gid")
    groups = numbers("Groups")
    effective = mask("CapEff")
    permitted = mask("CapPrm")
    bounding = mask("CapBnd")
    inheritable = mask("CapInh")
    ambient = mask("CapAmb")
    noNewPrivileges = fields["NoNewPrivs"] == "1"
    seccomp = fields["Seccomp"].flatMap { Int($0) } ?? 0
    oomScoreAdjustment = Int32(oomScore.prefix { $0 != "\n" }) ?? 0
    cgroups = Self.cgroups(cgroup)
    limits = Self.limits(limitText)
    mounts = Self.mounts(mountInfo)
  }

  private static func cgroups(_ text: String) -> [String: String] {
    var result: [String: String] = [:]
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      guard parts.count == 3 else { continue }
      for controller in parts[1].isEmpty ? [""] : parts[1].split(separator: ",") {
        result[String(controller)] = String(parts[2])
      }
    }
    return result
  }

  /// Columns start where the head line's words do: names hold spaces.
  private static func limits(_ text: String) -> [String: (soft: String, hard: String)] {
    var result: [String: (soft: String, hard: String)] = [:]
    for line in text.split(separator: "\n").dropFirst() where line.count > 26 {
      let name = line.prefix(26).split(separator: " ").joined(separator: " ")
      let values = line.dropFirst(26).split(separator: " ")
      if values.count >= 2 { result[name] = (String(values[0]), String(values[1])) }
    }
    return result
  }

  private static func mounts(_ text: String) -> [Mounted] {
    text.split(separator: "\n").compactMap { line in
      let fields = line.split(separator: " ")
      guard let dash = fields.firstIndex(of: "-"), dash >= 6, fields.count > dash + 3 else { return nil }
      return Mounted(
        target: String(fields[4]), options: fields[5].split(separator: ","),
        propagation: Array(fields[6..<dash]), type: String(fields[dash + 1]),
        superOptions: fields[dash + 3].split(separator: ","))
    }
  }

  /// Capabilities by their numbers in the kernel (capability.h).
  static let capabilities = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
  ]

  static func mask(_ names: [String]) -> UInt64 {
    names.reduce(0) { mask, name in capabilities.firstIndex(of: name).map { mask | 1 << UInt64($0) } ?? mask }
  }

  static func names(_ mask: UInt64) -> [String] {
    capabilities.indices.filter { mask >> UInt64($0) & 1 == 1 }.map { capabilities[$0] }
  }

  /// A ulimit's line in /proc/PID/limits.
  static let limitNames = [
    "nofile": "Max open files", "nproc": "Max processes", "core": "Max core file size",
    "memlock": "Max locked memory", "stack": "Max stack size", "fsize": "Max file size", "cpu": "Max cpu time",
    "data": "Max data size", "as": "Max address space", "msgqueue": "Max msgqueue size",
    "sigpending": "Max pending signals", "nice": "Max nice priority", "rtprio": "Max realtime priority",
    "rttime": "Max realtime timeout", "locks": "Max file locks", "rss": "Max resident set",
  ]
}
