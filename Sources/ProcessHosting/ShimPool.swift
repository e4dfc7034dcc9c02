internal import Cgroups
internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// Where shims come from. One is kept waiting for its plan, past its exec and in its group, which is a third of what a start
/// takes; whatever else is needed at once is spawned then. Everything happens on the host's event loop.
final class ShimPool {
  private let path: String
  private let group: AppCgroup
  private let loop: EventLoop
  private var spare: SharedDescriptor?
  private var refill: EventLoop.TimerID?
  /// Whether a spare is wanted: only while the host is followed.
  private var isOpen = false

  /// `group` is made when the first shim is.
  init(path: String, group: AppCgroup, loop: EventLoop) {
    self.path = path
    self.group = group
    self.loop = loop
  }

  func open() {
    isOpen = true
    prepareSpare(after: .zero)
  }

  /// The spare leaves as its connection closes.
  func close() {
    isOpen = false
    spare = nil
    refill.map { loop.cancel($0) }
    refill = nil
  }

  /// A shim that has its plan; the connection to it is the caller's.
  func launch(_ plan: LaunchPlan) throws(SystemFault) -> SharedDescriptor {
    let file = try SealedMemory.make("launch-plan", plan.bytes)
    defer { if isOpen { prepareSpare(after: .milliseconds(50)) } }
    if let spare = spare.take() {
      // One that was killed meanwhile is as good as none.
      do throws(SystemFault) {
        try Self.hand(file, to: spare)
        return spare
      } catch  where error.code == EPIPE || error.code == ECONNRESET {}
    }
    let fresh = try spawn()
    try Self.hand(file, to: fresh)
    return fresh
  }

  private static func hand(_ file: borrowing Descriptor, to shim: SharedDescriptor) throws(SystemFault) {
    _ = try file.withRaw { (file) throws(SystemFault) in
      try shim.withRaw { (raw) throws(SystemFault) in try UnixSocket.send(raw, [0], descriptors: [file]) }
    }
  }

  /// Not before a burst of starts is over: it would compete with them.
  private func prepareSpare(after delay: Duration) {
    guard spare == nil, refill == nil else { return }
    refill = loop.schedule(after: delay) { [unowned self] in
      refill = nil
      // Best effort: without one, the next start spawns its own and tells what is wrong.
      if isOpen { spare = try? spawn() }
    }
  }

  private func spawn() throws(SystemFault) -> SharedDescriptor {
    try group.create()
    var pair = try PacketPair()
    guard let ours = pair.parent.take(), let theirs = pair.child.take() else {
      throw SystemFault(call: "socketpair", subject: "shim", code: EBADF)
    }
    let arguments = ["supervisor-shim"] + OrdinaryUser.ids + [group.v2Folder ?? "-"] + group.taskFiles(Limits())
    let null = try Place.null()
    let pid = try null.withRaw { (null) throws(SystemFault) in
      try theirs.withRaw { (theirs) throws(SystemFault) in
        try Children.spawn(path, arguments, descriptors: [null, null, null, theirs])
      }
    }
    // What was spawned forks the shim into its group and ends.
    reap(pid, tries: 5000)
    return SharedDescriptor(ours)
  }

  /// It ends within milliseconds; its number is ours until it is waited for.
  private func reap(_ pid: Int32, tries: Int) {
    // ECHILD: somebody else waited for it, which is as good.
    do throws(SystemFault) { if try Children.wait(pid, block: false) != nil { return } } catch { return }
    guard tries > 0 else { return }
    _ = loop.schedule(after: .milliseconds(2)) { [weak self] in self?.reap(pid, tries: tries - 1) }
  }
}

extension AppCgroup {
  /// The `tasks` files of this group in v1 hierarchies.
  func taskFiles(_ limits: Limits) -> [String] {
    let v2File = v2Folder.map { "\($0)/cgroup.procs" }
    return joinFiles(limits).filter { $0 != v2File }.map { "\($0.dropLast("cgroup.procs".count))tasks" }
  }
}
