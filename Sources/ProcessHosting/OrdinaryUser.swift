internal import Cgroups
internal import FileSystems
internal import Linux
internal import Model
internal import Sandboxing

/// Native apps of an ordinary user: the shim goes on as root of a user namespace of the user's own, with the ids of subuid(5), and all
/// it does it does there as it does for the host's root. What needs a right outside of that namespace is refused here.
extension OrdinaryUser {
  /// For the shim: which ids apps have, as its first argument.
  static var ids: [String] {
    guard isOurs, let own = SubordinateIDs.own() else { return [] }
    return ["\(own.first)+65536"]
  }

  /// What of `policy` an ordinary user cannot give; nil: all can be had.
  static func refusal(_ policy: Policy) -> Lack? {
    func lack(_ what: String, _ fix: String) -> Lack { Lack(what: what, fix: fix) }
    if policy.preset == .privileged {
      return lack("sandbox: privileged takes the host's root", "use the system's instance for it")
    }
    if !policy.supplementaryGroups.isEmpty {
      return lack("group_add needs more ids than an app has without root", "leave it out, or use the system's instance")
    }
    if !policy.allSecrets.isEmpty {
      return lack(
        "secrets would have to belong to the app's own uid, which takes root", "use the system's instance for it")
    }
    for mount in policy.mounts {
      if case .volume(let name, external: false) = mount.kind {
        return lack(
          "the volume \(name) cannot be made without root: it would have to belong to the app's own uid",
          "use tmpfs, or bind a folder of yours to read from")
      }
    }
    switch policy.healthcheck.test {
    case .http, .tcp:
      return lack(
        "a healthcheck over the network needs the host's root, to get to the app's own",
        "check by a command inside the app: `test: [CMD, …]`")
    case .command, .image, .none: break
    }
    let least = outOfMemoryFloor
    let asked = policy.limits.oomScoreAdjustment
    if asked < least {
      return lack(
        "oom_score_adj \(asked) is below \(least), which your user's systemd has: only root lowers it",
        "ask for \(least) or more, or leave it out")
    }
    return nil
  }

  /// What this process has, which an ordinary user's processes cannot go below.
  static var outOfMemoryFloor: Int32 {
    // best effort: without the file, the kernel refuses what is below.
    (try? File.text("/proc/self/oom_score_adj")).flatMap { Int32($0.filter { $0 != "\n" }) } ?? 0
  }

  /// What is made for an app and would have to be given to its uid: its own `/data` and `/cache`.
  static func withoutOwnFolders(_ table: MountTable) -> MountTable {
    var table = table
    table.entries.removeAll { $0.making != nil }
    return table
  }

  /// The plan as the shim sees it: in the user's own namespace, where the user is 0 and the ids of subuid(5) begin with 1.
  static func place(_ plan: inout LaunchPlan) {
    func seen(_ map: [LaunchPlan.IDRange], _ first: UInt32?) -> [LaunchPlan.IDRange] {
      map.map { range in
        var range = range
        range.outside = range.outside - (first ?? 0) + 1
        return range
      }
    }
    plan.identity.uidMap = seen(plan.identity.uidMap, SubordinateIDs.own()?.first)
    plan.identity.gidMap = seen(plan.identity.gidMap, SubordinateIDs.own()?.first)
    // The shim has no other rights than the one person's who can load a policy here.
    plan.loader = nil
    plan.program.environment = plan.program.environment.map { $0 == "HOME=/data" ? "HOME=/tmp" : $0 }
  }
}
