internal import Linux
internal import Sandboxing

/// Steps 12 to 17: what a process gives up last, already inside the app's namespaces and groups. One list for the app itself and for
/// every command run beside it, so that no layer can be in one and not in the other.
struct Confinement {
  let identity: LaunchPlan.Identity
  let walls: LaunchPlan.Walls
  let root: LandlockRoot
  let limits: [LaunchPlan.ResourceLimit]
  let workingFolder: String

  /// 12 to 16. The caller has its streams and its session.
  func apply() throws(StepFailure) {
    // 12: limits can only be lowered from here on.
    try step("ulimits") { () throws(SystemFault) in
      for limit in limits { try Privileges.limit(limit.resource, soft: limit.soft, hard: limit.hard) }
    }
    // 13: dropping the bounding set and locking securebits need the capability that goes last. With no fix-up at a change of
    // ids, capset decides alone; ambient can be raised only before it is locked.
    try step("privileges") { () throws(SystemFault) in
      try Privileges.lockSecurebits(ambient: identity.capabilities != 0)
      try Privileges.bound(keep: identity.bounding)
      try Privileges.become(uid: identity.uid, gid: identity.gid, groups: identity.groups)
      try Privileges.setCapabilities(identity.capabilities, ambient: identity.capabilities != 0)
      // Whatever fs.suid_dumpable says: a change of ids must not open this process to the app before its program runs.
      try Privileges.setNotDumpable()
    }
    // 14: needed by 15 and 17 without capabilities, and no program can give back what was dropped.
    if identity.noNewPrivileges {
      try step("no_new_privs") { () throws(SystemFault) in try Privileges.setNoNewPrivileges() }
    }
    // 15: after the mounts, which it forbids to change, and before seccomp. Signals and abstract sockets need no scope: the app
    // is alone in its pid and network namespaces, and a command beside it must be able to signal it.
    if walls.landlock {
      try step("landlock") { () throws(SystemFault) in try Landlock.restrict(to: root.allowed, noTCP: walls.noTCP) }
    }
    // 16: the last use of helper descriptors but the shim's own, which exec closes; the folder as the app itself may reach it.
    // No step may be a descriptor of ours in /proc/self/fd: it would lead out of the root (as CVE-2024-21626 did elsewhere).
    try step("working_dir") { () throws(SystemFault) in
      try Privileges.changeFolder(Place.open(workingFolder, [.noMagicLinks]), workingFolder)
    }
    try step("descriptors") { () throws(SystemFault) in
      // None is ignored or handled either: the shim was spawned with defaults, and sets no handler.
      try Privileges.unblockSignals()
      try Privileges.closeOnExec(from: 3)
    }
  }

  /// 17: after the shim's last word, because everything above uses calls it would refuse.
  func seal() throws(StepFailure) {
    guard !walls.filter.isEmpty else { return }
    try step("seccomp") { () throws(SystemFault) in try Privileges.loadFilter(walls.filter) }
  }
}

/// What of an app's root is allowed to do what: the second wall behind the mounts' own rules.
struct LandlockRoot {
  let items: [LaunchPlan.RootItem]
  let isReadOnly: Bool
  /// The root is an image's, with programs in it.
  let isImage: Bool
  let readsProcesses: Bool

  private static let reading: Landlock.Rights = [.readFile, .readFolder]
  private static let writing: Landlock.Rights = [.readFile, .readFolder, .writeFile, .truncate, .change]

  var allowed: [(path: String, rights: Landlock.Rights)] {
    // Every folder can be listed; what is in it shows by its own rule.
    [("/", rootRights)]
      + items.compactMap { item in rights(item.kind).map { ("/\(item.path)", $0) } }
  }

  private var rootRights: Landlock.Rights {
    switch (isImage, isReadOnly) {
    case (false, true): .readFolder
    case (false, false): Self.writing
    case (true, true): Self.reading.union(.execute)
    case (true, false): Self.writing.union(.execute)
    }
  }

  private func rights(_ kind: LaunchPlan.RootItem.Kind) -> Landlock.Rights? {
    switch kind {
    // To name a socket is no access to a file.
    case .folder, .link, .notifySocket: return nil
    case .file: return .readFile
    case .writable: return Self.writing.union(.execute)
    case .bind(_, let rules, _, _), .memory(_, _, _, let rules):
      var rights = rules.contains(.readOnly) ? Self.reading : Self.writing
      if !rules.contains(.noExecution) { rights.insert(.execute) }
      if !rules.contains(.noDevices) { rights.insert(.controlDevice) }
      return rights
    // Its own settings: a thread's name, how soon it is killed for memory; the latter only upwards, or else none of them.
    case .processes: return readsProcesses ? Self.reading : [.readFile, .readFolder, .writeFile]
    }
  }
}

extension Confinement {
  /// What `plan` says of the app; a command may be somebody else in another folder.
  init(_ plan: LaunchPlan, identity: LaunchPlan.Identity? = nil, workingFolder: String? = nil) {
    self.init(
      identity: identity ?? plan.identity, walls: plan.walls,
      root: LandlockRoot(
        items: plan.root, isReadOnly: plan.rootReadOnly, isImage: plan.image != nil,
        readsProcesses: plan.walls.readsProcesses),
      limits: plan.program.limits,
      workingFolder: workingFolder ?? plan.program.workingFolder)
  }
}
