internal import Glibc
package import Linux
package import Model

/// What was asked for and whether it was granted: one JSON object a line in `audit.log`, before it takes effect.
///
/// Two files of half the allowed size each: when one is full it becomes `audit.log.1`, whose content is gone then. Written to the
/// page cache: kept when the daemon is killed, not when power fails.
package actor Audit {
  package enum Decision: String, Sendable { case allowed, denied }

  private nonisolated let loop: EventLoop
  package nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  private let folder: String
  private let half: UInt64
  private var file: Descriptor?
  private var size: UInt64 = 0
  /// The last record may be cut off.
  private var isTorn = false
  private let failed: @Sendable (SystemFault) -> Void
  /// Denials of this second by caller and method: one that asks for ever must not push out what others did.
  private var denials: [String: Int] = [:]
  private var second: Int64 = 0
  private static let mostDenials = 8
  private static let mostCallers = 256

  /// Keeps `audit.log` in `folder`, which exists. Blocking work is done on a thread of its own.
  /// `failed` is told of each record that could not be written.
  package init(
    folder: String, maximumSize: Bytes, failed: @escaping @Sendable (SystemFault) -> Void
  ) throws(SystemFault) {
    self.folder = folder
    self.failed = failed
    half = max(maximumSize.count / 2, 4096)
    loop = try EventLoop(name: "audit")
  }

  deinit { loop.stop() }

  /// Throws where it could not be written: what needs a record then does not happen.
  func record(
    _ peer: PeerCredentials, _ method: String, _ apps: [String], _ decision: Decision, _ reason: String? = nil
  ) throws(SystemFault) {
    let now = Clock.wall()
    if decision == .denied, !isWorthWriting(peer, method, now) { return }
    let line = JSONValue.object([
      "time": .integer(now.nanoseconds), "uid": .count(peer.uid), "gid": .count(peer.gid), "pid": .count(peer.pid),
      "method": .string(String(method.prefix(64))),
      "apps": .array(apps.prefix(1000).map { .string(String($0.prefix(80))) }),
      "decision": .string(decision.rawValue), "reason": reason.map { .string(String($0.prefix(400))) },
    ])
    var bytes: [UInt8] = []
    line.write(to: &bytes)
    bytes.append(0x0A)
    do throws(SystemFault) {
      try write(isTorn ? [0x0A] + bytes : bytes)
      isTorn = false
    } catch {
      isTorn = true
      file = nil
      failed(error)
      throw error
    }
  }

  private func isWorthWriting(_ peer: PeerCredentials, _ method: String, _ now: WallTime) -> Bool {
    let this = now.nanoseconds / 1_000_000_000
    if this != second {
      second = this
      denials = [:]
    }
    guard denials.count < Self.mostCallers else { return false }
    let count = denials["\(peer.uid) \(method.prefix(64))", default: 0] + 1
    denials["\(peer.uid) \(method.prefix(64))"] = count
    return count <= Self.mostDenials
  }

  private func write(_ bytes: [UInt8]) throws(SystemFault) {
    if size + UInt64(bytes.count) > half { file = nil }
    if file == nil { try openFile(adding: UInt64(bytes.count)) }
    guard let raw = file?.withRaw({ $0 }) else { return }
    try writeAll(raw, bytes[...], "\(folder)/audit.log")
    size += UInt64(bytes.count)
  }

  private func openFile(adding count: UInt64) throws(SystemFault) {
    let place = try Folder(opening: folder)
    var opened = try place.open("audit.log", O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
    size = try Self.size(of: opened)
    if size > 0, size + count > half {
      let path = folder
      try place.withRaw { (raw) throws(SystemFault) in
        _ = try check("rename", "\(path)/audit.log") { renameat(raw, "audit.log", raw, "audit.log.1") }
      }
      opened = try place.open("audit.log", O_WRONLY | O_CREAT | O_APPEND, mode: 0o600)
      size = 0
    }
    file = consume opened
  }

  private static func size(of file: borrowing Descriptor) throws(SystemFault) -> UInt64 {
    var status = stat()
    try file.withRaw { (raw) throws(SystemFault) in _ = try check("fstat", "audit.log") { fstat(raw, &status) } }
    return UInt64(status.st_size)
  }
}
