internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// One connection to a shim, on the host's event loop; everything here runs there.
final class ShimConnection {
  private let socket: SharedDescriptor
  private let loop: EventLoop
  private var signals: [CheckedContinuation<Int32?, Never>] = []
  private(set) var isClosed = false
  /// Called for each state the shim tells, then once with nil when it is gone.
  private let heard: (RunState?) -> Void
  private let lost: (UInt64) -> Void
  private let nonce: String

  /// Begins to listen; packets with another nonce than the expected close it.
  init(
    _ socket: SharedDescriptor, nonce: String, on loop: EventLoop, heard: @escaping (RunState?) -> Void,
    lost: @escaping (UInt64) -> Void
  ) throws(SystemFault) {
    self.socket = socket
    self.nonce = nonce
    self.loop = loop
    self.heard = heard
    self.lost = lost
    try socket.withRaw { (raw) throws(SystemFault) in
      try loop.watch(raw, .read) { [unowned self] _ in receive() }
    }
  }

  func close() {
    guard !isClosed else { return }
    isClosed = true
    socket.withRaw { loop.unwatch($0) }
    for waiting in signals { waiting.resume(returning: nil) }
    signals = []
  }

  /// False when the shim is gone.
  func send(_ request: ShimRequest) -> Bool {
    guard !isClosed else { return false }
    return (try? socket.withRaw { (raw) throws(SystemFault) in try PacketPair.send(raw, request.bytes) }) != nil
  }

  /// Sends a signal; the answer is an errno (0: it arrived), nil when the shim is gone.
  func signal(_ number: Int32, _ answer: CheckedContinuation<Int32?, Never>) {
    guard send(.signal(number)) else { return answer.resume(returning: nil) }
    signals.append(answer)
  }

  private func receive() {
    let reply = try? socket.withRaw { (raw) throws(SystemFault) in
      try PacketPair.receive(raw, limit: ShimReply.maximumBytes).bytes
    }
    guard let reply, !reply.isEmpty, let reply = try? ShimReply(bytes: reply) else { return gone() }
    switch reply {
    case .state(let told, let state):
      guard told == nonce else { return gone() }
      heard(state)
    case .signalled(let code): if !signals.isEmpty { signals.removeFirst().resume(returning: code) }
    case .outputLost(let count): lost(count)
    }
  }

  private func gone() {
    guard !isClosed else { return }
    close()
    heard(nil)
  }
}
