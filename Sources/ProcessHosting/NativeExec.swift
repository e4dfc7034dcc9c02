internal import Cgroups
internal import Glibc
internal import Linux
package import Model
internal import Sandboxing

extension NativeHost {
  package func exec(_ instance: Instance, _ launch: Launch, _ request: ExecRequest) async throws(HostFailure)
    -> ExecEnd
  {
    guard let run = runs[instance], case .running(let facts) = run.state, let connection = run.connection else {
      throw HostFailure(.conflict, "\(instance.app) is not running")
    }
    guard !run.isPaused, !run.group.isFrozen else {
      throw HostFailure(
        .conflict, "\(instance.app) is paused", hint: "`supervisor unpause \(instance.app)` lets it go on")
    }
    let launch = try resolved(launch)
    let plan = try Self.plan(request, launch)
    let streams = try NativeStreams(request.streams, owner: Self.owner(plan, launch), on: loop)
    let command = NativeCommand(connection)
    do throws(SystemFault) {
      let file = SharedDescriptor(try SealedMemory.make("exec-plan", plan.bytes))
      try command.begin([file] + streams.theirs)
    } catch {
      streams.close()
      throw HostFailure(.failed, "the command could not be handed to the shim of \(instance.app): \(error)")
    }
    streams.theirs = []
    // Cancellation is a request like others, which this task lives to carry out.
    let work = Task {
      let result = await follow(command, streams, request, Attested(facts, launch, run.group))
      streams.close()
      return result
    }
    let pump = request.orders.map { orders in
      // Ends with its orders, or below.
      Task { for await order in orders { command.feed.yield(.order(order)) } }
    }
    defer { pump?.cancel() }
    let result = await withTaskCancellationHandler {
      await work.value
    } onCancel: {
      command.feed.yield(.cancelled)
    }
    return try result.get()
  }

  private static func plan(_ request: ExecRequest, _ launch: Launch) throws(HostFailure) -> ExecPlan {
    let words = request.command + request.environment.flatMap { [$0.name, $0.value] } + [request.workingFolder ?? ""]
    guard let program = request.command.first, !program.isEmpty else {
      throw HostFailure(.refused, "no command was given")
    }
    guard words.allSatisfy({ !$0.utf8.contains(0) }) else {
      throw HostFailure(.refused, "a command and its variables hold no zero bytes")
    }
    guard words.reduce(0, { $0 + $1.utf8.count + 1 }) <= ExecRequest.maximumBytes else {
      throw HostFailure(
        .refused, "the command and its variables are longer than \(ExecRequest.maximumBytes >> 10) KiB")
    }
    var plan = ExecPlan()
    plan.arguments = request.command
    plan.environment = request.environment.map { "\($0.name)=\($0.value)" }
    plan.workingFolder = request.workingFolder ?? ""
    plan.ids = try ids(request.user, launch)
    if case .connect(_, let terminal, _) = request.streams {
      plan.terminal = terminal != nil
      plan.outlivesDaemon = true
    }
    plan.deadline = request.timeout.map { Clock.monotonic() + max(1_000_000, $0.wholeNanoseconds) } ?? 0
    return plan
  }

  /// Only ids the app has itself: in its user namespace there are no others, and without one the host's are not given away.
  private static func ids(_ user: ExecUser?, _ launch: Launch) throws(HostFailure) -> ExecPlan.IDs? {
    guard let user else { return nil }
    let identity: LaunchPlan.Identity
    do throws(PlanProblem) { identity = try LaunchPlan.identity(of: launch) } catch {
      throw HostFailure(.failed, error.description)
    }
    guard identity.has(uid: user.uid, gid: user.gid) else {
      let own = Set(identity.uidMap.map(\.inside) + [identity.uid])
      throw HostFailure(
        .refused, "\(launch.policy.id) has no user \(user.uid):\(user.gid)",
        hint: launch.policy.image == nil
          ? "its own are \(own.sorted().map(String.init).joined(separator: ", "))" : "its own lie below 65536")
    }
    return ExecPlan.IDs(uid: user.uid, gid: user.gid)
  }

  /// Whom its streams belong to on the host, so that it can open them again by name (`/dev/stdout`); nil: an ordinary user can
  /// give nothing away, so they stay the user's.
  private static func owner(_ plan: ExecPlan, _ launch: Launch) -> (uid: UInt32, gid: UInt32)? {
    guard !OrdinaryUser.isOurs else { return nil }
    guard let identity = try? LaunchPlan.identity(of: launch) else { return (0, 0) }
    let (uid, gid) = (plan.ids?.uid ?? identity.uid, plan.ids?.gid ?? identity.gid)
    return identity.namespaces.contains(.user) ? (launch.hostID(uid), launch.hostID(gid)) : (uid, gid)
  }

  /// What a prepared command is compared with.
  private struct Attested {
    var facts: RunningFacts
    var launch: Launch
    var group: AppCgroup
    init(_ facts: RunningFacts, _ launch: Launch, _ group: AppCgroup) {
      self.facts = facts
      self.launch = launch
      self.group = group
    }
  }

  private func follow(
    _ command: NativeCommand, _ streams: NativeStreams, _ request: ExecRequest, _ app: Attested
  ) async -> Result<ExecEnd, HostFailure> {
    var refusal: HostFailure?
    func hangUp(_ failure: HostFailure? = nil) {
      refusal = refusal ?? failure
      streams.hangUp()
      command.hangUp(loop)
    }
    if let timeout = request.timeout {
      // The shim kills it; this is for one that cannot be killed now.
      loop.schedule(after: timeout + .seconds(2)) { command.feed.yield(.givenUp) }
    }
    for await turn in command.turns {
      switch turn {
      case .told(.prepared(let pid)):
        if let wrong = Self.broken(pid, request.user, app) {
          hangUp(HostFailure(.refused, "the command was killed before it ran: \(wrong)"))
          continue
        }
        do throws(HostFailure) { try await streams.handOver() } catch {
          hangUp(error)
          continue
        }
        command.isPrepared = true
        if refusal == nil, !command.isHungUp { command.go() }
      case .told(.running): break
      case .told(.ended(let ending)):
        if let refusal { return .failure(refusal) }
        var end = ExecEnd(Self.cause(ending))
        streams.finish(&end)
        return .success(end)
      case .told(.failed(let step, let reason, let code)):
        return .failure(refusal ?? Self.failure(app.launch.policy.id, request, step, reason, code))
      case .told(nil):
        if let refusal { return .failure(refusal) }
        var end = ExecEnd(.lost("\(app.launch.policy.id) ended"))
        streams.finish(&end)
        return .success(end)
      case .order(.resize(let size)): streams.resize(size)
      case .order(.signal(let number)): command.signal(number)
      case .cancelled: hangUp(HostFailure(.failed, "the command was hung up on"))
      case .givenUp:
        if let refusal { return .failure(refusal) }
        var end = ExecEnd(.timedOut)
        streams.finish(&end)
        return .success(end)
      }
    }
    return .failure(HostFailure(.failed, "the command was forgotten"))
  }

  /// What of the app's sandbox the kernel does not show in force for a command that waits to run.
  private static func broken(_ pid: Int32, _ user: ExecUser?, _ app: Attested) -> String? {
    let reports = Attestation.check(command: pid, user, app.facts, app.launch, app.group)
    guard !reports.isEmpty else { return "it ended too early to be looked at" }
    return reports.first { $0.status == .missing }.map {
      "the kernel does not show \($0.name) in force: \($0.note ?? "missing")"
    }
  }

  private static func cause(_ ending: ExecState.Ending) -> ExecEnd.Cause {
    switch ending {
    case .code(let code): .code(code)
    case .signal(let number): .signal(number)
    case .timedOut: .timedOut
    }
  }

  private static func failure(
    _ app: AppID, _ request: ExecRequest, _ step: String, _ reason: String, _ code: Int32
  ) -> HostFailure {
    let program = request.command.first ?? ""
    switch (step, code) {
    case ("exec", ENOENT):
      return HostFailure(
        .missing, "\(program) is not in \(app)",
        hint: "or its interpreter or loader is not; the app's own PATH is looked through")
    case ("exec", EACCES): return HostFailure(.refused, "\(program) may not be executed in \(app)")
    case ("exec", _): return HostFailure(.refused, "\(program) cannot be executed in \(app): \(reason)")
    case ("working_dir", _): return HostFailure(.refused, "the working folder cannot be entered in \(app): \(reason)")
    case ("request", ESRCH): return HostFailure(.conflict, "\(app) is not running")
    case ("fork", EAGAIN), ("clone", EAGAIN):
      return HostFailure(
        .failed, "no process can be added to \(app): \(reason)", hint: "it is at its pids_limit")
    default: return HostFailure(.failed, "the command could not be run in \(app): \(step): \(reason)")
    }
  }
}

/// One command on its way, on the host's event loop.
final class NativeCommand: @unchecked Sendable {
  // SAFETY: `id` and the flags are touched on the host's loop only; `feed` may be used from anywhere.

  enum Turn: Sendable {
    case told(ExecState?)
    case order(ExecOrder)
    case cancelled
    /// It should be long gone.
    case givenUp
  }

  let turns: AsyncStream<Turn>
  let feed: AsyncStream<Turn>.Continuation
  private let connection: ShimConnection
  private var id: UInt32 = 0
  var isPrepared = false
  private(set) var isHungUp = false

  init(_ connection: ShimConnection) {
    self.connection = connection
    (turns, feed) = AsyncStream.makeStream(of: Turn.self)
  }

  func begin(_ descriptors: [SharedDescriptor]) throws(SystemFault) {
    let feed = feed
    id = try connection.exec(descriptors) { feed.yield(.told($0)) } ?? 0
    if id == 0 { feed.yield(.told(nil)) }
  }

  func go() { _ = connection.send(.execGo(id: id)) }

  func signal(_ number: Int32) { _ = connection.send(.execSignal(id: id, number)) }

  /// As when a terminal goes away: asked to end, killed a second later, given up on after three.
  func hangUp(_ loop: EventLoop) {
    guard !isHungUp else { return }
    isHungUp = true
    signal(isPrepared ? SIGHUP : SIGKILL)
    loop.schedule(after: .seconds(1)) { self.signal(SIGKILL) }
    loop.schedule(after: .seconds(3)) { self.feed.yield(.givenUp) }
  }
}

/// A native command's streams, on the host's event loop.
final class NativeStreams: @unchecked Sendable {
  // SAFETY: touched on the host's loop only.

  /// Standard input, output and error of the command, until they are handed to the shim.
  var theirs: [SharedDescriptor]
  private var ends: DescriptorEnds?
  private var terminal: SharedDescriptor?
  private var connect: (@Sendable (any StreamEnds) async throws(HostFailure) -> Void)?
  private var kept: (pipe: SharedDescriptor, tail: TailBytes)?
  private let loop: EventLoop

  init(_ streams: ExecStreams, owner: (uid: UInt32, gid: UInt32)?, on loop: EventLoop) throws(HostFailure) {
    self.loop = loop
    theirs = []
    do throws(SystemFault) {
      switch streams {
      case .keep(let most):
        let (reading, writing) = try Self.pipe(owner)
        theirs = [SharedDescriptor(try Place.null()), writing, writing]
        kept = (reading, TailBytes(most))
        try reading.withRaw { (raw) throws(SystemFault) in
          try loop.watch(raw, .read) { [unowned self] _ in drain(most: 1 << 18) }
        }
      case .connect(let input, let size?, let connect):
        let pair = try PseudoTerminal(size, owner: owner)
        theirs = [pair.slave, pair.slave, pair.slave]
        terminal = pair.master
        ends = DescriptorEnds(input: input ? pair.master : nil, output: pair.master, errors: nil)
        self.connect = connect
      case .connect(let input, nil, let connect):
        let (readOutput, writeOutput) = try Self.pipe(owner)
        let (readErrors, writeErrors) = try Self.pipe(owner)
        var reading = SharedDescriptor(try Place.null())
        var writing: SharedDescriptor?
        if input {
          let given = try Self.pipe(owner)
          (reading, writing) = (given.reading, given.writing)
        }
        theirs = [reading, writeOutput, writeErrors]
        ends = DescriptorEnds(input: writing, output: readOutput, errors: readErrors)
        self.connect = connect
      }
    } catch { throw HostFailure(.failed, "the command's streams could not be made: \(error)") }
  }

  /// Belongs to the command's user, who may else not open it again by its descriptor's name.
  private static func pipe(_ owner: (uid: UInt32, gid: UInt32)?) throws(SystemFault) -> (
    reading: SharedDescriptor, writing: SharedDescriptor
  ) {
    var pipe = try Pipe(nonBlockingRead: false)
    guard let reading = pipe.reading.take(), let writing = pipe.writing.take() else {
      throw SystemFault(call: "pipe", subject: "", code: EBADF)
    }
    let ends = (SharedDescriptor(reading), SharedDescriptor(writing))
    try ends.1.withRaw { (raw) throws(SystemFault) in
      guard let owner else { return }
      _ = try check("fchown", "pipe") { fchown(raw, owner.uid, owner.gid) }
    }
    return ends
  }

  /// Gives the caller its ends; ours are let go of, so that it sees what becomes of the command's.
  func handOver() async throws(HostFailure) {
    guard let connect, let ends else { return }
    self.connect = nil
    self.ends = nil
    try await connect(ends)
  }

  func resize(_ size: TerminalSize) {
    // Best effort: a terminal whose program has ended has no size.
    if let terminal { try? PseudoTerminal.setSize(terminal, size) }
  }

  /// A terminal that nobody else holds hangs up on its programs.
  func hangUp() {
    terminal = nil
    ends = nil
  }

  /// What was kept, with what still waits in the pipe. Not until its end: a process left behind may hold it open.
  func finish(_ end: inout ExecEnd) {
    drain(most: 1 << 22)
    end.output = kept?.tail.bytes ?? []
    end.dropped = kept?.tail.dropped ?? 0
  }

  func close() {
    kept?.pipe.withRaw { loop.unwatch($0) }
    kept = nil
    theirs = []
    hangUp()
  }

  private func drain(most: Int) {
    guard let pipe = kept?.pipe else { return }
    pipe.withRaw { raw in
      var left = min(most, max(1, Pipe.waiting(raw)))
      while left > 0 {
        var got = 0
        let bytes = [UInt8](unsafeUninitializedCapacity: 65536) { room, count in
          // Never waits: only what is there is asked for, and 0 at the end.
          got = Pipe.waiting(raw) > 0 ? read(raw, room.baseAddress, room.count) : 0
          count = max(0, got)
        }
        guard got > 0 else { break }
        kept?.tail.add(bytes)
        left -= got
      }
      // At the end nothing more comes, and epoll would say so for ever.
      if Pipe.waiting(raw) == 0, Self.isEnded(raw) { loop.unwatch(raw) }
    }
  }

  private static func isEnded(_ raw: Int32) -> Bool {
    var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
    return poll(&wait, 1, 0) > 0 && wait.revents & Int16(POLLHUP) != 0
  }
}
