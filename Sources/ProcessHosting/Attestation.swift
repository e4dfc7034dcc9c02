internal import Cgroups
internal import Linux
internal import Model
internal import Sandboxing
internal import Scheduling

/// What the kernel says of a running app, compared with what its policy asks: the rights of an app are read, not assumed.
enum Attestation {
  /// Names of layers; what is not among them is a limit.
  static let layers: Set<String> = [
    "user namespace", "namespaces", "ids", "capabilities", "no-new-privileges", "cgroup", "read-only root",
    "landlock", "seccomp",
  ]

  /// Every layer and limit as asked and as in force, from `/proc/PID` and the cgroup's files.
  static func check(_ facts: RunningFacts, _ launch: Launch, _ group: AppCgroup) -> [LayerReport] {
    let policy = launch.policy
    let status = living(facts.pid)
    var reports: [LayerReport] = []
    if let status, let expected = try? LaunchPlan.identity(of: launch) {
      reports = layers(facts.pid, status, expected, launch, group) + walls(facts, status, policy)
    }
    if let root = root(facts, asked: policy.readOnlyRoot) { reports.append(root) }
    if let score = outOfMemoryScore(facts.pid, asked: policy.limits.oomScoreAdjustment) { reports.append(score) }
    return reports + group.readBack(policy.limits, share: CPUShare(policy))
  }

  /// The same for a command that is about to run beside the app, which must be in the app's own namespaces: those of its first
  /// process, which is ours and never leaves them. Empty: it is gone.
  static func check(command pid: Int32, _ ids: ExecUser?, _ facts: RunningFacts, _ launch: Launch, _ group: AppCgroup)
    -> [LayerReport]
  {
    guard var expected = try? LaunchPlan.identity(of: launch) else { return [] }
    if let ids { (expected.uid, expected.gid) = (ids.uid, ids.gid) }
    guard let status = living(pid) else { return [] }
    var reports = layers(pid, status, expected, launch, group)
    let foreign = NamespaceKinds.files.filter { kind, name in
      let own = try? Place.link("/proc/\(pid)/ns/\(name)")
      return own == nil || own != (try? Place.link("/proc/\(facts.init1)/ns/\(name)"))
    }
    reports.append(
      LayerReport(
        name: "namespaces", asked: "the app's", effective: foreign.isEmpty ? "the app's" : "others",
        status: foreign.isEmpty ? .enforced : .missing,
        note: foreign.isEmpty ? nil : "others than the app's: \(foreign.map(\.name).joined(separator: " "))"))
    return merge(reports)
  }

  private static func layers(
    _ pid: Int32, _ status: [String: String], _ expected: LaunchPlan.Identity, _ launch: Launch, _ group: AppCgroup
  ) -> [LayerReport] {
    let process = "/proc/\(pid)"
    let isMapped = expected.namespaces.contains(.user)
    let uid = String(isMapped ? launch.hostID(expected.uid) : expected.uid)
    let gid = String(isMapped ? launch.hostID(expected.gid) : expected.gid)
    var reports = [
      compare("ids", [uid, uid, uid, uid].joined(separator: " "), words(status["Uid"])),
      compare("ids", [gid, gid, gid, gid].joined(separator: " "), words(status["Gid"])),
      compare("capabilities", hex(expected.capabilities), status["CapEff"]),
      compare("capabilities", hex(expected.bounding), status["CapBnd"]),
    ]
    if expected.noNewPrivileges { reports.append(compare("no-new-privileges", "1", status["NoNewPrivs"])) }
    reports += namespaces(process, expected.namespaces)
    reports.append(membership(process, launch, group))
    return merge(reports)
  }

  /// The filter by the kernel's word. The kernel tells nobody of Landlock: that it is in force says the shim, which starts nothing
  /// without it.
  private static func walls(_ facts: RunningFacts, _ status: [String: String], _ policy: Policy) -> [LayerReport] {
    var reports: [LayerReport] = []
    if SeccompProfile(policy) == nil {
      reports.append(LayerReport(name: "seccomp", asked: nil, effective: nil, status: .notAsked))
    } else {
      reports.append(compare("seccomp", "2", status["Seccomp"]))
    }
    guard policy.preset != .privileged else {
      return reports + [LayerReport(name: "landlock", asked: nil, effective: nil, status: .notAsked)]
    }
    let isHeld = facts.landlock > 0
    reports.append(
      LayerReport(
        name: "landlock", asked: "its own root", effective: isHeld ? "ABI \(facts.landlock)" : nil,
        status: isHeld ? .enforced : .missing,
        note: isHeld ? nil : "this kernel has no Landlock, or the app was started without it"))
    return reports
  }

  /// What the kernel says of a process; nil for one that is gone or has ended: nothing runs that could lack a layer.
  private static func living(_ pid: Int32) -> [String: String]? {
    guard let text = try? File.text("/proc/\(pid)/status") else { return nil }
    // By bytes: this is read at every start.
    var status: [String: String] = [:]
    for line in text.utf8.split(separator: UInt8(ascii: "\n")) {
      guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { continue }
      let value = line[line.index(after: colon)...].drop { $0 == UInt8(ascii: "\t") || $0 == UInt8(ascii: " ") }
      status[String(Substring(line[..<colon]))] = String(Substring(value))
    }
    guard let state = status["State"], !state.hasPrefix("Z"), !state.hasPrefix("X") else { return nil }
    return status
  }

  /// The kernel is taking it down: it has left its groups, may take a while on a busy host, and runs nothing of its own any more
  /// (PF_EXITING in `flags`, proc_pid_stat(5)).
  static func isEnding(_ pid: Int32) -> Bool {
    guard let text = try? File.text("/proc/\(pid)/stat"), let end = text.lastIndex(of: ")") else { return false }
    let fields = text[text.index(after: end)...].split(separator: " ")
    return fields.count > 6 && UInt64(fields[6]).map { $0 & 4 != 0 } ?? false
  }

  /// How soon it is killed for memory; an app may only ask for sooner. Nil: the process is gone.
  private static func outOfMemoryScore(_ pid: Int32, asked: Int32) -> LayerReport? {
    guard let text = try? File.text("/proc/\(pid)/oom_score_adj"), let found = Int32(text.prefix { $0 != "\n" }) else {
      return nil
    }
    return LayerReport(
      name: "oom_score_adj", asked: String(asked), effective: String(found),
      status: found >= asked ? .enforced : .missing, note: found >= asked ? nil : "\(found) instead of \(asked)")
  }

  /// Whether the mount that the app sees as `/` is read-only, by the kernel's list; nil: the process is gone.
  private static func root(_ facts: RunningFacts, asked: Bool) -> LayerReport? {
    guard let mounts = try? File.text("/proc/\(facts.pid)/mountinfo") else { return nil }
    let fields = mounts.split(separator: "\n").map { $0.split(separator: " ") }
    guard let top = fields.last(where: { $0.count > 5 && $0[4] == "/" }) else { return nil }
    let readOnly = top[5].split(separator: ",").contains("ro")
    return LayerReport(
      name: "read-only root", asked: asked ? "yes" : nil, effective: readOnly ? "yes" : "no",
      status: asked ? (readOnly ? .enforced : .missing) : .notAsked,
      note: asked && !readOnly ? "the root can be written" : nil)
  }

  /// A namespace of the app's own shows another inode than ours.
  private static func namespaces(_ process: String, _ kinds: NamespaceKinds) -> [LayerReport] {
    var shared: [String] = []
    var own: [String] = []
    for (kind, name) in NamespaceKinds.files where kinds.contains(kind) || kind == .cgroup {
      guard let theirs = try? Place.link("\(process)/ns/\(name)") else { return [] }
      if theirs == (try? Place.link("/proc/self/ns/\(name)")) { shared.append(name) } else { own.append(name) }
    }
    return [
      LayerReport(
        name: "namespaces", asked: (own + shared).sorted().joined(separator: " "),
        effective: own.sorted().joined(separator: " "), status: shared.isEmpty ? .enforced : .missing,
        note: shared.isEmpty ? nil : "shared with the host: \(shared.joined(separator: " "))")
    ]
  }

  private static func membership(_ process: String, _ launch: Launch, _ group: AppCgroup) -> LayerReport {
    let text = (try? File.text("\(process)/cgroup")) ?? ""
    let joined = text.split(separator: "\n").filter { $0.hasSuffix(":\(group.path)") }.count
    let wanted = group.joinFiles(launch.policy.limits).count
    return LayerReport(
      name: "cgroup", asked: group.path, effective: joined > 0 ? group.path : nil,
      status: joined >= wanted || text.isEmpty ? .enforced : .missing,
      note: joined >= wanted || text.isEmpty ? nil : "member in \(joined) of \(wanted) hierarchies")
  }

  private static func compare(_ name: String, _ asked: String, _ effective: String?) -> LayerReport {
    let matches = asked == effective
    return LayerReport(
      name: name, asked: asked, effective: effective, status: matches ? .enforced : .missing,
      note: matches ? nil : "\(effective ?? "nothing") instead of \(asked)")
  }

  /// One line per layer: the first that is wrong, or the first.
  private static func merge(_ reports: [LayerReport]) -> [LayerReport] {
    var merged: [LayerReport] = []
    for report in reports {
      guard let index = merged.firstIndex(where: { $0.name == report.name }) else {
        merged.append(report)
        continue
      }
      if merged[index].status == .enforced, report.status == .missing { merged[index] = report }
    }
    return merged
  }

  private static func words(_ text: String?) -> String? {
    text.map { $0.split { $0 == "\t" || $0 == " " }.joined(separator: " ") }
  }

  private static func hex(_ value: UInt64) -> String {
    let digits = String(value, radix: 16)
    return String(repeating: "0", count: 16 - digits.count) + digits
  }
}

extension LayerReport {
  /// Whether it is a wall rather than a limit: one that fails is never let pass.
  var isLayer: Bool { Attestation.layers.contains(name) }
}
