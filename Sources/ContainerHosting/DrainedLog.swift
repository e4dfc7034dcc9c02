internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// What removed containers of an app wrote, in the same pairs of files as a native app's log: bytes in `NNNNNN.log`, records of
/// when and where in `NNNNNN.idx`.
///
/// Only this daemon writes it, when a container is removed. Whole pairs go when there are more than the app may have.
struct DrainedLog: Sendable {
  var path: String
  var maximumSize: Bytes
  var maximumFiles: Int

  /// Between two reads: a pair and a record in it.
  struct Position: Sendable, Equatable {
    var file: UInt32
    var record: Int
  }

  init(_ path: String, _ limits: Policy.LogLimits) {
    self.path = path
    maximumSize = limits.maximumSize
    maximumFiles = max(1, limits.maximumFiles)
  }

  // MARK: Writing

  /// Adds output at the end, and drops the oldest pairs beyond the limit.
  func append(_ chunks: [LogChunk], run: UInt64) throws(SystemFault) {
    guard !chunks.isEmpty else { return }
    let folder = try Folder(making: path, mode: 0o750)
    var number = try Self.numbers(folder).last ?? 1
    var (size, indexSize) = try Self.repair(folder, number)
    var bytes: [UInt8] = []
    var records: [UInt8] = []
    for chunk in chunks where !chunk.bytes.isEmpty {
      // Records count: an app that writes single bytes would else fill the disk with them.
      if size + indexSize + UInt64(bytes.count + records.count) >= maximumSize.count {
        try Self.write(folder, number, bytes, records)
        (bytes, records, size, indexSize) = ([], [], 0, 0)
        number += 1
        try Self.drop(folder, upTo: Int(number) - maximumFiles)
      }
      let stream: LogRecord.Stream = chunk.stream == .output ? .output : .error
      records +=
        LogRecord(
          time: chunk.time.nanoseconds, offset: size + UInt64(bytes.count), run: run,
          length: UInt32(clamping: chunk.bytes.count), stream: stream
        ).bytes
      bytes += chunk.bytes
    }
    try Self.write(folder, number, bytes, records)
  }

  private static func numbers(_ folder: borrowing Folder) throws(SystemFault) -> [UInt32] {
    try folder.names().compactMap { LogName.number(ofIndex: $0) }.sorted()
  }

  /// Cuts off what a crash left half written; returns the lengths of both files.
  private static func repair(_ folder: borrowing Folder, _ number: UInt32) throws(SystemFault) -> (
    log: UInt64, index: UInt64
  ) {
    let records = try readRecords(folder, number)
    let end = records.last.map { $0.stream == .lost ? $0.offset : $0.offset + UInt64($0.length) } ?? 0
    let log = try folder.open(LogName.log(number), O_RDWR | O_CREAT, mode: 0o640)
    let index = try folder.open(LogName.index(number), O_RDWR | O_CREAT, mode: 0o640)
    try log.withRaw { (raw) throws(SystemFault) in
      _ = try check("ftruncate", LogName.log(number)) { ftruncate(raw, off_t(end)) }
    }
    try index.withRaw { (raw) throws(SystemFault) in
      _ = try check("ftruncate", LogName.index(number)) { ftruncate(raw, off_t(records.count * LogRecord.size)) }
    }
    return (end, UInt64(records.count * LogRecord.size))
  }

  /// Bytes first: a record never speaks of bytes that are not there.
  private static func write(_ folder: borrowing Folder, _ number: UInt32, _ bytes: [UInt8], _ records: [UInt8])
    throws(SystemFault)
  {
    for (name, content) in [(LogName.log(number), bytes), (LogName.index(number), records)] {
      let file = try folder.open(name, O_WRONLY | O_CREAT | O_APPEND, mode: 0o640)
      try file.withRaw { (raw) throws(SystemFault) in try writeAll(raw, content[...], name) }
    }
  }

  private static func drop(_ folder: borrowing Folder, upTo last: Int) throws(SystemFault) {
    for number in try numbers(folder) where Int(number) <= last {
      try folder.remove(LogName.log(number))
      try folder.remove(LogName.index(number))
    }
  }

  // MARK: Reading

  private static func readRecords(_ folder: borrowing Folder, _ number: UInt32) throws(SystemFault) -> [LogRecord] {
    let bytes: [UInt8]
    do throws(SystemFault) { bytes = try folder.read(LogName.index(number), limit: 64 << 20) } catch
      where error.code == ENOENT
    {
      return []
    }
    var records: [LogRecord] = []
    for start in stride(from: 0, through: bytes.count - LogRecord.size, by: LogRecord.size) {
      guard let record = LogRecord(bytes: bytes[start..<start + LogRecord.size]) else { break }
      records.append(record)
    }
    return records
  }

  /// Some of the output from `position` (nil: the beginning) on, and where to go on; nil: that was all. `tail` is the caller's.
  func read(_ query: LogQuery, from position: Position?) throws(SystemFault) -> (chunks: [LogChunk], next: Position?) {
    guard File.exists(path) else { return ([], nil) }
    let folder = try Folder(opening: path)
    let files = try Self.numbers(folder).filter { $0 >= position?.file ?? 0 }
    guard let number = files.first else { return ([], nil) }
    let records = try Self.readRecords(folder, number)
    let start = number == position?.file ? position?.record ?? 0 : 0
    let log = try folder.open(LogName.log(number), O_RDONLY)
    var chunks: [LogChunk] = []
    var taken = 0
    var index = start
    while index < records.count, taken < 1 << 20 {
      let record = records[index]
      index += 1
      guard record.stream != .lost, query.since.map({ record.time >= $0.nanoseconds }) ?? true,
        query.until.map({ record.time <= $0.nanoseconds }) ?? true, query.run.map({ record.run == $0 }) ?? true
      else { continue }
      let bytes = try Self.bytes(log, record)
      taken += bytes.count
      chunks.append(
        LogChunk(
          time: WallTime(nanoseconds: record.time), stream: record.stream == .error ? .error : .output, bytes: bytes))
    }
    if index < records.count { return (chunks, Position(file: number, record: index)) }
    return (chunks, files.count > 1 ? Position(file: files[1], record: 0) : nil)
  }

  private static func bytes(_ log: borrowing Descriptor, _ record: LogRecord) throws(SystemFault) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: min(Int(record.length), 1 << 20))
    let got = try log.withRaw { (raw) throws(SystemFault) in
      try check("pread", "log") {
        bytes.withUnsafeMutableBytes { pread(raw, $0.baseAddress, $0.count, off_t(record.offset)) }
      }
    }
    bytes.removeSubrange(got...)
    return bytes
  }
}
