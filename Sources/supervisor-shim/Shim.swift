internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// The life of one run: prepare, wait for `go`, run, tell how it ended, leave once that is known.
///
/// One thread and poll(2): what it waits for is a handful of descriptors, and the kernel moves the bytes.
final class Shim {
  /// More daemons than this at once are nobody's.
  private static let maximumConnections = 4
  /// How long a connected daemon has to take note of the end before it is written to disk for the next one.
  private static let patience: Int64 = 200_000_000

  private let plan: LaunchPlan
  private var connections: [SharedDescriptor]
  private var listener: SharedDescriptor?
  private var socketFile: UInt64?
  private var state = RunState.preparing
  private var goAsked = false
  private var leaving = false
  private var outcomeWritten = false
  private var outcomeDue: Int64?

  private var child: RunningChild?
  private var log: OutputLog?
  private var lastDrain: Int64 = 0
  private var toldDropped: UInt64 = 0
  private var outOfMemoryBefore: UInt64 = 0
  private var takenPorts: [UInt16] = []
  private var forwarder: Forwarder?
  private var commands = Commands()
  private var hearing: Hearing?

  init(_ plan: LaunchPlan, daemon: SharedDescriptor) {
    self.plan = plan
    connections = [daemon]
  }

  /// Returns when nothing more is to be done.
  func run() {
    do throws(StepFailure) { try prepare() } catch { neverStarted(error) }
    while !leaving { turn() }
    removeSocket()
  }

  // MARK: Preparing

  private func prepare() throws(StepFailure) {
    let listeners = try Ports.listen(plan.ports)
    takenPorts = listeners.map(\.taken)
    if !listeners.isEmpty { forwarder = Forwarder(plan, listeners) }
    try step("log") { () throws(SystemFault) in log = try OutputLog.open(plan) }
    try step("socket") { () throws(SystemFault) in
      let socket = try UnixSocket.listen(
        Folder(opening: plan.places.sockets), "\(plan.runName).sock", mode: 0o600, kind: .packets, backlog: 8)
      listener = SharedDescriptor(socket)
      socketFile = Place.identity("\(plan.places.sockets)/\(plan.runName).sock")
    }
    // A daemon that died before there was a socket has a successor that may have looked for one already, and would start this app
    // again. From here on it finds us.
    guard !isAlone else {
      leaving = true
      return
    }
    let sources = try Sources(plan)
    outOfMemoryBefore = outOfMemoryCount()
    if plan.root.contains(where: { $0.kind == .notifySocket }) {
      hearing = try step("notify socket") { () throws(SystemFault) in try Hearing() }
    }
    let child = try RunningChild.make(plan, sources, notify: hearing?.socket)
    self.child = child
    try step("cgroup") { () throws(SystemFault) in try child.awaitJoined() }
    try Admittance.admit(child.pid, plan)
    try step("handshake") { () throws(SystemFault) in try child.tell(ChildPacket.release) }
  }

  /// Whether the daemon that started us is gone, whatever it may have said before.
  private var isAlone: Bool {
    guard let daemon = connections.first else { return true }
    var wait = pollfd(fd: daemon.withRaw { $0 }, events: 0, revents: 0)
    return poll(&wait, 1, 0) > 0
  }

  /// Ends what was begun; the failure is told, and kept if a daemon may never hear of it.
  private func neverStarted(_ failure: StepFailure) {
    child?.kill()
    child = nil
    end(failure.cause, startedAt: nil)
  }

  // MARK: Waiting

  private enum Source {
    case listener
    case connection(Int)
    case sandbox, output, errors, terminal, process, forwarder, notify
    case command(Int, Commands.Wait)
  }

  private func turn() {
    var waits: [pollfd] = []
    var sources: [Source] = []
    func add(_ descriptor: SharedDescriptor?, _ source: Source) {
      guard let descriptor else { return }
      waits.append(pollfd(fd: descriptor.withRaw { $0 }, events: Int16(POLLIN), revents: 0))
      sources.append(source)
    }
    add(listener, .listener)
    for (index, connection) in connections.enumerated() { add(connection, .connection(index)) }
    if let child {
      add(child.channel, .sandbox)
      add(child.output, .output)
      add(child.errors, .errors)
      add(child.terminal, .terminal)
      child.process.withRaw { waits.append(pollfd(fd: $0, events: Int16(POLLIN), revents: 0)) }
      sources.append(.process)
    }
    if hearing?.isOpen == true { add(hearing?.socket, .notify) }
    for (raw, place, wait) in commands.waits {
      waits.append(pollfd(fd: raw, events: Int16(POLLIN), revents: 0))
      sources.append(.command(place, wait))
    }
    forwarder?.withProcess {
      waits.append(pollfd(fd: $0, events: Int16(POLLIN), revents: 0))
      sources.append(.forwarder)
    }
    guard poll(&waits, nfds_t(waits.count), timeout()) >= 0 else { return }
    if let outcomeDue, Clock.monotonic() >= outcomeDue { writeOutcome() }
    if let child { forwarder?.revive(child) }
    var closed: [Int] = []
    // Before the app's own end: pid 1 ends only once these have been waited for.
    for (wait, source) in zip(waits, sources) where wait.revents != 0 {
      if case .command(let place, let wait) = source { commands.handle(place, wait) }
    }
    tellOfCommands()
    tellOfHearing()
    for (wait, source) in zip(waits, sources) where wait.revents != 0 {
      switch source {
      case .listener: accept()
      case .connection(let index): if !serve(connections[index]) { closed.append(index) }
      case .sandbox: hearSandbox()
      case .output: drain(.output)
      case .errors: drain(.error)
      case .terminal: if child?.readTerminal() == true { drain(.output) }
      case .process: processEnded()
      case .notify: hearing?.hear(plan.identity)
      case .command: break
      case .forwarder: forwarder?.ended()
      }
      if leaving { return }
    }
    for index in closed.reversed() { commands.abandon(connections.remove(at: index)) }
    if !closed.isEmpty, connections.isEmpty { abandoned() }
  }

  private func timeout() -> Int32 {
    let due = [outcomeDue, commands.due, hearing?.due, child == nil ? nil : forwarder?.due].compactMap({ $0 }).min()
    guard let due else { return -1 }
    return Int32(clamping: max(0, due - Clock.monotonic()) / 1_000_000 + 1)
  }

  /// Not to a daemon that does not read: it must not make this process wait, and asks when it is back.
  private func tellOfHearing() {
    guard case .running = state, let news = hearing?.news() else { return }
    for connection in connections {
      var wait = pollfd(fd: connection.withRaw { $0 }, events: Int16(POLLOUT), revents: 0)
      if poll(&wait, 1, 0) > 0 { _ = tell(connection, news) }
    }
  }

  // MARK: Commands

  private func tellOfCommands() {
    let ours = [child?.pid, forwarder?.running].compactMap { $0 }
    for (command, state) in commands.news(ours: ours) where connections.contains(where: { $0 === command.connection }) {
      // One whose daemon does not read is told nothing more; it sees the connection's end.
      _ = tell(command.connection, .exec(id: command.id, state))
    }
  }

  private func beginCommand(_ id: UInt32, _ descriptors: [SharedDescriptor], _ connection: SharedDescriptor) -> Bool {
    do throws(StepFailure) {
      guard let child, case .running = state else {
        throw StepFailure("request", reason: "the app does not run", code: ESRCH)
      }
      try commands.begin(id, descriptors, plan, app: child.process, for: connection)
      return true
    } catch {
      return tell(
        connection, .exec(id: id, .failed(step: error.step, reason: error.reason, code: error.code)))
    }
  }

  // MARK: Daemons

  private func accept() {
    guard let listener else { return }
    guard let arrived = try? listener.withRaw({ (raw) throws(SystemFault) in try UnixSocket.accept(raw) }) else {
      return
    }
    let connection = SharedDescriptor(arrived)
    let peer = try? connection.withRaw { (raw) throws(SystemFault) in try UnixSocket.peer(raw) }
    guard let peer, peer.uid == 0 || peer.uid == geteuid(), connections.count < Self.maximumConnections else { return }
    connections.append(connection)
  }

  /// False when the connection is to be closed.
  private func serve(_ connection: SharedDescriptor) -> Bool {
    guard
      let packet = try? connection.withRaw({ (raw) throws(SystemFault) in
        try UnixSocket.receivePacket(raw, limit: 512)
      }), !packet.bytes.isEmpty, let request = try? ShimRequest(bytes: packet.bytes)
    else { return false }
    switch request {
    case .go:
      goAsked = true
      letGo()
    case .status:
      // First what was said, so that whoever hears the state knows it.
      if let hearing, !tell(connection, hearing.reply) { return false }
      return tell(connection, .state(nonce: plan.nonce, state))
    case .signal(let number): return tell(connection, .signalled(child?.signal(number) ?? ESRCH))
    case .exec(let id): return beginCommand(id, packet.descriptors, connection)
    case .execGo(let id): commands.command(id, of: connection)?.go()
    case .execSignal(let id, let number): commands.command(id, of: connection)?.signal(number)
    case .input: return giveInput(connection)
    case .endInput: if !plan.streams.terminal { child?.input = nil }
    case .acknowledge:
      guard case .ended = state else { return false }
      forget()
    }
    return true
  }

  private func giveInput(_ connection: SharedDescriptor) -> Bool {
    let bytes = ShimReply.input.bytes[...]
    let given = child?.input
    return
      (try? connection.withRaw { (raw) throws(SystemFault) in
        guard let given else { return try UnixSocket.send(raw, bytes, descriptors: []) }
        return try given.withRaw { (input) throws(SystemFault) in
          try UnixSocket.send(raw, bytes, descriptors: [input])
        }
      }) != nil
  }

  private func tell(_ connection: SharedDescriptor, _ reply: ShimReply) -> Bool {
    (try? connection.withRaw { (raw) throws(SystemFault) in try PacketPair.send(raw, reply.bytes) }) != nil
  }

  private func tellAll(_ reply: ShimReply) { connections.removeAll { !tell($0, reply) } }

  /// No daemon is connected. Before `go` the launch is off; a running app goes on; an end is kept on disk, and this process with
  /// all it holds is not needed for that.
  private func abandoned() {
    switch state {
    case .preparing where !goAsked:
      child?.kill()
      leaving = true
    case .preparing, .running: return
    case .ended:
      if outcomeDue != nil { writeOutcome() }
      leaving = true
    }
  }

  // MARK: The sandbox

  private func letGo() {
    guard goAsked, let child, child.isReady, !child.isReleased else { return }
    // best effort: a child that is gone has said why, or its end says it, and that is the next thing heard.
    try? child.release()
  }

  private func hearSandbox() {
    guard let child, let channel = child.channel else { return }
    let packet = try? channel.withRaw { (raw) throws(SystemFault) in try PacketPair.receive(raw) }
    switch packet?.bytes.first {
    case ChildPacket.ready:
      do throws(StepFailure) {
        try step("handshake") { () throws(SystemFault) in try child.becomeReady(packet?.sender ?? 0) }
        // Now the app's root stands, and the forwarder can live in it.
        try forwarder?.start(child)
      } catch {
        // Gone already: what it said of that comes next.
        if error.code == ESRCH { return }
        return neverStarted(error)
      }
      letGo()
    case ChildPacket.hot: child.startedAt = Clock.wall().nanoseconds
    case ChildPacket.failed: neverStarted(ChildPacket.failure(packet?.bytes ?? []))
    default:
      // The end: after `hot` it means that exec closed the descriptor; else the child died, which its process tells.
      child.channel = nil
      guard let startedAt = child.startedAt else { return }
      state = .running(
        RunningFacts(
          pid: child.appPid, init1: child.pid, startedAt: startedAt,
          landlock: plan.walls.landlock ? UInt8(clamping: Landlock.abi) : 0, ports: takenPorts))
      tellAll(.state(nonce: plan.nonce, state))
    }
  }

  private func drain(_ stream: LogRecord.Stream) {
    // A writer of small pieces would otherwise have each of them moved and recorded alone: at most one round a millisecond. One
    // whose pipe would be half full before that is not kept waiting.
    sleep(until: Self.firstLook)
    // Bounded: the first time it is how long this machine has been up, which would not fit into the product below after five hours.
    let sinceLast = min(Clock.monotonic() - lastDrain, 1_000_000_000)
    let waiting = Int64(pipe(of: stream)?.withRaw { Pipe.waiting($0) } ?? 0)
    sleep(until: waiting > 0 ? min(Self.longestWait, sinceLast * Self.halfFull / waiting) : Self.longestWait)
    drainOnce(stream)
    lastDrain = Clock.monotonic()
  }

  /// Nanoseconds since the last round. Sooner than the first look, how fast a pipe fills cannot be told.
  private static let firstLook: Int64 = 150_000
  private static let longestWait: Int64 = 1_000_000
  /// Bytes; a timer is late by 50 µs, in which a fast writer fills a good part of the rest.
  private static let halfFull: Int64 = 1 << 19

  private func sleep(until sinceLast: Int64) {
    let pause = lastDrain + sinceLast - Clock.monotonic()
    if pause > 20_000 { usleep(UInt32(pause / 1000)) }
  }

  private func pipe(of stream: LogRecord.Stream) -> SharedDescriptor? {
    stream == .output ? child?.output : child?.errors
  }

  private func drainOnce(_ stream: LogRecord.Stream) {
    guard let child, let pipe = pipe(of: stream) else { return }
    if case .end = pipe.withRaw({ log?.drain($0, stream) ?? .end }) {
      if stream == .output { child.output = nil } else { child.errors = nil }
    }
    if let dropped = log?.dropped, dropped > toldDropped {
      // A few times in all: a daemon that stands still reads none of it, and must not make this process wait.
      if toldDropped == 0 || dropped / 2 >= toldDropped {
        toldDropped = dropped
        tellAll(.outputLost(dropped))
      }
    }
  }

  private func drainRest() {
    for _ in 0..<64 {
      guard let child, child.terminal != nil, child.readTerminal() else { break }
      drainOnce(.output)
      guard let terminal = child.terminal, terminal.withRaw({ Self.hasMore($0) }) else { break }
    }
    for stream in [LogRecord.Stream.output, .error] {
      // Everyone in the app's pid namespace is dead: what is in the pipe is all there will be. Bounded, in case its other end
      // was handed to somebody who is not.
      for _ in 0..<64 {
        guard let child, let pipe = stream == .output ? child.output : child.errors else { break }
        guard case .some = pipe.withRaw({ log?.drain($0, stream) ?? .end }) else { break }
      }
    }
  }

  private static func hasMore(_ raw: Int32) -> Bool {
    var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
    return poll(&wait, 1, 0) > 0 && wait.revents & Int16(POLLIN) != 0
  }

  /// pid 1 has ended, and with it, says the kernel, everything else in there.
  private func processEnded() {
    guard let child else { return }
    // Exec and the end may arrive in one turn: what the sandbox said comes first.
    while child.channel != nil, case .preparing = state {
      hearSandbox()
      if self.child == nil { return }
    }
    drainRest()
    let ending = child.takeEnding()
    let startedAt = child.startedAt
    self.child = nil
    guard startedAt != nil else {
      end(.neverStarted(step: "sandbox", reason: "it was killed before the program ran", code: 0), startedAt: nil)
      return
    }
    switch ending {
    case .code(let code): end(.code(code), startedAt: startedAt)
    case .signal(let number): end(.signal(number), startedAt: startedAt)
    }
  }

  private func outOfMemoryCount() -> UInt64 {
    guard let file = plan.membership.outOfMemoryCounter, let text = try? File.text(file) else { return 0 }
    let line = text.split(separator: "\n").first { $0.hasPrefix("oom_kill ") }
    return line.flatMap { UInt64($0.dropFirst("oom_kill ".count)) } ?? 0
  }

  // MARK: The end

  private func end(_ cause: RunOutcome.Cause, startedAt: Int64?) {
    var outcome = RunOutcome(
      nonce: plan.nonce, cause: cause, startedAt: startedAt, endedAt: Clock.wall().nanoseconds)
    // Read while the group is still there: it is the daemon that removes it.
    outcome.outOfMemory = outOfMemoryCount() > outOfMemoryBefore && cause != .code(0)
    outcome.outputLost = log?.dropped ?? 0
    log = nil
    forwarder?.stop()
    hearing = nil
    forwarder = nil
    state = .ended(outcome)
    tellAll(.state(nonce: plan.nonce, state))
    outcomeDue = Clock.monotonic() + Self.patience
    if connections.isEmpty { abandoned() }
  }

  private func writeOutcome() {
    outcomeDue = nil
    guard case .ended(let outcome) = state, goAsked, !outcomeWritten else { return }
    do throws(SystemFault) {
      try Folder(opening: plan.places.runs).replace(plan.runName, with: Array(outcome.text.utf8), mode: 0o600)
      outcomeWritten = true
    } catch {
      // A full disk: this process itself keeps the outcome, and tries again.
      outcomeDue = Clock.monotonic() + 5_000_000_000
    }
  }

  private func forget() {
    // Best effort: an outcome that stays is acknowledged again by whoever finds it.
    if outcomeWritten { try? Folder(opening: plan.places.runs).remove(plan.runName) }
    leaving = true
  }

  private func removeSocket() {
    listener = nil
    // Another shim of the same run may have taken the place, if its daemon and ours were not the same.
    let now = Place.identity("\(plan.places.sockets)/\(plan.runName).sock")
    guard let socketFile, socketFile == now else { return }
    // Best effort: a stale socket refuses connections, which a daemon takes for what it is.
    try? Folder(opening: plan.places.sockets).remove("\(plan.runName).sock")
  }
}
