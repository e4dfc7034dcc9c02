internal import CLinux
internal import Glibc

/// A pipe, close-on-exec; each end is taken out of it by who is to own it.
package struct Pipe: ~Copyable {
  package var reading: Descriptor?
  package var writing: Descriptor?

  /// `size` bytes of room, or what an unprivileged limit allows; the read end does not block if asked.
  package init(size: Int32? = nil, nonBlockingRead: Bool) throws(SystemFault) {
    var ends: [Int32] = [0, 0]
    try check("pipe") { pipe(&ends) }
    reading = Descriptor(owning: ends[0])
    writing = Descriptor(owning: ends[1])
    try Pipe.setFlags(ends[0], nonBlocking: nonBlockingRead)
    try Pipe.setFlags(ends[1], nonBlocking: false)
    // Best effort: over the user's pipe quota the default size stays, and works.
    if let size { _ = cl_set_pipe_size(ends[0], size) }
  }

  private static func setFlags(_ raw: Int32, nonBlocking: Bool) throws(SystemFault) {
    try check("fcntl", "FD_CLOEXEC") { fcntl(raw, F_SETFD, FD_CLOEXEC) }
    if nonBlocking { try check("fcntl", "O_NONBLOCK") { fcntl(raw, F_SETFL, O_NONBLOCK) } }
  }

  /// Moves up to `length` bytes between two descriptors, one of which is a pipe, without copying them through the caller
  /// (splice(2)). 0: the end of the input. Nil: nothing can be moved now.
  package static func splice(_ input: Int32, _ output: Int32, offset: UnsafeMutablePointer<Int64>? = nil, _ length: Int)
    throws(SystemFault) -> Int?
  {
    do throws(SystemFault) { return Int(try checkShim("splice") { cl_splice(input, output, offset, length) }) } catch
      where error.code == EAGAIN
    { return nil }
  }

  /// Another writing end of the pipe that process `pid` has as its standard input; nil: that is no pipe. What it really is, is looked
  /// at before it is opened: the process may have put anything there.
  package static func writingEnd(ofInputOf pid: Int32) throws(SystemFault) -> SharedDescriptor? {
    let path = "/proc/\(pid)/fd/0"
    let place = Descriptor(owning: try check("open", path) { open(path, pathOnly | O_CLOEXEC) })
    return try place.withRaw { (raw) throws(SystemFault) in
      let own = "/proc/self/fd/\(raw)"
      var name = [CChar](repeating: 0, count: 16)
      let length = try check("readlink", path) { readlink(own, &name, 6) }
      // The kernel's name for what has none in any folder.
      guard length == 6, name.prefix(6).elementsEqual("pipe:[".utf8.map { CChar($0) }) else { return nil }
      return SharedDescriptor(
        Descriptor(owning: try check("open", path) { open(own, O_WRONLY | O_NONBLOCK | O_CLOEXEC) }))
    }
  }

  /// How many bytes wait in a pipe or socket.
  package static func waiting(_ raw: Int32) -> Int { max(0, Int(cl_bytes_waiting(raw))) }
}

/// Packets between a parent and the child it forks; the parent's end learns who wrote each.
package struct PacketPair: ~Copyable {
  package var parent: Descriptor?
  package var child: Descriptor?

  /// Both ends block and are close-on-exec.
  package init() throws(SystemFault) {
    var ends: [Int32] = [0, 0]
    try checkShim("socketpair") { cl_packet_pair(&ends) }
    parent = Descriptor(owning: ends[0])
    child = Descriptor(owning: ends[1])
  }

  /// Whether a packet, or the end, can be received at once.
  package static func isWaiting(_ raw: Int32) -> Bool {
    var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
    return poll(&wait, 1, 0) > 0
  }

  /// One packet and its sender's pid in the caller's pid namespace; an empty one is the end.
  package static func receive(_ raw: Int32, limit: Int = 512) throws(SystemFault) -> (bytes: [UInt8], sender: Int32) {
    var sender: pid_t = 0
    var uid: uid_t = 0
    var bytes = [UInt8](repeating: 0, count: limit)
    func receive() throws(SystemFault) -> Int {
      try checkShim("recvmsg") {
        bytes.withUnsafeMutableBytes { cl_receive_from(raw, $0.baseAddress, $0.count, &sender, &uid) }
      }
    }
    let got: Int
    // Said once, and before what is still there to be read: the other end closed without having read all of ours.
    do throws(SystemFault) { got = try receive() } catch  where error.code == ECONNRESET { got = try receive() }
    bytes.removeLast(limit - got)
    return (bytes, sender)
  }

  /// EPIPE when nobody is left at the other end.
  package static func send(_ raw: Int32, _ bytes: [UInt8]) throws(SystemFault) {
    _ = try checkShim("send") { bytes.withUnsafeBytes { cl_send_packet(raw, $0.baseAddress, $0.count) } }
  }
}

/// Memory with a descriptor that nobody can change any more (memfd_create(2), F_ADD_SEALS).
package enum SealedMemory {
  package static func make(_ name: String, _ bytes: [UInt8]) throws(SystemFault) -> Descriptor {
    let file = Descriptor(owning: try checkShim("memfd_create", name) { cl_memory_file(name) })
    try file.withRaw { (raw) throws(SystemFault) in
      try writeAll(raw, bytes[...], name)
      try check("lseek", name) { lseek(raw, 0, SEEK_SET) }
      try checkShim("fcntl", "F_ADD_SEALS") { cl_seal(raw) }
    }
    return file
  }

  /// All of it, at most `limit` bytes; EPERM if it is not sealed.
  package static func read(_ file: SharedDescriptor, limit: Int) throws(SystemFault) -> [UInt8] {
    try file.withRaw { (raw) throws(SystemFault) in
      let sealed = try checkShim("fcntl", "F_GET_SEALS") { cl_is_sealed(raw) }
      guard sealed == 1 else { throw SystemFault(call: "fcntl", subject: "F_GET_SEALS", code: EPERM) }
      return try readAll(raw, "memfd", limit: limit)
    }
  }
}

/// Memory with a descriptor, for what a program writes (memfd_create(2)).
package enum ScratchMemory {
  package static func make(_ name: String) throws(SystemFault) -> Descriptor {
    Descriptor(owning: try checkShim("memfd_create", name) { cl_memory_file(name) })
  }

  /// All of it from its beginning, at most 16 MiB.
  package static func text(_ file: borrowing Descriptor) throws(SystemFault) -> String {
    try file.withRaw { (raw) throws(SystemFault) in
      try check("lseek", "memfd") { lseek(raw, 0, SEEK_SET) }
      return String(decoding: try readAll(raw, "memfd", limit: 16 << 20), as: UTF8.self)
    }
  }
}

/// TCP as the forwarder needs it: plain, non-blocking, close-on-exec.
package enum TCP {
  /// A listening socket at a numeric address; `port` 0 becomes the one taken.
  package static func listen(_ address: String, _ port: inout UInt16, backlog: Int32 = 128) throws(SystemFault)
    -> Descriptor
  {
    let asked = port
    return Descriptor(
      owning: try checkShim("bind", "\(address):\(asked)") { cl_listen_tcp(address, &port, backlog) })
  }

  package enum Family: Sendable { case v4, v6 }

  /// A socket on its way to 127.0.0.1, or ::1, in the caller's network namespace.
  package static func connectLoopback(_ port: UInt16, _ family: Family = .v4) throws(SystemFault) -> Descriptor {
    Descriptor(
      owning: try checkShim("connect", family == .v4 ? "127.0.0.1:\(port)" : "[::1]:\(port)") {
        cl_connect_loopback(port, family == .v6 ? 1 : 0)
      })
  }

  /// What has arrived, as much as there is room for; 0: the end.
  package static func receive(_ raw: Int32, into bytes: inout [UInt8]) throws(SystemFault) -> Int {
    let room = bytes.count
    return try check("recv") { recv(raw, &bytes, room, 0) }
  }

  /// 0 once connected, or the errno it failed with.
  package static func pendingError(_ raw: Int32) -> Int32 { cl_socket_error(raw) }

  /// No more will be sent. Best effort: a connection already gone needs none.
  package static func finishWriting(_ raw: Int32) { _ = cl_shutdown_write(raw) }
}
