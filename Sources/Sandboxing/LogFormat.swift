/// One record of a log's index, `NNNNNN.idx`: 32 bytes, little-endian. The bytes themselves stand in `NNNNNN.log` as written.
///
/// `time` i64, `offset` u64, `run` u64, `length` u32, `stream` u8, three zero bytes.
package struct LogRecord: Sendable, Equatable {
  package static let size = 32

  /// When it was read from the app, nanoseconds of the wall clock.
  package var time: Int64
  /// Where its bytes begin in the log file; for `lost`, how many bytes are missing here.
  package var offset: UInt64
  /// The app's generation that wrote it.
  package var run: UInt64
  package var length: UInt32
  package var stream: Stream

  package enum Stream: UInt8, Sendable { case lost = 0, output = 1, error = 2 }

  package init(time: Int64, offset: UInt64, run: UInt64, length: UInt32, stream: Stream) {
    self.time = time
    self.offset = offset
    self.run = run
    self.length = length
    self.stream = stream
  }

  package var bytes: [UInt8] {
    var out = ByteWriter()
    out.number(time)
    out.number(offset)
    out.number(run)
    out.number(length)
    out.number(UInt32(stream.rawValue))
    return out.bytes
  }

  /// Nil for what no shim writes.
  package init?(bytes: ArraySlice<UInt8>) {
    guard bytes.count == Self.size else { return nil }
    func number(_ start: Int, _ width: Int) -> UInt64 {
      bytes.dropFirst(start).prefix(width).reversed().reduce(0) { $0 << 8 | UInt64($1) }
    }
    // An offset no file has would overflow where it is used.
    guard number(29, 3) == 0, number(8, 8) <= 1 << 62, let stream = Stream(rawValue: UInt8(number(28, 1))) else {
      return nil
    }
    self.init(
      time: Int64(bitPattern: number(0, 8)), offset: number(8, 8), run: number(16, 8), length: UInt32(number(24, 4)),
      stream: stream)
  }
}

/// The names of log files.
package enum LogName {
  package static func log(_ number: UInt32) -> String { "\(padded(number)).log" }
  package static func index(_ number: UInt32) -> String { "\(padded(number)).idx" }

  /// The number of `NNNNNN.idx`.
  package static func number(ofIndex name: String) -> UInt32? {
    guard name.hasSuffix(".idx") else { return nil }
    return UInt32(name.dropLast(4))
  }

  private static func padded(_ number: UInt32) -> String {
    let digits = String(number)
    return String(repeating: "0", count: max(0, 6 - digits.count)) + digits
  }
}
