package import Model

/// From being wanted to running and ready.
extension Life {
  mutating func admit(_ policy: Policy) -> [Effect] {
    guard case .waiting = stage, isWanted else { return [] }
    stage = .preparing
    debug?.isHere = true
    preStart = policy.preStart.isEmpty || debug != nil ? nil : 0
    return [.prepare]
  }

  mutating func hold(_ reason: String) -> [Effect] {
    guard case .waiting(let before) = stage, before != reason else { return [] }
    stage = .waiting(reason)
    return [.record("app.pending", ["reason": .string(reason)])]
  }

  mutating func afterPrepare(_ policy: Policy) -> [Effect] {
    guard stage == .preparing else { return [] }
    guard isWanted else { return debug == nil ? rest([], policy) : leaveDebug(policy) }
    guard !replacing else { return again() }
    stage = .creating
    return [.create]
  }

  mutating func afterCreate(_ instance: Instance, _ policy: Policy) -> [Effect] {
    guard stage == .creating else { return [.clear(instance)] }
    guard isWanted, !replacing else {
      stage = .clearing(instance)
      return [.clear(instance)]
    }
    stage = .starting(instance)
    let told =
      preStart.map { Effect.record("app.pre_start", ["command": .string(Self.command($0, policy))]) }
      ?? .record("app.created", [:])
    return [told, .start(instance)]
  }

  mutating func afterStart(_ facts: RunFacts, _ policy: Policy, _ now: WallTime) -> [Effect] {
    guard case .starting(let instance) = stage else { return [] }
    endReason = nil
    sequel = .byRule
    guard preStart == nil else {
      stage = .preStarting(instance, facts)
      let limit = preStart.flatMap { $0 < policy.preStart.count ? policy.preStart[$0].timeout : nil } ?? .zero
      return limit > .zero ? [.after(limit, .stepTimeOver)] : []
    }
    stage = .running(instance, facts, paused: false)
    isReady = policy.readiness == .started
    var effects: [Effect] = [.record("app.started", ["pid": .integer(Int64(facts.pid))])]
    if let limit = policy.limits.maximumRuntime, limit > .zero { effects.append(.after(limit, .runtimeOver)) }
    return effects
  }

  /// `2 of 3, /app/migrate`.
  package static func command(_ index: Int, _ policy: Policy) -> String {
    let program = index < policy.preStart.count ? policy.preStart[index].command.first ?? "" : ""
    return "\(index + 1) of \(policy.preStart.count), \(program)"
  }

  mutating func becomeReady(_ how: String) -> [Effect] {
    guard case .running = stage, !isReady else { return [] }
    isReady = true
    return [.record("app.ready", ["by": .string(how)])]
  }

  mutating func stepFailed(_ fault: HostFailure, _ policy: Policy, _ now: WallTime, _ chance: Double)
    -> [Effect]
  {
    switch stage {
    case .preparing, .creating, .starting: break
    case .resting, .waiting, .preStarting, .running, .stopping, .killing, .clearing, .backoff, .scheduled: return []
    }
    let told = Effect.record(
      "app.start_failed", ["reason": .string(fault.description), "kind": .string(fault.kind.rawValue)])
    let left = stage.instance
    if debug?.isHere != true {
      lastExit = ExitReport(
        cause: .neverStarted(step: "start", reason: fault.description), startedAt: nil, endedAt: now)
    }
    if let left {
      // The host may have kept part of it: release that before anything else.
      pendingFailure = fault
      stage = .clearing(left)
      return [told, .clear(left)]
    }
    return [told] + afterFailure(fault, policy, now, chance)
  }

  mutating func afterFailure(_ fault: HostFailure, _ policy: Policy, _ now: WallTime, _ chance: Double)
    -> [Effect]
  {
    if let debug {
      // What failed stood in the way of it, or is it.
      return debug.isHere ? [.debugOver(.failed(fault))] + leaveDebug(policy) : again()
    }
    guard want == .running else { return rest([], policy) }
    guard !replacing else { return again() }
    switch fault.kind {
    case .unavailable:
      // Not the app's doing, so it counts as no attempt; a gate may hold it when the time is over.
      let pause = Duration.seconds(2)
      stage = .backoff(until: WallTime(nanoseconds: now.nanoseconds &+ pause.wholeNanoseconds))
      return [.record("app.pending", ["reason": .string(fault.message)]), .after(pause, .backoffOver)]
    case .refused, .missing: return fail(fault.description, policy)
    case .conflict, .failed:
      guard policy.restart != .no else { return fail(fault.description, policy) }
      return backOff(policy, now, chance, because: fault.description)
    }
  }
}
