internal import ContainerHosting
internal import Control
internal import EngineAPI
internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// What Control needs besides apps: images through the engine, apps' data, and the daemon's own end.
struct EngineParts: DaemonParts {
  let access: EngineAccess?
  /// As `--engine` or the configuration said.
  let choice: String
  let reason: String
  let layout: InstanceLayout
  let data: AppData
  let end: @Sendable () -> Void

  func stop() { end() }

  func engine() async -> JSONValue {
    guard let access else { return .object(["choice": .string(choice), "name": .null, "reason": .string(reason)]) }
    do throws(EngineFailure) {
      let engine = try await access.engine()
      let version = try await engine.version()
      return .object([
        "choice": .string(choice), "name": .string("\(engine.flavour)"), "version": .string(version.version),
        "api": .string("\(engine.apiVersion)"), "socket": .string(engine.endpoint.socket),
        "components": .array(version.components.map { .string("\($0.name) \($0.version)") }),
      ])
    } catch {
      return .object([
        "choice": .string(choice), "name": .null, "socket": .string(access.endpoint.socket),
        "reason": .string(error.description),
      ])
    }
  }

  func removeData(of app: Policy) async throws(RPCFailure) -> [String] {
    do throws(SystemFault) { return try await data.remove(of: app) } catch {
      throw RPCFailure(
        .fault, "the data of \(app.id) could not be removed whole: \(error)",
        hint: "what is left can be removed by hand")
    }
  }

  func image(
    _ method: String, _ arguments: JSONValue, progress: @escaping @Sendable (JSONValue) async throws -> Void
  ) async throws(RPCFailure) -> JSONValue {
    guard let access else {
      throw RPCFailure(
        .unsupported, "no container engine: \(reason)", hint: "`supervisor doctor` says what was looked for")
    }
    do {
      let engine = try await access.engine()
      switch method {
      case "image.list": return try await list(engine)
      case "image.pull": return try await pull(engine, try Self.text("reference", arguments), progress)
      case "image.load": return try await load(engine, try Self.text("path", arguments), progress)
      case "image.build": return try await build(engine, arguments, progress)
      case "image.prune":
        let removed = try await engine.pruneImages()
        return .object(["removed": .array((removed.untagged + removed.deleted).map { .string($0) })])
      default: throw RPCFailure(.unknownMethod, "there is no method '\(method)'")
      }
    } catch let failure as RPCFailure {
      throw failure
    } catch let failure as EngineFailure {
      throw RPCFailure(failure)
    } catch is CancellationError {
      throw RPCFailure(.closed, "cancelled")
    } catch { throw RPCFailure(.fault, "\(error)") }
  }

  private static func text(_ key: String, _ arguments: JSONValue) throws -> String {
    guard let text = arguments[key]?.stringValue, !text.isEmpty else {
      throw RPCFailure(.invalidParameters, "\(key) is missing")
    }
    return text
  }

  private func list(_ engine: Engine) async throws -> JSONValue {
    var rows: [JSONValue] = []
    for image in try await engine.listImages() {
      rows.append(
        .object([
          "id": .string(image.id), "tags": .array(image.tags.map { .string($0) }), "size": .integer(image.size),
          "created": .integer(image.created.nanoseconds / 1_000_000_000),
        ]))
    }
    return .object(["images": .array(rows)])
  }

  private func pull(_ engine: Engine, _ reference: String, _ progress: @Sendable (JSONValue) async throws -> Void)
    async throws -> JSONValue
  {
    let name = ImageReference(reference)
    for try await step in try await engine.pullImage(name) { try await progress(Self.json(step)) }
    return .object(["id": .string(try await engine.inspectImage(name.description).id)])
  }

  private func load(_ engine: Engine, _ path: String, _ progress: @Sendable (JSONValue) async throws -> Void)
    async throws -> JSONValue
  {
    let file = SharedDescriptor(
      Descriptor(owning: try check("open", path) { open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK) }))
    var last = ""
    for try await step in try await engine.loadImages(try ByteSource.file(file)) {
      try await progress(Self.json(step))
      if !step.status.isEmpty { last = step.status }
    }
    return .object(["id": .string(last.split(separator: "\n").last.map(String.init) ?? "")])
  }

  private func build(_ engine: Engine, _ arguments: JSONValue, _ progress: @Sendable (JSONValue) async throws -> Void)
    async throws -> JSONValue
  {
    var spec = BuildSpec(tag: ImageReference(try Self.text("tag", arguments)))
    spec.dockerfile = arguments["dockerfile"]?.stringValue ?? "Dockerfile"
    for (key, value) in arguments["arguments"]?.objectValue ?? JSONObject() {
      spec.arguments[key] = value.stringValue ?? ""
    }
    let context = try BuildContext.archive(try Self.text("context", arguments), keeping: spec.dockerfile)
    var id = ""
    for try await step in try await engine.buildImage(spec, context: context) {
      try await progress(Self.json(step))
      id = step.imageID ?? id
    }
    return .object(["id": .string(id)])
  }

  private static func json(_ step: Progress) -> JSONValue {
    .object([
      "item": .string(step.item), "status": .string(step.status), "done": step.done.map { .count($0) },
      "total": step.total.map { .count($0) },
    ])
  }
}

extension RPCFailure {
  init(_ failure: EngineFailure) {
    switch failure {
    case .notFound: self.init(.notFound, failure.description)
    case .conflict: self.init(.conflict, failure.description)
    case .timedOut: self.init(.timedOut, failure.description)
    default: self.init(.fault, failure.description)
    }
  }
}
