internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// One connection to a shim, on the host's event loop; everything here runs there.
final class ShimConnection {
  private let socket: SharedDescriptor
  private let loop: EventLoop
  private var signals: [CheckedContinuation<Int32?, Never>] = []
  private var inputs: [CheckedContinuation<SharedDescriptor?, Never>] = []
  /// Who hears of each command, nil being the shim's end.
  private var commands: [UInt32: (ExecState?) -> Void] = [:]
  private var nextCommand: UInt32 = 1
  private(set) var isClosed = false
  /// Called for each state the shim tells, then once with nil when it is gone.
  private let heard: (RunState?) -> Void
  private let lost: (UInt64) -> Void
  private let told: (Bool, [UInt8]) -> Void
  private let nonce: String

  /// Begins to listen; packets with another nonce than the expected close it.
  init(
    _ socket: SharedDescriptor, nonce: String, on loop: EventLoop, heard: @escaping (RunState?) -> Void,
    lost: @escaping (UInt64) -> Void, told: @escaping (Bool, [UInt8]) -> Void
  ) throws(SystemFault) {
    self.told = told
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
    for waiting in inputs { waiting.resume(returning: nil) }
    inputs = []
    let commands = commands.values
    self.commands = [:]
    for heard in commands { heard(nil) }
  }

  /// Hands a command to the shim, with its sealed plan and its streams; nil when the shim is gone. Its states are heard until the
  /// first that ends it.
  func exec(_ descriptors: [SharedDescriptor], heard: @escaping (ExecState?) -> Void) throws(SystemFault) -> UInt32? {
    guard !isClosed else { return nil }
    let id = nextCommand
    nextCommand &+= 1
    try socket.withRaw { (raw) throws(SystemFault) in
      _ = try UnixSocket.send(
        raw, ShimRequest.exec(id: id).bytes[...], descriptors: descriptors.map { $0.withRaw { $0 } })
    }
    commands[id] = heard
    return id
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

  /// The writing end of the app's input, or its terminal; nil: it has none, or the shim is gone.
  func input(_ answer: CheckedContinuation<SharedDescriptor?, Never>) {
    guard send(.input) else { return answer.resume(returning: nil) }
    inputs.append(answer)
  }

  private func receive() {
    let packet = try? socket.withRaw { (raw) throws(SystemFault) in
      try UnixSocket.receivePacket(raw, limit: ShimReply.maximumBytes)
    }
    guard let packet, !packet.bytes.isEmpty, let reply = try? ShimReply(bytes: packet.bytes) else { return gone() }
    switch reply {
    case .input: if !inputs.isEmpty { inputs.removeFirst().resume(returning: packet.descriptors.first) }
    case .state(let told, let state):
      guard told == nonce else { return gone() }
      heard(state)
    case .signalled(let code): if !signals.isEmpty { signals.removeFirst().resume(returning: code) }
    case .outputLost(let count): lost(count)
    case .told(let ready, let status): told(ready, status)
    case .exec(let id, let state):
      let heard = commands[id]
      switch state {
      case .prepared, .running: break
      case .ended, .failed: commands[id] = nil
      }
      heard?(state)
    }
  }

  private func gone() {
    guard !isClosed else { return }
    close()
    heard(nil)
  }
}
