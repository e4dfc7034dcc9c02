internal import Glibc
internal import Linux

/// sd_notify(3): tells systemd, if it started this daemon.
enum Notify {
  /// How often `WATCHDOG=1` is awaited, if at all (sd_watchdog_enabled(3)).
  static var watchdog: Duration? {
    func number(_ name: String) -> Int64? { getenv(name).flatMap { Int64(String(cString: $0)) } }
    guard let time = number("WATCHDOG_USEC"), time > 0, number("WATCHDOG_PID").map({ $0 == Int64(getpid()) }) ?? true
    else {
      return nil
    }
    return .microseconds(time)
  }

  /// Says that this process is alive, twice as often as it must, each time after `isAlive` came back: a daemon whose state nobody
  /// can reach any more is as good as dead, and is ended and started again. Until cancelled.
  static func watch(_ isAlive: () async -> Void) async {
    guard let time = watchdog else { return }
    while !Task.isCancelled {
      await isAlive()
      send("WATCHDOG=1")
      // Cancelled with the daemon.
      do { try await Task.sleep(for: time / 2) } catch { return }
    }
  }

  /// Best effort by nature: without a NOTIFY_SOCKET, or with a dead one, nothing happens.
  static func send(_ state: String) {
    guard let path = getenv("NOTIFY_SOCKET").map({ String(cString: $0) }), let first = path.utf8.first,
      first == UInt8(ascii: "/") || first == UInt8(ascii: "@")
    else { return }
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let fits = withUnsafeMutableBytes(of: &address.sun_path) { room in
      guard path.utf8.count < room.count else { return false }
      room.copyBytes(from: path.utf8)
      // An abstract name, as containers get one.
      if first == UInt8(ascii: "@") { room[0] = 0 }
      return true
    }
    // An abstract name ends where its length says.
    let length = socklen_t(MemoryLayout<sa_family_t>.size + path.utf8.count + (first == UInt8(ascii: "/") ? 1 : 0))
    let raw = socket(AF_UNIX, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
    guard fits, raw >= 0 else { return }
    let connection = Descriptor(owning: raw)
    _ = connection.withRaw { raw in
      withUnsafePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
          state.utf8.withContiguousStorageIfAvailable {
            sendto(raw, $0.baseAddress, $0.count, 0, address, length)
          }
        }
      }
    }
  }
}
