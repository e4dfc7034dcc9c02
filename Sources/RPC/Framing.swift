/// Bounds of one connection; each is checked before anything is allocated for what exceeds it (app-api.md).
package struct FrameLimits: Sendable {
  /// Bytes of one frame.
  package var frame = 4 << 20
  /// Bytes of a header block.
  package var header = 1024
  package init() {}
}

/// Why a connection's bytes are not frames. The connection is told and closed.
package enum FrameFault: Error, Equatable, Sendable {
  case tooLarge(limit: Int)
  case badHeader(String)

  package var message: String {
    switch self {
    case .tooLarge(let limit): "a frame may have at most \(limit) bytes"
    case .badHeader(let problem): "the frame's header is not right: \(problem)"
    }
  }
}

/// How frames are told apart; the first byte of a connection decides.
package enum Framing: Sendable, Equatable {
  /// One JSON document a line.
  case lines
  /// `Content-Length: N\r\n\r\n` and N bytes.
  case headers

  /// `payload` as a frame.
  package func frame(_ payload: [UInt8]) -> [UInt8] {
    switch self {
    case .lines: payload + [0x0A]
    case .headers: Array("Content-Length: \(payload.count)\r\n\r\n".utf8) + payload
    }
  }
}

/// Cuts a stream of bytes into frames.
package struct FrameReader: Sendable {
  private var buffer: [UInt8] = []
  /// Where unread bytes begin.
  private var start = 0
  /// Up to here no line end was found.
  private var scanned = 0
  private let limits: FrameLimits
  /// Nil until the first byte came.
  package private(set) var framing: Framing?

  package init(limits: FrameLimits = FrameLimits()) { self.limits = limits }

  /// Bytes of the stream before the unread ones, and all that came.
  private var discarded = 0
  package var position: Int { discarded + start }
  package var appended: Int { discarded + buffer.count }

  /// Whether part of a frame waits for its rest.
  package var isMidFrame: Bool { start < buffer.count }
  /// Bytes that wait to become a frame.
  package var unread: Int { buffer.count - start }

  package mutating func append(_ bytes: UnsafeRawBufferPointer) {
    if start > 0, start == buffer.count || start > 1 << 16 {
      buffer.removeSubrange(..<start)
      discarded += start
      scanned -= start
      start = 0
    }
    buffer.append(contentsOf: bytes)
  }

  /// The next whole frame; nil until more bytes come. Empty lines are skipped.
  package mutating func next() throws(FrameFault) -> ArraySlice<UInt8>? {
    if framing == nil {
      guard let first = buffer[start...].first(where: { ![0x20, 0x09, 0x0D, 0x0A].contains($0) }) else {
        start = buffer.count
        scanned = start
        return nil
      }
      framing = first == UInt8(ascii: "C") || first == UInt8(ascii: "c") ? .headers : .lines
    }
    return framing == .headers ? try nextByHeader() : try nextLine()
  }

  private mutating func nextLine() throws(FrameFault) -> ArraySlice<UInt8>? {
    while true {
      scanned = max(scanned, start)
      guard let end = buffer[scanned...].firstIndex(of: 0x0A) else {
        scanned = buffer.count
        guard buffer.count - start <= limits.frame else { throw .tooLarge(limit: limits.frame) }
        return nil
      }
      let line = buffer[start..<end]
      start = end + 1
      scanned = start
      guard line.count <= limits.frame else { throw .tooLarge(limit: limits.frame) }
      if line.contains(where: { ![0x20, 0x09, 0x0D].contains($0) }) { return line }
    }
  }

  private mutating func nextByHeader() throws(FrameFault) -> ArraySlice<UInt8>? {
    let unread = buffer[start...]
    guard let end = Self.headerEnd(unread.prefix(limits.header)) else {
      guard unread.count < limits.header else { throw .badHeader("it is longer than \(limits.header) bytes") }
      return nil
    }
    let length = try Self.contentLength(buffer[start..<end])
    guard length <= limits.frame else { throw .tooLarge(limit: limits.frame) }
    guard buffer.count - end >= length else { return nil }
    start = end + length
    scanned = start
    return buffer[end..<end + length]
  }

  /// Past the empty line that ends a header block.
  private static func headerEnd(_ bytes: ArraySlice<UInt8>) -> Int? {
    let mark = Array("\r\n\r\n".utf8)
    guard bytes.count >= 4 else { return nil }
    for index in bytes.startIndex...(bytes.endIndex - 4) where bytes[index..<index + 4].elementsEqual(mark) {
      return index + 4
    }
    return nil
  }

  private static func contentLength(_ header: ArraySlice<UInt8>) throws(FrameFault) -> Int {
    guard let text = String(validating: header, as: UTF8.self) else { throw .badHeader("it is not UTF-8") }
    var length: Int?
    for line in text.split(separator: "\r\n") {
      let parts = line.split(separator: ":", maxSplits: 1)
      guard parts.count == 2 else { throw .badHeader("a line has no colon") }
      switch parts[0].lowercased() {
      case "content-length":
        let digits = parts[1].drop { $0 == " " }
        guard length == nil, digits.count <= 10, digits.allSatisfy({ $0.isASCII && $0.isNumber }),
          let value = Int(digits), value > 0
        else { throw .badHeader("Content-Length must stand once and be a number above 0") }
        length = value
      case "content-type": continue
      default: throw .badHeader("only Content-Length and Content-Type are known")
      }
    }
    guard let length else { throw .badHeader("Content-Length is missing") }
    return length
  }
}
