internal import Model

/// What creating a container gave.
package struct CreatedContainer: Sendable, Equatable {
  package var id: String
  /// What the Engine will not hold to; an empty list is what a careful caller expects.
  package var warnings: [String]
}

/// How a container ended, as `wait` tells it.
package struct ContainerExit: Sendable, Equatable {
  package var code: Int64
  /// Why the Engine could not tell, or could not run it.
  package var error: String?
}

/// What `wait` waits for.
package enum WaitCondition: String, Sendable {
  /// It does not run (true at once for one that never started).
  case notRunning = "not-running"
  /// It ends after this call.
  case nextExit = "next-exit"
  case removed
}

/// Containers: `/containers`. A container is named by its id or name.
extension Engine {
  /// `POST /containers/create`. `named` must be free (409 `conflict`). The spec is adapted to the Engine first.
  package func createContainer(_ spec: ContainerSpec, named name: String?) async throws(EngineFailure)
    -> CreatedContainer
  {
    let adapted = try differences.adapted(spec)
    var request = request(.post, "/containers/create", "create container \(name ?? "of \(spec.image)")")
    if let name { request.query = [("name", name)] }
    request.body = .json(adapted.json(differences))
    request.secrets = spec.environment.map(\.value).filter { $0.utf8.count >= 4 }
    let answer = try await document(request)
    guard let id = answer["Id"]?.stringValue, !id.isEmpty else {
      throw .malformed(operation: request.operation, what: "it names no container")
    }
    return CreatedContainer(id: id, warnings: answer.texts("Warnings"))
  }

  /// `POST /containers/{id}/start`. False: it ran already.
  @discardableResult
  package func startContainer(_ id: String) async throws(EngineFailure) -> Bool {
    try await perform(verb(id, "start"))
  }

  /// `POST /libpod/containers/{id}/init`, podman's own: makes the container's first process, which waits for `startContainer` before it
  /// runs anything of the image. Inspect tells its number.
  package func initContainer(_ id: String) async throws(EngineFailure) {
    var request = verb(id, "init", "make the process of")
    request.path = "/v4.0.0/libpod/containers/\(Request.encode(id))/init"
    try await perform(request)
  }

  /// `POST /containers/{id}/stop`: its stop signal, then after `grace` (whole seconds; nil: its own) SIGKILL. Returns when it has
  /// ended; false: it did not run. The call's deadline is `grace` longer than others'.
  @discardableResult
  package func stopContainer(_ id: String, grace: Duration? = nil) async throws(EngineFailure) -> Bool {
    var request = verb(id, "stop")
    if let grace { request.query = [("t", String(Int64(grace.seconds.rounded(.up))))] }
    request.deadline = .after(transport.limits.call + (grace ?? .seconds(10)))
    return try await perform(request)
  }

  /// `POST /containers/{id}/kill` with a signal's name or number. 409 `conflict`: it does not run.
  package func killContainer(_ id: String, signal: String = "SIGKILL") async throws(EngineFailure) {
    var request = verb(id, "kill")
    request.query = [("signal", signal)]
    try await perform(request)
  }

  /// `POST /containers/{id}/pause`: freezes every process.
  package func pauseContainer(_ id: String) async throws(EngineFailure) { try await perform(verb(id, "pause")) }

  /// `POST /containers/{id}/unpause`.
  package func unpauseContainer(_ id: String) async throws(EngineFailure) { try await perform(verb(id, "unpause")) }

  /// `POST /containers/{id}/wait`: suspends until the condition holds; no deadline but the task's cancellation.
  package func waitContainer(_ id: String, for condition: WaitCondition = .notRunning) async throws(EngineFailure)
    -> ContainerExit
  {
    var request = verb(id, "wait", "wait for")
    request.query = [("condition", condition.rawValue)]
    request.deadline = .none
    let answer = try await document(request)
    guard let code = answer["StatusCode"]?.integerValue else {
      throw .malformed(operation: request.operation, what: "it has no StatusCode")
    }
    let error = answer["Error"]?["Message"]?.stringValue
    return ContainerExit(code: code, error: error?.isEmpty == false ? error : nil)
  }

  /// `POST /containers/{id}/update`: changes limits of a running or stopped container. Returns the Engine's warnings.
  package func updateContainer(_ id: String, _ resources: Resources) async throws(EngineFailure) -> [String] {
    var request = verb(id, "update")
    request.body = .json(.object(resources.members))
    if differences.updatesByOwnCall {
      request.path = "/v4.0.0/libpod/containers/\(Request.encode(id))/update"
      request.body = .json(resources.runtimeDocument)
    }
    let answer = try await transport.call(request)
    // Best effort: podman answers with the container's id alone, and then there is nothing to warn of.
    let document = try? JSONValue(parsing: answer.body, limits: .engine)
    return document?.texts("Warnings") ?? []
  }

  /// `POST /containers/{id}/rename`.
  package func renameContainer(_ id: String, to name: String) async throws(EngineFailure) {
    var request = verb(id, "rename")
    request.query = [("name", name)]
    try await perform(request)
  }

  /// `POST /containers/{id}/resize`: the size of its terminal.
  package func resizeContainer(_ id: String, columns: Int, rows: Int) async throws(EngineFailure) {
    var request = verb(id, "resize")
    request.query = [("h", String(rows)), ("w", String(columns))]
    try await perform(request)
  }

  /// `DELETE /containers/{id}`, with its anonymous volumes if asked. `force` kills it first.
  package func removeContainer(_ id: String, force: Bool = false, volumes: Bool = false) async throws(EngineFailure) {
    var request = request(.delete, "/containers/\(Request.encode(id))", "remove container \(id)")
    request.query = [("force", force ? "1" : "0"), ("v", volumes ? "1" : "0")]
    try await perform(request)
  }

  /// `POST /containers/prune`: removes stopped containers that match. Returns their ids.
  package func pruneContainers(_ filters: Filters) async throws(EngineFailure) -> [String] {
    var request = request(.post, "/containers/prune", "prune containers")
    request.query = filters.query
    return try await pruned(request, "ContainersDeleted")
  }

  /// The names in a prune answer: docker's list under `key`, podman's own list of reports.
  func pruned(_ request: Request, _ key: String) async throws(EngineFailure) -> [String] {
    let answer = try await document(request)
    let reports = (answer.arrayValue ?? []).map { $0.text("Id") }
    return answer.texts(key) + reports.filter { !$0.isEmpty }
  }

  /// `GET /containers/{id}/json`.
  package func inspectContainer(_ id: String) async throws(EngineFailure) -> ContainerDetails {
    var request = request(.get, "/containers/\(Request.encode(id))/json", "inspect container \(id)")
    request.limit = transport.limits.listing
    return ContainerDetails(try await document(request))
  }

  /// `GET /containers/json`: running ones, or all.
  package func listContainers(all: Bool = true, _ filters: Filters = Filters()) async throws(EngineFailure)
    -> [ContainerSummary]
  {
    var request = request(.get, "/containers/json", "list containers")
    request.query = [("all", all ? "1" : "0")] + filters.query
    request.limit = transport.limits.listing
    return try await document(request).arrayValue?.map { ContainerSummary($0) } ?? []
  }

  /// `GET /containers/{id}/top`: titles (PID, USER, COMMAND) and one row for each process. 409 `conflict`: it does not run.
  package func topContainer(_ id: String) async throws(EngineFailure) -> (titles: [String], processes: [[String]]) {
    var request = request(.get, "/containers/\(Request.encode(id))/top", "list the processes of container \(id)")
    request.query = [("ps_args", differences.processColumns)]
    let answer = try await document(request)
    return (answer.texts("Titles"), answer.list("Processes").map { ($0.arrayValue ?? []).compactMap(\.stringValue) })
  }

  /// A POST to one of a container's verbs.
  private func verb(_ id: String, _ verb: String, _ words: String? = nil) -> Request {
    request(.post, "/containers/\(Request.encode(id))/\(verb)", "\(words ?? verb) container \(id)")
  }
}
