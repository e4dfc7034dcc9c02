internal import CLinux
internal import Glibc
package import Linux
internal import Model

extension AppCgroup {
  // MARK: Kill

  /// Sends SIGKILL to everything in it and below it, new children included; frozen processes too. They are gone when
  /// `isPopulated` says so.
  package func kill() throws(SystemFault) {
    var told = false
    for folder in try killFolders() {
      do throws(SystemFault) {
        try File.write("\(folder)/cgroup.kill", "1")
        told = true
      } catch  where error.code == ENOENT || error.code == ENODEV {
        // Gone meanwhile, or a kernel before 5.14.
      }
    }
    if told { return }
    try killOneByOne()
  }

  /// The v2 groups that hold the app and nothing else: a container's own, beside which Podman keeps its monitor.
  private func killFolders() throws(SystemFault) -> [String] {
    guard let v2Folder else { return [] }
    return kind == .container ? try Self.children(v2Folder).filter { !Self.isMonitor($0) } : [v2Folder]
  }

  /// Kills until nothing is left or `limit` is over; blocks. False: something is still there (waiting in the kernel).
  package func kill(within limit: Duration) throws(SystemFault) -> Bool {
    try Self.poll(limit) { () throws(SystemFault) in
      if try !isPopulated { return true }
      try kill()
      return false
    }
  }

  /// Frozen first, so that nothing forks away from the list; a process is killed through a descriptor that was opened
  /// before the list showed it still there, so that a reused number cannot be hit.
  private func killOneByOne() throws(SystemFault) {
    let frozen = (try? setFrozen(true)) != nil
    defer { if frozen { try? setFrozen(false) } }
    for _ in 0..<16 {
      let listed = try processes
      if listed.isEmpty { return }
      var handles: [(pid: Int32, handle: SharedDescriptor)] = []
      for pid in listed.prefix(4096) {
        let raw = cl_pidfd_open(pid, 0)
        if raw >= 0 { handles.append((pid, SharedDescriptor(Descriptor(owning: raw)))) }
      }
      let still = Set(try processes)
      for (pid, handle) in handles where still.contains(pid) {
        // Best effort: one that ended in between is what was wanted.
        _ = handle.withRaw { cl_pidfd_send_signal($0, SIGKILL) }
      }
      // Frozen, nothing new can appear: one round was enough.
      if frozen { return }
    }
  }

  // MARK: Freeze

  /// Stops or continues every process in it. Returns when the kernel has been told; busy ones stop a few ms later.
  package func setFrozen(_ frozen: Bool) throws(SystemFault) {
    var told = false
    if let v2Folder, File.exists("\(v2Folder)/cgroup.freeze") {
      try File.write("\(v2Folder)/cgroup.freeze", frozen ? "1" : "0")
      told = true
    }
    // On a mixed host a runtime may have put a container only there.
    if let freezer = hierarchy.legacy[.freezer], File.exists("\(freezer)\(path)/freezer.state") {
      try File.write("\(freezer)\(path)/freezer.state", frozen ? "FROZEN" : "THAWED")
      told = true
    }
    guard told else { throw SystemFault(call: "freeze", subject: path, code: ENOENT) }
  }

  /// Whether the kernel has stopped everything in it.
  package var isFrozen: Bool {
    if let v2Folder, let text = try? File.text("\(v2Folder)/cgroup.events"), KeyedFile(text)["frozen"] == 1 {
      return true
    }
    if let freezer = hierarchy.legacy[.freezer], let state = try? File.text("\(freezer)\(path)/freezer.state") {
      return state.hasPrefix("FROZEN")
    }
    return false
  }

  // MARK: Out of memory

  /// How often the kernel killed a process of it for its memory limit. v2 counts all that lies below, also what is gone; v1
  /// only what is still there, so it is read before a container's own group goes.
  package func outOfMemoryKills() -> UInt64 {
    guard let memory = folder(.memory) else { return 0 }
    switch memory.version {
    case .v2: return (try? File.text("\(memory.path)/memory.events")).flatMap { KeyedFile($0)["oom_kill"] } ?? 0
    case .v1: return Self.legacyKills(memory.path)
    }
  }

  /// The file that counts them, in lines of `key value`, for who must read it when this value is not at hand.
  package var outOfMemoryCounterFile: String? {
    folder(.memory).map { "\($0.path)/\($0.version == .v2 ? "memory.events" : "memory.oom_control")" }
  }

  private static func legacyKills(_ folder: String) -> UInt64 {
    let own = (try? File.text("\(folder)/memory.oom_control")).flatMap { KeyedFile($0)["oom_kill"] } ?? 0
    return ((try? children(folder)) ?? []).reduce(own) { $0 &+ legacyKills($1) }
  }

  func number(_ folder: String, _ file: String) -> UInt64? { SmallFile.number("\(folder)/\(file)") }
}
