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
  let id: RPCID?
  let connection: UInt64
  let server: RPCServer

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
