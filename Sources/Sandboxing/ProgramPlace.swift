internal import Linux
package import Model

/// Why a native app's program cannot be run; the text is for the user.
package enum ProgramProblem: Error, Sendable, Equatable, CustomStringConvertible {
  case none
  case missing(String)
  case notAFile(String)
  case notExecutable(String)
  case badRoot(String, reason: String)
  case escapes(String)

  package var description: String {
    switch self {
    case .none: "the policy names no entry to run"
    case .missing(let path): "the program \(path) does not exist"
    case .notAFile(let path): "\(path) is not a file that can be run"
    case .notExecutable(let path): "\(path) is not executable: set its mode with chmod +x"
    case .badRoot(let path, let reason): "the rootfs \(path) cannot be used: \(reason)"
    case .escapes(let path): "the program \(path) must lie beside or below the policy file, without .."
    }
  }
}

/// Where an app's program is on the host and where the app sees it.
package struct ProgramPlace: Sendable, Equatable {
  package enum Holder: Sendable, Equatable {
    /// Below the host's /usr, at this path in it.
    case system(relative: String)
    /// Alone: bound at `inside`.
    case alone(source: String)
    /// In a mount of the policy: its target, and the path in it.
    case mount(target: String, relative: String)
    /// In the app's image, which is looked into when it is mounted.
    case image
    /// In the rootfs: the name at its top, and the path below.
    case rootfs(top: String, relative: String)
  }
  package var holder: Holder
  /// Its path as the app sees it.
  package var inside: String

  /// Looks it up on the host; what runs later is pinned by the shim, so a change in between is no danger, only a failure.
  package init(_ policy: Policy) throws(ProgramProblem) {
    guard let entry = policy.entry.first, !entry.isEmpty else { throw .none }
    if policy.image != nil {
      self = try Self.inImage(entry, policy)
    } else if let rootfs = policy.rootfs {
      self = try Self.inRoot(rootfs, entry)
    } else if entry.hasPrefix("/") {
      self = try Self.absolute(entry, policy)
    } else {
      self = try Self.relative(entry, policy)
    }
  }

  private init(_ holder: Holder, inside: String) {
    self.holder = holder
    self.inside = inside
  }

  private static func inImage(_ entry: String, _ policy: Policy) throws(ProgramProblem) -> ProgramPlace {
    try inMount(entry, policy) ?? ProgramPlace(.image, inside: entry)
  }

  /// The deepest mount it lies in, if any: there it is what the app sees, whatever the host or the image has at that path.
  private static func inMount(_ entry: String, _ policy: Policy) throws(ProgramProblem) -> ProgramPlace? {
    let holding = policy.mounts.filter { entry.hasPrefix($0.target + "/") }.max { $0.target.count < $1.target.count }
    guard let holding else { return nil }
    let relative = String(entry.dropFirst(holding.target.count + 1))
    if case .bind(let source) = holding.kind { try check("\(source)/\(relative)", shown: entry) }
    return ProgramPlace(.mount(target: holding.target, relative: relative), inside: entry)
  }

  private static func absolute(_ entry: String, _ policy: Policy) throws(ProgramProblem) -> ProgramPlace {
    if let mounted = try inMount(entry, policy) { return mounted }
    guard let real = try? Place.resolve(entry) else { throw .missing(entry) }
    try check(real, shown: entry)
    let system = ["/usr/", "/bin/", "/sbin/", "/lib/", "/lib64/"].contains { entry.hasPrefix($0) }
    if system, real.hasPrefix("/usr/") {
      return ProgramPlace(.system(relative: String(real.dropFirst(5))), inside: entry)
    }
    return ProgramPlace(.alone(source: real), inside: system ? real : entry)
  }

  private static func relative(_ entry: String, _ policy: Policy) throws(ProgramProblem) -> ProgramPlace {
    let parts = entry.split(separator: "/").filter { $0 != "." }
    guard !parts.contains(".."), !parts.isEmpty else { throw .escapes(entry) }
    let path = parts.joined(separator: "/")
    let beside = "\(policy.baseFolder)/\(path)"
    if let real = try? Place.resolve(beside) {
      try check(real, shown: beside)
      return ProgramPlace(.alone(source: real), inside: "/app/\(path)")
    }
    // A bare name that is not beside the policy is looked for where the app itself would find it.
    guard !entry.contains("/") else { throw .missing(beside) }
    for folder in ["/usr/local/bin", "/usr/bin", "/usr/sbin"] where File.exists("\(folder)/\(entry)") {
      return try absolute("\(folder)/\(entry)", policy)
    }
    throw .missing(entry)
  }

  private static func inRoot(_ rootfs: String, _ entry: String) throws(ProgramProblem) -> ProgramPlace {
    let root: String
    do throws(SystemFault) {
      root = try Place.resolve(rootfs)
      guard try Place.kind(root) == .folder else { throw SystemFault(call: "open", subject: rootfs, code: 20) }
    } catch { throw .badRoot(rootfs, reason: error.reason) }
    let path = entry.hasPrefix("/") ? entry : "/\(entry)"
    let resolved = try? Place.resolve(path, inRoot: root)
    guard let resolved else { throw .missing("\(path) in \(rootfs)") }
    try check(root + resolved, shown: "\(path) in \(rootfs)")
    let parts = resolved.split(separator: "/", maxSplits: 1)
    guard let top = parts.first else { throw .notAFile(path) }
    return ProgramPlace(
      .rootfs(top: String(top), relative: parts.count > 1 ? String(parts[1]) : ""), inside: path)
  }

  private static func check(_ path: String, shown: String) throws(ProgramProblem) {
    switch try? Place.kind(path) {
    case .program: return
    case .file: throw .notExecutable(shown)
    case .folder, .other: throw .notAFile(shown)
    case nil: throw .missing(shown)
    }
  }
}
