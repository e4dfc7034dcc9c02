internal import Linux
package import Model
package import Policies
package import RPC
package import Supervision

/// What a daemon is asked besides its apps.
package struct DaemonFacts: Sendable {
  package var version: String
  package var pid: Int32
  package var root: String
  package var layout: InstanceLayout
  /// What policies may ask for here.
  package var rules: HostRules
  /// Ids of operators besides root.
  package var operators: Set<UInt32>

  package init(
    version: String, pid: Int32, root: String, layout: InstanceLayout, rules: HostRules, operators: Set<UInt32>
  ) {
    self.version = version
    self.pid = pid
    self.root = root
    self.layout = layout
    self.rules = rules
    self.operators = operators
  }
}

/// What Control needs of the parts it must not know: images through whichever engine there is, and the daemon's own end.
package protocol DaemonParts: Sendable {
  /// The engine's name and version, or why there is none.
  func engine() async -> JSONValue
  /// Carries out an `image.*` call; `progress` gets one object for each step.
  func image(_ method: String, _ arguments: JSONValue, progress: @escaping @Sendable (JSONValue) async throws -> Void)
    async throws(RPCFailure)
    -> JSONValue
  /// Removes an app's data folders and the volumes only it names; returns what was removed.
  func removeData(of app: Policy) async throws(RPCFailure) -> [String]
  /// Ends the daemon; apps run on.
  func stop()
}

/// One method of the table.
struct Method: Sendable {
  enum Role: String, Sendable { case viewer, `operator`, owner, admin }
  var name: String
  var role: Role
  var arguments: [String]
  var streams: Bool
  var summary: String
  var body: @Sendable (ControlService, RPCCall, Arguments) async throws(RPCFailure) -> JSONValue
}

/// Serves the control socket.
package struct ControlService: RPCService {
  let supervisor: Supervisor
  let facts: DaemonFacts
  let parts: any DaemonParts

  package init(supervisor: Supervisor, facts: DaemonFacts, parts: any DaemonParts) {
    self.supervisor = supervisor
    self.facts = facts
    self.parts = parts
  }

  package func answer(_ call: RPCCall) async throws(RPCFailure) -> JSONValue {
    guard let method = Self.methods[call.method] else {
      throw RPCFailure(
        .unknownMethod, "there is no method '\(call.method)'", hint: "`supervisor api --list` prints them all")
    }
    guard facts.operators.contains(call.peer.uid) else {
      throw RPCFailure(
        .denied, "user \(call.peer.uid) may not call \(call.method) here",
        hint: "ask as the user the daemon runs as, or as root")
    }
    return try await method.body(self, call, Arguments(call, method.arguments))
  }

  private static let methods = Dictionary(uniqueKeysWithValues: table.map { ($0.name, $0) })

  /// Every method there is; `api.list` prints it.
  static let table: [Method] = [
    Method(name: "version", role: .viewer, arguments: [], streams: false, summary: "versions and facts of the daemon") {
      (service, _, _) throws(RPCFailure) in await service.version()
    },
    Method(name: "api.list", role: .viewer, arguments: [], streams: false, summary: "this table") {
      (_, _, _) throws(RPCFailure) in
      .array(table.map(describe))
    },
    Method(name: "app.list", role: .viewer, arguments: ["apps"], streams: false, summary: "apps as `ps` shows them") {
      (service, _, arguments) throws(RPCFailure) in try await service.list(arguments)
    },
    Method(
      name: "app.status", role: .viewer, arguments: ["app"], streams: false,
      summary: "one app with its limits and layers as asked and in force"
    ) {
      (service, _, arguments) throws(RPCFailure) in try await service.status(arguments)
    },
    Method(
      name: "app.config", role: .viewer, arguments: ["app"], streams: false,
      summary: "the applied copy of an app's policy"
    ) {
      (service, _, arguments) throws(RPCFailure) in try await service.config(arguments)
    },
    Method(
      name: "app.up", role: .owner,
      arguments: ["files", "origin", "environment", "recreate", "remove_orphans", "profiles", "no_deps", "check_only"],
      streams: false, summary: "check policies, apply them all or none, and want them running"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.up(arguments) },
    Method(
      name: "app.await", role: .viewer, arguments: ["apps", "timeout_ms"], streams: true,
      summary: "follow apps until each is what it is wanted to be; items are events"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.await(call, arguments) },
    Method(
      name: "app.down", role: .owner, arguments: ["apps", "origin", "all", "data", "timeout_ms"], streams: true,
      summary: "stop and remove in reverse dependency order; items are events"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.down(call, arguments) },
    Method(name: "app.start", role: .operator, arguments: ["apps"], streams: false, summary: "want apps running") {
      (service, _, arguments) throws(RPCFailure) in try await service.start(arguments)
    },
    Method(name: "app.stop", role: .operator, arguments: ["apps"], streams: false, summary: "want apps stopped") {
      (service, _, arguments) throws(RPCFailure) in try await service.stop(arguments)
    },
    Method(
      name: "app.restart", role: .operator, arguments: ["apps"], streams: false,
      summary: "end and start again, in order"
    ) {
      (service, _, arguments) throws(RPCFailure) in try await service.restart(arguments)
    },
    Method(
      name: "app.kill", role: .operator, arguments: ["apps", "signal"], streams: false,
      summary: "send a signal; KILL reaches every process"
    ) {
      (service, _, arguments) throws(RPCFailure) in try await service.kill(arguments)
    },
    Method(
      name: "app.hurry", role: .operator, arguments: ["apps"], streams: false,
      summary: "kill what is being stopped, without its grace time"
    ) {
      (service, _, arguments) throws(RPCFailure) in try await service.hurry(arguments)
    },
    Method(name: "app.pause", role: .operator, arguments: ["apps"], streams: false, summary: "freeze every process") {
      (service, _, arguments) throws(RPCFailure) in try await service.pause(arguments, true)
    },
    Method(name: "app.unpause", role: .operator, arguments: ["apps"], streams: false, summary: "thaw") {
      (service, _, arguments) throws(RPCFailure) in try await service.pause(arguments, false)
    },
    Method(
      name: "app.logs", role: .viewer, arguments: ["apps", "follow", "tail", "since_ns", "until_ns"], streams: true,
      summary: "output of apps; items are chunks"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.logs(call, arguments) },
    Method(
      name: "event.subscribe", role: .viewer, arguments: ["after", "apps", "follow", "limit"], streams: true,
      summary: "events from a cursor on"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.events(call, arguments) },
    imageMethod("image.list", [], "images of the engine"),
    imageMethod("image.pull", ["reference"], "pull; items are progress"),
    imageMethod("image.load", ["path"], "load an archive made by `docker save`; items are progress"),
    imageMethod("image.build", ["context", "dockerfile", "tag", "arguments"], "build; items are progress"),
    imageMethod("image.prune", [], "remove images nothing uses"),
    Method(name: "daemon.stop", role: .admin, arguments: [], streams: false, summary: "end the daemon; apps run on") {
      (service, _, _) throws(RPCFailure) in
      service.parts.stop()
      return .object([:])
    },
  ]

  private static func imageMethod(_ name: String, _ arguments: [String], _ summary: String) -> Method {
    Method(
      name: name, role: name == "image.list" ? .viewer : .owner, arguments: arguments, streams: name != "image.list",
      summary: summary
    ) {
      (service, call, _) throws(RPCFailure) in
      try await service.parts.image(name, call.parameters) { try await call.send($0) }
    }
  }

  private static func describe(_ method: Method) -> JSONValue {
    .object([
      "method": .string(method.name), "role": .string(method.role.rawValue),
      "arguments": .array(method.arguments.map { .string($0) }),
      "streams": .bool(method.streams), "summary": .string(method.summary),
    ])
  }
}
