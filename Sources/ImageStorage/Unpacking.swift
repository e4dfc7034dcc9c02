internal import Glibc
package import Linux

/// What an archive became: under `layers`, `configs` of the folder it was unpacked into, not yet anybody's.
package struct UnpackedArchive: Sendable, Equatable {
  package struct Image: Sendable, Equatable {
    package var id: Digest
    package var names: [String]
    package var layers: [Digest]
    /// Bytes of its files.
    package var size: UInt64
  }
  package var images: [Image] = []
  /// Devices, pipes and sockets that were left out.
  package var leftOut = 0
  /// Files whose ids were no app's.
  package var foreignIDs = 0
  /// Folders that hide those of lower layers, by layer: their mark only root can set.
  package var opaque: [Digest: [[UInt8]]] = [:]
}

/// One archive, from its first byte to its last, into an empty folder that is the caller's. Nothing outside that folder is touched, whatever
/// the archive says; blocks, on one thread.
package struct Unpacking {
  /// Holds `members`, `layers` and `configs` afterwards.
  package let folder: SharedDescriptor
  package var limits = ImageLimits()
  /// Layers that need not be unpacked again.
  package var known: Set<Digest> = []
  /// Told of bytes done and in all, in what is one of two passes.
  package var heard: (_ step: String, _ done: UInt64, _ total: UInt64) -> Void = { _, _, _ in }

  package init(into folder: SharedDescriptor) { self.folder = folder }

  /// A member of the archive as it was put aside.
  private struct Member {
    var file: String
    var size: UInt64
    var digest: Digest
  }

  private struct Contents {
    var members: [String: Member] = [:]
    /// Links to members, as old `docker save` wrote layers that are there twice.
    var aliases: [String: String] = [:]

    func member(_ name: String) -> Member? {
      var name = name
      for _ in 0..<8 {
        if let member = members[name] { return member }
        guard let target = aliases[name] else { return nil }
        name = target
      }
      return nil
    }
  }

  /// `archive` is an open file, read from its beginning.
  package func run(_ archive: SharedDescriptor) throws(ImageProblem) -> UnpackedArchive {
    for name in ["members", "layers", "configs"] {
      try system("the store") { () throws(SystemFault) in
        try folder.withRaw { (raw) throws(SystemFault) in try Place.makeFolder(name, in: raw, mode: 0o700) }
      }
    }
    let contents = try archive.withRaw { (raw) throws(ImageProblem) in try putAside(raw) }
    let reader = ManifestReader(limits: limits) { (name) throws(ImageProblem) in
      guard let member = contents.member(name) else { return nil }
      return try document(member, name)
    }
    var result = UnpackedArchive()
    var sizes: [Digest: UInt64] = [:]
    var budget = Budget(bytes: limits.unpacked, entries: limits.entries)
    for listed in try reader.images() {
      let image = try unpack(listed, contents, &sizes, &budget, &result)
      if let same = result.images.firstIndex(where: { $0.id == image.id }) {
        result.images[same].names += image.names
      } else {
        result.images.append(image)
      }
    }
    return result
  }

  private struct Budget {
    var bytes: UInt64
    var entries: Int
  }

  // MARK: Members

  private func putAside(_ archive: Int32) throws(ImageProblem) -> Contents {
    var status = stat()
    let total = fstat(archive, &status) == 0 ? UInt64(max(0, status.st_size)) : 0
    let reader = try ArchiveReader(.tar, file: archive, name: "the archive")
    var contents = Contents()
    var count = 0
    var unpacked: UInt64 = 0
    while let entry = try reader.next() {
      count += 1
      guard count <= limits.members else {
        throw .tooMuch("the archive holds more than \(limits.members) files, which no image's does")
      }
      let name = try memberName(entry.path)
      switch entry.kind {
      case .file:
        let member = try putAside(entry, name, "\(count)", reader, total, &unpacked)
        if name.hasPrefix("blobs/sha256/"), let said = Digest(name.dropFirst(13)), said != member.digest {
          throw .malformed("\(name) does not hold what its digest says: the archive is damaged or forged")
        }
        contents.members[name] = member
      case .link(let target):
        // `../ID/layer.tar`, beside the link.
        let beside = name.split(separator: "/").dropLast().joined(separator: "/")
        contents.aliases[name] = Self.resolved(String(decoding: target, as: UTF8.self), in: beside)
      case .hardLink(let target): contents.aliases[name] = try memberName(target)
      case .folder, .device, .pipe, .other: break
      }
    }
    return contents
  }

  private func putAside(
    _ entry: ArchiveEntry, _ name: String, _ file: String, _ reader: ArchiveReader, _ total: UInt64,
    _ unpacked: inout UInt64
  ) throws(ImageProblem) -> Member {
    let place = try system(name) { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        SharedDescriptor(
          Descriptor(
            owning: try check("open") {
              openat(raw, "members/\(file)", O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0o600)
            }))
      }
    }
    var hash = SHA256()
    var size: UInt64 = 0
    while let (bytes, offset) = try reader.block() {
      guard offset == size else { throw .refused("\(LayerWriter.shown(entry.path)) in the archive has holes") }
      size += UInt64(bytes.count)
      unpacked += UInt64(bytes.count)
      guard unpacked <= limits.unpacked else {
        throw .tooMuch("the archive holds more than the \(LayerBytes.readable(limits.unpacked)) an image may")
      }
      guard unpacked <= limits.expansionFrom || unpacked / limits.expansion <= max(1, reader.taken) else {
        throw .tooMuch(
          "the archive unpacks to more than \(limits.expansion) times its size, as one does that is made to fill disks")
      }
      hash.add(bytes)
      try system(name) { () throws(SystemFault) in
        try place.withRaw { (raw) throws(SystemFault) in
          var done = 0
          while done < bytes.count {
            done += try check("write") { write(raw, bytes.baseAddress.map { $0 + done }, bytes.count - done) }
          }
        }
      }
      try checkRoom()
      heard("reading", reader.taken, total)
    }
    // What a sparse file ends with: a hole.
    guard entry.size <= 0 || UInt64(entry.size) == size else {
      throw .refused("\(LayerWriter.shown(entry.path)) in the archive has holes")
    }
    return Member(file: file, size: size, digest: hash.end())
  }

  private func memberName(_ path: [UInt8]) throws(ImageProblem) -> String {
    guard path.count <= 1024 else { throw .tooMuch("the archive has a name of \(path.count) bytes; 1024 are allowed") }
    let name = String(decoding: path, as: UTF8.self).split(separator: "/").filter { $0 != "." }
    guard !name.contains("..") else {
      throw .refused("the archive has the name \(LayerWriter.shown(path)), which leads out of it")
    }
    return name.joined(separator: "/")
  }

  private static func resolved(_ target: String, in folder: String) -> String {
    var parts = target.hasPrefix("/") ? [] : folder.split(separator: "/")
    for part in target.split(separator: "/") where part != "." {
      if part == ".." { _ = parts.popLast() } else { parts.append(part) }
    }
    return parts.joined(separator: "/")
  }

  private func document(_ member: Member, _ name: String) throws(ImageProblem) -> [UInt8] {
    guard member.size <= UInt64(limits.document) else {
      throw .tooMuch("\(name) is longer than the \(limits.document >> 20) MiB that are allowed")
    }
    return try open(member, name) { (raw) throws(ImageProblem) in
      try system(name) { () throws(SystemFault) in try readAll(raw, name, limit: limits.document) }
    }
  }

  private func open<Result>(_ member: Member, _ name: String, _ body: (Int32) throws(ImageProblem) -> Result)
    throws(ImageProblem) -> Result
  {
    let file = try system(name) { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        SharedDescriptor(
          Descriptor(
            owning: try check("open") { openat(raw, "members/\(member.file)", O_RDONLY | O_NOFOLLOW | O_CLOEXEC) }))
      }
    }
    return try file.withRaw(body)
  }

  // MARK: Images

  private func unpack(
    _ listed: ListedImage, _ contents: Contents, _ sizes: inout [Digest: UInt64], _ budget: inout Budget,
    _ result: inout UnpackedArchive
  ) throws(ImageProblem) -> UnpackedArchive.Image {
    guard let member = contents.member(listed.configuration) else {
      throw .malformed("the image's configuration is not in the archive")
    }
    let bytes = try document(member, "the image's configuration")
    let file = listed.configuration.split(separator: "/").last.map(String.init) ?? ""
    if let said = Digest(file.hasSuffix(".json") ? String(file.dropLast(5)) : file), said != member.digest {
      throw .malformed("the image's configuration is not what its name says: the archive is damaged or forged")
    }
    let configuration = try ImageConfiguration(bytes, limits)
    guard configuration.layers.count == listed.layers.count else {
      throw .malformed(
        "the archive has \(listed.layers.count) layers for an image whose configuration names \(configuration.layers.count)"
      )
    }
    for (index, layer) in configuration.layers.enumerated() where sizes[layer] == nil {
      sizes[layer] = try unpack(
        layer, listed.layers[index], "layer \(index + 1) of \(listed.layers.count)", contents, &budget, &result)
    }
    try system("the configuration") { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        let place = Descriptor(
          owning: try check("open") {
            openat(raw, "configs/\(member.digest.hex)", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0o600)
          })
        try place.withRaw { (raw) throws(SystemFault) in try writeAll(raw, bytes[...], "configuration") }
      }
    }
    return .init(
      id: member.digest, names: listed.names.map { ImageName.canonical($0) }, layers: configuration.layers,
      size: configuration.layers.reduce(0) { $0 + (sizes[$1] ?? 0) })
  }

  /// Returns the bytes of its files; nothing is done for one that is known.
  private func unpack(
    _ layer: Digest, _ place: String, _ name: String, _ contents: Contents, _ budget: inout Budget,
    _ result: inout UnpackedArchive
  ) throws(ImageProblem) -> UInt64 {
    guard !known.contains(layer) else { return 0 }
    guard let member = contents.member(place) else { throw .malformed("\(name) is not in the archive") }
    let root = try system(name) { () throws(SystemFault) in
      try folder.withRaw { (raw) throws(SystemFault) in
        let path = "layers/\(layer.hex)"
        try Place.makeFolder(path, in: raw, mode: 0o755)
        let root = Descriptor(
          owning: try check("open") { openat(raw, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) })
        try root.withRaw { (raw) throws(SystemFault) in _ = try check("chown") { fchown(raw, 0, 0) } }
        return SharedDescriptor(root)
      }
    }
    let writer = LayerWriter(root, name: name, limits)
    var size: UInt64 = 0
    try open(member, name) { (raw) throws(ImageProblem) in
      let bytes = try LayerBytes(file: raw, name: name, limits, allowed: budget.bytes) { heard(name, $0, member.size) }
      let reader = try ArchiveReader(.tar, bytes, name: name)
      while let entry = try reader.next() {
        budget.entries -= 1
        guard budget.entries >= 0 else {
          throw .tooMuch("the image has more than the \(limits.entries) files that are allowed")
        }
        let wanted = UInt64(max(0, entry.size))
        guard wanted <= budget.bytes - min(budget.bytes, size) else {
          throw .tooMuch(
            "\(name) has a file of \(LayerBytes.readable(wanted)); an image may unpack to \(LayerBytes.readable(limits.unpacked))"
          )
        }
        size += wanted
        try writer.write(entry, from: reader)
        try checkRoom()
      }
      guard try bytes.finish() == layer else {
        throw .malformed("\(name) does not hold what its digest says: the archive is damaged or forged")
      }
    }
    budget.bytes -= min(budget.bytes, size)
    result.leftOut += writer.leftOut
    result.foreignIDs += writer.foreignIDs
    result.opaque[layer] = writer.opaque.sorted { $0.lexicographicallyPrecedes($1) }
    return size
  }

  // MARK: Faults

  /// A disk that is filled to its end stops more than this.
  private func checkRoom() throws(ImageProblem) {
    var status = statvfs()
    guard folder.withRaw({ fstatvfs($0, &status) }) == 0 else { return }
    let block = UInt64(status.f_frsize)
    let kept = min(limits.keptFree, UInt64(status.f_blocks) * block / limits.freePart)
    guard UInt64(status.f_bavail) * block > kept else {
      throw .failed(
        "there is no room left to unpack the image: less than \(LayerBytes.readable(kept)) would stay free on the disk of the store"
      )
    }
  }

  private func system<Result: ~Copyable>(_ what: String, _ body: () throws(SystemFault) -> Result)
    throws(ImageProblem) -> Result
  {
    do throws(SystemFault) { return try body() } catch {
      let subject = LayerWriter.shown(Array(what.utf8))
      if error.code == ENOSPC || error.code == EDQUOT {
        throw .failed("there is no room left for \(subject): \(error.reason)")
      }
      throw .failed("\(subject): \(error)")
    }
  }
}
