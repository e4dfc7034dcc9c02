internal import CLinux
internal import Glibc

/// What can be asked of, and done to, something open, beyond what the C library says in Swift.
package enum OpenFile {
  /// The number of the mount it lies in, as in /proc/PID/mountinfo.
  package static func mount(_ raw: Int32) throws(SystemFault) -> UInt64 {
    UInt64(try checkShim("statx") { cl_mount_id(raw) })
  }

  /// What kind of file system it lies in, as statfs(2) says.
  package static func fileSystem(_ raw: Int32) throws(SystemFault) -> Int64 {
    var kind: Int64 = 0
    try checkShim("fstatfs") { cl_file_system(raw, &kind) }
    return kind
  }

  /// Opens what a place (O_PATH) stands for, and nothing else: no path is resolved again.
  package static func reopen(_ raw: Int32, _ flags: Int32, _ subject: String) throws(SystemFault) -> Descriptor {
    Descriptor(
      owning: try check("open", subject) { open("/proc/self/fd/\(raw)", flags | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) })
  }

  /// Makes `to` share what `from` holds (ioctl FICLONE); EOPNOTSUPP, EXDEV or EINVAL where that cannot be.
  package static func share(_ from: Int32, _ to: Int32) throws(SystemFault) {
    try checkShim("ioctl", "FICLONE") { cl_reflink(from, to) }
  }

  /// The part with data at or after `offset`; nil: nothing but a hole is left.
  package static func data(_ raw: Int32, from offset: Int64) throws(SystemFault) -> Range<Int64>? {
    do throws(SystemFault) {
      let start = try checkShim("lseek") { cl_next_data(raw, offset) }
      return start..<max(start, try checkShim("lseek") { cl_next_hole(raw, start) })
    } catch  where error.code == ENXIO { return nil }
  }

  /// Copies at most so many bytes at one place of both files, in the kernel; how many. 0: the end.
  package static func copy(_ from: Int32, _ to: Int32, at offset: Int64, _ count: Int) throws(SystemFault) -> Int {
    var place = offset
    do throws(SystemFault) {
      return try checkShim("copy_file_range") { cl_copy_range(from, to, &place, count) }
    } catch  where error.code == EXDEV || error.code == EINVAL || error.code == EOPNOTSUPP || error.code == ENOSYS {
      var chunk = [UInt8](repeating: 0, count: min(count, 1 << 20))
      let got = try check("pread") { pread(from, &chunk, chunk.count, off_t(offset)) }
      var done = 0
      while done < got {
        done += try check("pwrite") {
          chunk.withUnsafeBytes {
            pwrite(to, $0.baseAddress?.advanced(by: done), got - done, off_t(offset) + off_t(done))
          }
        }
      }
      return got
    }
  }

  /// Gives a name in one open folder to what has another, in place of nothing that is there (EEXIST).
  package static func rename(_ name: String, in folder: Int32, to new: String, in other: Int32) throws(SystemFault) {
    _ = try checkShim("rename", name) { cl_rename_new(folder, name, other, new) }
  }
}

extension UnsafeRawBufferPointer {
  /// Whether a part stands somewhere in these bytes.
  package func holds(_ part: [UInt8]) -> Bool { cl_find(baseAddress, count, part, part.count) >= 0 }
}
