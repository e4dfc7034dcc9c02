package import EngineAPI
internal import Glibc
package import Linux
package import Model

/// Why a build's folder cannot be sent.
package enum ContextProblem: Error, CustomStringConvertible {
  case unreadable(SystemFault)
  case noDockerfile(String, folder: String)
  case tooManyFiles(String)
  case tooLarge(String)

  package var description: String {
    switch self {
    case .unreadable(let fault): "the build context cannot be read: \(fault)"
    case .noDockerfile(let name, let folder): "there is no \(name) in the build context \(folder)"
    case .tooManyFiles(let folder):
      "the build context \(folder) has more than \(BuildContext.most) files: exclude some in .dockerignore"
    case .tooLarge(let folder):
      "the files of the build context \(folder) have more than \(BuildContext.largest >> 30) GiB: exclude some in .dockerignore"
    }
  }
}

/// A folder as a tar stream (POSIX.1-2001 pax), as `POST /build` wants it. Links are sent as links and never followed; sockets,
/// devices and FIFOs are left out; owners and times are not kept, so that the same content gives the same layers.
package struct BuildContext {
  static let most = 200_000
  /// Bytes of all files together: the engine writes them to its disk before it looks at any.
  static let largest: UInt64 = 16 << 30
  static let block = 512

  private struct Item {
    var path: String
    var mode: UInt32
    var kind: Kind
    enum Kind { case folder, file(size: UInt64), link(String) }
  }

  private let root: SharedFolder
  private var items: [Item] = []
  private var bytes: UInt64 = 0
  private let ignore: IgnoreList

  /// The folder, held open: what is read later is below what was looked through.
  private final class SharedFolder: Sendable {
    let folder: Folder
    init(_ folder: consuming Folder) { self.folder = folder }
  }

  /// Where a context is.
  package enum Place: Sendable {
    case path(String)
    /// A folder that its owner has opened.
    case opened(SharedDescriptor)

    var path: String {
      switch self {
      case .path(let path): path
      case .opened(let folder): folder.withRaw { "/proc/self/fd/\($0)" }
      }
    }
  }

  /// The whole folder but for what its `.dockerignore` names; `dockerfile` is always in. All of it is read with the rights of
  /// `reader` (nil: the daemon's), on a thread of its own.
  package static func archive(
    _ place: Place, keeping dockerfile: String, as reader: Policy.Loader? = nil
  ) async throws(ContextProblem) -> ByteSource {
    let stream: TarStream
    do throws(SystemFault) { stream = try TarStream() } catch { throw .unreadable(error) }
    try await stream.open(place, keeping: dockerfile, as: reader)
    return ByteSource { try await stream.next() }
  }

  private static func collect(_ folder: String, keeping dockerfile: String) throws(ContextProblem) -> BuildContext {
    var context: BuildContext
    do throws(SystemFault) {
      let root = SharedFolder(try Folder(opening: folder))
      // Best effort: without one nothing is left out.
      let ignored = try? readAll(openFile(".dockerignore", in: root).file, ".dockerignore", limit: 1 << 20)
      context = BuildContext(
        root: root, ignore: IgnoreList(String(decoding: ignored ?? [], as: UTF8.self), keeping: dockerfile))
      try context.collect("", root.folder)
    } catch  where error.code == E2BIG {
      throw .tooManyFiles(folder)
    } catch  where error.code == EFBIG {
      throw .tooLarge(folder)
    } catch {
      throw .unreadable(error)
    }
    guard context.items.contains(where: { $0.path == dockerfile }) else {
      throw .noDockerfile(dockerfile, folder: folder)
    }
    return context
  }

  private init(root: SharedFolder, ignore: IgnoreList) {
    self.root = root
    self.ignore = ignore
  }

  /// An opened file; a tuple holds no non-copyable value.
  private struct Opened: ~Copyable {
    let file: Descriptor
    let size: UInt64
  }

  /// Opens a plain file below the context. Another may have put a link, or a FIFO, on the way since it was listed.
  private static func openFile(_ path: String, in root: SharedFolder) throws(SystemFault) -> Opened {
    let file = try root.folder.withRaw { (raw) throws(SystemFault) in
      try Linux.Place.read(path, in: raw, [.beneath, .noLinks, .noMagicLinks])
    }
    var status = stat()
    try file.withRaw { (raw) throws(SystemFault) in _ = try check("stat", path) { fstat(raw, &status) } }
    guard status.st_mode & S_IFMT == S_IFREG else { throw SystemFault(call: "open", subject: path, code: EINVAL) }
    return Opened(file: file, size: UInt64(status.st_size))
  }

  private mutating func collect(_ prefix: String, _ folder: borrowing Folder) throws(SystemFault) {
    for name in try folder.names() {
      let path = prefix.isEmpty ? name : "\(prefix)/\(name)"
      var status = stat()
      try folder.withRaw { (raw) throws(SystemFault) in
        _ = try check("stat", path) { fstatat(raw, name, &status, AT_SYMLINK_NOFOLLOW) }
      }
      let ignored = ignore.covers(path)
      let mode = UInt32(status.st_mode & 0o777)
      guard items.count < Self.most else { throw SystemFault(call: "collect", subject: root.folder.path, code: E2BIG) }
      switch status.st_mode & S_IFMT {
      case S_IFDIR:
        guard !ignored || ignore.hasExceptions else { continue }
        if !ignored { items.append(Item(path: path, mode: mode, kind: .folder)) }
        try collect(path, folder.folder(name))
      case S_IFREG where !ignored:
        bytes += UInt64(max(0, status.st_size))
        guard bytes <= Self.largest else { throw SystemFault(call: "collect", subject: root.folder.path, code: EFBIG) }
        items.append(Item(path: path, mode: mode, kind: .file(size: UInt64(status.st_size))))
      case S_IFLNK where !ignored:
        items.append(Item(path: path, mode: 0o777, kind: .link(try Self.readLink(folder, name))))
      default: continue
      }
    }
  }

  private static func readLink(_ folder: borrowing Folder, _ name: String) throws(SystemFault) -> String {
    var buffer = [CChar](repeating: 0, count: 4096)
    let count = try folder.withRaw { (raw) throws(SystemFault) in
      try check("readlink", name) { readlinkat(raw, name, &buffer, buffer.count) }
    }
    return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
  }

  // MARK: tar

  /// Gives the archive piece by piece; reads each file when its turn comes, on a thread of its own.
  private actor TarStream {
    private var context: BuildContext?
    private nonisolated let loop: EventLoop
    private var position = 0
    private var open: (file: SharedDescriptor, left: UInt64, padding: Int, path: String)?
    private var ended = false
    nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

    init() throws(SystemFault) { loop = try EventLoop(name: "build-context") }

    deinit { loop.stop() }

    /// From here on this thread reads as `reader`.
    func open(_ place: Place, keeping dockerfile: String, as reader: Policy.Loader?) throws(ContextProblem) {
      do throws(SystemFault) { if let reader { try FileIdentity.assume(reader) } } catch { throw .unreadable(error) }
      context = try BuildContext.collect(place.path, keeping: dockerfile)
    }

    func next() throws -> [UInt8]? {
      guard let context else { return nil }
      if let piece = try filePiece() { return piece }
      guard position < context.items.count else {
        if ended { return nil }
        ended = true
        return [UInt8](repeating: 0, count: 2 * BuildContext.block)
      }
      let item = context.items[position]
      position += 1
      return try header(item)
    }

    private func filePiece() throws -> [UInt8]? {
      guard let current = open else { return nil }
      if current.left == 0 {
        open = nil
        return current.padding > 0 ? [UInt8](repeating: 0, count: current.padding) : nil
      }
      var bytes = [UInt8](repeating: 0, count: Int(min(current.left, 131_072)))
      let got = try current.file.withRaw { raw in
        try check("read", current.path) { bytes.withUnsafeMutableBytes { read(raw, $0.baseAddress, $0.count) } }
      }
      // A file that shrank meanwhile: its header has promised more.
      if got > 0 { bytes.removeSubrange(got...) }
      open?.left -= UInt64(bytes.count)
      return bytes
    }

    private func header(_ item: Item) throws -> [UInt8] {
      switch item.kind {
      case .folder: return Tar.header(item.path + "/", item.mode, "5", 0)
      case .link(let target): return Tar.header(item.path, item.mode, "2", 0, link: target)
      case .file:
        guard let context else { return [] }
        let opened = try BuildContext.openFile(item.path, in: context.root)
        let size = opened.size
        let padding = Int((UInt64(BuildContext.block) - size % UInt64(BuildContext.block)) % UInt64(BuildContext.block))
        open = (SharedDescriptor(opened.file), size, padding, item.path)
        return Tar.header(item.path, item.mode, "0", size)
      }
    }
  }
}

/// Headers of tar archives.
enum Tar {
  /// One header block, with a pax one before it where a name, a link or a size does not fit.
  static func header(_ path: String, _ mode: UInt32, _ kind: Character, _ size: UInt64, link: String = "") -> [UInt8] {
    var records: [UInt8] = []
    if path.utf8.count > 100 { records += record("path", path) }
    if link.utf8.count > 100 { records += record("linkpath", link) }
    if size >= 1 << 33 { records += record("size", String(size)) }
    var result: [UInt8] = []
    if !records.isEmpty {
      result += block("pax", 0o644, "x", UInt64(records.count), "")
      result += records
      result += [UInt8](repeating: 0, count: (512 - records.count % 512) % 512)
    }
    return result + block(path, mode, kind, size >= 1 << 33 ? 0 : size, link)
  }

  /// `LENGTH key=value\n`, the length counting itself.
  private static func record(_ key: String, _ value: String) -> [UInt8] {
    let rest = " \(key)=\(value)\n"
    var length = rest.utf8.count + 1
    while String(length).utf8.count + rest.utf8.count != length { length = String(length).utf8.count + rest.utf8.count }
    return Array("\(length)\(rest)".utf8)
  }

  private static func block(_ path: String, _ mode: UInt32, _ kind: Character, _ size: UInt64, _ link: String)
    -> [UInt8]
  {
    var block = [UInt8](repeating: 0, count: 512)
    func put(_ text: String, _ offset: Int, _ room: Int) {
      for (index, byte) in text.utf8.prefix(room).enumerated() { block[offset + index] = byte }
    }
    func octal(_ value: UInt64, _ width: Int) -> String {
      let digits = String(value, radix: 8)
      return String(repeating: "0", count: max(0, width - digits.count)) + digits
    }
    put(path, 0, 100)
    put(octal(UInt64(mode), 7), 100, 7)
    put(octal(0, 7), 108, 7)
    put(octal(0, 7), 116, 7)
    put(octal(size, 11), 124, 11)
    put(octal(0, 11), 136, 11)
    put("        ", 148, 8)
    put(String(kind), 156, 1)
    put(link, 157, 100)
    put("ustar", 257, 5)
    put("00", 263, 2)
    let sum = block.reduce(UInt64(0)) { $0 + UInt64($1) }
    put(octal(sum, 6), 148, 6)
    block[154] = 0
    return block
  }
}

/// A `.dockerignore`: patterns with `*`, `?` and `**`; `!` takes back; the last that matches decides.
struct IgnoreList {
  private var patterns: [(parts: [[Character]], takesBack: Bool)] = []
  var hasExceptions: Bool { patterns.contains(where: \.takesBack) }

  init(_ text: String, keeping dockerfile: String) {
    for line in text.split(separator: "\n") {
      var pattern = line.trimmed
      guard !pattern.isEmpty, !pattern.hasPrefix("#") else { continue }
      let takesBack = pattern.hasPrefix("!")
      if takesBack { pattern = pattern.dropFirst().trimmed }
      let parts = pattern.split(separator: "/").filter { $0 != "." }.map(Array.init)
      if !parts.isEmpty { patterns.append((parts, takesBack)) }
    }
    if !patterns.isEmpty { patterns.append((dockerfile.split(separator: "/").map(Array.init), true)) }
  }

  /// Whether a path is left out; what lies below one that is left out is left out too.
  func covers(_ path: String) -> Bool {
    let parts = path.split(separator: "/").map(Array.init)
    var covered = false
    for pattern in patterns {
      let matches = (1...parts.count).contains { Self.match(pattern.parts[...], parts.prefix($0)) }
      if matches { covered = !pattern.takesBack }
    }
    return covered
  }

  private static func match(_ pattern: ArraySlice<[Character]>, _ path: ArraySlice<[Character]>) -> Bool {
    spans(pattern, path, isGap: { $0 == ["*", "*"] }) { glob($0[...], $1[...]) }
  }

  private static func glob(_ pattern: ArraySlice<Character>, _ text: ArraySlice<Character>) -> Bool {
    spans(pattern, text, isGap: { $0 == "*" }) { $0 == "?" || $0 == $1 }
  }

  /// Whether `pattern`, whose gaps stand for any number of items, describes all of `items`. Going back to the last gap alone is
  /// enough, so no pattern takes longer than the product of the two lengths.
  private static func spans<Item>(
    _ pattern: ArraySlice<Item>, _ items: ArraySlice<Item>, isGap: (Item) -> Bool, matches: (Item, Item) -> Bool
  ) -> Bool {
    var at = pattern.startIndex
    var item = items.startIndex
    var gap: (pattern: Int, item: Int)?
    while item < items.endIndex {
      if at < pattern.endIndex, isGap(pattern[at]) {
        gap = (at, item)
        at += 1
      } else if at < pattern.endIndex, matches(pattern[at], items[item]) {
        at += 1
        item += 1
      } else if let last = gap {
        gap = (last.pattern, last.item + 1)
        at = last.pattern + 1
        item = last.item + 1
      } else {
        return false
      }
    }
    return pattern[at...].allSatisfy(isGap)
  }
}

extension Substring {
  fileprivate var trimmed: Substring {
    var result = drop { $0.isWhitespace }
    while let last = result.last, last.isWhitespace { result = result.dropLast() }
    return result
  }
}
