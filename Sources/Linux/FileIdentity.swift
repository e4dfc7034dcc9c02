internal import CLinux
internal import Glibc
package import Model

/// With whose rights the calling thread opens files (setfsuid(2)). Root's other powers stay, so it can go back; its power over
/// files (CAP_DAC_OVERRIDE and the like) is gone meanwhile.
package enum FileIdentity {
  /// For good: for a thread that does nothing else.
  package static func assume(_ user: Policy.Loader) throws(SystemFault) {
    try checkShim("setfsuid", "\(user.uid)") { cl_set_file_ids(user.uid, user.gid, user.groups, user.groups.count) }
  }

  /// The same for all that a thread does, not only its files; what is counted by user counts as theirs. For one that `keepCapabilities`
  /// was called on.
  package static func become(_ user: Policy.Loader) throws(SystemFault) {
    try checkShim("setresuid", "\(user.uid)") {
      cl_set_effective_ids(user.uid, user.gid, user.groups, user.groups.count)
    }
  }

  /// The calling thread keeps its capabilities when it becomes somebody. Needs CAP_SETPCAP.
  package static func keepCapabilities() throws(SystemFault) {
    try checkShim("prctl", "PR_SET_SECUREBITS") { cl_keep_capabilities() }
  }

  /// Runs `body` as `user` (nil: as it is), which must not suspend, and goes back to what this process is. A thread that could
  /// not go back ends the process: it must not go on as somebody else.
  package static func with<Result: ~Copyable>(
    _ user: Policy.Loader?, _ body: () throws(SystemFault) -> Result
  ) throws(SystemFault) -> Result {
    guard let user else { return try body() }
    var own = [UInt32](repeating: 0, count: Int(try check("getgroups") { getgroups(0, nil) }))
    let count = try check("getgroups") { getgroups(Int32(own.count), &own) }
    func back() {
      guard cl_set_file_ids(geteuid(), getegid(), own, Int(count)) == 0 else { abort() }
    }
    do throws(SystemFault) { try assume(user) } catch {
      back()
      throw error
    }
    defer { back() }
    return try body()
  }
}
