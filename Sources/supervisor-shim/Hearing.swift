internal import Glibc
internal import Linux
internal import Sandboxing

/// What the app says of itself by its notify socket, kept for whichever daemon asks. An app may say as much as it likes: it is heard
/// for a moment and then left waiting for a while, and daemons are told what is new once a second.
struct Hearing {
  private static let messagesAtOnce = 16
  private static let pause: Int64 = 50_000_000
  private static let newsPause: Int64 = 1_000_000_000
  /// Longer messages are cut.
  private static let maximumBytes = 1024

  /// Unbound until the sandbox stands; then bound in there, so that nobody else can find it.
  let socket: SharedDescriptor
  private(set) var isReady = false
  private(set) var status: [UInt8] = []
  private var isDeafUntil: Int64 = 0
  private var untold = false
  private var quietUntil: Int64 = 0

  init() throws(SystemFault) { socket = SharedDescriptor(try UnixSocket.makeDatagram()) }

  /// Whether it is to be waited for now.
  var isOpen: Bool { Clock.monotonic() >= isDeafUntil }
  /// When something is to be done without being asked.
  var due: Int64? {
    let times = [isOpen ? nil : isDeafUntil, untold ? quietUntil : nil].compactMap { $0 }
    return times.min()
  }

  /// Reads what waits. Whoever is not the app by the kernel's word is not heard.
  mutating func hear(_ identity: LaunchPlan.Identity) {
    for _ in 0..<Self.messagesAtOnce {
      let message = socket.withRaw { raw in try? UnixSocket.receive(raw, limit: Self.maximumBytes) } ?? nil
      guard let message else { return }
      guard identity.isOwn(hostUID: message.uid) else { continue }
      let lines = message.bytes.split(separator: UInt8(ascii: "\n"))
      if !isReady, lines.contains(where: { $0.elementsEqual("READY=1".utf8) }) {
        isReady = true
        untold = true
        // This is what is waited for.
        quietUntil = 0
      }
      if lines.contains(where: { $0.starts(with: "STATUS=".utf8) }), message.bytes != status {
        status = message.bytes
        untold = true
      }
    }
    isDeafUntil = Clock.monotonic() + Self.pause
  }

  /// What daemons have not been told, if it is time to.
  mutating func news() -> ShimReply? {
    guard untold, Clock.monotonic() >= quietUntil else { return nil }
    untold = false
    quietUntil = Clock.monotonic() + Self.newsPause
    return reply
  }

  var reply: ShimReply { .told(ready: isReady, status: status) }
}
