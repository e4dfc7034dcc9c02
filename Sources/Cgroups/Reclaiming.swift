internal import Glibc
package import Linux

extension AppCgroup {
  /// Has the kernel take back memory of its processes, at most `bytes` of it or all it finds. Blocks while the kernel works.
  /// False: this kernel cannot be asked (cgroup-v2.rst, memory.reclaim; cgroup v1's memory.rst, 5.1 force_empty).
  package func reclaim(_ bytes: UInt64?) throws(SystemFault) -> Bool {
    guard let memory = folder(.memory) else { return false }
    do throws(SystemFault) {
      switch memory.version {
      case .v2:
        // Asked for more than there is, the kernel looks for it as long as the app makes new.
        let used = number(memory.path, "memory.current") ?? 0
        let amount = min(bytes ?? used, used)
        try File.write("\(memory.path)/memory.reclaim", String(amount))
      // It takes all it finds: there is nothing less to ask for.
      case .v1:
        guard bytes == nil else { return false }
        try File.write("\(memory.path)/memory.force_empty", "0")
      }
    } catch {
      // Less was found than was asked for, or the rest is in use.
      if error.code == EAGAIN || error.code == EBUSY { return true }
      if error.code == ENOENT, !File.exists("\(memory.path)/memory.reclaim") { return false }
      throw error
    }
    return true
  }
}
