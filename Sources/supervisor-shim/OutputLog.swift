internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// The app's output on disk: whole pages moved from its pipes into `NNNNNN.log` by the kernel, one index record per move.
/// Bounded by size and number of files; what a full disk cannot take is dropped and counted, and the app goes on. A file is written
/// by one shim alone: two generations of an app that run beside each other take turns in the numbers, and count together.
struct OutputLog: ~Copyable {
  /// The most moved at once, and so the most one record speaks of.
  private static let most = 1 << 20

  private let folder: Folder
  private let run: UInt64
  private let maximumSize: UInt64
  private let maximumFiles: UInt32
  private let nowhere: Descriptor
  private var number: UInt32
  private var log: Descriptor
  private var index: Descriptor
  private var size: Int64 = 0
  private var indexSize: Int64 = 0
  /// Lost since the last record that says so.
  private var unrecorded: UInt64 = 0
  /// Lost in all by this run for want of room on disk.
  private(set) var dropped: UInt64 = 0

  /// Goes on with the newest file, after cutting a torn record off its index; with a new one where another shim writes that.
  static func open(_ plan: LaunchPlan) throws(SystemFault) -> OutputLog {
    let folder = try Folder(opening: plan.places.log)
    var number = try numbers(folder).last ?? 1
    if plan.places.logIsShared { number = try claim(folder) }
    let log = try folder.open(LogName.log(number), O_RDWR | O_CREAT, mode: 0o640)
    let index = try folder.open(LogName.index(number), O_RDWR | O_CREAT, mode: 0o640)
    let nowhere = Descriptor(owning: try check("open", "/dev/null") { Glibc.open("/dev/null", O_WRONLY | O_CLOEXEC) })
    var opened = OutputLog(plan, folder, number, log: log, index: index, nowhere: nowhere)
    try opened.mend()
    return opened
  }

  private init(
    _ plan: LaunchPlan, _ folder: consuming Folder, _ number: UInt32, log: consuming Descriptor,
    index: consuming Descriptor, nowhere: consuming Descriptor
  ) {
    run = plan.generation
    maximumSize = max(4096, plan.logMaximumSize)
    maximumFiles = max(1, plan.logMaximumFiles)
    self.folder = folder
    self.number = number
    self.log = log
    self.index = index
    self.nowhere = nowhere
  }

  /// Makes the log of the next number that nobody has; its index, by which readers find it, comes after.
  private static func claim(_ folder: borrowing Folder) throws(SystemFault) -> UInt32 {
    var number = (try numbers(folder).last ?? 0) + 1
    while true {
      do throws(SystemFault) {
        _ = try folder.open(LogName.log(number), O_RDWR | O_CREAT | O_EXCL, mode: 0o640)
        return number
      } catch  where error.code == EEXIST { number += 1 }
    }
  }

  private static func numbers(_ folder: borrowing Folder) throws(SystemFault) -> [UInt32] {
    try folder.names().compactMap { LogName.number(ofIndex: $0) }.sorted()
  }

  /// After a crash: a record cut short goes; bytes without a record get one, so that nothing shown before disappears.
  private mutating func mend() throws(SystemFault) {
    let whole = try Self.length(index, "log index") / Int64(LogRecord.size) * Int64(LogRecord.size)
    try index.withRaw { (raw) throws(SystemFault) in
      _ = try check("ftruncate", "log index") { ftruncate(raw, Int(whole)) }
    }
    indexSize = whole
    size = try Self.length(log, "log")
    var covered: Int64 = 0
    var place = whole
    while place > 0 {
      place -= Int64(LogRecord.size)
      var bytes = [UInt8](repeating: 0, count: LogRecord.size)
      let at = place
      try index.withRaw { (raw) throws(SystemFault) in
        _ = try check("pread", "log index") { pread(raw, &bytes, LogRecord.size, Int(at)) }
      }
      guard let record = LogRecord(bytes: bytes[...]), record.stream != .lost else { continue }
      covered = Int64(record.offset) + Int64(record.length)
      break
    }
    if size > covered, size - covered <= Int64(UInt32.max) {
      let orphan = UInt32(size - covered)
      try append(
        LogRecord(
          time: Clock.wall().nanoseconds, offset: UInt64(covered), run: run, length: orphan, stream: .output))
    }
  }

  private static func length(_ file: borrowing Descriptor, _ subject: String) throws(SystemFault) -> Int64 {
    try file.withRaw { (raw) throws(SystemFault) in Int64(try check("lseek", subject) { lseek(raw, 0, SEEK_END) }) }
  }

  /// What a pipe had.
  enum Drained { case nothing, some(Int), end }

  /// Moves what waits in a pipe, at most a few moves' worth so that the other one gets its turn.
  mutating func drain(_ pipe: Int32, _ stream: LogRecord.Stream) -> Drained {
    var moved = 0
    for _ in 0..<4 {
      let got: Int?
      do throws(SystemFault) { got = try keep(pipe, stream) } catch { got = drop(pipe) }
      guard let got else { break }
      if got == 0 { return moved > 0 ? .some(moved) : .end }
      moved += got
    }
    return moved > 0 ? .some(moved) : .nothing
  }

  private mutating func keep(_ pipe: Int32, _ stream: LogRecord.Stream) throws(SystemFault) -> Int? {
    // Records count: an app that writes single bytes would else fill the disk with them.
    if UInt64(size + indexSize) >= maximumSize { try rotate() }
    if unrecorded > 0 { try recordLoss() }
    var end = size
    let room = max(1, min(Self.most, Int(clamping: maximumSize) - Int(size + indexSize)))
    let got = try log.withRaw { (raw) throws(SystemFault) in try Pipe.splice(pipe, raw, offset: &end, room) }
    guard let got, got > 0 else { return got }
    do throws(SystemFault) {
      try append(
        LogRecord(
          time: Clock.wall().nanoseconds, offset: UInt64(size), run: run, length: UInt32(got), stream: stream))
      size = end
    } catch {
      // Bytes without a record are never shown: the next ones overwrite them.
      dropped += UInt64(got)
      unrecorded += UInt64(got)
    }
    return got
  }

  /// The disk takes nothing: the app must not wait for it.
  private mutating func drop(_ pipe: Int32) -> Int? {
    let got = nowhere.withRaw { raw in try? Pipe.splice(pipe, raw, Self.most) }
    guard let got = got ?? nil else { return nil }
    dropped += UInt64(got)
    unrecorded += UInt64(got)
    return got
  }

  private mutating func recordLoss() throws(SystemFault) {
    try append(
      LogRecord(time: Clock.wall().nanoseconds, offset: unrecorded, run: run, length: 0, stream: .lost))
    unrecorded = 0
  }

  private mutating func append(_ record: LogRecord) throws(SystemFault) {
    let bytes = record.bytes
    let place = indexSize
    let written = try index.withRaw { (raw) throws(SystemFault) in
      try check("write", "log index") { pwrite(raw, bytes, bytes.count, Int(place)) }
    }
    guard written == bytes.count else { throw SystemFault(call: "write", subject: "log index", code: ENOSPC) }
    indexSize += Int64(written)
  }

  /// Begins the next pair of files, and removes whole pairs beyond the number allowed.
  private mutating func rotate() throws(SystemFault) {
    let next = try Self.claim(folder)
    do throws(SystemFault) {
      let newLog = try folder.open(LogName.log(next), O_RDWR | O_CREAT | O_TRUNC, mode: 0o640)
      let newIndex = try folder.open(LogName.index(next), O_RDWR | O_CREAT | O_TRUNC, mode: 0o640)
      log = newLog
      index = newIndex
    } catch {
      try folder.remove(LogName.log(next))
      throw error
    }
    number = next
    size = 0
    indexSize = 0
    for old in try Self.numbers(folder) where old + maximumFiles <= next {
      if let file = try? folder.open(LogName.log(old), O_RDONLY) {
        unrecorded += UInt64((try? Self.length(file, "log")) ?? 0)
      }
      // The index last: while it is there, a next rotation finds the pair again.
      try folder.remove(LogName.log(old))
      try folder.remove(LogName.index(old))
    }
  }
}
