package import Linux
package import Model
package import Policies
internal import RPC

package typealias Role = Configuration.Operator.Role

/// Who may do what through the control socket: `operators` of config.yaml, by the ids that the kernel vouches for.
package struct Authority: Sendable {
  /// One entry of `operators`, its name resolved.
  package struct Grant: Sendable, Equatable {
    package enum Who: Sendable, Equatable {
      case user(UInt32)
      case group(UInt32)
    }
    package var who: Who
    package var role: Role
    /// Names of stacks, `*` at the end standing for any rest.
    package var stacks: [String]

    package init(_ who: Who, _ role: Role, stacks: [String]) {
      self.who = who
      self.role = role
      self.stacks = stacks
    }
  }

  /// The user the daemon runs as: like root, an admin of everything.
  let ownUID: UInt32
  let grants: [Grant]

  package init(ownUID: UInt32, grants: [Grant]) {
    self.ownUID = ownUID
    self.grants = grants
  }

  package func access(of peer: PeerCredentials) -> Access {
    guard peer.uid != 0, peer.uid != ownUID else { return Access(peer: peer, grants: [("*", .admin)]) }
    let held = grants.filter { grant in
      switch grant.who {
      case .user(let uid): uid == peer.uid
      case .group(let gid): gid == peer.gid || peer.groups.contains(gid)
      }
    }
    return Access(peer: peer, grants: held.flatMap { grant in grant.stacks.map { ($0, grant.role) } })
  }
}

/// What one caller may do.
package struct Access: Sendable {
  package let peer: PeerCredentials
  private let grants: [(stacks: String, role: Role)]

  init(peer: PeerCredentials, grants: [(String, Role)]) {
    self.peer = peer
    self.grants = grants
  }

  /// The highest role in a stack; nil: its apps are not to be seen.
  package func role(in stack: String) -> Role? { grants.filter { Self.matches($0.stacks, stack) }.map(\.role).max() }

  /// The highest role in any stack.
  package var best: Role? { grants.map(\.role).max() }

  /// The role in every stack there is.
  package var everywhere: Role? { grants.filter { $0.stacks == "*" }.map(\.role).max() }

  /// Whether an id, volume or network of this name can be hers alone: names are the instance's, and may have belonged to another
  /// stack before. One who may not change every stack is kept to names that begin with the name of one of hers.
  package func owns(_ name: String) -> Bool {
    grants.contains { grant in
      guard grant.role >= .owner else { return false }
      if Self.matches(grant.stacks, name) { return true }
      let base = grant.stacks.hasSuffix("*") ? String(grant.stacks.dropLast()) : grant.stacks
      return ["-", "_", ".", "/", ":"].contains { name.hasPrefix(base + $0) }
    }
  }

  /// Whose rights the files she names are opened with; nil: an admin of everything, who has the daemon's.
  package var loader: Policy.Loader? {
    everywhere == .admin ? nil : Policy.Loader(uid: peer.uid, gid: peer.gid, groups: peer.groups)
  }

  private static func matches(_ pattern: String, _ name: String) -> Bool {
    // Byte by byte: texts that Swift holds to be equal may be different names.
    let name = name.utf8
    return pattern.utf8.last == UInt8(ascii: "*")
      ? name.starts(with: pattern.utf8.dropLast()) : name.elementsEqual(pattern.utf8)
  }

  /// Says that `what` needs `role`.
  func denied(_ what: String, _ role: Role, in stack: String? = nil) -> RPCFailure {
    let place = stack.map { " in the stack '\($0)'" } ?? ""
    let has = (stack.map { self.role(in: $0) } ?? best).map { "is \($0.rawValue)" } ?? "has no role"
    return RPCFailure(
      .denied, "uid \(peer.uid) \(has)\(place): \(what) needs \(role.rawValue)",
      hint:
        "an admin lists operators in the daemon's config.yaml: {user: NAME, role: \(role.rawValue), stacks: [\(stack ?? "'*'")]}"
    )
  }
}

/// What an owner may not ask for in a policy, because it would give the app, and so her, more than her own stacks.
func checkOwned(_ policy: Policy, _ access: Access) throws(RPCFailure) {
  guard access.role(in: policy.stack) != .admin else { return }
  func needsAdmin(_ what: String) -> RPCFailure { access.denied("\(policy.id): \(what)", .admin, in: policy.stack) }
  if policy.preset == .privileged { throw needsAdmin("sandbox: privileged") }
  if policy.network.mode == .host { throw needsAdmin("network_mode: host") }
  if !policy.devices.isEmpty { throw needsAdmin("devices") }
  if !policy.capabilities.add.isEmpty { throw needsAdmin("cap_add") }
  if policy.securityOptions.contains(where: { $0 != "no-new-privileges=true" }) { throw needsAdmin("security_opt") }
  // A container's groups are the host's: with a folder that she may list, they would read there what she may not.
  let strange = policy.supplementaryGroups.filter { $0 != access.peer.gid && !access.peer.groups.contains($0) }
  if policy.runtime == .container, let group = strange.first {
    throw needsAdmin("group_add: \(group), not one of hers,")
  }
  if policy.enforcement == .degrade { throw needsAdmin("enforcement: degrade") }
  let reads = policy.mounts.contains { if case .bind = $0.kind { true } else { false } }
  if reads, policy.runtime == .container, policy.user != .auto {
    throw needsAdmin("a folder of the host together with user: \(policy.user == .image ? "image" : "UID")")
  }
}

/// Names in a policy that may be another stack's.
func checkNames(_ policy: Policy, _ access: Access) throws(RPCFailure) {
  guard access.everywhere.map({ $0 < .owner }) ?? true else { return }
  var names = [("id", policy.id.name)]
  for mount in policy.mounts {
    guard case .volume(let name, let external) = mount.kind else { continue }
    if external { throw access.denied("\(policy.id): an external volume", .admin) }
    names.append(("volume", name))
  }
  for network in policy.network.attachments { names.append(("network", network.network)) }
  if case .build(_, _, _, let tag) = policy.image, tag != "appsupervisor/\(policy.id.name):built" {
    names.append(("image that is built", tag))
  }
  for permission in policy.permissions.granted { try checkReach(permission, of: policy.id, access) }
  for (kind, name) in names where !access.owns(name) {
    throw RPCFailure(
      .denied, "\(policy.id): the \(kind) '\(name)' may be another stack's",
      hint: "one who does not own every stack uses names that begin with her stack's, such as \(policy.stack)-\(name)")
  }
}

/// What an app may do to apps of stacks that may be another's.
func checkReach(_ permission: Permission, of app: AppID, _ access: Access) throws(RPCFailure) {
  guard permission.right.scope == .app, access.everywhere.map({ $0 < .owner }) ?? true,
    !access.owns(permission.scope ?? "*")
  else { return }
  throw RPCFailure(
    .denied, "\(app): \(permission) reaches apps that may be another stack's",
    hint: "one who does not own every stack narrows it to names that begin with her stack's")
}
