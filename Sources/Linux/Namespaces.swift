internal import CLinux
internal import Glibc

/// Kinds of namespace (namespaces(7)), by the kernel's clone flags.
package struct NamespaceKinds: OptionSet, Sendable, Equatable {
  package let rawValue: UInt32
  package init(rawValue: UInt32) { self.rawValue = rawValue }
  package static let mount = NamespaceKinds(rawValue: UInt32(CL_NEWNS))
  package static let cgroup = NamespaceKinds(rawValue: UInt32(CL_NEWCGROUP))
  package static let uts = NamespaceKinds(rawValue: UInt32(CL_NEWUTS))
  package static let ipc = NamespaceKinds(rawValue: UInt32(CL_NEWIPC))
  package static let user = NamespaceKinds(rawValue: UInt32(CL_NEWUSER))
  package static let pid = NamespaceKinds(rawValue: UInt32(CL_NEWPID))
  package static let network = NamespaceKinds(rawValue: UInt32(CL_NEWNET))

  /// Each kind with its name in `/proc/PID/ns`.
  package static let files: [(kind: NamespaceKinds, name: String)] = [
    (.user, "user"), (.mount, "mnt"), (.pid, "pid"), (.network, "net"), (.ipc, "ipc"), (.uts, "uts"),
    (.cgroup, "cgroup"),
  ]
}

/// Who one is after a fork.
package enum Forked: ~Copyable {
  case child
  case parent(pid: Int32, Pidfd)
}

/// Making and entering namespaces. Everything here is for a process with a single thread.
package enum Namespaces {
  /// Forks into new namespaces, and into a v2 cgroup when its folder is given (clone3(2)). The child goes on with a copy of the
  /// caller's memory and descriptors.
  package static func fork(_ kinds: NamespaceKinds, cgroup: Int32?) throws(SystemFault) -> Forked {
    var raw: Int32 = -1
    let pid = try checkShim("clone3") { cl_clone(UInt64(kinds.rawValue), cgroup ?? -1, &raw) }
    return pid == 0 ? .child : .parent(pid: pid, Pidfd(Descriptor(owning: raw)))
  }

  /// Forks with nothing new (fork(2)); 0 in the child.
  package static func fork() throws(SystemFault) -> Int32 { try checkShim("fork") { cl_fork() } }

  /// Forks a child of the caller's parent, into the pid namespace last entered (clone3(2), CLONE_PARENT); 0 in the child.
  package static func forkSibling() throws(SystemFault) -> Int32 { try checkShim("clone3") { cl_clone_sibling() } }

  /// Leaves the current namespaces of these kinds for new ones.
  package static func unshare(_ kinds: NamespaceKinds) throws(SystemFault) {
    try checkShim("unshare") { cl_unshare(Int32(bitPattern: kinds.rawValue)) }
  }

  /// Enters the namespaces of these kinds of the process behind a pidfd, all or none (setns(2)).
  package static func enter(_ process: borrowing Pidfd, _ kinds: NamespaceKinds) throws(SystemFault) {
    try process.withRaw { (raw) throws(SystemFault) in
      _ = try checkShim("setns") { cl_setns(raw, Int32(bitPattern: kinds.rawValue)) }
    }
  }

  /// The network namespace of the calling thread, to come back to.
  package static func ownNetwork() throws(SystemFault) -> Descriptor {
    Descriptor(
      owning: try check("open", "/proc/thread-self/ns/net") { open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC) })
  }

  /// Runs `body` with the calling thread in the network namespace of a process, and comes back to `home`; sockets made meanwhile stay in
  /// that namespace. Unlike the others here it may be called where there are more threads: a thread's network is its own (setns(2)).
  /// A thread that cannot come back must do nothing else, so the program ends.
  package static func inNetwork<Result: ~Copyable>(
    of process: borrowing Pidfd, home: SharedDescriptor, _ body: () throws(SystemFault) -> Result
  ) throws(SystemFault) -> Result {
    try enter(process, .network)
    defer {
      home.withRaw { raw in
        let code = cl_setns(raw, Int32(CL_NEWNET))
        if code < 0 { fatalError("setns: the way back to the host's network is lost: \(SystemFault.text(of: -code))") }
      }
    }
    return try body()
  }

  /// From now on the calling thread's root and current folder are its own, not those of all threads.
  package static func ownRoot() throws(SystemFault) { try checkShim("unshare") { cl_unshare(Int32(CL_FS)) } }

  /// The root of the mounts that a process sees, whatever it took for its own root since, and those mounts as /proc/PID/mountinfo tells
  /// them. For a thread that has its own root; one that cannot come back must do nothing else, so the program ends.
  package static func mounts(of process: borrowing Pidfd) throws(SystemFault) -> (
    root: SharedDescriptor, table: [UInt8]
  ) {
    func opened(_ path: String, in folder: Int32 = AT_FDCWD, _ flags: Int32) throws(SystemFault) -> Descriptor {
      Descriptor(owning: try check("open", path) { openat(folder, path, flags | O_CLOEXEC) })
    }
    let home = try opened("/proc/thread-self/ns/mnt", O_RDONLY)
    let kernel = try opened("/proc", pathOnly | O_DIRECTORY)
    try enter(process, .mount)
    defer {
      home.withRaw { raw in
        let code = cl_setns(raw, Int32(CL_NEWNS))
        if code < 0 { fatalError("setns: the way back to the host's mounts is lost: \(SystemFault.text(of: -code))") }
      }
    }
    let root = try opened("/", pathOnly | O_DIRECTORY)
    let table = try kernel.withRaw { (raw) throws(SystemFault) in try opened("thread-self/mountinfo", in: raw, O_RDONLY)
    }
    return (SharedDescriptor(root), try readAll(table, "mountinfo", limit: 4 << 20))
  }

  /// A user namespace in which ids 0 to 65 535 are those from `base` on, with nobody in it: for mounts to map owners by.
  package static func users(base: UInt32) throws(SystemFault) -> Descriptor {
    var pipe = try Pipe(nonBlockingRead: false)
    guard let reading = pipe.reading.take(), let writing = pipe.writing.take() else {
      throw SystemFault(call: "pipe", subject: "", code: EBADF)
    }
    switch try fork(.user, cgroup: nil) {
    case .child:
      _ = consume writing
      var byte: UInt8 = 0
      // Until the other end is closed.
      _ = reading.withRaw { read($0, &byte, 1) }
      Children.exitNow(0)
    case .parent(let pid, _):
      defer {
        kill(pid, SIGKILL)
        // best effort: it is dead, and ours alone.
        _ = try? Children.wait(pid, block: true)
      }
      for name in ["uid_map", "gid_map"] { try File.write("/proc/\(pid)/\(name)", "0 \(base) 65536\n") }
      let path = "/proc/\(pid)/ns/user"
      _ = consume writing
      return Descriptor(owning: try check("open", path) { open(path, O_RDONLY | O_CLOEXEC) })
    }
  }

  package static func setHostName(_ name: String) throws(SystemFault) {
    try checkShim("sethostname", name) { cl_set_hostname(name, name.utf8.count) }
  }

  /// Brings `lo` up in the caller's network namespace.
  package static func bringLoopbackUp() throws(SystemFault) { try checkShim("ioctl", "lo") { cl_loopback_up() } }
}
