internal import FileSystems
internal import Linux
internal import Model
internal import RPC

/// fs: what happens to files, as items ahead of an answer that comes when it is over.
let watchCalls: [Call] = [
  Call(
    name: "fs.watch", aliases: ["WatchFiles"],
    arguments: [.init("path", .text), .init("timeout_ms", .number, required: false)], right: .fileRead,
    judgesItself: true,
    summary:
      "what happens to a folder, right in it, or to a file: items {watch}, then {event, name}, until fs.unwatch, $/cancel or "
      + "the time is over"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let time = try arguments.duration("timeout_ms")
    let rules = caller.rights
    let version = caller.version
    let audits = try interface.judge([(.fileRead, path)], "fs.watch", caller)
    return .later { () throws(RPCFailure) in
      try await interface.keep(audits)
      let (watch, real) = try await interface.work("fs.watch", path, caller, arguments, rules) {
        (files) throws(FileProblem) in try files.watch(path)
      }
      try await interface.confirm([(.fileRead, real)], since: version, caller)
      return try await interface.follow(watch, real, caller, arguments.call, time)
    }
  },
  Call(
    name: "fs.unwatch", aliases: ["UnwatchFiles"], arguments: [.init("watch", .number)],
    summary: "ends a watch, whose call is answered then; `ended`: whether there was one"
  ) { (_, caller, arguments) throws(RPCFailure) in
    let watched = caller.files.watches[try arguments.integer("watch") ?? 0]
    watched?.end(revoked: false)
    return .now(.object(["ended": .bool(watched != nil)]))
  },
]

/// One watch under way. Touched on the interface's loop.
struct Watched {
  let path: AppPath
  fileprivate let told: AsyncStream<Told>.Continuation

  func end(revoked: Bool) {
    if revoked { told.yield(.revoked) }
    told.finish()
  }
}

private enum Told: Sendable {
  case events([PlaceWatch.Event])
  case revoked
}

extension AppInterface {
  /// Watches of one instance.
  private static let mostWatches = 4
  /// Reads from the kernel that may wait for a peer that is slow; then the kernel is not asked, and says itself what it had to drop.
  private static let mostWaiting = 16

  fileprivate func follow(
    _ watch: PlaceWatch, _ path: AppPath, _ caller: Caller, _ call: RPCCall, _ time: Duration?
  ) async throws(RPCFailure) -> JSONValue {
    guard caller.files.watches.count < Self.mostWatches else {
      throw RPCFailure(
        .quota, "an app watches at most \(Self.mostWatches) places at once",
        data: .object(["limit": .integer(Int64(Self.mostWatches)), "hint": "end one with fs.unwatch"]))
    }
    let number = (caller.files.watches.keys.max() ?? 0) + 1
    let (stream, told) = AsyncStream.makeStream(of: Told.self, bufferingPolicy: .bufferingOldest(Self.mostWaiting))
    caller.files.watches[number] = Watched(path: path, told: told)
    defer {
      caller.files.watches[number] = nil
      watch.withRaw { loop.unwatch($0) }
    }
    let timer = time.map { time in loop.schedule(after: time) { told.finish() } }
    defer { if let timer { loop.cancel(timer) } }
    var isRevoked = false
    do {
      try watch.withRaw { (raw) throws(SystemFault) in
        try loop.watch(raw, .read) { [loop] _ in
          // The last place is for a right that is taken away.
          if case .enqueued(let left) = told.yield(.events(watch.take())), left <= 1 { loop.setInterest(raw, []) }
        }
      }
      try await call.send(.object(["watch": .integer(number)]))
      for await one in stream {
        guard case .events(let events) = one else {
          isRevoked = true
          break
        }
        watch.withRaw { loop.setInterest($0, .read) }
        for event in events {
          try await call.send(.object(["event": .string(event.kind), "name": .optional(event.name)]))
        }
      }
    } catch {
      throw RPCFailure(.closed, "the watch of \(path) has ended: its peer is gone, or the kernel has no room for it")
    }
    if isRevoked { throw RPCFailure(.revoked, "the right to watch \(path) was taken away") }
    return .object(["watch": .integer(number)])
  }
}
