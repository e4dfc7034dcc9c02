package import Model

/// Output of a container or exec: logs, attach.
package typealias ContainerOutput = EngineStream<OutputDecoder>
/// Progress of a pull, push, load or build.
package typealias ProgressStream = EngineStream<JSONLines<Progress>>

/// The bytes of a tar of images.
package typealias ImageArchive = EngineStream<PlainBytes>

/// Bytes as they are.
package struct PlainBytes: StreamDecoder {
  private var waiting: [[UInt8]] = []

  package mutating func take(_ bytes: [UInt8]) { waiting.append(bytes) }
  package mutating func next() throws(EngineFailure) -> [UInt8]? { waiting.isEmpty ? nil : waiting.removeFirst() }
  package mutating func end() throws(EngineFailure) -> [UInt8]? { nil }
}

/// Some output, as one frame (or, with a terminal, one read) brought it: not necessarily whole lines.
package struct OutputChunk: Sendable, Equatable {
  package enum Stream: UInt8, Sendable { case input = 0, output = 1, error = 2 }
  package var stream: Stream
  /// When the Engine received it; only for logs asked with timestamps.
  package var time: WallTime?
  package var bytes: [UInt8]

  package init(stream: Stream, time: WallTime? = nil, bytes: [UInt8]) {
    self.stream = stream
    self.time = time
    self.bytes = bytes
  }

  /// The bytes as text; what is not UTF-8 is replaced.
  package var text: String { String(decoding: bytes, as: UTF8.self) }
}

/// Takes a stream of JSON documents, one a line, apart. A line over the limit, and one that is not JSON, is an error.
package struct JSONLines<Element: Sendable>: StreamDecoder {
  private let operation: String
  private let lineLimit: Int
  private let read: @Sendable (JSONValue) throws(EngineFailure) -> Element?
  private var buffer = ByteQueue()

  /// `read` makes an element of a document; nil skips it.
  init(operation: String, lineLimit: Int, _ read: @escaping @Sendable (JSONValue) throws(EngineFailure) -> Element?) {
    self.operation = operation
    self.lineLimit = lineLimit
    self.read = read
  }

  package mutating func take(_ bytes: [UInt8]) { buffer.append(bytes) }

  package mutating func next() throws(EngineFailure) -> Element? {
    while let line = buffer.takeLine() {
      if let element = try element(of: line) { return element }
    }
    guard buffer.count <= lineLimit else { throw tooLong }
    return nil
  }

  package mutating func end() throws(EngineFailure) -> Element? {
    buffer.isEmpty ? nil : try element(of: buffer.takeAll())
  }

  private var tooLong: EngineFailure {
    .malformed(operation: operation, what: "a line is longer than \(lineLimit) bytes")
  }

  private func element(of line: [UInt8]) throws(EngineFailure) -> Element? {
    guard line.count <= lineLimit else { throw tooLong }
    guard !line.allSatisfy({ $0 == 13 || $0 == 32 || $0 == 0 }) else { return nil }
    let document: JSONValue
    do throws(JSONSyntaxError) { document = try JSONValue(parsing: line, limits: .engine) } catch {
      throw .malformed(operation: operation, what: "\(error)")
    }
    return try read(document)
  }
}

/// Bytes taken in at the end and out at the front, without moving the rest each time.
struct ByteQueue: Sendable {
  private var bytes: [UInt8] = []
  private var start = 0
  /// Up to where `takeLine` has looked in vain.
  private var searched = 0

  var count: Int { bytes.count - start }
  var isEmpty: Bool { count == 0 }

  mutating func append(_ more: [UInt8]) {
    if start == bytes.count {
      bytes = more
      start = 0
      searched = 0
      return
    }
    if start > 65536 {
      bytes.removeFirst(start)
      searched = max(0, searched - start)
      start = 0
    }
    bytes += more
  }

  func peek(_ count: Int) -> [UInt8] { Array(bytes[start..<start + count]) }

  mutating func take(_ count: Int) -> [UInt8] {
    defer { start += count }
    return peek(count)
  }

  mutating func takeAll() -> [UInt8] { take(count) }

  /// The next line without its `\n`; nil when none is whole.
  mutating func takeLine() -> [UInt8]? {
    guard let end = bytes[max(start, searched)...].firstIndex(of: 10) else {
      searched = bytes.count
      return nil
    }
    defer {
      start = end + 1
      searched = start
    }
    return Array(bytes[start..<end])
  }
}
