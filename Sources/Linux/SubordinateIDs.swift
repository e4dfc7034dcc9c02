internal import Glibc

/// Ids that an ordinary user may use inside of user namespaces besides the own one (subuid(5), subgid(5)).
package enum SubordinateIDs {
  /// The programs that give them to a namespace: the kernel lets only a privileged one do that (newuidmap(1)).
  package static let programs = (users: "/usr/bin/newuidmap", groups: "/usr/bin/newgidmap")

  /// The first range given to the user this process runs as, in /etc/subuid; nil: none.
  package static func own() -> (first: UInt32, count: UInt32)? { own(in: "/etc/subuid") }

  /// The same of groups, in /etc/subgid.
  package static func ownGroups() -> (first: UInt32, count: UInt32)? { own(in: "/etc/subgid") }

  private static func own(in file: String) -> (first: UInt32, count: UInt32)? {
    // best effort: without the file nobody has any.
    guard let text = try? File.text(file) else { return nil }
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

  /// Gives `count` uids and as many gids, from `first` on, to the user namespace of `pid`, which this user made and which has none yet:
  /// inside, 0 is this user, and from 1 on come those. Waits for both programs.
  package static func give(_ first: UInt32, _ count: UInt32, to pid: Int32) throws(SystemFault) {
    try run([programs.users, "\(pid)", "0", "\(getuid())", "1", "1", "\(first)", "\(count)"])
    try run([programs.groups, "\(pid)", "0", "\(getgid())", "1", "1", "\(first)", "\(count)"])
  }

  private static func run(_ words: [String]) throws(SystemFault) {
    let null = try Place.null()
    let pid = try null.withRaw { (raw) throws(SystemFault) in
      try Children.spawn(words[0], words, descriptors: [raw, raw, raw])
    }
    guard try Children.wait(pid, block: true)?.end == .code(0) else {
      throw SystemFault(call: "execve", subject: words[0], code: EPERM)
    }
  }
}
