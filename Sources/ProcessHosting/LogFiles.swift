internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// A place in an app's log files, moving forward. Each file is one run's to write; where two runs go on beside each other, so do
/// their files.
final class LogFiles {
  /// One pair of files, read up to `place`.
  private struct Pair {
    let number: UInt32
    let index: SharedDescriptor
    let log: SharedDescriptor
    /// The next record of the index.
    var place = 0
    /// Records read ahead of `place`.
    var buffered: ArraySlice<UInt8> = []
    /// Bytes of the first record to leave out.
    var skip: UInt32 = 0
    /// Who wrote the last record that was read.
    var run: UInt64?
  }

  /// So many files may still grow for all we know; older ones do not.
  private static let mostOpen = 16

  private let folder: Folder
  /// By number; the last is the newest that was found.
  private var pairs: [Pair] = []
  /// Where the record lies that was read last.
  private var log: SharedDescriptor?

  /// Begins at the oldest record, or where the last `tail` lines of what `filter` takes begin.
  init(_ path: String, _ filter: LogReader.Filter, tail: Int?, until: WallTime?) throws(SystemFault) {
    folder = try Folder(opening: path)
    guard let tail else { return }
    if tail <= 0 { try seekEnds() } else { try seek(lines: tail, filter, until) }
  }

  private static func numbers(_ folder: borrowing Folder) throws(SystemFault) -> [UInt32] {
    try folder.names().compactMap { LogName.number(ofIndex: $0) }.sorted()
  }

  /// Nil when there is no such pair (any more).
  private func open(_ number: UInt32) throws(SystemFault) -> Pair? {
    do throws(SystemFault) {
      let index = SharedDescriptor(try folder.open(LogName.index(number), O_RDONLY))
      let log = SharedDescriptor(try folder.open(LogName.log(number), O_RDONLY))
      return Pair(number: number, index: index, log: log)
    } catch  where error.code == ENOENT { return nil }
  }

  // MARK: Forward

  /// The next record, nil when there is none yet. `lost` ones are passed over.
  func next() throws(SystemFault) -> LogRecord? {
    while true {
      if let record = try take() { return record }
      guard let following = try Self.numbers(folder).first(where: { $0 > pairs.last?.number ?? 0 }) else { return nil }
      // The last record of a run's file is there before its next file is.
      if let record = try take() { return record }
      if let pair = try open(following) { append(pair) }
    }
  }

  private func append(_ pair: Pair) {
    pairs.append(pair)
    if pairs.count > Self.mostOpen { pairs.removeFirst() }
  }

  private func take() throws(SystemFault) -> LogRecord? {
    var place = 0
    while place < pairs.count {
      guard let record = try take(place) else {
        place += 1
        continue
      }
      log = pairs[place].log
      // A run that writes here is done with the files before.
      let number = pairs[place].number
      pairs.removeAll { $0.number < number && $0.run == record.run }
      return record
    }
    return nil
  }

  private func take(_ place: Int) throws(SystemFault) -> LogRecord? {
    while true {
      if pairs[place].buffered.isEmpty {
        pairs[place].buffered = try Self.records(pairs[place].index, from: pairs[place].place, most: 2048)[...]
      }
      if pairs[place].buffered.isEmpty { return nil }
      let bytes = pairs[place].buffered.prefix(LogRecord.size)
      pairs[place].buffered = pairs[place].buffered.dropFirst(LogRecord.size)
      pairs[place].place += 1
      guard var record = LogRecord(bytes: bytes) else { continue }
      pairs[place].run = record.run
      guard record.stream != .lost else { continue }
      record.offset += UInt64(pairs[place].skip)
      record.length -= pairs[place].skip
      pairs[place].skip = 0
      return record
    }
  }

  /// Whole records only: one that is being written is not there yet.
  private static func records(_ index: SharedDescriptor, from first: Int, most: Int) throws(SystemFault) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: most * LogRecord.size)
    let got = try index.withRaw { (raw) throws(SystemFault) in
      try check("read", "log index") { pread(raw, &bytes, bytes.count, first * LogRecord.size) }
    }
    bytes.removeLast(bytes.count - got / LogRecord.size * LogRecord.size)
    return bytes
  }

  /// What the app wrote; fewer bytes than the record says if the file was cut. Of the record that was read last.
  func bytes(of record: LogRecord) throws(SystemFault) -> [UInt8] {
    guard let log else { return [] }
    return try Self.bytes(of: record, log)
  }

  private static func bytes(of record: LogRecord, _ log: SharedDescriptor) throws(SystemFault) -> [UInt8] {
    // A record never speaks of more than one move; a damaged index must not make us allocate what it likes.
    guard record.length <= 1 << 26 else { return [] }
    var bytes = [UInt8](repeating: 0, count: Int(record.length))
    let got = try log.withRaw { (raw) throws(SystemFault) in
      try check("read", "log") { pread(raw, &bytes, bytes.count, Int(record.offset)) }
    }
    bytes.removeLast(bytes.count - got)
    return bytes
  }

  // MARK: Where to begin

  /// At the end of each file: any of them may grow.
  private func seekEnds() throws(SystemFault) {
    for number in try Self.numbers(folder).suffix(Self.mostOpen) {
      guard var pair = try open(number) else { continue }
      pair.place = try Self.length(pair.index)
      append(pair)
    }
  }

  /// Goes back from the end over as many records as hold the lines, reading no more than those.
  private func seek(lines: Int, _ filter: LogReader.Filter, _ until: WallTime?) throws(SystemFault) {
    var missing = lines
    var isLast = true
    for number in try Self.numbers(folder).reversed() {
      guard var pair = try open(number) else { continue }
      var first = try Self.length(pair.index)
      while first > 0 {
        let from = max(0, first - 512)
        let block = try Self.records(pair.index, from: from, most: first - from)
        for offset in stride(from: block.count - LogRecord.size, through: 0, by: -LogRecord.size) {
          guard let record = LogRecord(bytes: block[offset..<offset + LogRecord.size]), record.stream != .lost,
            filter.takes(record.run), record.time <= until?.nanoseconds ?? .max
          else { continue }
          let bytes = try Self.bytes(of: record, pair.log)
          for position in bytes.indices.reversed() where bytes[position] == UInt8(ascii: "\n") {
            // The newline at the very end closes the last line and begins none.
            if isLast, position == bytes.count - 1 {
              isLast = false
              continue
            }
            isLast = false
            missing -= 1
            guard missing <= 0 else { continue }
            pair.place = from + offset / LogRecord.size
            pair.skip = UInt32(position + 1)
            pairs = [pair]
            return
          }
          if !bytes.isEmpty { isLast = false }
        }
        first = from
      }
      // Its beginning, unless an older file has more of the lines.
      pairs = [pair]
    }
  }

  private static func length(_ index: SharedDescriptor) throws(SystemFault) -> Int {
    try index.withRaw { (raw) throws(SystemFault) in
      Int(try check("lseek", "log index") { lseek(raw, 0, SEEK_END) }) / LogRecord.size
    }
  }
}
