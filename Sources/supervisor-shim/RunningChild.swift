internal import Glibc
internal import Linux
internal import Sandboxing

/// What the shim holds of the sandbox it made: its first process, the app, and the pipes between.
final class RunningChild {
  /// pid 1 inside; our child. The number is ours until it is waited for.
  let pid: Int32
  let process: Pidfd
  /// Until exec, then nil.
  var channel: SharedDescriptor?
  var output: SharedDescriptor?
  var errors: SharedDescriptor?
  /// Where the app's input is written: a pipe's end, or its terminal.
  var input: SharedDescriptor?
  /// The terminal its output is read from, and the pipe that takes it on to the log.
  var terminal: SharedDescriptor?
  var relay: SharedDescriptor?
  private let ending: SharedDescriptor
  private var app: Pidfd?
  private(set) var appPid: Int32 = 0
  private(set) var isReady = false
  private(set) var isReleased = false
  /// When the app was about to run its program.
  var startedAt: Int64?

  private init(
    pid: Int32, process: consuming Pidfd, channel: SharedDescriptor, streams: ChildStreams, ending: SharedDescriptor
  ) {
    self.pid = pid
    self.process = process
    self.channel = channel
    output = streams.readOutput
    errors = streams.readErrors
    input = streams.writeInput
    terminal = streams.terminal
    relay = streams.relay
    self.ending = ending
  }

  /// Steps 3 and 4: pipes (not files: their links in /proc would show host paths), then the clone into new namespaces, and into
  /// the app's v2 cgroup, so that there is no moment outside it.
  static func make(_ plan: LaunchPlan, _ sources: Sources, notify: SharedDescriptor?) throws(StepFailure)
    -> RunningChild
  {
    var channel = try step("pipes") { () throws(SystemFault) in try PacketPair() }
    let streams = try step("pipes") { () throws(SystemFault) in try ChildStreams(plan) }
    var ending = try step("pipes") { () throws(SystemFault) in try Pipe(nonBlockingRead: true) }
    guard let ours = channel.parent.take(), let theirs = channel.child.take(),
      let readEnding = ending.reading.take(), let writeEnding = ending.writing.take()
    else { throw StepFailure("pipes", reason: "made without ends", code: EBADF) }
    let folder = try step("cgroup") { () throws(SystemFault) in
      try plan.membership.folder.map { (path) throws(SystemFault) in SharedDescriptor(try Place.open(path, [])) }
    }
    var kinds = plan.identity.namespaces
    if plan.membership.namespaceAtClone { kinds.insert(.cgroup) }
    let forked = try step("clone") { () throws(SystemFault) in
      if let folder {
        return try folder.withRaw { (raw) throws(SystemFault) in try Namespaces.fork(kinds, cgroup: raw) }
      }
      return try Namespaces.fork(kinds, cgroup: nil)
    }
    switch consume forked {
    case .child:
      // Our own end, still open here, would keep the shim's death from being seen.
      _ = consume ours
      Child(
        plan: plan, sources: sources, shim: SharedDescriptor(theirs), streams: streams,
        ending: SharedDescriptor(writeEnding), notify: notify
      ).run()
    case .parent(let pid, let process):
      return RunningChild(
        pid: pid, process: process, channel: SharedDescriptor(ours), streams: streams.parents(),
        ending: SharedDescriptor(readEnding))
    }
  }

  /// Moves what the app wrote at its terminal on to where its log is drained from. False: nothing sits at it any more.
  func readTerminal() -> Bool {
    guard let terminal, let relay else { return false }
    var room = [UInt8](repeating: 0, count: 65536)
    let got = terminal.withRaw { read($0, &room, room.count) }
    if got > 0 {
      // The pipe holds more than this, and is emptied each time.
      return relay.withRaw { raw in (try? writeAll(raw, room[..<got], "terminal")) != nil }
    }
    if got < 0, lastErrorIsTemporary() { return true }
    // EIO: every process that had it open is gone.
    self.terminal = nil
    self.relay = nil
    return false
  }

  func tell(_ packet: UInt8) throws(SystemFault) {
    guard let channel else { throw SystemFault(call: "send", subject: "sandbox", code: EPIPE) }
    try channel.withRaw { (raw) throws(SystemFault) in try PacketPair.send(raw, [packet]) }
  }

  /// Waits until the child has joined its v1 groups. If it could not, its packet says so.
  func awaitJoined() throws(SystemFault) {
    guard let channel else { return }
    let packet = try channel.withRaw { (raw) throws(SystemFault) in try PacketPair.receive(raw).bytes }
    if packet.first == ChildPacket.joined { return }
    let failure = ChildPacket.failure(packet)
    throw SystemFault(call: "join", subject: failure.reason, code: failure.code == 0 ? ECHILD : failure.code)
  }

  /// The app waits for `go`, so the number is its own now and the descriptor will always mean it.
  func becomeReady(_ sender: Int32) throws(SystemFault) {
    app = try Pidfd(of: sender)
    appPid = sender
    isReady = true
  }

  func release() throws(SystemFault) {
    isReleased = true
    try tell(ChildPacket.go)
  }

  /// 0 or an errno.
  func signal(_ number: Int32) -> Int32 {
    guard app != nil, startedAt != nil else { return ESRCH }
    do throws(SystemFault) {
      try app?.send(number)
      return 0
    } catch { return error.code }
  }

  /// Kills everything in the pid namespace, by its first process, and waits for it.
  func kill() {
    // Best effort: ESRCH is what is wanted.
    try? process.send(SIGKILL)
    _ = try? Children.wait(pid, block: true)
  }

  /// How the app ended: as pid 1 told before it ended itself, or, if it was killed, as that.
  func takeEnding() -> ChildEnd {
    let own = (try? Children.wait(pid, block: true)) ?? nil
    var bytes: (UInt8, UInt8) = (0, 0)
    let got = ending.withRaw { read($0, &bytes, 2) }
    if got == 2 { return bytes.0 == 0 ? .code(Int32(bytes.1)) : .signal(Int32(bytes.1)) }
    return own?.end ?? .signal(SIGKILL)
  }
}
