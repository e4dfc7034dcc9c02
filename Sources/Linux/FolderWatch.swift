internal import CLinux
internal import Glibc

/// Tells when files of one folder are written, made or closed (inotify(7)): a descriptor that becomes readable.
package struct FolderWatch: ~Copyable, Sendable {
  private let descriptor: Descriptor

  package init(_ path: String) throws(SystemFault) {
    let made = Descriptor(owning: try check("inotify_init1") { inotify_init1(Int32(CL_IN_FLAGS)) })
    try made.withRaw { (raw) throws(SystemFault) in
      _ = try check("inotify_add_watch", path) { inotify_add_watch(raw, path, UInt32(CL_IN_CHANGES)) }
    }
    descriptor = made
  }

  package borrowing func withRaw<Result: ~Copyable, Failure: Error>(_ body: (Int32) throws(Failure) -> Result)
    throws(Failure) -> Result
  { try descriptor.withRaw(body) }

  /// Forgets what was told so far.
  package borrowing func drain() {
    var bytes = [UInt8](repeating: 0, count: 16384)
    descriptor.withRaw { raw in while read(raw, &bytes, bytes.count) > 0 {} }
  }
}
