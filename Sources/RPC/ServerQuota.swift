internal import Linux

/// What a user's connections may hold together; all of it runs on the server's loop.
extension RPCServer {
  func charge(_ user: UInt32?, _ use: PeerUse) {
    guard let user else { return }
    uses[user, default: PeerUse()] += use
  }

  /// A call is over.
  func credit(_ user: UInt32?, _ use: PeerUse) {
    guard let user else { return }
    uses[user, default: PeerUse()] -= use
    if uses[user]?.calls == 0 { uses[user] = nil }
    goOn(user)
  }

  /// Room was made: what its other connections have sent meanwhile has its turn.
  func goOn(_ user: UInt32) {
    guard held.remove(user) != nil else { return }
    for (id, connection) in connections where connection.quotaUser == user && !connection.closing {
      // One of those before may have been the end of this one.
      if connections[id] != nil { serve(id, connection) }
    }
  }

  /// Why a user gets no further connection; nil: she does.
  func refusal(of user: UInt32) -> RPCFailure? {
    let open = connections.values.count { $0.quotaUser == user }
    if open >= quota.connections {
      return RPCFailure(
        .quota, "\(open) connections are open, as many as one caller may have", hint: "end some of them")
    }
    guard connections.count >= Self.maximumConnections - quota.reserved else { return nil }
    return RPCFailure(.quota, "\(connections.count) connections are open, and the rest is root's", hint: "try again")
  }

  /// Whether nothing more is read of it until its user has room again; it is gone on with then.
  func isHeld(_ connection: Connection) -> Bool {
    guard let user = connection.quotaUser, !(mayCall(connection) && mayRead(connection)) else { return false }
    held.insert(user)
    return true
  }

  func mayCall(_ connection: Connection) -> Bool {
    guard let user = connection.quotaUser, let use = uses[user] else { return true }
    return use.calls < quota.calls && use.bytes < quota.bytes
  }

  /// Whether its user holds less than all she may, or this one nothing yet.
  func mayRead(_ connection: Connection) -> Bool {
    guard let user = connection.quotaUser, connection.reader.unread > 0 else { return true }
    let partial = connections.values.reduce(0) { $0 + ($1.quotaUser == user ? $1.reader.unread : 0) }
    return partial + (uses[user]?.bytes ?? 0) < quota.bytes
  }

  /// What to say of a frame that was there in time and is not served for want of room.
  func waitsForRoom(_ connection: Connection) -> RPCFailure? {
    guard let user = connection.quotaUser, !mayCall(connection) else { return nil }
    return RPCFailure(
      .quota,
      "\(uses[user]?.calls ?? 0) calls are under way, as many as one caller may have, and none ended within 10 s",
      hint: "end some of them")
  }

  /// Above this many unsent bytes its senders wait: of a bound user's connections, a share of what she may hold.
  func highWater(_ connection: Connection) -> Int {
    guard let user = connection.quotaUser else { return Self.highWater }
    return min(Self.highWater, quota.bytes / max(1, connections.values.count { $0.quotaUser == user }))
  }

  func holdsTooManyDescriptors(_ connection: Connection) -> Bool {
    guard let user = connection.quotaUser else { return false }
    let waiting = connections.values.reduce(0) { sum, other in
      other.quotaUser == user ? sum + other.passed.reduce(0) { $0 + $1.descriptors.count } : sum
    }
    return waiting + (uses[user]?.descriptors ?? 0) > quota.descriptors
  }
}
