internal import Cgroups
internal import EngineAPI
internal import Linux
package import Model

extension ContainerHost {
  /// By the engine's attach.
  package func attach(_ instance: Instance, _ launch: Launch, _ request: AttachRequest) async throws(HostFailure) {
    let engine = try await link.engine()
    let stage = await register.entry(instance.handle)?.stage
    guard stage == .created || stage == .running else {
      throw HostFailure(.conflict, "\(instance.app) is not running")
    }
    guard case .connect(let wantsInput, let size, let connect) = request.streams else { return }
    let policy = launch.policy
    let takesInput = wantsInput && policy.opensInput
    if takesInput, !policy.terminal, !launch.inputOnce, stage == .running, engine.differences.endsInputWithVisitors {
      return try await visit(instance, request, engine)
    }
    let conversation = try await asked { () throws(EngineFailure) in
      try await engine.attachContainer(instance.handle, input: takesInput, terminal: policy.terminal)
    }
    defer { conversation.close() }
    var made = try makeStreams(input: takesInput, terminal: policy.terminal && size != nil)
    if let ends = made.ends.take() { try await connect(ends) }
    let streams = made
    if let size, stage == .running { await resize(instance, size, engine) }
    let work = [
      Task { await Self.copyInput(streams, to: conversation) },
      Task { await self.heed(request.orders, instance, engine) },
    ]
    let output = Task { await Self.copyOutput(conversation, to: streams) }
    await withTaskCancellationHandler {
      await output.value
    } onCancel: {
      output.cancel()
      conversation.close()
    }
    for task in work { task.cancel() }
    await streams.close()
  }

  private func makeStreams(input: Bool, terminal: Bool) throws(HostFailure) -> VisitorStreams {
    do throws(SystemFault) { return try VisitorStreams(input: input, terminal: terminal, on: loop) } catch {
      throw HostFailure(.failed, "the streams could not be made: \(error)")
    }
  }

  /// Past the engine, which would end the input with its second visitor: output from the log, input into the pipe that is there.
  private func visit(_ instance: Instance, _ request: AttachRequest, _ engine: Engine) async throws(HostFailure) {
    guard case .connect(_, _, let connect) = request.streams else { return }
    let pipe = try await inputPipe(instance, engine)
    var made = try makeStreams(input: true, terminal: false)
    if let ends = made.ends.take() { try await connect(ends) }
    let streams = made
    let pieces = logs(instance.app, instance, LogQuery(follow: true, tail: 0, run: instance.generation))
    let work = [
      Task { await Self.copyInput(streams, to: pipe) },
      Task { await self.heed(request.orders, instance, engine) },
    ]
    let output = Task { await Self.copyOutput(pieces, to: streams) }
    await withTaskCancellationHandler {
      await output.value
    } onCancel: {
      output.cancel()
    }
    for task in work { task.cancel() }
    await pipe.close()
    await streams.close()
  }

  private static func copyOutput(_ pieces: AsyncThrowingStream<LogChunk, any Error>, to streams: VisitorStreams) async {
    do {
      for try await piece in pieces {
        try await (piece.stream == .error ? streams.errors ?? streams.output : streams.output).write(piece.bytes)
      }
    } catch {
      // The caller left, or the log cannot be read: either way nothing more is shown.
    }
  }

  /// Until it has closed its output, or nobody reads it any more.
  private static func copyOutput(_ conversation: Conversation, to streams: VisitorStreams) async {
    do {
      for try await chunk in conversation.output {
        try await (chunk.stream == .error ? streams.errors ?? streams.output : streams.output).write(chunk.bytes)
      }
    } catch {
      // The caller left, or the engine ended it: either way nothing more is shown.
    }
  }

  /// A writing end of our own of the pipe that the container reads, for an engine that would end it when we leave.
  private func inputPipe(_ instance: Instance, _ engine: Engine) async throws(HostFailure) -> LoopStream {
    let group = cgroup(instance, await link.lastFacts)
    let pid = try await asked { () throws(EngineFailure) in
      try await engine.inspectContainer(instance.handle).state.pid
    }
    guard pid > 0, let facts = ProcessFacts(pid),
      facts.cgroups.values.contains(where: { $0.hasPrefix(group.path + "/") })
    else { throw HostFailure(.conflict, "\(instance.app) is not running") }
    do throws(SystemFault) {
      guard let pipe = try Pipe.writingEnd(ofInputOf: pid) else {
        throw SystemFault(call: "open", subject: "standard input", code: 32)
      }
      return try LoopStream(pipe, on: loop)
    } catch { throw HostFailure(.failed, "the input of \(instance.app) cannot be written to: \(error)") }
  }

  private static func copyInput(_ streams: VisitorStreams, to pipe: LoopStream) async {
    guard let input = streams.input else { return }
    do throws(SystemFault) {
      while let bytes = try await input.read() { try await pipe.write(bytes) }
    } catch {
      // One of the two is gone.
    }
  }

  private static func copyInput(_ streams: VisitorStreams, to conversation: Conversation) async {
    guard let input = streams.input else { return }
    while let bytes = try? await input.read() {
      do throws(EngineFailure) { try await conversation.write(bytes) } catch { return }
    }
    // The engine passes it on where the container was made so.
    await conversation.endInput()
  }

  private func heed(_ orders: AsyncStream<ExecOrder>?, _ instance: Instance, _ engine: Engine) async {
    guard let orders else { return }
    for await order in orders {
      switch order {
      case .resize(let size): await resize(instance, size, engine)
      // best effort: one that has ended takes none.
      case .signal(let number): try? await signal(instance, number)
      }
    }
  }

  private func resize(_ instance: Instance, _ size: TerminalSize, _ engine: Engine) async {
    // Best effort: one that has ended has no size.
    try? await engine.resizeContainer(instance.handle, columns: Int(size.columns), rows: Int(size.rows))
  }
}
