internal import Glibc
internal import Linux
package import Model

/// Folders, links, and the names of things.
extension AppFiles {
  /// Names in their bytes' order, after the one that `cursor` tells; the next cursor, nil: that was all. Reads the whole folder each
  /// time, and holds no more than a few pages of it.
  package func list(_ path: AppPath, cursor: String?, limit: Int) throws(FileProblem) -> JSONValue {
    var after: [UInt8] = []
    if let cursor {
      guard let bytes = Base64.decode(cursor) else {
        throw .refused(.invalid, "'\(cursor)' is no cursor of fs.list", hint: "take it from the answer before")
      }
      after = bytes
    }
    let found = try find(path, [.fileList])
    guard found.isFolder else {
      throw .system(SystemFault(call: "open", subject: found.path.description, code: ENOTDIR))
    }
    let folder = try system { () throws(SystemFault) in
      try found.place.withRaw { (raw) throws(SystemFault) in
        SharedDescriptor(try OpenFile.reopen(raw, O_RDONLY | O_DIRECTORY, found.path.description))
      }
    }
    let (names, isAll) = try system { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        try FolderNames.page(of: raw, after: after, limit: limit, found.path.description)
      }
    }
    let entries = names.map { name in
      var status = stat()
      let isThere =
        folder.withRaw { fstatat($0, name.map { CChar(bitPattern: $0) } + [0], &status, AT_SYMLINK_NOFOLLOW) } == 0
      let text = String(validating: name, as: UTF8.self)
      return JSONValue.object([
        "name": .string(text ?? String(decoding: name, as: UTF8.self)),
        "name_base64": text == nil ? .string(Base64.encode(name)) : nil,
        "type": .string(isThere ? FileKind.name(status.st_mode) : "gone"),
        "size": isThere && status.st_mode & S_IFMT == S_IFREG ? .integer(Int64(status.st_size)) : nil,
      ])
    }
    return .object([
      "entries": .array(entries), "cursor": isAll ? .null : .optional(names.last.map { Base64.encode($0) }),
    ])
  }

  /// Makes a folder; with `parents` also those above it that are missing, and one that is there is as good.
  package func makeFolder(_ path: AppPath, parents: Bool, mode: UInt32) throws(FileProblem) -> JSONValue {
    guard parents else {
      let (folder, name, real) = try parent(path, [.fileCreate])
      try makeFolder(name, in: folder, real, mode)
      return .object([:])
    }
    for count in 1...max(1, path.steps.count) {
      let step = path.steps.prefix(count).reduce(AppPath.root) { $0.adding($1) }
      do throws(FileProblem) {
        let found = try find(step, [], links: false)
        guard found.isFolder else { throw .system(SystemFault(call: "mkdir", subject: "\(step)", code: EEXIST)) }
      } catch .system(let fault) where fault.code == ENOENT {
        let (folder, name, real) = try parent(step, [.fileCreate])
        do throws(FileProblem) { try makeFolder(name, in: folder, real, mode) } catch .system(let fault)
          where fault.code == EEXIST
        {}
      }
    }
    return .object([:])
  }

  private func makeFolder(_ name: String, in folder: SharedDescriptor, _ path: AppPath, _ mode: UInt32)
    throws(FileProblem)
  {
    try system { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        _ = try check("mkdir", path.description) { mkdirat(raw, name, mode) }
      }
    }
  }

  /// The most that one call removes, so that it comes to an end.
  package static let mostRemoved = 100_000

  package func removeFolder(_ path: AppPath, recursive: Bool) throws(FileProblem) -> JSONValue {
    let (folder, name, real) = try parent(path, [.fileDelete])
    guard recursive else {
      try system { () throws(SystemFault) in
        try folder.withRaw { (raw) throws(SystemFault) in
          _ = try check("rmdir", real.description) { unlinkat(raw, name, AT_REMOVEDIR) }
        }
      }
      return .object([:])
    }
    try requireAll(.fileDelete, below: real)
    do throws(SystemFault) {
      try folder.withRaw { (raw) throws(SystemFault) in
        try Tree.remove(name, in: raw, most: Self.mostRemoved, real.description)
      }
    } catch  where error.code == EOVERFLOW {
      throw .refused(
        .quota, "\(real) holds more than \(Self.mostRemoved) things, of which so many are removed now",
        hint: "ask again until it is gone")
    } catch { throw .system(error) }
    return .object([:])
  }

  /// Removes what is no folder: a file, a link itself, a FIFO, a socket.
  package func remove(_ path: AppPath) throws(FileProblem) -> JSONValue {
    let (folder, name, real) = try parent(path, [.fileDelete])
    try system { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        _ = try check("unlink", real.description) { unlinkat(raw, name, 0) }
      }
    }
    return .object([:])
  }

  /// A link, which gives nobody a right to what it names.
  package func link(_ path: AppPath, to target: String) throws(FileProblem) -> JSONValue {
    let (folder, name, real) = try parent(path, [.fileCreate])
    try system { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        _ = try check("symlink", real.description) { symlinkat(target, raw, name) }
      }
    }
    return .object([:])
  }

  package func readLink(_ path: AppPath) throws(FileProblem) -> JSONValue {
    let found = try find(path, [.fileRead], last: false)
    guard found.status.st_mode & S_IFMT == S_IFLNK else {
      throw .refused(.invalid, "\(found.path) is a \(found.kind), not a link", hint: nil)
    }
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = try system { () throws(SystemFault) in
      try found.place.withRaw { (raw) throws(SystemFault) in
        try check("readlink", found.path.description) { readlinkat(raw, "", &buffer, buffer.count) }
      }
    }
    let bytes = buffer.prefix(count).map { UInt8(bitPattern: $0) }
    let text = String(validating: bytes, as: UTF8.self)
    return .object([
      "target": .string(text ?? String(decoding: bytes, as: UTF8.self)),
      "target_base64": text == nil ? .string(Base64.encode(bytes)) : nil,
    ])
  }

  /// Gives something another name in its mount. What it held can be read there by whoever may read there, so the app must be able to read
  /// it now; of a folder that goes for all below it.
  package func move(_ from: AppPath, to: AppPath, replace: Bool) throws(FileProblem) -> JSONValue {
    let (source, name, real) = try parent(from, [.fileDelete, .fileRead])
    let found = try find(from, [], links: false, last: false)
    let (target, newName, newReal) = try parent(to, [.fileCreate] + (replace ? [.fileWrite] : []))
    if found.isFolder {
      for right in [Right.fileDelete, .fileRead] { try requireAll(right, below: real) }
      try requireAll(.fileCreate, below: newReal)
    }
    try system { () throws(SystemFault) in
      try source.withRaw { (source) throws(SystemFault) in
        try target.withRaw { (target) throws(SystemFault) in
          if replace {
            _ = try check("rename", real.description) { renameat(source, name, target, newName) }
          } else {
            try OpenFile.rename(name, in: source, to: newName, in: target)
          }
        }
      }
    }
    return .object([:])
  }

  /// Room of the mount that a path lies in.
  package func usage(_ path: AppPath) throws(FileProblem) -> JSONValue {
    let (mount, root, _) = try system { () throws(SystemFault) in try view.place(of: path) }
    var status = statvfs()
    try system { () throws(SystemFault) in
      try root.withRaw { (raw) throws(SystemFault) in
        _ = try check("statvfs", "\(mount.target)") { fstatvfs(raw, &status) }
      }
    }
    // Whatever a file system says.
    func bytes(_ blocks: UInt64) -> JSONValue {
      let (product, isOver) = blocks.multipliedReportingOverflow(by: UInt64(status.f_frsize))
      return .count(isOver ? .max : product)
    }
    return .object([
      "mount": .string(mount.target.description), "size": bytes(UInt64(status.f_blocks)),
      "free": bytes(UInt64(status.f_bavail)), "files": .count(UInt64(status.f_files)),
      "free_files": .count(UInt64(status.f_ffree)),
    ])
  }

  package func mounts() -> JSONValue {
    .object([
      "mounts": .array(
        view.mounts.map {
          .object([
            "path": .string($0.target.description), "type": .string($0.type), "read_only": .bool($0.isReadOnly),
          ])
        })
    ])
  }
}

/// Names in a folder as their bytes.
enum FolderNames {
  /// The first `limit` in order after one, and whether that was all.
  static func page(of folder: Int32, after: [UInt8], limit: Int, _ path: String) throws(SystemFault) -> (
    names: [[UInt8]], isAll: Bool
  ) {
    let copy = try check("open", path) { openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) }
    guard let stream = fdopendir(copy) else {
      close(copy)
      throw SystemFault(call: "fdopendir", subject: path, code: ENOMEM)
    }
    defer { closedir(stream) }
    var names: [[UInt8]] = []
    func cut() {
      names.sort { $0.lexicographicallyPrecedes($1) }
      names.removeLast(max(0, names.count - limit - 1))
    }
    while let entry = readdir(stream) {
      let name = withUnsafePointer(to: &entry.pointee.d_name) { pointer in
        pointer.withMemoryRebound(to: UInt8.self, capacity: 256) {
          Array(UnsafeBufferPointer(start: $0, count: strlen(UnsafeRawPointer($0).assumingMemoryBound(to: CChar.self))))
        }
      }
      guard name != [46], name != [46, 46], after.lexicographicallyPrecedes(name) else { continue }
      names.append(name)
      if names.count > limit + limit / 4 + 1024 { cut() }
    }
    cut()
    let isAll = names.count <= limit
    return (Array(names.prefix(limit)), isAll)
  }
}
