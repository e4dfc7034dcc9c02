internal import Glibc
package import Linux
internal import Model

/// Serves one listening socket on an event loop. Each call runs as a task of its own; calls of a connection may be answered out of
/// order. A peer that does not read is waited for, then closed; it costs nothing but its own buffer.
package actor RPCServer {
  /// Bounds a connection is held to (security.md 2.6).
  static let inFlight = 128
  static let maximumConnections = 1024
  private static let acceptedAtOnce = 16
  private static let incompleteFrame = Duration.seconds(10)
  private static let stalledReader = Duration.seconds(10)
  /// Descriptors that one message may bring, and that may wait for the rest of their frame.
  private static let passedDescriptors = 8
  /// Frames with descriptors that may wait to be sent; above it, no request is read.
  static let unsentDescriptors = 16
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

  let loop: EventLoop
  private let listener: SharedDescriptor
  let service: any RPCService
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
  func takePassed(_ connection: Connection) -> [SharedDescriptor] {
    guard !connection.passed.isEmpty else { return [] }
    let end = connection.reader.position
    let taken = connection.passed.prefix { $0.place < end }
    connection.passed.removeFirst(taken.count)
    return taken.flatMap(\.descriptors)
  }

  /// Tells the peer why, then closes once that is written.
  func refuse(_ id: UInt64, _ connection: Connection, _ failure: RPCFailure) {
    write(Outgoing.failure(nil, failure), id)
    closeSoon(id, connection)
  }

  func drop(_ id: UInt64) {
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
  func updateWriteDeadline(_ id: UInt64, _ connection: Connection, progress: Bool) {
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
