internal import CLinux
internal import Glibc

/// Holding a process to a list of places (landlock(7)): a wall beside mounts and modes, which it cannot take down itself.
package enum Landlock {
  /// What can be allowed beneath a path; the kernel's own bits (linux/landlock.h).
  package struct Rights: OptionSet, Sendable {
    package let rawValue: UInt64
    package init(rawValue: UInt64) { self.rawValue = rawValue }
    package static let execute = Rights(rawValue: 1 << 0)
    package static let writeFile = Rights(rawValue: 1 << 1)
    package static let readFile = Rights(rawValue: 1 << 2)
    package static let readFolder = Rights(rawValue: 1 << 3)
    /// To make and remove everything but device files; to move between folders (ABI 2).
    package static let change = Rights(rawValue: 0b11_0111_1011_0000 | 1 << 13)
    /// To make character devices, of which an unprivileged process can make overlayfs's whiteout (0:0) alone.
    package static let makeCharacterDevice = Rights(rawValue: 1 << 6)
    package static let truncate = Rights(rawValue: 1 << 14)
    package static let controlDevice = Rights(rawValue: 1 << 15)
    /// Those that mean something for a file that is no folder.
    static let ofFiles: Rights = [.execute, .writeFile, .readFile, .truncate, .controlDevice]
  }

  /// The kernel's; 0: it has none.
  package static var abi: Int32 { cl_landlock_abi() }

  /// Every right that this ABI knows is denied from now on but `allowed`, by path in the caller's root. With `noTCP`, no TCP
  /// socket can be bound or connected either (ABI 4). A path that is not there allows nothing. Needs no_new_privs; the calling
  /// thread is the only one.
  package static func restrict(to allowed: [(path: String, rights: Rights)], noTCP: Bool) throws(SystemFault) {
    let abi = abi
    let known: UInt64 =
      switch abi {
      case ...1: 1 << 13 - 1
      case 2: 1 << 14 - 1
      case 3, 4: 1 << 15 - 1
      default: 1 << 16 - 1
      }
    let network: UInt64 = noTCP && abi >= 4 ? 0b11 : 0
    let ruleset = Descriptor(
      owning: try checkShim("landlock_create_ruleset") { cl_landlock_ruleset(known, network, 0) })
    try ruleset.withRaw { (ruleset) throws(SystemFault) in
      for (path, rights) in allowed { try allow(rights.rawValue & known, path, ruleset) }
      _ = try checkShim("landlock_restrict_self") { cl_landlock_restrict(ruleset) }
    }
  }

  private static func allow(_ rights: UInt64, _ path: String, _ ruleset: Int32) throws(SystemFault) {
    let place: Descriptor
    do throws(SystemFault) { place = try Place.open(path, [.noLinks, .noMagicLinks]) } catch
      where [ENOENT, ENOTDIR, ELOOP].contains(error.code)
    { return }
    try place.withRaw { (raw) throws(SystemFault) in
      var status = stat()
      try check("fstat", path) { fstat(raw, &status) }
      let isFolder = status.st_mode & S_IFMT == S_IFDIR
      let meant = isFolder ? rights : rights & Rights.ofFiles.rawValue
      guard meant != 0 else { return }
      _ = try checkShim("landlock_add_rule", path) { cl_landlock_allow(ruleset, raw, meant) }
    }
  }
}
