internal import Glibc
internal import Linux
internal import Sandboxing

/// Where a shim lives, before it knows for whom.
enum Quarters {
  /// Out of the daemon's group first: what happens to that must not reach an app. In v2 by going on as a child that is born in the
  /// other group: to move a process, the kernel waits until nobody forks anywhere.
  static func move(_ groups: ArraySlice<String>) throws(SystemFault) {
    if let ids = groups.first.flatMap(UserIDs.init) { try goOn(as: ids, in: groups.dropFirst().first ?? "-") }
    if let path = groups.first, path != "-" {
      let folder = try Place.open(path, [])
      let forked = try folder.withRaw { (raw) throws(SystemFault) in try Namespaces.fork([], cgroup: raw) }
      if case .parent = forked { Children.exitNow(0) }
    }
    for file in groups.dropFirst() { try File.write(file, "0") }
    try Privileges.setSubreaper()
    // What a runtime looks up once, it looks up now, while nobody waits.
    _ = try? LaunchPlan(bytes: LaunchPlan(app: "", generation: 0, nonce: "").bytes)
  }

  /// Ids that an ordinary user may give to apps, as its daemon writes them.
  private struct UserIDs {
    var first: UInt32
    var count: UInt32

    init?(_ word: String) {
      let parts = word.split(separator: "+").compactMap { UInt32($0) }
      guard parts.count == 2 else { return nil }
      (first, count) = (parts[0], parts[1])
    }
  }

  /// For an ordinary user the child is also root of a user namespace of that user's, with a view of the mounts of its own: there it may
  /// do for the app what the host's root may.
  private static func goOn(as ids: UserIDs, in path: String) throws(SystemFault) -> Never {
    let folder = try Place.open(path, [])
    var gate = try Pipe(nonBlockingRead: false)
    guard let reading = gate.reading.take(), let writing = gate.writing.take() else {
      throw SystemFault(call: "pipe", subject: "", code: EBADF)
    }
    let forked = try folder.withRaw { (raw) throws(SystemFault) in try Namespaces.fork([.user, .mount], cgroup: raw) }
    switch consume forked {
    case .parent(let pid, _):
      // The child waits for this; if it fails, it sees the end instead, and ends.
      try SubordinateIDs.give(ids.first, ids.count, to: pid)
      try writing.withRaw { (raw) throws(SystemFault) in try writeAll(raw, [1], "gate") }
      Children.exitNow(0)
    case .child:
      _ = consume writing
      var byte: UInt8 = 0
      let got = try reading.withRaw { (raw) throws(SystemFault) in try check("read", "gate") { read(raw, &byte, 1) } }
      guard got == 1 else { Children.exitNow(1) }
      // Once more from the start, without arguments: memory belongs to the namespace its program was started in, and what we fork could
      // else not be entered by us, once it has made itself not dumpable (ptrace(2), access mode checking).
      try Privileges.execute(path: "/proc/self/exe", ["supervisor-shim"], [])
      Children.exitNow(1)
    }
  }

  /// The launch plan's file; nil when the daemon ended or had no use for us.
  static func firstPacket(_ daemon: SharedDescriptor) throws(SystemFault) -> SharedDescriptor? {
    var byte: UInt8 = 0
    var received: [SharedDescriptor] = []
    let got = try daemon.withRaw { (raw) throws(SystemFault) in
      try withUnsafeMutableBytes(of: &byte) { (buffer) throws(SystemFault) in
        try UnixSocket.receive(raw, into: buffer, descriptors: &received)
      }
    }
    return got > 0 && received.count == 1 ? received[0] : nil
  }
}
