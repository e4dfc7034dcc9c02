/// What a daemon asks of a shim, one packet each (SOCK_SEQPACKET, unix(7)).
package enum ShimRequest: Sendable, Equatable {
  /// Lets the prepared program run. Only the daemon that started the shim can.
  case go
  case status
  case signal(Int32)
  /// The outcome is known: the shim forgets it and leaves.
  case acknowledge
  /// Prepares a command inside the app. Beside it come its plan (an `ExecPlan`, sealed) and its three streams.
  case exec(id: UInt32)
  /// Lets a prepared command run.
  case execGo(id: UInt32)
  /// A signal for every process of a command's group.
  case execSignal(id: UInt32, Int32)

  /// The writing end of the app's input, or its terminal: comes beside the answer, if there is one.
  case input
  /// The shim's own writing end is closed: once no daemon has one, the app's input has ended.
  case endInput

  /// How many descriptors come beside `exec`.
  package static let execDescriptors = 4

  package var bytes: [UInt8] {
    var out = ByteWriter()
    switch self {
    case .go: out.number(UInt8(1))
    case .status: out.number(UInt8(2))
    case .signal(let number):
      out.number(UInt8(3))
      out.number(number)
    case .acknowledge: out.number(UInt8(4))
    case .exec(let id):
      out.number(UInt8(5))
      out.number(id)
    case .execGo(let id):
      out.number(UInt8(6))
      out.number(id)
    case .execSignal(let id, let number):
      out.number(UInt8(7))
      out.number(id)
      out.number(number)
    case .input: out.number(UInt8(8))
    case .endInput: out.number(UInt8(9))
    }
    return out.bytes
  }

  package init(bytes: [UInt8]) throws(MalformedBytes) {
    var input = ByteReader(bytes, "request to a shim")
    switch try input.number(UInt8.self) {
    case 1: self = .go
    case 2: self = .status
    case 3: self = .signal(try input.number())
    case 4: self = .acknowledge
    case 5: self = .exec(id: try input.number())
    case 6: self = .execGo(id: try input.number())
    case 7: self = .execSignal(id: try input.number(), try input.number())
    case 8: self = .input
    case 9: self = .endInput
    default: throw input.fail()
    }
    guard input.isAtEnd else { throw input.fail() }
  }
}

/// What a shim tells: its state when asked or changed, and answers. The longest is `maximumBytes`.
package enum ShimReply: Sendable, Equatable {
  package static let maximumBytes = 8192

  case state(nonce: String, RunState)
  /// The answer to `signal`: 0 or an errno.
  case signalled(Int32)
  /// So many bytes of output could not be kept so far.
  case outputLost(UInt64)
  /// How far a command of this connection is.
  case exec(id: UInt32, ExecState)
  /// What the app said by its notify socket: whether it ever said that it is ready, and the last message with a status, unread.
  case told(ready: Bool, status: [UInt8])
  /// The answer to `input`, with the descriptor beside it.
  case input

  package var bytes: [UInt8] {
    var out = ByteWriter()
    switch self {
    case .state(let nonce, let state):
      out.number(UInt8(1))
      out.text(nonce)
      state.write(to: &out)
    case .signalled(let code):
      out.number(UInt8(2))
      out.number(code)
    case .outputLost(let count):
      out.number(UInt8(3))
      out.number(count)
    case .exec(let id, let state):
      out.number(UInt8(4))
      out.number(id)
      state.write(to: &out)
    case .told(let ready, let status):
      out.number(UInt8(5))
      out.flag(ready)
      out.block(status)
    case .input: out.number(UInt8(6))
    }
    return out.bytes
  }

  package init(bytes: [UInt8]) throws(MalformedBytes) {
    var input = ByteReader(bytes, "reply of a shim")
    switch try input.number(UInt8.self) {
    case 1: self = .state(nonce: try input.text(), try RunState(&input))
    case 2: self = .signalled(try input.number())
    case 3: self = .outputLost(try input.number())
    case 4: self = .exec(id: try input.number(), try ExecState(&input))
    case 5: self = .told(ready: try input.flag(), status: try input.block())
    case 6: self = .input
    default: throw input.fail()
    }
    guard input.isAtEnd else { throw input.fail() }
  }
}

/// Where a run is.
package enum RunState: Sendable, Equatable {
  case preparing
  case running(RunningFacts)
  case ended(RunOutcome)

  func write(to out: inout ByteWriter) {
    switch self {
    case .preparing: out.number(UInt8(0))
    case .running(let facts):
      out.number(UInt8(1))
      out.number(facts.pid)
      out.number(facts.init1)
      out.number(facts.startedAt)
      out.number(facts.landlock)
      out.list(facts.ports) { $0.number($1) }
    case .ended(let outcome):
      out.number(UInt8(2))
      out.text(outcome.text)
    }
  }

  init(_ input: inout ByteReader) throws(MalformedBytes) {
    switch try input.number(UInt8.self) {
    case 0: self = .preparing
    case 1:
      self = .running(
        RunningFacts(
          pid: try input.number(), init1: try input.number(), startedAt: try input.number(),
          landlock: try input.number(),
          ports: try input.list { (input) throws(MalformedBytes) in try input.number() }))
    case 2: self = .ended(try RunOutcome(text: try input.text()))
    default: throw input.fail()
    }
  }
}

/// A running program, as its shim sees it.
package struct RunningFacts: Sendable, Equatable {
  /// The app's first process and the first of its pid namespace, in the host's numbering.
  package var pid: Int32
  package var init1: Int32
  /// Wall clock, nanoseconds.
  package var startedAt: Int64
  /// The ABI of the Landlock rules it is held to; 0: none.
  package var landlock: UInt8
  /// The host ports taken, in the plan's order.
  package var ports: [UInt16]

  package init(pid: Int32, init1: Int32, startedAt: Int64, landlock: UInt8 = 0, ports: [UInt16]) {
    self.landlock = landlock
    self.pid = pid
    self.init1 = init1
    self.startedAt = startedAt
    self.ports = ports
  }
}

/// How a run ended; kept as `state/runs/APP.GENERATION` until a daemon has acknowledged it. One `key value` per line.
package struct RunOutcome: Sendable, Equatable {
  package enum Cause: Sendable, Equatable {
    case code(Int32)
    case signal(Int32)
    /// The program never ran: at which step, why, and the errno (0: none).
    case neverStarted(step: String, reason: String, code: Int32)
  }
  package var nonce: String
  package var cause: Cause
  package var outOfMemory = false
  package var startedAt: Int64?
  package var endedAt: Int64
  /// Bytes of output that could not be kept.
  package var outputLost: UInt64 = 0

  package init(nonce: String, cause: Cause, startedAt: Int64?, endedAt: Int64) {
    self.nonce = nonce
    self.cause = cause
    self.startedAt = startedAt
    self.endedAt = endedAt
  }

  private static let header = "appsupervisor-run 1"

  package var text: String {
    var lines = [Self.header, "nonce \(nonce)", "ended \(endedAt)", "oom \(outOfMemory ? 1 : 0)", "lost \(outputLost)"]
    if let startedAt { lines.append("started \(startedAt)") }
    switch cause {
    case .code(let code): lines.append("code \(code)")
    case .signal(let number): lines.append("signal \(number)")
    case .neverStarted(let step, let reason, let code):
      lines += ["errno \(code)", "step \(step)", "reason \(String(reason.map { $0 == "\n" ? " " : $0 }))"]
    }
    return lines.joined(separator: "\n") + "\n"
  }

  package init(text: String) throws(MalformedBytes) {
    let lines = text.split(separator: "\n")
    guard lines.first == Self.header[...] else { throw MalformedBytes(what: "run record") }
    var values: [Substring: Substring] = [:]
    for line in lines.dropFirst() {
      guard let space = line.firstIndex(of: " ") else { throw MalformedBytes(what: "run record") }
      values[line[..<space]] = line[line.index(after: space)...]
    }
    guard let nonce = values["nonce"], let ended = values["ended"].flatMap({ Int64($0) }) else {
      throw MalformedBytes(what: "run record")
    }
    let cause: Cause
    if let code = values["code"].flatMap({ Int32($0) }) {
      cause = .code(code)
    } else if let number = values["signal"].flatMap({ Int32($0) }) {
      cause = .signal(number)
    } else if let step = values["step"], let reason = values["reason"] {
      let code = values["errno"].flatMap { Int32($0) } ?? 0
      cause = .neverStarted(step: String(step), reason: String(reason), code: code)
    } else {
      throw MalformedBytes(what: "run record")
    }
    self.init(
      nonce: String(nonce), cause: cause, startedAt: values["started"].flatMap { Int64($0) }, endedAt: ended)
    outOfMemory = values["oom"] == "1"
    outputLost = values["lost"].flatMap { UInt64($0) } ?? 0
  }
}
