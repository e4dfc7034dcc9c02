internal import Glibc
package import Linux

/// Serves one page, `GET /metrics`, to few and short connections, over HTTP/1.1 without keep-alive.
package actor MetricsServer {
  private static let mostConnections = 16
  private static let longestRequest = 8192
  private static let patience = Duration.seconds(5)

  /// Touched only on the loop, by this actor.
  private final class Connection {
    let socket: Descriptor
    var request: [UInt8] = []
    var answer: [UInt8] = []
    var sent = 0
    var deadline: EventLoop.TimerID?
    init(_ socket: consuming Descriptor) { self.socket = socket }
  }

  private let loop: EventLoop
  private let listener: SharedDescriptor
  private let page: @Sendable () async -> String
  /// Whether a browser could be made to come by: then the name it was told must be this host's own.
  private let isPort: Bool
  private var connections: [UInt64: Connection] = [:]
  private var next: UInt64 = 0
  /// The page being made; all who ask meanwhile get the same.
  private var making: Task<String, Never>?

  package nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  /// `listener` listens and does not block; `page` makes the text when somebody asks.
  package init(
    _ listener: consuming Descriptor, isPort: Bool, on loop: EventLoop, page: @escaping @Sendable () async -> String
  ) {
    self.listener = SharedDescriptor(listener)
    self.isPort = isPort
    self.loop = loop
    self.page = page
  }

  /// A listening port of a loopback address, `127.0.0.1:9700` or `[::1]:9700`.
  package static func listen(_ address: String, _ port: UInt16) throws(SystemFault) -> Descriptor {
    let isSix = address.contains(":")
    let subject = isSix ? "[\(address)]:\(port)" : "\(address):\(port)"
    var four = sockaddr_in()
    four.sin_family = sa_family_t(AF_INET)
    four.sin_port = port.bigEndian
    var six = sockaddr_in6()
    six.sin6_family = sa_family_t(AF_INET6)
    six.sin6_port = port.bigEndian
    let isAddress = isSix ? inet_pton(AF_INET6, address, &six.sin6_addr) : inet_pton(AF_INET, address, &four.sin_addr)
    guard isAddress == 1 else { throw SystemFault(call: "inet_pton", subject: subject, code: EINVAL) }
    let type = Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue | SOCK_NONBLOCK.rawValue)
    let listening = Descriptor(
      owning: try check("socket", subject) { Glibc.socket(isSix ? AF_INET6 : AF_INET, type, 0) })
    try listening.withRaw { (raw) throws(SystemFault) in
      var on: Int32 = 1
      try check("setsockopt", subject) { setsockopt(raw, SOL_SOCKET, SO_REUSEADDR, &on, 4) }
      try isSix ? bind(raw, &six, subject) : bind(raw, &four, subject)
      try check("listen", subject) { Glibc.listen(raw, 64) }
    }
    return listening
  }

  private static func bind<Address>(_ raw: Int32, _ address: inout Address, _ subject: String) throws(SystemFault) {
    try check("bind", subject) {
      withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
          Glibc.bind(raw, $0, socklen_t(MemoryLayout<Address>.size))
        }
      }
    }
  }

  package func start() throws(SystemFault) {
    try listener.withRaw { (raw) throws(SystemFault) in
      try loop.watch(raw, .read) { [weak self] _ in self?.assumeIsolated { $0.accept() } }
    }
  }

  private func accept() {
    while true {
      // best effort: one that cannot be taken now is taken at the next.
      guard let socket = (try? listener.withRaw { (raw) throws(SystemFault) in try UnixSocket.accept(raw) }) ?? nil
      else {
        return
      }
      // More than that are not made to wait but turned away: they cost nothing then.
      guard connections.count < Self.mostConnections else { continue }
      let id = next
      next += 1
      let connection = Connection(socket)
      connections[id] = connection
      let raw = connection.socket.withRaw { $0 }
      // best effort: a connection that cannot be waited for is closed.
      guard (try? loop.watch(raw, .read, { [weak self] ready in self?.assumeIsolated { $0.ready(id, ready) } })) != nil
      else {
        connections[id] = nil
        continue
      }
      connection.deadline = loop.schedule(after: Self.patience) { [weak self] in self?.assumeIsolated { $0.drop(id) } }
    }
  }

  private func ready(_ id: UInt64, _ ready: EventLoop.Interest) {
    guard let connection = connections[id] else { return }
    if !ready.isDisjoint(with: .hangUp), !ready.contains(.read) { return drop(id) }
    if ready.contains(.write) { return flush(id, connection) }
    var buffer = [UInt8](repeating: 0, count: 4096)
    let got = connection.socket.withRaw { read($0, &buffer, buffer.count) }
    guard got > 0 else {
      if got == 0 || !lastErrorIsTemporary() { drop(id) }
      return
    }
    // What comes after the head is nobody's.
    guard connection.answer.isEmpty else { return }
    connection.request += buffer[..<got]
    guard let head = Self.head(connection.request) else {
      if connection.request.count > Self.longestRequest { finish(id, "431 Request Header Fields Too Large", "") }
      return
    }
    connection.socket.withRaw { loop.setInterest($0, []) }
    answer(id, head)
  }

  private static func head(_ bytes: [UInt8]) -> String? {
    let end = bytes.indices.dropLast(3).first { bytes[$0...].starts(with: [13, 10, 13, 10]) }
    return end.map { String(decoding: bytes[..<$0], as: UTF8.self) }
  }

  private func answer(_ id: UInt64, _ head: String) {
    let lines = head.split(separator: "\r\n", omittingEmptySubsequences: false)
    let words = (lines.first ?? "").split(separator: " ")
    guard words.count == 3, words[2].hasPrefix("HTTP/1.") else { return finish(id, "400 Bad Request", "not HTTP\n") }
    guard isOwnHost(lines) else { return finish(id, "421 Misdirected Request", "ask by a loopback address\n") }
    guard words[0] == "GET" || words[0] == "HEAD" else { return finish(id, "405 Method Not Allowed", "only GET\n") }
    guard words[1] == "/metrics" || words[1].hasPrefix("/metrics?") else {
      return finish(id, "404 Not Found", "there is /metrics\n")
    }
    let isHead = words[0] == "HEAD"
    // Ends with the page; a connection that is gone by then is not answered.
    Task {
      let text = await self.made()
      self.finish(id, "200 OK", text, isHead: isHead)
    }
  }

  private func made() async -> String {
    if let making { return await making.value }
    let task = Task { [page] in await page() }
    making = task
    let text = await task.value
    making = nil
    return text
  }

  private func isOwnHost(_ lines: [Substring]) -> Bool {
    guard isPort else { return true }
    let host = lines.first { $0.lowercased().hasPrefix("host:") }.map { $0.dropFirst(5).drop { $0 == " " } } ?? ""
    if host == "[::1]" || host.hasPrefix("[::1]:") { return true }
    let name = host.prefix { $0 != ":" }
    return name == "localhost" || name.hasPrefix("127.")
  }

  private func finish(_ id: UInt64, _ status: String, _ body: String, isHead: Bool = false) {
    guard let connection = connections[id] else { return }
    let head =
      "HTTP/1.1 \(status)\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nContent-Length: \(body.utf8.count)\r\n"
      + "X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    connection.answer = Array((isHead ? head : head + body).utf8)
    flush(id, connection)
  }

  private func flush(_ id: UInt64, _ connection: Connection) {
    while connection.sent < connection.answer.count {
      let wrote = connection.answer.withUnsafeBytes { bytes in
        connection.socket.withRaw { raw in
          send(
            raw, bytes.baseAddress?.advanced(by: connection.sent), bytes.count - connection.sent, Int32(MSG_NOSIGNAL))
        }
      }
      guard wrote >= 0 else {
        guard lastErrorIsTemporary() else { return drop(id) }
        connection.socket.withRaw { loop.setInterest($0, .write) }
        return
      }
      connection.sent += wrote
    }
    connection.socket.withRaw { UnixSocket.endWriting($0) }
    drop(id)
  }

  private func drop(_ id: UInt64) {
    guard let connection = connections.removeValue(forKey: id) else { return }
    connection.socket.withRaw { loop.unwatch($0) }
    if let timer = connection.deadline { loop.cancel(timer) }
  }
}
