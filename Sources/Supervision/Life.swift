package import Model

/// Where one app is between being wanted and resting. Payloads hold what the stage needs and nothing that could contradict it.
package enum Stage: Sendable, Equatable {
  /// Nothing of it exists at a host.
  case resting
  /// Wanted, and held back: by what, in words.
  case waiting(String)
  /// The host checks the policy and fetches what is missing.
  case preparing
  case creating
  case starting(Instance)
  case running(Instance, RunFacts, paused: Bool)
  /// The stop signal was sent; the grace time runs.
  case stopping(Instance, RunFacts)
  case killing(Instance, RunFacts?)
  /// It has ended; the host releases what it held.
  case clearing(Instance)
  case backoff(until: WallTime)

  /// The instance that exists at a host, if there is one.
  package var instance: Instance? {
    switch self {
    case .resting, .waiting, .preparing, .creating, .backoff: nil
    case .starting(let instance), .running(let instance, _, _), .stopping(let instance, _), .killing(let instance, _),
      .clearing(let instance):
      instance
    }
  }

  /// What is known of the running program.
  package var facts: RunFacts? {
    switch self {
    case .running(_, let facts, _), .stopping(_, let facts): facts
    case .killing(_, let facts): facts
    case .resting, .waiting, .preparing, .creating, .starting, .clearing, .backoff: nil
    }
  }
}

/// What is to become of an app.
package enum Want: Sendable, Equatable {
  case running
  /// Stop, and stay known.
  case stopped
  /// Stop, then forget it.
  case removed
}

/// What can happen to an app.
package enum LifeEvent: Sendable, Equatable {
  /// The operator (or boot) wants it so. A new wish for `running` also forgives failures of the past.
  case want(Want)
  /// The policy changed, or a restart was asked for: end this instance and make a new one.
  case replace
  /// Its gates (dependencies, admission) are open, or closed and why.
  case admitted
  case held(String)
  case prepared
  case created(Instance)
  case started(RunFacts)
  /// A step on the way to running did not work.
  case stepFailed(HostFailure)
  /// Nothing that depends on it runs any more: it may be stopped.
  case releasedToStop
  case graceOver
  case killAgain
  case killRequested
  case runtimeOver
  case paused(Bool)
  case exited(ExitReport)
  case cleared
  case clearFailed(HostFailure)
  case clearAgain
  case backoffOver
}

/// What is to be done about it. Each step's outcome comes back as an event.
package enum Effect: Sendable, Equatable {
  case prepare
  case cancelPrepare
  case create
  case start(Instance)
  /// `thaw`: it is frozen, and would not see the signal.
  case signal(Instance, Int32, thaw: Bool = false)
  case kill(Instance)
  case clear(Instance)
  case after(Duration, LifeEvent)
  case cancelTimers
  /// Write the stage's lasting part and tell the world.
  case record(String, [String: JSONValue])
  /// It was to be removed, and nothing of it is left.
  case forget
}

/// One app's life. `handle` is the only place that changes it; it does no I/O and knows no clock but the one it is handed.
package struct Life: Sendable, Equatable {
  package var want: Want
  package var stage: Stage = .resting
  /// End the instance that is there, then go on as wanted.
  package var replacing = false
  /// Why it is not tried again; nil: it is not `failed`.
  package var failure: String?
  package var lastExit: ExitReport?
  /// Restarts since it was last wanted anew.
  package var restarts: UInt32 = 0
  /// When it was restarted within the policy's window.
  package var recentRestarts: [WallTime] = []
  /// How many delays have grown since the last good run.
  package var delays: UInt32 = 0
  /// Why we end the run ourselves (`max_runtime`); shown with its exit.
  package var endReason: String?

  package init(want: Want) { self.want = want }

  /// Whether nothing of it exists and nothing is under way.
  package var isAtRest: Bool { stage == .resting }

  /// Whether a wish for `running` asks for another run than the present one.
  package var wouldBeginAnew: Bool {
    switch stage {
    case .resting: true
    case .stopping, .killing, .clearing: want != .running
    case .waiting, .preparing, .creating, .starting, .running, .backoff: false
    }
  }

  /// Whether it is on its way up but not running yet.
  package var isStarting: Bool {
    switch stage {
    case .waiting, .preparing, .creating, .starting: true
    case .resting, .running, .stopping, .killing, .clearing, .backoff: false
    }
  }

  // MARK: The one function

  /// The next stage and what to do, for `event` at `now`. `chance` is a number in 0..<1 for jitter.
  package mutating func handle(_ event: LifeEvent, _ policy: Policy, now: WallTime, chance: Double) -> [Effect] {
    switch event {
    case .want(let want): return wish(want)
    case .replace: return replace()
    case .admitted: return admit()
    case .held(let reason): return hold(reason)
    case .prepared: return afterPrepare()
    case .created(let instance): return afterCreate(instance)
    case .started(let facts): return afterStart(facts, policy, now)
    case .stepFailed(let failure): return stepFailed(failure, policy, now, chance)
    case .releasedToStop: return beginStop(policy)
    case .runtimeOver: return runtimeOver(policy)
    case .graceOver, .killRequested: return beginKill()
    case .killAgain: return killAgain()
    case .paused(let paused): return pause(paused)
    case .exited(let report): return ended(report, policy, now)
    case .cleared: return afterClear(policy, now, chance)
    case .clearFailed(let failure): return clearFailed(failure)
    case .clearAgain: return clearAgain()
    case .backoffOver: return afterBackoff()
    }
  }

  // MARK: Wishes

  private mutating func wish(_ wanted: Want) -> [Effect] {
    let renewed = wanted == .running && (want != .running || stage == .resting)
    want = wanted
    if renewed {
      failure = nil
      restarts = 0
      recentRestarts = []
      delays = 0
      switch stage {
      // What was begun for the old wish ends first; then it starts.
      case .preparing, .stopping, .killing, .clearing: replacing = true
      case .resting, .waiting, .creating, .starting, .running, .backoff: break
      }
    }
    switch (wanted, stage) {
    case (.running, .resting):
      stage = .waiting("its turn")
      return [.record("app.waiting", [:])]
    case (.running, _): return []
    case (.stopped, .resting): return []
    case (.removed, .resting): return [.forget]
    case (.stopped, .waiting), (.removed, .waiting), (.stopped, .backoff), (.removed, .backoff):
      return rest([.cancelTimers])
    case (.stopped, .preparing), (.removed, .preparing): return [.cancelPrepare]
    // Remembered: the step under way ends first, and then it is stopped.
    case (.stopped, _), (.removed, _): return []
    }
  }

  private mutating func replace() -> [Effect] {
    switch stage {
    case .resting, .waiting, .backoff: return []
    case .preparing:
      replacing = true
      return [.cancelPrepare]
    case .creating, .starting, .running, .stopping, .killing:
      replacing = true
      return []
    // What runs next is made from the new policy anyway.
    case .clearing:
      replacing = true
      return []
    }
  }

  /// Whether a running instance is to end: the supervisor then waits for its dependents and sends `releasedToStop`.
  package var shouldStop: Bool {
    guard case .running = stage else { return false }
    return want != .running || replacing
  }

  // MARK: Up

  private mutating func admit() -> [Effect] {
    guard case .waiting = stage, want == .running else { return [] }
    stage = .preparing
    return [.prepare]
  }

  private mutating func hold(_ reason: String) -> [Effect] {
    guard case .waiting(let before) = stage, before != reason else { return [] }
    stage = .waiting(reason)
    return [.record("app.pending", ["reason": .string(reason)])]
  }

  private mutating func afterPrepare() -> [Effect] {
    guard stage == .preparing else { return [] }
    guard want == .running else { return rest([]) }
    guard !replacing else { return again() }
    stage = .creating
    return [.create]
  }

  private mutating func afterCreate(_ instance: Instance) -> [Effect] {
    guard stage == .creating else { return [.clear(instance)] }
    guard want == .running, !replacing else {
      stage = .clearing(instance)
      return [.clear(instance)]
    }
    stage = .starting(instance)
    return [.record("app.created", [:]), .start(instance)]
  }

  private mutating func afterStart(_ facts: RunFacts, _ policy: Policy, _ now: WallTime) -> [Effect] {
    guard case .starting(let instance) = stage else { return [] }
    stage = .running(instance, facts, paused: false)
    endReason = nil
    var effects: [Effect] = [.record("app.started", ["pid": .integer(Int64(facts.pid))])]
    if let limit = policy.limits.maximumRuntime, limit > .zero { effects.append(.after(limit, .runtimeOver)) }
    return effects
  }

  private mutating func stepFailed(_ fault: HostFailure, _ policy: Policy, _ now: WallTime, _ chance: Double)
    -> [Effect]
  {
    switch stage {
    case .preparing, .creating, .starting: break
    case .resting, .waiting, .running, .stopping, .killing, .clearing, .backoff: return []
    }
    let told = Effect.record(
      "app.start_failed", ["reason": .string(fault.description), "kind": .string(fault.kind.rawValue)])
    let left = stage.instance
    lastExit = ExitReport(cause: .neverStarted(step: "start", reason: fault.description), startedAt: nil, endedAt: now)
    if let left {
      // The host may have kept part of it: release that before anything else.
      pendingFailure = fault
      stage = .clearing(left)
      return [told, .clear(left)]
    }
    return [told] + afterFailure(fault, policy, now, chance)
  }

  /// Set while what a failed start left behind is cleared.
  private var pendingFailure: HostFailure?

  private mutating func afterFailure(_ fault: HostFailure, _ policy: Policy, _ now: WallTime, _ chance: Double)
    -> [Effect]
  {
    guard want == .running else { return rest([]) }
    guard !replacing else { return again() }
    switch fault.kind {
    case .unavailable:
      // Not the app's doing, so it counts as no attempt; a gate may hold it when the time is over.
      let pause = Duration.seconds(2)
      stage = .backoff(until: WallTime(nanoseconds: now.nanoseconds &+ pause.wholeNanoseconds))
      return [.record("app.pending", ["reason": .string(fault.message)]), .after(pause, .backoffOver)]
    case .refused, .missing: return fail(fault.description)
    case .conflict, .failed:
      guard policy.restart != .no else { return fail(fault.description) }
      return backOff(policy, now, chance, because: fault.description)
    }
  }

  // MARK: Down

  private mutating func beginStop(_ policy: Policy) -> [Effect] {
    guard case .running(let instance, let facts, let paused) = stage, want != .running || replacing else { return [] }
    return stop(instance, facts, policy, paused)
  }

  private mutating func runtimeOver(_ policy: Policy) -> [Effect] {
    guard case .running(let instance, let facts, let paused) = stage else { return [] }
    endReason = "max_runtime \(policy.limits.maximumRuntime?.compact ?? "")"
    return stop(instance, facts, policy, paused)
  }

  private mutating func stop(_ instance: Instance, _ facts: RunFacts, _ policy: Policy, _ paused: Bool) -> [Effect] {
    stage = .stopping(instance, facts)
    return [
      .cancelTimers,
      .record("app.stopping", ["signal": .string(SignalName.name(of: policy.stopSignal) ?? "\(policy.stopSignal)")]),
      .signal(instance, policy.stopSignal, thaw: paused), .after(policy.stopGrace, .graceOver),
    ]
  }

  private mutating func beginKill() -> [Effect] {
    switch stage {
    case .running(let instance, let facts, _), .stopping(let instance, let facts):
      stage = .killing(instance, facts)
      return [.cancelTimers, .record("app.killing", [:]), .kill(instance), .after(.seconds(5), .killAgain)]
    case .resting, .waiting, .preparing, .creating, .starting, .killing, .clearing, .backoff: return []
    }
  }

  private mutating func killAgain() -> [Effect] {
    guard case .killing(let instance, _) = stage else { return [] }
    return [.kill(instance), .after(.seconds(5), .killAgain)]
  }

  private mutating func pause(_ paused: Bool) -> [Effect] {
    guard case .running(let instance, let facts, let before) = stage, before != paused else { return [] }
    stage = .running(instance, facts, paused: paused)
    return [.record(paused ? "app.paused" : "app.unpaused", [:])]
  }

  // MARK: Ends

  private mutating func ended(_ report: ExitReport, _ policy: Policy, _ now: WallTime) -> [Effect] {
    guard let instance = stage.instance else { return [] }
    if case .clearing = stage { return [] }
    lastExit = report
    var fields: [String: JSONValue] = [
      "exit_code": .integer(Int64(report.exitCode)), "reason": .string(endReason ?? report.reason),
      "oom": .bool(report.outOfMemory),
    ]
    if let started = report.startedAt {
      fields["ran_ms"] = .integer(report.endedAt.since(started).wholeNanoseconds / 1_000_000)
      if report.endedAt.since(started) >= policy.backoff.resetAfter { delays = 0 }
    }
    stage = .clearing(instance)
    return [.cancelTimers, .record(report.outOfMemory ? "app.oom" : "app.exited", fields), .clear(instance)]
  }

  private mutating func afterClear(_ policy: Policy, _ now: WallTime, _ chance: Double) -> [Effect] {
    guard case .clearing = stage else { return [] }
    if let fault = pendingFailure {
      pendingFailure = nil
      return afterFailure(fault, policy, now, chance)
    }
    guard want == .running else { return rest([]) }
    if replacing { return again() }
    guard let exit = lastExit else { return again() }
    switch policy.restart {
    case .no: return rest([])
    case .always, .unlessStopped: return backOff(policy, now, chance, because: exit.reason)
    case .onFailure(let maximum):
      guard !exit.succeeded else { return rest([]) }
      if let maximum, restarts >= maximum { return fail("it ended with \(exit.reason) after \(maximum) restarts") }
      return backOff(policy, now, chance, because: exit.reason)
    }
  }

  private func clearFailed(_ fault: HostFailure) -> [Effect] {
    guard case .clearing = stage else { return [] }
    // Nothing new is made while something old may be left: a dead engine comes back, a busy cgroup empties.
    return [.record("app.clear_failed", ["reason": .string(fault.description)]), .after(.seconds(2), .clearAgain)]
  }

  private func clearAgain() -> [Effect] {
    guard case .clearing(let instance) = stage else { return [] }
    return [.clear(instance)]
  }

  private mutating func backOff(_ policy: Policy, _ now: WallTime, _ chance: Double, because reason: String) -> [Effect]
  {
    let rules = policy.backoff
    recentRestarts.removeAll { now.since($0) > rules.window }
    guard recentRestarts.count < Int(rules.maximumAttempts) else {
      return fail("it ended \(recentRestarts.count + 1) times within \(rules.window.compact), last with \(reason)")
    }
    recentRestarts.append(now)
    restarts += 1
    // The first restart may be at once; a loop never is.
    var delay = delays == 0 ? rules.delay.seconds : max(rules.delay.seconds, 0.01)
    for _ in 0..<min(delays, 64) { delay = min(delay * max(1, rules.multiplier), rules.maximumDelay.seconds) }
    delays += 1
    delay = max(0, delay * (1 + rules.jitter * (2 * chance - 1)))
    guard delay > 0 else { return again() }
    let pause = Duration.nanoseconds(Int64(delay * 1e9))
    stage = .backoff(until: WallTime(nanoseconds: now.nanoseconds &+ pause.wholeNanoseconds))
    return [
      .record("app.backoff", ["delay_ms": .integer(pause.wholeNanoseconds / 1_000_000), "reason": .string(reason)]),
      .after(pause, .backoffOver),
    ]
  }

  private mutating func afterBackoff() -> [Effect] {
    guard case .backoff = stage else { return [] }
    return again()
  }

  private mutating func again() -> [Effect] {
    replacing = false
    stage = .waiting("its turn")
    return [.record("app.restarting", ["restarts": .integer(Int64(restarts))])]
  }

  private mutating func fail(_ reason: String) -> [Effect] {
    failure = reason
    replacing = false
    stage = .resting
    return [.record("app.failed", ["reason": .string(reason)])]
  }

  private mutating func rest(_ effects: [Effect]) -> [Effect] {
    replacing = false
    stage = .resting
    return effects + [.record("app.resting", [:])] + (want == .removed ? [.forget] : [])
  }
}
