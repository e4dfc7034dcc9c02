package import Model

/// Which logs are wanted.
package struct LogsQuery: Sendable, Equatable {
  package var follow: Bool
  package var output = true
  package var errors = true
  /// The last so many lines; nil: all.
  package var tail: Int?
  package var since: WallTime?
  package var until: WallTime?
  /// Chunks carry the time the Engine received them.
  package var timestamps: Bool

  package init(follow: Bool = false, tail: Int? = nil, since: WallTime? = nil, timestamps: Bool = false) {
    self.follow = follow
    self.tail = tail
    self.since = since
    self.timestamps = timestamps
  }
}

extension Engine {
  /// `GET /containers/{id}/logs`. The stream ends at the end of the log, or when a followed container has ended; it has every byte
  /// the Engine kept, however slow the reader is.
  ///
  /// Whether the container has a terminal decides how its output is framed; `terminal` spares asking.
  package func containerLogs(_ id: String, _ query: LogsQuery = LogsQuery(), terminal: Bool? = nil)
    async throws(EngineFailure) -> ContainerOutput
  {
    let raw: Bool
    if let terminal { raw = terminal } else { raw = try await inspectContainer(id).terminal }
    let completes = query.follow && differences.followCutsEnd
    let times: OutputDecoder.Times = query.timestamps ? .told : (completes ? .hidden : .none)
    let request = logsRequest(id, query, times)
    let (_, bytes) = try await transport.open(request)
    let decoder = OutputDecoder(
      operation: request.operation, raw: raw, times: times, frameLimit: transport.limits.frame)
    guard completes else { return ContainerOutput(bytes, decoder) }
    return ContainerOutput(bytes, decoder) { (first) throws(EngineFailure) in
      try await rest(of: id, query, times, after: first)
    }
  }

  /// The log from the start, without following, for what a follow may have cut off.
  private func rest(of id: String, _ query: LogsQuery, _ times: OutputDecoder.Times, after first: OutputDecoder)
    async throws(EngineFailure) -> (ByteStream, OutputDecoder)?
  {
    guard let decoder = first.again else { return nil }
    var query = query
    query.follow = false
    // What was delivered is told by its times; counted from the end, nothing would match.
    if decoder.hasBegun { query.tail = nil }
    do throws(EngineFailure) {
      return (try await transport.open(logsRequest(id, query, times)).bytes, decoder)
    } catch .notFound {
      // Removed as soon as it ended: what was followed is all there is.
      return nil
    }
  }

  private func logsRequest(_ id: String, _ query: LogsQuery, _ times: OutputDecoder.Times) -> Request {
    var request = request(.get, "/containers/\(Request.encode(id))/logs", "read the logs of container \(id)")
    request.query = [
      ("follow", query.follow ? "1" : "0"), ("stdout", query.output ? "1" : "0"), ("stderr", query.errors ? "1" : "0"),
      ("timestamps", times == .none ? "0" : "1"), ("tail", query.tail.map { String($0) } ?? "all"),
    ]
    if let since = query.since { request.query.append(("since", since.engineText)) }
    if let until = query.until { request.query.append(("until", until.engineText)) }
    return request
  }
}
