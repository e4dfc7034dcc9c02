internal import Linux
internal import Model
package import RPC
package import Supervision

extension RPCFailure {
  package init(_ failure: OperationFailure) {
    switch failure {
    case .noSuchApp(let id): self.init(.notFound, "no app is named '\(id)'", hint: "`supervisor ps -a` lists them all")
    case .notRunning(let id): self.init(.conflict, "\(id) is not running", data: .object(["reason": "not_running"]))
    case .storage(let failure):
      self.init(.fault, "\(failure)", hint: "nothing was changed; free some space and try again")
    case .stopNotStored(let failure):
      self.init(
        .fault, "the apps are being stopped, but \(failure)",
        hint: "free some space and stop them again; until then the next daemon would start them")
    case .host(let failure): self.init(.fault, failure.message, hint: failure.hint)
    case .invalid(let message, let hint): self.init(.invalidParameters, message, hint: hint)
    }
  }
}

extension ControlService {
  func version() async -> JSONValue {
    .object([
      "api": 1, "version": .string(facts.version), "pid": .integer(Int64(facts.pid)), "root": .string(facts.root),
      "instance": .string(facts.layout.id), "name": .string(facts.layout.name),
      "cgroup_parent": .string(facts.layout.cgroupParent),
      "engine": await parts.engine(),
    ])
  }

  // MARK: Which apps

  /// The apps that the caller may see.
  func visible() async -> [(id: AppID, stack: String, origin: String)] {
    await supervisor.known.filter { access.role(in: $0.stack) != nil }
  }

  /// Names and `@stack`s as ids, each once, in the order given; every name must be known to the caller, who must have in its
  /// stack the role that the call needs.
  func resolve(_ names: [String]) async throws(RPCFailure) -> [AppID] {
    let known = await visible()
    var ids: [AppID] = []
    var asked: Set<String> = []
    for name in names where asked.insert(name).inserted {
      guard asked.count <= Self.mostNames else {
        throw RPCFailure(
          .invalidParameters, "a call names at most \(Self.mostNames) apps and stacks", hint: "name stacks, as @STACK")
      }
      var found: [AppID]
      if name.hasPrefix("@") {
        found = known.filter { $0.stack == name.dropFirst() }.map(\.id)
        if found.isEmpty {
          throw RPCFailure(
            .notFound, "no app is in the stack '\(name.dropFirst())'", hint: "`supervisor ps -a` lists them all")
        }
      } else {
        found = known.filter { $0.id.name == name }.map(\.id)
        if found.isEmpty {
          throw RPCFailure(.notFound, "no app is named '\(name)'", hint: nearest(name, known.map(\.id.name)))
        }
      }
      for app in known where found.contains(app.id) {
        guard let role = access.role(in: app.stack), role >= needed else {
          throw access.denied("this call on \(app.id)", needed, in: app.stack)
        }
      }
      for id in found where !ids.contains(id) { ids.append(id) }
    }
    return ids
  }

  /// Names in one call: each is looked for among all apps.
  private static let mostNames = 4096

  private func nearest(_ name: String, _ names: [String]) -> String {
    let close = names.first { $0.hasPrefix(name) || name.hasPrefix($0) }
    return close.map { "did you mean '\($0)'? " } ?? "`supervisor ps -a` lists them all"
  }

  private func named(_ arguments: Arguments) async throws(RPCFailure) -> [AppID] {
    guard let names = try arguments.texts("apps"), !names.isEmpty else {
      throw RPCFailure(.invalidParameters, "apps must name at least one app")
    }
    return try await resolve(names)
  }

  func one(_ arguments: Arguments) async throws(RPCFailure) -> AppID {
    guard let name = try arguments.text("app") else { throw RPCFailure(.invalidParameters, "app is missing") }
    guard let id = try await resolve([name]).first else { throw RPCFailure(.notFound, "no app is named '\(name)'") }
    return id
  }

  // MARK: Reading

  func list(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    var ids: [AppID]?
    if let names = try arguments.texts("apps"), !names.isEmpty {
      ids = try await resolve(names)
    } else if access.everywhere == nil {
      ids = await visible().map(\.id)
    }
    // Taken first: what happens after it is not in the list for certain, and in `event.subscribe` from there on.
    let cursor = await supervisor.lastCursor
    return .object(["apps": .array(await supervisor.reports(ids).map(\.json)), "cursor": .integer(cursor)])
  }

  func status(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let id = try await one(arguments)
    guard let report = await supervisor.reports([id]).first, var object = report.json.objectValue else {
      throw RPCFailure(.notFound, "no app is named '\(id)'")
    }
    do throws(HostFailure) {
      let layers = try await supervisor.layers(id)
      object["layers"] = .array(layers.map(\.json))
    } catch { object["layers_error"] = .string(error.description) }
    object["healthcheck"] = report.health?.json ?? .null
    object["said"] = .optional(report.said)
    object["pre_start"] = .optional(report.preStart)
    object["nonce"] = report.instance.map { .string($0.nonce) } ?? .null
    object["origin"] = .string(report.origin)
    object["depends_on"] = .array(report.policy.dependencies.map { .string($0.app.name) })
    object["schedule"] = report.policy.schedule.map { .string("\($0.cron) (\($0.timezone))") } ?? .null
    object["restart"] = .string(report.policy.restart.text)
    object["policy"] = report.policy.given
    object["exit"] =
      report.exit.map {
        .object([
          "code": .integer(Int64($0.exitCode)), "reason": .string($0.reason), "oom": .bool($0.outOfMemory),
          "started_at": $0.startedAt.map { .integer($0.nanoseconds) } ?? .null,
          "ended_at": .integer($0.endedAt.nanoseconds),
        ])
      } ?? .null
    return .object(object)
  }

  func config(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let id = try await one(arguments)
    guard let copy = await supervisor.applied(id) else { throw RPCFailure(.notFound, "no app is named '\(id)'") }
    return .object(["canonical": .string(copy.canonical), "folder": .string(copy.folder), "file": .string(copy.file)])
  }

  // MARK: Wishes

  private func wish(_ want: Want, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let ids = try await named(arguments)
    let grace = try arguments.duration("grace_ms")
    do throws(OperationFailure) { try await supervisor.want(want, ids, grace: grace) } catch {
      throw RPCFailure(error)
    }
    return Self.names(ids)
  }

  static func names(_ ids: [AppID]) -> JSONValue { .object(["apps": .array(ids.map { .string($0.name) })]) }

  func start(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue { try await wish(.running, arguments) }
  func stop(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue { try await wish(.stopped, arguments) }

  func restart(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let ids = try await named(arguments)
    let grace = try arguments.duration("grace_ms")
    do throws(OperationFailure) { try await supervisor.restart(ids, grace: grace) } catch { throw RPCFailure(error) }
    return Self.names(ids)
  }

  func kill(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let ids = try await named(arguments)
    let text = try arguments.text("signal") ?? "KILL"
    guard let number = SignalName.number(text) else {
      throw RPCFailure(
        .invalidParameters, "'\(text)' is not a signal",
        hint: "for example TERM, HUP, USR1, KILL or a number from 1 to 64")
    }
    do throws(OperationFailure) { try await supervisor.signal(number, ids) } catch { throw RPCFailure(error) }
    return Self.names(ids)
  }

  func hurry(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let ids = try await named(arguments)
    await supervisor.hurry(ids)
    return Self.names(ids)
  }

  func pause(_ arguments: Arguments, _ paused: Bool) async throws(RPCFailure) -> JSONValue {
    let ids = try await named(arguments)
    do throws(OperationFailure) { try await supervisor.setPaused(paused, ids) } catch { throw RPCFailure(error) }
    return Self.names(ids)
  }

  // MARK: Waiting

  func await(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    try await follow(
      call, try await named(arguments), try arguments.integer("timeout_ms"),
      untilReady: try arguments.flag("ready"))
  }

  /// Sends the events of `ids` until each is what it is wanted to be, or will not get there, or the time is over.
  func follow(_ call: RPCCall, _ ids: [AppID], _ timeout: Int64?, untilReady: Bool = false)
    async throws(RPCFailure) -> JSONValue
  {
    let events = await supervisor.observe()
    // As long as a month is as good as for ever, and cannot overflow.
    let deadline = timeout.map { Clock.monotonic() + min(max($0, 0), 1 << 32) * 1_000_000 }
    return try await waitUntilSettled(call, ids, events, deadline, untilReady)
  }

  private func waitUntilSettled(
    _ call: RPCCall, _ ids: [AppID], _ events: AsyncStream<Event>, _ deadline: Int64?, _ untilReady: Bool
  ) async throws(RPCFailure) -> JSONValue {
    enum Turn: Sendable { case event(Event), timeout }
    var open = Set(ids)
    var stuck = JSONObject()
    let (turns, feed) = AsyncStream.makeStream(of: Turn.self)
    let pump = Task {
      for await event in events { feed.yield(.event(event)) }
    }
    let timer = deadline.map { deadline in
      Task {
        // Cancelled with the wait.
        do { try await Task.sleep(for: .nanoseconds(max(0, deadline - Clock.monotonic()))) } catch { return }
        feed.yield(.timeout)
      }
    }
    defer {
      pump.cancel()
      timer?.cancel()
      feed.finish()
    }
    await sift(&open, &stuck, untilReady)
    if open.isEmpty { return Self.settled(stuck, open, timedOut: false) }
    for await turn in turns {
      switch turn {
      case .timeout: return Self.settled(stuck, open, timedOut: true)
      case .event(let event):
        guard let app = event.app, ids.contains(app) else { continue }
        do { try await call.send(event.json) } catch { throw RPCFailure(.closed, "the caller is gone") }
        await sift(&open, &stuck, untilReady)
        if open.isEmpty { return Self.settled(stuck, open, timedOut: false) }
      }
    }
    throw RPCFailure(.closed, "cancelled")
  }

  private func sift(_ open: inout Set<AppID>, _ stuck: inout JSONObject, _ untilReady: Bool) async {
    for id in open {
      switch await supervisor.progress(of: id, untilReady: untilReady) {
      case .underWay: break
      case .done: open.remove(id)
      case .stuck(let why):
        stuck[id.name] = .string(why)
        open.remove(id)
      }
    }
  }

  private static func settled(_ stuck: JSONObject, _ open: Set<AppID>, timedOut: Bool) -> JSONValue {
    .object([
      "failed": .object(stuck), "waiting": .array(open.map(\.name).sorted().map { .string($0) }),
      "timed_out": .bool(timedOut),
    ])
  }

  /// `daemon.prune`
  func prune(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let supervisor = supervisor
    return try await parts.prune(
      PruneRequest(
        volumes: try arguments.flag("volumes"), dryRun: try arguments.flag("dry_run"),
        known: { Set(await supervisor.known.map(\.id)) }, volumesInUse: { await supervisor.volumesInUse },
        releaseIDs: { await supervisor.releaseIDs($0) }))
  }

  // MARK: Down

  func down(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let known = await visible().filter { access.role(in: $0.stack).map { $0 >= needed } ?? false }
    var ids: [AppID] = []
    if let names = try arguments.texts("apps"), !names.isEmpty { ids += try await resolve(names) }
    if let origin = try arguments.text("origin") { ids += known.filter { $0.origin == origin }.map(\.id) }
    if try arguments.flag("all") { ids = known.map(\.id) }
    var policies: [AppID: Policy] = [:]
    for report in await supervisor.reports(ids) { policies[report.id] = report.policy }
    let grace = try arguments.duration("grace_ms")
    do throws(OperationFailure) { try await supervisor.want(.removed, ids, grace: grace) } catch {
      throw RPCFailure(error)
    }
    let outcome = try await follow(call, ids, try arguments.integer("timeout_ms"))
    var removed: [String] = []
    if try arguments.flag("data") {
      // Of those that are gone: one that takes longer than the caller waited may still be writing.
      let left = await supervisor.known.map(\.id)
      for id in ids where !left.contains(id) {
        guard let policy = policies[id] else { continue }
        removed += try await parts.removeData(of: policy)
        if !policy.leavesFiles(volumes: await supervisor.volumesInUse) { await supervisor.releaseIDs(id) }
      }
    }
    var object = outcome.objectValue ?? JSONObject()
    object["apps"] = .array(ids.map { .string($0.name) })
    object["removed_data"] = .array(removed.map { .string($0) })
    object["data"] = .array(ids.map { .string(facts.layout.appData($0)) })
    return .object(object)
  }
}

extension Policy {
  /// Whether files of this app's ids may be left when its own data is gone, `volumes` being there still: then nobody else gets
  /// those ids.
  fileprivate func leavesFiles(volumes: Set<String>) -> Bool {
    mounts.contains { mount in
      guard !mount.readOnly else { return false }
      switch mount.kind {
      case .volume(let name, external: let isExternal): return isExternal || volumes.contains(name)
      case .bind: return true
      case .memory: return false
      }
    }
  }
}

extension RestartRule {
  /// As a policy writes it.
  var text: String {
    switch self {
    case .no: "no"
    case .always: "always"
    case .unlessStopped: "unless-stopped"
    case .onFailure(let maximum): maximum.map { "on-failure:\($0)" } ?? "on-failure"
    }
  }
}
