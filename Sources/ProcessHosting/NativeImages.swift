internal import Glibc
internal import ImageStorage
package import Model
internal import Sandboxing

/// Native apps that run from an image of the store: what the image says becomes part of the policy, as an engine would have it.
extension NativeHost {
  /// The id of the image that a policy's app would run from; empty: it runs from none, because it names none, or because it falls back to
  /// a program of the host where its image is not in the store.
  func imageOf(_ policy: Policy) throws(HostFailure) -> StoredImage? {
    guard let source = policy.image else { return nil }
    if let image = images.find(source.reference) { return image }
    let isPinned = source == .reference(source.reference, .never) && source.reference.hasPrefix("sha256:")
    if policy.fallback == .native, !policy.entry.isEmpty, !isPinned { return nil }
    throw HostFailure(
      .missing, "the image \(source.reference) of \(policy.id) is not in the supervisor's own store",
      hint:
        "`supervisor load FILE --into store` unpacks an archive of it; where an engine has it, `supervisor images adopt \(source.reference)` copies it"
    )
  }

  /// What an engine's store shows of a name: here, ours.
  package func present(_ policy: Policy) async -> String? {
    policy.image.flatMap { images.find($0.reference)?.id.description }
  }

  /// The policy that `policy` comes to with what its image says, and without an image where it runs from none.
  func resolved(_ policy: Policy, _ image: StoredImage?) throws(HostFailure) -> Policy {
    var policy = policy
    policy.runtime = .native
    guard let image else {
      policy.image = nil
      return policy
    }
    guard policy.preset != .privileged else {
      throw HostFailure(
        .refused,
        "\(policy.id) cannot run from an image as a privileged native app: an image's root would be the host's",
        hint: "Use sandbox: standard with user: image, or an engine")
    }
    do throws(ImageProblem) {
      let configuration = try images.configuration(image.id)
      let layers = images.layers(image)
      try Self.settleUser(&policy, configuration, layers)
      policy.image = .reference(image.id.description, .never)
      policy.rootfs = nil
      if policy.workingDirectory == nil { policy.workingDirectory = configuration.workingDirectory }
      policy.entry = Self.command(policy, configuration)
      policy.entrypoint = nil
    } catch { throw Self.failure(error) }
    guard !policy.entry.isEmpty else {
      throw HostFailure(
        .refused, "the image of \(policy.id) names no program to run", hint: "Set `entry` in its policy")
    }
    return policy
  }

  /// As the Engine API has it: an entrypoint given in place of the image's takes the image's command away with it.
  static func command(_ policy: Policy, _ image: ImageConfiguration) -> [String] {
    guard let own = policy.entrypoint else {
      return image.entrypoint + (policy.entry.isEmpty ? image.command : policy.entry)
    }
    return own + policy.entry
  }

  private static func settleUser(_ policy: inout Policy, _ configuration: ImageConfiguration, _ layers: [String])
    throws(ImageProblem)
  {
    var home = "/"
    switch policy.user {
    case .auto: break
    case .image:
      let user = try ImageUser(configuration.user, layers: layers)
      policy.user = .given(uid: user.uid, gid: user.gid)
      policy.supplementaryGroups += user.groups.filter { !policy.supplementaryGroups.contains($0) }
      home = user.home
    case .given(let uid, _):
      // best effort: an image without such a user has no home for it.
      home = (try? ImageUser("\(uid)", layers: layers).home) ?? "/"
    }
    var values: [String: Policy.EnvironmentEntry] = [:]
    func set(_ name: String, _ value: String) { values[name] = .init(name: name, value: value) }
    set("HOME", home)
    set("HOSTNAME", LaunchPlan.hostName(policy))
    if policy.terminal { set("TERM", "xterm") }
    for entry in configuration.environment { set(entry.name, entry.value) }
    // The app's own, secrets among them.
    for entry in policy.environment { values[entry.name] = entry }
    policy.environment = values.values.sorted { $0.name < $1.name }
  }

  /// The same for a launch whose image was settled before.
  func resolved(_ launch: Launch) throws(HostFailure) -> Launch {
    var launch = launch
    launch.policy = try resolved(launch.policy, image(launch))
    return launch
  }

  private func image(_ launch: Launch) throws(HostFailure) -> StoredImage? {
    guard !launch.artifact.isEmpty else { return nil }
    guard let image = images.find(launch.artifact) else {
      throw HostFailure(
        .missing, "the image \(launch.artifact) of \(launch.policy.id) is no longer in the supervisor's own store",
        hint: "Load it again with `supervisor load FILE --into store`")
    }
    return image
  }

  /// The root that an image makes, and the folders it declares volumes.
  func imageRoot(_ launch: Launch) throws(HostFailure) -> (root: LaunchPlan.ImageRoot, volumes: [String])? {
    guard let image = try image(launch) else { return nil }
    do throws(ImageProblem) {
      let configuration = try images.configuration(image.id)
      let isWritten = !launch.policy.readOnlyRoot || !configuration.volumes.isEmpty
      let root = LaunchPlan.ImageRoot(
        layers: images.layers(image), idBase: launch.uidBase,
        size: isWritten ? Self.writable : Self.mountPoints)
      return (root, launch.policy.readOnlyRoot ? configuration.volumes : [])
    } catch { throw Self.failure(error) }
  }

  /// What an app may write in a root that is not read-only, and in its image's volumes: it counts as its memory and ends with it.
  private static let writable: UInt64 = 64 << 20
  private static let mountPoints: UInt64 = 4 << 20

  static func failure(_ problem: ImageProblem) -> HostFailure {
    let kind: HostFailure.Kind =
      switch problem {
      case .missing: .missing
      case .inUse: .conflict
      case .failed: .failed
      case .malformed, .refused, .tooMuch: .refused
      }
    return HostFailure(kind, problem.description)
  }
}
