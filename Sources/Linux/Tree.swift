internal import CLinux
internal import Glibc

/// Whole folders whose content belongs to others: nothing is resolved twice and no link is followed. Names are bytes: those of an
/// app need not be text.
package enum Tree {
  /// Removes `parent/name` below `root` with all it holds, however many, however deep; false if it is not there.
  package static func remove(_ parent: String, _ name: String, in root: String) throws(SystemFault) -> Bool {
    let folder: Folder
    let path = "\(root)/\(parent)/\(name)"
    do throws(SystemFault) { folder = try Folder(opening: root).folder(parent) } catch  where error.code == ENOENT {
      return false
    }
    return try folder.withRaw { (raw) throws(SystemFault) in
      let top: Descriptor
      do throws(SystemFault) { top = try open(Array(name.utf8CString), in: raw, path) } catch
        where error.code == ENOENT
      {
        return false
      }
      var removal = Removal(top: top.withRaw { $0 }, path: path)
      try top.withRaw { (raw) throws(SystemFault) in try removal.empty(raw, depth: 0) }
      try check("rmdir", path) { unlinkat(raw, name, AT_REMOVEDIR) }
      return true
    }
  }

  /// Removes the folder `name` of an open one with all it holds, as the calling thread's user, and never what is mounted in it. EOVERFLOW
  /// once `most` things are removed and more are left.
  package static func remove(_ name: String, in folder: Int32, most: Int, _ path: String) throws(SystemFault) {
    let top = try openHere(Array(name.utf8CString), in: folder, path)
    var removal = Removal(top: top.withRaw { $0 }, path: path, most: most)
    try top.withRaw { (raw) throws(SystemFault) in try removal.empty(raw, depth: 0) }
    try check("rmdir", path) { unlinkat(folder, name, AT_REMOVEDIR) }
  }

  /// What the files below `parent/name` take on their disk, in bytes, links to one file counted once for each; nil if it is not there.
  /// What is deeper than 32 folders, or changes meanwhile, is left out.
  package static func size(_ parent: String, _ name: String, in root: String) -> UInt64? {
    guard let folder = try? Folder(opening: root).folder(parent) else { return nil }
    return folder.withRaw { raw in
      guard let top = try? open(Array(name.utf8CString), in: raw, name) else { return nil }
      return top.withRaw { size($0, depth: 0) }
    }
  }

  private static func size(_ folder: Int32, depth: Int) -> UInt64 {
    var sum: UInt64 = 0
    for name in (try? FolderEntries.first(of: folder, "", most: .max)) ?? [] {
      var status = stat()
      guard fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 else { continue }
      sum += UInt64(max(0, status.st_blocks)) * 512
      guard status.st_mode & S_IFMT == S_IFDIR, depth < 32, let inner = try? open(name, in: folder, "") else {
        continue
      }
      sum += inner.withRaw { size($0, depth: depth + 1) }
    }
    return sum
  }

  /// The same, of the same mount.
  fileprivate static func openHere(_ name: [CChar], in folder: Int32, _ path: String) throws(SystemFault) -> Descriptor
  {
    Descriptor(
      owning: try checkShim("openat2", path) {
        cl_openat2(
          folder, name, UInt64(O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), 0,
          ResolveRules([.sameMount, .noLinks, .beneath]).rawValue)
      })
  }

  fileprivate static func open(_ name: [CChar], in folder: Int32, _ path: String) throws(SystemFault) -> Descriptor {
    Descriptor(
      owning: try check("open", path) { openat(folder, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) })
  }
}

/// One removal. What lies too deep is moved up first, so that neither descriptors nor the stack run out.
private struct Removal {
  private static let deepest = 32
  private static let batch = 1024
  let top: Int32
  /// For messages.
  let path: String
  /// Nil: all, in whatever is mounted there.
  private var most: Int?
  private var moved: UInt64 = 0

  init(top: Int32, path: String, most: Int? = nil) {
    self.top = top
    self.path = path
    self.most = most
  }

  mutating func empty(_ folder: Int32, depth: Int) throws(SystemFault) {
    while true {
      let names = try FolderEntries.first(of: folder, path, most: Self.batch)
      if names.isEmpty { return }
      for name in names { try remove(name, in: folder, depth) }
    }
  }

  private mutating func remove(_ name: [CChar], in folder: Int32, _ depth: Int) throws(SystemFault) {
    if let left = most {
      guard left > 0 else { throw SystemFault(call: "unlink", subject: path, code: EOVERFLOW) }
      most = left - 1
    }
    do throws(SystemFault) {
      try check("unlink", path) { unlinkat(folder, name, 0) }
      return
    } catch  where error.code == EISDIR || error.code == EPERM {} catch  where error.code == ENOENT { return }
    if depth >= Self.deepest { return try moveUp(name, from: folder) }
    let inner = most == nil ? try Tree.open(name, in: folder, path) : try Tree.openHere(name, in: folder, path)
    try inner.withRaw { (raw) throws(SystemFault) in try empty(raw, depth: depth + 1) }
    try check("rmdir", path) { unlinkat(folder, name, AT_REMOVEDIR) }
  }

  /// To the top, under a name that nothing there has; the top is emptied until nothing is left in it.
  private mutating func moveUp(_ name: [CChar], from folder: Int32) throws(SystemFault) {
    while true {
      moved += 1
      let new = ".removed-\(moved)"
      do throws(SystemFault) {
        _ = try checkShim("rename", path) { cl_rename_new(folder, name, top, new) }
        return
      } catch  where error.code == EEXIST {}
    }
  }
}

/// Names in a folder as the kernel gives them.
enum FolderEntries {
  /// The first so many, with their final NUL, without `.` and `..`.
  static func first(of folder: Int32, _ path: String, most: Int) throws(SystemFault) -> [[CChar]] {
    let copy = try check("open", path) { openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    guard let stream = fdopendir(copy) else {
      close(copy)
      throw SystemFault(call: "fdopendir", subject: path, code: ENOMEM)
    }
    defer { closedir(stream) }
    var names: [[CChar]] = []
    while names.count < most, let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) {
          Array(UnsafeBufferPointer(start: $0, count: strlen($0) + 1))
        }
      }
      let text = name.map { UInt8(bitPattern: $0) }
      if text != [46, 0], text != [46, 46, 0] { names.append(name) }
    }
    return names
  }
}
