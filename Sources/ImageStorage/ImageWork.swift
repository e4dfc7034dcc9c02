internal import CLinux
internal import Glibc
internal import Linux
internal import Model

/// What takes the store its time, one thing after the other on a thread of its own.
actor ImageWork {
  private nonisolated let loop: EventLoop
  nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }
  private let folder: String
  private let program: String
  private let limits: ImageLimits
  private var number = 0

  init(folder: String, program: String, limits: ImageLimits) throws(SystemFault) {
    self.folder = folder
    self.program = program
    self.limits = limits
    loop = try EventLoop(name: "images")
  }

  deinit { loop.stop() }

  /// Removes what no index names; what cannot be removed is tried again by the next.
  static func sweep(_ folder: String, keeping index: ImageIndex) {
    guard let top = try? Folder(opening: folder) else { return }
    let layers = Set(index.layers.map(\.hex))
    let configs = Set(index.images.keys.map(\.hex))
    // best effort: what stays takes room and is named by nothing.
    for name in (try? top.folder("staging").names()) ?? [] { _ = try? Tree.remove("staging", name, in: folder) }
    for name in (try? top.folder("layers").names()) ?? [] where !layers.contains(name) {
      _ = try? Tree.remove("layers", name, in: folder)
    }
    for name in (try? top.folder("configs").names()) ?? [] where !configs.contains(name) {
      try? top.folder("configs").remove(name)
    }
  }

  // MARK: Load

  func load(_ archive: SharedDescriptor, _ store: ImageStore, _ progress: @Sendable (WorkProgress) -> Void)
    async throws(ImageProblem) -> LoadedImages
  {
    number += 1
    let name = "\(getpid())-\(number)-\(Clock.wall().nanoseconds)"
    // Whatever comes, nothing half done stays.
    defer { Self.sweep(folder, keeping: store.index) }
    let staging: SharedDescriptor
    do throws(SystemFault) {
      let made = try Folder(opening: folder).folder("staging").folder(name, making: 0o700)
      try made.replace(
        UnpackProcess.knownFile, with: Array(store.index.layers.map { "\($0.hex)\n" }.joined().utf8), mode: 0o644)
      staging = SharedDescriptor(
        try made.withRaw { (raw) throws(SystemFault) in
          // The process that unpacks is nobody, and this is all it has.
          try check("chown") { fchown(raw, LayerWriter.nobody, LayerWriter.nobody) }
          return Descriptor(owning: try check("open") { openat(raw, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC) })
        })
      try archive.withRaw { (raw) throws(SystemFault) in _ = try check("lseek") { lseek(raw, 0, SEEK_SET) } }
    } catch { throw .failed("the image could not be unpacked: \(error)") }
    let answer = try unpack(archive, staging, progress)
    return try commit(answer, "staging/\(name)", staging, store)
  }

  /// Runs the process and returns its last word.
  private func unpack(
    _ archive: SharedDescriptor, _ staging: SharedDescriptor, _ progress: @Sendable (WorkProgress) -> Void
  ) throws(ImageProblem) -> JSONValue {
    let pid: Int32
    let reading: SharedDescriptor
    do throws(SystemFault) {
      var pipe = try Pipe(size: 1 << 16, nonBlockingRead: false)
      guard let ours = pipe.reading.take(), let theirs = pipe.writing.take() else {
        throw SystemFault(call: "pipe", subject: "", code: EBADF)
      }
      let null = try Place.null()
      pid = try null.withRaw { (null) throws(SystemFault) in
        try theirs.withRaw { (theirs) throws(SystemFault) in
          try archive.withRaw { (archive) throws(SystemFault) in
            try staging.withRaw { (staging) throws(SystemFault) in
              try Children.spawn(
                program, ["supervisor-daemon", UnpackProcess.argument], descriptors: [archive, theirs, null, staging])
            }
          }
        }
      }
      reading = SharedDescriptor(ours)
    } catch { throw .failed("the process that unpacks could not be started: \(error)") }
    var last: JSONValue?
    // Ends with the process: it alone holds the other end.
    let lines = ReportLines(reading)
    while let line = lines.next() {
      if Task.isCancelled { break }
      if let step = line["step"]?.stringValue {
        progress(
          WorkProgress(
            item: step, status: step == "reading" ? "" : "unpacking",
            done: line["done"]?.integerValue.map { UInt64(max(0, $0)) },
            total: line["total"]?.integerValue.map { UInt64(max(0, $0)) }))
      } else {
        last = line
      }
    }
    // It has said its last, or is not heard any more: then it ends now, and half a load is swept.
    let isSilent = lines.isSilent
    if Task.isCancelled || isSilent { kill(pid, SIGKILL) }
    let end: ChildEnd?
    do throws(SystemFault) { end = try Children.wait(pid, block: true)?.end } catch {
      throw .failed("the process that unpacks was lost: \(error)")
    }
    if Task.isCancelled { throw .failed("the load was cancelled") }
    if isSilent { throw .failed("unpacking came to a stop: nothing was read or written for \(ReportLines.patience) s") }
    return try Self.judge(last, end, limits)
  }

  private static func judge(_ last: JSONValue?, _ end: ChildEnd?, _ limits: ImageLimits) throws(ImageProblem)
    -> JSONValue
  {
    if let last, let word = last["problem"]?.stringValue {
      throw ImageProblem(word: word, last["text"]?.stringValue ?? "the archive could not be unpacked")
    }
    switch end {
    case .code(0)?:
      guard let last, last["images"] != nil else { break }
      return last
    case .signal(SIGXCPU)?, .signal(SIGKILL)?:
      throw .tooMuch(
        "unpacking was ended: it takes more than \(limits.processorSeconds) s of a processor, or somebody killed it")
    case .signal?:
      throw .tooMuch(
        "the process that unpacks broke down over this archive: it is damaged, forged, or needs more than \(LayerBytes.readable(limits.memory)) of memory"
      )
    case .code?, nil: break
    }
    throw .failed("the process that unpacks ended without a word")
  }

  // MARK: Commit

  /// Checks what the process says as if it were the archive's own word, gives the layers their place, and last of all the index its entry.
  private func commit(_ answer: JSONValue, _ place: String, _ staging: SharedDescriptor, _ store: ImageStore)
    throws(ImageProblem) -> LoadedImages
  {
    var index = store.index
    var loaded: [Digest] = []
    for item in answer["images"]?.arrayValue ?? [] {
      guard let id = item["id"]?.stringValue.flatMap({ Digest($0) }), let size = item["size"]?.integerValue else {
        throw .failed("the process that unpacks says what it cannot have found")
      }
      let names = (item["names"]?.arrayValue ?? []).compactMap(\.stringValue).filter { ImageName.isValid($0) }
      let bytes: [UInt8]
      do throws(SystemFault) {
        bytes = try Folder(opening: "\(folder)/\(place)").folder("configs").read(id.hex, limit: limits.document)
      } catch { throw .failed("the image's configuration is not there: \(error)") }
      guard Digest(of: bytes) == id else { throw .malformed("the image's configuration is not what its digest says") }
      let configuration = try ImageConfiguration(bytes, limits)
      let was = index.images[id]
      index.images[id] = .init(
        layers: configuration.layers, size: was?.size ?? UInt64(max(0, size)), loaded: Clock.wall())
      for name in names { index.names[ImageName.canonical(name)] = id }
      loaded.append(id)
    }
    do throws(SystemFault) {
      try markOpaque(staging)
      // All that follows is names: content is on the disk before any of them.
      try staging.withRaw { (raw) throws(SystemFault) in _ = try checkShim("syncfs", folder) { cl_sync_files(raw) } }
      let known = store.index.layers
      for layer in index.layers where !known.contains(layer) { try move("layers", layer.hex, from: place) }
      for id in loaded where store.index.images[id] == nil { try move("configs", id.hex, from: place) }
      try store.replace(index)
    } catch { throw .failed("the image could not be put into the store: \(error)") }
    var notes: [String] = []
    let leftOut = answer["left_out"]?.integerValue ?? 0
    if leftOut > 0 { notes.append("\(leftOut) devices, pipes or sockets were left out: the sandbox makes its own") }
    let foreign = answer["foreign_ids"]?.integerValue ?? 0
    if foreign > 0 { notes.append("\(foreign) files belong to ids above 65535, which no app has; they are nobody's") }
    return LoadedImages(images: loaded.compactMap { index.image($0) }, notes: notes)
  }

  private func move(_ kind: String, _ name: String, from place: String) throws(SystemFault) {
    let to = try Folder(opening: folder).folder(kind)
    try Folder(opening: "\(folder)/\(place)").folder(kind).withRaw { (from) throws(SystemFault) in
      try to.withRaw { (to) throws(SystemFault) in
        // What the process made is looked at as if somebody else had: a link would lead the store's readers elsewhere.
        var status = stat()
        try check("stat", "\(kind)/\(name)") { fstatat(from, name, &status, AT_SYMLINK_NOFOLLOW) }
        guard status.st_mode & S_IFMT == (kind == "layers" ? S_IFDIR : S_IFREG) else {
          throw SystemFault(call: "stat", subject: "\(kind)/\(name)", code: EINVAL)
        }
        do throws(SystemFault) {
          _ = try checkShim("rename", "\(kind)/\(name)") { cl_rename_new(from, name, to, name) }
        } catch  where error.code == EEXIST {
          // Left over, and named by nothing: it goes first.
          _ = try Tree.remove(kind, name, in: folder)
          _ = try checkShim("rename", "\(kind)/\(name)") { cl_rename_new(from, name, to, name) }
        }
        // It was made by nobody. A layer's own is as its archive says.
        if kind == "configs" { _ = try check("chown", name) { fchownat(to, name, 0, 0, AT_SYMLINK_NOFOLLOW) } }
        _ = try check("fsync", kind) { fsync(to) }
      }
    }
  }

  /// The marks that only root can set, where the process said; no name on the way may be a link.
  private func markOpaque(_ staging: SharedDescriptor) throws(SystemFault) {
    let list = try staging.withRaw { (raw) throws(SystemFault) in
      let file = Descriptor(
        owning: try check("open", UnpackProcess.opaqueFile) {
          openat(raw, UnpackProcess.opaqueFile, O_RDONLY | O_NOFOLLOW | O_CLOEXEC)
        })
      return try readAll(file, UnpackProcess.opaqueFile, limit: 512 << 20)
    }
    for path in list.split(separator: 0) {
      var place = SharedDescriptor(
        Descriptor(
          owning: try staging.withRaw { (raw) throws(SystemFault) in
            try check("open", "layers") { openat(raw, "layers", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }
          }))
      for part in path.split(separator: UInt8(ascii: "/")) {
        let name = part.map { CChar(bitPattern: $0) } + [0]
        guard part != [0x2E, 0x2E] else { throw SystemFault(call: "open", subject: "..", code: EXDEV) }
        place = SharedDescriptor(
          Descriptor(
            owning: try place.withRaw { (raw) throws(SystemFault) in
              try check("open", "whiteout") { openat(raw, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) }
            }))
      }
      try place.withRaw { (raw) throws(SystemFault) in
        _ = try checkShim("fsetxattr", "trusted.overlay.opaque") {
          cl_mark_opaque(raw)
        }
      }
    }
  }

  // MARK: Remove

  func remove(_ reference: String, _ used: Set<String>, _ store: ImageStore) async throws(ImageProblem) -> (
    untagged: [String], removed: [Digest]
  ) {
    guard let image = store.find(reference) else {
      throw .missing("the store has no image \(LayerWriter.shown(Array(reference.utf8)))")
    }
    let used = Set(used.map { Digest($0) == nil ? ImageName.canonical($0) : $0 })
    let name = ImageName.canonical(reference)
    let isNamed = image.names.contains(name)
    let untagged = isNamed ? [name] : image.names
    let isLast = untagged.count == image.names.count
    if isLast, used.contains(image.id.description) || image.names.contains(where: { used.contains($0) }) {
      throw .inUse("the image \(reference) is an app's")
    }
    if used.contains(name) { throw .inUse("the name \(name) is in an app's policy") }
    var index = store.index
    for name in untagged { index.names[name] = nil }
    if isLast { index.images[image.id] = nil }
    try put(index, store)
    return (untagged, isLast ? [image.id] : [])
  }

  func prune(_ used: Set<String>, _ store: ImageStore) async throws(ImageProblem) -> [StoredImage] {
    let unused = store.images.filter { $0.names.isEmpty && !used.contains($0.id.description) }
    guard !unused.isEmpty else { return [] }
    var index = store.index
    for image in unused { index.images[image.id] = nil }
    try put(index, store)
    return unused
  }

  private func put(_ index: ImageIndex, _ store: ImageStore) throws(ImageProblem) {
    do throws(SystemFault) { try store.replace(index) } catch {
      throw .failed("the list of images could not be written: \(error)")
    }
    Self.sweep(folder, keeping: index)
  }
}

/// JSON documents a line from a process that may be anybody's by now: one that is too long, or none, ends it.
private final class ReportLines {
  private let file: SharedDescriptor
  private var waiting: [UInt8] = []
  private static let longest = 8 << 20
  /// Seconds; the archive may be somebody's file that never answers.
  static let patience: Int32 = 300
  private(set) var isSilent = false

  init(_ file: SharedDescriptor) { self.file = file }

  func next() -> JSONValue? {
    while true {
      if let end = waiting.firstIndex(of: 10) {
        let line = waiting[..<end]
        waiting.removeSubrange(...end)
        return try? JSONValue(parsing: Array(line), limits: .engine)
      }
      guard waiting.count < Self.longest else { return nil }
      var wait = file.withRaw { pollfd(fd: $0, events: Int16(POLLIN), revents: 0) }
      guard poll(&wait, 1, Self.patience * 1000) != 0 else {
        isSilent = true
        return nil
      }
      var chunk = [UInt8](repeating: 0, count: 65_536)
      let got = try? file.withRaw { (raw) throws(SystemFault) in
        try check("read") { chunk.withUnsafeMutableBytes { read(raw, $0.baseAddress, $0.count) } }
      }
      guard let got, got > 0 else { return nil }
      waiting += chunk[..<got]
    }
  }
}
