package import Model

/// The way to tell the peer of a connection what it did not ask just now.
package struct RPCNotices: Sendable {
  fileprivate let server: RPCServer
  fileprivate let connection: UInt64

  /// Sends a notification. Suspends first for as long as the peer leaves more than a little unread, which costs it nothing;
  /// throws CancellationError once the peer is gone.
  package func send(_ method: String, _ parameters: JSONValue) async throws {
    try await server.notify(Outgoing.notice(method, parameters), on: connection)
  }
}

/// What goes on after a call was answered; all of it runs on the server's loop.
extension RPCServer {
  /// Above this many unsent bytes nothing is added that nobody asked for.
  static let noticeWater = 1 << 16

  func open(_ body: @escaping @Sendable (RPCNotices) async -> Void, on id: UInt64) {
    guard let connection = connections[id] else { return }
    let number = nextStream
    nextStream += 1
    // Cancelled when its connection is closed.
    connection.streams[number] = Task {
      await body(RPCNotices(server: self, connection: id))
      self.connections[id]?.streams[number] = nil
    }
  }

  fileprivate func notify(_ message: JSONValue, on id: UInt64) async throws {
    while let connection = connections[id], !connection.closing, connection.unsent > Self.noticeWater {
      await withCheckedContinuation { connection.patient.append($0) }
    }
    try Task.checkCancellation()
    guard let connection = connections[id], !connection.closing else { throw CancellationError() }
    write(message, id)
  }

  func wakePatient(_ connection: Connection) {
    let patient = connection.patient
    connection.patient = []
    for continuation in patient { continuation.resume() }
  }
}
