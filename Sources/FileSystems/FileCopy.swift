internal import Glibc
internal import Linux
internal import Model

/// One copy of a file, made aside and given its name at the end, in steps between which others get their turn. Holes stay holes, and where
/// the file system can share what both hold, nothing is copied.
package final class FileCopy: @unchecked Sendable {
  // SAFETY: its steps are taken one after the other, each once the one before has ended.

  private static let step: Int64 = 64 << 20

  private let files: AppFiles
  private let source: SharedDescriptor
  private let from: AppPath
  private let target: SharedDescriptor
  private let folder: SharedDescriptor
  private let aside: String
  private let name: String
  private let to: AppPath
  private let replaces: Bool
  private let size: Int64
  private var offset: Int64 = 0
  private var isOver = false

  /// Begins: reads one, makes the other. `replace`: one that is there gives way.
  package init(_ files: AppFiles, from: AppPath, to: AppPath, replace: Bool) throws(FileProblem) {
    self.files = files
    let found = try files.find(from, [.fileRead])
    self.from = found.path
    source = try files.reopen(found, O_RDONLY)
    (folder, name, self.to) = try files.parent(to, [.fileCreate] + (replace ? [.fileWrite] : []))
    replaces = replace
    size = Int64(found.status.st_size)
    (target, aside) = try files.aside(folder, self.to, mode: found.status.st_mode & 0o777)
    do throws(FileProblem) { try begin() } catch {
      abandon()
      throw error
    }
  }

  private func begin() throws(FileProblem) {
    do throws(SystemFault) {
      try source.withRaw { (source) throws(SystemFault) in
        try target.withRaw { (target) throws(SystemFault) in try OpenFile.share(source, target) }
      }
      offset = size
    } catch {
      // It has to be copied then. Its length comes first, so that a hole at its end is kept.
      try system { () throws(SystemFault) in
        try target.withRaw { (raw) throws(SystemFault) in
          _ = try check("ftruncate", "\(to)") { ftruncate(raw, off_t(size)) }
        }
      }
    }
  }

  /// Copies a part; how many bytes were copied in all once there is nothing left, else nil. What was made aside is gone if it fails.
  package func next() throws(FileProblem) -> Int64? {
    do throws(FileProblem) {
      try system { () throws(SystemFault) in try copyPart() }
      guard offset >= size else { return nil }
      try files.place(aside, folder, name, to, replacing: replaces)
      isOver = true
      return size
    } catch {
      abandon()
      throw error
    }
  }

  private func copyPart() throws(SystemFault) {
    try source.withRaw { (source) throws(SystemFault) in
      try target.withRaw { (target) throws(SystemFault) in
        let end = min(size, offset + Self.step)
        var steps = 0
        while offset < end {
          guard let data = try OpenFile.data(source, from: offset), data.lowerBound < size else {
            offset = size
            return
          }
          offset = data.lowerBound
          let most = min(data.upperBound, max(end, offset + 1), offset + Self.step) - offset
          let copied = try OpenFile.copy(source, target, at: offset, Int(most))
          guard copied > 0 else {
            offset = size
            return
          }
          offset += Int64(copied)
          steps += 1
          if steps >= 1024 { return }
        }
      }
    }
  }

  /// Nobody waits for it any more.
  package func abandon() {
    guard !isOver else { return }
    isOver = true
    files.discard(aside, folder)
  }
}
