internal import Glibc
internal import Linux
internal import Sandboxing

/// A mount in an array; arrays hold no non-copyable values.
final class HeldMount {
  let mount: DetachedMount
  init(_ mount: consuming DetachedMount) { self.mount = mount }
}

/// What is opened and resolved on the host before any of the app's code exists, so that nothing of the app can redirect it.
struct Sources {
  /// By place in the plan's root; nil for what is not a bind.
  var binds: [HeldMount?] = []
  /// What the whole root is, of an app from an image.
  let image: HeldMount?
  /// The program, opened through the very mount the app will see it in.
  let program: SharedDescriptor
  /// A script is started by its path: its interpreter opens it by name, after this descriptor is closed.
  let isScript: Bool
  /// Its path inside.
  let path: String

  /// Step 1: opens every mount source, makes it a detached mount under its rules, and pins the program.
  init(_ plan: LaunchPlan) throws(StepFailure) {
    for item in plan.root {
      guard case .bind(let source, let rules, _, let follow) = item.kind else {
        binds.append(nil)
        continue
      }
      binds.append(
        HeldMount(
          try step("mount source") { () throws(SystemFault) in
            try DetachedMount(copying: Self.open(source, follow: follow, plan), rules, source)
          }))
    }
    image = try plan.image.map { (image) throws(StepFailure) in
      HeldMount(try step("image") { () throws(SystemFault) in try ImageMount.make(image) })
    }
    let (program, path) = try Self.pin(plan, image, binds)
    self.program = program
    self.path = path
    isScript = try step("program") { () throws(SystemFault) in
      try program.withRaw { (raw) throws(SystemFault) in
        var status = stat()
        try check("fstat", path) { fstat(raw, &status) }
        guard status.st_mode & S_IFMT == S_IFREG else {
          throw SystemFault(call: "open", subject: path, code: EACCES)
        }
        var start: (UInt8, UInt8) = (0, 0)
        let got = try check("read", path) { pread(raw, &start, 2, 0) }
        return got == 2 && start.0 == UInt8(ascii: "#") && start.1 == UInt8(ascii: "!")
      }
    }
  }

  /// The program, opened, and where it is inside.
  private static func pin(_ plan: LaunchPlan, _ image: HeldMount?, _ binds: [HeldMount?]) throws(StepFailure)
    -> (SharedDescriptor, path: String)
  {
    if let image, plan.program.bind == LaunchPlan.Program.inImage {
      let found = try step("program") { () throws(SystemFault) in try ImageMount.program(plan.program, image) }
      return (found.file, found.path)
    }
    guard let holder = binds[Int(plan.program.bind)] else {
      throw StepFailure("program", reason: "the plan names no mount that holds it", code: EINVAL)
    }
    let relative = plan.program.relative
    let program = SharedDescriptor(
      try step("program") { () throws(SystemFault) in
        try holder.mount.withRaw { (raw) throws(SystemFault) in
          // The bind's own file is reopened through /proc: the mount's descriptor cannot be read.
          relative.isEmpty
            ? try Place.read("/proc/self/fd/\(raw)", in: AT_FDCWD, [])
            : try Place.read(relative, in: raw, [.beneath, .noMagicLinks])
        }
      })
    return (program, plan.program.path)
  }

  /// Magic links are never followed (they lead out of any check by path), other links only for the host's own files. Any step of
  /// another path may lie in a folder that some app can write to, and have become a link since the daemon looked.
  ///
  /// What the policy names is opened with the rights of who loaded it, so that nobody reaches through an app what she could not.
  private static func open(_ path: String, follow: Bool, _ plan: LaunchPlan) throws(SystemFault) -> Descriptor {
    let isOwn = follow || plan.ownFolders.contains { path == $0 || path.hasPrefix($0 + "/") }
    return try Place.open(path, as: isOwn ? nil : plan.loader, follow ? [.noMagicLinks] : [.noMagicLinks, .noLinks])
  }
}

/// Step 5: what only the outside can do for the new process, before it is released.
enum Admittance {
  static func admit(_ pid: Int32, _ plan: LaunchPlan) throws(StepFailure) {
    let identity = plan.identity
    try step("user namespace") { () throws(SystemFault) in
      if !identity.uidMap.isEmpty {
        try File.write("/proc/\(pid)/uid_map", text(identity.uidMap))
        try File.write("/proc/\(pid)/gid_map", text(identity.gidMap))
      }
    }
    // Before the child makes itself non-dumpable: afterwards its files in /proc can no longer be written.
    try step("oom_score_adj") { () throws(SystemFault) in
      try File.write("/proc/\(pid)/oom_score_adj", String(identity.outOfMemoryAdjustment))
    }
    try checkMembership(pid, plan)
    // Their far ends are in the child's network namespace from the start, and go with it.
    for link in plan.links {
      try step("network") { () throws(SystemFault) in
        try NetworkLinks.makePair(
          outer: link.outer, inner: link.inner, hardware: link.hardware, in: pid, bridge: link.bridge)
        if link.receives > 0 { try NetworkLinks.shape(link.outer, bitsPerSecond: link.receives) }
      }
    }
  }

  /// What the child says it did is not believed. Two controllers may share a hierarchy, so those are counted by device.
  private static func checkMembership(_ pid: Int32, _ plan: LaunchPlan) throws(StepFailure) {
    var hierarchies: Set<UInt64> = []
    try step("cgroup") { () throws(SystemFault) in
      for file in plan.membership.files + (plan.membership.folder.map { [$0] } ?? []) {
        var status = stat()
        try check("stat", file) { stat(file, &status) }
        hierarchies.insert(UInt64(status.st_dev))
      }
    }
    let text = try step("cgroup") { () throws(SystemFault) in try File.text("/proc/\(pid)/cgroup") }
    let suffix = ":\(plan.membership.path)"
    let joined = text.split(separator: "\n").filter { $0.hasSuffix(suffix) }.count
    guard joined >= hierarchies.count else {
      throw StepFailure("cgroup", reason: "the kernel shows \(joined) of \(hierarchies.count) groups joined")
    }
  }

  private static func text(_ map: [LaunchPlan.IDRange]) -> String {
    map.map { "\($0.inside) \($0.outside) \($0.count)\n" }.joined()
  }
}
