package import Model
package import Supervision

extension AppReport {
  /// The keys of `ps --format json`; keys are only ever added.
  package var json: JSONValue {
    var object = JSONObject()
    object["name"] = .string(id.name)
    object["runtime"] = .string(runtime.rawValue)
    object["image"] = .optional(image)
    object["entry"] = .array(entry.map { .string($0) })
    object["state"] = .string(word.rawValue)
    object["status"] = .string(status)
    object["health"] = .optional(health?.word.rawValue)
    object["restarts"] = .count(restarts)
    object["exit_code"] = facts == nil ? .optional(exit?.exitCode) : .null
    object["reason"] = .optional(reason)
    object["pid"] = .optional(facts?.pid)
    object["cpu_percent"] = cpuPercent.map { .number(($0 * 100).rounded() / 100) } ?? .null
    object["memory"] = .optional(usage?.memory.count)
    object["memory_limit"] = .optional((usage?.memoryLimit ?? policy.limits.memory)?.count)
    object["pids"] = .optional(usage?.pids)
    object["ports"] = .array((facts?.ports ?? policy.network.ports).map { .string($0.text) })
    object["priority"] = .count(policy.priority.value)
    object["sandbox"] = .string(policy.preset.rawValue)
    object["container_id"] = .optional(facts?.containerID)
    object["stack"] = .string(stack)
    object["generation"] = .optional(instance?.generation)
    object["wanted"] = .string(wanted)
    object["file"] = .string(file)
    object["started_at"] = .optional(facts?.startedAt.nanoseconds)
    object["ready"] = isReady.map { .bool($0) } ?? .null
    object["next_run"] = .optional(nextRun?.nanoseconds)
    object["overrides"] = .array(overrides.map(\.json))
    object["behind"] = .optional(behind)
    object["stdin_open"] = .bool(policy.opensInput)
    object["tty"] = .bool(policy.terminal)
    object["debug"] = .bool(isDebugged)
    object["missing"] = .array((facts?.missing ?? []).map { .string($0) })
    return .object(object)
  }
}

extension PublishedPort {
  /// `127.0.0.1:8080->80/tcp`, as docker prints it.
  var text: String { "\(hostAddress):\(hostPort)->\(appPort)/\(transport.rawValue)" }
}

extension HealthReport {
  /// The keys of `status`' healthcheck.
  var json: JSONValue {
    var object = JSONObject()
    object["health"] = .string(word.rawValue)
    switch check.test {
    case .command(let words): object["test"] = .array(words.map { .string($0) })
    case .http(let port, let path): object["test"] = .string("http port \(port) \(path)")
    case .tcp(let port): object["test"] = .string("tcp port \(port)")
    case .image, .none: break
    }
    object["interval_ms"] = .integer(check.interval.wholeNanoseconds / 1_000_000)
    object["timeout_ms"] = .integer(check.timeout.wholeNanoseconds / 1_000_000)
    object["retries"] = .count(check.retries)
    object["on_failure"] = .string(check.onFailure.rawValue)
    object["failing"] = .count(failing)
    if let last {
      object["last_took_us"] = .integer(last.took.wholeNanoseconds / 1000)
      switch last.outcome {
      case .healthy: object["last"] = "success"
      case .unhealthy(let why), .unknown(let why): object["last"] = .string(why)
      }
    }
    return .object(object)
  }
}

extension LayerReport {
  var json: JSONValue {
    .object([
      "name": .string(name), "asked": .optional(asked), "effective": .optional(effective),
      "status": .string(status.rawValue), "note": note.map { .string($0) },
    ])
  }
}

extension Event {
  /// The keys of `events --format json`.
  package var json: JSONValue {
    var object = JSONObject()
    object["cursor"] = .integer(cursor)
    object["time"] = .integer(time.nanoseconds)
    object["app"] = app.map { .string($0.name) } ?? .null
    object["event"] = .string(name)
    for (key, value) in fields.sorted(by: { $0.key < $1.key }) { object[key] = value }
    return .object(object)
  }
}
