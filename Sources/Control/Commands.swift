internal import Linux
internal import Model
internal import Policies
internal import RPC
internal import Supervision
internal import Synchronization

/// Commands under way, by the token their caller was told.
final class CommandTable: Sendable {
  private struct Entry {
    var uid: UInt32
    var orders: AsyncStream<ExecOrder>.Continuation
  }
  // Guards: who may order what.
  private let entries = Mutex<[String: Entry]>([:])

  func add(_ uid: UInt32, _ orders: AsyncStream<ExecOrder>.Continuation) -> String {
    let token = Nonce.make()
    entries.withLock { $0[token] = Entry(uid: uid, orders: orders) }
    return token
  }

  func remove(_ token: String) { entries.withLock { $0[token] = nil } }

  /// False: there is no such command, or it is somebody else's.
  func order(_ order: ExecOrder, _ token: String, by uid: UInt32) -> Bool {
    let entry = entries.withLock { $0[token] }
    guard let entry, entry.uid == uid || uid == 0 else { return false }
    entry.orders.yield(order)
    return true
  }
}

extension ControlService {
  // MARK: exec

  /// `app.exec`: the caller passes one end of a packet socket, over which it gets its ends of the command's streams before that runs.
  /// The call's end is the command's; a caller that goes away hangs up on it.
  func exec(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    guard let name = try arguments.text("app") else { throw RPCFailure(.invalidParameters, "app is missing") }
    guard let id = try await resolve([name]).first else { throw RPCFailure(.notFound, "no app is named '\(name)'") }
    guard let command = try arguments.texts("command"), let program = command.first, !program.isEmpty else {
      throw RPCFailure(.invalidParameters, "command must name a program")
    }
    var request = ExecRequest(command)
    request.environment = try arguments.map("environment").sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    guard request.environment.allSatisfy({ !$0.name.isEmpty && !$0.name.contains("=") }) else {
      throw RPCFailure(.invalidParameters, "a variable's name is not empty and has no '='")
    }
    request.workingFolder = try arguments.text("folder")
    if let user = try arguments.text("user") {
      guard let user = ExecUser(user) else {
        throw RPCFailure(
          .invalidParameters, "'\(user)' is not a user", hint: "write numbers, UID or UID:GID: names are the app's own")
      }
      // Root in the app reads what root on the host may read, where it can see it.
      guard access.everywhere == .admin else { throw access.denied("exec as another user", .admin) }
      request.user = user
    }
    request.timeout = try arguments.integer("timeout_ms").map { .milliseconds(max(1, min($0, 1 << 40))) }
    let (orders, feed) = AsyncStream.makeStream(of: ExecOrder.self, bufferingPolicy: .bufferingNewest(64))
    request.orders = orders
    let token = commands.add(call.peer.uid, feed)
    defer { commands.remove(token) }
    request.streams = try streams(call, arguments, token)
    await supervisor.noteExec(id, program: program, uid: call.peer.uid)
    do throws(OperationFailure) {
      return Self.json(try await supervisor.exec(id, request))
    } catch { throw RPCFailure(exec: error) }
  }

  /// `app.attach`
  func attach(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let id = try await one(arguments)
    var (request, token) = try visit(call, arguments)
    defer { commands.remove(token) }
    request.endsInput = try arguments.flag("ends_input")
    let starts = try arguments.flag("start")
    do throws(OperationFailure) { try await supervisor.attach(id, request, starting: starts) } catch {
      throw RPCFailure(error)
    }
    return .object([:])
  }

  /// `app.debug`: a caller that goes away ends it.
  func debug(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let id = try await one(arguments)
    guard let command = try arguments.texts("command"), let program = command.first, !program.isEmpty,
      command.allSatisfy({ !$0.utf8.contains(0) })
    else { throw RPCFailure(.invalidParameters, "command must name a program") }
    var (request, token) = try visit(call, arguments)
    defer { commands.remove(token) }
    request.endsInput = true
    var debug = DebugRequest(command, request)
    debug.environment = try arguments.map("environment").sorted { $0.key < $1.key }.map { ($0.key, $0.value) }
    let words = command + debug.environment.flatMap { [$0.name, $0.value] }
    guard debug.environment.allSatisfy({ !$0.name.isEmpty && !$0.name.contains("=") && !$0.value.utf8.contains(0) }),
      words.reduce(0, { $0 + $1.utf8.count + 1 }) <= ExecRequest.maximumBytes
    else {
      throw RPCFailure(
        .invalidParameters,
        "a variable's name is not empty and has no '=', and all words together have at most \(ExecRequest.maximumBytes >> 10) KiB"
      )
    }
    await supervisor.noteExec(id, program: program, uid: call.peer.uid)
    do throws(OperationFailure) { return Self.json(try await supervisor.debug(id, debug)) } catch {
      throw RPCFailure(exec: error)
    }
  }

  private func visit(_ call: RPCCall, _ arguments: Arguments) throws(RPCFailure) -> (AttachRequest, token: String) {
    let (orders, feed) = AsyncStream.makeStream(of: ExecOrder.self, bufferingPolicy: .bufferingNewest(64))
    let token = commands.add(call.peer.uid, feed)
    do throws(RPCFailure) {
      guard try arguments.integer("streams_fd") != nil else {
        throw RPCFailure(.invalidParameters, "streams_fd is missing")
      }
      var request = AttachRequest(try streams(call, arguments, token))
      request.orders = orders
      return (request, token)
    } catch {
      commands.remove(token)
      throw error
    }
  }

  private func streams(_ call: RPCCall, _ arguments: Arguments, _ token: String) throws(RPCFailure) -> ExecStreams {
    guard let place = try arguments.integer("streams_fd") else {
      let most = try arguments.integer("keep") ?? 65_536
      return .keep(Int(max(0, min(most, 1 << 20))))
    }
    guard place >= 0, place < call.descriptors.count else {
      throw RPCFailure(.invalidParameters, "streams_fd names no descriptor that came with the call")
    }
    let socket = call.descriptors[Int(place)]
    var size: TerminalSize?
    if let columns = try arguments.integer("columns"), let rows = try arguments.integer("rows") {
      size = TerminalSize(columns: UInt16(clamping: columns), rows: UInt16(clamping: rows))
    }
    return .connect(input: try arguments.flag("input"), terminal: size) { (ends) throws(HostFailure) in
      guard let ends = ends as? DescriptorEnds else { return }
      let all = [ends.output, ends.errors, ends.input]
      let kinds = zip("oei", all).compactMap { $0.1 == nil ? nil : $0.0.asciiValue }
      do throws(SystemFault) {
        try socket.withRaw { (raw) throws(SystemFault) in
          try UnixSocket.offer(raw, kinds + Array(token.utf8), descriptors: all.compactMap { $0?.withRaw { $0 } })
        }
      } catch { throw HostFailure(.failed, "the streams could not be handed to the caller: \(error)") }
    }
  }

  private static func json(_ end: ExecEnd) -> JSONValue {
    let (cause, reason): (String, String?) =
      switch end.cause {
      case .code: ("code", nil)
      case .signal(let number): ("signal", SignalName.name(of: number) ?? "\(number)")
      case .timedOut: ("timed_out", nil)
      case .lost(let why): ("lost", why)
      }
    let text = String(validating: end.output, as: UTF8.self)
    return .object([
      "exit_code": .integer(Int64(end.exitCode)), "cause": .string(cause), "reason": .optional(reason),
      "output": end.output.isEmpty ? nil : text.map { .string($0) },
      "output_base64": text == nil ? .string(Base64.encode(end.output)) : nil, "dropped": .count(end.dropped),
    ])
  }

  /// `app.exec.order`: a new terminal size, or a signal.
  func order(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    guard let token = try arguments.text("exec") else { throw RPCFailure(.invalidParameters, "exec is missing") }
    var orders: [ExecOrder] = []
    if let columns = try arguments.integer("columns"), let rows = try arguments.integer("rows") {
      orders.append(.resize(TerminalSize(columns: UInt16(clamping: columns), rows: UInt16(clamping: rows))))
    }
    if let text = try arguments.text("signal") {
      guard let number = SignalName.number(text) else {
        throw RPCFailure(.invalidParameters, "'\(text)' is not a signal")
      }
      orders.append(.signal(number))
    }
    guard !orders.isEmpty else { throw RPCFailure(.invalidParameters, "columns and rows, or a signal, are missing") }
    for order in orders {
      guard commands.order(order, token, by: call.peer.uid) else {
        throw RPCFailure(.notFound, "there is no such command, or it has ended")
      }
    }
    return .object([:])
  }
}

extension RPCFailure {
  /// As `exec`'s caller tells it: 126 and 127 as docker does.
  fileprivate init(exec failure: OperationFailure) {
    self.init(failure)
    guard case .host(let host) = failure else { return }
    let reason: String? =
      switch host.kind {
      case .missing: "command_not_found"
      case .refused: "not_executable"
      case .conflict: host.message.hasSuffix("is not running") ? "not_running" : nil
      case .unavailable, .failed: nil
      }
    if let reason {
      var members: JSONObject = JSONObject()
      members["reason"] = .string(reason)
      if let hint = host.hint { members["hint"] = .string(hint) }
      data = .object(members)
      if reason == "not_running" { code = Code.conflict.rawValue }
    }
  }
}
