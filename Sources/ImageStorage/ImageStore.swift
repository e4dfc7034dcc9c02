internal import Glibc
package import Linux
package import Model
internal import Synchronization

/// The instance's own images: what is there, as the index in memory says, which is on disk before it counts.
///
/// `FOLDER/layers/HEX` is an unpacked layer by the digest of its tar, `configs/HEX` a configuration by its own, `index.json` what of them
/// counts, `staging` what is being loaded. Loading and removing block, on a thread of the store's own.
package final class ImageStore: Sendable {
  /// Absolute; 0700, so that nobody but root reaches an image's files by this way.
  package let folder: String
  // Guards: the index, which is also on disk, and configurations read before.
  private let held: Mutex<(index: ImageIndex, configurations: [Digest: ImageConfiguration])>
  private let work: ImageWork
  /// What went wrong with the index that was there; nil: nothing.
  package let trouble: String?

  /// `program` is this process's own, which unpacks when started with `UnpackProcess.argument`. Sweeps what an earlier one left half done.
  package init(folder: String, program: String, limits: ImageLimits = ImageLimits()) throws(SystemFault) {
    self.folder = folder
    let top = try Folder(making: folder, mode: 0o700)
    for name in ["layers", "configs", "staging"] { _ = try top.folder(name, making: 0o700) }
    var index = ImageIndex()
    var trouble: String?
    do throws(SystemFault) {
      if let read = ImageIndex(try top.read(ImageIndex.file, limit: ImageIndex.longest)) {
        index = read
      } else {
        trouble = "the list of images could not be read and was put aside as \(folder)/\(ImageIndex.file).quarantined"
        try top.withRaw { (raw) throws(SystemFault) in
          _ = try check("rename", folder) {
            renameat(raw, ImageIndex.file, raw, "\(ImageIndex.file).quarantined")
          }
        }
      }
    } catch  where error.code == ENOENT {}
    self.trouble = trouble
    held = Mutex((index, [:]))
    work = try ImageWork(folder: folder, program: program, limits: limits)
    // What a quarantined index named is not ours to delete.
    if trouble == nil, !File.exists("\(folder)/\(ImageIndex.file).quarantined") {
      ImageWork.sweep(folder, keeping: index)
    }
  }

  // MARK: Looking

  /// All, by name.
  package var images: [StoredImage] {
    let index = held.withLock { $0.index }
    return index.images.keys.compactMap { index.image($0) }
      .sorted { ($0.names.first ?? "~", $0.id.hex) < ($1.names.first ?? "~", $1.id.hex) }
  }

  /// By name, `sha256:` id, or the beginning of an id that fits no other (12 digits and more).
  package func find(_ reference: String) -> StoredImage? {
    let index = held.withLock { $0.index }
    if let id = Digest(reference) { return index.image(id) }
    // A name with a digest means that very image.
    if let at = reference.firstIndex(of: "@"), let id = Digest(reference[reference.index(after: at)...]) {
      return index.image(id)
    }
    if let id = index.names[ImageName.canonical(reference)] { return index.image(id) }
    guard reference.utf8.count >= 12 else { return nil }
    let fitting = index.images.keys.filter { $0.hex.hasPrefix(reference) }
    return fitting.count == 1 ? fitting.first.flatMap { index.image($0) } : nil
  }

  /// What an image says of itself; its digest is checked whenever it is read.
  package func configuration(_ id: Digest) throws(ImageProblem) -> ImageConfiguration {
    if let known = held.withLock({ $0.configurations[id] }) { return known }
    let bytes: [UInt8]
    do throws(SystemFault) {
      bytes = try Folder(opening: folder).folder("configs").read(id.hex, limit: ImageLimits().document)
    } catch { throw .missing("the image \(id) is not in the store any more: \(error)") }
    guard Digest(of: bytes) == id else {
      throw .malformed("the configuration of the image \(id) was changed on disk; load the image again")
    }
    let read = try ImageConfiguration(bytes)
    held.withLock { $0.configurations[id] = read }
    return read
  }

  /// The folders of an image's layers, topmost first, each once: where one is there twice, the upper hides the lower.
  package func layers(_ image: StoredImage) -> [String] {
    var seen: Set<Digest> = []
    return image.layers.reversed().filter { seen.insert($0).inserted }.map { "\(folder)/layers/\($0.hex)" }
  }

  // MARK: Changing

  /// Unpacks an archive (an open file, read from its beginning) and gives its images their names; all of it or nothing. One at a time.
  package func load(_ archive: SharedDescriptor, progress: @escaping @Sendable (WorkProgress) -> Void)
    async throws(ImageProblem) -> LoadedImages
  {
    try await work.load(archive, self, progress)
  }

  /// A file of the store's own disk for what is loaded afterwards; without a name, gone with its descriptor.
  package func scratch() throws(ImageProblem) -> SharedDescriptor {
    do throws(SystemFault) {
      let path = "\(folder)/staging"
      // O_TMPFILE.
      return SharedDescriptor(
        Descriptor(owning: try check("open", path) { open(path, O_RDWR | O_CLOEXEC | 0o20000000 | O_DIRECTORY, 0o600) })
      )
    } catch { throw .failed("there is no room for the image: \(error)") }
  }

  /// Takes a name away, and the image with its last one; by id, the image with all its names. Refuses one that is `used`.
  package func remove(_ reference: String, used: Set<String>) async throws(ImageProblem) -> (
    untagged: [String], removed: [Digest]
  ) {
    try await work.remove(reference, used, self)
  }

  /// Removes all images that have no name and are not `used`.
  package func prune(used: Set<String>) async throws(ImageProblem) -> [StoredImage] {
    try await work.prune(used, self)
  }

  /// Puts a new index into force: on disk first.
  func replace(_ index: ImageIndex) throws(SystemFault) {
    try Folder(opening: folder).replace(ImageIndex.file, with: index.text, mode: 0o600)
    held.withLock {
      $0.index = index
      $0.configurations = $0.configurations.filter { index.images[$0.key] != nil }
    }
  }

  var index: ImageIndex { held.withLock { $0.index } }
}

/// What a load brought.
package struct LoadedImages: Sendable, Equatable {
  package var images: [StoredImage]
  /// What is not as in the archive, in words.
  package var notes: [String]
}
