internal import Glibc
internal import Linux

/// sd_notify(3): tells systemd, if it started this daemon.
enum Notify {
  /// Best effort by nature: without a NOTIFY_SOCKET, or with a dead one, nothing happens.
  static func send(_ state: String) {
    guard let path = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }), path.hasPrefix("/") else { return }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let fits = withUnsafeMutableBytes(of: &address.sun_path) { room in
      guard path.utf8.count < room.count else { return false }
      room.copyBytes(from: path.utf8)
      return true
    }
    let raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard fits, raw >= 0 else { return }
    let connection = Descriptor(owning: raw)
    _ = connection.withRaw { raw in
      withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
          state.utf8.withContiguousStorageIfAvailable {
            sendto(raw, $0.baseAddress, $0.count, 0, address, socklen_t(MemoryLayout<sockaddr_un>.size))
          }
        }
      }
    }
  }
}
