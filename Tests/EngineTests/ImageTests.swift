import EngineAPI
import Glibc
import Linux
import Model
import Testing

@Suite("images on a real engine", .serialized)
struct ImageTests {
  static let labelled = "appsup-test"

  @Test("the test image is listed and inspected; an unknown one is not found", arguments: Rig.present)
  func inspect(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let image = try await engine.inspectImage(Rig.image)
    #expect(image.id.hasPrefix("sha256:") || image.id.count == 64)
    #expect(image.command == ["/bin/sh"] && image.size > 0 && image.operatingSystem == "linux")
    #expect(try await engine.listImages().contains { $0.id.hasSuffix(image.id.suffix(64)) })
    let failed = await failure { _ = try await engine.inspectImage("appsup-test/nothing:9") }
    guard case .notFound(_, let message) = failed else {
      Issue.record("\(String(describing: failed))")
      return
    }
    #expect(message.contains("appsup-test/nothing:9"))
  }

  @Test("a build streams its progress, names its image, and its failure is the stream's error", arguments: Rig.present)
  func build(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let reference = ImageReference("\(Self.labelled)/built-\(rig.rawValue):1")
    var tar = Tar()
    tar.add("Dockerfile", "FROM \(Rig.image)\nARG WORD\nCOPY file /file\nLABEL built=$WORD\nCMD [\"cat\", \"/file\"]\n")
    tar.add("file", "content\n")
    var spec = BuildSpec(tag: reference)
    spec.arguments = ["WORD": "wordword"]
    spec.labels = Rig.labels
    spec.networkMode = "none"
    var made: String?
    var lines = ""
    try await engine.withoutLeftovers {
      for try await line in try await engine.buildImage(spec, context: .bytes(tar.finished)) {
        lines += line.status
        if let id = line.imageID { made = id }
      }
    }
    #expect(lines.lowercased().contains("step 1/"))
    let image = try await engine.inspectImage(reference.description)
    #expect(made.map { image.id.hasSuffix($0.dropFirst(7)) } ?? (rig == .podman))
    #expect(image.labels["built"] == "wordword" && image.command == ["cat", "/file"])
    var broken = Tar()
    broken.add("Dockerfile", "FROM \(Rig.image)\nCOPY missing-file /x\n")
    let failed = await failure {
      for try await _ in try await engine.buildImage(spec, context: .bytes(broken.finished)) {}
    }
    #expect("\(String(describing: failed))".contains("missing-file"))
    let removed = try await engine.removeImage(reference.description, force: true)
    #expect(!removed.untagged.isEmpty || !removed.deleted.isEmpty)
  }

  @Test("images no container uses are pruned by label, others stay", arguments: Rig.present)
  func prune(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let label = "prune-image=\(rig.rawValue)-\(getpid())"
    let reference = ImageReference("\(Self.labelled)/pruned-\(rig.rawValue):1")
    var tar = Tar()
    tar.add("Dockerfile", "FROM \(Rig.image)\nLABEL \(label)\n")
    try await engine.withoutLeftovers {
      for try await _ in try await engine.buildImage(BuildSpec(tag: reference), context: .bytes(tar.finished)) {}
    }
    #expect(try await engine.listImages(.label(label)).count == 1)
    let kept = try await engine.pruneImages(.label(label))
    #expect(kept.deleted.isEmpty && kept.untagged.isEmpty)
    let pruned = try await engine.pruneImages(unnamedOnly: false, .label(label))
    #expect(!pruned.deleted.isEmpty)
    #expect(try await engine.listImages(.label(label)).isEmpty)
    #expect(try await engine.inspectImage(Rig.image).command == ["/bin/sh"])
  }

  @Test("a build is cancelled with its task", arguments: Rig.present)
  func cancelledBuild(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var tar = Tar()
    tar.add("Dockerfile", "FROM \(Rig.image)\nRUN echo building; sleep 20\n")
    let context = tar.finished
    let begun = Signal()
    let task = Task {
      var spec = BuildSpec(tag: ImageReference("\(Self.labelled)/never:1"))
      spec.networkMode = "none"
      for try await _ in try await engine.buildImage(spec, context: .bytes(context)) { await begun.fire() }
    }
    try await within { await begun.wait() }
    task.cancel()
    let result = try await within { await task.result }
    #expect(throws: EngineFailure.cancelled) { try result.get() }
    _ = try await engine.ping()
  }

  @Test("a source that fails, and one that is endless, end the upload", arguments: Rig.present)
  func badSources(_ rig: Rig) async throws {
    struct Torn: Error, CustomStringConvertible { var description: String { "the disk is on fire" } }
    let engine = try await rig.connect()
    let failing = ByteSource { throw Torn() }
    let failed = await failure {
      for try await _ in try await engine.loadImages(failing) {}
    }
    #expect("\(String(describing: failed))".contains("the disk is on fire"))
    let begun = Signal()
    let endless = ByteSource {
      await begun.fire()
      return [UInt8](repeating: 0x41, count: 65536)
    }
    let task = Task {
      // Not a tar: an engine may refuse at once, or swallow for ever.
      for try await _ in try await engine.loadImages(endless) {}
    }
    try await within { await begun.wait() }
    task.cancel()
    _ = try await within { await task.result }
    _ = try await engine.ping()
  }

  @Test("a file system is imported from a file and runs", arguments: Rig.present)
  func importing(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var tar = Tar()
    tar.add("bin/sh", try File.read("/bin/busybox", limit: 16 << 20), mode: 0o755)
    let path = "/tmp/appsup-test-import-\(getpid())-\(rig.rawValue).tar"
    defer { unlink(path) }
    let folder = try Folder(opening: "/tmp")
    let name = String(path.dropFirst(5))
    try folder.replace(name, with: tar.finished)
    let file = SharedDescriptor(try folder.open(name, O_RDONLY))
    let reference = ImageReference("\(Self.labelled)/imported-\(rig.rawValue):2")
    let id = try await engine.importImage(
      try .file(file), as: reference, changes: ["CMD [\"/bin/sh\", \"-c\", \"exit 6\"]"])
    #expect(try await engine.inspectImage(reference.description).id.hasSuffix(id.suffix(64)))
    var spec = Rig.spec("")
    spec.image = reference.description
    spec.command = ["/bin/sh", "-c", "exit 6"]
    try await engine.withContainer(spec) { container in
      let code = try await engine.exitCode(of: container)
      #expect(code == 6)
    }
    // By its id: every name goes, also the one podman gave it.
    _ = try await engine.removeImage(id, force: true)
  }

  @Test("what one engine saves is loaded again, streamed", arguments: Rig.present)
  func saveAndLoad(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let name = "localhost/\(Self.labelled)/saved-\(rig.rawValue):1"
    try await engine.tagImage(Rig.image, as: ImageReference(name))
    let archive = try await engine.saveImages([name])
    var lines = ""
    for try await line in try await engine.loadImages(.stream(archive)) { lines += line.status }
    #expect(lines.contains("Loaded image"))
    _ = try await engine.removeImage(name)
    let gone = await failure { _ = try await engine.inspectImage(name) }
    #expect(gone != nil)
  }

  @Test(
    "an image is pulled from a registry with the progress of its layers", .enabled(if: Rig.hasRegistry, Rig.advice),
    arguments: Rig.present)
  func pull(_ rig: Rig) async throws {
    let registry = try Rig.needed("SUPERVISOR_TEST_REGISTRY")
    let engine = try await rig.connect()
    let reference = ImageReference("\(registry)/appsup-test/layers:1")
    // The layers must not be here already, under this name or the rig's own; best effort, since they may not be.
    let local = "appsup-test/layers:1"
    _ = try? await engine.removeImage(reference.description, force: true)
    _ = try? await engine.removeImage(local, force: true)
    var layers: Set<String> = []
    var statuses: Set<String> = []
    for try await line in try await engine.pullImage(reference) {
      if !line.item.isEmpty { layers.insert(line.item) }
      statuses.insert(line.status)
    }
    #expect(layers.count >= 3 && statuses.count >= 2, "\(layers) \(statuses)")
    try await engine.tagImage(reference.description, as: ImageReference(local))
    #expect(try await engine.inspectImage(reference.description).environment.contains("APPSUP_TEST=layers"))
    _ = try await engine.removeImage(reference.description)
    let missing = ImageReference("\(registry)/appsup-test/nothing:1")
    let failed = await failure { for try await _ in try await engine.pullImage(missing) {} }
    #expect("\(String(describing: failed))".contains("nothing"))
  }

  @Test(
    "a login is tried, a pull uses it, and no password is ever told", .enabled(if: Rig.hasRegistry, Rig.advice),
    arguments: Rig.present)
  func login(_ rig: Rig) async throws {
    let registry = try Rig.needed("SUPERVISOR_TEST_REGISTRY_AUTH")
    let engine = try await rig.connect()
    let user = Rig.environment("SUPERVISOR_TEST_REGISTRY_USER") ?? "tester"
    let password = Rig.environment("SUPERVISOR_TEST_REGISTRY_PASSWORD") ?? "correct-horse"
    // Podman logs in without TLS only at `localhost`; the rig's registry has none.
    let server = rig == .podman ? "localhost:\(registry.split(separator: ":").last ?? "")" : registry
    let good = RegistryCredentials(server: server, username: user, password: password)
    let bad = RegistryCredentials(server: server, username: user, password: "wrong-battery")
    #expect(try await engine.login(good) == nil)
    let refused = await failure { _ = try await engine.login(bad) }
    guard case .unauthorized = refused else {
      Issue.record("\(String(describing: refused))")
      return
    }
    #expect(!"\(String(describing: refused))".contains("wrong-battery"))
    #expect(!"\(bad)".contains("battery") && !String(reflecting: bad).contains("battery"))
    let reference = ImageReference("\(registry)/appsup-test/busybox:1")
    for credentials in [nil, bad] {
      let failed = await failure { for try await _ in try await engine.pullImage(reference, credentials) {} }
      let text = "\(String(describing: failed))"
      #expect(failed != nil && !text.contains("battery") && !text.contains(bad.password))
    }
    for try await _ in try await engine.pullImage(reference, good) {}
    #expect(try await engine.inspectImage(reference.description).command == ["/bin/sh"])
    for try await _ in try await engine.pushImage(reference, good) {}
    _ = try await engine.removeImage(reference.description, force: true)
  }
}
