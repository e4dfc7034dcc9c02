internal import Glibc

/// A layer's tar as it comes out of its compression, counted and hashed on the way to whoever reads it: its digest is what the image's
/// configuration knows it by.
final class LayerBytes: ArchiveBytes {
  private let reader: ArchiveReader
  private let limits: ImageLimits
  private let name: String
  /// Bytes that this layer may still unpack to.
  private let allowed: UInt64
  private var hash = SHA256()
  private var isOpen = false
  private(set) var count: UInt64 = 0
  private let heard: (UInt64) -> Void

  /// `heard` is told of bytes read from `file`.
  init(file: Int32, name: String, _ limits: ImageLimits, allowed: UInt64, heard: @escaping (UInt64) -> Void)
    throws(ImageProblem)
  {
    reader = try ArchiveReader(.stream, file: file, name: name)
    self.name = name
    self.limits = limits
    self.allowed = allowed
    self.heard = heard
  }

  func next() throws(ImageProblem) -> UnsafeRawBufferPointer {
    if !isOpen {
      guard try reader.next() != nil else { return UnsafeRawBufferPointer(start: nil, count: 0) }
      isOpen = true
    }
    guard let (bytes, _) = try reader.block() else { return UnsafeRawBufferPointer(start: nil, count: 0) }
    count += UInt64(bytes.count)
    let taken = reader.taken
    heard(taken)
    guard count <= allowed else {
      throw .tooMuch("\(name) unpacks to more than the \(Self.readable(limits.unpacked)) an image may")
    }
    guard count <= limits.expansionFrom || count / limits.expansion <= max(1, taken) else {
      throw .tooMuch(
        "\(name) unpacks to more than \(limits.expansion) times its size, as archives do that are made to fill disks")
    }
    hash.add(bytes)
    return bytes
  }

  /// Reads what its reader left, and ends the digest.
  func finish() throws(ImageProblem) -> Digest {
    while try next().count > 0 {}
    let hash = self.hash
    return hash.end()
  }

  static func readable(_ bytes: UInt64) -> String {
    bytes >= 1 << 30 ? "\(bytes >> 30) GiB" : bytes >= 1 << 20 ? "\(bytes >> 20) MiB" : "\(bytes >> 10) KiB"
  }
}
