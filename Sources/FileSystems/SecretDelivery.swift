internal import Glibc
internal import Linux
package import Model
internal import Synchronization

/// How one start of an app gets its secrets: files in memory that is never swapped, mounted below `run/secrets` of the instance just
/// as long as it takes to be bound into the app. What the app holds then is the only way to them.
package struct SecretDelivery: Sendable {
  private let layout: InstanceLayout
  private let policy: Policy
  private let uidBase: UInt32
  /// Where the files are made visible for the runtime.
  package let folder: String

  /// `runtime` and `run` tell one delivery from all others; `uidBase` is the first of the app's ids as its runtime counts.
  package init(_ layout: InstanceLayout, _ policy: Policy, _ runtime: Runtime, run: String, uidBase: UInt32) {
    self.layout = layout
    self.policy = policy
    self.uidBase = uidBase
    folder = Self.place(layout, runtime, run)
  }

  private static func place(_ layout: InstanceLayout, _ runtime: Runtime, _ run: String) -> String {
    "\(layout.run)/secrets/\(runtime)/\(run)"
  }

  /// Reads every secret once and forgets it: that all can be had is known before anything is made.
  package static func check(_ policy: Policy, _ layout: InstanceLayout) throws(SecretProblem) {
    for secret in policy.allSecrets {
      let bytes = try SecretSource.read(secret, layout, policy.loader)
      for entry in policy.environment where entry.secret == secret.name { _ = try value(bytes, secret.name) }
    }
    guard policy.hasSecretFiles, geteuid() != 0 else { return }
    throw .notDelivered(reason: "this instance is an ordinary user's, and memory can only be mounted by root")
  }

  /// Mounts the files at `folder`, in place of what an earlier try left there, remembers what they were, and returns the variables that
  /// take theirs from secrets. Blocks on the disk.
  package func deliver() throws(SecretProblem) -> [(name: String, value: String)] {
    var contents: [String: [UInt8]] = [:]
    for secret in policy.allSecrets { contents[secret.name] = try SecretSource.read(secret, layout, policy.loader) }
    var variables: [(name: String, value: String)] = []
    for entry in policy.environment {
      guard let name = entry.secret, let bytes = contents[name] else { continue }
      variables.append((entry.name, try Self.value(bytes, name)))
    }
    do throws(SystemFault) {
      if policy.hasSecretFiles { try mount(contents) }
      try SecretMemory(layout).remember(policy.id, contents)
    } catch {
      takeBack()
      throw .notDelivered(reason: error.description)
    }
    return variables
  }

  /// Only what a program can be given as a variable; a final newline, which editors write, is not part of it.
  private static func value(_ bytes: [UInt8], _ name: String) throws(SecretProblem) -> String {
    let bytes = bytes.last == UInt8(ascii: "\n") ? bytes.dropLast() : bytes[...]
    guard !bytes.contains(0), bytes.count < 131_072 - 256, let text = String(validating: bytes, as: UTF8.self) else {
      throw .notText(name: name)
    }
    return text
  }

  private func mount(_ contents: [String: [UInt8]]) throws(SystemFault) {
    takeBack()
    let size = policy.secrets.reduce(1 << 16) { $0 + (contents[$1.name]?.count ?? 0) + 8192 }
    let options = [
      ("size", String(size)), ("nr_inodes", String(policy.secrets.count + 8)), ("mode", "755"),
    ]
    var flag: String? = "noswap"
    let memory = try Self.memory(options, &flag)
    try memory.withRaw { (root) throws(SystemFault) in
      // The descriptor of a mount is a place; a folder to make files in is its root opened again.
      for secret in policy.secrets {
        guard let target = secret.target, let bytes = contents[secret.name] else { continue }
        let file = try Place.makeEmptyFile(target, in: root)
        try file.withRaw { (raw) throws(SystemFault) in
          try writeAll(raw, bytes[...], target)
          try Linux.check("fchown", target) { fchown(raw, owner(secret).uid, owner(secret).gid) }
          try Linux.check("fchmod", target) { fchmod(raw, mode(secret)) }
        }
      }
    }
    // Both: no bind of it can be made writable again, and the app is shown that it is not.
    try memory.seal(flag, folder)
    try memory.restrict(.readOnly, folder)
    try MountTable.hang(memory, at: folder)
  }

  /// Kernels before 6.4 cannot keep one tmpfs out of swap; there it is ramfs, which never goes there.
  private static func memory(_ options: [(String, String?)], _ flag: inout String?) throws(SystemFault) -> DetachedMount
  {
    let rules: MountRules = [.noSetuid, .noDevices, .noExecution]
    do throws(SystemFault) {
      return try DetachedMount(new: "tmpfs", options + [("noswap", nil)], rules)
    } catch  where error.code == EINVAL {
      flag = nil
      return try DetachedMount(new: "ramfs", [("mode", "755")], rules)
    }
  }

  private func owner(_ secret: Secret) -> (uid: UInt32, gid: UInt32) {
    // Where the app has a block of ids of its own, its numbers are counted within it.
    let hasBlock =
      switch (policy.user, policy.runtime) {
      case (.auto, _): true
      case (_, .container): false
      case (_, .native), (_, .wasm): policy.preset != .privileged
      }
    let own: (uid: UInt32, gid: UInt32) =
      switch policy.user {
      case .auto: (1000, 1000)
      case .image: (0, 0)
      case .given(let uid, let gid): (uid, gid)
      }
    let base = hasBlock ? uidBase : 0
    return (base &+ (secret.uid ?? own.uid), base &+ (secret.gid ?? own.gid))
  }

  private func mode(_ secret: Secret) -> UInt32 { secret.mode ?? (policy.user == .image ? 0o444 : 0o400) }

  /// Whether the files are there for a runtime to bind.
  package var isVisible: Bool { MountTable.isMounted(folder) }

  /// Takes the files away from the host's view; an app that was started keeps its own. Safe to repeat.
  package func takeBack() { MountTable.unpin(folder) }

  /// The same where no more is known of it than its name.
  package static func takeBack(_ layout: InstanceLayout, _ runtime: Runtime, run: String) {
    MountTable.unpin(place(layout, runtime, run))
  }

  /// Takes back what earlier daemons left, but for the runs named.
  package static func sweep(_ layout: InstanceLayout, _ runtime: Runtime, keeping runs: Set<String>) {
    // best effort: there is none, or nothing was delivered.
    guard let names = try? Folder(opening: "\(layout.run)/secrets/\(runtime)").names() else { return }
    for name in names where !runs.contains(name) { MountTable.unpin(place(layout, runtime, name)) }
  }
}

/// What each app was given last, as digests under a key of the instance's own.
package struct SecretMemory: Sendable {
  private let layout: InstanceLayout

  package init(_ layout: InstanceLayout) { self.layout = layout }

  private var folder: String { "\(layout.state)/secrets" }

  /// Guards: the making of the key, which must not be made twice.
  private static let making = Mutex(())

  private func digest() throws(SystemFault) -> KeyedDigest {
    let made = Self.making.withLock { _ in Result { () throws(SystemFault) in try key() } }
    return try made.get()
  }

  private func key() throws(SystemFault) -> KeyedDigest {
    let place = try Folder(making: folder, mode: 0o700)
    if let key = try? place.read(".key", limit: 32), key.count == 32 { return KeyedDigest(key: key) }
    var random = SystemRandomNumberGenerator()
    let key = (0..<32).map { _ in UInt8.random(in: .min ... .max, using: &random) }
    try place.replace(".key", with: key, mode: 0o600)
    return KeyedDigest(key: key)
  }

  func remember(_ app: AppID, _ contents: [String: [UInt8]]) throws(SystemFault) {
    let digest = try digest()
    let lines = contents.sorted { $0.key < $1.key }.map { name, bytes in
      "\(name) \(digest.text(of: Array(name.utf8) + [0] + bytes))\n"
    }
    try Folder(making: folder, mode: 0o700).replace(app.name, with: Array(lines.joined().utf8), mode: 0o600)
  }

  /// Forgets an app that was taken down.
  package func forget(_ app: AppID) {
    // best effort: a digest that stays says nothing to anybody, and is replaced by the next start.
    try? Folder(opening: folder).remove(app.name)
  }

  /// The names of secrets whose content is not what the app was given at its last start; none where nothing is known, or where a
  /// secret cannot be read now (starting says why).
  package func changed(_ policy: Policy) -> [String] {
    guard !policy.allSecrets.isEmpty, let place = try? Folder(opening: folder),
      let known = try? place.read(policy.id.name, limit: 65_536), let digest = try? digest()
    else { return [] }
    var last: [String: String] = [:]
    for line in String(decoding: known, as: UTF8.self).split(separator: "\n") {
      let parts = line.split(separator: " ")
      if parts.count == 2 { last[String(parts[0])] = String(parts[1]) }
    }
    return policy.allSecrets.compactMap { secret in
      guard let before = last[secret.name], let bytes = try? SecretSource.read(secret, layout, policy.loader) else {
        return nil
      }
      return before == digest.text(of: Array(secret.name.utf8) + [0] + bytes) ? nil : secret.name
    }
  }
}
