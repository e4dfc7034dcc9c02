internal import Glibc
internal import Linux
internal import Model

/// What one run's /etc/hosts says.
struct HostsFile {
  struct Neighbour {
    var address: IPv4
    var names: [String]
  }

  var hostName: String
  var own: IPv4?
  var extra: [(name: String, address: String)] = []
  /// On networks that both name.
  var neighbours: [Neighbour] = []
  /// Of the names it may connect to.
  var resolved: [String: [IPv4]] = [:]

  var text: String {
    var lines = ["127.0.0.1 localhost", "::1 localhost", "\(own.map(\.description) ?? "127.0.1.1") \(hostName)"]
    lines += extra.map { "\($0.address) \($0.name)" }
    lines += neighbours.map { "\($0.address) \($0.names.joined(separator: " "))" }
    for (name, addresses) in resolved.sorted(by: { $0.key < $1.key }) { lines += addresses.map { "\($0) \(name)" } }
    return lines.joined(separator: "\n") + "\n"
  }

  /// Writes it where it lies: the file is bound into apps, which a new one in its place would not reach.
  static func write(_ text: String, to path: String) throws(SystemFault) {
    let file = Descriptor(
      owning: try check("open", path) { open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0o644) })
    try file.withRaw { (raw) throws(SystemFault) in
      var copy = text
      let written = try check("write", path) { copy.withUTF8 { pwrite(raw, $0.baseAddress, $0.count, 0) } }
      try check("ftruncate", path) { ftruncate(raw, off_t(written)) }
      try check("fchmod", path) { fchmod(raw, 0o644) }
    }
  }
}
