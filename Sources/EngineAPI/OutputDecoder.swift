internal import Model

/// Takes the Engine's multiplexed output apart: frames of an 8-byte header (stream, 0, 0, 0, size in big endian) and a payload.
/// With a terminal there are no frames and all is output.
package struct OutputDecoder: StreamDecoder {
  package typealias Element = OutputChunk

  /// Whether chunks start with a time, and what becomes of it.
  enum Times { case none, told, hidden }

  /// How far one stream of a log was read: the time of its last chunk, and how many had that time.
  private struct Place {
    var time: WallTime
    var count: Int
  }

  private let operation: String
  private let raw: Bool
  private let times: Times
  private let frameLimit: Int
  private var buffer = ByteQueue()
  /// The place of each stream, by its number, and where the first chunk was.
  private var places: [Place?] = [nil, nil, nil]
  private var begin: WallTime?
  /// What an earlier reading of the same log delivered already.
  private var skipped: [Place?]?
  static let headerSize = 8

  init(operation: String, raw: Bool, times: Times = .none, frameLimit: Int) {
    self.operation = operation
    self.raw = raw
    self.times = times
    self.frameLimit = frameLimit
  }

  /// A decoder for the same log read again, which leaves out what this one delivered; nil if this is one already.
  var again: OutputDecoder? {
    guard skipped == nil else { return nil }
    var copy = OutputDecoder(operation: operation, raw: raw, times: times, frameLimit: frameLimit)
    copy.skipped = places
    copy.begin = begin
    return copy
  }

  /// Whether anything with a time was delivered, by this or the reading before.
  var hasBegun: Bool { begin != nil }

  package mutating func take(_ bytes: [UInt8]) { buffer.append(bytes) }

  package mutating func next() throws(EngineFailure) -> OutputChunk? {
    if raw {
      guard times != .none else { return buffer.isEmpty ? nil : OutputChunk(stream: .output, bytes: buffer.takeAll()) }
      while let line = buffer.takeLine() {
        if let chunk = stamped(.output, line + [UInt8(ascii: "\n")]) { return chunk }
      }
      // A line without an end is passed on in pieces.
      return buffer.count > frameLimit ? OutputChunk(stream: .output, bytes: buffer.takeAll()) : nil
    }
    while let (stream, payload) = try frame() {
      if payload.isEmpty { continue }
      guard times != .none else { return OutputChunk(stream: stream, bytes: payload) }
      if let chunk = stamped(stream, payload) { return chunk }
    }
    return nil
  }

  package mutating func end() throws(EngineFailure) -> OutputChunk? {
    guard !buffer.isEmpty else { return nil }
    guard raw else { throw .malformed(operation: operation, what: "its output ends inside a frame") }
    return stamped(.output, buffer.takeAll())
  }

  /// The next whole frame.
  private mutating func frame() throws(EngineFailure) -> (OutputChunk.Stream, [UInt8])? {
    guard buffer.count >= Self.headerSize else { return nil }
    let header = buffer.peek(Self.headerSize)
    guard let stream = OutputChunk.Stream(rawValue: header[0]), header[1] == 0, header[2] == 0, header[3] == 0 else {
      throw .malformed(operation: operation, what: "its output is not framed as the API says")
    }
    let size = header[4..<8].reduce(0) { $0 << 8 | Int($1) }
    guard size <= frameLimit else {
      throw .malformed(operation: operation, what: "a frame of \(size) bytes is larger than \(frameLimit)")
    }
    guard buffer.count >= Self.headerSize + size else { return nil }
    _ = buffer.take(Self.headerSize)
    return (stream, buffer.take(size))
  }

  /// Splits `2024-01-02T03:04:05.000000006Z text` after its time; a payload without one stays as it is. Nil: delivered before.
  private mutating func stamped(_ stream: OutputChunk.Stream, _ payload: [UInt8]) -> OutputChunk? {
    guard times != .none, let space = payload.prefix(40).firstIndex(of: 32),
      let time = WallTime(rfc3339: String(decoding: payload[..<space], as: UTF8.self))
    else { return OutputChunk(stream: stream, bytes: payload) }
    guard isNew(stream, time) else { return nil }
    return OutputChunk(stream: stream, time: times == .told ? time : nil, bytes: Array(payload[(space + 1)...]))
  }

  private mutating func isNew(_ stream: OutputChunk.Stream, _ time: WallTime) -> Bool {
    let index = Int(stream.rawValue)
    guard var skipped else {
      begin = begin ?? time
      let count = places[index].map { $0.time == time ? $0.count : 0 } ?? 0
      places[index] = Place(time: time, count: count + 1)
      return true
    }
    guard let place = skipped[index] else { return begin.map { time >= $0 } ?? true }
    if time != place.time { return time > place.time }
    guard place.count > 0 else { return true }
    skipped[index]?.count -= 1
    self.skipped = skipped
    return false
  }
}
