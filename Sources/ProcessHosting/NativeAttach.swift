internal import Glibc
internal import Linux
package import Model
internal import Sandboxing

extension NativeHost {
  /// What the app writes is read from its log, so that nobody's visit can slow it down or lose a byte; what the caller types goes to
  /// the pipe or terminal whose end the shim holds.
  package func attach(_ instance: Instance, _ launch: Launch, _ request: AttachRequest) async throws(HostFailure) {
    guard let run = runs[instance], !run.isEndKnown, let connection = run.connection else {
      throw HostFailure(.conflict, "\(instance.app) is not running")
    }
    guard case .connect(let wantsInput, let size, let connect) = request.streams else { return }
    let policy = launch.policy
    // Generations of an app that was removed and is known again begin anew, and its log may be there still.
    let query = LogQuery(
      follow: true, tail: run.isStarted ? 0 : nil, since: run.isStarted ? nil : Clock.wall(), run: instance.generation)
    var made: VisitorStreams
    let (writer, terminal) = try await ends(connection, policy, wantsInput: wantsInput)
    do throws(SystemFault) {
      made = try VisitorStreams(input: writer != nil, terminal: policy.terminal && size != nil, on: loop)
    } catch { throw HostFailure(.failed, "the streams could not be made: \(error)") }
    if let terminal, let size, run.isStarted { try? PseudoTerminal.setSize(terminal, size) }
    if let ends = made.ends.take() { try await connect(ends) }
    let streams = made
    let pieces = logs(instance.app, instance, query)
    let work = [
      Task {
        await Self.copy(streams.input, to: writer)
        if request.endsInput, !Task.isCancelled { self.endInput(instance) }
      },
      Task { await self.heed(request.orders, instance, terminal) },
    ]
    let output = Task { await Self.copy(pieces, to: streams) }
    await withTaskCancellationHandler {
      await output.value
    } onCancel: {
      output.cancel()
    }
    for task in work { task.cancel() }
    await writer?.close()
    await streams.close()
  }

  /// Where the caller's input goes, and the terminal if there is one. A pipe's end is held by the first alone, whose end is the pipe's.
  private func ends(_ connection: ShimConnection, _ policy: Policy, wantsInput: Bool) async throws(HostFailure) -> (
    writer: LoopStream?, terminal: SharedDescriptor?
  ) {
    guard policy.terminal || policy.opensInput && wantsInput,
      let end = await withCheckedContinuation({ connection.input($0) })
    else { return (nil, nil) }
    do throws(SystemFault) {
      let writer = policy.opensInput && wantsInput ? try LoopStream(end, on: loop) : nil
      return (writer, policy.terminal ? end : nil)
    } catch { throw HostFailure(.failed, "the app's input could not be opened: \(error)") }
  }

  /// Until the run has ended or nobody reads any more.
  private static func copy(_ pieces: AsyncThrowingStream<LogChunk, any Error>, to streams: VisitorStreams) async {
    do {
      for try await piece in pieces {
        try await (piece.stream == .error ? streams.errors ?? streams.output : streams.output).write(piece.bytes)
      }
    } catch {
      // The caller left, or the log cannot be read: either way nothing more is shown.
    }
  }

  /// Until the caller has no more to say. What the app does not read waits, and the caller with it.
  private static func copy(_ input: LoopStream?, to app: LoopStream?) async {
    guard let input, let app else { return }
    do throws(SystemFault) {
      while let bytes = try await input.read() { try await app.write(bytes) }
    } catch {
      // One of the two is gone.
    }
    await app.close()
  }

  /// Once nobody has it open, the app's input has ended.
  private func endInput(_ instance: Instance) { _ = runs[instance]?.connection?.send(.endInput) }

  private func heed(_ orders: AsyncStream<ExecOrder>?, _ instance: Instance, _ terminal: SharedDescriptor?) async {
    guard let orders else { return }
    for await order in orders {
      switch order {
      case .resize(let size): if let terminal { try? PseudoTerminal.setSize(terminal, size) }
      // best effort: one that has ended takes none.
      case .signal(let number): try? await signal(instance, number)
      }
    }
  }
}
