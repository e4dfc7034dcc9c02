package import Model

/// A process to run in a running container. Only for an operator's command and what a policy names; never privileged.
package struct ExecSpec: Sendable, CustomStringConvertible, CustomReflectable {
  package var command: [String]
  /// `uid:gid`; empty: the container's.
  package var user = ""
  package var workingDirectory: String?
  package var environment: [(name: String, value: String)] = []
  package var terminal = false
  package var input = false

  package init(_ command: [String]) { self.command = command }

  /// Without its values: they can be secrets, and descriptions end in logs.
  package var description: String { "a command of \(command.count) words" }
  package var customMirror: Mirror { Mirror(self, children: []) }

  var json: JSONValue {
    .object([
      "Cmd": .texts(command), "User": .string(user), "WorkingDir": workingDirectory.map { .string($0) },
      "Env": .array(environment.map { .string("\($0.name)=\($0.value)") }), "Tty": .bool(terminal),
      "AttachStdin": .bool(input), "AttachStdout": true, "AttachStderr": true, "Privileged": false,
    ])
  }
}

/// How an exec is.
package struct ExecDetails: Sendable, Equatable {
  package var running: Bool
  /// Its exit code, once it has ended.
  package var exitCode: Int64?
  /// In the Engine's pid namespace; 0: none.
  package var pid: Int32
  package var json: JSONValue
}

/// Exec and attach: conversations on connections taken over from HTTP.
extension Engine {
  /// `POST /containers/{id}/exec`: prepares it. Returns the exec's id. 409 `conflict`: the container does not run.
  package func createExec(in container: String, _ spec: ExecSpec) async throws(EngineFailure) -> String {
    var request = request(
      .post, "/containers/\(Request.encode(container))/exec", "prepare a command in container \(container)")
    request.body = .json(spec.json)
    request.secrets = spec.environment.map(\.value).filter { $0.utf8.count >= 4 }
    let answer = try await document(request)
    guard let id = answer["Id"]?.stringValue, !id.isEmpty else {
      throw .malformed(operation: request.operation, what: "it names no exec")
    }
    return id
  }

  /// `POST /exec/{id}/start`: starts it and takes the connection over. `terminal` as in its spec. Its exit code is inspected after
  /// the output has ended.
  package func startExec(_ id: String, terminal: Bool) async throws(EngineFailure) -> Conversation {
    var request = request(.post, "/exec/\(Request.encode(id))/start", "run a command")
    request.body = .json(.object(["Detach": false, "Tty": .bool(terminal)]))
    return try await transport.hijack(request, terminal: terminal)
  }

  /// `GET /exec/{id}/json`.
  package func inspectExec(_ id: String) async throws(EngineFailure) -> ExecDetails {
    let json = try await document(request(.get, "/exec/\(Request.encode(id))/json", "inspect a command"))
    let running = json.flag("Running")
    return ExecDetails(
      running: running, exitCode: running ? nil : json["ExitCode"]?.integerValue,
      pid: Int32(clamping: json.whole("Pid")),
      json: json)
  }

  /// `POST /exec/{id}/resize`: the size of its terminal. It must run.
  package func resizeExec(_ id: String, columns: Int, rows: Int) async throws(EngineFailure) {
    var request = request(.post, "/exec/\(Request.encode(id))/resize", "resize a command's terminal")
    request.query = [("h", String(rows)), ("w", String(columns))]
    try await perform(request)
  }

  /// `POST /containers/{id}/attach`: its input and output from now on, and what it wrote before if `replay`. Attach before the start
  /// to miss nothing. `terminal` spares asking whether it has one.
  package func attachContainer(_ id: String, input: Bool = false, replay: Bool = false, terminal: Bool? = nil)
    async throws(EngineFailure) -> Conversation
  {
    let raw: Bool
    if let terminal { raw = terminal } else { raw = try await inspectContainer(id).terminal }
    var request = request(.post, "/containers/\(Request.encode(id))/attach", "attach to container \(id)")
    request.query = [
      ("stream", "1"), ("stdin", input ? "1" : "0"), ("stdout", "1"), ("stderr", "1"), ("logs", replay ? "1" : "0"),
    ]
    return try await transport.hijack(request, terminal: raw)
  }
}
