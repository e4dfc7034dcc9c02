internal import Glibc

/// Whole folders whose content belongs to others: nothing is resolved twice and no link is followed.
package enum Tree {
  /// Removes `parent/name` below `root` with all it holds; false if it is not there.
  package static func remove(_ parent: String, _ name: String, in root: String) throws(SystemFault) -> Bool {
    let top = try Folder(opening: root)
    do throws(SystemFault) {
      let folder = try top.folder(parent)
      try empty(try folder.folder(name), depth: 0)
      try folder.withRaw { (raw) throws(SystemFault) in
        try check("rmdir", "\(folder.path)/\(name)") { unlinkat(raw, name, AT_REMOVEDIR) }
      }
      return true
    } catch  where error.code == ENOENT {
      return false
    }
  }

  private static func empty(_ folder: borrowing Folder, depth: Int) throws(SystemFault) {
    // Deeper than any honest tree; descriptors are held on the way down.
    guard depth < 512 else { throw SystemFault(call: "open", subject: folder.path, code: ELOOP) }
    for name in try folder.names() {
      let path = "\(folder.path)/\(name)"
      do throws(SystemFault) {
        try folder.withRaw { (raw) throws(SystemFault) in try check("unlink", path) { unlinkat(raw, name, 0) } }
      } catch  where error.code == EISDIR || error.code == EPERM {
        try empty(try folder.folder(name), depth: depth + 1)
        try folder.withRaw { (raw) throws(SystemFault) in try check("rmdir", path) { unlinkat(raw, name, AT_REMOVEDIR) }
        }
      }
    }
  }
}
