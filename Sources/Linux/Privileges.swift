internal import CLinux
internal import Glibc

/// What a process gives up before a program it does not trust runs in its place. Each call concerns the calling thread, so the
/// caller has only one. None of it can be taken back.
package enum Privileges {
  /// Drops every capability from the bounding set that is not in `keep` (bit = number). Needs CAP_SETPCAP.
  package static func bound(keep: UInt64) throws(SystemFault) {
    try checkShim("prctl", "PR_CAPBSET_DROP") { cl_bound_capabilities(keep) }
  }

  /// Root's id gives no capabilities, and a change of ids takes none; with `ambient` false, none can be handed to a program either.
  package static func lockSecurebits(ambient: Bool) throws(SystemFault) {
    try checkShim("prctl", "PR_SET_SECUREBITS") { cl_lock_securebits(ambient ? 0 : 1) }
  }

  /// Holds exactly `set` from now on; with `ambient` a program started keeps it.
  package static func setCapabilities(_ set: UInt64, ambient: Bool) throws(SystemFault) {
    try checkShim("capset") { cl_set_capabilities(set, ambient ? 1 : 0) }
  }

  /// Takes on ids: supplementary groups, then gid, then uid.
  package static func become(uid: UInt32, gid: UInt32, groups: [UInt32]) throws(SystemFault) {
    try checkShim("setresuid", "\(uid):\(gid)") { cl_become(uid, gid, groups, groups.count) }
  }

  /// The scheduling class and priority that a process has by default (sched(7)).
  package static func setOrdinaryPriority() {
    var none = sched_param()
    sched_setscheduler(0, SCHED_OTHER, &none)
    setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 0)
  }

  package static func setNoNewPrivileges() throws(SystemFault) {
    try checkShim("prctl", "PR_SET_NO_NEW_PRIVS") { cl_set_no_new_privs() }
  }

  /// Loads a system call filter (seccomp(2)), an array of `struct sock_filter`. Needs no_new_privs or CAP_SYS_ADMIN.
  package static func loadFilter(_ program: [UInt8]) throws(SystemFault) {
    try checkShim("seccomp", "SECCOMP_SET_MODE_FILTER") {
      program.withUnsafeBytes { cl_load_filter($0.baseAddress, $0.count) }
    }
  }

  /// Others of the same uid can no longer look inside, nor attach.
  package static func setNotDumpable() throws(SystemFault) {
    try checkShim("prctl", "PR_SET_DUMPABLE") { cl_set_not_dumpable() }
  }

  /// Orphans among the descendants come to this process.
  package static func setSubreaper() throws(SystemFault) {
    try checkShim("prctl", "PR_SET_CHILD_SUBREAPER") { cl_set_subreaper() }
  }

  /// Lowers a limit by the kernel's number (setrlimit(2)); `UInt64.max` is unlimited.
  package static func limit(_ resource: Int32, soft: UInt64, hard: UInt64) throws(SystemFault) {
    try checkShim("setrlimit", "\(resource)") { cl_set_rlimit(0, resource, soft, hard) }
  }

  /// The same for another process, of this user or in a user namespace of this user's (prlimit(2)). The caller has it open, so that its
  /// number is still its own.
  package static func limit(
    _ resource: Int32, of pid: Int32, _ process: borrowing Pidfd, soft: UInt64, hard: UInt64
  ) throws(SystemFault) {
    guard process.isAlive else { throw SystemFault(call: "prlimit", subject: "\(pid)", code: ESRCH) }
    try checkShim("prlimit", "\(resource) of \(pid)") { cl_set_rlimit(pid, resource, soft, hard) }
  }

  /// Raises the number of files this process may have open to what it may raise it to, at most `most` (getrlimit(2)). Best effort:
  /// one that stays low is met as EMFILE.
  package static func raiseOpenFiles(to most: UInt) {
    var limit = rlimit()
    guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0, limit.rlim_cur < most else { return }
    limit.rlim_cur = min(most, limit.rlim_max)
    setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit)
  }

  /// Whether a process whose oom_score_adj this one raises cannot lower it again. The kernel remembers the least value a process may
  /// go back to only when the writer has CAP_SYS_RESOURCE in the host's own user namespace, which a root in a container or a
  /// virtual machine may lack (fs/proc/base.c, `oom_score_adj_min`). False also when /proc cannot be read.
  package static var keepsOutOfMemoryScore: Bool {
    guard let status = try? File.text("/proc/self/status"), let map = try? File.text("/proc/self/uid_map"),
      let line = status.split(separator: "\n").first(where: { $0.hasPrefix("CapEff:") }),
      let held = UInt64(line.dropFirst("CapEff:".count).drop { $0 == "\t" }, radix: 16)
    else { return false }
    let isHostRoot = map.split { $0 == " " || $0 == "\n" } == ["0", "0", "4294967295"]
    return isHostRoot && held >> 24 & 1 == 1
  }

  /// No signal is blocked from now on.
  package static func unblockSignals() throws(SystemFault) { try checkShim("sigprocmask") { cl_unblock_signals() } }

  /// Every descriptor from `first` on is closed when a program is started.
  package static func closeOnExec(from first: UInt32) throws(SystemFault) {
    try checkShim("close_range") { cl_close_from(first, 1) }
  }

  /// Closes every descriptor from `first` on. Owners of any of them must no longer exist, or never run again.
  package static func close(from first: UInt32) throws(SystemFault) {
    try checkShim("close_range") { cl_close_from(first, 0) }
  }

  package static func newSession() throws(SystemFault) { try check("setsid") { setsid() } }

  package static func setFileMask(_ mask: UInt32) { _ = umask(mask) }

  package static func changeFolder(_ folder: borrowing Descriptor, _ path: String) throws(SystemFault) {
    try folder.withRaw { (raw) throws(SystemFault) in _ = try check("fchdir", path) { fchdir(raw) } }
  }

  /// The current folder's path; fails, or does not begin with `/`, when it lies outside the root.
  package static func currentFolder() throws(SystemFault) -> String {
    guard let path = getcwd(nil, 0) else { throw SystemFault(call: "getcwd", subject: "", code: ENOENT) }
    defer { free(path) }
    return String(cString: path)
  }

  /// Replaces the program by an open file (execveat(2)). Returns only by an error.
  package static func execute(_ file: Int32, _ arguments: [String], _ environment: [String]) throws(SystemFault) {
    try CStrings.with(arguments) { (vector) throws(SystemFault) in
      try CStrings.with(environment) { (values) throws(SystemFault) in
        _ = try checkShim("execve", arguments.first ?? "") { cl_exec_open(file, vector, values) }
      }
    }
  }

  /// Replaces the program by what `path` names: for scripts, whose interpreter opens them by name.
  package static func execute(path: String, _ arguments: [String], _ environment: [String]) throws(SystemFault) {
    try CStrings.with(arguments) { (vector) throws(SystemFault) in
      try CStrings.with(environment) { (values) throws(SystemFault) in
        _ = try check("execve", path) { execve(path, vector, values) }
      }
    }
  }
}
