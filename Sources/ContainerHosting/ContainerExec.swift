internal import Cgroups
internal import EngineAPI
internal import Glibc
internal import Linux
package import Model
internal import Sandboxing
internal import Synchronization

extension ContainerHost {
  /// By the engine's exec. It starts a command at once, so this is looked at just after; what is not as the app's own first process
  /// is killed then. An engine cannot end an exec: the process is signalled by us, once the kernel shows it in the app's group.
  package func exec(_ instance: Instance, _ launch: Launch, _ request: ExecRequest) async throws(HostFailure)
    -> ExecEnd
  {
    let engine = try await link.engine()
    guard let entry = await register.entry(instance.handle), entry.stage == .running else {
      throw HostFailure(.conflict, "\(instance.app) is not running")
    }
    guard !entry.paused else {
      throw HostFailure(
        .conflict, "\(instance.app) is paused", hint: "`supervisor unpause \(instance.app)` lets it go on")
    }
    let recipe = try await recipe(launch, engine, networks.names(launch.policy).first)
    let spec = try spec(request, recipe)
    let id: String
    do throws(EngineFailure) { id = try await engine.createExec(in: instance.handle, spec) } catch {
      if case .conflict = error { throw HostFailure(.conflict, "\(instance.app) is not running") }
      throw HostFailure(error)
    }
    let command = ContainerCommand(
      id: id, request: request, engine: engine, recipe: recipe, group: cgroup(instance, recipe.facts),
      others: AppCgroup.monitors(settings.hierarchy, parent: settings.layout.cgroupParent), loop: loop)
    return try await command.run(terminal: spec.terminal)
  }

  private func spec(_ request: ExecRequest, _ recipe: Recipe) throws(HostFailure) -> ExecSpec {
    guard let program = request.command.first, !program.isEmpty else {
      throw HostFailure(.refused, "no command was given")
    }
    let size = request.command.reduce(0) { $0 + $1.utf8.count + 1 }
    guard
      request.environment.reduce(size, { $0 + $1.name.utf8.count + $1.value.utf8.count + 2 })
        <= ExecRequest.maximumBytes
    else {
      throw HostFailure(
        .refused, "the command and its variables are longer than \(ExecRequest.maximumBytes >> 10) KiB")
    }
    var spec = ExecSpec(request.command)
    spec.environment = request.environment
    spec.workingDirectory = request.workingFolder
    if let user = request.user { spec.user = try text(user, recipe) }
    if case .connect(let input, let terminal, _) = request.streams {
      spec.input = input
      spec.terminal = terminal != nil
    }
    return spec
  }

  /// In a container an id is the host's: only the app's own block, and what its policy names, is the app's.
  private func text(_ user: ExecUser, _ recipe: Recipe) throws(HostFailure) -> String {
    let launch = recipe.launch
    // Without root there is no block for each, but one id.
    let own =
      recipe.facts.isRootless
      ? recipe.uidBase + 1000..<recipe.uidBase + 1001 : recipe.uidBase..<(recipe.uidBase + 65_536)
    var given: UInt32?
    if case .given(let uid, _) = launch.policy.user { given = uid }
    let isAllowed = settings.unsafeHostUIDs.contains(launch.policy.id)
    guard isAllowed || ((own.contains(user.uid) || user.uid == given) && (own.contains(user.gid) || user.gid == given))
    else {
      throw HostFailure(
        .refused, "in a container \(user.uid):\(user.gid) is a user of the host, not one of \(launch.policy.id)'s",
        hint: "its own are \(own.lowerBound) to \(own.upperBound - 1); `unsafe_host_uids` in config.yaml allows others")
    }
    return "\(user.uid):\(user.gid)"
  }
}

/// One command in a container, from its start to its end.
private struct ContainerCommand: Sendable {
  let id: String
  let request: ExecRequest
  let engine: Engine
  let recipe: Recipe
  let group: AppCgroup
  /// Where what an engine leaves of a command may go on.
  let others: AppCgroup
  let loop: EventLoop

  enum Turn: Sendable {
    /// The engine is asked how it ended, so many times already.
    case outputEnded(looked: Int)
    case order(ExecOrder)
    case hangUp(HostFailure)
    case timeOver
    case kill
    case givenUp
  }

  func run(terminal: Bool) async throws(HostFailure) -> ExecEnd {
    let streams = try ContainerStreams(request.streams, on: loop)
    // Before its first instruction, so that nobody misses any of it.
    try await streams.handOver()
    let (turns, feed) = AsyncStream.makeStream(of: Turn.self)
    // Cancellation is a request like others, which this task lives to carry out.
    let work = Task {
      let result = await follow(turns, feed, streams, terminal)
      await streams.close()
      if engine.differences.leavesExecMonitors { moveMonitor() }
      return result
    }
    let pump = request.orders.map { orders in
      // Ends with its orders, or below.
      Task { for await order in orders { feed.yield(.order(order)) } }
    }
    defer { pump?.cancel() }
    let result = await withTaskCancellationHandler {
      await work.value
    } onCancel: {
      feed.yield(.hangUp(HostFailure(.failed, "the command was hung up on")))
    }
    return try result.get()
  }

  private func follow(
    _ turns: AsyncStream<Turn>, _ feed: AsyncStream<Turn>.Continuation, _ streams: ContainerStreams, _ terminal: Bool
  ) async -> Result<ExecEnd, HostFailure> {
    let conversation: Conversation
    do throws(EngineFailure) { conversation = try await engine.startExec(id, terminal: terminal) } catch {
      return .failure(Self.failure(request, "\(error)", HostFailure(error)))
    }
    if case .connect(_, let size?, _) = request.streams { await resize(size) }
    let pumps: [Task<Void, Never>] = [
      Task {
        await streams.copyOutput(conversation)
        feed.yield(.outputEnded(looked: 0))
      },
      Task { await streams.copyInput(conversation) },
      Task { if let wrong = await broken() { feed.yield(.hangUp(wrong)) } },
    ]
    let timer = request.timeout.map { timeout in
      Task {
        // Cancelled below.
        do { try await Task.sleep(for: timeout) } catch { return }
        feed.yield(.timeOver)
      }
    }
    defer {
      for pump in pumps { pump.cancel() }
      timer?.cancel()
      conversation.close()
    }
    var refusal: HostFailure?
    var isLate = false
    for await turn in turns {
      switch turn {
      case .order(.resize(let size)): await resize(size)
      case .order(.signal(let number)): await signal(number)
      case .hangUp(let failure) where refusal == nil && !isLate:
        refusal = failure
        await streams.hangUp()
        await signal(SIGHUP)
        after(.seconds(1), .kill, feed)
        after(.seconds(3), .givenUp, feed)
      case .hangUp: break
      case .timeOver:
        isLate = true
        await signal(SIGKILL)
        after(.seconds(2), .givenUp, feed)
      case .kill: await signal(SIGKILL)
      case .outputEnded(let looked):
        if let end = await end(streams) {
          if let refusal { return .failure(refusal) }
          return isLate ? .success(await streams.finish(ExecEnd(.timedOut))) : end
        }
        // The engine knows a moment later; or it closed its output and goes on, and is looked at ever more rarely.
        after(.milliseconds(min(500, 2 << min(looked, 8))), .outputEnded(looked: looked + 1), feed)
      case .givenUp:
        if let refusal { return .failure(refusal) }
        return .success(await streams.finish(ExecEnd(.timedOut)))
      }
    }
    return .failure(HostFailure(.failed, "the command was forgotten"))
  }

  private func after(_ delay: Duration, _ turn: Turn, _ feed: AsyncStream<Turn>.Continuation) {
    loop.submit { [loop] in loop.schedule(after: delay) { feed.yield(turn) } }
  }

  /// How it ended; nil: it has not, as far as the engine knows.
  private func end(_ streams: ContainerStreams) async -> Result<ExecEnd, HostFailure>? {
    let details: ExecDetails
    do throws(EngineFailure) { details = try await engine.inspectExec(id) } catch {
      if case .notFound = error { return .success(await streams.finish(ExecEnd(.lost("the container is gone")))) }
      return .failure(HostFailure(error))
    }
    guard let code = details.exitCode else { return nil }
    if [126, 127].contains(code), let said = await streams.complaint {
      return .failure(Self.failure(request, said, nil))
    }
    await streams.releaseComplaint()
    return .success(await streams.finish(ExecEnd(.code(Int32(truncatingIfNeeded: code)))))
  }

  /// Ends by itself, within a second.
  private func moveMonitor() {
    Task {
      for _ in 0..<50 {
        if ExecMonitor.move(exec: id, from: group, to: others) { return }
        try? await Task.sleep(for: .milliseconds(20))
      }
    }
  }

  private func resize(_ size: TerminalSize) async {
    // Best effort: one that has ended has no size.
    try? await engine.resizeExec(id, columns: Int(size.columns), rows: Int(size.rows))
  }

  /// To its process group. The number is the engine's word; that it is one of the app's is the kernel's.
  private func signal(_ number: Int32) async {
    guard let details = try? await engine.inspectExec(id), details.running, details.pid > 0,
      let process = try? Pidfd(of: details.pid), let facts = ProcessFacts(details.pid), isInside(facts)
    else { return }
    // Best effort: ESRCH is what is wanted.
    try? process.sendToGroup(number)
  }

  private func isInside(_ facts: ProcessFacts) -> Bool {
    facts.cgroups.values.contains { $0.hasPrefix(group.path + "/") || $0 == group.path }
  }

  /// What the kernel shows of it that is not as the app's own; nil: nothing, or it has ended already.
  private func broken() async -> HostFailure? {
    for _ in 0..<200 {
      guard let details = try? await engine.inspectExec(id), details.running else { return nil }
      if details.pid > 0, let facts = ProcessFacts(details.pid), !facts.name.hasPrefix("runc"),
        !facts.name.hasPrefix("crun"), !facts.name.hasPrefix("conmon")
      {
        let allowed = ProcessFacts.mask(recipe.launch.policy.effectiveCapabilities)
        let held = facts.effective | facts.permitted | facts.bounding | facts.inheritable | facts.ambient
        var wrong: String?
        if !isInside(facts) { wrong = "it is not in the app's group" }
        if held & ~allowed != 0 { wrong = "it has capabilities the app has not" }
        if recipe.isFiltered, facts.seccomp != 2 { wrong = "it has no system call filter" }
        if !recipe.launch.policy.securityOptions.contains(where: {
          $0.hasPrefix("no-new-privileges") && $0.hasSuffix("false")
        }),
          !facts.noNewPrivileges
        {
          wrong = "it could gain privileges"
        }
        return wrong.map { HostFailure(.refused, "the command was killed: \($0)") }
      }
      try? await Task.sleep(for: .milliseconds(2))
      if Task.isCancelled { return nil }
    }
    return nil
  }

  /// The runtime's words for a program it could not run.
  private static func failure(_ request: ExecRequest, _ said: String, _ otherwise: HostFailure?) -> HostFailure {
    let program = request.command.first ?? ""
    func says(_ words: String) -> Bool {
      let all = Array(said.lowercased().utf8)
      let part = Array(words.utf8)
      return all.count >= part.count && (0...all.count - part.count).contains { all[$0...].starts(with: part) }
    }
    if says("chdir") || says("cwd") {
      return HostFailure(.refused, "the working folder cannot be entered: \(reason(said))")
    }
    if says("not found") || says("no such file") {
      return HostFailure(.missing, "\(program) is not in the container", hint: "or its interpreter or loader is not")
    }
    if says("permission denied") { return HostFailure(.refused, "\(program) may not be executed in the container") }
    return otherwise ?? HostFailure(.refused, "\(program) cannot be executed in the container: \(reason(said))")
  }

  private static func reason(_ said: String) -> String {
    String(said.split(whereSeparator: \.isNewline).first?.prefix(300) ?? "")
  }
}

/// A container command's streams: between the engine's connection and the caller's ends.
private actor ContainerStreams {
  private var connect: (@Sendable (any StreamEnds) async throws(HostFailure) -> Void)?
  private var ends: DescriptorEnds?
  private var input: LoopStream?
  private var output: LoopStream?
  private var errors: LoopStream?
  private var kept: TailBytes?
  /// What a runtime wrote that could not run the program, instead of the program; it is not the program's output.
  private(set) var complaint: String?
  private var isFirst = true

  init(_ streams: ExecStreams, on loop: EventLoop) throws(HostFailure) {
    do throws(SystemFault) {
      switch streams {
      case .keep(let most): kept = TailBytes(most)
      case .connect(_, .some, let connect):
        let (ours, theirs) = try UnixSocket.pair()
        let stream = try LoopStream(ours, on: loop)
        (input, output, errors) = (stream, stream, nil)
        ends = DescriptorEnds(input: theirs, output: theirs, errors: nil)
        self.connect = connect
      case .connect(let hasInput, nil, let connect):
        let (readOutput, writeOutput) = try Self.pipe()
        let (readErrors, writeErrors) = try Self.pipe()
        output = try LoopStream(writeOutput, on: loop)
        errors = try LoopStream(writeErrors, on: loop)
        var writing: SharedDescriptor?
        if hasInput {
          let given = try Self.pipe()
          input = try LoopStream(given.0, on: loop)
          writing = given.1
        }
        ends = DescriptorEnds(input: writing, output: readOutput, errors: readErrors)
        self.connect = connect
      }
    } catch { throw HostFailure(.failed, "the command's streams could not be made: \(error)") }
  }

  private static func pipe() throws(SystemFault) -> (SharedDescriptor, SharedDescriptor) {
    var pipe = try Pipe(nonBlockingRead: false)
    guard let reading = pipe.reading.take(), let writing = pipe.writing.take() else {
      throw SystemFault(call: "pipe", subject: "", code: EBADF)
    }
    return (SharedDescriptor(reading), SharedDescriptor(writing))
  }

  func handOver() async throws(HostFailure) {
    guard let connect, let ends else { return }
    self.connect = nil
    self.ends = nil
    try await connect(ends)
  }

  /// Until the command has closed its output, or nobody reads it any more; then the rest is read and dropped.
  func copyOutput(_ conversation: Conversation) async {
    // How it ended is asked afterwards, whatever ended its output.
    do { for try await chunk in conversation.output { await take(chunk) } } catch {}
  }

  private func take(_ chunk: OutputChunk) async {
    if isFirst {
      isFirst = false
      let text = String(decoding: chunk.bytes.prefix(4096), as: UTF8.self)
      if text.hasPrefix("OCI runtime exec failed") || text.hasPrefix("Error: runc: exec failed") {
        complaint = text
        return
      }
    }
    kept?.add(chunk.bytes)
    // Best effort: a reader that left is told by its own pipe, and the command must not wait for it.
    try? await (chunk.stream == .error ? errors ?? output : output)?.write(chunk.bytes)
  }

  /// It was the program's own output after all.
  func releaseComplaint() async {
    guard let text = complaint else { return }
    complaint = nil
    kept?.add(Array(text.utf8))
    try? await output?.write(Array(text.utf8))
  }

  func copyInput(_ conversation: Conversation) async {
    guard let input else { return }
    while let bytes = try? await input.read() {
      do throws(EngineFailure) { try await conversation.write(bytes) } catch { return }
    }
    await conversation.endInput()
  }

  func finish(_ end: ExecEnd) -> ExecEnd {
    var end = end
    end.output = kept?.bytes ?? []
    end.dropped = kept?.dropped ?? 0
    return end
  }

  /// The caller left: nothing waits for it any more.
  func hangUp() async { await close() }

  func close() async {
    await input?.close()
    await output?.close()
    await errors?.close()
    ends = nil
  }
}
