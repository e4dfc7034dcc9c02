internal import Glibc
package import Linux
package import Model

/// One call being served.
package struct RPCCall: Sendable {
  /// Who made the connection, as the kernel says.
  package let peer: PeerCredentials
  package let method: String
  package let parameters: JSONValue
  /// What was passed with the call's frame (SCM_RIGHTS), in order; `"fd": 0` in its parameters means the first.
  package let descriptors: [SharedDescriptor]
  /// How many answers come in one frame with this one's: it has that part of a frame.
  package let share: Int
  fileprivate let id: RPCID?
  fileprivate let connection: UInt64
  fileprivate let server: RPCServer

  /// Sends one item ahead of the answer. Suspends while the peer is slow to read; throws CancellationError once it is gone.
  package func send(_ item: JSONValue) async throws {
    guard let id else { return }
    try await server.send(Outgoing.item(id, item), on: connection)
  }

  /// Suspends while the peer has not read what it was answered before; throws CancellationError once it is gone. For who is about to
  /// make a large answer.
  package func room() async throws { try await server.room(on: connection) }
}

extension RPCCall {
  /// The same peer's call of something else, answered in the place of this one.
  package func instead(_ method: String, _ parameters: JSONValue) -> RPCCall {
    RPCCall(
      peer: peer, method: method, parameters: parameters, descriptors: descriptors, share: share, id: id,
      connection: connection, server: server)
  }
}

/// How a call is answered.
package enum RPCAnswer: Sendable {
  case now(JSONValue)
  /// By a task of its own, which is cancelled when the peer cancels the call or goes away.
  case later(@Sendable () async throws(RPCFailure) -> JSONValue)
  /// The same, with a descriptor for the peer beside the result.
  case handing(@Sendable () async throws(RPCFailure) -> RPCHanded)
  /// At once; what the body has to tell from then on follows, by a task of its own that is cancelled when the peer goes away.
  case stream(JSONValue, @Sendable (RPCNotices) async -> Void)
}

/// A result that brings a descriptor: it is sent with the first byte of its frame (SCM_RIGHTS), and the member `fd` of the result says
/// which of the frame's descriptors it is. Closed here once it is sent, or cannot be.
package struct RPCHanded: Sendable {
  package var result: JSONObject
  package var descriptor: SharedDescriptor

  package init(_ result: JSONObject, _ descriptor: SharedDescriptor) {
    self.result = result
    self.descriptor = descriptor
  }
}

/// What a server serves.
package protocol RPCService: Sendable {
  /// Begins one call, on the server's loop: it must not block. What takes its time is answered later.
  func begin(_ call: RPCCall) throws(RPCFailure) -> RPCAnswer
}

/// Serves one listening socket on an event loop. Each call runs as a task of its own; calls of a connection may be answered out of
/// order. A peer that does not read is waited for, then closed; it costs nothing but its own buffer.
package actor RPCServer {
  /// Bounds a connection is held to (security.md 2.6).
  private static let inFlight = 128
  static let maximumConnections = 1024
  private static let acceptedAtOnce = 16
  private static let incompleteFrame = Duration.seconds(10)
  private static let stalledReader = Duration.seconds(10)
  /// Descriptors that one message may bring, and that may wait for the rest of their frame.
  private static let passedDescriptors = 8
  /// Frames with descriptors that may wait to be sent; above it, no request is read.
  private static let unsentDescriptors = 16
  /// Above this many unsent bytes, senders wait and no request is read.
  static let highWater = 1 << 20

  /// Touched only on the loop, by this actor.
  final class Connection {
    let socket: Descriptor
    let peer: PeerCredentials
    var reader = FrameReader()
    var output: [UInt8] = []
    var sent = 0
    /// What goes with the byte at a place of `output`, in order.
    var passing: [(place: Int, descriptors: [SharedDescriptor])] = []
    var tasks: [RPCID: Task<Void, Never>] = [:]
    var running = 0
    var waiting: [CheckedContinuation<Void, Never>] = []
    /// What goes on without an id of its own: streams, batches, notifications; and the streams that wait until the peer has read.
    var streams: [UInt64: Task<Void, Never>] = [:]
    var patient: [CheckedContinuation<Void, Never>] = []
    /// What was passed, with the place in the stream of the last byte it came with.
    var passed: [(place: Int, descriptors: [SharedDescriptor])] = []
    var deadline: EventLoop.TimerID?
    var writeDeadline: EventLoop.TimerID?
    /// Nothing more is read; closed once the output is written.
    var closing = false
    /// More answers may follow at once: all are written together then.
    var isCorked = false
    /// Its user is bound by the quota, whose name this is.
    let quotaUser: UInt32?

    init(socket: consuming Descriptor, peer: PeerCredentials, quotaUser: UInt32?) {
      self.socket = socket
      self.peer = peer
      self.quotaUser = quotaUser
    }
    var unsent: Int { output.count - sent }
  }

  private let loop: EventLoop
  private let listener: SharedDescriptor
  private let service: any RPCService
  private let admits: @Sendable (PeerCredentials) -> Bool
  let quota: PeerQuota
  /// By user, of those whom the quota binds.
  var uses: [UInt32: PeerUse] = [:]
  /// Users of whom something waits for room.
  var held: Set<UInt32> = []
  private(set) var connections: [UInt64: Connection] = [:]
  private var nextConnection: UInt64 = 1
  var nextStream: UInt64 = 1
  private var accepting = false
  /// Waits for the last connection to be gone.
  private var emptied: CheckedContinuation<Void, Never>?

  package nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  /// Serves `listener` once `start` is called. A peer that `admits` refuses is closed before anything of it is read.
  package init(
    loop: EventLoop, listener: consuming Descriptor, service: any RPCService, quota: PeerQuota = .none,
    admits: @escaping @Sendable (PeerCredentials) -> Bool = { _ in true }
  ) {
    self.admits = admits
    self.quota = quota
    self.loop = loop
    self.listener = SharedDescriptor(listener)
    self.service = service
  }

  /// Begins to accept.
  package func start() throws(SystemFault) {
    try listener.withRaw { (raw) throws(SystemFault) in
      try loop.watch(raw, .read) { [unowned self] _ in assumeIsolated { $0.accept() } }
    }
    accepting = true
  }

  /// Stops accepting, cancels what is being served, lets answers under way be written for at most half a second, and closes every
  /// connection.
  package func close() async {
    if accepting { listener.withRaw { loop.unwatch($0) } }
    accepting = false
    for (id, connection) in connections { closeSoon(id, connection) }
    guard !connections.isEmpty else { return }
    await withCheckedContinuation { continuation in
      emptied = continuation
      loop.schedule(after: .milliseconds(500)) { [weak self] in
        self?.assumeIsolated { server in for id in server.connections.keys { server.drop(id) } }
      }
    }
  }

  /// Reads no more; closed once what is being served has been answered and written.
  private func closeSoon(_ id: UInt64, _ connection: Connection) {
    connection.closing = true
    for task in connection.tasks.values { task.cancel() }
    for stream in connection.streams.values { stream.cancel() }
    flush(id)
  }

  /// How many connections are open.
  package var connectionCount: Int { connections.count }

  // MARK: Connections

  private func accept() {
    for _ in 0..<Self.acceptedAtOnce {
      guard connections.count < Self.maximumConnections else { return pauseAccepting() }
      do throws(SystemFault) {
        let socket = try listener.withRaw { (raw) throws(SystemFault) in try UnixSocket.accept(raw) }
        guard let socket else { return }
        try admit(socket)
      } catch {
        // Out of descriptors: leave the rest in the backlog for a moment instead of spinning on it.
        pauseAccepting()
        return
      }
    }
    // What is left waits for what others have sent: one who connects without end must not keep this loop to herself.
  }

  private func pauseAccepting() {
    listener.withRaw { loop.setInterest($0, []) }
    loop.schedule(after: .milliseconds(100)) { [weak self] in
      self?.assumeIsolated { server in
        if server.accepting { server.listener.withRaw { server.loop.setInterest($0, .read) } }
      }
    }
  }

  private func admit(_ socket: consuming Descriptor) throws(SystemFault) {
    let peer = try socket.withRaw { (raw) throws(SystemFault) in try UnixSocket.peer(raw) }
    guard admits(peer) else { return }
    let quotaUser = quota.party(peer)
    if let quotaUser, let why = refusal(of: quotaUser) {
      var words: [UInt8] = []
      Outgoing.failure(nil, why).write(to: &words)
      let frame = Framing.lines.frame(words)
      // best effort: a peer that is told nothing sees the end.
      socket.withRaw { raw in _ = try? UnixSocket.send(raw, frame[...]) }
      return
    }
    let id = nextConnection
    nextConnection += 1
    let connection = Connection(socket: socket, peer: peer, quotaUser: quotaUser)
    try connection.socket.withRaw { (raw) throws(SystemFault) in
      try loop.watch(raw, .read) { [unowned self] ready in assumeIsolated { $0.ready(id, ready) } }
    }
    connections[id] = connection
  }

  private func ready(_ id: UInt64, _ ready: EventLoop.Interest) {
    if ready.contains(.write) {
      flush(id)
      // What was read already and had to wait until the peer reads.
      if let connection = connections[id], !connection.closing { serve(id, connection) }
    }
    if ready.contains(.read) { receive(id) }
    if !ready.isDisjoint(with: .hangUp), let connection = connections[id], !ready.contains(.read) || connection.closing
    {
      drop(id)
    }
  }

  private func receive(_ id: UInt64) {
    guard let connection = connections[id], !connection.closing else { return }
    guard mayRead(connection) else { return updateInterest(id, connection) }
    var passed: [SharedDescriptor] = []
    do throws(SystemFault) {
      let got = try withUnsafeTemporaryAllocation(byteCount: 65536, alignment: 16) { (buffer) throws(SystemFault) in
        let got = try connection.socket.withRaw { (raw) throws(SystemFault) in
          try UnixSocket.receive(raw, into: buffer, most: Self.passedDescriptors, descriptors: &passed)
        }
        if got > 0 { connection.reader.append(UnsafeRawBufferPointer(rebasing: buffer[..<got])) }
        return got
      }
      guard got > 0 else { return drop(id) }
    } catch {
      if error.code != EAGAIN { drop(id) }
      return
    }
    if !passed.isEmpty {
      // The kernel ends a read after what descriptors came with, so they belong to the frame of its last byte.
      connection.passed.append((connection.reader.appended - 1, passed))
      guard connection.passed.count <= Self.passedDescriptors, !holdsTooManyDescriptors(connection) else {
        return drop(id)
      }
    }
    serve(id, connection)
  }

  func serve(_ id: UInt64, _ connection: Connection) {
    do throws(FrameFault) {
      connection.isCorked = true
      defer { connection.isCorked = false }
      while connection.running < Self.inFlight, connection.unsent < highWater(connection), !connection.closing,
        connection.passing.count < Self.unsentDescriptors, connections[id] != nil, mayCall(connection),
        let frame = try connection.reader.next()
      {
        take(frame, id, connection)
      }
    } catch {
      refuse(
        id, connection, RPCFailure(error == .tooLarge(limit: FrameLimits().frame) ? .tooLarge : .parse, error.message))
      return
    }
    flush(id)
    updateFrameDeadline(id, connection)
  }

  /// The descriptors that came with the frame just cut; those of what is no frame are closed.
  private func takePassed(_ connection: Connection) -> [SharedDescriptor] {
    guard !connection.passed.isEmpty else { return [] }
    let end = connection.reader.position
    let taken = connection.passed.prefix { $0.place < end }
    connection.passed.removeFirst(taken.count)
    return taken.flatMap(\.descriptors)
  }

  private func take(_ frame: ArraySlice<UInt8>, _ id: UInt64, _ connection: Connection) {
    let passed = takePassed(connection)
    do throws(JSONSyntaxError) {
      let value = try JSONValue(parsing: frame)
      if let batch = value.arrayValue {
        guard !batch.isEmpty, batch.count <= Self.inFlight else {
          refuse(id, connection, RPCFailure(.invalidRequest, "a batch has 1 to \(Self.inFlight) requests"))
          return
        }
        runBatch(
          batch, passed, id, connection, PeerUse(calls: batch.count, bytes: frame.count, descriptors: passed.count))
      } else {
        run(value, passed, id, connection, PeerUse(calls: 1, bytes: frame.count, descriptors: passed.count))
      }
    } catch {
      refuse(id, connection, RPCFailure(.parse, error.description))
    }
  }

  private func run(
    _ value: JSONValue, _ passed: [SharedDescriptor], _ id: UInt64, _ connection: Connection, _ use: PeerUse
  ) {
    switch IncomingCall.read(value) {
    case .failure(let rejected): write(Outgoing.failure(rejected.id, rejected.failure), id)
    case .success(let incoming) where incoming.method == "$/cancel":
      if let target = incoming.parameters["id"].flatMap({ RPCID($0) }) { connection.tasks[target]?.cancel() }
    case .success(let incoming):
      if let request = incoming.id, connection.tasks[request] != nil {
        write(Outgoing.failure(request, RPCFailure(.invalidRequest, "this id is already in use")), id)
        return
      }
      switch begin(makeCall(incoming, passed, 1, id, connection)) {
      case .answered(let answer): if let answer { write(answer, id) }
      case .later(let call, let body):
        let user = connection.quotaUser
        connection.running += 1
        charge(user, use)
        let number = nextStream
        nextStream += 1
        // Cancelled by $/cancel or when its connection is dropped.
        let task = Task {
          let answer = await Self.outcome(of: call, body)
          connection.streams[number] = nil
          self.finish(call, answer, id)
          self.credit(user, use)
        }
        if let request = incoming.id { connection.tasks[request] = task } else { connection.streams[number] = task }
      }
    }
  }

  private func runBatch(
    _ batch: [JSONValue], _ passed: [SharedDescriptor], _ id: UInt64, _ connection: Connection, _ use: PeerUse
  ) {
    let begun = batch.map { value in
      switch IncomingCall.read(value) {
      case .failure(let rejected): Begun.answered(Outgoing.failure(rejected.id, rejected.failure))
      case .success(let incoming): begin(makeCall(incoming, passed, batch.count, id, connection))
      }
    }
    guard begun.contains(where: { if case .later = $0 { true } else { false } }) else {
      let answers = begun.compactMap { if case .answered(let answer) = $0 { answer } else { nil } }
      if !answers.isEmpty { write(.array(answers), id) }
      return
    }
    let user = connection.quotaUser
    connection.running += 1
    charge(user, use)
    let number = nextStream
    nextStream += 1
    // Cancelled when its connection is dropped.
    connection.streams[number] = Task {
      var answers: [Answer] = []
      await withTaskGroup(of: (Int, Answer?).self) { group in
        for (place, call) in begun.enumerated() {
          group.addTask {
            switch call {
            case .answered(let answer): return (place, answer.map { Answer($0) })
            case .later(let call, let body): return (place, await Self.outcome(of: call, body))
            }
          }
        }
        var placed: [(Int, Answer)] = []
        for await (place, answer) in group { if let answer { placed.append((place, answer)) } }
        answers = placed.sorted { $0.0 < $1.0 }.map(\.1)
      }
      connection.streams[number] = nil
      self.finishBatch(answers, id)
      self.credit(user, use)
    }
  }

  private enum Body: Sendable {
    case plain(@Sendable () async throws(RPCFailure) -> JSONValue)
    case handing(@Sendable () async throws(RPCFailure) -> RPCHanded)
  }

  /// A message, with what is passed beside it.
  private struct Answer: Sendable {
    var message: JSONValue
    var descriptor: SharedDescriptor?

    init(_ message: JSONValue, _ descriptor: SharedDescriptor? = nil) {
      self.message = message
      self.descriptor = descriptor
    }

    /// Says in its result which of the frame's descriptors is its own.
    func numbered(_ index: Int) -> JSONValue {
      guard var object = message.objectValue, var result = object["result"]?.objectValue else { return message }
      result["fd"] = .integer(Int64(index))
      object["result"] = .object(result)
      return .object(object)
    }
  }

  private enum Begun: Sendable {
    /// Nil: a notification.
    case answered(JSONValue?)
    case later(RPCCall, Body)
  }

  private func begin(_ call: RPCCall) -> Begun {
    do throws(RPCFailure) {
      switch try service.begin(call) {
      case .now(let result): return .answered(call.id.map { Outgoing.result($0, result) })
      case .later(let body): return .later(call, .plain(body))
      case .handing(let body): return .later(call, .handing(body))
      case .stream(let result, let body):
        open(body, on: call.connection)
        return .answered(call.id.map { Outgoing.result($0, result) })
      }
    } catch { return .answered(call.id.map { Outgoing.failure($0, error) }) }
  }

  private func makeCall(
    _ incoming: IncomingCall, _ passed: [SharedDescriptor], _ share: Int, _ id: UInt64, _ connection: Connection
  ) -> RPCCall {
    RPCCall(
      peer: connection.peer, method: incoming.method, parameters: incoming.parameters, descriptors: passed,
      share: share, id: incoming.id, connection: id, server: self)
  }

  private static func outcome(of call: RPCCall, _ body: Body) async -> Answer? {
    do throws(RPCFailure) {
      switch body {
      case .plain(let body):
        let result = try await body()
        return call.id.map { Answer(Outgoing.result($0, result)) }
      case .handing(let body):
        let handed = try await body()
        return call.id.map { Answer(Outgoing.result($0, .object(handed.result)), handed.descriptor) }
      }
    } catch {
      return call.id.map { Answer(Outgoing.failure($0, error)) }
    }
  }

  private func finish(_ call: RPCCall, _ answer: Answer?, _ id: UInt64) {
    guard let connection = connections[id] else { return }
    if let request = call.id { connection.tasks[request] = nil }
    finishBatch(answer.map { [$0] } ?? [], id, asList: false)
  }

  private func finishBatch(_ answers: [Answer], _ id: UInt64, asList: Bool = true) {
    guard let connection = connections[id] else { return }
    connection.running -= 1
    var descriptors: [SharedDescriptor] = []
    let messages = answers.map { answer in
      guard let descriptor = answer.descriptor else { return answer.message }
      descriptors.append(descriptor)
      return answer.numbered(descriptors.count - 1)
    }
    if asList, !messages.isEmpty {
      write(.array(messages), id, descriptors)
    } else {
      for message in messages { write(message, id, descriptors) }
    }
    // Nothing to write still ends a connection that only waited for this.
    if connection.closing { flush(id) } else { serve(id, connection) }
  }

  // MARK: Output

  fileprivate func send(_ message: JSONValue, on id: UInt64) async throws {
    try Task.checkCancellation()
    guard connections[id] != nil else { throw CancellationError() }
    write(message, id)
    try await room(on: id)
  }

  fileprivate func room(on id: UInt64) async throws {
    guard let connection = connections[id] else { throw CancellationError() }
    if connection.unsent > highWater(connection) {
      await withCheckedContinuation { connection.waiting.append($0) }
      guard connections[id] != nil else { throw CancellationError() }
    }
  }

  func write(_ message: JSONValue, _ id: UInt64, _ descriptors: [SharedDescriptor] = []) {
    guard let connection = connections[id] else { return }
    var payload: [UInt8] = []
    message.write(to: &payload)
    if !descriptors.isEmpty { connection.passing.append((connection.output.count, descriptors)) }
    connection.output += (connection.reader.framing ?? .lines).frame(payload)
    if !connection.isCorked { flush(id) }
  }

  private func flush(_ id: UInt64) {
    guard let connection = connections[id] else { return }
    var progress = false
    while connection.unsent > 0 {
      if connection.passing.first?.place == connection.sent {
        guard pass(id, connection) else { break }
        progress = true
        continue
      }
      let end = connection.passing.first?.place ?? connection.output.count
      let wrote = connection.output.withUnsafeBytes { bytes in
        connection.socket.withRaw { raw in
          Glibc.send(raw, bytes.baseAddress?.advanced(by: connection.sent), end - connection.sent, Int32(MSG_NOSIGNAL))
        }
      }
      if wrote < 0 {
        if lastErrorIsTemporary() { break }
        drop(id)
        return
      }
      connection.sent += wrote
      progress = true
    }
    guard connections[id] != nil else { return }
    if connection.unsent == 0 {
      connection.output.removeAll(keepingCapacity: connection.output.count < 1 << 16)
      connection.sent = 0
      if connection.closing, connection.running == 0 {
        drop(id)
        return
      }
    }
    if connection.unsent <= highWater(connection), !connection.waiting.isEmpty {
      let waiting = connection.waiting
      connection.waiting = []
      for continuation in waiting { continuation.resume() }
    }
    if connection.unsent <= Self.noticeWater { wakePatient(connection) }
    updateWriteDeadline(id, connection, progress: progress)
    updateInterest(id, connection)
  }

  /// Sends what comes next with its descriptors; false: not now, or the connection is gone.
  private func pass(_ id: UInt64, _ connection: Connection) -> Bool {
    guard let first = connection.passing.first else { return false }
    let end = connection.passing.count > 1 ? connection.passing[1].place : connection.output.count
    do throws(SystemFault) {
      let raws = first.descriptors.map { $0.withRaw { $0 } }
      let bytes = connection.output[connection.sent..<end]
      connection.sent += try connection.socket.withRaw { (raw) throws(SystemFault) in
        try UnixSocket.send(raw, bytes, descriptors: raws)
      }
      connection.passing.removeFirst()
      return true
    } catch {
      // Too many descriptors are under way to those who do not take them (ETOOMANYREFS): it has had its time by then.
      if error.code != EAGAIN { drop(id) }
      return false
    }
  }

  private func updateInterest(_ id: UInt64, _ connection: Connection) {
    guard connections[id] != nil else { return }
    var interest: EventLoop.Interest = []
    if connection.unsent > 0 { interest.insert(.write) }
    let busy =
      connection.running >= Self.inFlight || connection.unsent >= highWater(connection)
      || connection.passing.count >= Self.unsentDescriptors || isHeld(connection)
    if !busy, !connection.closing { interest.insert(.read) }
    connection.socket.withRaw { loop.setInterest($0, interest) }
  }

  /// Tells the peer why, then closes once that is written.
  private func refuse(_ id: UInt64, _ connection: Connection, _ failure: RPCFailure) {
    write(Outgoing.failure(nil, failure), id)
    closeSoon(id, connection)
  }

  private func drop(_ id: UInt64) {
    guard let connection = connections.removeValue(forKey: id) else { return }
    connection.socket.withRaw { loop.unwatch($0) }
    if let timer = connection.deadline { loop.cancel(timer) }
    if let timer = connection.writeDeadline { loop.cancel(timer) }
    for task in connection.tasks.values { task.cancel() }
    for stream in connection.streams.values { stream.cancel() }
    for continuation in connection.waiting { continuation.resume() }
    connection.waiting = []
    wakePatient(connection)
    connection.passing = []
    if let user = connection.quotaUser { goOn(user) }
    if connections.isEmpty {
      emptied?.resume()
      emptied = nil
    }
  }

  // MARK: Deadlines

  private func updateFrameDeadline(_ id: UInt64, _ connection: Connection) {
    guard connections[id] != nil else { return }
    let midFrame = connection.reader.isMidFrame && connection.running == 0
    switch (midFrame, connection.deadline) {
    case (true, nil):
      connection.deadline = loop.schedule(after: Self.incompleteFrame) { [weak self] in
        self?.assumeIsolated { server in
          guard let connection = server.connections[id] else { return }
          connection.deadline = nil
          server.refuse(
            id, connection,
            server.waitsForRoom(connection)
              ?? RPCFailure(.timedOut, "the rest of a frame did not come within 10 s"))
        }
      }
    case (false, let timer?):
      loop.cancel(timer)
      connection.deadline = nil
    case (true, .some), (false, nil): break
    }
  }

  /// A peer that reads nothing for 10 s while its buffer is full is closed.
  private func updateWriteDeadline(_ id: UInt64, _ connection: Connection, progress: Bool) {
    let stalled = connection.unsent > highWater(connection)
    if let timer = connection.writeDeadline, progress || !stalled {
      loop.cancel(timer)
      connection.writeDeadline = nil
    }
    if stalled, connection.writeDeadline == nil {
      connection.writeDeadline = loop.schedule(after: Self.stalledReader) { [weak self] in
        self?.assumeIsolated { $0.drop(id) }
      }
    }
  }
}
