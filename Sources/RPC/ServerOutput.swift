internal import Glibc
internal import Linux
internal import Model

/// What waits to be written to each peer, descriptors with it.
extension RPCServer {
  func send(_ message: JSONValue, on id: UInt64) async throws {
    try Task.checkCancellation()
    guard connections[id] != nil else { throw CancellationError() }
    write(message, id)
    try await room(on: id)
  }

  func room(on id: UInt64) async throws {
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

  func flush(_ id: UInt64) {
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
    } else if connection.sent >= 1 << 16, connection.sent >= connection.unsent {
      // What was sent is not kept for a peer that always leaves something.
      connection.output.removeSubrange(..<connection.sent)
      for index in connection.passing.indices { connection.passing[index].place -= connection.sent }
      connection.sent = 0
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

  func updateInterest(_ id: UInt64, _ connection: Connection) {
    guard connections[id] != nil else { return }
    var interest: EventLoop.Interest = []
    if connection.unsent > 0 { interest.insert(.write) }
    let busy =
      connection.running >= Self.inFlight || connection.unsent >= highWater(connection)
      || connection.passing.count >= Self.unsentDescriptors || isHeld(connection)
    if !busy, !connection.closing { interest.insert(.read) }
    connection.socket.withRaw { loop.setInterest($0, interest) }
  }
}
