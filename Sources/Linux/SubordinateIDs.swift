internal import Glibc

/// Ids that an ordinary user may use inside of user namespaces besides the own one (subuid(5)).
package enum SubordinateIDs {
  /// The first range given to the user this process runs as, in /etc/subuid; nil: none.
  package static func own() -> (first: UInt32, count: UInt32)? {
    // best effort: without the file nobody has any.
    guard let text = try? File.text("/etc/subuid") else { return nil }
    let names = [String(getuid()), getpwuid(getuid()).map { String(cString: $0.pointee.pw_name) }]
    return range(of: names.compactMap { $0 }, in: text)
  }

  static func range(of names: [String], in text: String) -> (first: UInt32, count: UInt32)? {
    for line in text.split(separator: "\n") {
      let fields = line.split(separator: ":", omittingEmptySubsequences: false)
      guard fields.count == 3, names.contains(String(fields[0])), let first = UInt32(fields[1]),
        let count = UInt32(fields[2]), count > 0
      else { continue }
      return (first, count)
    }
    return nil
  }
}
