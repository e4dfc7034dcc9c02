internal import Glibc
internal import Linux

/// Makes one layer's files in a folder of its own, as overlayfs wants them.
///
/// Every path is walked from that folder by single names, none of which may be a link (O_NOFOLLOW): neither `..`, nor an absolute path,
/// nor a link that the archive made before can lead out. Whiteouts (OCI image specification, layer.md) become overlayfs's own: a
/// character device 0:0, which anybody may make and nobody open; folders that hide what is below them are listed in `opaque`.
/// Devices, pipes and sockets are left out, setuid and setgid bits and extended attributes are dropped: an app could not use them.
final class LayerWriter {
  private let root: SharedDescriptor
  private let name: String
  private let limits: ImageLimits
  /// The folder the last entry was in.
  private var last: (path: [[UInt8]], folder: SharedDescriptor)?
  /// Folders of this layer that hide those of lower ones.
  private(set) var opaque: Set<[UInt8]> = []
  /// Devices, pipes and sockets.
  private(set) var leftOut = 0
  /// Ids beyond an app's 65 536 became nobody's.
  private(set) var foreignIDs = 0

  static let whiteout = Array(".wh.".utf8)
  static let opaqueMark = Array(".wh..wh..opq".utf8)
  /// Of the storage drivers of old.
  static let reserved = Array(".wh..wh.".utf8)
  static let nobody: UInt32 = 65_534

  /// `root` is an open folder with nothing in it.
  init(_ root: SharedDescriptor, name: String, _ limits: ImageLimits) {
    self.root = root
    self.name = name
    self.limits = limits
  }

  /// Makes one entry; its bytes come from `reader`, which is at it.
  func write(_ entry: ArchiveEntry, from reader: ArchiveReader) throws(ImageProblem) {
    var path = try components(entry.path)
    guard let file = path.popLast() else { return try setRoot(entry) }
    if file == Self.opaqueMark {
      _ = try folder(path, entry)
      return try markOpaque(path)
    }
    if file.starts(with: Self.reserved) { return }
    if file.starts(with: Self.whiteout) {
      let hidden = Array(file.dropFirst(Self.whiteout.count))
      guard !hidden.isEmpty, hidden != [0x2E], hidden != [0x2E, 0x2E] else {
        throw .refused("\(name): \(Self.shown(entry.path)) would remove what is no single file")
      }
      return try hide(hidden, in: path, entry)
    }
    switch entry.kind {
    case .folder: try makeFolder(file, in: path, entry)
    case .file: try makeFile(file, in: path, entry, reader)
    case .link(let target): try makeLink(file, in: path, entry, to: target)
    case .hardLink(let target): try makeHardLink(file, in: path, entry, to: target)
    case .device, .pipe, .other: leftOut += 1
    }
  }

  // MARK: Paths

  /// A path's names from the layer's root; empty: the root itself.
  private func components(_ path: [UInt8]) throws(ImageProblem) -> [[UInt8]] {
    guard path.count <= limits.path else {
      throw .tooMuch("\(name) has a path of \(path.count) bytes; \(limits.path) are allowed")
    }
    let parts = path.split(separator: UInt8(ascii: "/")).map { Array($0) }.filter { $0 != [0x2E] }
    guard !parts.contains([0x2E, 0x2E]) else { throw .refused("\(name): the path \(Self.shown(path)) goes through ..") }
    guard parts.count <= limits.depth else {
      throw .tooMuch("\(name) has folders deeper than the \(limits.depth) that are allowed")
    }
    guard parts.allSatisfy({ $0.count <= 255 }) else { throw .refused("\(name) has a name longer than 255 bytes") }
    return parts
  }

  /// A path as text that a terminal can show.
  static func shown(_ path: [UInt8]) -> String {
    let text = String(decoding: path.prefix(120), as: UTF8.self)
    return String(text.unicodeScalars.map { $0.value < 32 || $0.value == 127 ? "?" : Character($0) })
  }

  private func folder(_ path: [[UInt8]], _ entry: ArchiveEntry) throws(ImageProblem) -> SharedDescriptor {
    if let last, last.path == path { return last.folder }
    var place = root
    for (index, part) in path.enumerated() {
      place = try step(part, in: place, path[...index], entry)
    }
    last = (path, place)
    return place
  }

  /// The folder `part`, made if it is not there. A whiteout at its place, of the same layer, becomes a folder that hides as much.
  private func step(_ part: [UInt8], in place: SharedDescriptor, _ path: ArraySlice<[UInt8]>, _ entry: ArchiveEntry)
    throws(ImageProblem) -> SharedDescriptor
  {
    let name = Self.cString(part)
    return try work(entry.path) { () throws(SystemFault) in
      try place.withRaw { (raw) throws(SystemFault) in
        var isNew = true
        do throws(SystemFault) { try check("mkdir") { mkdirat(raw, name, 0o755) } } catch  where error.code == EEXIST {
          isNew = isWhiteout(name, raw)
          if isNew {
            try check("unlink") { unlinkat(raw, name, 0) }
            try check("mkdir") { mkdirat(raw, name, 0o755) }
            opaque.insert(Array(path.joined(separator: [0x2F])))
          }
        }
        let next = Descriptor(
          owning: try check("open") { openat(raw, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) })
        if isNew { try next.withRaw { (raw) throws(SystemFault) in _ = try check("chown") { fchown(raw, 0, 0) } } }
        return SharedDescriptor(next)
      }
    }
  }

  private func isWhiteout(_ name: [CChar], _ folder: Int32) -> Bool {
    var status = stat()
    return fstatat(folder, name, &status, AT_SYMLINK_NOFOLLOW) == 0 && status.st_mode & S_IFMT == S_IFCHR
      && status.st_rdev == 0
  }

  private static func cString(_ name: [UInt8]) -> [CChar] { name.map { CChar(bitPattern: $0) } + [0] }

  /// Faults of the kernel in the words of the archive.
  private func work<Result: ~Copyable>(_ path: [UInt8], _ body: () throws(SystemFault) -> Result) throws(ImageProblem)
    -> Result
  {
    do throws(SystemFault) { return try body() } catch {
      switch error.code {
      case ELOOP, ENOTDIR:
        throw .refused(
          "\(name): the path \(Self.shown(path)) goes through something that is no folder of the layer, such as a link")
      case ENOSPC, EDQUOT: throw .failed("there is no room left for \(name): \(error.reason)")
      case ENOTEMPTY, EISDIR, EEXIST:
        throw .refused("\(name) has \(Self.shown(path)) twice, as a folder with files and as something else")
      default: throw .failed("\(name): \(Self.shown(path)) could not be made: \(error)")
      }
    }
  }

  // MARK: What there is

  private func setRoot(_ entry: ArchiveEntry) throws(ImageProblem) {
    guard case .folder = entry.kind else { throw .refused("\(name) has a root that is no folder") }
    let ids = ids(entry)
    try work(entry.path) { () throws(SystemFault) in
      try root.withRaw { (raw) throws(SystemFault) in try Self.dress(raw, entry, ids, mode: entry.mode & 0o1777 | 0o500)
      }
    }
  }

  /// What was at the place before goes, unless it is a folder with something in it.
  private func clear(_ name: [CChar], in folder: Int32) throws(SystemFault) {
    do throws(SystemFault) { try check("unlink") { unlinkat(folder, name, 0) } } catch  where error.code == ENOENT {
    } catch  where error.code == EISDIR || error.code == EPERM {
      last = nil
      try check("rmdir") { unlinkat(folder, name, AT_REMOVEDIR) }
    }
  }

  private func makeFolder(_ file: [UInt8], in path: [[UInt8]], _ entry: ArchiveEntry) throws(ImageProblem) {
    let parent = try folder(path, entry)
    let ids = ids(entry)
    let name = Self.cString(file)
    try work(entry.path) { () throws(SystemFault) in
      try parent.withRaw { (raw) throws(SystemFault) in
        var status = stat()
        if fstatat(raw, name, &status, AT_SYMLINK_NOFOLLOW) == 0, status.st_mode & S_IFMT != S_IFDIR {
          if isWhiteout(name, raw) { opaque.insert(Array((path + [file]).joined(separator: [0x2F]))) }
          try clear(name, in: raw)
        }
        do throws(SystemFault) { try check("mkdir") { mkdirat(raw, name, 0o700) } } catch  where error.code == EEXIST {}
        let made = Descriptor(
          owning: try check("open") { openat(raw, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) })
        try made.withRaw { (raw) throws(SystemFault) in try Self.dress(raw, entry, ids, mode: entry.mode & 0o1777) }
      }
    }
  }

  private func makeFile(_ file: [UInt8], in path: [[UInt8]], _ entry: ArchiveEntry, _ reader: ArchiveReader)
    throws(ImageProblem)
  {
    let parent = try folder(path, entry)
    let ids = ids(entry)
    let name = Self.cString(file)
    let made = try work(entry.path) { () throws(SystemFault) in
      try parent.withRaw { (raw) throws(SystemFault) in
        try clear(name, in: raw)
        return SharedDescriptor(
          Descriptor(
            owning: try check("open") {
              openat(raw, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
            }))
      }
    }
    while let (bytes, offset) = try reader.block() {
      try work(entry.path) { () throws(SystemFault) in
        try made.withRaw { (raw) throws(SystemFault) in try Self.write(bytes, at: offset, to: raw) }
      }
    }
    try work(entry.path) { () throws(SystemFault) in
      try made.withRaw { (raw) throws(SystemFault) in
        // A hole at the end is made by the size alone.
        try check("ftruncate") { ftruncate(raw, off_t(max(0, entry.size))) }
        try Self.dress(raw, entry, ids, mode: entry.mode & 0o1777)
      }
    }
  }

  private static func write(_ bytes: UnsafeRawBufferPointer, at offset: Int64, to file: Int32) throws(SystemFault) {
    var done = 0
    while done < bytes.count {
      done += try check("write") {
        pwrite(file, bytes.baseAddress.map { $0 + done }, bytes.count - done, off_t(offset) + off_t(done))
      }
    }
  }

  private func makeLink(_ file: [UInt8], in path: [[UInt8]], _ entry: ArchiveEntry, to target: [UInt8])
    throws(ImageProblem)
  {
    guard !target.isEmpty, target.count <= limits.path else {
      throw .refused("\(name): the link \(Self.shown(entry.path)) leads nowhere, or further than \(limits.path) bytes")
    }
    let parent = try folder(path, entry)
    let ids = ids(entry)
    let name = Self.cString(file)
    try work(entry.path) { () throws(SystemFault) in
      try parent.withRaw { (raw) throws(SystemFault) in
        try clear(name, in: raw)
        // Only written down: no step of the supervisor ever follows it.
        try check("symlink") { symlinkat(Self.cString(target), raw, name) }
        try check("chown") { fchownat(raw, name, ids.uid, ids.gid, AT_SYMLINK_NOFOLLOW) }
      }
    }
  }

  private func makeHardLink(_ file: [UInt8], in path: [[UInt8]], _ entry: ArchiveEntry, to target: [UInt8])
    throws(ImageProblem)
  {
    var source = try components(target)
    guard let sourceFile = source.popLast() else {
      throw .refused("\(name): \(Self.shown(entry.path)) is a hard link to the root")
    }
    let missing = ImageProblem.refused(
      "\(name): \(Self.shown(entry.path)) is a hard link to \(Self.shown(target)), which is no file of the same layer")
    let holder = try existing(source, missing)
    let from = Self.cString(sourceFile)
    let parent = try folder(path, entry)
    let name = Self.cString(file)
    try holder.withRaw { (holder) throws(ImageProblem) in
      var status = stat()
      guard fstatat(holder, from, &status, AT_SYMLINK_NOFOLLOW) == 0,
        status.st_mode & S_IFMT == S_IFREG || status.st_mode & S_IFMT == S_IFLNK
      else { throw missing }
      if holder == parent.withRaw({ $0 }), from == name { return }
      try work(entry.path) { () throws(SystemFault) in
        try parent.withRaw { (raw) throws(SystemFault) in
          var other = stat()
          // A link to itself would be removed first.
          if fstatat(raw, name, &other, AT_SYMLINK_NOFOLLOW) == 0, other.st_ino == status.st_ino { return }
          try clear(name, in: raw)
          try check("link") { linkat(holder, from, raw, name, 0) }
        }
      }
    }
  }

  /// A folder that must be there already.
  private func existing(_ path: [[UInt8]], _ missing: ImageProblem) throws(ImageProblem) -> SharedDescriptor {
    var place = root
    for part in path {
      let next = place.withRaw { openat($0, Self.cString(part), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }
      guard next >= 0 else { throw missing }
      place = SharedDescriptor(Descriptor(owning: next))
    }
    return place
  }

  // MARK: Whiteouts

  private func markOpaque(_ path: [[UInt8]]) throws(ImageProblem) {
    guard !path.isEmpty else {
      throw .refused("\(name) hides all of the layers below it at once, which overlayfs does not know: leave those out")
    }
    opaque.insert(Array(path.joined(separator: [0x2F])))
    guard opaque.count <= limits.opaqueFolders else {
      throw .tooMuch("\(name) hides more than \(limits.opaqueFolders) folders of lower layers")
    }
  }

  /// A whiteout speaks of lower layers: what this layer itself has at the place stays, and hides the same.
  private func hide(_ hidden: [UInt8], in path: [[UInt8]], _ entry: ArchiveEntry) throws(ImageProblem) {
    let parent = try folder(path, entry)
    let name = Self.cString(hidden)
    try work(entry.path) { () throws(SystemFault) in
      try parent.withRaw { (raw) throws(SystemFault) in
        do throws(SystemFault) { try check("mknod") { mknodat(raw, name, S_IFCHR, 0) } } catch
          where error.code == EEXIST
        {
          var status = stat()
          if fstatat(raw, name, &status, AT_SYMLINK_NOFOLLOW) == 0, status.st_mode & S_IFMT == S_IFDIR {
            opaque.insert(Array((path + [hidden]).joined(separator: [0x2F])))
          }
        }
      }
    }
  }

  // MARK: Owners

  private func ids(_ entry: ArchiveEntry) -> (uid: UInt32, gid: UInt32) {
    let isForeign = !(0..<65_536).contains(entry.uid) || !(0..<65_536).contains(entry.gid)
    if isForeign { foreignIDs += 1 }
    func id(_ value: Int64) -> UInt32 { (0..<65_536).contains(value) ? UInt32(value) : Self.nobody }
    return (id(entry.uid), id(entry.gid))
  }

  /// Owner before mode: a change of owner may take bits of the mode away.
  private static func dress(_ file: Int32, _ entry: ArchiveEntry, _ ids: (uid: UInt32, gid: UInt32), mode: UInt32)
    throws(SystemFault)
  {
    try check("chown") { fchown(file, ids.uid, ids.gid) }
    try check("chmod") { fchmod(file, mode) }
    let time = timespec(tv_sec: Int(entry.modified.seconds), tv_nsec: Int(entry.modified.nanoseconds))
    // best effort: a time that this file system cannot keep is not worth an image.
    _ = [time, time].withUnsafeBufferPointer { futimens(file, $0.baseAddress) }
  }
}
