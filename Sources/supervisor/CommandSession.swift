internal import CLinux
internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// This terminal given to somebody else: keys come as they are pressed.
enum RawTerminal {
  // SAFETY: the CLI has one thread.
  nonisolated(unsafe) private static var before: termios?

  /// Nothing where standard input is no terminal. However this program ends, but by SIGKILL, the terminal is given back.
  static func begin() {
    var now = termios()
    guard before == nil, tcgetattr(0, &now) == 0 else { return }
    let kept = now
    cfmakeraw(&now)
    guard tcsetattr(0, TCSANOW, &now) == 0 else { return }
    before = kept
    atexit { RawTerminal.end() }
  }

  static func end() {
    guard var kept = before else { return }
    before = nil
    tcsetattr(0, TCSADRAIN, &kept)
  }
}

/// One command inside an app, joined to this program's own streams until it ends. One thread and poll(2); bytes go between pipes without
/// passing this program where the kernel can do it.
final class CommandSession {
  private let client: RPCClient
  private let signals: Descriptor
  private let terminal: Bool
  private var token = ""
  private var output: SharedDescriptor?
  private var errors: SharedDescriptor?
  private var input: SharedDescriptor?
  /// The way they come.
  private var arriving: SharedDescriptor?
  /// What was typed or piped and not taken yet.
  private var typed: ArraySlice<UInt8> = []
  private var readsInput: Bool
  private var hasAskedToEnd = false
  private let leaving: Leaving
  private var keys = DetachKeys()

  /// What lets go of the streams and leaves the program to itself.
  enum Leaving {
    /// Nothing does.
    case never
    /// Ctrl-P Ctrl-Q at a terminal.
    case byKeys
    /// That, and where there is no terminal in between, Ctrl-C.
    case byInterrupt
  }

  /// The caller let go; what it was joined to goes on.
  struct Detached: Error {}

  init(_ client: RPCClient, input: Bool, terminal: Bool, leaving: Leaving = .never) throws {
    self.client = client
    self.terminal = terminal
    self.leaving = leaving
    readsInput = input
    signals = Descriptor(owning: try checkShim("signalfd") { cl_terminal_signals() })
  }

  /// Returns the answer of `app.exec`, or of another method that joins streams. `arguments` are its own without those of streams.
  func run(_ arguments: JSONObject, of method: String = "app.exec") throws -> JSONValue {
    let (ours, theirs) = try UnixSocket.pair(.packets)
    arriving = ours
    var arguments = arguments
    arguments["streams_fd"] = 0
    arguments["input"] = .bool(readsInput)
    if terminal {
      let size = PseudoTerminal.size(1) ?? PseudoTerminal.size(0) ?? TerminalSize(columns: 80, rows: 24)
      arguments["columns"] = .integer(Int64(size.columns))
      arguments["rows"] = .integer(Int64(size.rows))
    }
    let call = try theirs.withRaw { raw in
      try client.begin(method, .object(arguments), descriptors: [raw])
    }
    // Ours only: its end is then seen when the daemon has none.
    _ = consume theirs
    defer { RawTerminal.end() }
    while true {
      let ready = try wait()
      if ready.signal { try heedSignals() }
      if ready.streams, let arriving {
        try takeStreams(arriving)
        if output != nil, terminal { RawTerminal.begin() }
      }
      if ready.output { copyOut(&output, 1) }
      if ready.errors { copyOut(&errors, 2) }
      if ready.typing { try readInput() }
      if ready.input { writeInput() }
      guard ready.daemon else { continue }
      do {
        for message in try client.take() {
          switch message {
          case .answer(call, let answer):
            drain()
            return answer
          case .failure(call, let failure):
            drain()
            throw Self.failure(failure)
          case .answer, .failure, .item: continue
          }
        }
      } catch RPCClient.Stop.disconnected(let why) {
        // The command goes on: what it still says is shown, but its exit code is nobody's to know.
        drainToEnd()
        throw Failure(
          125, "the daemon went away: \(why); how the command ended is not known",
          hint: "apps run on; `supervisor up -d` starts a daemon again", name: "unreachable")
      }
    }
  }

  private static func failure(_ failure: RPCFailure) -> Failure {
    let plain = Failure(failure)
    let code: Int32 =
      switch failure.data?["reason"]?.stringValue {
      case "command_not_found": 127
      case "not_executable": 126
      case "not_running": 7
      default: [4, 2].contains(plain.code) ? plain.code : 125
      }
    return Failure(code, plain.message, hint: plain.hint, name: plain.name)
  }

  // MARK: Waiting

  private struct Ready {
    var signal = false, daemon = false, streams = false, output = false, errors = false, typing = false, input = false
  }

  private func wait() throws -> Ready {
    var waits: [pollfd] = []
    func add(_ raw: Int32, _ events: Int32, _ wanted: Bool = true) {
      waits.append(pollfd(fd: wanted ? raw : -1, events: Int16(events), revents: 0))
    }
    add(signals.withRaw { $0 }, POLLIN)
    add(client.raw, POLLIN)
    add(arriving?.withRaw { $0 } ?? -1, POLLIN)
    // A reader of ours that stands still is waited for first, then the command is read.
    let canPrint = [Int32(1), 2].map { Self.isWritable($0) }
    add(output?.withRaw { $0 } ?? -1, POLLIN, canPrint[0])
    add(errors?.withRaw { $0 } ?? -1, POLLIN, canPrint[1])
    add(0, POLLIN, readsInput && typed.isEmpty && input != nil)
    add(input?.withRaw { $0 } ?? -1, POLLOUT, !typed.isEmpty)
    add(1, POLLOUT, !canPrint[0] && output != nil)
    add(2, POLLOUT, !canPrint[1] && errors != nil)
    try check("poll") { poll(&waits, nfds_t(waits.count), -1) }
    func isReady(_ place: Int) -> Bool { waits[place].revents != 0 }
    return Ready(
      signal: isReady(0), daemon: isReady(1), streams: isReady(2), output: isReady(3), errors: isReady(4),
      typing: isReady(5), input: isReady(6))
  }

  private static func isWritable(_ raw: Int32) -> Bool {
    var wait = pollfd(fd: raw, events: Int16(POLLOUT), revents: 0)
    return poll(&wait, 1, 0) > 0
  }

  // MARK: What comes

  private func takeStreams(_ socket: SharedDescriptor) throws {
    arriving = nil
    let packet = try socket.withRaw { raw in try UnixSocket.receivePacket(raw, limit: 512) }
    var kinds = packet.bytes[...]
    var given = packet.descriptors[...]
    while let kind = kinds.first, let descriptor = given.popFirst() {
      kinds = kinds.dropFirst()
      switch kind {
      case UInt8(ascii: "o"): output = descriptor
      case UInt8(ascii: "e"): errors = descriptor
      default: input = descriptor
      }
      // Never waited for: what is ready is known from poll.
      try descriptor.withRaw { raw in
        let flags = try check("fcntl", "F_GETFL") { fcntl(raw, F_GETFL) }
        try check("fcntl", "F_SETFL") { fcntl(raw, F_SETFL, flags | O_NONBLOCK) }
      }
    }
    token = String(decoding: kinds, as: UTF8.self)
  }

  private func heedSignals() throws {
    while let number = Self.nextSignal(signals.withRaw { $0 }) {
      switch number {
      case UInt32(SIGWINCH):
        guard terminal, !token.isEmpty, let size = PseudoTerminal.size(1) ?? PseudoTerminal.size(0) else { continue }
        _ = try client.begin(
          "app.exec.order",
          .object([
            "exec": .string(token), "columns": .integer(Int64(size.columns)), "rows": .integer(Int64(size.rows)),
          ]))
      case UInt32(SIGHUP):
        // The terminal is gone: the daemon hangs up on the command when we are.
        throw Failure(129, "the terminal went away")
      // What it is joined to is not this program's to end.
      case _ where leaving == .byInterrupt: throw Detached()
      default:
        // Asked again, or before there is a command: not waited for.
        guard !token.isEmpty, !hasAskedToEnd else { throw Failure(128 + Int32(number), "interrupted") }
        hasAskedToEnd = true
        _ = try client.begin(
          "app.exec.order",
          .object(["exec": .string(token), "signal": .string(SignalName.name(of: Int32(number)) ?? "\(number)")]))
      }
    }
  }

  private static func nextSignal(_ raw: Int32) -> UInt32? {
    // ssi_signo stands first in signalfd_siginfo (signalfd(2)).
    var room = [UInt32](repeating: 0, count: 32)
    let got = room.withUnsafeMutableBytes { read(raw, $0.baseAddress, $0.count) }
    return got == 128 ? room[0] : nil
  }

  // MARK: Bytes

  /// Some of what the command wrote, to our own stream. False at the end or when nothing waits.
  @discardableResult
  private func copyOut(_ source: inout SharedDescriptor?, _ target: Int32, most: Int = 65536) -> Bool {
    guard let from = source else { return false }
    let moved = from.withRaw { raw -> Int? in
      if !terminal, let moved = try? Pipe.splice(raw, target, most), moved > 0 { return moved }
      return Self.copy(raw, target)
    }
    guard let moved else { return false }
    if moved == 0 { source = nil }
    return moved > 0
  }

  /// For what the kernel cannot move by itself (a terminal). 0: the end; nil: nothing waits.
  private static func copy(_ raw: Int32, _ target: Int32) -> Int? {
    var room = [UInt8](repeating: 0, count: 4096)
    let got = read(raw, &room, room.count)
    if got < 0 { return lastErrorIsTemporary() ? nil : 0 }
    if got > 0 { Output.bytes(target, Array(room[..<got])) }
    return got
  }

  private func readInput() throws {
    var room = [UInt8](repeating: 0, count: 65536)
    let got = read(0, &room, room.count)
    guard got > 0 else {
      if got < 0, lastErrorIsTemporary() { return }
      readsInput = false
      // A terminal has no end to be closed: its Ctrl-D was sent as it was typed.
      if terminal, isatty(0) == 0 { typed = [4] } else if !terminal { input = nil }
      return
    }
    guard leaving != .never, terminal else {
      typed = room[..<got]
      return writeInput()
    }
    let (bytes, isOver) = keys.take(room[..<got])
    typed = bytes[...]
    writeInput()
    if isOver { throw Detached() }
  }

  private func writeInput() {
    guard let input, !typed.isEmpty else { return }
    let wrote = input.withRaw { raw in typed.withUnsafeBytes { write(raw, $0.baseAddress, $0.count) } }
    if wrote >= 0 {
      typed = typed.dropFirst(wrote)
    } else if !lastErrorIsTemporary() {
      // It reads no more; what it writes goes on.
      typed = []
      readsInput = false
      self.input = nil
    }
  }

  /// The command has ended: what it wrote before is all there now.
  private func drain() {
    while copyOut(&output, 1) {}
    while copyOut(&errors, 2) {}
  }

  private func drainToEnd() {
    input = nil
    while output != nil || errors != nil {
      var waits = [output, errors].map { pollfd(fd: $0?.withRaw { $0 } ?? -1, events: Int16(POLLIN), revents: 0) }
      waits.append(pollfd(fd: signals.withRaw { $0 }, events: Int16(POLLIN), revents: 0))
      guard poll(&waits, 3, -1) >= 0, waits[2].revents == 0 else { return }
      if waits[0].revents != 0 { copyOut(&output, 1) }
      if waits[1].revents != 0 { copyOut(&errors, 2) }
    }
  }
}

/// Ctrl-P Ctrl-Q among what is typed.
struct DetachKeys {
  private static let keys: (first: UInt8, second: UInt8) = (16, 17)
  private var isHalf = false

  /// What is to be passed on (a Ctrl-P waits for the key after it), and whether the keys were pressed.
  mutating func take(_ typed: some Sequence<UInt8>) -> (bytes: [UInt8], isOver: Bool) {
    var bytes: [UInt8] = []
    for key in typed {
      if isHalf, key == Self.keys.second { return (bytes, true) }
      if isHalf { bytes.append(Self.keys.first) }
      isHalf = key == Self.keys.first
      if !isHalf { bytes.append(key) }
    }
    return (bytes, false)
  }
}
