internal import Control
internal import EngineAPI
internal import Glibc
internal import ImageStorage
internal import Linux
internal import Model
internal import RPC

/// The `image.*` calls as far as they are about the supervisor's own store.
struct StoreParts: Sendable {
  let store: ImageStore
  let used: @Sendable () async -> Set<String>

  typealias Progress = @Sendable (JSONValue) async throws -> Void

  /// Nil: the call is the engine's alone.
  func answer(_ call: ImageCall, _ access: EngineAccess?, _ progress: @escaping Progress) async throws(RPCFailure)
    -> JSONValue?
  {
    do {
      switch call.method {
      case "image.list": return try await list(access)
      case "image.load":
        switch call.arguments["into"]?.stringValue ?? (access == nil ? "store" : "engine") {
        case "engine": return nil
        case "store": return try await load(EngineParts.passed(call, "a file"), progress)
        case let other: throw RPCFailure(.invalidParameters, "into is engine or store, not '\(other)'")
        }
      case "image.adopt": return try await adopt(EngineParts.text("reference", call.arguments), access, progress)
      case "image.remove": return try await remove(EngineParts.text("reference", call.arguments))
      case "image.inspect":
        let name = try EngineParts.text("reference", call.arguments)
        guard access == nil, let image = store.find(name) else { return nil }
        return try inspect(image)
      case "image.pull" where access == nil:
        throw RPCFailure(
          .unsupported, "no container engine: images are fetched from registries by an engine alone",
          hint: "where there is one: `docker save NAME -o FILE`; here: `supervisor load FILE`")
      default: return nil
      }
    } catch let failure as RPCFailure {
      throw failure
    } catch let failure as EngineFailure {
      throw RPCFailure(failure)
    } catch let problem as ImageProblem {
      throw RPCFailure(problem)
    } catch is CancellationError {
      throw RPCFailure(.closed, "cancelled")
    } catch { throw RPCFailure(.fault, "\(error)") }
  }

  /// Whoever holds the other end of anything but a file could make the daemon wait.
  static func checkFile(_ file: SharedDescriptor) throws {
    var status = stat()
    try file.withRaw { _ = try check("fstat", "archive") { [raw = $0] in fstat(raw, &status) } }
    guard status.st_mode & S_IFMT == S_IFREG else {
      throw RPCFailure(.invalidParameters, "an archive is a file", hint: "write it into one first")
    }
  }

  /// Both, each with where it is; an engine that does not answer has none, and the reason is beside.
  private func list(_ access: EngineAccess?) async throws -> JSONValue {
    var rows: [JSONValue] = []
    var notes: [JSONValue] = []
    if let access {
      do {
        for image in try await access.engine().listImages() {
          rows.append(
            .object([
              "id": .string(image.id), "tags": .array(image.tags.map { .string($0) }), "size": .integer(image.size),
              "created": .integer(image.created.nanoseconds / 1_000_000_000), "store": "engine",
            ]))
        }
      } catch { notes.append(.string("the engine's images are not known: \(error)")) }
    }
    for image in store.images {
      rows.append(
        .object([
          "id": .string(image.id.description), "tags": .array(image.names.map { .string($0) }),
          "size": .count(image.size), "created": .integer(image.loaded.nanoseconds / 1_000_000_000),
          "store": "supervisor",
        ]))
    }
    return .object(["images": .array(rows), "notes": .array(notes)])
  }

  private func inspect(_ image: StoredImage) throws -> JSONValue {
    let said = try store.configuration(image.id)
    return .object([
      "id": .string(image.id.description), "tags": .array(image.names.map { .string($0) }), "size": .count(image.size),
      "user": .string(said.user), "entrypoint": .array(said.entrypoint.map { .string($0) }),
      "command": .array(said.command.map { .string($0) }), "working_dir": .string(said.workingDirectory),
      "volumes": .array(said.volumes.map { .string($0) }), "ports": .array(said.ports.map { .string($0) }),
      "stop_signal": .string(said.stopSignal),
    ])
  }

  private func load(_ file: SharedDescriptor, _ progress: @escaping Progress) async throws -> JSONValue {
    guard getuid() == 0 else {
      throw RPCFailure(
        .unsupported,
        "an ordinary user's instance has no images of its own: apps run from them natively, which needs root",
        hint: "use your own engine, or the system's instance")
    }
    try Self.checkFile(file)
    let (steps, tell) = AsyncStream.makeStream(of: WorkProgress.self, bufferingPolicy: .bufferingNewest(16))
    let work = Task {
      defer { tell.finish() }
      return try await store.load(file) { tell.yield($0) }
    }
    let loaded = try await withTaskCancellationHandler {
      do {
        for await step in steps {
          try await progress(
            .object([
              "item": .string(step.item), "status": .string(step.status), "done": .optional(step.done),
              "total": .optional(step.total),
            ]))
        }
      } catch {
        // Nobody listens any more: what is half done is not kept, and this waits until it is gone.
        work.cancel()
        _ = await work.result
        throw error
      }
      return try await work.value
    } onCancel: {
      work.cancel()
    }
    return .object([
      "id": .string(loaded.images.map { $0.names.first ?? $0.id.description }.joined(separator: ", ")),
      "images": .array(
        loaded.images.map { .object(["id": .string($0.id.description), "tags": .array($0.names.map { .string($0) })]) }),
      "notes": .array(loaded.notes.map { .string($0) }), "store": "supervisor",
    ])
  }

  /// Copies an image from the engine through the archive it makes of it.
  private func adopt(_ name: String, _ access: EngineAccess?, _ progress: @escaping Progress) async throws -> JSONValue
  {
    guard let access else {
      throw RPCFailure(
        .unsupported, "no container engine to take \(name) over from", hint: "`supervisor load FILE` takes an archive")
    }
    let engine = try await access.engine()
    let size = try await engine.inspectImage(name).size
    let file = try store.scratch()
    var done: Int64 = 0
    var told: Int64 = 0
    for try await piece in try await engine.saveImages([name]) {
      try file.withRaw { (raw) throws(SystemFault) in try writeAll(raw, piece[...], "the image's archive") }
      done += Int64(piece.count)
      guard Clock.monotonic() - told >= 200_000_000 else { continue }
      told = Clock.monotonic()
      try await progress(
        .object([
          "item": .string(name), "status": "copying", "done": .integer(min(done, size)), "total": .integer(size),
        ]))
    }
    return try await load(file, progress)
  }

  private func remove(_ name: String) async throws -> JSONValue {
    let (untagged, removed) = try await store.remove(name, used: await used())
    return .object([
      "untagged": .array(untagged.map { .string($0) }), "removed": .array(removed.map { .string($0.description) }),
    ])
  }
}

extension RPCFailure {
  init(_ problem: ImageProblem) {
    switch problem {
    case .missing: self.init(.notFound, problem.description, hint: "`supervisor images` lists what is there")
    case .inUse: self.init(.conflict, problem.description, hint: "take the app down first, or change its policy")
    case .malformed, .refused: self.init(.invalidParameters, problem.description, hint: "nothing of it was kept")
    case .tooMuch: self.init(.invalidParameters, problem.description, hint: "nothing of it was kept")
    case .failed:
      self.init(.fault, problem.description, hint: "nothing of it was kept; free some room, or see the reason")
    }
  }
}
