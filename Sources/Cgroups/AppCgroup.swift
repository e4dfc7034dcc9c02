internal import Glibc
package import Linux
package import Model

/// One app's parent group in every hierarchy that matters to it; its processes, or its container's own group, are in it.
///
/// A value that names folders; several may speak of the same group. Nothing is made before `create`.
package struct AppCgroup: Sendable {
  /// Who makes the processes, which says what must be there before them.
  package enum Kind: Sendable {
    /// A shim joins it.
    case native
    /// The Engine makes a group of its own below, in every hierarchy.
    case container
    /// No limits: the instance's shims.
    case shims
  }

  package let hierarchy: CgroupHierarchy
  /// Relative to each hierarchy's root: `/appsupervisor-default/notes`.
  package let path: String
  let kind: Kind
  /// The unit of systemd's it is, if it is one: then systemd has to be told each limit, too.
  package let slice: SystemdSlice?

  /// `parent` is the instance's, `/appsupervisor-default`; `generation` names the group of one that was made beside another.
  package init(_ hierarchy: CgroupHierarchy, parent: String, app: AppID, generation: UInt64? = nil, kind: Kind) {
    self.init(
      hierarchy, path: hierarchy.base + CgroupName.path(parent: parent, app: app, generation: generation), kind: kind)
  }

  /// A container's group that systemd makes.
  package init(_ hierarchy: CgroupHierarchy, slice unit: String) {
    self.init(hierarchy, path: hierarchy.base + CgroupName.slicePath(unit), kind: .container, SystemdSlice(unit))
  }

  /// The group by its whole path.
  package init(_ hierarchy: CgroupHierarchy, path: String, kind: Kind) {
    self.init(hierarchy, path: path, kind: kind, nil)
  }

  private init(_ hierarchy: CgroupHierarchy, path: String, kind: Kind, _ slice: SystemdSlice?) {
    self.hierarchy = hierarchy
    self.path = path
    self.kind = kind
    self.slice = slice
  }

  /// The group of an instance's shims.
  package static func shims(_ hierarchy: CgroupHierarchy, parent: String) -> AppCgroup {
    AppCgroup(hierarchy, path: "\(hierarchy.base)\(parent)/\(CgroupName.shims)", kind: .shims)
  }

  /// The instance's group for what engines leave behind of commands.
  package static func monitors(_ hierarchy: CgroupHierarchy, parent: String) -> AppCgroup {
    AppCgroup(hierarchy, path: "\(hierarchy.base)\(parent)/\(CgroupName.monitors)", kind: .container)
  }

  // MARK: Where it is

  /// This group's folder in v2, for CLONE_INTO_CGROUP and `cgroup.kill`.
  package var v2Folder: String? { hierarchy.unified.map { $0 + path } }

  /// Where `controller`'s files of this group are.
  func folder(_ controller: Controller) -> (path: String, version: CgroupHierarchy.Home.Version)? {
    hierarchy.home(of: controller).map { ($0.root + path, $0.version) }
  }

  /// The hierarchies this group is made in: what holds a limit of it, and v2 for membership, kill and freezing.
  func roots(_ limits: Limits) -> [String] {
    var controllers: [Controller] = []
    switch kind {
    case .shims: controllers = []
    case .native: controllers = [.memory, .pids, .cpu, .cpuacct, .devices]
    case .container: controllers = [.memory, .pids, .cpu, .cpuacct]
    }
    if limits.cpuset != nil { controllers.append(.cpuset) }
    if !limits.block.isEmpty { controllers.append(.io) }
    if hierarchy.unified == nil { controllers.append(.freezer) }
    var roots = hierarchy.unified.map { [$0] } ?? []
    for controller in controllers {
      if let home = hierarchy.home(of: controller), !roots.contains(home.root) { roots.append(home.root) }
    }
    return roots
  }

  /// Every `cgroup.procs` a process has to be written to, to be held by all of `limits`; made by `create` with the same.
  package func joinFiles(_ limits: Limits) -> [String] { roots(limits).map { "\($0)\(path)/cgroup.procs" } }

  // MARK: Making and removing

  /// Makes the group and what lies above it, with controllers delegated down the path. One that exists is fine.
  package func create(_ limits: Limits = Limits()) throws(SystemFault) {
    for root in roots(limits) {
      // Most often only the last step is missing, and its parent has delegated already.
      if root != hierarchy.unified || hierarchy.unifiedControllers.isEmpty, mkdir(root + path, 0o755) == 0 {
        if root == hierarchy.legacy[.cpuset] { try inheritCPUSet(root + path) }
        continue
      }
      var made = root + hierarchy.base
      for part in path.dropFirst(hierarchy.base.count).split(separator: "/") {
        if root == hierarchy.unified { delegate(in: made) }
        made += "/\(part)"
        let step = made
        do throws(SystemFault) { try check("mkdir", step) { mkdir(step, 0o755) } } catch  where error.code == EEXIST {}
        if root == hierarchy.legacy[.cpuset] { try inheritCPUSet(step) }
      }
    }
  }

  /// Lets children of a v2 folder have controllers. What cannot be given shows when the limit's file is missing.
  private func delegate(in folder: String) {
    let wanted = hierarchy.unifiedControllers.intersection([.memory, .pids, .cpu, .cpuset, .io])
    guard !wanted.isEmpty else { return }
    let enabled = (try? File.text("\(folder)/cgroup.subtree_control"))?.split { $0 == " " || $0 == "\n" } ?? []
    for controller in wanted where !enabled.contains(Substring(controller.rawValue)) {
      // Best effort: see above; one at a time, because one that fails takes all of its write with it.
      try? File.write("\(folder)/cgroup.subtree_control", "+\(controller.rawValue)")
    }
  }

  /// A fresh v1 cpuset is empty, and nothing can join it until it has CPUs and memory nodes (cpuset(7)).
  private func inheritCPUSet(_ folder: String) throws(SystemFault) {
    let parent = folder[..<(folder.lastIndex(of: "/") ?? folder.startIndex)]
    for file in ["cpuset.cpus", "cpuset.mems"]
    where try File.text("\(folder)/\(file)").allSatisfy(\.isWhitespace) {
      try File.write("\(folder)/\(file)", File.text("\(parent)/\(file)"))
    }
  }

  /// Removes the group with all below it, in every hierarchy. False while something still lives in it: kill, then try again.
  /// What lies above stays: other apps' groups come and go in it.
  package func remove() throws(SystemFault) -> Bool {
    var gone = true
    let wasProtecting = isProtecting
    defer { if wasProtecting { passProtectionUp() } }
    for root in hierarchy.roots where try !Self.removeTree(root + path) { gone = false }
    return gone
  }

  /// Tries `remove` until it worked or `limit` is over; blocks. A killed process leaves its group a moment after its end.
  package func remove(within limit: Duration) throws(SystemFault) -> Bool {
    try Self.poll(limit) { () throws(SystemFault) in try remove() }
  }

  /// Removes the instance's own parent if nothing is left in it.
  package static func removeParent(_ hierarchy: CgroupHierarchy, parent: String) {
    for root in hierarchy.roots {
      // Best effort: not empty means others still use it.
      _ = try? check("rmdir", root + hierarchy.base + parent) { rmdir(root + hierarchy.base + parent) }
    }
  }

  private static func removeTree(_ folder: String) throws(SystemFault) -> Bool {
    do throws(SystemFault) {
      try check("rmdir", folder) { rmdir(folder) }
      return true
    } catch  where error.code == ENOENT {
      return true
    } catch  where error.code == EBUSY {
      // Not empty: children first, below.
    }
    for child in try children(folder) { _ = try removeTree(child) }
    do throws(SystemFault) {
      try check("rmdir", folder) { rmdir(folder) }
      return true
    } catch  where error.code == ENOENT {
      return true
    } catch  where error.code == EBUSY {
      return false
    }
  }

  /// Groups directly below a group's folder; none for one that is gone.
  static func children(_ folder: String) throws(SystemFault) -> [String] {
    var status = stat()
    do throws(SystemFault) { try check("stat", folder) { stat(folder, &status) } } catch  where error.code == ENOENT {
      return []
    }
    // kernfs counts subfolders there, which saves reading a list of sixty files.
    guard status.st_nlink > 2, let stream = opendir(folder) else { return [] }
    defer { closedir(stream) }
    var found: [String] = []
    while let entry = readdir(stream) {
      guard entry.pointee.d_type == UInt8(DT_DIR) else { continue }
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { found.append("\(folder)/\(name)") }
    }
    return found
  }

  /// Asks `done` until it says yes or `limit` is over; blocks.
  static func poll(_ limit: Duration, _ done: () throws(SystemFault) -> Bool) throws(SystemFault) -> Bool {
    let end = Clock.monotonic() + limit.wholeNanoseconds
    var pause: UInt32 = 200
    while true {
      if try done() { return true }
      guard Clock.monotonic() < end else { return false }
      usleep(pause)
      pause = min(pause * 2, 10_000)
    }
  }

  // MARK: Who is in it

  /// Every process in it or below it, in any hierarchy, sorted.
  package var processes: [Int32] {
    get throws(SystemFault) {
      var found: Set<Int32> = []
      for root in membershipRoots { try Self.collect(root + path, into: &found) }
      return found.sorted()
    }
  }

  /// v2 knows all; but an Engine's runtime may leave it out on a mixed host, and then `pids`, `memory`, `freezer` know.
  private var membershipRoots: [String] {
    var roots = hierarchy.unified.map { [$0] } ?? []
    if hierarchy.layout == .unified { return roots }
    for controller in [Controller.pids, .memory, .freezer] {
      if let root = hierarchy.legacy[controller], !roots.contains(root) { roots.append(root) }
    }
    return roots
  }

  private static func collect(_ folder: String, into found: inout Set<Int32>) throws(SystemFault) {
    do throws(SystemFault) {
      for line in try File.text("\(folder)/cgroup.procs").split(separator: "\n") {
        // 0 stands for a process outside our pid namespace.
        if let pid = Int32(line), pid > 0 { found.insert(pid) }
      }
    } catch  where error.code == ENOENT || error.code == ENODEV {
      return
    }
    // Podman's monitor is not the app: it lives to tell how the app ended.
    for child in try children(folder) where !Self.isMonitor(child) { try collect(child, into: &found) }
  }

  /// Podman's monitors of a container and of commands in it.
  package var monitors: [Int32] {
    // best effort: not every hierarchy has the group.
    let folders = hierarchy.roots.flatMap { (try? Self.children($0 + path)) ?? [] }
    return Self.members(folders.filter(Self.isMonitor))
  }

  /// `conmon`, or with systemd a unit of its own in the app's slice.
  static func isMonitor(_ folder: String) -> Bool {
    let name = folder[(folder.lastIndex(of: "/").map { folder.index(after: $0) } ?? folder.startIndex)...]
    return name == "conmon" || name.hasPrefix("libpod-conmon-")
  }

  /// Every process in the group itself and every monitor, in any hierarchy.
  package var everyone: [Int32] { Self.members(hierarchy.roots.map { $0 + path }) + monitors }

  private static func members(_ folders: [String]) -> [Int32] {
    var found: Set<Int32> = []
    for folder in folders {
      // Best effort: as above.
      let text = (try? File.text("\(folder)/cgroup.procs")) ?? ""
      for line in text.split(separator: "\n") { if let pid = Int32(line), pid > 0 { found.insert(pid) } }
    }
    return found.sorted()
  }

  /// Whether anything lives in it or below it. For all but containers this is one small read.
  package var isPopulated: Bool {
    get throws(SystemFault) {
      if kind != .container, let v2Folder, let text = try? File.text("\(v2Folder)/cgroup.events") {
        return KeyedFile(text)["populated"] == 1
      }
      return try !processes.isEmpty
    }
  }

  /// Whether the group is there, in any hierarchy.
  package var exists: Bool { hierarchy.roots.contains { File.exists($0 + path) } }
}

/// A kernel file of `key value` lines.
struct KeyedFile {
  private var values: [Substring: UInt64] = [:]

  init(_ text: String) {
    for line in text.split(separator: "\n") {
      let parts = line.split(separator: " ")
      if parts.count == 2, let value = UInt64(parts[1]) { values[parts[0]] = value }
    }
  }

  subscript(key: String) -> UInt64? { values[key[...]] }
}
