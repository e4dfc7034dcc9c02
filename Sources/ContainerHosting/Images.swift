internal import EngineAPI
internal import Model

/// Getting an app's image: what a tag means is settled once, as an image id.
struct Images {
  var engine: Engine
  var progress: @Sendable (WorkProgress) -> Void

  /// The image of a source, fetched or built as its rule says.
  func resolve(_ source: ImageSource, as loader: Policy.Loader? = nil) async throws(HostFailure) -> ImageDetails {
    switch source {
    case .reference(let name, .never):
      guard let image = try await find(name) else {
        throw HostFailure(
          .missing, "the image \(name) is not on this host, and pull_policy is never",
          hint: "Load or build it first, or set pull_policy: missing")
      }
      return image
    case .reference(let name, .missing):
      if let image = try await find(name) { return image }
      return try await pull(name)
    case .reference(let name, .always):
      return try await pull(name)
    case .build(let context, let dockerfile, let arguments, let tag):
      return try await build(context, dockerfile, arguments, tag, loader)
    }
  }

  func find(_ name: String) async throws(HostFailure) -> ImageDetails? {
    do throws(EngineFailure) { return try await engine.inspectImage(name) } catch {
      if case .notFound = error { return nil }
      throw HostFailure(error)
    }
  }

  private func pull(_ name: String) async throws(HostFailure) -> ImageDetails {
    // An id names what is here or nowhere.
    guard !name.hasPrefix("sha256:") else {
      throw HostFailure(.missing, "the image \(name) is not on this host, and an id cannot be pulled")
    }
    let reference = ImageReference(name)
    do throws(EngineFailure) {
      let lines = try await engine.pullImage(reference)
      try await follow(lines)
    } catch {
      throw Self.pullFailure(name, error)
    }
    guard let image = try await find(name) else {
      throw HostFailure(.missing, "the engine says it has pulled \(name), but does not have it")
    }
    return image
  }

  private static func pullFailure(_ name: String, _ failure: EngineFailure) -> HostFailure {
    switch failure {
    case .unreachable, .timedOut, .interrupted: HostFailure(failure)
    case .notFound, .conflict, .refused, .unauthorized, .malformed, .unsupported, .sourceFailed, .cancelled:
      HostFailure(
        .missing, "the image \(name) is not on this host and could not be pulled: \(failure)",
        hint: "Check its name, log in to its registry, or build or load it")
    }
  }

  private func build(
    _ context: String, _ dockerfile: String, _ arguments: [String: String], _ tag: String, _ loader: Policy.Loader?
  ) async throws(HostFailure) -> ImageDetails {
    var spec = BuildSpec(tag: ImageReference(tag))
    spec.dockerfile = dockerfile
    spec.arguments = arguments
    let archive: ByteSource
    do throws(ContextProblem) {
      archive = try await BuildContext.archive(.path(context), keeping: dockerfile, as: loader)
    } catch {
      throw HostFailure(.missing, error.description)
    }
    let built = spec
    try await asked { () throws(EngineFailure) in
      let lines = try await engine.buildImage(built, context: archive)
      try await follow(lines)
    }
    guard let image = try await find(tag) else {
      throw HostFailure(.failed, "the build of \(tag) ended without an image", hint: "Look at the build's output")
    }
    return image
  }

  private func follow(_ lines: ProgressStream) async throws(EngineFailure) {
    for try await line in lines {
      progress(WorkProgress(item: line.item, status: line.status, done: line.done, total: line.total))
    }
  }

  /// What of an image the recipe could not be held to.
  static func check(_ image: ImageDetails, _ policy: Policy, _ settings: ContainerSettings) throws(HostFailure) {
    let folder = policy.workingDirectory ?? image.workingDirectory
    // runc before 1.1.12 resolved it on the host when it named a descriptor (CVE-2024-21626).
    if !folder.isEmpty, let place = madePlace(folder), place != "the root" {
      throw HostFailure(
        .refused, "the working directory \(folder) leads out of the container: it is \(place)",
        hint: "Set working_dir in the policy")
    }
    for path in image.volumes.sorted() {
      guard let place = madePlace(path) else { continue }
      throw HostFailure(
        .refused, "the image declares VOLUME \(path), which is \(place)",
        hint: "Build one without: nothing may be mounted there")
    }
    try checkUser(image, policy, settings)
    for key in policy.labels.keys.sorted() where key.hasPrefix(Label.prefix) {
      throw HostFailure(.refused, "the label \(key) is the supervisor's own", hint: "Use another name")
    }
    for mount in policy.mounts {
      guard case .volume(let name, external: true) = mount.kind, !settings.externalVolumes.contains(name) else {
        continue
      }
      throw HostFailure(
        .refused, "the volume \(name) is the engine's own, and not listed for apps",
        hint: "List it under `external_volumes` in config.yaml, or use a volume of ours")
    }
  }

  /// What of an image's path is not the image's to name, however it is spelt: nil if it is like any other.
  static func madePlace(_ path: String) -> String? {
    let parts = path.split(separator: "/").filter { $0 != "." }
    guard path.hasPrefix("/"), !parts.contains("..") else { return "no absolute path without .." }
    guard let first = parts.first else { return "the root" }
    if ["proc", "sys", "dev"].contains(first) { return "in /\(first), which is the kernel's" }
    return parts.starts(with: ["run", "supervisor"]) ? "in /run/supervisor, which is the supervisor's" : nil
  }

  private static func checkUser(_ image: ImageDetails, _ policy: Policy, _ settings: ContainerSettings)
    throws(HostFailure)
  {
    guard policy.preset != .privileged, !settings.unsafeHostUIDs.contains(policy.id) else { return }
    let hint = "Use `user: auto`, or list \(policy.id) under `unsafe_host_uids` in config.yaml"
    switch policy.user {
    case .auto: return
    case .given(let uid, _):
      guard uid < settings.uidRangeBase else { return }
      throw HostFailure(
        .refused, "user \(uid) is also a user of the host: files it makes in a bind belong to that one", hint: hint)
    case .image:
      let name = image.user.prefix { $0 != ":" }
      guard name.isEmpty || name == "0" || name == "root" else { return }
      let binds = policy.mounts.contains { mount in
        // Root in the container reads what only the host's root may read: nothing that somebody else chose.
        if case .bind = mount.kind { !mount.readOnly || policy.loader != nil } else { false }
      }
      guard binds else { return }
      throw HostFailure(.refused, "the image runs as root, and the policy has a writable bind", hint: hint)
    }
  }
}
