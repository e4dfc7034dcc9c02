internal import Cgroups
internal import Glibc
internal import Linux
internal import Model

/// Podman's monitor of an exec (conmon) stays for minutes after the command's end, then cleans up after it with a whole podman, both
/// charged to the app. It is put out of the app's group; it cannot be hurried, since it answers signals by sending them to a process
/// that is long gone.
enum ExecMonitor {
  /// Moves the monitor and the child it forks for the cleaning up. False: that child is not there yet. Blocks for some reads of
  /// kernel files.
  static func move(exec id: String, from group: AppCgroup, to other: AppCgroup) -> Bool {
    let monitors = group.monitors.filter { isMonitor($0, of: id) }
    guard monitors.count > 1 else { return false }
    // Best effort: what cannot be moved stays where the engine put it.
    try? other.create()
    for pid in monitors {
      for root in group.hierarchy.roots where File.exists("\(root)\(other.path)/cgroup.procs") {
        try? File.write("\(root)\(other.path)/cgroup.procs", String(pid))
      }
    }
    return true
  }

  /// Kills what is left of monitors whose container is gone: nobody waits for what they would tell.
  static func kill(of container: String, in groups: [AppCgroup]) {
    for pid in groups.flatMap(\.everyone) {
      guard let process = try? Pidfd(of: pid), isMonitor(pid, of: container) else { continue }
      // Best effort: ESRCH is what is wanted.
      try? process.send(SIGKILL)
    }
  }

  /// Whether it is a monitor whose arguments name the container or exec.
  private static func isMonitor(_ pid: Int32, of id: String) -> Bool {
    // Best effort: one that ended is none.
    let arguments = ((try? File.text("/proc/\(pid)/cmdline")) ?? "").split(separator: "\0")
    return arguments.first?.hasSuffix("conmon") == true && arguments.contains(id[...])
  }
}
