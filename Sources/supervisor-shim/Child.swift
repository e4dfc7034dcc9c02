internal import Glibc
internal import Linux
internal import Sandboxing

/// The other side of the clone: builds the sandbox around itself, step by step in one order, and becomes the app.
///
/// Numbers are those of the launch order in the design notes; steps 1-5 are in Preparation.swift and Shim.swift.
struct Child {
  let plan: LaunchPlan
  let sources: Sources
  /// The shim, until exec closes it.
  let shim: SharedDescriptor
  let streams: ChildStreams
  /// Where pid 1 tells how the app ended.
  let ending: SharedDescriptor
  /// What the shim hears the app by; it gets its name here.
  let notify: SharedDescriptor?

  /// Never returns.
  func run() -> Never {
    do throws(StepFailure) {
      // How urgent the daemon is says nothing of the app; v1's cpu groups also take no real-time task. Best effort: without
      // privilege only a lower priority is kept.
      Privileges.setOrdinaryPriority()
      // Part of 5, by the child itself while it is still the host's root: see the plan's `files`.
      try step("cgroup") { () throws(SystemFault) in
        for file in plan.membership.files { try File.write(file, "0") }
      }
      tell([ChildPacket.joined])
      try awaitPacket(ChildPacket.release)
      try detachFromHost()
      // While the host's /proc is in view, in which this namespace's settings are.
      try connect()
      let root = try makeRoot()
      try enterRoot(root)
      try step("host name") { () throws(SystemFault) in try Namespaces.setHostName(plan.identity.hostName) }
      if plan.identity.namespaces.contains(.network) {
        try step("loopback") { () throws(SystemFault) in try Namespaces.bringLoopbackUp() }
      }
      // 11: pid 1 of the namespace reaps; the app is its child, so that an app that expects no pid 1's duties has none, default
      // signal dispositions work for it, and its end is seen.
      let app = try step("fork") { () throws(SystemFault) in try Namespaces.fork() }
      if app > 0 { Reaper.run(app, ending: ending, plan.walls.filter) }
      try becomeApp()
    } catch {
      tell(ChildPacket.bytes(error))
    }
    Children.exitNow(127)
  }

  /// Waits for the shim's word. Its end means that the shim or the daemon gave up: half a sandbox must not go on.
  private func awaitPacket(_ expected: UInt8) throws(StepFailure) {
    let packet = try step("handshake") { () throws(SystemFault) in
      try shim.withRaw { (raw) throws(SystemFault) in try PacketPair.receive(raw).bytes }
    }
    guard packet.first == expected else { Children.exitNow(126) }
  }

  private func tell(_ bytes: [UInt8]) {
    // Best effort: without a shim nobody is left to tell, and this process ends.
    shim.withRaw { raw in try? PacketPair.send(raw, bytes) }
  }

  /// 6: becomes root of its user namespace and nobody outside; then v1's cgroup namespace, whose root is the group just joined
  /// (made at clone it would show the way from the group the shim was in).
  private func detachFromHost() throws(StepFailure) {
    try step("identity") { () throws(SystemFault) in
      try Privileges.become(uid: 0, gid: 0, groups: [])
      try Privileges.setNotDumpable()
      try Privileges.newSession()
      Privileges.setFileMask(0o022)
      if !plan.membership.namespaceAtClone { try Namespaces.unshare(.cgroup) }
    }
  }

  /// The app's ends of its links, made by the shim: it has no right to change them, nor to answer on IPv6.
  private func connect() throws(StepFailure) {
    for link in plan.links {
      try step("network") { () throws(SystemFault) in
        do throws(SystemFault) { try File.write("/proc/sys/net/ipv6/conf/\(link.inner)/disable_ipv6", "1") } catch
          where error.code == ENOENT
        {}
        try NetworkLinks.configure(link.inner, link.address, prefix: Int(link.prefix), gateway: link.gateway)
        if link.sends > 0 { try NetworkLinks.shape(link.inner, bitsPerSecond: link.sends) }
      }
    }
  }

  // MARK: Root

  /// 7 and 8: a fresh file system in memory, in which all places to mount on are made, and nowhere else: what an app could have
  /// prepared (a link where a folder is expected) is never written to or resolved through.
  private func makeRoot() throws(StepFailure) -> HeldMount {
    let root = try step("root") { () throws(SystemFault) in
      try MountView.makePrivate()
      let root: HeldMount
      if let image = sources.image {
        root = image
      } else {
        root = HeldMount(
          try DetachedMount(
            new: "tmpfs", [("size", plan.rootReadOnly ? "4m" : "64m"), ("nr_inodes", "4096"), ("mode", "755")],
            [.noSetuid, .noDevices]))
      }
      // Any folder will do, in a view of our own that is left at once; /usr exists everywhere and was opened before.
      try root.mount.attach(to: Place.open("/usr", [.noMagicLinks]), "/usr")
      return root
    }
    for (index, item) in plan.root.enumerated() {
      try step("mount /\(item.path)") { () throws(SystemFault) in try make(item, sources.binds[index], root) }
    }
    return root
  }

  private func make(_ item: LaunchPlan.RootItem, _ bind: HeldMount?, _ root: HeldMount) throws(SystemFault) {
    switch item.kind {
    case .folder(let mode):
      try inParent(of: item.path, root) { (parent, name) throws(SystemFault) in
        do throws(SystemFault) { try Place.makeFolder(name, in: parent, mode: mode) } catch
          where error.code == EEXIST && plan.image != nil
        {
          // The image has it: as a folder, not as a link to another place.
          _ = try Place.open("\(name)/.", in: parent, [.beneath, .noLinks])
        }
      }
    case .writable:
      // A second way into the same overlay, which stays writable when the root's becomes read-only.
      let place = try target(item.path, folder: true, root)
      try DetachedMount(copying: place, [.noSetuid, .noDevices], item.path).attach(to: place, item.path)
    case .link(let target):
      try inParent(of: item.path, root) { (parent, name) throws(SystemFault) in
        try Place.makeLink(name, in: parent, to: target)
      }
    case .file(let mode, let bytes):
      try inParent(of: item.path, root) { (parent, name) throws(SystemFault) in
        // Instead of the image's, which is removed in the app's view alone. A folder there is refused.
        if plan.image != nil { try Place.removeFile(name, in: parent) }
        try Place.makeFile(name, in: parent, mode: mode, bytes)
      }
    case .bind(let source, _, let folder, _):
      guard let bind else { throw SystemFault(call: "bind", subject: source, code: EINVAL) }
      try bind.mount.attach(to: target(item.path, folder: folder, root), item.path)
    case .memory(let size, let mode, let owner, let rules):
      let options = [
        ("size", String(size)), ("nr_inodes", "65536"), ("mode", String(mode, radix: 8)), ("uid", String(owner)),
        ("gid", String(owner)),
      ]
      let memory = try DetachedMount(new: "tmpfs", options, rules)
      try memory.attach(to: target(item.path, folder: true, root), item.path)
    case .processes:
      // Only the app's own processes, nothing of the kernel (sysctl, kallsyms, kcore). Its first process, which is ours, can be
      // seen and not looked into. Not hidden: a command beside the app is behind a Landlock wall of its own, across which
      // `hidepid` would hide the app itself.
      let rules: MountRules = [.noSetuid, .noDevices, .noExecution]
      let processes = try DetachedMount(new: "proc", [("subset", "pid")], rules)
      try processes.attach(to: target(item.path, folder: true, root), item.path)
    case .notifySocket:
      guard let notify else { throw SystemFault(call: "bind", subject: item.path, code: EBADF) }
      try inParent(of: item.path, root) { (parent, name) throws(SystemFault) in
        try notify.withRaw { (raw) throws(SystemFault) in
          try UnixSocket.bind(raw, in: parent, name, mode: 0o666)
        }
      }
    }
  }

  /// Whether the deepest mount above `path` is memory made a moment ago, which nobody could write to yet.
  private func isInMemory(_ path: String) -> Bool {
    var deepest = 0
    var isMemory = false
    for item in plan.root where path.hasPrefix(item.path + "/") && item.path.utf8.count > deepest {
      switch item.kind {
      case .memory: isMemory = true
      case .bind, .processes, .writable: isMemory = false
      case .folder, .link, .file, .notifySocket: continue
      }
      deepest = item.path.utf8.count
    }
    return isMemory
  }

  /// The folder `path` lies in, reached without leaving what was made here, and its last name.
  private func inParent(
    of path: String, _ root: HeldMount, _ body: (Int32, String) throws(SystemFault) -> Void
  ) throws(SystemFault) {
    try root.mount.withRaw { (raw) throws(SystemFault) in
      guard let slash = path.lastIndex(of: "/") else { return try body(raw, path) }
      let parent = try Place.open(
        String(path[..<slash]), in: raw, isInMemory(path) ? [.beneath, .noLinks] : [.beneath, .noLinks, .sameMount])
      try parent.withRaw { (raw) throws(SystemFault) in try body(raw, String(path[path.index(after: slash)...])) }
    }
  }

  /// The place to mount on: made if it lies in the new root itself or in memory that is as new; inside any other mount it must
  /// be there already.
  private func target(_ path: String, folder: Bool, _ root: HeldMount) throws(SystemFault) -> Descriptor {
    do throws(SystemFault) {
      try inParent(of: path, root) { (parent, name) throws(SystemFault) in
        if folder {
          try Place.makeFolder(name, in: parent, mode: 0o755)
        } else {
          try Place.makeFile(name, in: parent, mode: 0o644, [])
        }
      }
    } catch  where error.code == EEXIST || error.code == EXDEV {}
    return try root.mount.withRaw { (raw) throws(SystemFault) in
      try Place.open(path, in: raw, [.beneath, .noLinks, .noMagicLinks])
    }
  }

  /// 9: changes the root and lets go of the host's, then makes it read-only: from here on no path leads out.
  private func enterRoot(_ root: HeldMount) throws(StepFailure) {
    try step("pivot_root") { () throws(SystemFault) in
      try Privileges.changeFolder(root.mount.duplicate(), "/")
      try MountView.pivotHere()
      if plan.rootReadOnly { try root.mount.restrict(.readOnly, "/") }
      guard try Privileges.currentFolder() == "/" else {
        throw SystemFault(call: "getcwd", subject: "/", code: EXDEV)
      }
    }
  }

  // MARK: App

  /// 12 to 18.
  private func becomeApp() throws(StepFailure) {
    let confinement = Confinement(plan)
    tell([ChildPacket.ready])
    try step("streams") { () throws(SystemFault) in
      try Privileges.newSession()
      for (place, stream) in [(Int32(0), streams.input), (1, streams.output), (2, streams.errors)] {
        try stream?.withRaw { (raw) throws(SystemFault) in _ = try check("dup2", "stream \(place)") { dup2(raw, place) }
        }
      }
      if plan.streams.terminal { try PseudoTerminal.makeControlling(0) }
    }
    try confinement.apply()
    try awaitPacket(ChildPacket.go)
    try confinement.seal()
    tell([ChildPacket.hot])
    // 18: by descriptor, so that what runs is what was pinned; a script by its path, which its interpreter opens again.
    try step("exec") { () throws(SystemFault) in
      let program = plan.program
      if !program.instead.isEmpty {
        try ProgramSearch.execute(program.instead, program.environment)
      } else if sources.isScript {
        try Privileges.execute(path: sources.path, program.arguments, program.environment)
      } else {
        try sources.program.withRaw { (raw) throws(SystemFault) in
          try Privileges.execute(raw, program.arguments, program.environment)
        }
      }
    }
  }
}

/// pid 1 of the app's pid namespace: takes the ends of orphans, and tells the shim the app's.
enum Reaper {
  static func run(_ app: Int32, ending: SharedDescriptor, _ filter: [UInt8]) -> Never {
    do throws(SystemFault) {
      // It keeps one descriptor: above all not the app's streams, whose end the shim waits for.
      try ending.withRaw { (raw) throws(SystemFault) in _ = try check("dup2") { dup2(raw, 3) } }
      try Privileges.close(from: 4)
      // Root of the user namespace by number only: nothing can be done with it, and it never executes anything.
      try Privileges.setCapabilities(0, ambient: false)
      try Privileges.setNoNewPrivileges()
      if !filter.isEmpty { try Privileges.loadFilter(filter) }
    } catch {
      // Fails closed: with pid 1 gone the kernel kills the whole namespace.
      Children.exitNow(125)
    }
    while let ended = try? Children.wait(-1, block: true) {
      guard ended.pid == app else { continue }
      let bytes: [UInt8] =
        switch ended.end {
        case .code(let code): [0, UInt8(truncatingIfNeeded: code)]
        case .signal(let number): [1, UInt8(truncatingIfNeeded: number)]
        }
      // Best effort: without a shim nobody wants to know.
      try? writeAll(3, bytes[...], "ending")
      break
    }
    // What else lives in the namespace is killed by the kernel now, and cannot outlive the app.
    Children.exitNow(0)
  }
}
