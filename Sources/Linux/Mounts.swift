internal import CLinux
internal import Glibc
package import Model

/// What a mount forbids (mount_setattr(2)).
package struct MountRules: OptionSet, Sendable, Equatable {
  package let rawValue: UInt8
  package init(rawValue: UInt8) { self.rawValue = rawValue }
  package static let readOnly = MountRules(rawValue: UInt8(CL_MOUNT_RDONLY))
  package static let noSetuid = MountRules(rawValue: UInt8(CL_MOUNT_NOSUID))
  package static let noDevices = MountRules(rawValue: UInt8(CL_MOUNT_NODEV))
  package static let noExecution = MountRules(rawValue: UInt8(CL_MOUNT_NOEXEC))
}

/// How a path may be resolved (openat2(2)).
package struct ResolveRules: OptionSet, Sendable {
  package let rawValue: UInt64
  package init(rawValue: UInt64) { self.rawValue = rawValue }
  package static let noMagicLinks = ResolveRules(rawValue: 0x02)
  package static let noLinks = ResolveRules(rawValue: 0x04)
  package static let beneath = ResolveRules(rawValue: 0x08)
  /// As if the folder were the root.
  package static let inRoot = ResolveRules(rawValue: 0x10)
  /// Never into another mount.
  package static let sameMount = ResolveRules(rawValue: 0x01)
}

/// A place in the tree (O_PATH): nothing of its content can be read through it.
package enum Place {
  /// Opens `path`, relative to `folder` when given. ELOOP or EXDEV where the rules forbid a step.
  package static func open(_ path: String, in folder: Int32? = nil, _ rules: ResolveRules, noFollow: Bool = false)
    throws(SystemFault) -> Descriptor
  {
    let flags = UInt64(CL_O_PATH) | (noFollow ? UInt64(O_NOFOLLOW) : 0)
    return Descriptor(
      owning: try checkShim("openat2", path) { cl_openat2(folder ?? AT_FDCWD, path, flags, 0, rules.rawValue) })
  }

  /// Opens `path` as `user`, who must be able to read it, not only to reach it.
  package static func open(_ path: String, as user: Policy.Loader?, _ rules: ResolveRules) throws(SystemFault)
    -> Descriptor
  {
    guard user != nil else { return try open(path, rules) }
    return try FileIdentity.with(user) { () throws(SystemFault) in try read(path, in: AT_FDCWD, rules) }
  }

  /// Opens a file for reading.
  package static func read(_ path: String, in folder: Int32, _ rules: ResolveRules) throws(SystemFault) -> Descriptor {
    Descriptor(
      owning: try checkShim("openat2", path) {
        cl_openat2(folder, path, UInt64(O_RDONLY | O_NONBLOCK | O_NOCTTY), 0, rules.rawValue)
      })
  }
}

/// What is at a path, for those who decide before anything is opened.
extension Place {
  package enum Kind: Sendable { case folder, file, program, other }

  /// `program` is a file with any execute bit; without `follow` a link is `other`.
  package static func kind(_ path: String, follow: Bool = true) throws(SystemFault) -> Kind {
    var status = stat()
    try check("stat", path) { follow ? stat(path, &status) : lstat(path, &status) }
    switch status.st_mode & S_IFMT {
    case S_IFDIR: return .folder
    case S_IFREG: return status.st_mode & 0o111 != 0 ? .program : .file
    default: return .other
    }
  }

  package static func isProgram(_ path: String) -> Bool { (try? kind(path)) == .program }

  /// `/dev/null`, for reading and writing.
  package static func null() throws(SystemFault) -> Descriptor {
    Descriptor(owning: try check("open", "/dev/null") { Glibc.open("/dev/null", O_RDWR | O_CLOEXEC) })
  }

  /// The inode of what is at a path itself, to tell later whether it is still the same; nil if nothing is there.
  package static func identity(_ path: String) -> UInt64? {
    var status = stat()
    return lstat(path, &status) == 0 ? UInt64(status.st_ino) : nil
  }

  /// The path with no link in it.
  package static func resolve(_ path: String) throws(SystemFault) -> String {
    guard let resolved = realpath(path, nil) else { throw SystemFault(call: "realpath", subject: path, code: ENOENT) }
    defer { free(resolved) }
    return String(cString: resolved)
  }

  /// The path with no link in it, where `root` (itself resolved) is `/`.
  package static func resolve(_ path: String, inRoot root: String) throws(SystemFault) -> String {
    let folder = try open(root, [])
    let place = try folder.withRaw { (raw) throws(SystemFault) in try open(path, in: raw, [.inRoot, .noMagicLinks]) }
    let full = try place.withRaw { (raw) throws(SystemFault) in try link("/proc/self/fd/\(raw)") }
    guard full.hasPrefix(root + "/") else { throw SystemFault(call: "openat2", subject: path, code: EXDEV) }
    return String(full.dropFirst(root.count))
  }

  /// What a link says.
  package static func link(_ path: String) throws(SystemFault) -> String {
    var text = [CChar](repeating: 0, count: 4096)
    let count = try check("readlink", path) { readlink(path, &text, text.count) }
    return String(decoding: text.prefix(count).map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }
}

/// Making single names in a folder nobody else can change, such as a root that is being built.
extension Place {
  package static func makeFolder(_ name: String, in folder: Int32, mode: UInt32) throws(SystemFault) {
    try check("mkdir", name) { mkdirat(folder, name, mode) }
    // The umask takes away what others may write.
    if mode & 0o022 != 0 { try check("chmod", name) { fchmodat(folder, name, mode, 0) } }
  }

  /// A file or link; one that is not there is as good.
  package static func removeFile(_ name: String, in folder: Int32) throws(SystemFault) {
    do throws(SystemFault) { try check("unlink", name) { unlinkat(folder, name, 0) } } catch  where error.code == ENOENT
    {}
  }

  package static func makeLink(_ name: String, in folder: Int32, to target: String) throws(SystemFault) {
    try check("symlink", name) { symlinkat(target, folder, name) }
  }

  package static func makeFile(_ name: String, in folder: Int32, mode: UInt32, _ bytes: [UInt8]) throws(SystemFault) {
    let file = Descriptor(
      owning: try check("open", name) {
        openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode)
      })
    try file.withRaw { (raw) throws(SystemFault) in try writeAll(raw, bytes[...], name) }
  }
}

extension Place {
  /// A new file of mode 0600 in a folder nobody else can change, open for writing.
  package static func makeEmptyFile(_ name: String, in folder: Int32) throws(SystemFault) -> Descriptor {
    Descriptor(
      owning: try check("open", name) {
        openat(folder, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
      })
  }
}

extension Place {
  /// A new character device node.
  package static func makeDevice(
    _ name: String, in folder: Int32, number: UInt64, uid: UInt32, gid: UInt32, mode: UInt32
  )
    throws(SystemFault)
  {
    try check("mknod", name) { mknodat(folder, name, S_IFCHR | mode, dev_t(number)) }
    try check("chown", name) { fchownat(folder, name, uid, gid, AT_SYMLINK_NOFOLLOW) }
    // Whatever the file mask took away.
    try check("chmod", name) { fchmodat(folder, name, mode, 0) }
  }
}

/// A mount that hangs nowhere yet. Gone when let go of without being attached.
package struct DetachedMount: ~Copyable, Sendable {
  private let descriptor: Descriptor

  /// A private copy of what is seen at an open place, submounts included, under `rules` (open_tree(2)).
  package init(copying place: borrowing Descriptor, _ rules: MountRules, _ path: String) throws(SystemFault) {
    let tree = Descriptor(
      owning: try place.withRaw { (raw) throws(SystemFault) in
        try checkShim("open_tree", path) { cl_clone_tree(raw, "", 1) }
      })
    try tree.withRaw { (raw) throws(SystemFault) in
      _ = try checkShim("mount_setattr", path) { cl_set_mount(raw, UInt64(rules.rawValue), 1, 1) }
    }
    descriptor = tree
  }

  /// A new file system of `type` with `options` (nil value: a flag), as fsconfig(2) takes them.
  package init(new type: String, _ options: [(String, String?)], _ rules: MountRules) throws(SystemFault) {
    let raw = CStrings.with(options.flatMap { [$0.0, $0.1 ?? ""] }) { pairs in
      for (index, option) in options.enumerated() where option.1 == nil {
        free(pairs[2 * index + 1])
        pairs[2 * index + 1] = nil
      }
      return pairs.withMemoryRebound(to: UnsafePointer<CChar>?.self, capacity: 2 * options.count + 1) {
        cl_new_mount(type, $0, UInt64(rules.rawValue))
      }
    }
    descriptor = Descriptor(owning: try checkShim("fsmount", type) { raw })
  }

  package borrowing func withRaw<Result: ~Copyable, Failure: Error>(_ body: (Int32) throws(Failure) -> Result)
    throws(Failure)
    -> Result
  {
    try descriptor.withRaw(body)
  }

  /// What is owned by id N in it shows as owned by what N is in a user namespace, for as long as it is mounted (mount_setattr(2),
  /// MOUNT_ATTR_IDMAP). Only while it hangs nowhere; EINVAL where the file system cannot.
  package borrowing func mapIDs(by namespace: borrowing Descriptor, _ path: String) throws(SystemFault) {
    try descriptor.withRaw { (raw) throws(SystemFault) in
      try namespace.withRaw { (namespace) throws(SystemFault) in
        _ = try checkShim("mount_setattr", path) { cl_map_mount_ids(raw, namespace) }
      }
    }
  }

  /// Hangs it onto an open folder or file of the caller's mount namespace.
  package borrowing func attach(to target: borrowing Descriptor, _ path: String) throws(SystemFault) {
    try descriptor.withRaw { (raw) throws(SystemFault) in
      try target.withRaw { (target) throws(SystemFault) in
        _ = try checkShim("move_mount", path) { cl_attach_mount(raw, target) }
      }
    }
  }

  /// Its root, open as a folder or place, for as long as the mount object lives.
  package borrowing func duplicate() throws(SystemFault) -> Descriptor { try descriptor.duplicate() }

  /// Shows its files, those of submounts included, as another's: what belongs to `disk` on disk is `seen` here, and what `seen` makes
  /// belongs to `disk`. Others' files are nobody's. Only before it is attached; EINVAL where the file system cannot do it.
  package borrowing func mapOwner(
    disk: (uid: UInt32, gid: UInt32), seen: (uid: UInt32, gid: UInt32), _ path: String
  ) throws(SystemFault) {
    let namespace = Descriptor(
      owning: try checkShim("user namespace", path) {
        cl_user_namespace("\(disk.uid) \(seen.uid) 1\n", "\(disk.gid) \(seen.gid) 1\n")
      })
    try descriptor.withRaw { (raw) throws(SystemFault) in
      try namespace.withRaw { (namespace) throws(SystemFault) in
        _ = try checkShim("mount_setattr", path) { cl_map_mount(raw, namespace) }
      }
    }
  }

  /// Makes its file system read-only for good, whatever mounts of it say. `flag`: an option it was made with and must be told again.
  package borrowing func seal(_ flag: String?, _ path: String) throws(SystemFault) {
    try descriptor.withRaw { (raw) throws(SystemFault) in
      _ = try checkShim("fspick", path) { cl_seal_file_system(raw, flag) }
    }
  }

  /// Adds rules to it alone, attached or not.
  package borrowing func restrict(_ rules: MountRules, _ path: String) throws(SystemFault) {
    try descriptor.withRaw { (raw) throws(SystemFault) in
      _ = try checkShim("mount_setattr", path) { cl_set_mount(raw, UInt64(rules.rawValue), 0, 0) }
    }
  }
}

/// The calling process's view of all mounts.
package enum MountView {
  /// Mounts an overlay at a folder of the caller's view (mount(2)); paths in `options` are relative to the current folder.
  package static func mountOverlay(_ target: String, _ options: String) throws(SystemFault) {
    guard options.utf8.count < 4096 else { throw SystemFault(call: "mount", subject: "overlay", code: E2BIG) }
    try checkShim("mount", "overlay") { cl_mount_overlay(target, options) }
  }

  /// Runs `body` in a mount namespace that is like the present one, in which nothing shows outside and which is gone afterwards. For a
  /// process with one thread, whose current folder becomes `/`. One that cannot come back ends.
  package static func aside<Result: ~Copyable>(_ body: () throws(SystemFault) -> Result) throws(SystemFault) -> Result {
    let path = "/proc/self/ns/mnt"
    let home = Descriptor(owning: try check("open", path) { open(path, O_RDONLY | O_CLOEXEC) })
    try Namespaces.unshare(.mount)
    defer {
      home.withRaw { raw in
        let code = cl_setns(raw, Int32(CL_NEWNS))
        if code < 0 { fatalError("setns: the way back to the host's mounts is lost: \(SystemFault.text(of: -code))") }
      }
    }
    try makePrivate()
    return try body()
  }

  /// From now on nothing mounted here shows elsewhere, nor the other way round.
  package static func makePrivate() throws(SystemFault) { try checkShim("mount", "/") { cl_make_all_private() } }

  /// Makes the current folder (a mount's root) the root and lets go of the old one, all below included.
  package static func pivotHere() throws(SystemFault) { try checkShim("pivot_root") { cl_pivot_here() } }
}
