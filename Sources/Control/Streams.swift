internal import Linux
internal import Model
internal import RPC
internal import Supervision

extension ControlService {
  // MARK: Logs

  func logs(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    guard let names = try arguments.texts("apps"), !names.isEmpty else {
      throw RPCFailure(.invalidParameters, "apps must name at least one app")
    }
    let ids = try await resolve(names)
    if let number = try arguments.integer("run") { return try await logs(ofRun: number, ids, call, arguments) }
    let follow = try arguments.flag("follow")
    let query = LogQuery(
      follow: follow, tail: try arguments.integer("tail").map { Int(clamping: $0) },
      since: try arguments.integer("since_ns").map { WallTime(nanoseconds: $0) },
      until: try arguments.integer("until_ns").map { WallTime(nanoseconds: $0) })
    do {
      try await withThrowingTaskGroup(of: Void.self) { group in
        for id in ids { group.addTask { try await self.copyLog(of: id, query, to: call) } }
        try await group.waitForAll()
      }
    } catch let failure as RPCFailure {
      throw failure
    } catch is CancellationError {
      throw RPCFailure(.closed, "cancelled")
    } catch { throw RPCFailure(.fault, "the log cannot be read: \(error)") }
    return .object([:])
  }

  /// What one ended run of each wrote, as far as it is kept; at least the last lines that were kept with its end.
  private func logs(ofRun number: Int64, _ ids: [AppID], _ call: RPCCall, _ arguments: Arguments)
    async throws(RPCFailure)
    -> JSONValue
  {
    for id in ids {
      let exit = try await run(number, of: id)
      let query = LogQuery(
        tail: try arguments.integer("tail").map { Int(clamping: $0) },
        // Not what a run of the same number wrote before the app was removed and known again.
        since: (try arguments.integer("since_ns") ?? exit.facts["started_at"]?.integerValue.map { $0 - 1_000_000_000 })
          .map { WallTime(nanoseconds: $0) },
        until: try arguments.integer("until_ns").map { WallTime(nanoseconds: $0) }, run: exit.run)
      do {
        var isEmpty = true
        for try await chunk in try await supervisor.logs(id, query) {
          isEmpty = false
          try await call.send(Self.json(chunk, id))
        }
        guard isEmpty, !exit.output.isEmpty, query.tail != 0 else { continue }
        let time = exit.facts["ended_at"]?.integerValue ?? 0
        let kept = LogChunk(time: WallTime(nanoseconds: time), stream: .output, bytes: Array(exit.output.utf8))
        try await call.send(Self.json(kept, id))
      } catch is CancellationError {
        throw RPCFailure(.closed, "cancelled")
      } catch { throw RPCFailure(.fault, "the log cannot be read: \(error)") }
    }
    return .object([:])
  }

  /// One app's output; a follower goes on with the next instance after a restart.
  private func copyLog(of id: AppID, _ first: LogQuery, to call: RPCCall) async throws {
    var query = first
    while true {
      let generation = await supervisor.generation(id)
      var last: WallTime?
      for try await chunk in try await supervisor.logs(id, query) {
        last = chunk.time
        try await call.send(Self.json(chunk, id))
      }
      guard first.follow else { return }
      // What comes next comes from another instance: wait until there is one, or there will be none.
      guard try await nextInstance(of: id, after: generation) else { return }
      query.tail = nil
      query.since = last.map { WallTime(nanoseconds: $0.nanoseconds + 1) } ?? query.since
    }
  }

  private func nextInstance(of id: AppID, after generation: UInt64) async throws -> Bool {
    let events = await supervisor.observe()
    func arrived() async -> Bool? {
      let now = await supervisor.generation(id)
      if now != 0, now != generation { return true }
      return await supervisor.mayRunAgain(id) ? nil : false
    }
    if let answer = await arrived() { return answer }
    for await event in events where event.app == id {
      if let answer = await arrived() { return answer }
    }
    try Task.checkCancellation()
    return false
  }

  /// Text where the bytes are UTF-8, base64 where not.
  private static func json(_ chunk: LogChunk, _ id: AppID) -> JSONValue {
    let text = String(validating: chunk.bytes, as: UTF8.self)
    return .object([
      "app": .string(id.name), "time": .integer(chunk.time.nanoseconds),
      "stream": .string(chunk.stream == .output ? "stdout" : "stderr"),
      "text": text.map { .string($0) }, "base64": text == nil ? .string(Base64.encode(chunk.bytes)) : nil,
    ])
  }

  // MARK: Events

  func events(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    var filter: Set<AppID>?
    if let names = try arguments.texts("apps"), !names.isEmpty { filter = Set(try await resolve(names)) }
    // Apps that come later are not followed by one who may not see every stack: their stack may be another's.
    if filter == nil, access.everywhere == nil { filter = Set(await visible().map(\.id)) }
    let follow = try arguments.flag("follow")
    let live = await supervisor.observe()
    let newest = await supervisor.lastCursor
    var cursor = try arguments.integer("after") ?? (follow ? newest : 0)
    let limit = Int(clamping: try arguments.integer("limit") ?? 1_000_000)
    var sent = 0
    do {
      while sent < limit {
        let page = try await supervisor.history(after: cursor, limit: 500)
        guard !page.isEmpty else { break }
        for event in page {
          cursor = event.cursor
          guard filter == nil || event.app.map({ filter?.contains($0) ?? true }) ?? false, sent < limit else {
            continue
          }
          try await call.send(event.json)
          sent += 1
        }
      }
      if follow {
        for await event in live where event.cursor > cursor {
          guard filter == nil || event.app.map({ filter?.contains($0) ?? true }) ?? false else { continue }
          try await call.send(event.json)
        }
      }
    } catch is CancellationError {
      throw RPCFailure(.closed, "cancelled")
    } catch { throw RPCFailure(.fault, "\(error)") }
    return .object(["cursor": .integer(cursor)])
  }
}
