internal import Glibc
internal import Linux
package import Model

/// Finding files by their names, and by text in them.
extension AppFiles {
  /// What one search looks at, so that it comes to an end: things, bytes of files, folders in folders.
  private static let mostLooked = 50_000
  private static let mostSearched = 128 << 20
  private static let deepest = 32
  /// Bytes of paths in one answer.
  private static let mostTold = 1 << 19

  /// How a search goes on, and what it has found.
  private struct Search {
    var pattern: [UInt8]
    /// Nil: names alone.
    var content: [UInt8]?
    var limit: Int
    var found: [JSONValue] = []
    var looked = 0
    /// Names that were read, of which those of all folders on the way are kept.
    var named = 0
    var searched = 0
    var told = 0
    var isWhole = true

    var isOver: Bool { found.count >= limit || !isWhole }
  }

  /// Things below a folder whose names match `pattern` (`*` and `?`), or plain files that hold `content`, too; links are found and never
  /// followed, other mounts left alone. The app must be able to list all of it, and to read it for `content`. `whole` of the answer is
  /// false where there was more to look at than one search may.
  package func search(_ path: AppPath, pattern: String, content: String?, limit: Int) throws(FileProblem) -> JSONValue {
    let found = try find(path, [])
    try requireAll(.fileList, below: found.path)
    if content != nil { try requireAll(.fileRead, below: found.path) }
    guard found.isFolder else {
      throw .system(SystemFault(call: "open", subject: found.path.description, code: ENOTDIR))
    }
    var search = Search(pattern: Array(pattern.utf8), content: content.map { Array($0.utf8) }, limit: limit)
    let folder = try system { () throws(SystemFault) in
      try found.place.withRaw { (raw) throws(SystemFault) in
        try OpenFile.reopen(raw, O_RDONLY | O_DIRECTORY, found.path.description)
      }
    }
    try folder.withRaw { (raw) throws(FileProblem) in try look(in: raw, found.path, depth: 0, &search) }
    return .object(["found": .array(search.found), "whole": .bool(search.isWhole)])
  }

  private func look(in folder: Int32, _ path: AppPath, depth: Int, _ search: inout Search) throws(FileProblem) {
    let rest = Self.mostLooked - search.named
    guard rest > 0 else {
      search.isWhole = false
      return
    }
    let (names, isAll) = try system { () throws(SystemFault) in
      try FolderNames.page(of: folder, after: [], limit: rest, path.description)
    }
    search.named += names.count
    if !isAll { search.isWhole = false }
    for bytes in names {
      guard search.found.count < search.limit, search.told <= Self.mostTold else { return }
      search.looked += 1
      guard search.looked <= Self.mostLooked else {
        search.isWhole = false
        return
      }
      // What has no name in JSON cannot be told.
      guard let name = String(validating: bytes, as: UTF8.self) else { continue }
      let place: Descriptor
      // Gone meanwhile, another mount, or not the app's to look at.
      do throws(SystemFault) {
        place = try Place.open(name, in: folder, [.beneath, .sameMount, .noMagicLinks], noFollow: true)
      } catch { continue }
      try place.withRaw { (raw) throws(FileProblem) in
        var status = stat()
        guard fstat(raw, &status) == 0 else { return }
        let isFolder = status.st_mode & S_IFMT == S_IFDIR
        if Self.matches(search.pattern, bytes), search.content == nil || holds(raw, status, &search) {
          let real = path.adding(name).description
          search.told += real.utf8.count
          if search.told > Self.mostTold { search.isWhole = false }
          search.found.append(.object(["path": .string(real), "type": .string(FileKind.name(status.st_mode))]))
        }
        guard isFolder, !search.isOver else { return }
        guard depth < Self.deepest else {
          search.isWhole = false
          return
        }
        guard let inner = try? OpenFile.reopen(raw, O_RDONLY | O_DIRECTORY, name) else { return }
        try inner.withRaw { (raw) throws(FileProblem) in try look(in: raw, path.adding(name), depth: depth + 1, &search)
        }
      }
    }
  }

  /// Whether a plain file holds what is looked for.
  private func holds(_ place: Int32, _ status: stat, _ search: inout Search) -> Bool {
    guard let content = search.content, status.st_mode & S_IFMT == S_IFREG,
      let file = try? OpenFile.reopen(place, O_RDONLY, "search")
    else { return false }
    return file.withRaw { raw in
      var chunk = [UInt8](repeating: 0, count: 1 << 18)
      var kept = 0
      while search.searched < Self.mostSearched {
        let got = chunk.withUnsafeMutableBytes { Glibc.read(raw, $0.baseAddress?.advanced(by: kept), $0.count - kept) }
        guard got > 0 else { return false }
        search.searched += got
        let isThere = chunk.withUnsafeBytes { UnsafeRawBufferPointer(rebasing: $0[..<(kept + got)]).holds(content) }
        if isThere { return true }
        // It may lie across two parts.
        let tail = min(content.count - 1, kept + got)
        chunk.withUnsafeMutableBytes { bytes in
          guard let start = bytes.baseAddress else { return }
          memmove(start, start.advanced(by: kept + got - tail), tail)
        }
        kept = tail
      }
      search.isWhole = false
      return false
    }
  }

  /// `*` and `?`, in time that grows with the product of both lengths at most.
  static func matches(_ pattern: [UInt8], _ name: [UInt8]) -> Bool {
    var place = 0
    var at = 0
    var star: (after: Int, tried: Int)?
    while at < name.count {
      if place < pattern.count, pattern[place] == UInt8(ascii: "*") {
        place += 1
        star = (place, at)
      } else if place < pattern.count, pattern[place] == name[at] || pattern[place] == UInt8(ascii: "?") {
        place += 1
        at += 1
      } else if let last = star {
        star = (last.after, last.tried + 1)
        place = last.after
        at = last.tried + 1
      } else {
        return false
      }
    }
    return pattern[place...].allSatisfy { $0 == UInt8(ascii: "*") }
  }
}
