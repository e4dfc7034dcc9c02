internal import Glibc
package import Linux
package import Model

/// Files that are open already: no path is looked at any more, and what may be done was settled when they were opened.
extension AppFiles {
  package enum Origin: String, Sendable {
    case start, current, end
  }

  package static func seek(_ file: SharedDescriptor, _ offset: Int64, from origin: Origin) throws(FileProblem)
    -> JSONValue
  {
    let whence =
      switch origin {
      case .start: SEEK_SET
      case .current: SEEK_CUR
      case .end: SEEK_END
      }
    let place = try system { () throws(SystemFault) in
      try file.withRaw { (raw) throws(SystemFault) in try check("lseek") { lseek(raw, off_t(offset), whence) } }
    }
    return .object(["offset": .integer(Int64(place))])
  }

  package static func readOpen(_ file: SharedDescriptor, at offset: Int64?, _ length: Int, _ subject: String)
    throws(FileProblem) -> JSONValue
  {
    let bytes = try read(file, at: offset, length, subject)
    return answer(bytes, size: nil, isEnd: bytes.count < length)
  }

  package static func writeOpen(_ file: SharedDescriptor, at offset: Int64?, _ bytes: [UInt8], _ subject: String)
    throws(FileProblem) -> JSONValue
  {
    try write(file, bytes, at: offset, subject)
    return .object(["written": .integer(Int64(bytes.count))])
  }

  package static func sync(_ file: SharedDescriptor, _ subject: String) throws(FileProblem) -> JSONValue {
    try system { () throws(SystemFault) in
      try file.withRaw { (raw) throws(SystemFault) in _ = try check("fsync", subject) { fsync(raw) } }
    }
    return .object([:])
  }
}

extension AppFiles {
  /// Begins to tell what happens to a folder or file; what is below folders in it is not told.
  package func watch(_ path: AppPath) throws(FileProblem) -> (watch: PlaceWatch, path: AppPath) {
    let found = try find(path, [.fileRead])
    guard found.isFolder || found.isFile else {
      throw .refused(.invalid, "\(found.path) is a \(found.kind): files and folders are watched", hint: nil)
    }
    let watch = try system { () throws(SystemFault) in
      try found.place.withRaw { (raw) throws(SystemFault) in try PlaceWatch(raw) }
    }
    return (watch, found.path)
  }
}
