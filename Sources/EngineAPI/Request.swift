internal import Model

/// How long calls may take and how large answers may be.
package struct EngineLimits: Sendable {
  /// Until the socket is connected.
  package var connect: Duration = .seconds(10)
  /// For one control call, and for the first bytes of a stream that the Engine owes at once.
  package var call: Duration = .seconds(60)
  /// Bytes of one answer.
  package var answer = 64 << 20
  /// Bytes of one inspect or list answer.
  package var listing = 16 << 20
  /// Bytes of all header lines of one answer.
  package var head = 16 << 10
  /// Bytes a stream holds for a slow reader before the Engine is made to wait.
  package var buffer = 256 << 10
  /// Bytes of one frame of logs or attach.
  package var frame = 1 << 20
  /// Bytes of one line of a JSON stream (events, stats, progress).
  package var line = 1 << 20

  package init() {}
}

/// One HTTP request to an Engine, before it is sent.
struct Request: Sendable {
  enum Method: String, Sendable { case get = "GET", head = "HEAD", post = "POST", put = "PUT", delete = "DELETE" }

  enum Body: Sendable {
    case none
    case json(JSONValue)
    /// Streamed as chunks, with its media type.
    case source(ByteSource, type: String)
  }

  enum Deadline: Sendable {
    /// The transport's own for control calls.
    case standard
    case after(Duration)
    case none
  }

  var method: Method
  /// Percent-encoded, with the version prefix.
  var path: String
  /// What the user asked for, `start container x`; it stands in errors.
  var operation: String
  var query: [(String, String)] = []
  var headers: [(String, String)] = []
  var body: Body = .none
  var deadline: Deadline = .standard
  /// Bytes of the answer; nil: the transport's own.
  var limit: Int?
  /// What must not be seen in an error even if the Engine repeats it.
  var secrets: [String] = []

  init(_ method: Method, _ path: String, _ operation: String) {
    self.method = method
    self.path = path
    self.operation = operation
  }

  /// The path and query as they go on the wire.
  var target: String {
    guard !query.isEmpty else { return path }
    return path + "?" + query.map { "\(Self.encode($0.0))=\(Self.encode($0.1))" }.joined(separator: "&")
  }

  /// Percent-encodes all but RFC 3986's unreserved characters, and `keeping`.
  static func encode(_ text: String, keeping: String = "") -> String {
    let hex = Array("0123456789ABCDEF".utf8)
    let kept = Array(keeping.utf8)
    var result: [UInt8] = []
    for byte in text.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"),
        UInt8(ascii: "~"):
        result.append(byte)
      default:
        if kept.contains(byte) {
          result.append(byte)
        } else {
          result += [UInt8(ascii: "%"), hex[Int(byte >> 4)], hex[Int(byte & 15)]]
        }
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}

/// What stands before an answer's body.
struct AnswerHead: Sendable {
  var status = 0
  var headers = Headers()
}

/// A whole answer.
struct Answer: Sendable {
  var head: AnswerHead
  var body: [UInt8]
}

/// Header lines of an answer; names compare without case.
struct Headers: Sendable {
  private var lines: [(name: String, value: String)] = []

  subscript(name: String) -> String? {
    let wanted = name.lowercased()
    return lines.first { $0.name == wanted }?.value
  }

  /// Takes one line with or without its line end; one without a colon is ignored.
  mutating func add(_ line: some Collection<UInt8>) {
    guard let colon = line.firstIndex(of: UInt8(ascii: ":")) else { return }
    let name = String(decoding: line[..<colon], as: UTF8.self).lowercased()
    var value = Array(line[line.index(after: colon)...].drop { $0 == 32 || $0 == 9 })
    while let last = value.last, [13, 10, 32, 9].contains(last) { value.removeLast() }
    lines.append((name, String(decoding: value, as: UTF8.self)))
  }
}
