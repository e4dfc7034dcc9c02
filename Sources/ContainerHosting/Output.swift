internal import EngineAPI
internal import Linux
package import Model

extension ContainerHost {
  /// How many chunks go to the disk at once.
  private static let batch = 512

  /// Takes over what a container wrote, before it is removed.
  func drain(_ instance: Instance, _ limits: Policy.LogLimits, _ engine: Engine) async {
    let log = DrainedLog(settings.layout.appLog(instance.app), limits)
    var chunks: [LogChunk] = []
    do {
      let output = try await engine.containerLogs(instance.handle, LogsQuery(timestamps: true), terminal: false)
      for try await piece in output {
        chunks.append(Self.chunk(piece))
        if chunks.count < Self.batch { continue }
        try await files.append(chunks, run: instance.generation, to: log)
        chunks.removeAll(keepingCapacity: true)
      }
    } catch {
      // Best effort: a log that cannot be read must not keep a container alive; what came is kept below.
    }
    try? await files.append(chunks, run: instance.generation, to: log)
  }

  private static func chunk(_ piece: OutputChunk) -> LogChunk {
    LogChunk(
      time: piece.time ?? Clock.wall(), stream: piece.stream == .error ? .error : .output, bytes: piece.bytes)
  }

  package func logs(_ app: AppID, _ instance: Instance?, _ query: LogQuery) -> AsyncThrowingStream<LogChunk, any Error>
  {
    AsyncThrowingStream { continuation in
      // Cancelled when the reader goes.
      let task = Task {
        do {
          try await self.send(app, instance, query) { continuation.yield($0) }
          continuation.finish()
        } catch {
          continuation.finish(throwing: error)
        }
      }
      continuation.onTermination = { _ in task.cancel() }
    }
  }

  private func send(
    _ app: AppID, _ instance: Instance?, _ query: LogQuery, _ yield: @Sendable (LogChunk) -> Void
  ) async throws {
    let log = DrainedLog(settings.layout.appLog(app), Policy.LogLimits())
    guard let instance else { return try await sendDrained(log, query, tail: query.tail, yield) }
    let engine = try await link.engine()
    var wanted = LogsQuery(follow: query.follow, tail: query.tail, since: query.since, timestamps: true)
    wanted.until = query.until
    var rest = query.tail
    if let tail = query.tail {
      // Only as many of the older lines as this run has not written itself.
      var snapshot = wanted
      snapshot.follow = false
      var lines = 0
      for try await piece in try await engine.containerLogs(instance.handle, snapshot, terminal: false) {
        lines += piece.bytes.count { $0 == 10 }
      }
      rest = max(0, tail - lines)
    }
    try await sendDrained(log, query, tail: rest, yield)
    for try await piece in try await engine.containerLogs(instance.handle, wanted, terminal: false) {
      let chunk = Self.chunk(piece)
      // An engine reads some bounds as "none".
      if query.since.map({ chunk.time < $0 }) ?? false || query.until.map({ chunk.time > $0 }) ?? false { continue }
      yield(chunk)
    }
  }

  /// What ended instances wrote; with `tail` only the last so many lines, for which it is read through once before.
  private func sendDrained(
    _ log: DrainedLog, _ query: LogQuery, tail: Int?, _ yield: @Sendable (LogChunk) -> Void
  ) async throws {
    if tail == 0 { return }
    var kept: [LogChunk] = []
    var lines = 0
    var position: DrainedLog.Position?
    repeat {
      try Task.checkCancellation()
      let (chunks, next) = try await files.read(log, query, from: position)
      position = next
      guard let tail else {
        for chunk in chunks { yield(chunk) }
        continue
      }
      kept += chunks
      lines += chunks.reduce(0) { $0 + $1.bytes.count { $0 == 10 } }
      var surplus = 0
      while surplus < kept.count, case let here = kept[surplus].bytes.count(where: { $0 == 10 }), lines - here >= tail {
        lines -= here
        surplus += 1
      }
      kept.removeFirst(surplus)
    } while position != nil
    for chunk in kept { yield(chunk) }
  }
}
