internal import CCurl
internal import Linux

/// HTTP to one Engine's socket: many exchanges at a time over kept connections, all on one event loop.
///
/// The actor runs on the loop, so libcurl's handles are touched on one thread only and no callback needs a lock. libcurl calls back
/// only from inside `curl_multi_socket_action`, and nothing is removed there: callbacks note what happened, `settle` acts on it.
package actor Transport {
  /// The socket's path.
  package nonisolated let socket: String
  nonisolated let limits: EngineLimits
  nonisolated let loop: EventLoop
  package nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  /// Nil once closed.
  private var multi: UnsafeMutableRawPointer?
  private var isWired = false
  private var watched: Set<Int32> = []
  private var timer: EventLoop.TimerID?
  private var nextID: UInt64 = 1
  private var transfers: [UInt64: Transfer] = [:]
  private var byHandle: [UnsafeMutableRawPointer: Transfer] = [:]
  private var deadlines: [UInt64: EventLoop.TimerID] = [:]
  var hijacked: [UInt64: Hijacked] = [:]
  /// Handles ready for the next exchange: making one costs more than an exchange's own work.
  private var spare: [UnsafeMutableRawPointer] = []
  private static let spareLimit = 8
  /// Kept connections; more are made when more calls run at a time.
  private static let keptConnections = 16

  // libcurl wants this once, before any handle, by one thread: a static's initialiser is that.
  private static let curlReady = curl_global_init(Int(CURL_GLOBAL_NOTHING)) == CURLE_OK

  init(socket: String, limits: EngineLimits, loop: EventLoop) throws(EngineFailure) {
    guard socket.utf8.count < 108 else {
      throw .unreachable(socket: socket, reason: "the path is longer than the 107 bytes a Unix socket's may have")
    }
    guard Self.curlReady, let multi = curl_multi_init() else {
      throw .unreachable(socket: socket, reason: "libcurl could not be set up")
    }
    self.socket = socket
    self.limits = limits
    self.loop = loop
    self.multi = multi
  }

  isolated deinit { release() }

  // MARK: Exchanges

  /// Sends a request and takes in the whole answer; an error status is thrown.
  func call(_ request: Request) async throws(EngineFailure) -> Answer {
    let id = takeID()
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation { caller in start(id, request, .collect(caller), deadline: request.deadline) }
    } onCancel: {
      cancelLater(id)
    }
    return try result.get()
  }

  /// Sends a request and returns once the answer's head is there; its body follows as a stream.
  ///
  /// `idle`: fail with `timedOut` when nothing arrives for so long though the reader is waiting.
  func open(_ request: Request, idle: Duration? = nil) async throws(EngineFailure) -> (
    head: AnswerHead, bytes: ByteStream
  ) {
    let id = takeID()
    let channel = ByteChannel(capacity: limits.buffer) { [weak self] in
      self?.onLoop { $0.resumeReceiving(id) }
    } onAbandon: { [weak self] in
      self?.onLoop { $0.end(id, .cancelled) }
    }
    let result = await withTaskCancellationHandler {
      await withCheckedContinuation { opener in
        start(id, request, .stream(channel, opener), deadline: request.deadline)
        if let idle { watchIdle(id, idle, checkAfter: idle) }
      }
    } onCancel: {
      cancelLater(id)
    }
    return (try result.get(), ByteStream(channel, keeping: self))
  }

  /// Ends every exchange with `cancelled` and closes the connections. Later calls fail at once.
  package func close() { release() }

  private func takeID() -> UInt64 {
    defer { nextID += 1 }
    return nextID
  }

  /// Runs `body` on the loop, after what was handed over before.
  nonisolated func onLoop(_ body: @escaping @Sendable (isolated Transport) -> Void) {
    loop.submit { self.assumeIsolated(body) }
  }

  nonisolated func cancelLater(_ id: UInt64) { onLoop { $0.end(id, .cancelled) } }

  /// Makes the transfer and gives it to libcurl.
  @discardableResult
  private func start(_ id: UInt64, _ request: Request, _ sink: Transfer.Sink, deadline: Request.Deadline) -> Transfer? {
    guard let multi = wired(), !Task.isCancelled, let easy = spare.popLast() ?? curl_easy_init() else {
      switch sink {
      case .collect(let caller): caller.resume(returning: .failure(.cancelled))
      case .stream(let channel, let opener):
        channel.finish(.cancelled)
        opener.resume(returning: .failure(.cancelled))
      case .connection: break
      }
      return nil
    }
    let transfer = Transfer(id: id, easy: easy, request: request, limits: limits, sink: sink)
    transfers[id] = transfer
    byHandle[easy] = transfer
    transfer.prepare(socket: socket)
    if case .source(let source, _) = request.body { startUpload(transfer, source) }
    switch deadline {
    case .standard: allow(id, limits.call)
    case .after(let time): allow(id, time)
    case .none: break
    }
    curl_multi_add_handle(multi, easy)
    return transfer
  }

  /// Begins an exchange whose connection is taken over once it stands.
  func startConnection(_ request: Request) -> (id: UInt64, easy: UnsafeMutableRawPointer)? {
    let id = takeID()
    return start(id, request, .connection, deadline: request.deadline).map { (id, $0.easy) }
  }

  /// Fails the exchange `id` if it has not ended, or its head not come, within `time`.
  private func allow(_ id: UInt64, _ time: Duration) {
    deadlines[id] = loop.schedule(after: time) { [weak self] in
      self?.assumeIsolated { $0.expired(id, time) }
    }
  }

  private func expired(_ id: UInt64, _ time: Duration) {
    deadlines[id] = nil
    guard let transfer = transfers[id] else { return }
    // A stream that has begun may last.
    if case .stream = transfer.sink, transfer.headEnded { return }
    if hijacked[id]?.isOpen == true { return }
    end(id, .timedOut(operation: transfer.request.operation, after: time))
  }

  private func watchIdle(_ id: UInt64, _ idle: Duration, checkAfter: Duration) {
    loop.schedule(after: checkAfter) { [weak self] in
      self?.assumeIsolated { transport in
        guard let transfer = transport.transfers[id] else { return }
        let quiet = Duration.nanoseconds(Clock.monotonic() - transfer.lastArrival)
        if transfer.receivingPaused || quiet < idle {
          let rest = transfer.receivingPaused ? idle : idle - quiet
          transport.watchIdle(id, idle, checkAfter: rest)
        } else {
          transport.end(id, .timedOut(operation: transfer.request.operation, after: idle))
        }
      }
    }
  }

  // MARK: Uploads

  private func startUpload(_ transfer: Transfer, _ source: ByteSource) {
    let upload = Upload()
    let id = transfer.id
    transfer.upload = upload
    // Cancelled by `Upload.close` when the transfer ends.
    upload.pump = Task { [weak self] in
      do {
        while let piece = try await source.next() {
          guard await self?.feed(id, piece) == true else { return }
        }
        await self?.fed(id, nil)
      } catch {
        await self?.fed(id, "\(error)")
      }
    }
  }

  /// Gives a piece to the upload of `id`; returns when there is room for another, false when the transfer is over.
  private func feed(_ id: UInt64, _ piece: [UInt8]) async -> Bool {
    guard let transfer = transfers[id], let upload = transfer.upload else { return false }
    let room = upload.add(piece)
    resumeSending(transfer)
    if room { return true }
    return await withCheckedContinuation { waiter in
      guard transfers[id] != nil else { return waiter.resume(returning: false) }
      upload.awaitRoom(waiter)
    }
  }

  private func fed(_ id: UInt64, _ failure: String?) {
    guard let transfer = transfers[id], let upload = transfer.upload else { return }
    upload.finish(failure)
    resumeSending(transfer)
  }

  // MARK: Pausing

  private func resumeSending(_ transfer: Transfer) {
    guard transfer.sendingPaused else { return }
    transfer.sendingPaused = false
    applyPause(transfer)
  }

  private func resumeReceiving(_ id: UInt64) {
    guard let transfer = transfers[id], transfer.receivingPaused else { return }
    transfer.receivingPaused = false
    transfer.lastArrival = Clock.monotonic()
    applyPause(transfer)
  }

  private func applyPause(_ transfer: Transfer) {
    // libcurl may deliver what it held from inside this call, and the callback may pause again.
    curl_easy_pause(
      transfer.easy,
      (transfer.receivingPaused ? CURLPAUSE_RECV : 0) | (transfer.sendingPaused ? CURLPAUSE_SEND : 0))
    act(CURL_SOCKET_BAD, 0)
  }

  // MARK: libcurl and the loop

  /// The multi handle with its callbacks set, on the loop; nil once closed.
  private func wired() -> UnsafeMutableRawPointer? {
    guard let multi, !isWired else { return multi }
    isWired = true
    let me = Unmanaged.passUnretained(self).toOpaque()
    cc_multi_on_socket(multi, Self.onSocket, me)
    cc_multi_on_timer(multi, Self.onTimer, me)
    cc_multi_set_long(multi, CURLMOPT_MAXCONNECTS, Self.keptConnections)
    return multi
  }

  private static let onSocket: curl_socket_callback = { _, socket, what, data, _ in
    guard let data else { return 0 }
    Unmanaged<Transport>.fromOpaque(data).takeUnretainedValue().assumeIsolated { $0.want(socket, what) }
    return 0
  }

  private static let onTimer: curl_multi_timer_callback = { _, milliseconds, data in
    guard let data else { return 0 }
    Unmanaged<Transport>.fromOpaque(data).takeUnretainedValue().assumeIsolated { $0.wake(after: milliseconds) }
    return 0
  }

  /// libcurl says what it waits for on `socket`.
  private func want(_ socket: Int32, _ what: Int32) {
    var interest: EventLoop.Interest = []
    if what & CURL_POLL_IN != 0 { interest.insert(.read) }
    if what & CURL_POLL_OUT != 0 { interest.insert(.write) }
    guard what != CURL_POLL_REMOVE, !interest.isEmpty else {
      if watched.remove(socket) != nil { loop.unwatch(socket) }
      return
    }
    if watched.contains(socket) {
      loop.setInterest(socket, interest)
      return
    }
    do throws(SystemFault) {
      try loop.watch(socket, interest) { [weak self] ready in
        self?.assumeIsolated { $0.ready(socket, ready) }
      }
      watched.insert(socket)
    } catch {
      // Out of memory or watches: the exchange on it ends at its deadline.
      assertionFailure("\(error)")
    }
  }

  private func ready(_ socket: Int32, _ interest: EventLoop.Interest) {
    var events: Int32 = 0
    // A hang-up shows as readable, so that libcurl reads what is left and then the end.
    if !interest.isDisjoint(with: [.read, .hangUp]) { events |= CURL_CSELECT_IN }
    if interest.contains(.write) { events |= CURL_CSELECT_OUT }
    act(socket, events)
  }

  private func wake(after milliseconds: Int) {
    if let timer { loop.cancel(timer) }
    timer = nil
    guard milliseconds >= 0 else { return }
    timer = loop.schedule(after: .milliseconds(milliseconds)) { [weak self] in
      self?.assumeIsolated {
        $0.timer = nil
        $0.act(CURL_SOCKET_BAD, 0)
      }
    }
  }

  /// Lets libcurl work on a socket, or (CURL_SOCKET_BAD, which is CURL_SOCKET_TIMEOUT) on what is due.
  private func act(_ socket: Int32, _ events: Int32) {
    guard let multi else { return }
    var running: Int32 = 0
    curl_multi_socket_action(multi, socket, events, &running)
    settle()
  }

  private func settle() {
    var code = CURLE_OK
    while let multi, let easy = cc_multi_finished(multi, &code) {
      guard let transfer = byHandle[easy] else { continue }
      if case .connection = transfer.sink {
        connected(transfer, code)
      } else {
        end(transfer.id, outcome(of: transfer, code))
      }
    }
  }

  private func connected(_ transfer: Transfer, _ code: CURLcode) {
    guard let hijacked = hijacked[transfer.id] else { return end(transfer.id, .cancelled) }
    var socket: curl_socket_t = CURL_SOCKET_BAD
    guard code == CURLE_OK, cc_get_socket(transfer.easy, CURLINFO_ACTIVESOCKET, &socket) == CURLE_OK,
      socket != CURL_SOCKET_BAD
    else {
      return hijacked.end(outcome(of: transfer, code) ?? .interrupted(operation: transfer.request.operation), on: self)
    }
    hijacked.begin(socket, on: self)
  }

  /// What libcurl's verdict means for the caller; nil: the answer is complete.
  private func outcome(of transfer: Transfer, _ code: CURLcode) -> EngineFailure? {
    let operation = transfer.request.operation
    if code == CURLE_OK { return nil }
    if let failure = transfer.failure { return failure }
    switch code {
    case CURLE_COULDNT_CONNECT, CURLE_COULDNT_RESOLVE_HOST:
      var errno = 0
      cc_get_long(transfer.easy, CURLINFO_OS_ERRNO, &errno)
      let reason = errno == 0 ? "the connection was not accepted" : SystemFault.text(of: Int32(errno))
      return .unreachable(socket: socket, reason: reason)
    case CURLE_OPERATION_TIMEDOUT: return .timedOut(operation: operation, after: limits.connect)
    case CURLE_GOT_NOTHING, CURLE_PARTIAL_FILE, CURLE_RECV_ERROR, CURLE_SEND_ERROR:
      return .interrupted(operation: operation)
    default: return .malformed(operation: operation, what: String(cString: curl_easy_strerror(code)))
    }
  }

  /// Ends the exchange `id`, if it is still there, and tells its caller. Never called from inside libcurl.
  func end(_ id: UInt64, _ outcome: EngineFailure?) {
    if let hijacked = hijacked[id], let outcome { return hijacked.end(outcome, on: self) }
    guard let transfer = transfers[id] else { return }
    forget(transfer)
    transfer.conclude(outcome)
  }

  /// Takes the transfer out of libcurl; its connection is kept if the exchange was complete.
  private func forget(_ transfer: Transfer) {
    transfers[transfer.id] = nil
    byHandle[transfer.easy] = nil
    if let deadline = deadlines.removeValue(forKey: transfer.id) { loop.cancel(deadline) }
    transfer.upload?.close()
    curl_multi_remove_handle(multi, transfer.easy)
    if case .connection = transfer.sink {
      curl_easy_cleanup(transfer.easy)
    } else if spare.count < Self.spareLimit {
      curl_easy_reset(transfer.easy)
      spare.append(transfer.easy)
    } else {
      curl_easy_cleanup(transfer.easy)
    }
  }

  /// Takes the exchange of a hijacked connection out of libcurl, which closes it.
  func forgetConnection(_ id: UInt64) {
    hijacked[id] = nil
    if let transfer = transfers[id] { forget(transfer) }
  }

  private func release() {
    guard let multi else { return }
    for hijacked in Array(hijacked.values) { hijacked.end(.cancelled, on: self) }
    for id in Array(transfers.keys) { end(id, .cancelled) }
    for easy in spare { curl_easy_cleanup(easy) }
    spare = []
    self.multi = nil
    cc_multi_on_socket(multi, nil, nil)
    cc_multi_on_timer(multi, nil, nil)
    for socket in watched { loop.unwatch(socket) }
    watched = []
    curl_multi_cleanup(multi)
    if let timer { loop.cancel(timer) }
    timer = nil
  }
}
