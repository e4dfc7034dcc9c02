internal import EngineAPI
internal import Linux
package import Model
internal import Synchronization

extension ContainerHost {
  /// How many chunks go to the disk at once.
  private static let batch = 512

  /// Takes over what a container wrote, before it is removed.
  func drain(_ instance: Instance, _ limits: Policy.LogLimits, _ engine: Engine, terminal: Bool) async {
    let log = DrainedLog(settings.layout.appLog(instance.app), limits)
    var chunks: [LogChunk] = []
    do {
      let output = try await engine.containerLogs(instance.handle, LogsQuery(timestamps: true), terminal: terminal)
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
    let pipe = LogPipe()
    // Ends when it has sent all, or when the reader is gone.
    let task = Task {
      do {
        try await self.send(app, instance, query) { try await pipe.put($0) }
        await pipe.end(nil)
      } catch {
        await pipe.end(error)
      }
    }
    let reader = Reader(task)
    return AsyncThrowingStream {
      try await withTaskCancellationHandler {
        try await pipe.take()
      } onCancel: {
        reader.cancel()
      }
    }
  }

  /// Lives as long as the stream does.
  private final class Reader: Sendable {
    private let task: Task<Void, Never>
    init(_ task: Task<Void, Never>) { self.task = task }
    func cancel() { task.cancel() }
    deinit { task.cancel() }
  }

  private func send(
    _ app: AppID, _ instance: Instance?, _ query: LogQuery, _ yield: @Sendable (LogChunk) async throws -> Void
  ) async throws {
    let log = DrainedLog(settings.layout.appLog(app), Policy.LogLimits())
    guard let instance, query.run == nil || query.run == instance.generation else {
      return try await sendDrained(log, query, tail: query.tail, yield)
    }
    let engine = try await link.engine()
    var wanted = LogsQuery(follow: query.follow, tail: nil, since: query.since, timestamps: true)
    wanted.until = query.until
    guard let tail = query.tail else {
      if query.run == nil { try await sendDrained(log, query, tail: nil, yield) }
      return try await sendKept(instance, wanted, query, engine, yield)
    }
    try await sendLast(tail, instance, wanted, query, engine, log, yield)
  }

  /// The last lines of this run, with what it lacks from older ones before it, and then what follows.
  private func sendLast(
    _ tail: Int, _ instance: Instance, _ wanted: LogsQuery, _ query: LogQuery, _ engine: Engine, _ log: DrainedLog,
    _ yield: @Sendable (LogChunk) async throws -> Void
  ) async throws {
    var snapshot = wanted
    snapshot.follow = false
    // Engines count an unfinished last line differently: one more is asked for, and counted here.
    let trusts = engine.differences.tailIsExact
    snapshot.tail = trusts ? tail + 1 : nil
    let gathered = Mutex((last: LastLines(tail), bytes: 0))
    if tail > 0 || !trusts {
      try await sendKept(instance, snapshot, query, engine) { chunk in
        gathered.withLock {
          $0.last.add(chunk)
          $0.bytes += chunk.bytes.count
        }
      }
    }
    let (last, seen) = gathered.withLock { $0 }
    try await sendDrained(log, query, tail: tail - last.lines, yield)
    var following = wanted
    if query.follow, trusts {
      following.tail = tail
      return try await sendKept(instance, following, query, engine, yield)
    }
    for chunk in last.chunks { try await yield(chunk) }
    guard query.follow else { return }
    // From the beginning again, without what was there: its times are too coarse to go on by.
    let toSkip = Mutex(seen)
    try await sendKept(instance, following, query, engine) { chunk in
      var rest = chunk
      toSkip.withLock { left in
        let skipped = min(left, rest.bytes.count)
        left -= skipped
        rest.bytes.removeFirst(skipped)
      }
      if !rest.bytes.isEmpty { try await yield(rest) }
    }
  }

  /// What the engine keeps of one container.
  private func sendKept(
    _ instance: Instance, _ wanted: LogsQuery, _ query: LogQuery, _ engine: Engine,
    _ yield: @Sendable (LogChunk) async throws -> Void
  ) async throws {
    let terminal = await register.entry(instance.handle)?.launch.policy.terminal ?? false
    for try await piece in try await engine.containerLogs(instance.handle, wanted, terminal: terminal) {
      let chunk = Self.chunk(piece)
      // An engine reads some bounds as "none", and podman tells whole seconds.
      let isOld = query.since.map { chunk.time.since($0) < .seconds(-1) } ?? false
      if isOld || query.until.map({ chunk.time > $0 }) ?? false { continue }
      try await yield(chunk)
    }
  }

  /// What ended instances wrote; with `tail` only the last so many lines, for which it is read through once before.
  private func sendDrained(
    _ log: DrainedLog, _ query: LogQuery, tail: Int?, _ yield: @Sendable (LogChunk) async throws -> Void
  ) async throws {
    if let tail, tail <= 0 { return }
    var last = LastLines(tail ?? 0)
    var position: DrainedLog.Position?
    repeat {
      try Task.checkCancellation()
      let (chunks, next) = try await files.read(log, query, from: position)
      position = next
      for chunk in chunks {
        if tail == nil { try await yield(chunk) } else { last.add(chunk) }
      }
    } while position != nil
    for chunk in last.chunks { try await yield(chunk) }
  }
}

/// Output on its way from an engine to one reader. Holds little: an app that writes faster than its reader reads waits in the
/// engine, and costs this daemon nothing.
actor LogPipe {
  private static let most = 1 << 20
  private var chunks: [LogChunk] = []
  private var next = 0
  private var held = 0
  private var isOver = false
  private var failure: (any Error)?
  private var taker: CheckedContinuation<Void, Never>?
  private var putter: CheckedContinuation<Void, Never>?

  /// For one writer. Waits while the reader is slow; throws once the writer's task is cancelled.
  func put(_ chunk: LogChunk) async throws {
    while held >= Self.most, !Task.isCancelled {
      await withTaskCancellationHandler {
        await withCheckedContinuation { putter = $0 }
      } onCancel: {
        Task { await self.wakePutter() }
      }
    }
    try Task.checkCancellation()
    chunks.append(chunk)
    held += chunk.bytes.count + 128
    wakeTaker()
  }

  func end(_ error: (any Error)?) {
    isOver = true
    failure = error
    wakeTaker()
  }

  /// For one reader.
  func take() async throws -> LogChunk? {
    while next == chunks.count {
      if isOver {
        if let failure { throw failure }
        return nil
      }
      await withCheckedContinuation { taker = $0 }
    }
    let chunk = chunks[next]
    next += 1
    if next == chunks.count { (chunks, next) = ([], 0) }
    held -= chunk.bytes.count + 128
    wakePutter()
    return chunk
  }

  private func wakeTaker() {
    taker?.resume()
    taker = nil
  }

  private func wakePutter() {
    putter?.resume()
    putter = nil
  }
}

/// The last so many lines of output that comes in pieces; a last line without its end counts as one.
struct LastLines {
  private let wanted: Int
  private(set) var chunks: [LogChunk] = []
  private var ends = 0

  init(_ wanted: Int) { self.wanted = max(0, wanted) }

  var lines: Int { ends + (chunks.last.map { $0.bytes.last != 10 } ?? false ? 1 : 0) }

  mutating func add(_ chunk: LogChunk) {
    guard wanted > 0, !chunk.bytes.isEmpty else { return }
    chunks.append(chunk)
    ends += chunk.bytes.count { $0 == 10 }
    while lines > wanted, let first = chunks.first {
      let here = first.bytes.count { $0 == 10 }
      // Its rest, after its last line end, belongs to the next line.
      let surplus = lines - here - wanted
      if chunks.count > 1, surplus > 0 || (surplus == 0 && first.bytes.last == 10) {
        chunks.removeFirst()
        ends -= here
        continue
      }
      // Some of its lines are among the last: the others go.
      guard let end = first.bytes.firstIndex(of: 10) else { return }
      chunks[0].bytes = Array(first.bytes[(end + 1)...])
      ends -= 1
      if chunks[0].bytes.isEmpty { chunks.removeFirst() }
    }
  }
}
