internal import Glibc
internal import Linux

/// Sources that a policy names, for an engine that opens paths by itself, later and as root: each is opened with the rights of who
/// loaded the policy, and what was looked at is mounted at a place in our own folder. Whoever can write on the way can change what the
/// path leads to, but not what is mounted there.
extension MountTable {
  /// Gives each source that the policy names a place below `folder`.
  mutating func pinSources(below folder: String) {
    for (index, entry) in entries.enumerated() where entry.making == nil && !entry.isOurs {
      guard case .path(let path) = entry.source else { continue }
      entries[index].named = path
      entries[index].source = .path("\(folder)/\(index)")
    }
  }

  /// Mounts what is open at `place` at `path`, in place of what an earlier try left there.
  func pin(_ place: borrowing Descriptor, at path: String) throws(MountProblem) {
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
