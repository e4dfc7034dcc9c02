package import Model

/// Usage of one container, about once a second.
package typealias StatsStream = EngineStream<JSONLines<ContainerStats>>

/// Usage of a container as the Engine read it from its cgroup.
package struct ContainerStats: Sendable, Equatable {
  package var time: WallTime?
  /// CPU time used so far, nanoseconds.
  package var cpuNanoseconds: UInt64
  package var throttledNanoseconds: UInt64
  /// Bytes, the page cache that can be dropped at once left out.
  package var memory: UInt64
  package var memoryLimit: UInt64
  package var pids: UInt64
  package var networkReceived: UInt64
  package var networkSent: UInt64
  package var blockRead: UInt64
  package var blockWritten: UInt64
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    func count(_ value: JSONValue?) -> UInt64 {
      if let whole = value?.integerValue { return UInt64(clamping: whole) }
      // "No limit" is written as a number beyond 63 bits.
      guard let number = value?.numberValue, number > 0 else { return 0 }
      return number < 1.8e19 ? UInt64(number) : .max
    }
    let memory = json["memory_stats"]
    time = WallTime(rfc3339: json.text("read"))
    cpuNanoseconds = count(json["cpu_stats"]?["cpu_usage"]?["total_usage"])
    throttledNanoseconds = count(json["cpu_stats"]?["throttling_data"]?["throttled_time"])
    let inactive = count(memory?["stats"]?["total_inactive_file"] ?? memory?["stats"]?["inactive_file"])
    let usage = count(memory?["usage"])
    self.memory = usage > inactive ? usage - inactive : usage
    memoryLimit = count(memory?["limit"])
    pids = count(json["pids_stats"]?["current"])
    var received: UInt64 = 0
    var sent: UInt64 = 0
    for (_, network) in json["networks"]?.objectValue ?? JSONObject() {
      received &+= count(network["rx_bytes"])
      sent &+= count(network["tx_bytes"])
    }
    networkReceived = received
    networkSent = sent
    var read: UInt64 = 0
    var written: UInt64 = 0
    for entry in json["blkio_stats"]?.list("io_service_bytes_recursive") ?? [] {
      switch entry.text("op").lowercased() {
      case "read": read &+= count(entry["value"])
      case "write": written &+= count(entry["value"])
      default: break
      }
    }
    blockRead = read
    blockWritten = written
  }
}

extension Engine {
  /// `GET /containers/{id}/stats`: usage about once a second (podman: every 5) for as long as it is read. `timedOut` when nothing
  /// came for `idle`.
  package func containerStats(_ id: String, idle: Duration? = nil) async throws(EngineFailure) -> StatsStream {
    let request = statsRequest(id, stream: true)
    let (_, bytes) = try await transport.open(request, idle: idle)
    return StatsStream(
      bytes,
      JSONLines(operation: request.operation, lineLimit: transport.limits.line) { (json) throws(EngineFailure) in
        ContainerStats(json)
      })
  }

  /// Usage now, read once.
  package func containerUsage(_ id: String) async throws(EngineFailure) -> ContainerStats {
    ContainerStats(try await document(statsRequest(id, stream: false)))
  }

  private func statsRequest(_ id: String, stream: Bool) -> Request {
    var request = request(.get, "/containers/\(Request.encode(id))/stats", "read the usage of container \(id)")
    request.query = stream ? [("stream", "1")] : [("stream", "0"), ("one-shot", "1")]
    return request
  }
}
