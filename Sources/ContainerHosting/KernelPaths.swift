internal import Linux
internal import Synchronization

/// Which files this kernel has; asked once each.
enum KernelPaths {
  // Guards: what was found, by path.
  private static let found = Mutex<[String: Bool]>([:])

  static func has(_ path: String) -> Bool {
    found.withLock { found in
      if let known = found[path] { return known }
      let exists = File.exists(path)
      found[path] = exists
      return exists
    }
  }
}
