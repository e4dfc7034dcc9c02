internal import Glibc
internal import Linux
internal import Sandboxing

/// A command beside the app, from its request to its end, as the shim sees it.
///
/// It takes two processes: the first joins the app's groups and namespaces, all by what the shim has had open since before the app's
/// first instruction; the second is made by it inside the pid namespace, as the shim's own child, and becomes the command.
final class Command {
  let id: UInt32
  let plan: ExecPlan
  /// Who asked, and is told.
  let connection: SharedDescriptor
  /// Until exec, then nil.
  private(set) var channel: SharedDescriptor?
  /// Our children, each until it was waited for.
  private(set) var entering: Child?
  private(set) var process: Child?
  private var isHot = false
  private var isTimedOut = false
  private var failure: StepFailure?

  struct Child {
    var pid: Int32
    var handle: SharedDescriptor
  }

  init(
    _ id: UInt32, _ plan: ExecPlan, _ launch: LaunchPlan, app: borrowing Pidfd, streams: [SharedDescriptor],
    connection: SharedDescriptor
  ) throws(StepFailure) {
    self.id = id
    self.plan = plan
    self.connection = connection
    var pair = try step("pipes") { () throws(SystemFault) in try PacketPair() }
    guard let ours = pair.parent.take(), let theirs = pair.child.take() else {
      throw StepFailure("pipes", reason: "made without ends", code: EBADF)
    }
    let folder = try step("cgroup") { () throws(SystemFault) in
      try launch.membership.folder.map { (path) throws(SystemFault) in SharedDescriptor(try Place.open(path, [])) }
    }
    let forked = try step("clone") { () throws(SystemFault) in
      if let folder {
        return try folder.withRaw { (raw) throws(SystemFault) in try Namespaces.fork([], cgroup: raw) }
      }
      return try Namespaces.fork([], cgroup: nil)
    }
    switch consume forked {
    case .child:
      _ = consume ours
      let all = [theirs.release(), app.withRaw { $0 }] + streams.map { $0.withRaw { $0 } }
      CommandChild(plan: plan, launch: launch).run(all)
    case .parent(let pid, let process):
      entering = Child(pid: pid, handle: SharedDescriptor(process.release()))
      channel = SharedDescriptor(ours)
    }
  }

  /// Neither process is left, and all they said was heard.
  var isOver: Bool { entering == nil && process == nil && channel == nil }

  /// The first process ended without a word: it may have made the second, of which we then know nothing but that it is our child.
  var mayHaveLeftOne: Bool { isOver && command == 0 && failure == nil }
  private var command: Int32 = 0

  /// Takes all that was said so far; returns what of it is to be told.
  func hear() -> [ExecState] {
    var news: [ExecState] = []
    while let channel, channel.withRaw({ PacketPair.isWaiting($0) }) {
      let packet = try? channel.withRaw { (raw) throws(SystemFault) in try PacketPair.receive(raw) }
      switch packet?.bytes.first {
      case ChildPacket.forked: know(ChildPacket.number(packet?.bytes ?? []))
      case ChildPacket.ready:
        know(packet?.sender ?? 0)
        news.append(.prepared(pid: command))
      case ChildPacket.hot: isHot = true
      case ChildPacket.failed:
        failure = ChildPacket.failure(packet?.bytes ?? [])
        isHot = false
      default:
        // The end: after `hot` it means that exec closed the descriptor; else it died, which its process tells.
        self.channel = nil
        if isHot { news.append(.running) }
      }
    }
    return news
  }

  /// As our child that we have not waited for, it keeps its number.
  private func know(_ pid: Int32) {
    guard command == 0, pid > 0, let handle = try? Pidfd(of: pid) else { return }
    command = pid
    process = Child(pid: pid, handle: SharedDescriptor(handle.release()))
  }

  func entered() {
    if let entering { _ = try? Children.wait(entering.pid, block: true) }
    entering = nil
  }

  func ended() {
    end = process.flatMap { (try? Children.wait($0.pid, block: true)) ?? nil }?.end
    process = nil
  }
  private var end: ChildEnd?

  /// What became of it, once it is over.
  var outcome: ExecState {
    if isTimedOut { return .ended(.timedOut) }
    if let failure { return .failed(step: failure.step, reason: failure.reason, code: failure.code) }
    guard isHot, let end else {
      return .failed(step: "sandbox", reason: "it was killed before the program ran", code: 0)
    }
    switch end {
    case .code(let code): return .ended(.code(code))
    case .signal(let number): return .ended(.signal(number))
    }
  }

  func go() {
    // Best effort: one that is gone is told of by its process.
    channel?.withRaw { raw in try? PacketPair.send(raw, [ChildPacket.go]) }
  }

  /// To every process of its group, which it leads: its number is not given to another while we have not waited for it.
  func signal(_ number: Int32) {
    if let process { kill(-process.pid, number) }
    if number == SIGKILL, let entering { kill(entering.pid, SIGKILL) }
  }

  /// Its time is over, if it has one. Repeated while it dies: what it was doing may have been to make the second process.
  func killOverdue(_ now: Int64) {
    guard plan.deadline > 0, now >= plan.deadline else { return }
    isTimedOut = true
    signal(SIGKILL)
  }
}

/// The other side: joins, enters, gives up, becomes the command.
struct CommandChild {
  let plan: ExecPlan
  let launch: LaunchPlan

  /// Where its descriptors are, whatever they were at the shim.
  private enum Slot: Int32 {
    case shim = 3
    case app, input, output, errors
  }

  /// Never returns. Owners of other descriptors must never run again: all are closed here.
  func run(_ descriptors: [Int32]) -> Never {
    do throws(StepFailure) {
      // First, so that nothing of the shim's (logs, sockets, daemons) is ever in a process that is in the app's namespaces.
      try step("descriptors") { () throws(SystemFault) in try keep(descriptors) }
      try enterApp()
      // Only a process made after it is in the pid namespace. As a sibling it is the shim's child, and outlives this one.
      let command = try step("fork") { () throws(SystemFault) in try Namespaces.forkSibling() }
      if command > 0 {
        try? PacketPair.send(Slot.shim.rawValue, ChildPacket.bytes(forked: command))
        Children.exitNow(0)
      }
      try become()
    } catch {
      // Best effort: without a shim nobody is left to tell.
      try? PacketPair.send(Slot.shim.rawValue, ChildPacket.bytes(error))
    }
    Children.exitNow(127)
  }

  private func keep(_ descriptors: [Int32]) throws(SystemFault) {
    var moved: [Int32] = []
    for raw in descriptors { moved.append(try check("fcntl", "F_DUPFD") { fcntl(raw, F_DUPFD, 64) }) }
    for (index, raw) in moved.enumerated() {
      _ = try check("dup2") { dup2(raw, Slot.shim.rawValue + Int32(index)) }
    }
    try Privileges.close(from: UInt32(Slot.shim.rawValue) + UInt32(descriptors.count))
  }

  /// The groups first, as the host's root; then every namespace at once, through the app's first process as the shim has held it
  /// since it made it: no path and no number is looked up. From `setNotDumpable` on nobody with fewer rights than the host's root
  /// may look into this process or attach to it, whatever capabilities the app has among its own.
  private func enterApp() throws(StepFailure) {
    try step("cgroup") { () throws(SystemFault) in
      for file in launch.membership.files { try File.write(file, "0") }
    }
    try step("oom_score_adj") { () throws(SystemFault) in
      try File.write("/proc/self/oom_score_adj", String(launch.identity.outOfMemoryAdjustment))
    }
    try step("namespaces") { () throws(SystemFault) in
      try Privileges.setNotDumpable()
      let app = Pidfd(Descriptor(owning: Slot.app.rawValue))
      try Namespaces.enter(app, launch.identity.namespaces.union(.cgroup))
      try Privileges.setNotDumpable()
    }
  }

  private func become() throws(StepFailure) {
    try step("streams") { () throws(SystemFault) in
      try Privileges.newSession()
      Privileges.setFileMask(0o022)
      for (place, target) in [(Slot.input, Int32(0)), (.output, 1), (.errors, 2)] {
        try check("dup2") { dup2(place.rawValue, target) }
      }
      if plan.terminal { try PseudoTerminal.makeControlling(0) }
    }
    var identity = launch.identity
    if let ids = plan.ids, ids.uid != identity.uid || ids.gid != identity.gid {
      identity.uid = ids.uid
      identity.gid = ids.gid
      identity.groups = []
    }
    let folder = plan.workingFolder.isEmpty ? launch.program.workingFolder : plan.workingFolder
    let confinement = Confinement(launch, identity: identity, workingFolder: folder)
    try confinement.apply()
    // What is told from here on is looked at from outside before `go` comes.
    try step("handshake") { () throws(SystemFault) in
      try PacketPair.send(Slot.shim.rawValue, [ChildPacket.ready])
      guard try PacketPair.receive(Slot.shim.rawValue).bytes.first == ChildPacket.go else { Children.exitNow(126) }
    }
    try confinement.seal()
    try step("handshake") { () throws(SystemFault) in
      try PacketPair.send(Slot.shim.rawValue, [ChildPacket.hot])
    }
    try step("exec") { () throws(SystemFault) in try execute() }
  }

  /// By its path inside, or by PATH, with the command's own rights: what the app could run itself.
  private func execute() throws(SystemFault) {
    try ProgramSearch.execute(plan.arguments, Self.merge(launch.program.environment, plan.environment))
  }

  private static func merge(_ base: [String], _ over: [String]) -> [String] {
    func name(_ entry: String) -> Substring { entry.prefix { $0 != "=" } }
    let names = Set(over.map(name))
    return base.filter { !names.contains(name($0)) } + over
  }
}

enum ProgramSearch {
  /// Becomes a program that is named by its path, or found in the PATH of `environment`. Returns only by throwing.
  static func execute(_ arguments: [String], _ environment: [String]) throws(SystemFault) {
    let name = arguments[0]
    guard !name.contains("/") else { return try Privileges.execute(path: name, arguments, environment) }
    let path = environment.last { $0.hasPrefix("PATH=") }?.dropFirst(5) ?? "/usr/bin:/bin"
    var fault = SystemFault(call: "execve", subject: name, code: ENOENT)
    for folder in path.split(separator: ":", omittingEmptySubsequences: false) {
      do throws(SystemFault) {
        try Privileges.execute(path: folder.isEmpty ? name : "\(folder)/\(name)", arguments, environment)
      } catch  where [ENOENT, ENOTDIR].contains(error.code) {
        continue
      } catch  where error.code == EACCES {
        fault = error
      }
    }
    throw fault
  }
}
