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

/// A place in an app's log files, moving forward.
final class LogFiles {
  private let folder: Folder
  private var number: UInt32 = 0
  private var index: SharedDescriptor?
  private var log: SharedDescriptor?
  /// The next record of the index.
  private var place = 0
  /// Records read ahead of `place`.
  private var buffered: ArraySlice<UInt8> = []
  /// Bytes of the first record to leave out.
  private var skip: UInt32 = 0

  /// Begins at the oldest record, or where the last `tail` lines of what `filter` takes begin.
  init(_ path: String, _ filter: LogReader.Filter, tail: Int?, until: WallTime?) throws(SystemFault) {
    folder = try Folder(opening: path)
    guard let tail else { return }
    try seek(lines: tail, filter, until)
  }

  private static func numbers(_ folder: borrowing Folder) throws(SystemFault) -> [UInt32] {
    try folder.names().compactMap { LogName.number(ofIndex: $0) }.sorted()
  }

  /// False when there is no such pair (any more).
  private func open(_ wanted: UInt32) throws(SystemFault) -> Bool {
    do throws(SystemFault) {
      let newIndex = SharedDescriptor(try folder.open(LogName.index(wanted), O_RDONLY))
      log = SharedDescriptor(try folder.open(LogName.log(wanted), O_RDONLY))
      index = newIndex
    } catch  where error.code == ENOENT { return false }
    number = wanted
    place = 0
    buffered = []
    return true
  }

  /// The next record, nil when there is none yet. `lost` ones are passed over.
  func next() throws(SystemFault) -> LogRecord? {
    while true {
      if buffered.isEmpty { try fill() }
      if buffered.isEmpty {
        guard let following = try Self.numbers(folder).first(where: { $0 > number }) else { return nil }
        // The last record of a file is there before the next file is.
        if index != nil {
          try fill()
          if !buffered.isEmpty { continue }
        }
        guard try open(following) else { continue }
        continue
      }
      let bytes = buffered.prefix(LogRecord.size)
      buffered = buffered.dropFirst(LogRecord.size)
      place += 1
      if var record = LogRecord(bytes: bytes), record.stream != .lost {
        record.offset += UInt64(skip)
        record.length -= skip
        skip = 0
        return record
      }
    }
  }

  private func fill() throws(SystemFault) {
    guard index != nil else { return }
    buffered = try records(from: place, most: 2048)[...]
  }

  /// Whole records only: one that is being written is not there yet.
  private func records(from first: Int, most: Int) throws(SystemFault) -> [UInt8] {
    guard let index else { return [] }
    var bytes = [UInt8](repeating: 0, count: most * LogRecord.size)
    let got = try index.withRaw { (raw) throws(SystemFault) in
      try check("read", "log index") { pread(raw, &bytes, bytes.count, first * LogRecord.size) }
    }
    bytes.removeLast(bytes.count - got / LogRecord.size * LogRecord.size)
    return bytes
  }

  /// What the app wrote; fewer bytes than the record says if the file was cut.
  func bytes(of record: LogRecord) throws(SystemFault) -> [UInt8] {
    // A record never speaks of more than one move; a damaged index must not make us allocate what it likes.
    guard let log, record.length <= 1 << 26 else { return [] }
    var bytes = [UInt8](repeating: 0, count: Int(record.length))
    let got = try log.withRaw { (raw) throws(SystemFault) in
      try check("read", "log") { pread(raw, &bytes, bytes.count, Int(record.offset)) }
    }
    bytes.removeLast(bytes.count - got)
    return bytes
  }

  /// Goes back from the end over as many records as hold the lines, reading no more than those.
  private func seek(lines: Int, _ filter: LogReader.Filter, _ until: WallTime?) throws(SystemFault) {
    if lines <= 0 {
      if let newest = try Self.numbers(folder).last, try open(newest) { place = try length() ?? 0 }
      return
    }
    var missing = lines
    var isLast = true
    for file in try Self.numbers(folder).reversed() {
      guard try open(file), let size = try length() else { continue }
      var first = size
      while first > 0 {
        let from = max(0, first - 512)
        let block = try records(from: from, most: first - from)
        for offset in stride(from: block.count - LogRecord.size, through: 0, by: -LogRecord.size) {
          guard let record = LogRecord(bytes: block[offset..<offset + LogRecord.size]), record.stream != .lost,
            filter.takes(record.run), record.time <= until?.nanoseconds ?? .max
          else { continue }
          let bytes = try bytes(of: record)
          for position in bytes.indices.reversed() where bytes[position] == UInt8(ascii: "\n") {
            // The newline at the very end closes the last line and begins none.
            if isLast, position == bytes.count - 1 {
              isLast = false
              continue
            }
            isLast = false
            missing -= 1
            guard missing <= 0 else { continue }
            place = from + offset / LogRecord.size
            skip = UInt32(position + 1)
            return
          }
          if !bytes.isEmpty { isLast = false }
        }
        first = from
      }
      place = 0
    }
  }

  private func length() throws(SystemFault) -> Int? {
    guard let index else { return nil }
    return try index.withRaw { (raw) throws(SystemFault) in
      Int(try check("lseek", "log index") { lseek(raw, 0, SEEK_END) }) / LogRecord.size
    }
  }
}
