package import Model
package import Supervision

extension AppReport {
  /// The keys of `ps --format json`; keys are only ever added.
  package var json: JSONValue {
    let running = facts != nil
    return .object([
      "name": .string(id.name), "runtime": .string(runtime.rawValue), "image": image.map { .string($0) } ?? .null,
      "entry": .array(entry.map { .string($0) }), "state": .string(word.rawValue), "status": .string(status), "health": .null,
      "restarts": .integer(Int64(restarts)), "exit_code": running ? .null : exit.map { .integer(Int64($0.exitCode)) } ?? .null,
      "reason": reason.map { .string($0) } ?? .null, "pid": facts.map { .integer(Int64($0.pid)) } ?? .null,
      "cpu_percent": cpuPercent.map { .number(($0 * 100).rounded() / 100) } ?? .null,
      "memory": usage.map { .count($0.memory.count) } ?? .null,
      "memory_limit": (usage?.memoryLimit ?? policy.limits.memory).map { .count($0.count) } ?? .null,
      "pids": usage.map { .count($0.pids) } ?? .null,
      "ports": .array((facts?.ports ?? policy.network.ports).map { .string($0.text) }), "priority": .integer(Int64(policy.priority.value)),
      "sandbox": .string(policy.preset.rawValue), "container_id": facts?.containerID.map { .string($0) } ?? .null,
      "stack": .string(stack), "generation": instance.map { .count($0.generation) } ?? .null, "wanted": .string(wanted),
      "file": .string(file),
      "started_at": facts.map { .integer($0.startedAt.nanoseconds) } ?? .null,
      "missing": .array((facts?.missing ?? []).map { .string($0) }),
    ])
  }
}

extension PublishedPort {
  /// `127.0.0.1:8080->80/tcp`, as docker prints it.
  var text: String { "\(hostAddress):\(hostPort)->\(appPort)/\(transport.rawValue)" }
}

extension LayerReport {
  var json: JSONValue {
    .object([
      "name": .string(name), "asked": asked.map { .string($0) } ?? .null, "effective": effective.map { .string($0) } ?? .null,
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
