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
  /// What runs containers; it knows its engine's version, which to ask for takes podman a third of a second.
  let containers: ContainerHost?
  /// The supervisor's own images.
  let images: StoreParts
  /// As `--engine` or the configuration said.
  let choice: String
  let reason: String
  let layout: InstanceLayout
  let data: AppData
  let reloading: @Sendable () async -> JSONValue
  let end: @Sendable () -> Void

  func reload() async -> JSONValue { await reloading() }

  func stop() { end() }

  func prune(_ request: PruneRequest) async throws(RPCFailure) -> JSONValue {
    let leftovers: Leftovers
    do throws(SystemFault) { leftovers = try Leftovers(layout, containers, access, images, request) } catch {
      throw RPCFailure(.fault, "\(error)")
    }
    return try await leftovers.run()
  }

  func engine() async -> JSONValue {
    guard let access, let containers else {
      return .object(["choice": .string(choice), "name": .null, "reason": .string(reason)])
    }
    let socket = JSONValue.string(access.endpoint.socket)
    do throws(HostFailure) {
      let facts = try await containers.engineFacts()
      let verdict = try await containers.verdict()
      return .object([
        "choice": .string(choice), "name": .string(facts.flavour), "version": .string(facts.version),
        "api": .string(facts.apiVersion), "socket": socket, "components": .array(facts.components.map { .string($0) }),
        "gate": .string(verdict.name), "gate_reasons": .array(verdict.reasons.map { .string($0) }),
      ])
    } catch {
      return .object([
        "choice": .string(choice), "name": .null, "socket": socket,
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

  func image(_ call: ImageCall, progress: @escaping @Sendable (JSONValue) async throws -> Void) async throws(RPCFailure)
    -> JSONValue
  {
    let arguments = call.arguments
    if let answer = try await images.answer(call, access, progress) { return answer }
    guard let access else {
      throw RPCFailure(
        .unsupported, "no container engine: \(reason)", hint: "`supervisor doctor` says what was looked for")
    }
    do {
      let engine = try await access.engine()
      switch call.method {
      case "image.inspect": return try await inspect(engine, try Self.text("reference", arguments))
      case "image.pull": return try await pull(engine, try Self.text("reference", arguments), progress)
      case "image.load": return try await load(engine, try Self.passed(call, "a file"), progress)
      case "image.build": return try await build(engine, call, progress)
      case "image.prune":
        let removed = try await engine.pruneImages()
        return .object(["removed": .array((removed.untagged + removed.deleted).map { .string($0) })])
      default: throw RPCFailure(.unknownMethod, "there is no method '\(call.method)'")
      }
    } catch let failure as RPCFailure {
      throw failure
    } catch let failure as EngineFailure {
      throw RPCFailure(failure)
    } catch is CancellationError {
      throw RPCFailure(.closed, "cancelled")
    } catch { throw RPCFailure(.fault, "\(error)") }
  }

  static func text(_ key: String, _ arguments: JSONValue) throws -> String {
    guard let text = arguments[key]?.stringValue, !text.isEmpty else {
      throw RPCFailure(.invalidParameters, "\(key) is missing")
    }
    return text
  }

  /// What the caller opened and passed with the call: the daemon opens no path for anybody.
  static func passed(_ call: ImageCall, _ what: String) throws -> SharedDescriptor {
    guard let index = call.arguments["fd"]?.integerValue, call.descriptors.indices.contains(Int(index)) else {
      throw RPCFailure(
        .invalidParameters, "fd must be the place of a descriptor that came with the call: \(what)",
        hint: "`supervisor load` and `supervisor build` pass one")
    }
    return call.descriptors[Int(index)]
  }

  private func inspect(_ engine: Engine, _ reference: String) async throws -> JSONValue {
    let image = try await engine.inspectImage(reference)
    return .object([
      "id": .string(image.id), "tags": .array(image.tags.map { .string($0) }), "size": .integer(image.size),
      "user": .string(image.user), "entrypoint": .array(image.entrypoint.map { .string($0) }),
      "command": .array(image.command.map { .string($0) }), "working_dir": .string(image.workingDirectory),
      "volumes": .array(image.volumes.sorted().map { .string($0) }),
      "ports": .array(image.exposedPorts.sorted().map { .string($0) }), "stop_signal": .string(image.stopSignal),
    ])
  }

  private func pull(_ engine: Engine, _ reference: String, _ progress: @Sendable (JSONValue) async throws -> Void)
    async throws -> JSONValue
  {
    let name = ImageReference(reference)
    for try await step in try await engine.pullImage(name) { try await progress(Self.json(step)) }
    return .object(["id": .string(try await engine.inspectImage(name.description).id)])
  }

  private func load(
    _ engine: Engine, _ file: SharedDescriptor, _ progress: @Sendable (JSONValue) async throws -> Void
  ) async throws -> JSONValue {
    try StoreParts.checkFile(file)
    var last = ""
    for try await step in try await engine.loadImages(try ByteSource.file(file)) {
      try await progress(Self.json(step))
      if !step.status.isEmpty { last = step.status }
    }
    return .object(["id": .string(last.split(separator: "\n").last.map(String.init) ?? "")])
  }

  private func build(
    _ engine: Engine, _ call: ImageCall, _ progress: @Sendable (JSONValue) async throws -> Void
  ) async throws -> JSONValue {
    let arguments = call.arguments
    var spec = BuildSpec(tag: ImageReference(try Self.text("tag", arguments)))
    spec.dockerfile = arguments["dockerfile"]?.stringValue ?? "Dockerfile"
    for (key, value) in arguments["arguments"]?.objectValue ?? JSONObject() {
      spec.arguments[key] = value.stringValue ?? ""
    }
    let folder = try Self.passed(call, "a folder")
    let context = try await BuildContext.archive(.opened(folder), keeping: spec.dockerfile, as: call.reader)
    var id = ""
    for try await step in try await engine.buildImage(spec, context: context) {
      try await progress(Self.json(step))
      id = step.imageID ?? id
    }
    return .object(["id": .string(id)])
  }

  static func json(_ step: Progress) -> JSONValue {
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
