/// A command a shim is to run inside its app; beside it come its streams. What it does not say is the app's own.
package struct ExecPlan: Sendable, Equatable {
  package var arguments: [String] = []
  /// `NAME=value`, over the app's.
  package var environment: [String] = []
  /// Empty: the app's.
  package var workingFolder = ""
  /// Ids inside; nil: the app's.
  package var ids: IDs?
  /// Its streams are a terminal, which becomes its session's own.
  package var terminal = false
  /// Killed at this time of the monotonic clock; 0: never.
  package var deadline: Int64 = 0
  /// Goes on when the daemon that asked for it is gone: somebody else holds its streams.
  package var outlivesDaemon = false

  package struct IDs: Sendable, Equatable {
    package var uid: UInt32
    package var gid: UInt32
    package init(uid: UInt32, gid: UInt32) {
      self.uid = uid
      self.gid = gid
    }
  }

  package init() {}

  /// The longest there is.
  package static let maximumBytes = 1 << 20

  package var bytes: [UInt8] {
    var out = ByteWriter()
    out.list(arguments) { $0.text($1) }
    out.list(environment) { $0.text($1) }
    out.text(workingFolder)
    out.flag(ids != nil)
    out.number(ids?.uid ?? 0)
    out.number(ids?.gid ?? 0)
    out.flag(terminal)
    out.number(deadline)
    out.flag(outlivesDaemon)
    return out.bytes
  }

  package init(bytes: [UInt8]) throws(MalformedBytes) {
    var input = ByteReader(bytes, "plan of a command")
    arguments = try input.list { (input) throws(MalformedBytes) in try input.text() }
    environment = try input.list { (input) throws(MalformedBytes) in try input.text() }
    workingFolder = try input.text()
    let hasIDs = try input.flag()
    let given = IDs(uid: try input.number(), gid: try input.number())
    ids = hasIDs ? given : nil
    terminal = try input.flag()
    deadline = try input.number()
    outlivesDaemon = try input.flag()
    guard input.isAtEnd, !arguments.isEmpty else { throw input.fail() }
  }
}

/// How far a command is.
package enum ExecState: Sendable, Equatable {
  /// It stands in the sandbox, gave up all it has to, and waits for `execGo`: its number on the host.
  case prepared(pid: Int32)
  case running
  case ended(Ending)
  /// Its program never ran: at which step, why, and the errno (0: none).
  case failed(step: String, reason: String, code: Int32)

  package enum Ending: Sendable, Equatable {
    case code(Int32)
    case signal(Int32)
    case timedOut
  }

  func write(to out: inout ByteWriter) {
    switch self {
    case .prepared(let pid):
      out.number(UInt8(0))
      out.number(pid)
    case .running: out.number(UInt8(1))
    case .ended(.code(let code)):
      out.number(UInt8(2))
      out.number(code)
    case .ended(.signal(let number)):
      out.number(UInt8(3))
      out.number(number)
    case .ended(.timedOut): out.number(UInt8(4))
    case .failed(let step, let reason, let code):
      out.number(UInt8(5))
      out.text(step)
      out.text(String(decoding: reason.utf8.prefix(2048), as: UTF8.self))
      out.number(code)
    }
  }

  init(_ input: inout ByteReader) throws(MalformedBytes) {
    switch try input.number(UInt8.self) {
    case 0: self = .prepared(pid: try input.number())
    case 1: self = .running
    case 2: self = .ended(.code(try input.number()))
    case 3: self = .ended(.signal(try input.number()))
    case 4: self = .ended(.timedOut)
    case 5: self = .failed(step: try input.text(), reason: try input.text(), code: try input.number())
    default: throw input.fail()
    }
  }
}
