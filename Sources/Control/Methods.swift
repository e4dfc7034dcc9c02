package import Calls
package import Linux
package import Model
internal import Policies
package import RPC
package import Storage
package import Supervision

/// What a daemon is asked besides its apps.
package struct DaemonFacts: Sendable {
  package var version: String
  package var pid: Int32
  package var root: String
  package var layout: InstanceLayout
  package init(version: String, pid: Int32, root: String, layout: InstanceLayout) {
    self.version = version
    self.pid = pid
    self.root = root
    self.layout = layout
  }
}

/// What Control needs of the parts it must not know: images through whichever engine there is, and the daemon's own end.
package protocol DaemonParts: Sendable {
  /// The engine's name and version, or why there is none.
  func engine() async -> JSONValue
  /// Carries out an `image.*` call; `progress` gets one object for each step.
  func image(_ call: ImageCall, progress: @escaping @Sendable (JSONValue) async throws -> Void) async throws(RPCFailure)
    -> JSONValue
  /// Removes an app's data folders and the volumes only it names; returns what was removed.
  func removeData(of app: Policy) async throws(RPCFailure) -> [String]
  /// Reads the configuration and the config folder again; what came of it.
  func reload() async -> JSONValue
  /// Finds, and unless asked not to removes, what is ours and nothing uses.
  func prune(_ request: PruneRequest) async throws(RPCFailure) -> JSONValue
  /// Ends the daemon; apps run on.
  func stop()
}

/// What `daemon.prune` may remove, and what it must not.
package struct PruneRequest: Sendable {
  /// Volumes and data of apps that are gone, too.
  package var volumes: Bool
  package var dryRun: Bool
  /// Asked anew before each step: what is known or in use then stays.
  package var known: @Sendable () async -> Set<AppID>
  package var volumesInUse: @Sendable () async -> Set<String>
  /// The data of an app that is gone is gone, so its ids can be given out again.
  package var releaseIDs: @Sendable (AppID) async -> Void
}

/// An `image.*` call with what came with it.
package struct ImageCall: Sendable {
  package var method: String
  package var arguments: JSONValue
  /// Files and folders that the caller opened.
  package var descriptors: [SharedDescriptor]
  /// With whose rights a folder's files are read; nil: the daemon's.
  package var reader: Policy.Loader?
}

/// One method of the table.
struct Method: Sendable {
  /// What a caller must have the method's role for.
  enum Scope: String, Sendable {
    /// The stacks of the apps that `apps` and `app` name (`ControlService.resolve` sees to it); in any stack where none is named.
    case apps
    /// Every stack there is: the call concerns all of them.
    case everything
  }
  var name: String
  var role: Role
  var scope = Scope.apps
  var arguments: [String]
  var streams: Bool
  var summary: String
  /// Knows only in its course which apps it is about, and records that then.
  var recordsItself = false
  var body: @Sendable (ControlService, RPCCall, Arguments) async throws(RPCFailure) -> JSONValue
}

/// Serves the control socket.
package struct ControlService: RPCService {
  let supervisor: Supervisor
  let facts: DaemonFacts
  let parts: any DaemonParts
  let standing: Standing
  /// What apps ask by, and what is kept of it.
  let interface: AppInterface
  let store: Store
  let audit: Audit
  /// Told of each call, and whether it was denied.
  let counted: @Sendable (_ method: String, _ denied: Bool) -> Void
  /// The call's: what its caller may do, and what it needs. Set before a method's body runs.
  var access: Access
  var needed = Role.admin
  let commands = CommandTable()

  package init(
    supervisor: Supervisor, facts: DaemonFacts, parts: any DaemonParts, standing: Standing,
    interface: AppInterface, store: Store, audit: Audit,
    counted: @escaping @Sendable (_ method: String, _ denied: Bool) -> Void = { _, _ in }
  ) {
    self.counted = counted
    self.supervisor = supervisor
    self.facts = facts
    self.parts = parts
    self.standing = standing
    self.interface = interface
    self.store = store
    self.audit = audit
    access = Access(peer: PeerCredentials(pid: 0, uid: .max, gid: .max), grants: [])
  }

  package func begin(_ call: RPCCall) throws(RPCFailure) -> RPCAnswer {
    .later { () throws(RPCFailure) in try await answer(call) }
  }

  private func answer(_ call: RPCCall) async throws(RPCFailure) -> JSONValue {
    guard let method = Self.methods[call.method] else {
      throw RPCFailure(
        .unknownMethod, "there is no method '\(call.method)'", hint: "`supervisor api --list` prints them all")
    }
    var service = self
    service.access = standing.authority.access(of: call.peer)
    service.needed = method.role
    let arguments = try Arguments(call, method.arguments)
    do throws(RPCFailure) { try await service.authorize(method, arguments) } catch {
      counted(method.name, error.code == RPCFailure.Code.denied.rawValue)
      throw error
    }
    counted(method.name, false)
    return try await method.body(service, call, arguments)
  }

  /// Refuses a caller without the role, and records whoever wants more than to look, before anything happens.
  private func authorize(_ method: Method, _ arguments: Arguments) async throws(RPCFailure) {
    let names = arguments.appNames
    do throws(RPCFailure) {
      let held = method.scope == .everything ? access.everywhere : access.best
      guard let held, held >= method.role else { throw access.denied(method.name, method.role) }
      if !names.isEmpty { _ = try await resolve(names) }
    } catch {
      if error.code == RPCFailure.Code.denied.rawValue { await recordDenied(method.name, names, error) }
      throw error
    }
    if method.role > .viewer, !method.recordsItself { try await recordAllowed(method.name, names) }
  }

  func recordDenied(_ method: String, _ names: [String], _ failure: RPCFailure) async {
    // best effort: it is refused anyway, and the daemon's log has it.
    try? await audit.record(access.peer, method, names, .denied, failure.message)
  }

  /// What cannot be recorded is not done, but for root and the daemon's own user: a full disk must not keep them from stopping apps.
  func recordAllowed(_ method: String, _ names: [String]) async throws(RPCFailure) {
    do throws(SystemFault) { try await audit.record(access.peer, method, names, .allowed) } catch {
      guard access.everywhere == .admin else {
        throw RPCFailure(
          .fault, "the audit cannot be written, and nothing is done without it: \(error)",
          hint: "free some space where the daemon keeps its log")
      }
    }
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
      name: "app.config", role: .operator, arguments: ["app"], streams: false,
      summary: "the applied copy of an app's policy"
    ) {
      (service, _, arguments) throws(RPCFailure) in try await service.config(arguments)
    },
    Method(
      name: "app.up", role: .owner,
      arguments: [
        "files", "origin", "environment", "recreate", "remove_orphans", "profiles", "no_deps", "keep_wants", "at_rest",
      ],
      streams: false,
      summary: "check policies, apply them all or none, and want them running, with at_rest stopped",
      recordsItself: true
    ) { (service, _, arguments) throws(RPCFailure) in try await service.up(arguments) },
    Method(
      name: "app.plan", role: .operator, arguments: ["files", "origin", "environment", "recreate", "profiles"],
      streams: false, summary: "what `app.up` with the same arguments would change, for each app and field",
      recordsItself: true
    ) { (service, _, arguments) throws(RPCFailure) in try await service.plan(arguments) },
    Method(
      name: "app.set", role: .owner, arguments: ["app", "values", "for_ms", "dry_run"], streams: false,
      summary: "set KEY=VALUE beside an app's file, until taken back or for a time"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.set(arguments) },
    Method(
      name: "app.unset", role: .owner, arguments: ["app", "keys", "dry_run"], streams: false,
      summary: "take back what was set beside an app's file; all of it without keys"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.unset(arguments) },
    Method(
      name: "app.await", role: .viewer, arguments: ["apps", "timeout_ms", "ready"], streams: true,
      summary:
        "follow apps until each is what it is wanted to be, with `ready` also ready and healthy; items are events"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.await(call, arguments) },
    Method(
      name: "app.down", role: .owner, arguments: ["apps", "origin", "all", "data", "grace_ms", "timeout_ms"],
      streams: true,
      summary: "stop and remove in reverse dependency order; items are events"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.down(call, arguments) },
    Method(name: "app.start", role: .operator, arguments: ["apps"], streams: false, summary: "want apps running") {
      (service, _, arguments) throws(RPCFailure) in try await service.start(arguments)
    },
    Method(
      name: "app.stop", role: .operator, arguments: ["apps", "grace_ms"], streams: false, summary: "want apps stopped"
    ) {
      (service, _, arguments) throws(RPCFailure) in try await service.stop(arguments)
    },
    Method(
      name: "app.restart", role: .operator, arguments: ["apps", "grace_ms"], streams: false,
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
      name: "app.logs", role: .operator, arguments: ["apps", "follow", "tail", "since_ns", "until_ns", "run"],
      streams: true,
      summary: "output of apps; items are chunks"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.logs(call, arguments) },
    Method(
      name: "app.stats", role: .viewer, arguments: ["apps", "interval_ms", "settle"], streams: true,
      summary: "what running apps use; items are rows of all"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.statistics(call, arguments) },
    Method(
      name: "app.exits", role: .operator, arguments: ["app", "run"], streams: false,
      summary: "how runs ended, newest first; with run (-1 is the last) one with what it wrote last"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.exits(arguments) },
    Method(name: "app.top", role: .viewer, arguments: ["app"], streams: false, summary: "the processes of an app") {
      (service, _, arguments) throws(RPCFailure) in try await service.top(arguments)
    },
    Method(
      name: "app.exec", role: .operator,
      arguments: [
        "app", "command", "environment", "folder", "user", "streams_fd", "input", "columns", "rows", "timeout_ms",
        "keep",
      ],
      streams: false,
      summary: "run a command inside a running app; its streams come over the socket that streams_fd names"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.exec(call, arguments) },
    Method(
      name: "app.attach", role: .operator,
      arguments: ["app", "streams_fd", "input", "columns", "rows", "start", "ends_input"], streams: false,
      summary: "join an app's streams until its run has ended; with start, of one that is started for it"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.attach(call, arguments) },
    Method(
      name: "app.debug", role: .operator,
      arguments: ["app", "command", "environment", "streams_fd", "input", "columns", "rows"], streams: false,
      summary: "run a command in the place of an app's program; what the app is wanted to be is held meanwhile"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.debug(call, arguments) },
    Method(
      name: "app.exec.order", role: .operator, arguments: ["exec", "columns", "rows", "signal"], streams: false,
      summary: "resize a command's terminal, or send it a signal"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.order(call, arguments) },
    Method(
      name: "event.subscribe", role: .viewer, arguments: ["after", "apps", "follow", "limit"], streams: true,
      summary: "events from a cursor on"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.events(call, arguments) },
    Method(
      name: "call.list", role: .viewer, arguments: [], streams: false,
      summary: "what apps may ask, and what they need for it"
    ) { (_, _, _) throws(RPCFailure) in .array(CallTable.listing) },
    Method(
      name: "perm.list", role: .viewer, arguments: ["app"], streams: false,
      summary: "what each instance of an app that is there may ask"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.permissions(arguments) },
    Method(
      name: "perm.grant", role: .owner, arguments: ["app", "capability"], streams: false,
      summary: "let an app ask for something beside its policy, from now on"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.decide(.granted, arguments) },
    Method(
      name: "perm.revoke", role: .owner, arguments: ["app", "capability"], streams: false,
      summary: "deny an app something whatever its policy says, from its next call on"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.decide(.revoked, arguments) },
    Method(
      name: "perm.reset", role: .owner, arguments: ["app", "capability"], streams: false,
      summary: "take back what was granted or revoked: its policy decides again"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.decide(nil, arguments) },
    Method(
      name: "perm.watch", role: .operator, arguments: ["follow"], streams: true,
      summary: "what apps ask a person for; items are questions, and with follow what becomes of each"
    ) { (service, call, arguments) throws(RPCFailure) in try await service.watchPrompts(call, arguments) },
    Method(
      name: "perm.answer", role: .owner, arguments: ["request", "answer"], streams: false,
      summary: "answer an app's question: once, session, always or never", recordsItself: true
    ) { (service, _, arguments) throws(RPCFailure) in try await service.answer(arguments) },
    Method(
      name: "perm.audit", role: .operator, arguments: ["app", "limit"], streams: false,
      summary: "calls of an app that were judged, newest first: what was denied, and all that privileged apps ask"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.judged(arguments) },
    imageMethod("image.list", [], "images of the engine and of the own store"),
    imageMethod("image.inspect", ["reference"], "what an image's config says: user, volumes, ports, stop signal"),
    imageMethod("image.pull", ["reference"], "pull; items are progress"),
    imageMethod(
      "image.load", ["fd", "into"], "load an archive into the engine or the supervisor's own store; items are progress"),
    imageMethod("image.adopt", ["reference"], "copy an image from the engine into the own store; items are progress"),
    imageMethod("image.remove", ["reference"], "remove an image, or one of its names, from the own store"),
    imageMethod("image.build", ["fd", "dockerfile", "tag", "arguments"], "build; items are progress"),
    imageMethod("image.prune", [], "remove images nothing uses"),
    Method(
      name: "daemon.reload", role: .admin, scope: .everything, arguments: [], streams: false,
      summary: "read config.yaml and the config folder again"
    ) { (service, _, _) throws(RPCFailure) in await service.parts.reload() },
    Method(
      name: "daemon.prune", role: .admin, scope: .everything, arguments: ["volumes", "dry_run"], streams: false,
      summary:
        "remove what is ours and nothing uses: ended containers, images without a name, logs; with volumes also data"
    ) { (service, _, arguments) throws(RPCFailure) in try await service.prune(arguments) },
    Method(
      name: "daemon.stop", role: .admin, scope: .everything, arguments: [], streams: false,
      summary: "end the daemon; apps run on"
    ) {
      (service, _, _) throws(RPCFailure) in
      service.parts.stop()
      return .object([:])
    },
  ]

  private static func imageMethod(_ name: String, _ arguments: [String], _ summary: String) -> Method {
    Method(
      name: name, role: isLooking(name) ? .viewer : .owner,
      // Archives bring names of their own, and what nothing uses now may be another's.
      scope: ["image.load", "image.adopt", "image.remove", "image.prune"].contains(name) ? .everything : .apps,
      arguments: arguments,
      streams: !isLooking(name), summary: summary
    ) { (service, call, _) throws(RPCFailure) in
      let tag = name == "image.build" ? call.parameters["tag"]?.stringValue : nil
      if let tag, service.access.everywhere.map({ $0 < .owner }) ?? true, !service.access.owns(tag) {
        throw RPCFailure(
          .denied, "the image '\(tag)' may be another stack's",
          hint: "one who does not own every stack builds images whose name begins with her stack's")
      }
      let image = ImageCall(
        method: name, arguments: call.parameters, descriptors: call.descriptors, reader: service.access.loader)
      return try await service.parts.image(image) { try await call.send($0) }
    }
  }

  private static func isLooking(_ name: String) -> Bool { name == "image.list" || name == "image.inspect" }

  private static func describe(_ method: Method) -> JSONValue {
    .object([
      "method": .string(method.name), "role": .string(method.role.rawValue), "scope": .string(method.scope.rawValue),
      "arguments": .array(method.arguments.map { .string($0) }),
      "streams": .bool(method.streams), "summary": .string(method.summary),
    ])
  }
}
