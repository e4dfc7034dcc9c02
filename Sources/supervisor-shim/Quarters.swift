internal import Glibc
internal import Linux
internal import Sandboxing

/// Where a shim lives, before it knows for whom.
enum Quarters {
  /// Out of the daemon's group first: what happens to that must not reach an app. In v2 by going on as a child that is born in the
  /// other group: to move a process, the kernel waits until nobody forks anywhere.
  static func move(_ groups: ArraySlice<String>) throws(SystemFault) {
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
