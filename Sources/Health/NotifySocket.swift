internal import Glibc
package import Linux

/// The sockets by which containers say of themselves that they are ready, each in a folder that only its app sees.
///
/// An app may say as much as it likes: a few messages are heard at a time, then none for a while, so that its own writes wait.
package final class NotifySockets: Sendable {
  private let loop: EventLoop
  private let table = Table()

  /// The name in the folder.
  package static let name = "notify"

  /// `loop` hears them all.
  package init(on loop: EventLoop) { self.loop = loop }

  /// Listens for `name` in `folder`, which is made (its parents for root alone), replacing what an earlier daemon left there. A message counts if
  /// it comes from `uid`, or from a process in `cgroup`, by the kernel's word. `heard` is called on the loop.
  package func open(
    _ name: String, in folder: String, uid: UInt32?, cgroup: String,
    _ heard: @escaping @Sendable (NotifyMessage) -> Void
  ) async throws(SystemFault) {
    let socket = SharedDescriptor(try UnixSocket.makeDatagram())
    let place = try Folder(making: folder, mode: 0o755)
    try place.remove(Self.name)
    try place.withRaw { (folder) throws(SystemFault) in
      // Whatever the umask says, the app is to reach it.
      try check("chmod", place.path) { fchmod(folder, 0o755) }
      try socket.withRaw { (raw) throws(SystemFault) in
        try UnixSocket.bind(raw, in: folder, Self.name, mode: 0o666)
      }
    }
    let ear = Ear(socket, loop) { message in
      let isOwn = message.uid == uid || (try? Pidfd(of: message.pid, in: cgroup)) != nil
      if isOwn { heard(NotifyMessage(message.bytes)) }
    }
    let failure: SystemFault? = await withCheckedContinuation { continuation in
      loop.submit { [table] in
        table.ears[name]?.close()
        table.ears[name] = ear
        do throws(SystemFault) {
          try ear.listen()
          continuation.resume(returning: nil)
        } catch { continuation.resume(returning: error) }
      }
    }
    if let failure { throw failure }
  }

  /// Hears nothing more of it; its folder stays.
  package func close(_ name: String) {
    loop.submit { [table] in table.ears.removeValue(forKey: name)?.close() }
  }

  private final class Table: @unchecked Sendable {
    // SAFETY: touched on the loop's thread only.
    var ears: [String: Ear] = [:]
  }

  private final class Ear: @unchecked Sendable {
    // SAFETY: touched on the loop's thread only, once it is made.
    private static let messagesAtOnce = 16
    private static let pause = Duration.milliseconds(50)

    private let socket: SharedDescriptor
    private let loop: EventLoop
    private let take: (UnixSocket.Datagram) -> Void
    private var isClosed = false

    init(_ socket: SharedDescriptor, _ loop: EventLoop, _ take: @escaping (UnixSocket.Datagram) -> Void) {
      self.socket = socket
      self.loop = loop
      self.take = take
    }

    func listen() throws(SystemFault) {
      try socket.withRaw { (raw) throws(SystemFault) in
        try loop.watch(raw, .read) { [unowned self] _ in hear(raw) }
      }
    }

    private func hear(_ raw: Int32) {
      for _ in 0..<Self.messagesAtOnce {
        guard let message = (try? UnixSocket.receive(raw, limit: NotifyMessage.maximumBytes)) ?? nil else { return }
        take(message)
      }
      loop.setInterest(raw, [])
      loop.schedule(after: Self.pause) { [self] in
        if !isClosed { loop.setInterest(raw, .read) }
      }
    }

    func close() {
      guard !isClosed else { return }
      isClosed = true
      socket.withRaw { loop.unwatch($0) }
    }
  }
}
