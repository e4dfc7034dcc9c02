internal import Linux
internal import Model
internal import RPC
internal import Supervision

extension ControlService {
  /// `app.stats`: one item with a row for each running app, and with `interval_ms` another each time that is over.
  func statistics(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    var ids: [AppID]?
    if let names = try arguments.texts("apps"), !names.isEmpty {
      ids = try await resolve(names)
    } else if access.everywhere == nil {
      ids = await visible().map(\.id)
    }
    // Often enough for a graph, rarely enough to cost nothing.
    let interval = try arguments.integer("interval_ms").map { Duration.milliseconds(max(100, min($0, 3_600_000))) }
    var series = StatisticsSeries()
    let asked = try arguments.flag("settle")
    let settles = asked || interval != nil
    do {
      // Two looks, so that the first row says what is used now.
      if settles {
        _ = await supervisor.statistics(ids, &series)
        try await Task.sleep(for: min(interval ?? .milliseconds(500), .milliseconds(500)))
      }
      while true {
        let rows = await supervisor.statistics(ids, &series)
        try await call.send(.object(["time": .integer(Clock.wall().nanoseconds), "apps": .array(rows.map(\.json))]))
        guard let interval else { return .object([:]) }
        try await Task.sleep(for: interval)
      }
    } catch { throw RPCFailure(.closed, "cancelled") }
  }
}

extension AppStatistics {
  /// The keys of `stats --format json`; keys are only ever added.
  var json: JSONValue {
    func rounded(_ value: Double?) -> JSONValue { value.map { .number(($0 * 100).rounded() / 100) } ?? .null }
    let details = usage.details ?? UsageDetails()
    var object = JSONObject()
    object["name"] = .string(id.name)
    object["runtime"] = .string(runtime.rawValue)
    object["cpu_percent"] = rounded(cpuPercent)
    object["cpu_seconds"] = rounded(Double(usage.cpuNanoseconds) / 1e9)
    object["throttled_percent"] = rounded(throttledPercent)
    object["memory"] = .count(usage.memory.count)
    object["memory_limit"] = .optional(usage.memoryLimit?.count)
    object["memory_peak"] = .optional(usage.memoryPeak?.count)
    object["memory_at_limit"] = .optional(details.memoryAtLimit)
    object["swap"] = .optional(details.swap?.count)
    object["oom_kills"] = .optional(details.outOfMemoryKills)
    object["pids"] = .count(usage.pids)
    object["pids_limit"] = .optional(details.pidsLimit)
    object["pids_peak"] = .optional(details.pidsPeak)
    object["net_received"] = .optional(details.received)
    object["net_sent"] = .optional(details.sent)
    object["block_read"] = .optional(details.blockRead)
    object["block_written"] = .optional(details.blockWritten)
    object["cpu_pressure"] = rounded(details.cpuPressure)
    object["memory_pressure"] = rounded(details.memoryPressure)
    object["io_pressure"] = rounded(details.ioPressure)
    return .object(object)
  }
}

extension ControlService {
  /// `app.top`
  func top(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    guard let name = try arguments.text("app"), let id = try await resolve([name]).first else {
      throw RPCFailure(.invalidParameters, "app is missing")
    }
    do throws(OperationFailure) {
      let rows = try await supervisor.processes(of: id).prefix(4096).compactMap { ProcessRow($0)?.json }
      return .object(["processes": .array(Array(rows))])
    } catch { throw RPCFailure(error) }
  }
}

/// One process, as /proc has it (proc(5)).
private struct ProcessRow {
  var json: JSONValue

  /// Nil: it is gone.
  init?(_ pid: Int32) {
    guard let status = try? File.text("/proc/\(pid)/status"), let stat = try? File.text("/proc/\(pid)/stat"),
      let close = stat.lastIndex(of: ")")
    else { return nil }
    // After the name, which may hold anything: state is the third field.
    let fields = stat[stat.index(after: close)...].split(separator: " ")
    guard fields.count > 20 else { return nil }
    func line(_ key: String) -> Substring? {
      status.split(separator: "\n").first { $0.hasPrefix("\(key):") }?.dropFirst(key.utf8.count + 1).drop { $0 == "\t" }
    }
    let arguments = ((try? File.text("/proc/\(pid)/cmdline")) ?? "").split(separator: "\0").joined(separator: " ")
    let name = String(line("Name") ?? "")
    let ticks = (Double(fields[11]) ?? 0) + (Double(fields[12]) ?? 0)
    json = .object([
      "pid": .integer(Int64(pid)), "ppid": .integer(Int64(fields[1]) ?? 0),
      "uid": .integer(line("Uid").flatMap { Int64($0.prefix { $0 != "\t" }) } ?? 0),
      "state": .string(String(fields[0])),
      "threads": .integer(Int64(fields[17]) ?? 1), "cpu_seconds": .number(ticks / 100),
      "rss": .integer((Int64(fields[21]) ?? 0) * 4096),
      "command": .string(arguments.isEmpty ? "[\(name)]" : String(arguments.prefix(4096))),
    ])
  }
}
