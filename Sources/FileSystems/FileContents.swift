internal import Glibc
package import Linux
package import Model

/// What is in files: reading, writing, opening them, and what they are.
extension AppFiles {
  /// The most bytes that one call reads.
  package static let mostBytes = 2 << 20

  /// Bytes from `offset` on; without `length` all of them, which must not be more than `most`.
  package func read(_ path: AppPath, offset: Int64, length: Int?, most: Int = mostBytes) throws(FileProblem)
    -> JSONValue
  {
    let file = try reopen(try find(path, [.fileRead]), O_RDONLY)
    let size = try status(file, path).st_size
    let rest = max(0, Int64(size) - offset)
    if length == nil, rest > most { throw .tooLarge(limit: most) }
    let bytes = try Self.read(file, at: offset, length ?? most, path.description)
    return Self.answer(bytes, size: Int64(size), isEnd: offset + Int64(bytes.count) >= Int64(size))
  }

  static func answer(_ bytes: [UInt8], size: Int64?, isEnd: Bool) -> JSONValue {
    let (data, encoding) = FileText.encode(bytes)
    return .object([
      "data": .string(data), "encoding": .string(encoding), "bytes": .integer(Int64(bytes.count)),
      "size": size.map { .integer($0) }, "eof": .bool(isEnd),
    ])
  }

  /// At most `count` bytes; nil `offset`: from where the file is, which moves on.
  static func read(_ file: SharedDescriptor, at offset: Int64?, _ count: Int, _ subject: String) throws(FileProblem)
    -> [UInt8]
  {
    var bytes = [UInt8](repeating: 0, count: min(count, mostBytes))
    var done = 0
    while done < bytes.count {
      let got = try system { () throws(SystemFault) in
        try file.withRaw { (raw) throws(SystemFault) in
          try check("read", subject) {
            bytes.withUnsafeMutableBytes { room in
              let place = room.baseAddress?.advanced(by: done)
              let most = room.count - done
              return offset.map { pread(raw, place, most, off_t($0) + off_t(done)) } ?? Glibc.read(raw, place, most)
            }
          }
        }
      }
      if got == 0 { break }
      done += got
    }
    bytes.removeLast(bytes.count - done)
    return bytes
  }

  /// All bytes; nil `offset`: where the file is, which moves on.
  static func write(_ file: SharedDescriptor, _ bytes: [UInt8], at offset: Int64?, _ subject: String)
    throws(FileProblem)
  {
    var done = 0
    while done < bytes.count {
      done += try system { () throws(SystemFault) in
        try file.withRaw { (raw) throws(SystemFault) in
          try check("write", subject) {
            bytes.withUnsafeBytes { all in
              let place = all.baseAddress?.advanced(by: done)
              let most = all.count - done
              return offset.map { pwrite(raw, place, most, off_t($0) + off_t(done)) } ?? Glibc.write(raw, place, most)
            }
          }
        }
      }
    }
  }

  /// How a file is written.
  package struct Writing: Sendable {
    /// Nil: in place of all it has.
    package var offset: Int64?
    package var append = false
    /// The mode of a file that is made; nil: it must be there.
    package var creating: UInt32?
    /// Who reads it meanwhile, or after a crash, sees the old content or the new one.
    package var atomic = false
    package init() {}
  }

  package func write(_ path: AppPath, _ bytes: [UInt8], _ how: Writing) throws(FileProblem) -> JSONValue {
    if how.atomic { return try replace(path, bytes, how) }
    let (file, real, isNew) = try writable(path, O_WRONLY | (how.append ? O_APPEND : 0), creating: how.creating)
    if how.offset == nil, !how.append, !isNew {
      try system { () throws(SystemFault) in
        try file.withRaw { (raw) throws(SystemFault) in
          _ = try check("ftruncate", real.description) { ftruncate(raw, 0) }
        }
      }
    }
    try Self.write(file, bytes, at: how.append ? nil : how.offset ?? 0, real.description)
    return .object(["written": .integer(Int64(bytes.count)), "created": .bool(isNew)])
  }

  private func replace(_ path: AppPath, _ bytes: [UInt8], _ how: Writing) throws(FileProblem) -> JSONValue {
    var mode = how.creating
    var isNew = true
    do throws(FileProblem) {
      let found = try find(path, [.fileWrite], links: false)
      guard found.isFile else {
        throw .refused(.invalid, "\(found.path) is a \(found.kind), not a file", hint: nil)
      }
      mode = found.status.st_mode & 0o777
      isNew = false
    } catch .system(let fault) where fault.code == ENOENT && mode != nil {}
    let (folder, name, real) = try parent(path, [isNew ? .fileCreate : .fileWrite])
    let (file, aside) = try aside(folder, real, mode: mode ?? 0o644)
    do throws(FileProblem) {
      try Self.write(file, bytes, at: nil, real.description)
      try system { () throws(SystemFault) in
        try file.withRaw { (raw) throws(SystemFault) in _ = try check("fsync", real.description) { fsync(raw) } }
      }
      try place(aside, folder, name, real, replacing: !isNew)
    } catch {
      discard(aside, folder)
      throw error
    }
    return .object(["written": .integer(Int64(bytes.count)), "created": .bool(isNew)])
  }

  /// A new file beside what it is to become.
  func aside(_ folder: SharedDescriptor, _ path: AppPath, mode: UInt32) throws(FileProblem) -> (
    SharedDescriptor, String
  ) {
    let name = ".new-\(String(UInt64.random(in: .min ... .max), radix: 16))"
    return (try make(name, in: folder, path, O_RDWR, mode: mode), name)
  }

  /// Gives what was made aside its name.
  func place(_ aside: String, _ folder: SharedDescriptor, _ name: String, _ path: AppPath, replacing: Bool)
    throws(FileProblem)
  {
    try system { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        if replacing {
          _ = try check("rename", path.description) { renameat(raw, aside, raw, name) }
        } else {
          try OpenFile.rename(aside, in: raw, to: name, in: raw)
        }
      }
    }
  }

  func discard(_ aside: String, _ folder: SharedDescriptor) {
    // best effort: what stays is the app's own file in the app's own folder.
    folder.withRaw { raw in _ = unlinkat(raw, aside, 0) }
  }

  package func create(_ path: AppPath, mode: UInt32) throws(FileProblem) -> JSONValue {
    let (folder, name, real) = try parent(path, [.fileCreate])
    _ = try make(name, in: folder, real, O_WRONLY, mode: mode)
    return .object([:])
  }

  package func truncate(_ path: AppPath, size: Int64) throws(FileProblem) -> JSONValue {
    let file = try reopen(try find(path, [.fileWrite], links: false), O_WRONLY)
    try system { () throws(SystemFault) in
      try file.withRaw { (raw) throws(SystemFault) in
        _ = try check("ftruncate", path.description) { ftruncate(raw, off_t(size)) }
      }
    }
    return .object([:])
  }

  package func look(_ path: AppPath, follow: Bool, uid: UInt32) throws(FileProblem) -> JSONValue {
    let found = try find(path, [.fileRead], last: follow)
    let status = found.status
    func nanoseconds(_ time: timespec) -> JSONValue {
      // A file may say that it is of any time.
      let (whole, isOver) = Int64(time.tv_sec).multipliedReportingOverflow(by: 1_000_000_000)
      let (sum, isOverToo) = whole.addingReportingOverflow(Int64(time.tv_nsec))
      return .integer(isOver || isOverToo ? (time.tv_sec < 0 ? .min : .max) : sum)
    }
    return .object([
      "path": .string(found.path.description), "type": .string(found.kind), "size": .integer(Int64(status.st_size)),
      "mode": .integer(Int64(status.st_mode & 0o7777)), "own": .bool(status.st_uid == uid),
      "links": .integer(Int64(status.st_nlink)), "inode": .count(UInt64(status.st_ino)),
      "modified_ns": nanoseconds(status.st_mtim), "changed_ns": nanoseconds(status.st_ctim),
      "accessed_ns": nanoseconds(status.st_atim),
    ])
  }

  package func exists(_ path: AppPath) throws(FileProblem) -> JSONValue {
    do throws(FileProblem) {
      return .object(["exists": true, "type": .string(try find(path, [.fileRead]).kind)])
    } catch .system(let fault) where [ENOENT, ENOTDIR, ELOOP, EXDEV].contains(fault.code) {
      return .object(["exists": false])
    }
  }

  package func chmod(_ path: AppPath, mode: UInt32) throws(FileProblem) -> JSONValue {
    let found = try find(path, [.fileWrite], links: false)
    try system { () throws(SystemFault) in
      try found.place.withRaw { (raw) throws(SystemFault) in
        _ = try check("chmod", path.description) { Glibc.chmod("/proc/self/fd/\(raw)", mode) }
      }
    }
    return .object([:])
  }

  /// How a file is opened, in the words of fopen(3): `r`, `w`, `a`, `x`, each also with `+`.
  package struct Opening: Sendable, Equatable {
    package var kind: Character
    package var isBoth: Bool

    package init?(_ text: String) {
      guard let kind = text.first, "rwax".contains(kind), text.count == 1 || (text.count == 2 && text.last == "+")
      else {
        return nil
      }
      self.kind = kind
      isBoth = text.count == 2
    }

    /// What it takes, but for a file that is made.
    package var rights: [Right] {
      switch kind {
      case "r": isBoth ? [.fileRead, .fileWrite] : [.fileRead]
      case "x": isBoth ? [.fileCreate, .fileRead] : [.fileCreate]
      default: isBoth ? [.fileWrite, .fileRead] : [.fileWrite]
      }
    }
  }

  /// An open plain file, which can do no more than was asked.
  package func open(_ path: AppPath, _ how: Opening, mode: UInt32) throws(FileProblem) -> (
    file: SharedDescriptor, path: AppPath, rights: [Right]
  ) {
    let access = how.isBoth ? O_RDWR : how.kind == "r" ? O_RDONLY : O_WRONLY
    let file: SharedDescriptor
    let real: AppPath
    var rights = how.rights
    switch how.kind {
    case "r":
      let found = try find(path, rights, links: !how.isBoth)
      (file, real) = (try reopen(found, access), found.path)
    case "x":
      let (folder, name, made) = try parent(path, rights)
      (file, real) = (try make(name, in: folder, made, access, mode: mode), made)
    default:
      let isNew: Bool
      (file, real, isNew) = try writable(
        path, access | (how.kind == "a" ? O_APPEND : 0), creating: mode, also: how.isBoth ? [.fileRead] : [])
      if isNew { rights = [.fileCreate] + (how.isBoth ? [.fileRead] : []) }
      if how.kind == "w", !isNew {
        try system { () throws(SystemFault) in
          try file.withRaw { (raw) throws(SystemFault) in
            _ = try check("ftruncate", real.description) { ftruncate(raw, 0) }
          }
        }
      }
    }
    // It was opened so that a lease of another's could not make us wait; whoever gets it expects an ordinary file.
    try system { () throws(SystemFault) in
      try file.withRaw { (raw) throws(SystemFault) in
        let flags = try check("fcntl", "F_GETFL") { fcntl(raw, F_GETFL) }
        _ = try check("fcntl", "F_SETFL") { fcntl(raw, F_SETFL, flags & ~O_NONBLOCK) }
      }
    }
    return (file, real, rights)
  }
}
