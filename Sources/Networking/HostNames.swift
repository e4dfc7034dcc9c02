internal import Glibc
internal import Linux
internal import Model

/// What host names mean, asked of the host's own resolver on a thread that may wait for it (getaddrinfo(3)).
actor HostNames {
  private nonisolated let loop: EventLoop
  nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  init() throws(SystemFault) { loop = try EventLoop(name: "names") }

  deinit { loop.stop() }

  /// The IPv4 addresses of each; a name that cannot be resolved now is left out.
  func resolve(_ names: [String]) -> [String: [IPv4]] {
    var found: [String: [IPv4]] = [:]
    for name in names {
      var hints = addrinfo()
      hints.ai_family = AF_INET
      hints.ai_socktype = 1
      var list: UnsafeMutablePointer<addrinfo>?
      guard getaddrinfo(name, nil, &hints, &list) == 0 else { continue }
      defer { freeaddrinfo(list) }
      var addresses: [IPv4] = []
      var next = list
      while let entry = next?.pointee {
        next = entry.ai_next
        guard entry.ai_family == AF_INET, let raw = entry.ai_addr else { continue }
        let value = raw.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee.sin_addr.s_addr }
        let address = IPv4(UInt32(bigEndian: value))
        if !addresses.contains(address), addresses.count < 64 { addresses.append(address) }
      }
      found[name] = addresses.sorted()
    }
    return found
  }
}
