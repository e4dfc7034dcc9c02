internal import Linux
package import Model
internal import Policies
internal import Storage

/// What is kept of each run after its end: why, by which limits, how near it came to them, its last lines, and the policy it ran by.
extension Supervisor {
  /// The most kept of a run's output.
  private static let outputLimit = 16_384
  private static let outputLines = 100

  /// Reads the kernel's counters of an ended run while its groups are still there, and stores them with its end. Best effort: what
  /// cannot be read is left out, and a full disk keeps nothing from being cleared.
  func recordExit(_ instance: Instance, _ seat: Seat, _ host: any AppHost) async {
    guard let record = self[seat], let exit = record.life.lastExit, let launch = record.launch else { return }
    let usage = await host.usages([(instance, 0)], details: true)[instance]
    let facts = Self.facts(exit, record.life.endReason, record.life.restarts, launch, usage)
    let stored = ExitRecord(
      app: instance.app, run: instance.generation, facts: facts, canonical: record.stored.canonical,
      artifact: launch.artifact)
    save([.putExit(stored)])
  }

  /// Afterwards, and not waited for: the last lines of the run.
  func keepOutput(_ instance: Instance, _ host: any AppHost) {
    // An app that was removed and is known again counts its runs anew, and its old log may be there still. Some logs tell whole seconds.
    let since = apps[instance.app]?.life.lastExit?.startedAt.map {
      WallTime(nanoseconds: $0.nanoseconds - 1_000_000_000)
    }
    // Ends with the log.
    Task {
      var tail = TailBytes(Self.outputLimit)
      let query = LogQuery(tail: Self.outputLines, since: since, run: instance.generation)
      do {
        for try await chunk in host.logs(instance.app, nil, query) { tail.add(chunk.bytes) }
      } catch {
        // What came is kept.
      }
      // For people: what is no text, or ends one in a database, is shown as such.
      let text = String(String(decoding: tail.bytes, as: UTF8.self).map { $0 == "\0" ? "\u{FFFD}" : $0 })
      if !text.isEmpty { await store([.setExitOutput(instance.app, run: instance.generation, text)]) }
    }
  }

  private static func facts(
    _ exit: ExitReport, _ endReason: String?, _ restarts: UInt32, _ launch: Launch, _ usage: Usage?
  ) -> JSONObject {
    var facts = JSONObject()
    facts["exit_code"] = .integer(Int64(exit.exitCode))
    facts["reason"] = .string(endReason ?? exit.reason)
    facts["oom"] = .bool(exit.outOfMemory)
    facts["started_at"] = exit.startedAt.map { .integer($0.nanoseconds) } ?? .null
    facts["ended_at"] = .integer(exit.endedAt.nanoseconds)
    let ran = exit.startedAt.map { exit.endedAt.since($0) }
    facts["ran_ms"] = ran.map { .integer($0.wholeNanoseconds / 1_000_000) } ?? .null
    facts["restarts"] = .integer(Int64(restarts))
    // As `reset_after` has it: one that ran so long, or did what it was to do, was a good one.
    facts["good"] = .bool(exit.succeeded || ran.map { $0 >= launch.policy.backoff.resetAfter } ?? false)
    facts["runtime"] = .string(launch.policy.runtime.rawValue)
    guard let usage else { return facts }
    func whole(_ key: String, _ value: UInt64?) { if let value { facts[key] = .count(value) } }
    whole("memory_limit", usage.memoryLimit?.count)
    whole("memory_peak", usage.memoryPeak?.count)
    facts["cpu_seconds"] = .number((Double(usage.cpuNanoseconds) / 1e7).rounded() / 100)
    guard let details = usage.details else { return facts }
    whole("memory_at_limit", details.memoryAtLimit)
    whole("oom_kills", details.outOfMemoryKills)
    whole("pids_limit", details.pidsLimit)
    whole("pids_peak", details.pidsPeak)
    whole("pids_refused", details.pidsRefused)
    whole("throttled_periods", details.throttledPeriods)
    whole("periods", details.periods)
    for (key, value) in [
      ("cpu_pressure", details.cpuPressure), ("memory_pressure", details.memoryPressure),
      ("io_pressure", details.ioPressure),
    ] { if let value { facts[key] = .number(value) } }
    return facts
  }

  /// How the runs of an app ended, newest first.
  package func exits(of id: AppID) async throws(OperationFailure) -> [ExitRecord] {
    do throws(StorageFailure) { return try await setup.store.exits(of: id) } catch { throw .storage(error) }
  }

  /// The keys of the policy, and `image`, that differ between two runs.
  package nonisolated static func changed(_ old: ExitRecord, _ new: ExitRecord, read: (String) -> Policy?) -> [String] {
    var keys: [String] = []
    if old.canonical != new.canonical, let before = read(old.canonical), let after = read(new.canonical) {
      keys = plan(old: before, new: after).fields.map(\.key)
    }
    if old.artifact != new.artifact, !keys.contains("image") { keys.append("image") }
    return keys
  }
}
