internal import CCurl
internal import Linux
internal import Model

/// One HTTP exchange in libcurl. It and its handle are touched only on the loop.
final class Transfer {
  /// What becomes of the body of a good answer; an error's is always collected.
  enum Sink {
    case collect(CheckedContinuation<Result<Answer, EngineFailure>, Never>)
    case stream(ByteChannel, CheckedContinuation<Result<AnswerHead, EngineFailure>, Never>)
    /// The connection is taken over once it stands.
    case connection
  }

  let id: UInt64
  let easy: UnsafeMutableRawPointer
  let request: Request
  let limits: EngineLimits
  var sink: Sink
  var upload: Upload?
  /// What a callback found wrong; libcurl then ends the transfer with an error of its own.
  var failure: EngineFailure?
  private(set) var head = AnswerHead()
  private(set) var headEnded = false
  private var headBytes = 0
  private var body: [UInt8] = []
  /// The reader is slow; libcurl reads no more from the socket.
  var receivingPaused = false
  var sendingPaused = false
  /// When something last arrived, on the monotonic clock; kept for idle detection.
  var lastArrival: Int64 = 0
  private var headerList: UnsafeMutablePointer<curl_slist>?
  private var informed = false

  init(id: UInt64, easy: UnsafeMutableRawPointer, request: Request, limits: EngineLimits, sink: Sink) {
    self.id = id
    self.easy = easy
    self.request = request
    self.limits = limits
    self.sink = sink
  }

  deinit { curl_slist_free_all(headerList) }

  // MARK: Setting up

  /// Tells libcurl everything about this exchange. The handle is new or reset.
  func prepare(socket: String) {
    var lines = request.headers.map { "\($0.0): \($0.1)" }
    set(CURLOPT_UNIX_SOCKET_PATH, socket)
    // The host is only what HTTP wants to hear; nothing is resolved.
    set(CURLOPT_URL, "http://engine\(request.target)")
    // Neither the environment's proxies nor another protocol than HTTP, no redirects, no signals.
    set(CURLOPT_PROXY, "")
    cc_set_long(easy, CURLOPT_NOSIGNAL, 1)
    cc_set_long(easy, CURLOPT_HTTP_VERSION, Int(CURL_HTTP_VERSION_1_1))
    cc_set_long(easy, CURLOPT_CONNECTTIMEOUT_MS, Int(limits.connect.milliseconds))
    set(CURLOPT_CUSTOMREQUEST, request.method.rawValue)
    if request.method == .head { cc_set_long(easy, CURLOPT_NOBODY, 1) }
    let me = Unmanaged.passUnretained(self).toOpaque()
    cc_on_write(easy, Self.onWrite, me)
    cc_on_header(easy, Self.onHeader, me)
    switch request.body {
    case .none:
      if request.method == .post { setBody([]) }
    case .json(let document):
      var bytes: [UInt8] = []
      document.write(to: &bytes)
      setBody(bytes)
      lines.append("Content-Type: application/json")
    case .source(_, let type):
      cc_set_long(easy, CURLOPT_POST, 1)
      cc_on_read(easy, Self.onRead, me)
      lines += ["Content-Type: \(type)", "Transfer-Encoding: chunked", "Expect:"]
    }
    for line in lines { headerList = curl_slist_append(headerList, line) }
    cc_set_list(easy, CURLOPT_HTTPHEADER, headerList)
    if case .connection = sink { cc_set_long(easy, CURLOPT_CONNECT_ONLY, 1) }
  }

  private func set(_ option: CURLoption, _ text: String) { cc_set_text(easy, option, text) }

  private func setBody(_ bytes: [UInt8]) { bytes.withUnsafeBytes { _ = cc_set_body(easy, $0.baseAddress, $0.count) } }

  // MARK: libcurl's callbacks

  private static let onWrite: curl_write_callback = { bytes, size, count, data in
    guard let data else { return 0 }
    let room = UnsafeRawBufferPointer(start: bytes, count: size * count)
    return Unmanaged<Transfer>.fromOpaque(data).takeUnretainedValue().received(room)
  }

  private static let onHeader: curl_write_callback = { bytes, size, count, data in
    guard let data else { return 0 }
    let line = UnsafeRawBufferPointer(start: bytes, count: size * count)
    return Unmanaged<Transfer>.fromOpaque(data).takeUnretainedValue().receivedHeader(line)
  }

  private static let onRead: curl_read_callback = { bytes, size, count, data in
    guard let data else { return Int(CURL_READFUNC_ABORT) }
    let room = UnsafeMutableRawBufferPointer(start: bytes, count: size * count)
    return Unmanaged<Transfer>.fromOpaque(data).takeUnretainedValue().wanted(room)
  }

  private func receivedHeader(_ line: UnsafeRawBufferPointer) -> Int {
    headBytes += line.count
    guard headBytes <= limits.head else { return refuse("its head is larger than \(limits.head) bytes") }
    if line.starts(with: "HTTP/".utf8) {
      head = AnswerHead()
      let words = String(decoding: line, as: UTF8.self).split(separator: " ", maxSplits: 2)
      head.status = words.count > 1 ? Int(words[1].prefix(3)) ?? 0 : 0
    } else if line.allSatisfy({ $0 == 13 || $0 == 10 }) {
      // An interim answer (100) is followed by another head; trailers come after the body.
      if head.status >= 200 { headDone() }
    } else if !headEnded {
      head.headers.add(line)
    }
    return line.count
  }

  private func headDone() {
    guard !headEnded else { return }
    headEnded = true
    if case .stream(_, let opener) = sink, head.status < 400 {
      informed = true
      opener.resume(returning: .success(head))
    }
  }

  private func received(_ bytes: UnsafeRawBufferPointer) -> Int {
    lastArrival = Clock.monotonic()
    guard case .stream(let channel, _) = sink, head.status < 400 else {
      let limit = head.status < 400 ? request.limit ?? limits.answer : 64 << 10
      guard body.count + bytes.count <= limit else {
        return refuse("it is larger than \(limit) bytes")
      }
      body.append(contentsOf: bytes)
      return bytes.count
    }
    switch channel.offer(bytes) {
    case .taken: return bytes.count
    case .full:
      receivingPaused = true
      return Int(CURL_WRITEFUNC_PAUSE)
    case .closed:
      failure = .cancelled
      return 0
    }
  }

  /// Ends the transfer from inside a callback: any count but the one given makes libcurl stop.
  private func refuse(_ what: String) -> Int {
    failure = .malformed(operation: request.operation, what: what)
    return 0
  }

  private func wanted(_ room: UnsafeMutableRawBufferPointer) -> Int {
    guard let upload else { return Int(CURL_READFUNC_ABORT) }
    switch upload.take(into: room) {
    case .bytes(let count): return count
    case .end: return 0
    case .later:
      sendingPaused = true
      return Int(CURL_READFUNC_PAUSE)
    case .failed(let reason):
      failure = .sourceFailed(operation: request.operation, reason: reason)
      return Int(CURL_READFUNC_ABORT)
    }
  }

  // MARK: Ending

  /// Hands the outcome to whoever waits for it, once.
  func conclude(_ outcome: EngineFailure?) {
    let failure = outcome ?? (head.status >= 400 ? .answer(head.status, body, to: request) : nil)
    switch sink {
    case .collect(let caller):
      caller.resume(returning: failure.map { .failure($0) } ?? .success(Answer(head: head, body: body)))
    case .stream(let channel, let opener):
      if !informed { opener.resume(returning: .failure(failure ?? .interrupted(operation: request.operation))) }
      channel.finish(failure)
    case .connection: break
    }
  }
}

extension Duration {
  /// Whole milliseconds, rounded up, at most what fits 31 bits.
  var milliseconds: Int64 { min((wholeNanoseconds + 999_999) / 1_000_000, Int64(Int32.max)) }
}
