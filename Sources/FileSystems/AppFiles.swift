internal import Glibc
package import Linux
package import Model

/// Which files an app may be helped with; the app's rights as they were when it asked.
package protocol FileRules: Sendable {
  func allows(_ right: Right, _ path: String) -> Bool
  /// Whether it holds for a folder and for whatever may lie below it.
  func allowsAll(_ right: Right, below folder: String) -> Bool
}

/// Why something was not done to an app's file.
package enum FileProblem: Error, Sendable, Equatable {
  /// The app may not do it to what was really found.
  case lacks(Right, AppPath)
  case system(SystemFault)
  case refused(Kind, String, hint: String?)
  /// More bytes than one answer has room for.
  case tooLarge(limit: Int)

  package enum Kind: Sendable, Equatable { case invalid, conflict, missing, quota }

  package static func == (left: FileProblem, right: FileProblem) -> Bool { "\(left)" == "\(right)" }
}

/// Runs what calls the kernel.
func system<Result: ~Copyable>(_ body: () throws(SystemFault) -> Result) throws(FileProblem) -> Result {
  do throws(SystemFault) { return try body() } catch { throw .system(error) }
}

/// What is done to an app's files in its name. Every path is resolved once, below the root of its mount, never through a magic link or
/// into another mount; links are followed only to read, and only within the mount. What was found is held, its real path is looked
/// up, and the right must hold for that one too; it is what is then read or changed. Each call may wait for the disk, and runs
/// on a thread that has the app's ids and no power over files (`assume`).
package struct AppFiles: Sendable {
  let view: AppView
  let rules: any FileRules

  package init(_ view: AppView, _ rules: any FileRules) {
    self.view = view
    self.rules = rules
  }

  /// For a thread on which nothing but `AppFiles` runs: it can take on ids, and has no other power, from now on.
  package static func prepareThread() throws(SystemFault) {
    guard geteuid() == 0 else { return try Privileges.setCapabilities(0, ambient: false) }
    try FileIdentity.keepCapabilities()
    // CAP_SETGID, CAP_SETUID.
    try Privileges.setCapabilities(1 << 6 | 1 << 7, ambient: false)
  }

  /// The calling thread is this user, but for who may signal it, until it assumes another.
  package static func assume(uid: UInt32, gid: UInt32, groups: [UInt32]) throws(SystemFault) {
    try FileIdentity.become(Policy.Loader(uid: uid, gid: gid, groups: groups))
  }

  /// Something found, held open as a place.
  struct Found {
    let place: SharedDescriptor
    /// Where it really lies.
    let path: AppPath
    let status: stat

    var isFile: Bool { status.st_mode & S_IFMT == S_IFREG }
    var isFolder: Bool { status.st_mode & S_IFMT == S_IFDIR }
    var kind: String { FileKind.name(status.st_mode) }
  }

  /// `links`: those on the way, and at the end unless `last` says not, are followed within the mount.
  func find(_ path: AppPath, _ rights: [Right], links: Bool = true, last: Bool = true) throws(FileProblem) -> Found {
    let descriptor = try system { () throws(SystemFault) in try open(path, links: links, last: last) }
    let real = try system { () throws(SystemFault) in
      try descriptor.withRaw { (raw) throws(SystemFault) in try view.path(of: raw) }
    }
    for right in rights { try require(right, real) }
    return Found(place: descriptor, path: real, status: try status(descriptor, path))
  }

  private func open(_ path: AppPath, links: Bool, last: Bool) throws(SystemFault) -> SharedDescriptor {
    let (mount, root, rest) = try view.place(of: path)
    guard !rest.isEmpty else { return root }
    var rules: ResolveRules = [.noMagicLinks, .sameMount, mount.target.steps.isEmpty ? .inRoot : .beneath]
    if !links { rules.insert(.noLinks) }
    // EAGAIN: something on the way was renamed meanwhile, and the kernel cannot tell whether the way led out.
    for attempt in 1... {
      do throws(SystemFault) {
        return SharedDescriptor(
          try root.withRaw { (raw) throws(SystemFault) in try Place.open(rest, in: raw, rules, noFollow: !last) })
      } catch { if error.code != EAGAIN || attempt >= 32 { throw error } }
    }
    throw SystemFault(call: "openat2", subject: path.description, code: EAGAIN)
  }

  func status(_ descriptor: SharedDescriptor, _ path: AppPath) throws(FileProblem) -> stat {
    var status = stat()
    try system { () throws(SystemFault) in
      try descriptor.withRaw { (raw) throws(SystemFault) in
        _ = try check("fstat", path.description) { fstat(raw, &status) }
      }
    }
    return status
  }

  func require(_ right: Right, _ path: AppPath) throws(FileProblem) {
    guard rules.allows(right, path.description) else { throw .lacks(right, path) }
  }

  func requireAll(_ right: Right, below path: AppPath) throws(FileProblem) {
    try require(right, path)
    guard rules.allowsAll(right, below: path.description) else { throw .lacks(right, path.adding("**")) }
  }

  /// The folder that something is, or is to be made, in, with its name there; `rights` are asked of both together.
  func parent(_ path: AppPath, _ rights: [Right]) throws(FileProblem) -> (
    folder: SharedDescriptor, name: String, path: AppPath
  ) {
    guard let name = path.name else { throw .refused(.conflict, "/ stays as it is", hint: nil) }
    let folder = try find(path.parent, [], links: false)
    guard folder.isFolder else {
      throw .system(SystemFault(call: "open", subject: path.parent.description, code: ENOTDIR))
    }
    let real = folder.path.adding(name)
    for right in rights { try require(right, real) }
    return (folder.place, name, real)
  }

  /// Opens a file that was found. What is no plain file is refused: it could make a reader wait, or be a device.
  func reopen(_ found: Found, _ flags: Int32) throws(FileProblem) -> SharedDescriptor {
    guard found.isFile else {
      if found.isFolder { throw .system(SystemFault(call: "open", subject: found.path.description, code: EISDIR)) }
      throw .refused(
        .invalid, "\(found.path) is a \(found.kind), not a file", hint: "only plain files are opened for an app")
    }
    return try system { () throws(SystemFault) in
      try found.place.withRaw { (raw) throws(SystemFault) in
        SharedDescriptor(try OpenFile.reopen(raw, flags, found.path.description))
      }
    }
  }

  /// Makes a file that is not there yet (EEXIST), open for `flags`.
  func make(
    _ name: String, in folder: SharedDescriptor, _ path: AppPath, _ flags: Int32, mode: UInt32
  ) throws(FileProblem) -> SharedDescriptor {
    try system { () throws(SystemFault) in
      let made = Descriptor(
        owning: try folder.withRaw { (raw) throws(SystemFault) in
          try check("open", path.description) {
            openat(raw, name, flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, mode)
          }
        })
      // Whatever the daemon's file mask took away.
      try made.withRaw { (raw) throws(SystemFault) in _ = try check("chmod", path.description) { fchmod(raw, mode) } }
      return SharedDescriptor(made)
    }
  }

  /// A file to write, made if it is not there and `creating` says so (its mode); the right to write, or to make it, is asked.
  func writable(
    _ path: AppPath, _ flags: Int32, creating mode: UInt32?, also rights: [Right] = []
  ) throws(FileProblem) -> (file: SharedDescriptor, path: AppPath, isNew: Bool) {
    for _ in 0..<8 {
      do throws(FileProblem) {
        let found = try find(path, [.fileWrite] + rights, links: false)
        return (try reopen(found, flags), found.path, false)
      } catch .system(let fault) where fault.code == ENOENT && mode != nil {
        let (folder, name, real) = try parent(path, [.fileCreate] + rights)
        do throws(FileProblem) {
          return (try make(name, in: folder, real, flags, mode: mode ?? 0o644), real, true)
        } catch .system(let fault) where fault.code == EEXIST {
          // Another made it meanwhile, or a link stands there.
          continue
        }
      }
    }
    throw .refused(.conflict, "\(path) is made and removed by others meanwhile", hint: "ask again")
  }
}

/// Kinds of file, by name.
enum FileKind {
  static func name(_ mode: UInt32) -> String {
    switch mode & S_IFMT {
    case S_IFREG: "file"
    case S_IFDIR: "folder"
    case S_IFLNK: "link"
    case S_IFIFO: "fifo"
    case S_IFSOCK: "socket"
    default: "device"
    }
  }
}
