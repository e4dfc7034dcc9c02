internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// Reads one app's log in order, and waits for more if it is followed. Its own event loop does the file work, so a reader never
/// holds up the host, nor the host a reader.
actor LogReader {
  nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  /// Which runs' output is wanted.
  struct Filter: Sendable {
    /// Runs that are left out.
    var besides: Set<UInt64>
    /// The only one that is not.
    var only: UInt64?
    func takes(_ run: UInt64) -> Bool { !besides.contains(run) && (only ?? run) == run }
  }

  private let loop: EventLoop
  private let path: String
  private let filter: Filter
  private let query: LogQuery
  private var files: LogFiles?
  private var watch: SharedWatch?
  private var waiting: CheckedContinuation<Void, Never>?
  private var isOver: Bool
  private var isWoken = false

  /// The watch, in a box: an actor's optional non-copyable cannot be lent.
  private final class SharedWatch: Sendable {
    let watch: FolderWatch
    init(_ watch: consuming FolderWatch) { self.watch = watch }
  }

  /// `isOver`: nothing will be added any more.
  init(_ path: String, _ filter: Filter, _ query: LogQuery, isOver: Bool, on loop: EventLoop) {
    self.path = path
    self.filter = filter
    self.query = query
    self.isOver = isOver || !query.follow
    self.loop = loop
  }

  deinit {
    // A stream may be let go of before its end.
    if let watch { loop.submit { [loop] in watch.watch.withRaw { loop.unwatch($0) } } }
  }

  /// The next piece; nil at the end. One call at a time.
  func next() async throws -> LogChunk? {
    while !Task.isCancelled {
      try open()
      // Looked at before reading: what is written after the last look is followed by another wake.
      let last = isOver
      isWoken = false
      while let record = try files?.next() {
        if let until = query.until, record.time > until.nanoseconds { return finish() }
        if let since = query.since, record.time < since.nanoseconds { continue }
        guard let stream = LogChunk.Stream(rawValue: record.stream.rawValue), filter.takes(record.run) else { continue }
        let bytes = try files?.bytes(of: record) ?? []
        guard !bytes.isEmpty else { continue }
        return LogChunk(time: WallTime(nanoseconds: record.time), stream: stream, bytes: bytes)
      }
      if last { return finish() }
      await wait()
    }
    return finish()
  }

  /// The run that was followed has ended: what is on disk now is all.
  func runEnded() {
    isOver = true
    wake()
  }

  /// Nobody wants more.
  func cancel() {
    isOver = true
    wake()
  }

  private func open() throws {
    guard files == nil else { return }
    if query.follow, watch == nil {
      let watch = SharedWatch(try FolderWatch(path))
      self.watch = watch
      try watch.watch.withRaw { (raw) throws(SystemFault) in
        try loop.watch(raw, .read) { [weak self] _ in
          watch.watch.drain()
          self?.assumeIsolated { $0.wake() }
        }
      }
    }
    guard File.exists(path) else { return }
    files = try LogFiles(path, filter, tail: query.tail, until: query.until)
  }

  private func finish() -> LogChunk? {
    if let watch { watch.watch.withRaw { loop.unwatch($0) } }
    watch = nil
    return nil
  }

  private func wait() async {
    guard !isWoken else { return }
    await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        if Task.isCancelled || isWoken { return continuation.resume() }
        waiting = continuation
      }
    } onCancel: {
      Task { await cancel() }
    }
  }

  private func wake() {
    isWoken = true
    waiting?.resume()
    waiting = nil
  }
}
