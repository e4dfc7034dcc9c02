internal import Glibc
package import Linux
internal import Synchronization

/// The files of an app as one of its processes sees them: the mounts of its own namespace, each reached from that namespace's root. What
/// an app does to its own root later (chroot) changes nothing here. Holds its mounts until it is let go of.
package final class AppView: Sendable {
  package struct Mount: Sendable {
    package let number: UInt64
    package let target: AppPath
    package let type: String
    package let isReadOnly: Bool
  }

  /// File systems that hold files. Everything else is the kernel's own, or answered by a program that may be the app's (FUSE), and not
  /// there for who asks here.
  private static let kinds: Set<String> = [
    "ext2", "ext3", "ext4", "xfs", "btrfs", "bcachefs", "f2fs", "zfs", "overlay", "aufs", "tmpfs", "ramfs", "squashfs",
    "erofs", "iso9660", "vfat", "exfat", "ntfs3", "nfs", "nfs4", "cifs", "smb3", "ceph", "9p",
  ]
  /// The same by statfs(2), for a mount may have taken another's number since the table was read. virtiofs shows as FUSE.
  private static let magics: Set<Int64> = [
    0xEF53, 0x5846_5342, 0x9123_683E, 0xCA45_1A4E, 0xF2F5_2010, 0x2FC1_2FC1, 0x794C_7630, 0x6175_6673, 0x0102_1994,
    0x8584_58F6, 0x7371_7368, 0xE0F5_E1E2, 0x9660, 0x4D44, 0x2011_BAB0, 0x7366_746E, 0x6969, 0xFF53_4D42, 0xFE53_4D42,
    0x00C3_6400, 0x0102_1997,
  ]
  private static let kernels = ["proc", "sys", "dev"]

  private let root: SharedDescriptor
  /// What the real paths of things begin with that are called `/…` here.
  private let base: String
  private let table: [Mount]
  // Guards: the roots of mounts that were opened before, by their numbers.
  private let roots = Mutex<[UInt64: SharedDescriptor]>([:])

  /// Of a process, for a thread that has its own root (`Namespaces.ownRoot`) and root's rights. It blocks on nothing of the app's.
  package init(of process: borrowing Pidfd) throws(SystemFault) {
    let (root, table) = try Namespaces.mounts(of: process)
    self.root = root
    self.table = Self.mounts(table)
    base = ""
  }

  /// A folder for all there is. No link may be on the way to it.
  package init(folder: String) throws(SystemFault) {
    root = SharedDescriptor(try Place.open(folder, [.noLinks]))
    let number = try root.withRaw { (raw) throws(SystemFault) in try OpenFile.mount(raw) }
    table = [Mount(number: number, target: .root, type: "folder", isReadOnly: false)]
    base = folder
  }

  /// Mounts that hold an app's files, the root's first.
  package var mounts: [Mount] { table.filter { Self.holdsFiles($0) } }

  private static func holdsFiles(_ mount: Mount) -> Bool {
    let steps = mount.target.steps
    let isOurs = steps.count >= 2 && steps[0] == "run" && steps[1] == "supervisor"
    return (kinds.contains(mount.type) || mount.type == "folder") && !isOurs
      && !kernels.contains { steps.first == $0 }
  }

  /// mountinfo of proc(5): number, parent, device, root, target, options, optional fields, `-`, type, source, options.
  static func mounts(_ text: [UInt8]) -> [Mount] {
    text.split(separator: UInt8(ascii: "\n")).compactMap { line in
      let fields = line.split(separator: UInt8(ascii: " ")).map { String(decoding: $0, as: UTF8.self) }
      guard fields.count > 6, let number = UInt64(fields[0]), let dash = fields.dropFirst(6).firstIndex(of: "-"),
        dash + 1 < fields.count, let target = try? AppPath(unescape(fields[4]))
      else { return nil }
      let superblock = dash + 3 < fields.count ? fields[dash + 3] : ""
      let isReadOnly = [fields[5], superblock].contains { $0.split(separator: ",").first == "ro" }
      return Mount(number: number, target: target, type: fields[dash + 1], isReadOnly: isReadOnly)
    }.sorted { $0.target.steps.count < $1.target.steps.count }
  }

  /// `\040` and the like.
  private static func unescape(_ text: String) -> String {
    var bytes: [UInt8] = []
    var rest = Array(text.utf8)[...]
    while let byte = rest.popFirst() {
      let digits = rest.prefix(3)
      if byte == UInt8(ascii: "\\"), digits.count == 3,
        let code = UInt8(String(decoding: digits, as: UTF8.self), radix: 8)
      {
        bytes.append(code)
        rest = rest.dropFirst(3)
      } else {
        bytes.append(byte)
      }
    }
    return String(decoding: bytes, as: UTF8.self)
  }

  // MARK: Finding

  /// Where a path lies: its mount, the mount's root, and the rest of the path. ENOENT where there is none for files.
  func place(of path: AppPath) throws(SystemFault) -> (mount: Mount, root: SharedDescriptor, rest: String) {
    let missing = SystemFault(call: "open", subject: path.description, code: ENOENT)
    // Of those one over another the last counts, which opening shows.
    guard let deepest = table.filter({ $0.target.rest(of: path) != nil }).map(\.target.steps.count).max() else {
      throw missing
    }
    let candidates = table.filter { $0.target.steps.count == deepest && $0.target.rest(of: path) != nil }
    guard let target = candidates.first?.target, let rest = target.rest(of: path) else { throw missing }
    if let only = candidates.first, candidates.count == 1, let root = roots.withLock({ $0[only.number] }) {
      return (only, root, rest)
    }
    let place = try root.withRaw { (raw) throws(SystemFault) in
      try Place.open(
        target.steps.isEmpty ? "." : target.steps.joined(separator: "/"), in: raw, [.inRoot, .noLinks, .noMagicLinks])
    }
    let number = try place.withRaw { (raw) throws(SystemFault) in try OpenFile.mount(raw) }
    let kind = try place.withRaw { (raw) throws(SystemFault) in try OpenFile.fileSystem(raw) }
    guard let mount = candidates.first(where: { $0.number == number }), Self.holdsFiles(mount),
      Self.magics.contains(kind & 0xFFFF_FFFF) || mount.type == "folder"
    else { throw missing }
    let shared = SharedDescriptor(place)
    roots.withLock { $0[number] = shared }
    return (mount, shared, rest)
  }

  /// Where something open lies now, as the app would call it. ENOENT: it has no name any more, or none that can be told.
  func path(of raw: Int32) throws(SystemFault) -> AppPath {
    var status = stat()
    try check("fstat") { fstat(raw, &status) }
    let link = "/proc/self/fd/\(raw)"
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = try check("readlink", link) { readlink(link, &buffer, buffer.count) }
    let bytes = buffer.prefix(count).map { UInt8(bitPattern: $0) }
    let missing = SystemFault(call: "readlink", subject: link, code: ENOENT)
    guard count < buffer.count, status.st_nlink > 0, let text = String(validating: bytes, as: UTF8.self) else {
      throw missing
    }
    guard text.utf8.starts(with: base.utf8), !text.hasSuffix(" (deleted)") else { throw missing }
    let rest = String(decoding: text.utf8.dropFirst(base.utf8.count), as: UTF8.self)
    guard let path = try? AppPath(rest.isEmpty ? "/" : rest), rest.isEmpty || rest.utf8.first == UInt8(ascii: "/")
    else {
      throw missing
    }
    return path
  }
}
