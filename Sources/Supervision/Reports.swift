internal import Health
internal import Linux
package import Model
package import Storage

/// One app as `ps` and `status` tell it.
package struct AppReport: Sendable {
  package var id: AppID
  package var stack: String
  package var runtime: Runtime
  /// The image's name, or the program.
  package var image: String?
  package var entry: [String]
  package var word: StateWord
  /// As docker says it: `Up 3 minutes`, `Exited (137) 2 seconds ago (out of memory)`.
  package var status: String
  package var reason: String?
  package var restarts: UInt32
  package var exit: ExitReport?
  package var facts: RunFacts?
  package var usage: Usage?
  package var cpuPercent: Double?
  package var policy: Policy
  package var instance: Instance?
  package var file: String
  package var origin: String
  package var wanted: String
  /// Nil: nothing checks it, or it does not run.
  package var health: HealthReport?
  /// Nil: it does not run.
  package var isReady: Bool?
  /// What it last said of itself.
  package var said: String?
  /// When its schedule begins the next run.
  package var nextRun: WallTime?
  /// Which command of `pre_start` runs.
  package var preStart: String?
  /// An operator's command runs, or is to run, in its place.
  package var isDebugged: Bool
  /// What is set beside its file.
  package var overrides: [StoredOverride]
  /// Why what runs is not as its policy says.
  package var behind: String?
}

/// What an app's checks came to.
package struct HealthReport: Sendable {
  package var word: HealthWord
  package var check: Healthcheck.Settled
  /// Failures in a row.
  package var failing: UInt32
  package var last: (outcome: ProbeOutcome, took: Duration)?
}

extension Supervisor {
  /// Every app, sorted by name; usage is read from the kernel now.
  package func reports(_ ids: [AppID]? = nil) async -> [AppReport] {
    let all = (ids ?? Array(apps.keys)).sorted()
    let usages = await usages(of: all, details: false)
    return all.compactMap { id in report(id, apps[id]?.life.stage.instance.flatMap { usages[$0] }) }
  }

  /// Names of all apps with their stacks, for the resolution of `APP` and `@STACK`.
  package var known: [(id: AppID, stack: String, origin: String)] {
    apps.values.map { ($0.stored.id, $0.stored.stack, $0.stored.origin) }.sorted { $0.0 < $1.0 }
  }

  /// The canonical document that is applied.
  package func applied(_ id: AppID) -> StoredAppCopy? {
    apps[id].map { StoredAppCopy(canonical: $0.stored.canonical, folder: $0.stored.folder, file: $0.stored.file) }
  }

  /// Every limit and layer of a running app, as asked and as in force; empty for one that does not run.
  package func layers(_ id: AppID) async throws(HostFailure) -> [LayerReport] {
    guard let record = apps[id], let instance = record.life.stage.instance, record.life.stage.facts != nil,
      let launch = record.launch,
      let host = setup.hosts[record.runtime]
    else { return [] }
    if let why = trouble[record.runtime] { throw HostFailure(.unavailable, why) }
    return try await host.enforcement(instance, launch)
  }

  /// The output of an app's runs.
  package func logs(_ id: AppID, _ query: LogQuery) throws(OperationFailure) -> AsyncThrowingStream<LogChunk, any Error>
  {
    guard let record = apps[id] else { throw .noSuchApp(id) }
    guard let host = setup.hosts[record.runtime] else { return AsyncThrowingStream { $0.finish() } }
    return host.logs(id, record.life.stage.instance, query)
  }

  /// Whether an app is between its first instruction and being told to run, in which it may ask for things already.
  package func isStarting(_ id: AppID) -> Bool {
    if case .starting = apps[id]?.life.stage { true } else { false }
  }

  /// Whether an app will have more output without anybody's doing: a follower waits for its next instance.
  package func mayRunAgain(_ id: AppID) -> Bool { apps[id].map { !$0.life.isAtRest } ?? false }

  /// The generation of the present instance, 0 without one.
  package func generation(_ id: AppID) -> UInt64 { apps[id]?.life.stage.instance?.generation ?? 0 }

  private func report(_ id: AppID, _ usage: Usage?) -> AppReport? {
    guard var record = apps[id] else { return nil }
    let percent = usage.map { sample(&record, $0) }
    apps[id] = record
    let policy = record.current
    return AppReport(
      id: id, stack: record.stored.stack, runtime: record.runtime, image: record.policy.image?.reference,
      entry: policy.entry,
      word: word(record), status: status(record), reason: reason(record), restarts: record.life.restarts,
      exit: record.life.lastExit,
      facts: record.life.stage.facts, usage: usage, cpuPercent: percent, policy: policy,
      instance: record.life.stage.instance,
      file: record.stored.file, origin: record.stored.origin, wanted: record.stored.want.rawValue,
      health: record.attendance?.monitor.map {
        HealthReport(word: $0.word, check: $0.check, failing: $0.failing, last: $0.last)
      },
      isReady: record.attendance == nil ? nil : record.life.isReady, said: record.attendance?.said,
      nextRun: nextRun(record), preStart: preStart(record), isDebugged: record.life.debug != nil,
      overrides: record.overrides, behind: record.behind)
  }

  /// CPU since the last look if that is at least 200 ms ago, since the start at first.
  private func sample(_ record: inout AppRecord, _ usage: Usage) -> Double {
    let now = Clock.boot()
    if let sample = record.sample {
      let elapsed = now - sample.at
      guard elapsed >= 200_000_000 else { return record.cpuPercent }
      record.cpuPercent = Double(usage.cpuNanoseconds &- min(sample.cpu, usage.cpuNanoseconds)) / Double(elapsed) * 100
    } else if let started = record.life.stage.facts?.startedAt {
      let elapsed = max(1, Clock.wall().since(started).wholeNanoseconds)
      record.cpuPercent = Double(usage.cpuNanoseconds) / Double(elapsed) * 100
    }
    record.sample = (now, usage.cpuNanoseconds)
    return record.cpuPercent
  }

  private func word(_ record: AppRecord) -> StateWord {
    switch record.life.stage {
    case .waiting: return .pending
    case .preparing: return .pulling
    case .creating, .starting, .preStarting: return .starting
    case .scheduled: return .scheduled
    case .running(_, _, let paused): return paused ? .paused : .running
    case .stopping, .killing: return record.life.replacing ? .restarting : .stopping
    case .clearing: return record.life.want == .running ? .restarting : .stopping
    case .backoff: return .backoff
    case .resting:
      if record.unadopted != nil { return .dead }
      if record.life.failure != nil { return .failed }
      guard let exit = record.life.lastExit else { return .created }
      return exit.succeeded && record.life.want == .running ? .completed : .exited
    }
  }

  private func status(_ record: AppRecord) -> String {
    let now = Clock.wall()
    switch record.life.stage {
    case .waiting(let reason): return "Pending (\(reason))"
    case .preparing: return record.runtime == .container ? "Pulling" : "Preparing"
    case .creating, .starting, .preStarting: return "Starting" + (preStart(record).map { " (pre_start \($0))" } ?? "")
    case .scheduled(let next): return scheduled(record, next, now)
    case .running(_, let facts, let paused):
      return "Up \(now.since(facts.startedAt).readable)" + (paused ? " (Paused)" : "") + condition(record)
        + (isUpdating(record) ? " (updating)" : "") + (record.life.debug?.isHere == true ? " (debug)" : "")
        + (facts.missing.isEmpty ? "" : " (degraded)")
        + (trouble[record.runtime] == nil ? "" : " (the engine does not answer)")
    case .stopping, .killing: return "Stopping"
    case .clearing: return "Stopping"
    case .backoff(let until):
      let rest = max(.zero, until.since(now))
      return
        "Backoff \(Int64(rest.seconds.rounded(.up)))s (\(record.life.restarts)/\(record.policy.backoff.maximumAttempts))"
    case .resting: return resting(record, now)
    }
  }

  /// As docker says it, `(healthy)`; and whether it is ready where that is more than running.
  private func condition(_ record: AppRecord) -> String {
    if let word = record.attendance?.monitor?.word {
      return word == .starting ? " (health: starting)" : " (\(word.rawValue))"
    }
    return record.life.isReady ? "" : " (not ready)"
  }

  func isUpdating(_ record: AppRecord) -> Bool { record.update != nil || next(record.stored.id) != nil }

  private func nextRun(_ record: AppRecord) -> WallTime? {
    if case .scheduled(let next) = record.life.stage { next } else { nil }
  }

  private func preStart(_ record: AppRecord) -> String? {
    switch record.life.stage {
    case .creating, .starting, .preStarting: record.life.preStart.map { Life.command($0, record.current) }
    case .resting, .waiting, .preparing, .running, .stopping, .killing, .clearing, .backoff, .scheduled: nil
    }
  }

  private func scheduled(_ record: AppRecord, _ next: WallTime?, _ now: WallTime) -> String {
    let last = record.life.lastExit.map { "; last run: \(record.life.endReason ?? $0.reason)" } ?? ""
    guard let next else { return "Scheduled (never\(last))" }
    return "Scheduled (in \(max(.zero, next.since(now)).readable)\(last))"
  }

  private func resting(_ record: AppRecord, _ now: WallTime) -> String {
    if record.unadopted != nil { return "Unknown (\(unknown(record)))" }
    if let failure = record.life.failure { return "Failed (\(failure))" }
    guard let exit = record.life.lastExit else { return "Created" }
    let ago = now.since(exit.endedAt).readable
    let plain = if case .code = exit.cause, !exit.outOfMemory { true } else { false }
    let why = record.life.endReason ?? (plain ? nil : exit.reason)
    return "Exited (\(exit.exitCode)) \(ago) ago" + (why.map { " (\($0))" } ?? "")
  }

  /// Why it is not known what became of its instance.
  private func unknown(_ record: AppRecord) -> String {
    if let elsewhere = record.elsewhere {
      return "its container is in another engine, \(elsewhere): start the daemon with that one, or take the app down"
    }
    if asking.contains(record.runtime) { return "being looked for" }
    guard setup.hosts[record.runtime] != nil else { return "no container engine: \(setup.noEngine)" }
    return "the engine does not answer" + (trouble[record.runtime].map { ": \($0)" } ?? "")
  }

  private func reason(_ record: AppRecord) -> String? {
    if case .waiting(let reason) = record.life.stage { return reason }
    if record.unadopted != nil { return unknown(record) }
    if case .running = record.life.stage { return trouble[record.runtime] ?? ailment(record) ?? record.updateFailure }
    return record.life.failure ?? record.life.endReason ?? record.life.lastExit?.reason
  }
}

extension Supervisor {
  /// What is wrong with an app that runs.
  private func ailment(_ record: AppRecord) -> String? {
    if let monitor = record.attendance?.monitor, monitor.word == .unhealthy { return "unhealthy: \(monitor.complaint)" }
    guard !record.life.isReady else { return nil }
    switch record.current.readiness {
    case .started: return nil
    case .healthy:
      return "not ready: no check has succeeded yet"
        + (record.attendance?.monitor?.last.map { ", \($0.outcome.reason)" } ?? "")
    case .notify: return "not ready: it has not said READY=1 yet"
    case .logLine(let text): return "not ready: it has not written '\(text)' yet"
    }
  }
}

/// An applied copy as it is kept.
package struct StoredAppCopy: Sendable {
  package var canonical: String
  package var folder: String
  package var file: String
}

extension Supervisor {
  /// The names of our volumes that policies mention.
  package var volumesInUse: Set<String> {
    var names: Set<String> = []
    for mount in everyone.flatMap({ $0.policy.mounts + $0.current.mounts }) {
      if case .volume(let name, false) = mount.kind { names.insert(name) }
    }
    return names
  }

  /// Ids of images that apps were made from or will be, and the names in their policies.
  package var imagesInUse: Set<String> {
    var used: Set<String> = []
    for record in everyone {
      used.formUnion([record.artifact, record.stored.artifact, record.launch?.artifact ?? ""])
      for policy in [record.policy, record.current] {
        if let name = policy.image?.reference { used.insert(name) }
      }
    }
    return used.filter { !$0.isEmpty }
  }

  /// The cursor of the newest event.
  package var lastCursor: Int64 { cursor }

  /// Stored events after `cursor`, oldest first.
  package func history(after cursor: Int64, limit: Int) async throws -> [Event] {
    try await setup.store.events(after: cursor, limit: limit)
  }
}
