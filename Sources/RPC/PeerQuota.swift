package import Linux

/// What all connections of one user may hold together, so that nobody who is let in keeps others, or root, from being answered.
/// Whoever is past a bound waits or is turned away alone (security.md 2.6).
package struct PeerQuota: Sendable {
  /// Connections; more are told why and closed.
  package var connections = 64
  /// Calls being served; more are not read yet.
  package var calls = 64
  /// Bytes of frames that are being served, or of which a part came; more are not read yet.
  package var bytes = 8 << 20
  /// Descriptors that came with calls being served, or that wait for their frame; whoever sends more is closed.
  package var descriptors = 64
  /// Connections of the server's that no limited peer gets, whoever they are.
  package var reserved = 64
  /// Whom it binds, by the number that those who share one quota have in common; nil: not this one.
  package var party: @Sendable (PeerCredentials) -> UInt32?

  /// Each user for himself.
  package init(binding binds: @escaping @Sendable (PeerCredentials) -> Bool) { party = { binds($0) ? $0.uid : nil } }

  /// All peers together, whichever users they are.
  package init(forAll connections: Int) {
    party = { _ in 0 }
    self.connections = connections
    reserved = 0
  }

  /// Nobody is bound: for a socket that only one's own user reaches.
  package static let none = PeerQuota { _ in false }
}

/// What a user's calls hold that are being served, also those whose connection is gone.
struct PeerUse {
  var calls = 0
  var bytes = 0
  var descriptors = 0

  static func += (left: inout PeerUse, right: PeerUse) {
    left.calls += right.calls
    left.bytes += right.bytes
    left.descriptors += right.descriptors
  }

  static func -= (left: inout PeerUse, right: PeerUse) {
    left.calls -= right.calls
    left.bytes -= right.bytes
    left.descriptors -= right.descriptors
  }
}
