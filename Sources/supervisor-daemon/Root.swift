internal import Glibc
internal import Linux
internal import Model

/// The instance's folders, made and held by this daemon alone.
struct Root: ~Copyable {
  let folders: InstancePlace.Folders
  /// Locked (flock) as long as this daemon lives: a lock needs no clean-up after `kill -9`.
  private let lock: Descriptor

  /// Makes what is missing and takes the lock; ends the process with 78 where another daemon holds it.
  init(_ place: InstancePlace, _ environment: [String: String]) {
    guard let folders = place.folders(environment, uid: getuid()) else {
      fail(78, "HOME is not set, so your own instance has no place", "set HOME, or use --root DIR")
    }
    do throws(SystemFault) {
      for path in [folders.config, folders.state, folders.run, folders.log] {
        _ = try Folder(making: path, mode: 0o750)
      }
      // Without links: what is compared with these paths later is compared step by step.
      var own = folders
      own.config = try Place.resolve(folders.config)
      own.state = try Place.resolve(folders.state)
      own.run = try Place.resolve(folders.run)
      own.log = try Place.resolve(folders.log)
      self.folders = own
      for path in [own.config, own.state, own.run, own.log] { try Self.checkOwner(path) }
      let run = try Folder(opening: own.run)
      lock = try run.open("daemon.lock", O_RDWR | O_CREAT, mode: 0o600)
      let held = lock.withRaw { flock($0, LOCK_EX | LOCK_NB) } != 0
      if held {
        // best effort: it only adds to a message.
        let pid = (try? File.text("\(folders.run)/daemon.lock")) ?? ""
        fail(
          78, "another daemon (pid \(pid.isEmpty ? "unknown" : pid)) holds this instance (\(folders.run))",
          "use that one: `supervisor ps`; or end it first: `supervisor daemon --stop`")
      }
      try lock.withRaw { (raw) throws(SystemFault) in
        try check("ftruncate", "daemon.lock") { ftruncate(raw, 0) }
        try writeAll(raw, Array("\(getpid())".utf8)[...], "daemon.lock")
      }
    } catch {
      fail(1, "the instance's folders cannot be used: \(error)", "check their owner and permissions, or use --root DIR")
    }
  }

  /// What others may write, or put another in the place of, is not ours: policies, state and sockets in it would be theirs.
  private static func checkOwner(_ path: String) throws(SystemFault) {
    var facts = stat()
    try check("stat", path) { lstat(path, &facts) }
    guard facts.st_uid == getuid(), facts.st_mode & 0o022 == 0 else {
      fail(
        78, "\(path) belongs to another user or can be written by others",
        "it must be owned by uid \(getuid()) and have mode 0750")
    }
    var above = path
    while let slash = above.lastIndex(of: "/"), above != "/" {
      above = slash == above.startIndex ? "/" : String(above[..<slash])
      let place = above
      try check("stat", place) { lstat(place, &facts) }
      // In a sticky folder only the owner renames what is his.
      let isOpen = facts.st_mode & 0o002 != 0 && facts.st_mode & S_ISVTX == 0
      guard facts.st_uid == 0 || facts.st_uid == getuid(), !isOpen else {
        fail(
          78, "\(above) belongs to another user or can be written by everybody, who could replace \(path)",
          "keep the instance in a folder that only uid \(getuid()) and root can change")
      }
    }
  }
}
