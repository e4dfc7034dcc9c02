internal import CLinux
internal import Glibc

/// Who is at the other end of a Unix socket, as the kernel recorded it when the socket was connected (SO_PEERCRED, unix(7)).
package struct PeerCredentials: Sendable, Equatable {
  package var pid: Int32
  package var uid: UInt32
  package var gid: UInt32
}

/// Unix stream and seqpacket sockets. All are close-on-exec; listening and connecting by path go through
/// `/proc/self/fd/FOLDER/NAME`, so a long path cannot overflow the address.
package enum UnixSocket {
  package enum Kind: Sendable { case stream, packets }

  /// A listening socket `name` in `folder`. A stale socket file is replaced; the caller holds the lock that says it is stale.
  package static func listen(
    _ folder: borrowing Folder, _ name: String, mode: UInt32, kind: Kind = .stream, backlog: Int32 = 512
  ) throws(SystemFault) -> Descriptor {
    let path = "\(folder.path)/\(name)"
    let socket = try make(kind, nonBlocking: true)
    try folder.remove(name)
    try folder.withRaw { (directory) throws(SystemFault) in
      try socket.withRaw { (raw) throws(SystemFault) in
        var address = try address(directory, name)
        // Bound with no access at all, then opened to `mode`: nobody connects in between.
        let mask = umask(0o777)
        defer { umask(mask) }
        try check("bind", path) { withAddress(&address) { bind(raw, $0, $1) } }
        try check("chmod", path) { fchmodat(directory, name, mode, 0) }
        try check("listen", path) { Glibc.listen(raw, backlog) }
      }
    }
    return socket
  }

  /// Connects to the socket at an absolute path. Blocking, unless the peer's backlog has room at once, as it does.
  package static func connect(_ path: String, kind: Kind = .stream) throws(SystemFault) -> Descriptor {
    let parts = path.split(separator: "/", omittingEmptySubsequences: false)
    let name = String(parts.last ?? "")
    let parent = parts.dropLast().joined(separator: "/")
    let folder = Descriptor(
      owning: try check("open", path) { open(parent.isEmpty ? "/" : parent, pathOnly | O_DIRECTORY | O_CLOEXEC) })
    let socket = try make(kind, nonBlocking: false)
    try folder.withRaw { (directory) throws(SystemFault) in
      try socket.withRaw { (raw) throws(SystemFault) in
        var address = try address(directory, name)
        try check("connect", path) { withAddress(&address) { Glibc.connect(raw, $0, $1) } }
      }
    }
    return socket
  }

  /// Accepts one connection, non-blocking; nil when none waits.
  package static func accept(_ listener: Int32) throws(SystemFault) -> Descriptor? {
    do throws(SystemFault) {
      return Descriptor(owning: try checkShim("accept4") { cl_accept(listener) })
    } catch  where error.code == EAGAIN || error.code == ECONNABORTED {
      return nil
    }
  }

  /// A connected pair, blocking.
  package static func pair(_ kind: Kind = .stream) throws(SystemFault) -> (SharedDescriptor, SharedDescriptor) {
    var ends: [Int32] = [0, 0]
    try check("socketpair") { socketpair(AF_UNIX, type(kind) | Int32(SOCK_CLOEXEC.rawValue), 0, &ends) }
    return (SharedDescriptor(Descriptor(owning: ends[0])), SharedDescriptor(Descriptor(owning: ends[1])))
  }

  package static func peer(_ raw: Int32) throws(SystemFault) -> PeerCredentials {
    var peer = PeerCredentials(pid: 0, uid: 0, gid: 0)
    try checkShim("getsockopt", "SO_PEERCRED") { cl_peer_credentials(raw, &peer.pid, &peer.uid, &peer.gid) }
    return peer
  }

  /// Sends bytes with descriptors beside the first of them; returns how many bytes went. EAGAIN is thrown as any other.
  package static func send(
    _ raw: Int32, _ bytes: ArraySlice<UInt8>, descriptors: [Int32] = []
  ) throws(SystemFault) -> Int {
    Int(
      try checkShim("sendmsg") {
        descriptors.withUnsafeBufferPointer { passed in
          bytes.withUnsafeBytes {
            cl_send_with_fds(raw, $0.baseAddress, $0.count, passed.baseAddress, Int32(passed.count))
          }
        }
      })
  }

  /// Receives into `buffer`; passed descriptors are appended to `descriptors`, owned by the caller. 0 is the end of the stream.
  /// If any were cut off, all are closed and EMSGSIZE is thrown.
  package static func receive(
    _ raw: Int32, into buffer: UnsafeMutableRawBufferPointer, descriptors: inout [SharedDescriptor]
  ) throws(SystemFault) -> Int {
    var arrived = [Int32](repeating: -1, count: 253)
    var count: Int32 = 0
    let got = try checkShim("recvmsg") {
      arrived.withUnsafeMutableBufferPointer {
        cl_receive_with_fds(raw, buffer.baseAddress, buffer.count, $0.baseAddress, Int32($0.count), &count)
      }
    }
    for index in 0..<Int(count) { descriptors.append(SharedDescriptor(Descriptor(owning: arrived[index]))) }
    return Int(got)
  }

  private static func type(_ kind: Kind) -> Int32 {
    Int32((kind == .stream ? SOCK_STREAM : SOCK_SEQPACKET).rawValue)
  }

  private static func make(_ kind: Kind, nonBlocking: Bool) throws(SystemFault) -> Descriptor {
    let flags = SOCK_CLOEXEC.rawValue | (nonBlocking ? SOCK_NONBLOCK.rawValue : 0)
    return Descriptor(owning: try check("socket", "AF_UNIX") { socket(AF_UNIX, type(kind) | Int32(flags), 0) })
  }

  private static func address(_ directory: Int32, _ name: String) throws(SystemFault) -> sockaddr_un {
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    let path = Array("/proc/self/fd/\(directory)/\(name)".utf8)
    let fits = withUnsafeMutableBytes(of: &address.sun_path) { room in
      guard path.count < room.count else { return false }
      room.copyBytes(from: path)
      return true
    }
    guard fits else { throw SystemFault(call: "bind", subject: name, code: ENAMETOOLONG) }
    return address
  }

  private static func withAddress<Result>(
    _ address: inout sockaddr_un, _ body: (UnsafePointer<sockaddr>, socklen_t) -> Result
  ) -> Result {
    withUnsafePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, socklen_t(MemoryLayout<sockaddr_un>.size)) }
    }
  }
}

extension UnixSocket {
  /// Ends our side of a connection (shutdown(2), SHUT_WR); the peer reads to the end of what was sent. One already gone is fine.
  package static func endWriting(_ raw: Int32) { _ = shutdown(raw, Int32(SHUT_WR)) }
}
