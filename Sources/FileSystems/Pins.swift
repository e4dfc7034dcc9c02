internal import Glibc
internal import Linux
internal import Model

/// Sources that a policy names, for an engine that opens paths by itself, later and as root: each is opened with the rights of who
/// loaded the policy, and what was looked at is mounted at a place in our own folder. Whoever can write on the way can change what the
/// path leads to, but not what is mounted there.
extension MountTable {
  /// Gives each source that the policy names a place below `folder`; `mappedOnly`: only those whose owner is to appear as the app.
  mutating func pinSources(below folder: String, mappedOnly: Bool) {
    for (index, entry) in entries.enumerated()
    where entry.making == nil && !entry.isOurs && (entry.mapped != nil || !mappedOnly) {
      guard case .path(let path) = entry.source else { continue }
      entries[index].named = path
      entries[index].source = .path("\(folder)/\(index)")
    }
  }

  /// Mounts what is open at `place` at `path`, in place of what an earlier try left there.
  func pin(_ place: borrowing Descriptor, at path: String, _ entry: Entry) throws(MountProblem) {
    if let mapped = entry.mapped { return try pinMapped(place, at: path, entry, to: mapped) }
    do throws(SystemFault) {
      var status = stat()
      try place.withRaw { (raw) throws(SystemFault) in _ = try check("fstat", path) { fstat(raw, &status) } }
      let parts = path.split(separator: "/")
      let name = String(parts.last ?? "")
      let folder = try Folder(making: "/" + parts.dropLast().joined(separator: "/"), mode: 0o700)
      Self.unpin(path)
      try folder.withRaw { (raw) throws(SystemFault) in
        if status.st_mode & S_IFMT == S_IFDIR {
          try Place.makeFolder(name, in: raw, mode: 0o700)
        } else {
          try Place.makeFile(name, in: raw, mode: 0o600, [])
        }
        let target = try Place.open(name, in: raw, [.beneath, .noLinks], noFollow: true)
        try DetachedMount(copying: place, keepsFileRights ? [] : [.noSetuid, .noDevices], path).attach(to: target, path)
      }
    } catch { throw .notMade(path, reason: error.description) }
  }

  /// The same with the owner's files shown as the app's. Whoever gets an owner's files gets the owner's rights to them, so they must be
  /// the loader's to give; and what the app makes belongs to the owner on disk, so root's folders are given to be read only.
  private func pinMapped(
    _ place: borrowing Descriptor, at path: String, _ entry: Entry, to seen: Entry.Owner
  ) throws(MountProblem) {
    let named = entry.named ?? path
    var status = stat()
    do throws(SystemFault) {
      try place.withRaw { (raw) throws(SystemFault) in _ = try check("fstat", named) { fstat(raw, &status) } }
    } catch { throw .badSource(named, reason: error.description) }
    if let loader, status.st_uid != loader.uid {
      throw .badSource(
        named, reason: "owner: app gives its owner's rights, and uid \(status.st_uid) is not who loaded the policy")
    }
    if status.st_uid == 0, !entry.readOnly {
      throw .badSource(
        named, reason: "owner: app would let the app make files of root's: chown it to a user, or add read_only: true")
    }
    do throws(SystemFault) {
      let mount = try DetachedMount(copying: place, [.noSetuid, .noDevices], named)
      do throws(SystemFault) {
        try mount.mapOwner(
          disk: (status.st_uid, status.st_gid), seen: (seen.uid, seen.gid), named)
      } catch  where error.code == EINVAL || error.code == EOPNOTSUPP {
        throw SystemFault(call: Self.mapping, subject: named, code: EINVAL)
      }
      try Self.hang(mount, at: path, folder: status.st_mode & S_IFMT == S_IFDIR)
    } catch {
      if error.call == Self.mapping {
        throw .badSource(
          named, reason: "its file system, or one mounted in it, cannot show other owners: use owner: keep, or a volume"
        )
      }
      throw .notMade(path, reason: error.description)
    }
  }

  private static var mapping: String { "map owners" }

  /// Hangs a mount at a path of ours, in place of what an earlier try left there.
  static func hang(_ mount: borrowing DetachedMount, at path: String, folder isFolder: Bool = true)
    throws(SystemFault)
  {
    let parts = path.split(separator: "/")
    let name = String(parts.last ?? "")
    let parent = try Folder(making: "/" + parts.dropLast().joined(separator: "/"), mode: 0o700)
    unpin(path)
    let target = try parent.withRaw { (raw) throws(SystemFault) in
      if isFolder {
        try Place.makeFolder(name, in: raw, mode: 0o700)
      } else {
        try Place.makeFile(name, in: raw, mode: 0o600, [])
      }
      return try Place.open(name, in: raw, [.beneath, .noLinks], noFollow: true)
    }
    try mount.attach(to: target, path)
  }

  /// Whether something is mounted at a folder of ours.
  static func isMounted(_ folder: String) -> Bool {
    var own = stat()
    var parent = stat()
    return stat(folder, &own) == 0 && stat("\(folder)/..", &parent) == 0 && own.st_dev != parent.st_dev
  }

  /// The pinned sources as the process `pid` sees them: false if it has another view of the mounts, and would see empty folders.
  package func pinsAreSeen(by pid: Int32) -> Bool {
    entries.allSatisfy { entry in
      guard entry.named != nil || entry.isOurs, case .path(let path) = entry.source else { return true }
      var here = stat()
      var there = stat()
      return stat(path, &here) == 0 && stat("/proc/\(pid)/root\(path)", &there) == 0
        && here.st_dev == there.st_dev && here.st_ino == there.st_ino
    }
  }

  /// Whether any source is pinned.
  package var hasPins: Bool { entries.contains { $0.named != nil } }

  /// Takes away all that is pinned below `folder`: a container that was started keeps its own mounts.
  package static func unpinAll(_ folder: String) {
    // best effort: there is none, or nothing was pinned.
    guard let names = try? Folder(opening: folder).names() else { return }
    for name in names { unpin("\(folder)/\(name)") }
    rmdir(folder)
  }

  /// The same for every folder in `place` but those in `keeping`: what a daemon left that was killed on the way.
  package static func unpinAll(in place: String, keeping: Set<String>) {
    // best effort: there is none.
    guard let names = try? Folder(opening: place).names() else { return }
    for name in names where !keeping.contains("\(place)/\(name)") { unpinAll("\(place)/\(name)") }
  }

  /// best effort: what is still held keeps its place until the next try, and nobody but root can reach it.
  static func unpin(_ path: String) {
    while umount2(path, Int32(MNT_DETACH | UMOUNT_NOFOLLOW)) == 0 {}
    if unlink(path) != 0 { rmdir(path) }
  }
}
