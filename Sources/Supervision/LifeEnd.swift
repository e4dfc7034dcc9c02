internal import Model

/// Its end: what is known of it, and that nothing is left before anything follows.
extension Life {
  mutating func ended(_ report: ExitReport, _ policy: Policy, _ now: WallTime) -> [Effect] {
    guard let instance = stage.instance else { return [] }
    if case .clearing = stage { return [] }
    isReady = false
    stage = .clearing(instance)
    if debug?.isHere == true {
      let fields: [String: JSONValue] = ["exit_code": .integer(Int64(report.exitCode))]
      debug?.end = report
      return [.cancelTimers, .record("app.debug_ended", fields), .clear(instance)]
    }
    if let preStart {
      var effects: [Effect] = [.cancelTimers]
      if !report.succeeded || endReason != nil {
        lastExit = report
        let fault = HostFailure(
          .failed, "pre_start \(Self.command(preStart, policy)): \(endReason ?? report.reason)")
        endReason = nil
        pendingFailure = fault
        effects.append(.record("app.start_failed", ["reason": .string(fault.message), "kind": "failed"]))
      }
      return effects + [.clear(instance)]
    }
    lastExit = report
    var fields: [String: JSONValue] = [
      "exit_code": .integer(Int64(report.exitCode)), "reason": .string(endReason ?? report.reason),
      "oom": .bool(report.outOfMemory),
    ]
    if let started = report.startedAt {
      fields["ran_ms"] = .integer(report.endedAt.since(started).wholeNanoseconds / 1_000_000)
      if report.endedAt.since(started) >= policy.backoff.resetAfter { delays = 0 }
    }
    return [.cancelTimers, .record(report.outOfMemory ? "app.oom" : "app.exited", fields), .clear(instance)]
  }

  mutating func afterClear(_ policy: Policy, _ now: WallTime, _ chance: Double) -> [Effect] {
    guard case .clearing = stage else { return [] }
    let next = sequel
    sequel = .byRule
    if let debug {
      let fault = pendingFailure
      pendingFailure = nil
      guard debug.isHere else { return again() }
      return (fault.map { [.debugOver(.failed($0))] } ?? []) + leaveDebug(policy)
    }
    if let fault = pendingFailure {
      pendingFailure = nil
      return afterFailure(fault, policy, now, chance)
    }
    guard want == .running else { return rest([], policy) }
    if replacing { return again() }
    if let done = preStart {
      preStart = done + 1 < policy.preStart.count ? done + 1 : nil
      stage = .creating
      return [.create]
    }
    guard let exit = lastExit else { return again() }
    switch next {
    case .failure: return fail("it was \(endReason ?? exit.reason)", policy)
    // At once at first; a loop has pauses that grow, and ends.
    case .restart: return backOff(policy, now, chance, because: endReason ?? exit.reason, atOnce: delays == 0)
    case .byRule: break
    }
    switch policy.restart {
    case .no: return rest([], policy)
    case .always, .unlessStopped: return backOff(policy, now, chance, because: exit.reason)
    case .onFailure(let maximum):
      guard !exit.succeeded else { return rest([], policy) }
      if let maximum, restarts >= maximum {
        return fail("it ended with \(exit.reason) after \(maximum) restarts", policy)
      }
      return backOff(policy, now, chance, because: exit.reason)
    }
  }

  func clearFailed(_ fault: HostFailure) -> [Effect] {
    guard case .clearing = stage else { return [] }
    // Nothing new is made while something old may be left: a dead engine comes back, a busy cgroup empties.
    return [.record("app.clear_failed", ["reason": .string(fault.description)]), .after(.seconds(2), .clearAgain)]
  }

  func clearAgain() -> [Effect] {
    guard case .clearing(let instance) = stage else { return [] }
    return [.clear(instance)]
  }
}
