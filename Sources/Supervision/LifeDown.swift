internal import Model

/// Asked to end, for whatever reason: by a signal first, then killed.
extension Life {
  mutating func beginStop(_ policy: Policy) -> [Effect] {
    guard shouldStop else { return [] }
    switch stage {
    case .running(let instance, let facts, let paused): return stop(instance, facts, policy, paused)
    case .preStarting(let instance, let facts): return stop(instance, facts, policy, false)
    case .resting, .waiting, .preparing, .creating, .starting, .stopping, .killing, .clearing, .backoff, .scheduled:
      return []
    }
  }

  mutating func overdrawn(_ limit: String, _ policy: Policy) -> [Effect] {
    guard case .running(let instance, let facts, let paused) = stage else { return [] }
    endReason = limit
    return stop(instance, facts, policy, paused)
  }

  mutating func unhealthy(_ why: String, _ policy: Policy) -> [Effect] {
    guard case .running(let instance, let facts, let paused) = stage, want == .running, !replacing else { return [] }
    switch policy.healthcheck.settled(image: facts.imageHealthcheck, restart: policy.restart)?.onFailure {
    case nil, .some(.none): return []
    case .notify: return [.record("app.alert", ["reason": .string("unhealthy: \(why)")])]
    case .restart:
      sequel = .restart
      endReason = "unhealthy: \(why)"
      return [.outdate] + stop(instance, facts, policy, paused)
    case .stop:
      sequel = .failure
      endReason = "unhealthy: \(why)"
      return stop(instance, facts, policy, paused)
    }
  }

  mutating func stop(_ instance: Instance, _ facts: RunFacts, _ policy: Policy, _ paused: Bool) -> [Effect] {
    stage = .stopping(instance, facts)
    isReady = false
    // A shell at a terminal ignores SIGTERM.
    let given = debug?.isHere == true ? .seconds(1) : grace
    let number = debug?.isHere == true ? 1 : policy.stopSignal
    grace = nil
    return [
      .cancelTimers, .record("app.stopping", ["signal": .string(SignalName.name(of: number) ?? "\(number)")]),
      .signal(instance, number, thaw: paused), .after(given ?? policy.stopGrace, .graceOver),
    ]
  }

  mutating func beginKill() -> [Effect] {
    switch stage {
    case .running(let instance, let facts, _), .preStarting(let instance, let facts),
      .stopping(let instance, let facts):
      stage = .killing(instance, facts)
      isReady = false
      return [.cancelTimers, .record("app.killing", [:]), .kill(instance), .after(.seconds(5), .killAgain)]
    case .resting, .waiting, .preparing, .creating, .starting, .killing, .clearing, .backoff, .scheduled: return []
    }
  }

  /// A command of `pre_start` that hangs must not keep the app from failing.
  mutating func stepOverdue(_ policy: Policy) -> [Effect] {
    guard case .preStarting(let instance, let facts) = stage, let preStart, preStart < policy.preStart.count else {
      return []
    }
    stage = .killing(instance, facts)
    endReason = "not done within \(policy.preStart[preStart].timeout.compact), its timeout"
    return [.cancelTimers, .record("app.killing", [:]), .kill(instance), .after(.seconds(5), .killAgain)]
  }

  mutating func killAgain() -> [Effect] {
    guard case .killing(let instance, _) = stage else { return [] }
    return [.kill(instance), .after(.seconds(5), .killAgain)]
  }

  mutating func pause(_ paused: Bool) -> [Effect] {
    guard case .running(let instance, let facts, let before) = stage, before != paused else { return [] }
    stage = .running(instance, facts, paused: paused)
    return [.record(paused ? "app.paused" : "app.unpaused", [:])]
  }
}
