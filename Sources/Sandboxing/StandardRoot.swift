internal import FileSystems
internal import Linux
internal import Model

/// The root of a native app as a list of things to make: the standard one, or a given folder's content; and the app's mounts.
struct RootBuilder {
  private(set) var items: [LaunchPlan.RootItem] = []
  private var made: Set<String> = []
  private static let system: MountRules = [.readOnly, .noSetuid, .noDevices]

  // MARK: Bases

  /// `/usr` read-only with the links into it, and a made `/etc`.
  mutating func addStandard(
    _ policy: Policy, uid: UInt32, gid: UInt32, hostName: String, _ names: LaunchPlan.NameSources?
  ) {
    add("usr", .bind(source: "/usr", rules: Self.system, folder: true, follow: true))
    for name in ["bin", "sbin", "lib", "lib32", "lib64", "libx32"] {
      switch try? Place.kind("/\(name)", follow: false) {
      case .other:
        // Merged: a link into /usr, made the same.
        if let target = try? Place.link("/\(name)") { add(name, .link(to: target)) }
      case .folder: add(name, .bind(source: "/\(name)", rules: Self.system, folder: true, follow: true))
      case .program, .file, nil: break
      }
    }
    addConfiguration(policy, uid: uid, gid: gid, hostName: hostName, names)
  }

  private mutating func addConfiguration(
    _ policy: Policy, uid: UInt32, gid: UInt32, hostName: String, _ names: LaunchPlan.NameSources?
  ) {
    func file(_ name: String, _ text: String) { add("etc/\(name)", .file(mode: 0o644, bytes: Array(text.utf8))) }
    addFolder("etc")
    let home = "/data"
    var users = "root:x:0:0:root:/:/usr/sbin/nologin\n"
    var groups = "root:x:0:\n"
    if uid != 0 { users += "app:x:\(uid):\(gid):\(policy.id):\(home):/bin/sh\n" }
    if gid != 0 { groups += "app:x:\(gid):\n" }
    file("passwd", users + "nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n")
    file("group", groups + "nogroup:x:65534:\n")
    addNames(names, policy, hostName)
    file("hostname", "\(hostName)\n")
    file("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n")
    if let zone = try? Place.link("/etc/localtime"), zone.hasPrefix("/usr/share/zoneinfo/") {
      add("etc/localtime", .link(to: zone))
    } else {
      addHostFile("/etc/localtime")
    }
    addHostFile("/etc/ld.so.cache")
    // Certificates where Debian's and Red Hat's families keep them.
    for folder in ["/etc/ssl/certs", "/etc/pki/ca-trust/extracted", "/etc/pki/tls/certs"] {
      guard (try? Place.kind(folder)) == .folder else { continue }
      addParents(String(folder.dropFirst()))
      add(
        String(folder.dropFirst()),
        .bind(source: folder, rules: [.readOnly, .noSetuid, .noDevices, .noExecution], folder: true, follow: true))
    }
  }

  /// The names it knows, and whom it asks for others.
  private mutating func addNames(_ names: LaunchPlan.NameSources?, _ policy: Policy, _ hostName: String) {
    if let names { addNames(names) } else { add("etc/hosts", .file(mode: 0o644, bytes: Self.hosts(policy, hostName))) }
    add("etc/resolv.conf", .file(mode: 0o644, bytes: Self.resolvers(policy, names)))
  }

  private static func hosts(_ policy: Policy, _ hostName: String) -> [UInt8] {
    var hosts = "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 \(hostName)\n"
    for extra in policy.network.extraHosts { hosts += "\(extra.address) \(extra.name)\n" }
    return Array(hosts.utf8)
  }

  private static func resolvers(_ policy: Policy, _ names: LaunchPlan.NameSources?) -> [UInt8] {
    if policy.network.mode == .host, policy.network.dns.isEmpty, let own = try? File.text("/etc/resolv.conf") {
      return Array(own.utf8)
    }
    return Array((names?.resolvers ?? policy.network.dns).map { "nameserver \($0)\n" }.joined().utf8)
  }

  private mutating func addNames(_ names: LaunchPlan.NameSources) {
    add(
      "etc/hosts",
      .bind(
        source: names.hosts, rules: [.readOnly, .noSetuid, .noDevices, .noExecution], folder: false, follow: false))
  }

  /// In a root of the app's own they take the place of a file that is there.
  mutating func addNames(_ names: LaunchPlan.NameSources, over policy: Policy) {
    guard let rootfs = policy.rootfs, (try? Place.kind("\(rootfs)/etc/hosts", follow: false)) == .file else { return }
    addNames(names)
  }

  private mutating func addHostFile(_ path: String) {
    guard (try? Place.kind(path)) == .file else { return }
    add(
      String(path.dropFirst()),
      .bind(source: path, rules: [.readOnly, .noSetuid, .noDevices, .noExecution], folder: false, follow: true))
  }

  /// Everything at the top of a folder, each on its own, so that what must be mounted beside finds its place in a root of ours.
  mutating func addContent(of rootfs: String, readOnly: Bool, except targets: Set<String>) throws(SystemFault) {
    let rules: MountRules = readOnly ? Self.system : [.noSetuid, .noDevices]
    for name in try Folder(opening: rootfs).names()
    where !["proc", "dev", "sys", "run"].contains(name) && !targets.contains("/\(name)") {
      let path = "\(rootfs)/\(name)"
      switch try Place.kind(path, follow: false) {
      case .folder: add(name, .bind(source: path, rules: rules, folder: true, follow: false))
      case .file, .program: add(name, .bind(source: path, rules: rules, folder: false, follow: false))
      case .other: if let target = try? Place.link(path) { add(name, .link(to: target)) }
      }
    }
  }

  /// What an image's root is given beside its own files: /dev is memory whatever the image has there, and who the app is and whom it
  /// knows is written for it, as engines do.
  mutating func addToImage(
    _ policy: Policy, hostName: String, volumes: [String], _ names: LaunchPlan.NameSources?
  ) {
    add("dev", .memory(size: 1 << 20, mode: 0o755, owner: 0, rules: [.noSetuid, .noExecution]))
    addFolder("etc")
    addNames(names, policy, hostName)
    add("etc/hostname", .file(mode: 0o644, bytes: Array("\(hostName)\n".utf8)))
    for volume in volumes {
      let path = String(volume.dropFirst())
      addParents(path)
      add(path, .writable)
    }
  }

  // MARK: What every root has

  mutating func addKernel(sharedMemory: Bytes) {
    add("proc", .processes)
    addFolder("dev")
    for name in ["null", "zero", "full", "random", "urandom"] {
      add("dev/\(name)", .bind(source: "/dev/\(name)", rules: [.noSetuid, .noExecution], folder: false, follow: false))
    }
    add(
      "dev/shm",
      .memory(size: sharedMemory.count, mode: 0o1777, owner: 0, rules: [.noSetuid, .noDevices, .noExecution]))
    add("dev/fd", .link(to: "/proc/self/fd"))
    for (index, name) in ["stdin", "stdout", "stderr"].enumerated() {
      add("dev/\(name)", .link(to: "/proc/self/fd/\(index)"))
    }
  }

  /// `door`, the host's folder with the app's way to the supervisor, in its place in `/run`, which is always of our own making.
  mutating func addDoor(_ door: String?) {
    let path = String(AppDoor.folder.dropFirst())
    guard let door else { return addFolder(path) }
    add(
      path, .bind(source: door, rules: [.readOnly, .noSetuid, .noDevices, .noExecution], folder: true, follow: false))
  }

  /// The app's devices: nodes that were made for it, below `folder`.
  mutating func addDevices(_ devices: [DeviceGrant], below folder: String) {
    for (index, device) in devices.enumerated() {
      let path = String(device.target.dropFirst())
      addParents(path)
      add(path, .bind(source: "\(folder)/\(index)", rules: [.noSetuid, .noExecution], folder: false, follow: false))
    }
  }

  /// The app's mounts, parents before children; `owner` is the app's uid inside.
  mutating func addMounts(_ table: MountTable, owner: UInt32) {
    for entry in table.entries {
      let path = String(entry.target.dropFirst())
      addParents(path)
      var rules: MountRules = [.noSetuid, .noDevices]
      if entry.readOnly { rules.insert(.readOnly) }
      if entry.isOurs { rules.insert(.noExecution) }
      switch entry.source {
      case .path(let source):
        let folder = entry.isOurs || (try? Place.kind(source)) == .folder
        add(path, .bind(source: source, rules: rules, folder: folder, follow: false))
      case .memory(let size, let mode):
        let isTemporary = entry.target == "/tmp"
        rules.insert(.noExecution)
        add(path, .memory(size: size.count, mode: mode ?? (isTemporary ? 0o1777 : 0o755), owner: owner, rules: rules))
      case .external: break
      }
    }
  }

  mutating func addProgram(_ inside: String, source: String) {
    let path = String(inside.dropFirst())
    addParents(path)
    add(path, .bind(source: source, rules: Self.system, folder: false, follow: false))
  }

  /// Below /dev, which is always of our own making, whatever root the app has.
  mutating func addNotifySocket() {
    addFolder("dev/supervisor")
    add(String(LaunchPlan.notifySocket.dropFirst()), .notifySocket)
  }

  mutating func addFolder(_ path: String, mode: UInt32 = 0o755) {
    guard !made.contains(path) else { return }
    add(path, .folder(mode: mode))
  }

  /// The place of a bind in the list, for the program to be found through it.
  func index(ofBind path: String) -> UInt32? {
    items.firstIndex { item in
      guard item.path == path, case .bind = item.kind else { return false }
      return true
    }.map { UInt32($0) }
  }

  private mutating func addParents(_ path: String) {
    var parent = ""
    for part in path.split(separator: "/").dropLast() {
      parent += parent.isEmpty ? String(part) : "/\(part)"
      // Below a mount of the host's everything is as it is; the shim says so if something is missing.
      if items.contains(where: { $0.path == parent && $0.isOfTheHost }) { return }
      addFolder(parent)
    }
  }

  private mutating func add(_ path: String, _ kind: LaunchPlan.RootItem.Kind) {
    made.insert(path)
    items.append(LaunchPlan.RootItem(path, kind))
  }
}

extension LaunchPlan.RootItem {
  fileprivate var isOfTheHost: Bool {
    switch kind {
    case .bind, .link: true
    case .folder, .file, .memory, .processes, .notifySocket, .writable: false
    }
  }
}
