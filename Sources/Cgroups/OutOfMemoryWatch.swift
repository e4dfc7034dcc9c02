internal import CLinux
internal import Glibc
internal import Linux

/// Whether the kernel ran out of memory in an app's group since this was made.
///
/// v2 counts kills of everything below the group. v1 counts nothing above the group a killed process was in, and that one is
/// gone with its container; but it signals an eventfd for the group whose limit was met (cgroup v1's memory.rst, 10. OOM
/// Control).
package final class OutOfMemoryWatch: Sendable {
  private let group: AppCgroup
  private let before: UInt64
  private let signal: SharedDescriptor?

  /// The group must be there. Where nothing can be watched, nothing is ever seen.
  package init(_ group: AppCgroup) {
    self.group = group
    before = group.outOfMemoryKills()
    signal = try? Self.register(group)
  }

  package var happened: Bool {
    if group.outOfMemoryKills() > before { return true }
    var count: UInt64 = 0
    return signal?.withRaw { read($0, &count, 8) == 8 && count > 0 } ?? false
  }

  private static func register(_ group: AppCgroup) throws(SystemFault) -> SharedDescriptor? {
    guard let memory = group.folder(.memory), memory.version == .v1 else { return nil }
    let path = "\(memory.path)/memory.oom_control"
    let event = Descriptor(owning: try check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)) })
    let control = Descriptor(owning: try check("open", path) { open(path, O_RDONLY | O_CLOEXEC) })
    let line = event.withRaw { event in control.withRaw { "\(event) \($0)" } }
    try File.write("\(memory.path)/cgroup.event_control", line)
    return SharedDescriptor(event)
  }
}
