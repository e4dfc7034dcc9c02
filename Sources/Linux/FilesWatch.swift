internal import CLinux
internal import Glibc

/// Tells which files of some folders are whole again after somebody wrote them (inotify(7)): a descriptor that becomes readable, and
/// what it has told.
///
/// A file counts as half-written from its first change until whoever writes closes it, or puts another in its place by a rename.
package struct FilesWatch: ~Copyable {
  private let descriptor: Descriptor
  /// Folders by watch number.
  private var folders: [Int32: String] = [:]
  /// Paths somebody is writing.
  package private(set) var unfinished: Set<String> = []

  package init(_ paths: Set<String>) throws(SystemFault) {
    let made = Descriptor(owning: try check("inotify_init1") { inotify_init1(Int32(CL_IN_FLAGS)) })
    var found: [Int32: String] = [:]
    for path in paths {
      let number = try made.withRaw { (raw) throws(SystemFault) in
        try check("inotify_add_watch", path) { inotify_add_watch(raw, path, UInt32(CL_IN_FILES)) }
      }
      found[number] = path
    }
    descriptor = made
    folders = found
  }

  /// Becomes readable when there is something to `take`.
  package borrowing func withRaw<Result: ~Copyable, Failure: Error>(_ body: (Int32) throws(Failure) -> Result)
    throws(Failure) -> Result
  { try descriptor.withRaw(body) }

  /// Paths of files that were changed, made or removed and are whole now, and folders that are gone. So much was told that some of
  /// it was lost: `overflow`, and anything may have changed.
  package mutating func take() -> (whole: Set<String>, gone: Set<String>, overflow: Bool) {
    var whole: Set<String> = []
    var gone: Set<String> = []
    var overflow = false
    var bytes = [UInt8](repeating: 0, count: 65_536)
    while true {
      let got = descriptor.withRaw { raw in bytes.withUnsafeMutableBytes { read(raw, $0.baseAddress, $0.count) } }
      guard got > 0 else { break }
      var place = 0
      // struct inotify_event: int wd; uint32_t mask, cookie, len; char name[len].
      while place + 16 <= got {
        func word(_ offset: Int) -> UInt32 {
          bytes.withUnsafeBytes { $0.loadUnaligned(fromByteOffset: place + offset, as: UInt32.self) }
        }
        let mask = word(4)
        let length = Int(word(12))
        let name = bytes[(place + 16)..<min(place + 16 + length, got)].prefix { $0 != 0 }
        note(Int32(bitPattern: word(0)), mask, String(decoding: name, as: UTF8.self), &whole, &gone, &overflow)
        place += 16 + length
      }
    }
    return (whole, gone, overflow)
  }

  private mutating func note(
    _ number: Int32, _ mask: UInt32, _ name: String, _ whole: inout Set<String>, _ gone: inout Set<String>,
    _ overflow: inout Bool
  ) {
    func has(_ flag: Int32) -> Bool { mask & UInt32(bitPattern: flag) != 0 }
    if has(Int32(IN_Q_OVERFLOW)) {
      overflow = true
      unfinished = []
      return
    }
    guard let folder = folders[number] else { return }
    if has(Int32(IN_DELETE_SELF)) || has(Int32(IN_MOVE_SELF)) || has(Int32(IN_IGNORED)) {
      folders[number] = nil
      gone.insert(folder)
      return
    }
    let path = "\(folder)/\(name)"
    if has(Int32(IN_CLOSE_WRITE)) || has(Int32(IN_MOVED_TO)) || has(Int32(IN_MOVED_FROM)) || has(Int32(IN_DELETE)) {
      unfinished.remove(path)
      whole.insert(path)
    } else if has(Int32(IN_MODIFY)) || has(Int32(IN_CREATE)) {
      unfinished.insert(path)
    }
  }
}
