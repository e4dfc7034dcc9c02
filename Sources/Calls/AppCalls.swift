internal import Linux
internal import Logging
internal import Model
internal import RPC
internal import Storage

/// app: what an app may know of others, and do to them.
let appCalls: [Call] = [
  Call(
    name: "app.list", summary: "the app itself, and those it may inspect, in short"
  ) { (interface, caller, _) throws(RPCFailure) in
    .later { () throws(RPCFailure) in
      let apps = try await interface.ask(caller).apps(nil)
      return .object(["apps": .array(await interface.visible(apps, to: caller).map(\.brief))])
    }
  },
  Call(
    name: "app.info", arguments: [.init("id", .text)], right: .inspectApp, subject: "id",
    summary: "one app's state; of itself no permission is needed"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let id = try app(arguments)
    return .later { () throws(RPCFailure) in
      guard let known = try await interface.ask(caller).apps([id]).first else { throw noApp(id) }
      return known.whole
    }
  },
  Call(
    name: "app.launch", aliases: ["Launch", "LaunchApp"],
    arguments: [
      .init("id", .text), .init("args", .list, required: false), .init("detached", .flag, required: false),
    ], right: .launchApp, subject: "id",
    summary: "start an app that does not run; unless `detached` it is stopped when this run of the caller ends"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let id = try app(arguments)
    guard arguments.object["args"]?.isNull ?? true else {
      throw RPCFailure(
        .unsupported, "no policy lets its app be started with other arguments in this version",
        hint: "what \(id) is started with is `entry` of its policy")
    }
    let isDetached = try arguments.flag("detached")
    return .later { () throws(RPCFailure) in try await interface.launch(id, caller, detached: isDetached) }
  },
  Call(
    name: "app.stop", aliases: ["Terminate"], arguments: [.init("id", .text)], right: .stopApp, subject: "id",
    summary: "stop an app as its operator would, with its grace time"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let id = try app(arguments)
    return .later { () throws(RPCFailure) in
      try await interface.ask(caller).stop(id)
      return .object([:])
    }
  },
  Call(
    name: "app.exit", arguments: [.init("code", .number)],
    summary: "end this run now, every process of it; it counts as ended with this code, 0 to 255"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    guard let code = Int32(exactly: try arguments.integer("code") ?? 0), 0...255 ~= code else {
      throw RPCFailure(.invalidParameters, "code is 0 to 255")
    }
    return .later { () throws(RPCFailure) in
      try await interface.ask(caller).end(caller.instance, code: code)
      return .object([:])
    }
  },
]

private func app(_ arguments: Arguments) throws(RPCFailure) -> AppID {
  let name = try arguments.text("id") ?? ""
  guard let id = AppID(name) else { throw RPCFailure(.invalidParameters, "'\(name.prefix(64))' is no app's id") }
  return id
}

private func noApp(_ id: AppID) -> RPCFailure { RPCFailure(.notFound, "no app is named '\(id)'") }

extension AppInterface {
  /// Who is asked about apps. What is asked there costs more than a call's own time, so it is asked for only so often.
  func ask(_ caller: Caller) throws(RPCFailure) -> any AppKeeper {
    guard let keeper else { throw RPCFailure(.fault, "the supervisor is still starting", hint: "try again") }
    guard caller.mayAskKeeper(Clock.wall()) else {
      throw RPCFailure(
        .rate, "an app makes at most \(Caller.mostAsked) calls a second about apps and limits",
        hint: "event.subscribe tells what changes")
    }
    return keeper
  }

  func mayReclaim(_ caller: Caller) -> Bool { caller.mayReclaim(Clock.wall()) }

  func visible(_ apps: [KnownApp], to caller: Caller) -> [KnownApp] { apps.filter { mayInspect(caller, $0.id) } }

  func launch(_ id: AppID, _ caller: Caller, detached: Bool) async throws(RPCFailure) -> JSONValue {
    guard id != caller.instance.app else { throw RPCFailure(.conflict, "\(id) runs already: it is the caller") }
    try await ask(caller).launch(id)
    if !detached {
      // Kept first: a supervisor that ends now knows it all the same.
      let parent = Parent(app: caller.instance.app, generation: caller.instance.generation)
      children[id] = parent
      _ = try await stored { (store) throws(StorageFailure) in
        try await store.commit([.setParent(id, parent.text)], durable: true)
      }
      // The caller may have ended while this was on its way.
      if !isOpen(caller) { endChildren(of: parent) }
    } else if children.removeValue(forKey: id) != nil {
      _ = try await stored { (store) throws(StorageFailure) in try await store.commit([.setParent(id, nil)]) }
    }
    return .object(["id": .string(id.name)])
  }

  /// Stops what runs of this app have launched that are not there any more.
  func endChildren(ofGone app: AppID) {
    for parent in children.values where parent.app == app && !hasDoor(parent) { endChildren(of: parent) }
  }

  /// Stops what was launched by a run that has ended.
  func endChildren(of parent: Parent) {
    for (child, _) in children.filter({ $0.value == parent }) {
      children[child] = nil
      // Ends when the wish is stored; what cannot be stored is in the daemon's log.
      Task { [keeper, store, log] in
        // best effort: it is gone, or its operator stopped it.
        try? await keeper?.stop(child)
        do throws(StorageFailure) { try await store.commit([.setParent(child, nil)]) } catch {
          log.error("state.write_failed", metadata: ["reason": "\(error)"])
        }
      }
    }
  }
}

/// The run that launched another app.
struct Parent: Sendable, Equatable {
  var app: AppID
  var generation: UInt64

  init(app: AppID, generation: UInt64) {
    self.app = app
    self.generation = generation
  }

  /// Reads `text`; nil: it is none.
  init?(_ text: String) {
    let parts = text.split(separator: " ")
    guard parts.count == 2, let app = AppID(String(parts[0])), let generation = UInt64(parts[1]) else { return nil }
    self.init(app: app, generation: generation)
  }

  var text: String { "\(app) \(generation)" }
}

extension KnownApp {
  fileprivate var brief: JSONValue {
    .object(["id": .string(id.name), "runtime": .string(runtime.rawValue), "state": .string(state.rawValue)])
  }

  fileprivate var whole: JSONValue {
    .object([
      "id": .string(id.name), "stack": .string(stack), "runtime": .string(runtime.rawValue),
      "state": .string(state.rawValue), "status": .string(status), "health": .optional(health?.rawValue),
      "ready": isReady.map { .bool($0) } ?? .null, "restarts": .count(restarts),
      "started_at": startedAt.map { .integer($0.nanoseconds) } ?? .null,
      "exit_code": exitCode.map { .integer(Int64($0)) } ?? .null,
    ])
  }
}
