internal import CLinux
internal import Glibc

/// Who is at the other end of a Unix socket, as the kernel recorded it when the socket was connected (SO_PEERCRED and
/// SO_PEERGROUPS, unix(7)).
package struct PeerCredentials: Sendable, Equatable {
  package var pid: Int32
  package var uid: UInt32
  package var gid: UInt32
  /// Supplementary groups.
  package var groups: [UInt32]

  package init(pid: Int32, uid: UInt32, gid: UInt32, groups: [UInt32] = []) {
    self.pid = pid
    self.uid = uid
    self.gid = gid
    self.groups = groups
  }
}

/// Unix stream and seqpacket sockets. All are close-on-exec; listening and connecting by path go through
/// `/proc/self/fd/FOLDER/NAME`, so a long path cannot overflow the address.
package enum UnixSocket {
  package enum Kind: Sendable { case stream, packets }

  /// A listening socket `name` in `folder`. A stale socket file is replaced; the caller holds the lock that says it is stale.
  /// `group`: whose it is then, if not the caller's.
  package static func listen(
    _ folder: borrowing Folder, _ name: String, mode: UInt32, group: UInt32? = nil, kind: Kind = .stream,
    backlog: Int32 = 512
  ) throws(SystemFault) -> Descriptor {
    let path = "\(folder.path)/\(name)"
    let socket = try make(kind, nonBlocking: true)
    try folder.remove(name)
    try folder.withRaw { (directory) throws(SystemFault) in
      try socket.withRaw { (raw) throws(SystemFault) in
        var address = try address(directory, name)
        // Bound with no access at all, then opened to `mode`: nobody connects in between. A file gets the mode that its socket has;
        // the umask would be that of all threads, and what others make meanwhile would have no access either.
        try check("chmod", path) { fchmod(raw, 0) }
        try check("bind", path) { withAddress(&address) { Glibc.bind(raw, $0, $1) } }
        if let group { try check("chown", path) { fchownat(directory, name, UInt32.max, group, AT_SYMLINK_NOFOLLOW) } }
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
    // As many as a process may be in (NGROUPS_MAX); nearly all are in a few.
    for room in [64, 65536] {
      var groups = [UInt32](repeating: 0, count: room)
      do throws(SystemFault) {
        let count = try checkShim("getsockopt", "SO_PEERGROUPS") { cl_peer_groups(raw, &groups, Int32(room)) }
        peer.groups = Array(groups[..<Int(count)])
        break
      } catch  where error.code == ERANGE && room == 64 { continue }
    }
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

  /// Sends one packet with descriptors over a socket that a peer gave us; EAGAIN rather than waiting for it.
  package static func offer(_ raw: Int32, _ bytes: [UInt8], descriptors: [Int32]) throws(SystemFault) {
    _ = try checkShim("sendmsg") {
      bytes.withUnsafeBytes { cl_offer_fds(raw, $0.baseAddress, $0.count, descriptors, Int32(descriptors.count)) }
    }
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

  /// As above, for a peer that is not trusted: more than `most` descriptors at once are closed, and EMSGSIZE is thrown.
  package static func receive(
    _ raw: Int32, into buffer: UnsafeMutableRawBufferPointer, most: Int, descriptors: inout [SharedDescriptor]
  ) throws(SystemFault) -> Int {
    var count: Int32 = 0
    return try withUnsafeTemporaryAllocation(of: Int32.self, capacity: most) { (arrived) throws(SystemFault) in
      let got = try checkShim("recvmsg") {
        cl_receive_with_fds(raw, buffer.baseAddress, buffer.count, arrived.baseAddress, Int32(most), &count)
      }
      for index in 0..<Int(count) { descriptors.append(SharedDescriptor(Descriptor(owning: arrived[index]))) }
      return Int(got)
    }
  }

  /// One packet with what was passed beside it; no bytes: the end. One longer than `limit` is cut.
  package static func receivePacket(_ raw: Int32, limit: Int) throws(SystemFault) -> (
    bytes: [UInt8], descriptors: [SharedDescriptor]
  ) {
    let room = UnsafeMutableRawBufferPointer.allocate(byteCount: limit, alignment: 16)
    defer { room.deallocate() }
    var descriptors: [SharedDescriptor] = []
    let got = try receive(raw, into: room, descriptors: &descriptors)
    return (Array(room[..<got]), descriptors)
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

/// Datagram sockets that hear what others say to them, and who that is.
extension UnixSocket {
  /// A message, cut at the receiver's limit, and its sender as the kernel says, in the receiver's numbering.
  package struct Datagram: Sendable {
    package var bytes: [UInt8]
    package var pid: Int32
    package var uid: UInt32
  }

  /// Not bound yet; non-blocking.
  package static func makeDatagram() throws(SystemFault) -> Descriptor {
    Descriptor(owning: try checkShim("socket", "AF_UNIX") { cl_datagram_socket() })
  }

  /// Gives it the name `name` in an open folder, where nothing is yet.
  package static func bind(_ raw: Int32, in folder: Int32, _ name: String, mode: UInt32) throws(SystemFault) {
    var address = try address(folder, name)
    try check("bind", name) { withAddress(&address) { Glibc.bind(raw, $0, $1) } }
    try check("chmod", name) { fchmodat(folder, name, mode, 0) }
  }

  /// The next message; nil when none waits. Descriptors sent with it are not taken.
  package static func receive(_ raw: Int32, limit: Int) throws(SystemFault) -> Datagram? {
    var bytes = [UInt8](repeating: 0, count: limit)
    var pid: pid_t = 0
    var uid: uid_t = 0
    do throws(SystemFault) {
      let got = try checkShim("recvmsg") {
        bytes.withUnsafeMutableBytes { cl_receive_from(raw, $0.baseAddress, $0.count, &pid, &uid) }
      }
      bytes.removeLast(limit - Int(got))
      return Datagram(bytes: bytes, pid: pid, uid: uid)
    } catch  where error.code == EAGAIN { return nil }
  }
}
