/// An attached container or a running exec: its output, and its input while that is open. Letting go of it and of its output
/// closes the connection.
package struct Conversation: Sendable {
  /// What it writes; one reader. Ends when the process has closed its output.
  package let output: ContainerOutput
  private let id: UInt64
  private let transport: Transport

  init(id: UInt64, output: ContainerOutput, transport: Transport) {
    self.id = id
    self.output = output
    self.transport = transport
  }

  /// Writes to its standard input; returns once the Engine has taken the bytes, so a slow process slows its writer.
  ///
  /// Throws `interrupted` when the process takes no more input. Cancelling the task does not take bytes back.
  package func write(_ bytes: [UInt8]) async throws(EngineFailure) { try await transport.write(id, bytes) }

  /// Closes its standard input (a terminal has no such thing: write Ctrl-D). Output goes on.
  package func endInput() async { await transport.endInput(id) }

  /// Closes the connection; the process is not told more than that. The output's reader gets `cancelled`.
  package func close() { output.cancel() }
}

extension Transport {
  /// Sends a request and takes the connection over once the Engine has agreed (101 or 200).
  func hijack(_ request: Request, terminal: Bool) async throws(EngineFailure) -> Conversation {
    guard let (id, easy) = startConnection(request) else { throw .cancelled }
    let channel = ByteChannel(capacity: limits.buffer) { [weak self] in
      self?.onLoop { $0.hijacked[id]?.resume(on: $0) }
    } onAbandon: { [weak self] in
      self?.onLoop { $0.end(id, .cancelled) }
    }
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation { opener in
        hijacked[id] = Hijacked(id: id, easy: easy, request: request, channel: channel, opener: opener)
      }
    } onCancel: {
      cancelLater(id)
    }
    _ = try result.get()
    let decoder = OutputDecoder(operation: request.operation, raw: terminal, frameLimit: limits.frame)
    return Conversation(id: id, output: ContainerOutput(ByteStream(channel, keeping: self), decoder), transport: self)
  }

  fileprivate func write(_ id: UInt64, _ bytes: [UInt8]) async throws(EngineFailure) {
    guard !bytes.isEmpty else { return }
    let failure: EngineFailure? = await withCheckedContinuation { writer in
      guard let hijacked = hijacked[id] else {
        return writer.resume(returning: EngineFailure.interrupted(operation: "write to the standard input"))
      }
      hijacked.write(bytes, writer, on: self)
    }
    if let failure { throw failure }
  }

  fileprivate func endInput(_ id: UInt64) { hijacked[id]?.endInput(on: self) }
}
