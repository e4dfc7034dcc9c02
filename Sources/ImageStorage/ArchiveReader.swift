internal import CArchive
internal import Glibc

/// What an entry of an archive is, as far as it is of use here.
struct ArchiveEntry {
  enum Kind { case file, folder, link(to: [UInt8]), hardLink(to: [UInt8]), device, pipe, other }
  /// Bytes as the archive has them, without NUL; checked by whoever makes something of them.
  var path: [UInt8]
  var kind: Kind
  /// Permission bits alone.
  var mode: UInt32
  var uid: Int64
  var gid: Int64
  /// Apparent bytes.
  var size: Int64
  /// Seconds since 1970, and nanoseconds.
  var modified: (seconds: Int64, nanoseconds: Int64)
}

/// Where a reader's bytes come from; at most once, in order.
protocol ArchiveBytes: AnyObject {
  /// The next bytes, lent until the next call; empty at the end.
  func next() throws(ImageProblem) -> UnsafeRawBufferPointer
}

/// A tar archive, or a plain stream, through libarchive. The only user of that library. One thread; hostile bytes may crash it, which is
/// why it runs in a process of its own.
final class ArchiveReader {
  enum Form {
    /// A tar, itself compressed or not.
    case tar
    /// Any bytes, decompressed as far as they are compressed.
    case stream
  }

  private let handle: OpaquePointer
  /// For messages.
  private let name: String
  private var source: Source?

  /// What libarchive's callback is given.
  private final class Source {
    let bytes: any ArchiveBytes
    var failure: ImageProblem?
    init(_ bytes: any ArchiveBytes) { self.bytes = bytes }
  }

  /// An open file from its position on, which stays the caller's.
  init(_ form: Form, file: Int32, name: String) throws(ImageProblem) {
    self.name = name
    handle = try Self.make(form, name)
    guard archive_read_open_fd(handle, file, 1 << 18) == ARCHIVE_OK else { throw failure() }
  }

  init(_ form: Form, _ bytes: any ArchiveBytes, name: String) throws(ImageProblem) {
    self.name = name
    handle = try Self.make(form, name)
    let source = Source(bytes)
    self.source = source
    // SAFETY: the source lives as long as this object, which frees the handle before it goes.
    let context = Unmanaged.passUnretained(source).toOpaque()
    let opened = archive_read_open(
      handle, context, nil,
      { _, context, buffer in
        guard let context, let buffer else { return -1 }
        let source = Unmanaged<Source>.fromOpaque(context).takeUnretainedValue()
        do throws(ImageProblem) {
          let bytes = try source.bytes.next()
          buffer.pointee = bytes.baseAddress
          return bytes.count
        } catch {
          source.failure = error
          return -1
        }
      }, nil)
    guard opened == ARCHIVE_OK else { throw failure() }
  }

  private static func make(_ form: Form, _ name: String) throws(ImageProblem) -> OpaquePointer {
    guard let handle = archive_read_new() else { throw .failed("\(name) cannot be read: out of memory") }
    // A filter that libarchive would start a program for is not one (ARCHIVE_WARN): nothing is run here.
    archive_read_support_filter_none(handle)
    _ = archive_read_support_filter_gzip(handle)
    _ = archive_read_support_filter_zstd(handle)
    switch form {
    case .tar: archive_read_support_format_tar(handle)
    case .stream:
      archive_read_support_format_raw(handle)
      archive_read_support_format_empty(handle)
    }
    return handle
  }

  deinit { archive_read_free(handle) }

  private func failure() -> ImageProblem {
    if let failure = source?.failure { return failure }
    let words = archive_error_string(handle).map { String(cString: $0) } ?? "it is no archive that can be read"
    let code = archive_errno(handle)
    // Words of the library only, but some quote the archive.
    let clean = String(
      words.unicodeScalars.filter { $0.value >= 32 && $0.value != 127 }.prefix(200).map { Character($0) })
    return code == ENOMEM
      ? .tooMuch("\(name) needs more memory to be read than is allowed")
      : .malformed("\(name) cannot be read: \(clean)")
  }

  /// The next entry; nil at the end.
  func next() throws(ImageProblem) -> ArchiveEntry? {
    var entry: OpaquePointer?
    switch archive_read_next_header(handle, &entry) {
    case ARCHIVE_EOF: return nil
    case ARCHIVE_OK, ARCHIVE_WARN: break
    default: throw failure()
    }
    guard let entry else { throw failure() }
    return try read(entry)
  }

  private func read(_ entry: OpaquePointer) throws(ImageProblem) -> ArchiveEntry {
    guard let path = archive_entry_pathname(entry) else {
      throw .malformed("\(name) has an entry whose name cannot be read")
    }
    let kind: ArchiveEntry.Kind
    if let target = archive_entry_hardlink(entry) {
      kind = .hardLink(to: Self.bytes(target))
    } else {
      switch UInt32(archive_entry_filetype(entry)) & 0o170000 {
      case 0o100000: kind = .file
      case 0o040000: kind = .folder
      case 0o120000:
        guard let target = archive_entry_symlink(entry) else { throw .malformed("\(name) has a link to nowhere") }
        kind = .link(to: Self.bytes(target))
      case 0o020000, 0o060000: kind = .device
      case 0o010000: kind = .pipe
      default: kind = .other
      }
    }
    return ArchiveEntry(
      path: Self.bytes(path), kind: kind, mode: UInt32(archive_entry_perm(entry)) & 0o7777,
      uid: archive_entry_uid(entry), gid: archive_entry_gid(entry),
      size: archive_entry_size_is_set(entry) != 0 ? archive_entry_size(entry) : 0,
      modified: (Int64(archive_entry_mtime(entry)), Int64(archive_entry_mtime_nsec(entry))))
  }

  private static func bytes(_ text: UnsafePointer<CChar>) -> [UInt8] {
    let count = strlen(text)
    return text.withMemoryRebound(to: UInt8.self, capacity: count) {
      Array(UnsafeBufferPointer(start: $0, count: count))
    }
  }

  /// The next piece of the present entry and where in it it lies, lent until the next call; nil at its end.
  func block() throws(ImageProblem) -> (bytes: UnsafeRawBufferPointer, offset: Int64)? {
    var buffer: UnsafeRawPointer?
    var count = 0
    var offset: Int64 = 0
    switch archive_read_data_block(handle, &buffer, &count, &offset) {
    case ARCHIVE_EOF: return nil
    case ARCHIVE_OK: return (UnsafeRawBufferPointer(start: buffer, count: count), offset)
    default: throw failure()
    }
  }

  /// How many bytes were taken from the source so far.
  var taken: UInt64 { UInt64(max(0, archive_filter_bytes(handle, -1))) }
}
