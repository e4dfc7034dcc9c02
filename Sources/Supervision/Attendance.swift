internal import Health
internal import Linux
internal import Model
internal import Storage

/// What watches one run while it goes on: its checks, what shows that it is ready, its CPU time. Ends with the run.
struct Attendance {
  let instance: Instance
  /// What its checks came to; nil: it has none.
  var monitor: Monitor?
  /// What the app last said of itself; cut and cleaned.
  var said: String?
  /// Changes of health since the last one that was told; and how many were told since when.
  fileprivate var untold = 0
  fileprivate var told = 0
  fileprivate var toldSince: Int64 = 0
  fileprivate var checks: Task<Void, Never>?
  fileprivate var others: [Task<Void, Never>] = []

  init(_ instance: Instance) { self.instance = instance }

  func end() {
    checks?.cancel()
    for task in others { task.cancel() }
  }
}

extension Supervisor {
  /// Begins to watch a run that is there, and ends watching one that is not; called after each change of a life.
  func attend(_ seat: Seat) {
    guard let record = self[seat] else { return }
    guard case .running(let instance, let facts, let paused) = record.life.stage else {
      record.attendance?.end()
      self[seat]?.attendance = nil
      if record.life.stage.instance == nil { self[seat]?.heardReady = false }
      return
    }
    if record.attendance?.instance != instance {
      record.attendance?.end()
      begin(instance, facts, record)
    }
    // What is frozen cannot answer, and that is no fault of it.
    if paused {
      self[seat]?.attendance?.checks?.cancel()
      self[seat]?.attendance?.checks = nil
    } else if self[seat]?.attendance?.checks == nil, self[seat]?.attendance?.monitor != nil {
      self[seat]?.attendance?.checks = watchHealth(seat, instance)
    }
    if self[seat]?.heardReady == true {
      self[seat]?.heardReady = false
      send(.ready("notify"), to: seat)
    }
    if self[seat]?.life.isReady == true, self[seat]?.storedReady == false {
      self[seat]?.storedReady = true
      save([.setReady(seat.app, generation: instance.generation)])
    }
  }

  private func begin(_ instance: Instance, _ facts: RunFacts, _ record: AppRecord) {
    let seat = record.seat
    let policy = record.current
    var attendance = Attendance(instance)
    self[seat]?.storedReady = false
    if let check = policy.healthcheck.settled(image: facts.imageHealthcheck, restart: policy.restart) {
      // One that is taken over has had its start, or a part of it.
      let age =
        policy.readiness == .healthy && record.life.isReady ? .seconds(1 << 30) : Clock.wall().since(facts.startedAt)
      attendance.monitor = Monitor(check, began: Clock.monotonic() - max(0, age.wholeNanoseconds))
    }
    if case .logLine(let text) = policy.readiness, !record.life.isReady {
      attendance.others.append(watchOutput(seat, instance, text))
    }
    if let most = policy.limits.maximumCPUTime, most > .zero {
      attendance.others.append(watchCPU(seat, instance, policy.limits, most))
    }
    self[seat]?.attendance = attendance
  }

  private func isAttended(_ seat: Seat, _ instance: Instance) -> Bool { self[seat]?.attendance?.instance == instance }

  // MARK: Health

  /// Ends with the run, or when it is frozen.
  private func watchHealth(_ seat: Seat, _ instance: Instance) -> Task<Void, Never> {
    Task {
      while !Task.isCancelled, let next = await check(seat, instance) {
        let pause = next - Clock.monotonic()
        guard pause > 0 else { continue }
        do { try await Task.sleep(for: .nanoseconds(pause)) } catch { return }
      }
    }
  }

  /// One check; when the next one begins.
  private func check(_ seat: Seat, _ instance: Instance) async -> Int64? {
    guard let record = self[seat], isAttended(seat, instance), let check = record.attendance?.monitor?.check,
      let host = setup.hosts[record.runtime], let launch = record.launch
    else { return nil }
    let start = Clock.monotonic()
    let outcome: ProbeOutcome
    switch check.test {
    case .command(let words): outcome = await Self.run(words, instance, launch, check.timeout, host)
    case .http, .tcp: outcome = await host.probe(instance, check.test, timeout: check.timeout)
    case .image, .none: return nil
    }
    let end = Clock.monotonic()
    // Frozen, ended or replaced meanwhile: what was found out is about nothing that is there.
    guard !Task.isCancelled, isAttended(seat, instance),
      let result = self[seat]?.attendance?.monitor?.take(outcome, from: start, to: end)
    else { return nil }
    if result.change != nil { self[seat]?.attendance?.untold += 1 }
    tellHealth(seat, end)
    switch result.change {
    case .healthy?: if self[seat]?.current.readiness == .healthy { send(.ready("healthcheck"), to: seat) }
    case .unhealthy?: send(.unhealthy(self[seat]?.attendance?.monitor?.complaint ?? outcome.reason), to: seat)
    case .starting?, nil: break
    }
    if result.change != nil {
      lookAtUpdate(seat)
      converge()
    }
    return result.next
  }

  /// A check by a command inside the app: what it writes is read and dropped but for its last line.
  private static func run(
    _ words: [String], _ instance: Instance, _ launch: Launch, _ timeout: Duration, _ host: any AppHost
  ) async -> ProbeOutcome {
    var request = ExecRequest(words)
    request.timeout = timeout
    request.streams = .keep(512)
    let end: ExecEnd
    do throws(HostFailure) { end = try await host.exec(instance, launch, request) } catch {
      switch error.kind {
      // It ends or is frozen just now, or its runtime is away.
      case .conflict, .unavailable: return .unknown(error.message)
      case .refused, .missing, .failed: return .unhealthy(error.message)
      }
    }
    let line = end.output.split(separator: UInt8(ascii: "\n")).last.map { PlainText.make($0) } ?? ""
    let said = line.isEmpty ? "" : ": \(line)"
    switch end.cause {
    case .code(0): return .healthy
    case .code(let code): return .unhealthy("exit code \(code)\(said)")
    case .signal(let number): return .unhealthy("ended by \(SignalName.name(of: number) ?? "signal \(number)")\(said)")
    case .timedOut: return .unhealthy("no end within \(timeout.compact)\(said)")
    case .lost(let why): return .unknown(why)
    }
  }

  /// Tells a change of health; of an app that flaps, at most so many in ten seconds, the next one with how many there were.
  private func tellHealth(_ seat: Seat, _ now: Int64) {
    guard var attendance = self[seat]?.attendance, let monitor = attendance.monitor, attendance.untold > 0 else {
      return
    }
    if now - attendance.toldSince >= 10_000_000_000 { (attendance.told, attendance.toldSince) = (0, now) }
    guard attendance.told < 10 else { return }
    var fields: [String: JSONValue] = ["health": .string(monitor.word.rawValue)]
    if monitor.word == .unhealthy { fields["reason"] = .string(monitor.complaint) }
    if attendance.untold > 1 { fields["changes"] = .count(attendance.untold) }
    attendance.untold = 0
    attendance.told += 1
    self[seat]?.attendance = attendance
    save([tell("app.health", seat, fields)])
  }

  // MARK: Readiness

  /// What an app said by its notify socket.
  func heard(_ seat: Seat, _ ready: Bool, _ status: String?) {
    guard let record = self[seat], record.current.readiness == .notify else { return }
    if let status { self[seat]?.attendance?.said = status.isEmpty ? nil : status }
    guard ready else { return }
    // An app may be quicker with it than its start's own answer.
    if case .starting = record.life.stage { self[seat]?.heardReady = true }
    send(.ready("notify"), to: seat)
  }

  /// An app that an earlier daemon started may have said that it is ready while there was none to hear it. A shim hears it all the
  /// while; a container's words are lost, and to wait for them for ever would be worse than to believe it.
  func tookOver(_ seat: Seat) {
    guard let record = self[seat], !record.life.isReady, record.current.readiness == .notify,
      record.runtime == .container, case .running = record.life.stage
    else { return }
    send(.ready("taken over: it may have said so meanwhile"), to: seat)
  }

  private func watchOutput(_ seat: Seat, _ instance: Instance, _ text: String) -> Task<Void, Never> {
    let host = self[seat].flatMap { setup.hosts[$0.runtime] }
    return Task {
      guard let host else { return }
      var watch = LineWatch(text)
      let query = LogQuery(follow: true, run: instance.generation)
      do {
        for try await chunk in host.logs(seat.app, instance, query) {
          switch watch.take(chunk.bytes, chunk.stream) {
          case .open: continue
          case .found: if isAttended(seat, instance) { send(.ready("log line"), to: seat) }
          case .tooMuch:
            let most = Bytes(UInt64(LineWatch.maximumBytes)).readable
            save([tell("app.not_ready", seat, ["reason": .string("its first \(most) of output do not say '\(text)'")])])
          }
          return
        }
      } catch is CancellationError {
        return
      } catch {
        guard isAttended(seat, instance) else { return }
        save([tell("app.not_ready", seat, ["reason": .string("its output cannot be read: \(error)")])])
      }
    }
  }

  // MARK: CPU time

  /// Looks when the limit could be reached at the earliest, and again when it was not: rarely for an app that does little.
  private func watchCPU(_ seat: Seat, _ instance: Instance, _ limits: Limits, _ most: Duration) -> Task<Void, Never> {
    let host = self[seat].flatMap { setup.hosts[$0.runtime] }
    let cores = max(0.01, min(limits.cpus ?? .infinity, Double(ProcessorCount.online)))
    return Task {
      var idle = Duration.milliseconds(100)
      var before: UInt64?
      while !Task.isCancelled, let host, isAttended(seat, instance) {
        // best effort: an app that ends while it is asked needs no limit any more; another fault is tried again.
        let used = try? await host.usage(instance).cpuNanoseconds
        let left = most.wholeNanoseconds - Int64(clamping: used ?? 0)
        if used != nil, left <= 0 {
          if isAttended(seat, instance) { send(.cpuTimeOver, to: seat) }
          return
        }
        // One that has nearly used it up and now rests is looked at less and less often, up to once a second.
        idle = used == before ? min(idle * 2, .seconds(1)) : .milliseconds(100)
        before = used
        let pause = max(idle, .nanoseconds(Int64(Double(left) / cores)))
        do { try await Task.sleep(for: min(pause, .seconds(86_400))) } catch { return }
      }
    }
  }
}

extension ProbeOutcome {
  /// Why it was no success; empty for one.
  var reason: String {
    switch self {
    case .healthy: ""
    case .unhealthy(let why), .unknown(let why): why
    }
  }
}

extension Monitor {
  /// Why it is unhealthy, for people.
  var complaint: String {
    let times = failing == 1 ? "" : " (\(failing) times in a row)"
    return (last?.outcome.reason ?? "") + times
  }
}
