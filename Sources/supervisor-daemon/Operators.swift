internal import Control
internal import Glibc
internal import Linux
internal import Logging
internal import Policies

/// Who may reach the control socket, and what config.yaml lets them do there.
enum Operators {
  /// Its members can connect; what they may do there `operators` says.
  private static let group = "appsupervisor"

  /// The configuration's operators with their names resolved; one that does not exist gets nothing, and is told of.
  static func authority(_ configuration: Configuration, _ log: Logger) -> Authority {
    var grants: [Authority.Grant] = []
    for entry in configuration.operators {
      let who: Authority.Grant.Who?
      let name: String
      switch entry.who {
      case .user(let text):
        name = "user \(text)"
        who = (UInt32(text) ?? getpwnam(text)?.pointee.pw_uid).map { .user($0) }
      case .group(let text):
        name = "group \(text)"
        who = (UInt32(text) ?? getgrnam(text)?.pointee.gr_gid).map { .group($0) }
      }
      if let who {
        grants.append(Authority.Grant(who, entry.role, stacks: entry.stacks))
      } else {
        log.error("operator.unknown", metadata: ["operator": "\(name)", "hint": "make it, and start the daemon again"])
      }
    }
    return Authority(ownUID: geteuid(), grants: grants)
  }

  /// The socket of an instance: root's is open to the group, if there is one (0660, its folder 0750); another's to its user alone.
  static func listen(
    _ path: String, _ name: String, _ configuration: Configuration, _ log: Logger
  ) throws(SystemFault) -> Descriptor {
    let folder = try Folder(opening: path)
    let gid = geteuid() == 0 ? getgrnam(group)?.pointee.gr_gid : nil
    if gid == nil, !configuration.operators.isEmpty {
      log.warning(
        "operators.unreachable",
        metadata: [
          "reason": "there is no group \(group), so nobody but root can connect",
          "hint": "groupadd --system \(group), add them to it, and start the daemon again",
        ])
    }
    try folder.withRaw { (raw) throws(SystemFault) in
      if let gid { try check("chown", path) { fchown(raw, UInt32.max, gid) } }
      try check("chmod", path) { fchmod(raw, gid == nil ? 0o700 : 0o750) }
    }
    return try UnixSocket.listen(folder, name, mode: gid == nil ? 0o600 : 0o660, group: gid)
  }
}
