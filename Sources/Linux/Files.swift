internal import CLinux
internal import Glibc

/// O_PATH: a place in the tree, not its content.
let pathOnly = Int32(CL_O_PATH)

/// A folder pinned by descriptor. Everything below is reached from it by single names, so no path is resolved twice.
package struct Folder: ~Copyable, Sendable {
  private let descriptor: Descriptor
  /// Where it was when opened; for messages and for handing to others, never resolved again by this type.
  package let path: String

  /// Opens an existing folder by absolute path.
  package init(opening path: String) throws(SystemFault) {
    descriptor = Descriptor(
      owning: try check("open", path) { Glibc.open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
    self.path = path
  }

  private init(_ descriptor: consuming Descriptor, path: String) {
    self.descriptor = descriptor
    self.path = path
  }

  /// Opens `path` and makes it and its missing parents with `mode` first. An existing folder keeps its mode.
  package init(making path: String, mode: UInt32 = 0o755) throws(SystemFault) {
    // Its parents are there as a rule.
    do throws(SystemFault) { try Self.make(path, mode) } catch  where error.code == ENOENT {
      var made = ""
      for part in path.split(separator: "/") {
        made += "/\(part)"
        try Self.make(made, mode)
      }
    }
    try self.init(opening: path)
  }

  private static func make(_ path: String, _ mode: UInt32) throws(SystemFault) {
    do throws(SystemFault) { try check("mkdir", path) { mkdir(path, mode) } } catch  where error.code == EEXIST {}
  }

  @discardableResult
  package borrowing func withRaw<Result: ~Copyable, Failure: Error>(_ body: (Int32) throws(Failure) -> Result)
    throws(Failure)
    -> Result
  {
    try descriptor.withRaw(body)
  }

  /// The folder `name` inside this one, made with `mode` if it is not there. Never follows a link.
  package borrowing func folder(_ name: String, making mode: UInt32? = nil) throws(SystemFault) -> Folder {
    let full = "\(path)/\(name)"
    let opened = try descriptor.withRaw { (raw) throws(SystemFault) in
      if let mode {
        do throws(SystemFault) { try check("mkdir", full) { mkdirat(raw, name, mode) } } catch
          where error.code == EEXIST
        {}
      }
      return try check("open", full) { openat(raw, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }
    }
    return Folder(Descriptor(owning: opened), path: full)
  }

  /// Opens the file `name`. Never follows a link. Opening a FIFO waits for its other end, unless `flags` say not to.
  package borrowing func open(_ name: String, _ flags: Int32, mode: UInt32 = 0o644) throws(SystemFault) -> Descriptor {
    let full = "\(path)/\(name)"
    return Descriptor(
      owning: try descriptor.withRaw { (raw) throws(SystemFault) in
        try check("open", full) { openat(raw, name, flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, mode) }
      })
  }

  /// The whole of the file `name`, at most `limit` bytes (EFBIG above it). What is no file, such as a FIFO, is refused at once.
  package borrowing func read(_ name: String, limit: Int = 1 << 20) throws(SystemFault) -> [UInt8] {
    let file = try open(name, O_RDONLY | O_NONBLOCK)
    try refuseOthers(file, "\(path)/\(name)")
    return try readAll(file, "\(path)/\(name)", limit: limit)
  }

  /// Replaces the file `name` so that a reader, and a crash at any moment, sees the old content or the new, never a part:
  /// write aside, fsync, rename, fsync the folder.
  package borrowing func replace(_ name: String, with bytes: [UInt8], mode: UInt32 = 0o644) throws(SystemFault) {
    let aside = ".\(name).new"
    let full = "\(path)/\(aside)"
    let file = try open(aside, O_WRONLY | O_CREAT | O_TRUNC, mode: mode)
    try file.withRaw { (raw) throws(SystemFault) in
      try writeAll(raw, bytes[...], full)
      try check("fsync", full) { fsync(raw) }
    }
    try descriptor.withRaw { (raw) throws(SystemFault) in
      try check("rename", full) { renameat(raw, aside, raw, name) }
      try check("fsync", path) { fsync(raw) }
    }
  }

  /// Removes the file `name`; an absent one is fine.
  package borrowing func remove(_ name: String) throws(SystemFault) {
    try descriptor.withRaw { (raw) throws(SystemFault) in
      do throws(SystemFault) { try check("unlink", "\(path)/\(name)") { unlinkat(raw, name, 0) } } catch
        where error.code == ENOENT
      {}
    }
  }

  /// Whether there is nothing in this folder. Looks at no more than one name, however many there are.
  package borrowing func isEmpty() throws(SystemFault) -> Bool {
    try descriptor.withRaw { (raw) throws(SystemFault) in try FolderEntries.first(of: raw, path, most: 1).isEmpty }
  }

  /// The names in this folder but `.` and `..`, sorted.
  package borrowing func names() throws(SystemFault) -> [String] {
    let path = path
    let copy = try descriptor.withRaw { (raw) throws(SystemFault) in
      try check("open", path) { openat(raw, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    }
    guard let stream = fdopendir(copy) else {
      close(copy)
      throw SystemFault(call: "fdopendir", subject: path, code: ENOMEM)
    }
    defer { closedir(stream) }
    var names: [String] = []
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
      }
      if name != ".", name != ".." { names.append(name) }
    }
    return names.sorted()
  }
}

/// Writes every byte, waiting as the descriptor does.
package func writeAll(_ raw: Int32, _ bytes: ArraySlice<UInt8>, _ subject: @autoclosure () -> String)
  throws(SystemFault)
{
  var rest = bytes
  while !rest.isEmpty {
    let written = try check("write", subject()) { rest.withUnsafeBytes { write(raw, $0.baseAddress, $0.count) } }
    rest = rest.dropFirst(written)
  }
}

/// Reads to the end of file; EFBIG above `limit`.
package func readAll(_ file: borrowing Descriptor, _ subject: String, limit: Int) throws(SystemFault) -> [UInt8] {
  try file.withRaw { (raw) throws(SystemFault) in try readAll(raw, subject, limit: limit) }
}

/// The same of a descriptor that the caller keeps open meanwhile.
package func readAll(_ raw: Int32, _ subject: String, limit: Int) throws(SystemFault) -> [UInt8] {
  var bytes: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 16384)
  while true {
    let got = try check("read", subject) {
      chunk.withUnsafeMutableBytes { Glibc.read(raw, $0.baseAddress, $0.count) }
    }
    if got == 0 { return bytes }
    guard bytes.count + got <= limit else { throw SystemFault(call: "read", subject: subject, code: EFBIG) }
    bytes += chunk[..<got]
  }
}

/// Refuses what is no plain file. Whoever owns a FIFO, a terminal or a socket decides when a reader goes on, and a device may have
/// no end.
private func refuseOthers(_ file: borrowing Descriptor, _ path: String) throws(SystemFault) {
  try file.withRaw { (raw) throws(SystemFault) in
    var status = stat()
    try check("fstat", path) { fstat(raw, &status) }
    let kind: String
    switch status.st_mode & S_IFMT {
    case S_IFREG: return
    case S_IFDIR: throw SystemFault(call: "read", subject: path, code: EISDIR)
    case S_IFIFO: kind = "a FIFO"
    case S_IFSOCK: kind = "a socket"
    default: kind = "a device"
    }
    throw SystemFault(call: "read", subject: "\(path), \(kind) and no file", code: EINVAL)
  }
}

/// Small files by absolute path: kernel files, and what the caller's own rights are to decide.
package enum File {
  /// The whole file, at most `limit` bytes. What is no file, such as a FIFO, is refused at once; only one of this process's own
  /// descriptors (`/dev/stdin`, `/dev/fd/63`) may be a pipe, where `orOwnPipe` says so.
  package static func read(_ path: String, limit: Int = 1 << 20, orOwnPipe: Bool = false) throws(SystemFault) -> [UInt8]
  {
    let isOwn = orOwnPipe && (path == "/dev/stdin" || path.hasPrefix("/dev/fd/"))
    let flags = O_RDONLY | O_CLOEXEC | O_NOCTTY | (isOwn ? 0 : O_NONBLOCK)
    let file = Descriptor(owning: try check("open", path) { Glibc.open(path, flags) })
    if !isOwn { try refuseOthers(file, path) }
    return try readAll(file, path, limit: limit)
  }

  /// The whole file as text; bytes that are not UTF-8 are replaced.
  package static func text(_ path: String) throws(SystemFault) -> String {
    String(decoding: try read(path), as: UTF8.self)
  }

  /// Writes `text` in one write(2), as kernel files want it. The file must exist.
  /// The last `count` bytes of a file that may be long, as text.
  package static func tail(_ path: String, _ count: Int) throws(SystemFault) -> String {
    let file = Descriptor(owning: try check("open", path) { open(path, O_RDONLY | O_CLOEXEC) })
    return try file.withRaw { (raw) throws(SystemFault) in
      let size = try check("lseek", path) { lseek(raw, 0, SEEK_END) }
      var bytes = [UInt8](repeating: 0, count: min(count, Int(size)))
      let start = off_t(Int(size) - bytes.count)
      let read = try check("pread", path) { pread(raw, &bytes, bytes.count, start) }
      return String(decoding: bytes.prefix(read), as: UTF8.self)
    }
  }

  package static func write(_ path: String, _ text: String) throws(SystemFault) {
    let file = Descriptor(owning: try check("open", path) { Glibc.open(path, O_WRONLY | O_CLOEXEC) })
    try file.withRaw { (raw) throws(SystemFault) in
      var copy = text
      _ = try check("write", path) { copy.withUTF8 { Glibc.write(raw, $0.baseAddress, $0.count) } }
    }
  }

  package static func exists(_ path: String) -> Bool { access(path, F_OK) == 0 }
}
