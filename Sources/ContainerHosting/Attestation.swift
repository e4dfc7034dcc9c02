internal import Cgroups
internal import EngineAPI
internal import FileSystems
internal import Model
internal import Sandboxing
internal import Scheduling

/// Whether a started container is what its policy says: as the engine holds it, as the cgroup files have it, and as /proc shows
/// its first process. The engine's word alone is not enough: it ignores keys it does not know.
struct Attestation {
  var recipe: Recipe
  var cgroup: AppCgroup
  var details: ContainerDetails
  /// Nil: it has ended already, or is only created.
  var process: ProcessFacts?

  private var policy: Policy { recipe.launch.policy }

  /// Every limit and layer, as asked and as found.
  var reports: [LayerReport] {
    var reports = cgroup.readBack(policy.limits, share: CPUShare(policy))
    reports += engineReports
    reports += process.map(processReports) ?? []
    let maps = recipe.facts.remapsUsers || recipe.facts.isRootless
    reports.append(
      LayerReport(
        name: "user namespace", asked: nil, effective: maps ? "the engine's" : nil,
        status: maps ? .enforced : .notAsked,
        note: maps ? nil : "the engine does not remap users; the app has a host uid of its own"))
    reports.append(
      LayerReport(
        name: "landlock", asked: nil, effective: nil, status: .notAsked, note: "does not apply to containers"))
    return reports
  }

  /// The first of them that is not as asked.
  var broken: [LayerReport] { reports.filter { $0.status == .missing } }

  // MARK: What the engine holds

  private var engineReports: [LayerReport] {
    let limits = details.limits
    let spec = recipe.spec.host
    var reports = [
      row("privileged", "no", limits.privileged ? "yes" : "no"),
      row("read-only root", policy.readOnlyRoot ? "yes" : "no", limits.readonlyRoot ? "yes" : "no"),
      row("image", recipe.launch.artifact, details.image, same: Self.sameID(recipe.launch.artifact, details.image)),
      row("restart policy", "no", limits.restartPolicy.isEmpty ? "no" : limits.restartPolicy),
      row("cgroup parent", recipe.cgroupParent, limits.cgroupParent),
      row("network mode", spec.networkMode ?? "", limits.networkMode, same: sameNetwork(limits.networkMode)),
      row("pid namespace", "own", Self.isOwn(limits.pidMode) ? "own" : limits.pidMode),
      row("ipc namespace", "own", Self.isOwn(limits.ipcMode) ? "own" : limits.ipcMode),
      row("uts namespace", "own", Self.isOwn(limits.utsMode) ? "own" : limits.utsMode),
    ]
    if let user = recipe.user.isEmpty ? nil : recipe.user {
      reports.append(row("user", user, details.user))
    }
    let unexpected = details.mounts.filter { mount in
      !recipe.entries.contains { $0.target == mount.target } && !recipe.image.volumes.contains(mount.target)
    }
    // A published port that is open to more than the policy says would be the network's.
    let open = details.ports.filter { binding in
      !policy.network.ports.contains {
        $0.appPort == binding.container && $0.transport.rawValue == binding.kind
          && $0.hostAddress == (binding.address.isEmpty ? "0.0.0.0" : binding.address)
      }
    }
    if !open.isEmpty {
      let found = open.map { "\($0.address):\($0.host)->\($0.container)" }.joined(separator: ", ")
      reports.append(row("ports", "none but the policy's", found))
    }
    if !unexpected.isEmpty {
      reports.append(row("mounts", "none but the policy's", unexpected.map(\.target).joined(separator: ", ")))
    }
    return reports
  }

  private static func isOwn(_ mode: String) -> Bool { ["", "private", "shareable", "none"].contains(mode) }

  /// Podman leaves `sha256:` away.
  private static func sameID(_ left: String, _ right: String) -> Bool {
    func bare(_ id: String) -> Substring { id.hasPrefix("sha256:") ? id.dropFirst(7) : id[...] }
    return bare(left) == bare(right)
  }

  /// Podman says `bridge` for every network of that kind; which ones it is in is compared by name.
  private func sameNetwork(_ mode: String) -> Bool {
    if mode == recipe.spec.host.networkMode { return true }
    guard let network = recipe.network else { return false }
    return mode == "bridge" && details.networks[network] != nil && details.networks["bridge"] == nil
      && details.networks["podman"] == nil
  }

  private func row(_ name: String, _ asked: String, _ found: String, same: Bool? = nil) -> LayerReport {
    let holds = same ?? (asked == found)
    return LayerReport(
      name: name, asked: asked, effective: found, status: holds ? .enforced : .missing,
      note: holds ? nil : "\(name) is \(found.isEmpty ? "not set" : found), not \(asked)")
  }

  // MARK: What the kernel shows

  private func processReports(_ process: ProcessFacts) -> [LayerReport] {
    let allowed = ProcessFacts.mask(recipe.launch.policy.effectiveCapabilities)
    let held = process.effective | process.permitted | process.bounding | process.inheritable | process.ambient
    let extra = ProcessFacts.names(held & ~allowed)
    var reports = [
      row(
        "capabilities", Self.list(recipe.launch.policy.effectiveCapabilities), Self.list(ProcessFacts.names(held)),
        same: extra.isEmpty),
      row("no-new-privileges", recipe.spec.host.noNewPrivileges ? "on" : "off", process.noNewPrivileges ? "on" : "off"),
      row(
        "seccomp", recipe.isFiltered ? "filter" : "none", process.seccomp == 2 ? "filter" : "none",
        same: process.seccomp == 2 || !recipe.isFiltered),
      row("oom_score_adj", String(policy.limits.oomScoreAdjustment), String(process.oomScoreAdjustment)),
      row("cgroup", "below \(cgroup.path)", place(process), same: isInside(process)),
    ]
    reports += namespaces(process)
    if let identity = identity(process) { reports.append(identity) }
    if let groups = groups(process) { reports.append(groups) }
    reports += limits(process)
    reports += mounts(process)
    return reports
  }

  /// What inspect says of namespaces is what was asked for; the kernel says which they are.
  private func namespaces(_ process: ProcessFacts) -> [LayerReport] {
    var shared = process.sharedNamespaces
    let showsGroups = shared.remove("cgroup") != nil
    if policy.network.mode == .host { shared.remove("net") }
    return [
      row(
        "namespaces", "its own", shared.isEmpty ? "its own" : "the host's: \(shared.sorted().joined(separator: " "))"),
      // Podman makes none where groups are of the first version. What shows is names: nothing of the groups can be opened.
      LayerReport(
        name: "cgroup namespace", asked: nil, effective: showsGroups ? nil : "its own",
        status: showsGroups ? .notAsked : .enforced,
        note: showsGroups ? "the engine made none: the app sees the names of its groups" : nil),
    ]
  }

  private static func list(_ names: [String]) -> String { names.isEmpty ? "none" : names.joined(separator: " ") }

  /// The process's own uid; a remapped one is the engine's affair.
  private func identity(_ process: ProcessFacts) -> LayerReport? {
    let wanted: (uid: UInt32, gid: UInt32)
    switch policy.user {
    case .auto: wanted = (recipe.uidBase + 1000, recipe.uidBase + 1000)
    case .given(let uid, let gid): wanted = (uid, gid)
    case .image: return nil
    }
    let (uid, gid) = (process.outside(uid: wanted.uid), process.outside(gid: wanted.gid))
    let same = process.uids.allSatisfy { $0 == uid } && process.gids.allSatisfy { $0 == gid }
    let found = "\(process.uids.first ?? 0):\(process.gids.first ?? 0)"
    let asked =
      uid == wanted.uid ? "" : ", outside \(uid.map { "\($0)" } ?? "nobody"):\(gid.map { "\($0)" } ?? "nobody")"
    return row("uid", "\(wanted.uid):\(wanted.gid)\(asked)", found, same: same)
  }

  /// No group but the app's own and those its policy adds: an image's /etc/group gives nothing.
  private func groups(_ process: ProcessFacts) -> LayerReport? {
    let own: UInt32
    switch policy.user {
    case .auto: own = recipe.uidBase + 1000
    case .given(_, let gid): own = gid
    case .image: return nil
    }
    let allowed = ([own] + policy.supplementaryGroups).map { process.outside(gid: $0) }
    let extra = process.groups.filter { !allowed.contains($0) }
    return row("groups", "none but its own", extra.map { String($0) }.joined(separator: " "), same: extra.isEmpty)
  }

  /// Every hierarchy that holds a limit has the process below the app's parent.
  private func isInside(_ process: ProcessFacts) -> Bool {
    let names = ["", "memory", "pids", "cpu"].filter { process.cgroups[$0] != nil }
    let wanted = cgroup.hierarchy.layout == .unified ? [""] : names.filter { !$0.isEmpty }
    return !wanted.isEmpty && wanted.allSatisfy { process.cgroups[$0]?.hasPrefix(cgroup.path + "/") ?? false }
  }

  private func place(_ process: ProcessFacts) -> String { process.cgroups["memory"] ?? process.cgroups[""] ?? "none" }

  private func limits(_ process: ProcessFacts) -> [LayerReport] {
    recipe.spec.host.ulimits.compactMap { limit in
      guard let name = ProcessFacts.limitNames[limit.name], let found = process.limits[name] else { return nil }
      func text(_ value: Int64) -> String { value < 0 || value == .max ? "unlimited" : String(value) }
      return row(
        "ulimit \(limit.name)", "\(text(limit.soft)):\(text(limit.hard))", "\(found.soft):\(found.hard)")
    }
  }

  private func mounts(_ process: ProcessFacts) -> [LayerReport] {
    var reports: [LayerReport] = []
    let root = process.mounts.last { $0.target == "/" }
    if policy.readOnlyRoot {
      reports.append(row("root mount", "read-only", root?.isReadOnly == true ? "read-only" : "writable"))
    }
    var known: Set<String> = ["/dev", "/dev/shm"]
    for entry in recipe.entries {
      let place = process.place(of: entry.target)
      known.insert(place)
      guard let mount = process.mounts.last(where: { $0.target == place }) else {
        reports.append(row("mount \(entry.target)", "there", "absent"))
        continue
      }
      // Whatever the engine says it mounted: what the kernel shows there is memory, as only we put it there.
      if entry.isOurs, !["tmpfs", "ramfs"].contains(mount.type) {
        reports.append(row("mounts", "secrets in memory", "\(entry.target) is \(mount.type)"))
      }
      if entry.readOnly {
        reports.append(row("mount \(entry.target)", "read-only", mount.isReadOnly ? "read-only" : "writable"))
      }
      let shared = mount.propagation.contains { $0.hasPrefix("shared") }
      if shared { reports.append(row("mount \(entry.target)", "private", "shared")) }
    }
    for path in recipe.imageVolumes {
      let isReadOnly = process.mounts.last { $0.target == path }?.isReadOnly == true
      reports.append(row("image volume \(path)", "read-only", isReadOnly ? "read-only" : "writable"))
    }
    // Memory the policy does not know of could be written without a limit but the app's own.
    for mount in process.mounts
    where mount.type == "tmpfs" && !mount.isReadOnly && !known.contains(mount.target)
      && !mount.target.hasPrefix("/proc/") && !mount.target.hasPrefix("/sys/") && !mount.target.hasPrefix("/dev/")
    {
      reports.append(row("mounts", "none but the policy's", "writable memory at \(mount.target)", same: false))
    }
    for path in Recipe.maskedPaths where !isMasked(path, process) {
      reports.append(row("mask \(path)", "hidden", "visible"))
    }
    return reports
  }

  /// A path this kernel does not have needs no mask.
  private func isMasked(_ path: String, _ process: ProcessFacts) -> Bool {
    process.mounts.contains { $0.target == path } || !KernelPaths.has(path)
  }
}
