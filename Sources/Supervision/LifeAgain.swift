internal import Model

/// What follows an end: another run, after a pause or when it is due, or rest.
extension Life {
  mutating func backOff(
    _ policy: Policy, _ now: WallTime, _ chance: Double, because reason: String, atOnce: Bool = false
  ) -> [Effect] {
    let rules = policy.backoff
    recentRestarts.removeAll { now.since($0) > rules.window }
    guard recentRestarts.count < Int(rules.maximumAttempts) else {
      return fail(
        "it ended \(recentRestarts.count + 1) times within \(rules.window.compact), last with \(reason)", policy)
    }
    recentRestarts.append(now)
    restarts += 1
    // The first restart may be at once; a loop never is.
    var delay = delays == 0 ? rules.delay.seconds : max(rules.delay.seconds, 0.01)
    for _ in 0..<min(delays, 64) { delay = min(delay * max(1, rules.multiplier), rules.maximumDelay.seconds) }
    delays += 1
    delay = max(0, delay * (1 + rules.jitter * (2 * chance - 1)))
    guard delay > 0, !atOnce else { return again() }
    let pause = Duration.nanoseconds(Int64(delay * 1e9))
    stage = .backoff(until: WallTime(nanoseconds: now.nanoseconds &+ pause.wholeNanoseconds))
    return [
      .record("app.backoff", ["delay_ms": .integer(pause.wholeNanoseconds / 1_000_000), "reason": .string(reason)]),
      .after(pause, .backoffOver),
    ]
  }

  mutating func afterBackoff() -> [Effect] {
    guard case .backoff = stage else { return [] }
    return again()
  }

  mutating func giveUp(_ reason: String, _ policy: Policy) -> [Effect] {
    guard want == .running else { return [] }
    switch stage {
    case .backoff: return [.cancelTimers] + fail(reason, policy)
    case .stopping, .killing, .clearing:
      pendingFailure = HostFailure(.refused, reason)
      return []
    // What runs, runs on; what rests has its own reason.
    case .resting, .waiting, .preparing, .creating, .starting, .preStarting, .running, .scheduled: return []
    }
  }

  mutating func renew() -> [Effect] {
    guard want == .running else { return [] }
    forgive()
    pendingFailure = nil
    switch stage {
    case .backoff: return [.cancelTimers] + again()
    case .resting: return again()
    case .waiting, .preparing, .creating, .starting, .preStarting, .running, .stopping, .killing, .clearing,
      .scheduled:
      return []
    }
  }

  mutating func again() -> [Effect] {
    replacing = false
    stage = .waiting("its turn")
    return [.record("app.restarting", ["restarts": .integer(Int64(restarts))])]
  }

  mutating func fail(_ reason: String, _ policy: Policy) -> [Effect] {
    let told = Effect.record("app.failed", ["reason": .string(reason)])
    replacing = false
    guard policy.schedule == nil || want != .running else {
      // Its next run may do better.
      stage = .scheduled(until: nil)
      return [told, .armSchedule]
    }
    failure = reason
    stage = .resting
    return [told]
  }

  mutating func rest(_ effects: [Effect], _ policy: Policy) -> [Effect] {
    replacing = false
    guard policy.schedule == nil || want != .running else {
      stage = .scheduled(until: nil)
      return effects + [.record("app.resting", [:]), .armSchedule]
    }
    stage = .resting
    return effects + [.record("app.resting", [:])] + (want == .removed ? [.forget] : [])
  }

  // MARK: Runs that begin of themselves

  mutating func schedule(_ time: WallTime?) -> [Effect] {
    guard case .scheduled(let before) = stage, before != time else { return [] }
    stage = .scheduled(until: time)
    return [.record("app.scheduled", ["next": time.map { .integer($0.nanoseconds) } ?? .null])]
  }

  mutating func due(_ policy: Policy) -> [Effect] {
    guard want == .running, let schedule = policy.schedule else { return [] }
    guard debug == nil else {
      return [.record("app.due", ["skipped": true, "reason": "it is being debugged"]), .armSchedule]
    }
    switch stage {
    case .resting: return []
    case .scheduled:
      forgive()
      stage = .waiting("its turn")
      return [.record("app.due", [:]), .armSchedule]
    // The last run has ended: the next begins once nothing is left of it.
    case .clearing where preStart == nil && pendingFailure == nil:
      forgive()
      sequel = .byRule
      replacing = true
      return [.record("app.due", [:]), .armSchedule]
    case .waiting, .preparing, .creating, .starting, .preStarting, .running, .stopping, .killing, .clearing, .backoff:
      if schedule.concurrency == .allow { return [.armSchedule, .runBeside] }
      let isReplaced = schedule.concurrency == .replace
      var effects: [Effect] = [
        .record("app.due", ["skipped": .bool(!isReplaced), "reason": "the last run still goes on"]), .armSchedule,
      ]
      guard isReplaced else { return effects }
      forgive()
      if case .backoff = stage { effects = [.cancelTimers] + effects + again() } else { effects += replace(policy) }
      return effects
    }
  }
}
