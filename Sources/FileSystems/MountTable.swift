package import Model

/// Why an app's mounts cannot be made. The text is for the user.
package enum MountProblem: Error, Sendable, Equatable, CustomStringConvertible {
  case badTarget(String, reason: String)
  case duplicateTarget(String)
  /// A mount point would have to be made inside something an app can change.
  case nested(target: String, inside: String)
  case badSource(String, reason: String)
  /// The source is, holds or lies in something that would give the app more than files.
  case forbiddenSource(String, because: String)
  case missingSource(String)
  /// One of the steps is a link: the app would get something else than what is written.
  case linkedSource(String)
  case externalVolume(String)
  case notMade(String, reason: String)

  package var description: String {
    switch self {
    case .badTarget(let target, let reason): "nothing can be mounted at \(target): \(reason)"
    case .duplicateTarget(let target): "two mounts have the target \(target)"
    case .nested(let target, let inside):
      "\(target) lies in the mount \(inside), whose content an app can change: mount it beside, or into memory"
    case .badSource(let source, let reason): "\(source) cannot be mounted: \(reason)"
    case .forbiddenSource(let source, let because): "\(source) cannot be given to an app: \(because)"
    case .missingSource(let source): "\(source) does not exist: make it first, or use a volume"
    case .linkedSource(let source): "\(source) goes through a symbolic link: write the path it leads to"
    case .externalVolume(let name):
      "the volume \(name) is the engine's own (external), which a native app cannot have: use one of ours"
    case .notMade(let path, let reason): "\(path) could not be made: \(reason)"
    }
  }
}

/// All mounts of one app, parents before children, none of which can reach what it must not.
///
/// What is in it: what the policy names; `/tmp` in memory, unless the policy names it or the app is privileged; for a native
/// app on the standard root also its own `/data` and `/cache`. A container gets no `/data` and `/cache` unasked: many images
/// keep something of their own there.
package struct MountTable: Sendable, Equatable {
  package enum Source: Sendable, Equatable {
    /// A folder or file on the host, absolute.
    case path(String)
    /// A tmpfs with a hard size; nil mode: 1777 for `/tmp`, else 0755 with the owner's ids.
    case memory(size: Bytes, mode: UInt32?)
    /// A volume of the Engine's own, by name.
    case external(String)
  }

  package struct Entry: Sendable, Equatable {
    package var target: String
    package var source: Source
    package var readOnly: Bool
    /// Whose it is: uid and gid of the folder that `prepareSources` makes, and of a tmpfs. Nil: root's.
    package var ownerUID: UInt32?
    /// What the policy names, where the source is a place that it is made visible at (Pins.swift).
    package var named: String?
    /// The mode of the folder that `prepareSources` makes; nil: the source must be there.
    package var making: UInt32?
    /// Of the supervisor's own making, and looked at by nobody.
    package var isOurs = false
    /// As whom the owner of the source is shown; nil: files keep their owners.
    package var mapped: Owner?

    package struct Owner: Sendable, Equatable {
      package var uid: UInt32
      package var gid: UInt32
    }

    package init(
      target: String, source: Source, readOnly: Bool, ownerUID: UInt32? = nil, making: UInt32? = nil
    ) {
      self.target = target
      self.source = source
      self.readOnly = readOnly
      self.ownerUID = ownerUID
      self.making = making
    }
  }

  package var entries: [Entry]
  let layout: InstanceLayout
  let forbidden: [Forbidden]
  /// A native app's own root file system, looked at like a source.
  let rootfs: String?
  /// With whose rights sources that the policy names are opened; nil: the daemon's.
  let loader: Policy.Loader?
  /// Pinned sources keep what set-uid bits and device files in them mean.
  let keepsFileRights: Bool

  /// A host path no app may reach by a mount.
  struct Forbidden: Sendable, Equatable {
    var path: String
    var because: String
  }

  /// Builds and checks the table; touches no file. `pins`: where sources that the policy names are made visible, for a runtime that
  /// opens them by path, some time after they were looked at, and with its own rights. `engineSockets` are refused as sources beside the well-known ones.
  /// `secrets`: where the files for `/run/secrets` are made visible.
  package init(
    _ policy: Policy, _ layout: InstanceLayout, uidBase: UInt32, engineSockets: [String] = [], pins: String? = nil,
    pinsMappedOnly: Bool = false, secrets: String? = nil
  ) throws(MountProblem) {
    self.layout = layout
    forbidden = Self.forbidden(layout, engineSockets)
    rootfs = policy.runtime == .container ? nil : policy.rootfs
    loader = policy.loader
    keepsFileRights = policy.preset == .privileged && policy.loader == nil
    entries = []
    let owner = Self.owner(policy, uidBase)
    for mount in policy.mounts {
      entries.append(try Self.entry(mount, policy, layout, owner, uidBase))
    }
    addDefaults(policy, owner)
    if policy.hasSecretFiles {
      var entry = Entry(target: Secret.folder, source: .path(secrets ?? "\(layout.run)/secrets"), readOnly: true)
      entry.isOurs = true
      entries.append(entry)
    }
    try checkTargets()
    for case .path(let source) in entries.filter({ $0.making == nil && !$0.isOurs }).map(\.source) {
      try checkSource(source)
    }
    if let pins { pinSources(below: pins, mappedOnly: pinsMappedOnly) }
  }

  /// Who owns what is made for an app: nil is root, for an image that says itself who it is.
  private static func owner(_ policy: Policy, _ uidBase: UInt32) -> UInt32? {
    switch (policy.user, policy.runtime) {
    case (.auto, _): uidBase + 1000
    case (.image, _): nil
    case (.given(let uid, _), .container): uid
    // Inside the app's own user namespace.
    case (.given(let uid, _), .native), (.given(let uid, _), .wasm): uid < 65_536 ? uidBase + uid : uid
    }
  }

  private static func entry(
    _ mount: Mount, _ policy: Policy, _ layout: InstanceLayout, _ owner: UInt32?, _ uidBase: UInt32
  )
    throws(MountProblem) -> Entry
  {
    switch mount.kind {
    case .volume(let name, external: true):
      guard policy.runtime == .container else { throw .externalVolume(name) }
      return Entry(target: mount.target, source: .external(name), readOnly: mount.readOnly)
    case .volume(let name, external: false):
      guard isName(name) else {
        throw .badSource(name, reason: "a volume's name is made of letters, digits, . _ and -")
      }
      return Entry(
        target: mount.target, source: .path(layout.volume(name)), readOnly: mount.readOnly, ownerUID: owner,
        making: 0o770)
    case .bind(let source):
      var entry = Entry(target: mount.target, source: .path(source), readOnly: mount.readOnly, ownerUID: owner)
      if mount.mapsOwner {
        let (uid, gid) = policy.ownerOutside(uidBase: uidBase)
        entry.mapped = Entry.Owner(uid: uid, gid: gid)
      }
      return entry
    case .memory(let size, let mode):
      guard size.count > 0 else {
        throw .badTarget(mount.target, reason: "a folder in memory needs a size above 0")
      }
      guard !mount.readOnly else {
        throw .badTarget(mount.target, reason: "a folder in memory that cannot be written would stay empty")
      }
      return Entry(
        target: mount.target, source: .memory(size: size, mode: mode), readOnly: mount.readOnly, ownerUID: owner)
    }
  }

  /// A volume's name is one path component.
  private static func isName(_ name: String) -> Bool {
    guard let first = name.utf8.first, first != UInt8(ascii: "."), first != UInt8(ascii: "-") else { return false }
    return name.utf8.count <= 128
      && name.unicodeScalars.allSatisfy {
        $0.isASCII && ($0.properties.isAlphabetic || ("0"..."9").contains($0) || "._-".unicodeScalars.contains($0))
      }
  }

  private mutating func addDefaults(_ policy: Policy, _ owner: UInt32?) {
    func has(_ target: String) -> Bool { entries.contains { $0.target == target } }
    if policy.runtime != .container, policy.rootfs == nil, policy.image == nil {
      for name in ["data", "cache"] where !has("/\(name)") {
        entries.append(
          Entry(
            target: "/\(name)", source: .path("\(layout.appData(policy.id))/\(name)"), readOnly: false, ownerUID: owner,
            making: 0o700))
      }
    }
    guard !has("/tmp") else { return }
    switch policy.preset {
    case .minimal, .standard:
      let size = Bytes.mebibytes(policy.preset == .minimal ? 16 : 64)
      entries.append(
        Entry(target: "/tmp", source: .memory(size: size, mode: nil), readOnly: false, ownerUID: owner))
    case .privileged: break
    }
  }

  // MARK: Checks

  private mutating func checkTargets() throws(MountProblem) {
    // By components, so that `/a` comes before `/a/b` and before `/a-b`.
    entries.sort { $0.target.split(separator: "/").lexicographicallyPrecedes($1.target.split(separator: "/")) }
    for (index, entry) in entries.enumerated() {
      try Self.checkTarget(entry.target)
      // Places of ours lie in it, which nobody may lay out beforehand.
      if entry.target == "/run", case .memory = entry.source {
      } else if entry.target == "/run" {
        throw .badTarget(entry.target, reason: "the supervisor's own mounts lie in it: mount below it, or memory")
      }
      for other in entries[..<index] {
        guard other.target != entry.target else { throw .duplicateTarget(entry.target) }
        guard Self.isInside(entry.target, other.target) else { continue }
        guard case .memory = other.source else { throw .nested(target: entry.target, inside: other.target) }
      }
    }
  }

  private static func checkTarget(_ target: String) throws(MountProblem) {
    guard isPlain(target) else {
      throw .badTarget(target, reason: "a target is an absolute path without . and ..")
    }
    guard target != "/" else { throw .badTarget(target, reason: "the root is the image's, or the sandbox's own") }
    for reserved in ["/proc", "/sys", "/dev", "/run/supervisor"] where isInsideOrSame(target, reserved) {
      throw .badTarget(target, reason: "\(reserved) is made by the supervisor")
    }
  }

  /// Lexically; `prepareSources` looks at what is really there.
  private func checkSource(_ source: String) throws(MountProblem) {
    guard Self.isPlain(source) else {
      throw .badSource(source, reason: "a source is an absolute path without . and ..")
    }
    guard source != "/" else { throw .forbiddenSource(source, because: "it is the whole host") }
    for place in forbidden where Self.isInsideOrSame(source, place.path) || Self.isInside(place.path, source) {
      throw .forbiddenSource(source, because: place.because)
    }
  }

  private static func forbidden(_ layout: InstanceLayout, _ engineSockets: [String]) -> [Forbidden] {
    var places = engineSockets.map { Forbidden(path: $0, because: "who has the engine's socket has the host") }
    let wellKnown = [
      "docker.sock", "docker", "podman", "containerd", "crio", "buildkit", "libvirt", "dbus/system_bus_socket",
      "systemd/private",
    ]
    for name in wellKnown {
      for run in ["/run", "/var/run"] {
        places.append(Forbidden(path: "\(run)/\(name)", because: "\(run)/\(name) gives whoever has it the host"))
      }
    }
    for (path, what) in [
      (layout.state, "state"), (layout.run, "sockets"), (layout.config, "configuration"), (layout.log, "logs"),
    ] {
      places.append(Forbidden(path: path, because: "the supervisor's own \(what) lie in \(path)"))
    }
    for path in ["/proc", "/sys", "/dev"] {
      places.append(Forbidden(path: path, because: "\(path) is the kernel's"))
    }
    return places
  }

  /// Absolute, with no empty, `.` or `..` step and no NUL.
  static func isPlain(_ path: String) -> Bool {
    guard path.first == "/", path.utf8.count < 4096, !path.utf8.contains(0) else { return false }
    if path == "/" { return true }
    return path.dropFirst().split(separator: "/", omittingEmptySubsequences: false)
      .allSatisfy { !$0.isEmpty && $0 != "." && $0 != ".." }
  }

  static func isInside(_ path: String, _ folder: String) -> Bool { path.hasPrefix(folder + "/") }
  static func isInsideOrSame(_ path: String, _ folder: String) -> Bool { path == folder || isInside(path, folder) }
}
