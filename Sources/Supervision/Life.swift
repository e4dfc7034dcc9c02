package import Model

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
  /// How long the next stop lets it be, where its operator said so; nil: as the policy says.
  package var grace: Duration?
  /// Why we end the run ourselves (`max_runtime`); shown with its exit.
  package var endReason: String?
  /// Which command of `pre_start` runs or is next; nil: the program itself.
  package var preStart: Int?
  /// Whether the program that runs counts as ready.
  package var isReady = false
  /// An operator's command takes, or is to take, the program's place; nil: nobody debugs it.
  package var debug: Debugging?
  /// What follows the end of this run.
  private var sequel = Sequel.byRule

  private enum Sequel: Sendable, Equatable {
    /// `restart` decides.
    case byRule
    /// It is started again whatever `restart` says.
    case restart
    /// It rests as failed.
    case failure
  }

  package struct Debugging: Sendable, Equatable {
    /// The present instance is made for it; else what is there ends first.
    package var isHere = false
    /// The operator is gone, or wants something else.
    package var isLeft = false
    /// It had come to rest before, and does again.
    package var rests: Bool
    /// How the command ended, while what is left of it is cleared.
    package var end: ExitReport?
    package init(isHere: Bool = false, rests: Bool) {
      self.isHere = isHere
      self.rests = rests
    }
  }

  package init(want: Want) { self.want = want }

  /// Whether something is to run now.
  private var isWanted: Bool { debug.map { !$0.isLeft } ?? (want == .running) }

  package var isRunning: Bool { if case .running = stage { true } else { false } }

  /// Whether nothing of it exists and nothing is under way.
  package var isAtRest: Bool { stage == .resting }

  /// Whether a wish for `running` asks for another run than the present one.
  package var wouldBeginAnew: Bool {
    switch stage {
    case .resting: true
    case .stopping, .killing, .clearing: want != .running
    case .waiting, .preparing, .creating, .starting, .preStarting, .running, .backoff, .scheduled: false
    }
  }

  /// Whether it is on its way up but not running yet.
  package var isStarting: Bool {
    switch stage {
    case .waiting, .preparing, .creating, .starting, .preStarting: true
    case .resting, .running, .stopping, .killing, .clearing, .backoff, .scheduled: false
    }
  }

  // MARK: The one function

  /// The next stage and what to do, for `event` at `now`. `chance` is a number in 0..<1 for jitter.
  package mutating func handle(_ event: LifeEvent, _ policy: Policy, now: WallTime, chance: Double) -> [Effect] {
    switch event {
    case .want(let want): return wish(want, policy)
    case .replace: return replace(policy)
    case .admitted: return admit(policy)
    case .held(let reason): return hold(reason)
    case .prepared: return afterPrepare(policy)
    case .created(let instance): return afterCreate(instance, policy)
    case .started(let facts): return afterStart(facts, policy, now)
    case .stepFailed(let failure): return stepFailed(failure, policy, now, chance)
    case .releasedToStop: return beginStop(policy)
    case .runtimeOver: return overdrawn("max_runtime \(policy.limits.maximumRuntime?.compact ?? "")", policy)
    case .cpuTimeOver: return overdrawn("max_cpu_time \(policy.limits.maximumCPUTime?.compact ?? "")", policy)
    case .ready(let how): return becomeReady(how)
    case .unhealthy(let why): return unhealthy(why, policy)
    case .nextRun(let time): return schedule(time)
    case .due: return due(policy)
    case .debug(let begins): return begins ? beginDebug() : endDebug(policy)
    case .stepTimeOver: return stepOverdue(policy)
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

  private mutating func wish(_ wanted: Want, _ policy: Policy) -> [Effect] {
    if debug != nil {
      if wanted == .running, want != .running { forgive() }
      want = wanted
      debug?.rests = false
      // Who debugs goes first; the app comes after, or its end.
      return wanted == .running ? [] : endDebug(policy)
    }
    let renewed = wanted == .running && (want != .running || stage == .resting)
    want = wanted
    if renewed {
      forgive()
      switch stage {
      // What was begun for the old wish ends first; then it starts.
      case .preparing, .stopping, .killing, .clearing: replacing = true
      case .resting, .waiting, .creating, .starting, .preStarting, .running, .backoff, .scheduled: break
      }
    }
    switch (wanted, stage) {
    case (.running, .resting):
      guard policy.schedule == nil else {
        stage = .scheduled(until: nil)
        return [.armSchedule]
      }
      stage = .waiting("its turn")
      return [.record("app.waiting", [:])]
    case (.running, _): return []
    case (.stopped, .resting): return []
    case (.removed, .resting): return [.forget]
    case (.stopped, .waiting), (.removed, .waiting), (.stopped, .backoff), (.removed, .backoff),
      (.stopped, .scheduled), (.removed, .scheduled):
      return rest([.cancelTimers], policy)
    case (.stopped, .preparing), (.removed, .preparing): return [.cancelPrepare]
    // Remembered: the step under way ends first, and then it is stopped.
    case (.stopped, _), (.removed, _): return []
    }
  }

  private mutating func forgive() {
    failure = nil
    restarts = 0
    recentRestarts = []
    delays = 0
  }

  private mutating func replace(_ policy: Policy) -> [Effect] {
    // What comes afterwards is made from the new policy anyway.
    guard debug == nil else { return [] }
    switch stage {
    case .resting, .waiting, .backoff: return []
    // The new policy may have another schedule.
    case .scheduled: return [.armSchedule]
    case .preparing:
      replacing = true
      return [.cancelPrepare]
    case .creating, .starting, .preStarting, .running, .stopping, .killing:
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
    switch stage {
    case .running, .preStarting: return !isWanted || replacing
    case .resting, .waiting, .preparing, .creating, .starting, .stopping, .killing, .clearing, .backoff, .scheduled:
      return false
    }
  }

  // MARK: Up

  private mutating func admit(_ policy: Policy) -> [Effect] {
    guard case .waiting = stage, isWanted else { return [] }
    stage = .preparing
    debug?.isHere = true
    preStart = policy.preStart.isEmpty || debug != nil ? nil : 0
    return [.prepare]
  }

  private mutating func hold(_ reason: String) -> [Effect] {
    guard case .waiting(let before) = stage, before != reason else { return [] }
    stage = .waiting(reason)
    return [.record("app.pending", ["reason": .string(reason)])]
  }

  private mutating func afterPrepare(_ policy: Policy) -> [Effect] {
    guard stage == .preparing else { return [] }
    guard isWanted else { return debug == nil ? rest([], policy) : leaveDebug(policy) }
    guard !replacing else { return again() }
    stage = .creating
    return [.create]
  }

  private mutating func afterCreate(_ instance: Instance, _ policy: Policy) -> [Effect] {
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

  private mutating func afterStart(_ facts: RunFacts, _ policy: Policy, _ now: WallTime) -> [Effect] {
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

  private mutating func becomeReady(_ how: String) -> [Effect] {
    guard case .running = stage, !isReady else { return [] }
    isReady = true
    return [.record("app.ready", ["by": .string(how)])]
  }

  private mutating func stepFailed(_ fault: HostFailure, _ policy: Policy, _ now: WallTime, _ chance: Double)
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

  /// Set while what a failed start left behind is cleared.
  private var pendingFailure: HostFailure?

  private mutating func afterFailure(_ fault: HostFailure, _ policy: Policy, _ now: WallTime, _ chance: Double)
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

  // MARK: Down

  private mutating func beginStop(_ policy: Policy) -> [Effect] {
    guard shouldStop else { return [] }
    switch stage {
    case .running(let instance, let facts, let paused): return stop(instance, facts, policy, paused)
    case .preStarting(let instance, let facts): return stop(instance, facts, policy, false)
    case .resting, .waiting, .preparing, .creating, .starting, .stopping, .killing, .clearing, .backoff, .scheduled:
      return []
    }
  }

  private mutating func overdrawn(_ limit: String, _ policy: Policy) -> [Effect] {
    guard case .running(let instance, let facts, let paused) = stage else { return [] }
    endReason = limit
    return stop(instance, facts, policy, paused)
  }

  private mutating func unhealthy(_ why: String, _ policy: Policy) -> [Effect] {
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

  private mutating func stop(_ instance: Instance, _ facts: RunFacts, _ policy: Policy, _ paused: Bool) -> [Effect] {
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

  private mutating func beginKill() -> [Effect] {
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
  private mutating func stepOverdue(_ policy: Policy) -> [Effect] {
    guard case .preStarting(let instance, let facts) = stage, let preStart, preStart < policy.preStart.count else {
      return []
    }
    stage = .killing(instance, facts)
    endReason = "not done within \(policy.preStart[preStart].timeout.compact), its timeout"
    return [.cancelTimers, .record("app.killing", [:]), .kill(instance), .after(.seconds(5), .killAgain)]
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

  private mutating func afterClear(_ policy: Policy, _ now: WallTime, _ chance: Double) -> [Effect] {
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

  private func clearFailed(_ fault: HostFailure) -> [Effect] {
    guard case .clearing = stage else { return [] }
    // Nothing new is made while something old may be left: a dead engine comes back, a busy cgroup empties.
    return [.record("app.clear_failed", ["reason": .string(fault.description)]), .after(.seconds(2), .clearAgain)]
  }

  private func clearAgain() -> [Effect] {
    guard case .clearing(let instance) = stage else { return [] }
    return [.clear(instance)]
  }

  private mutating func backOff(
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

  private mutating func afterBackoff() -> [Effect] {
    guard case .backoff = stage else { return [] }
    return again()
  }

  private mutating func again() -> [Effect] {
    replacing = false
    stage = .waiting("its turn")
    return [.record("app.restarting", ["restarts": .integer(Int64(restarts))])]
  }

  private mutating func fail(_ reason: String, _ policy: Policy) -> [Effect] {
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

  private mutating func rest(_ effects: [Effect], _ policy: Policy) -> [Effect] {
    replacing = false
    guard policy.schedule == nil || want != .running else {
      stage = .scheduled(until: nil)
      return effects + [.record("app.resting", [:]), .armSchedule]
    }
    stage = .resting
    return effects + [.record("app.resting", [:])] + (want == .removed ? [.forget] : [])
  }

  // MARK: Runs that begin of themselves

  private mutating func schedule(_ time: WallTime?) -> [Effect] {
    guard case .scheduled(let before) = stage, before != time else { return [] }
    stage = .scheduled(until: time)
    return [.record("app.scheduled", ["next": time.map { .integer($0.nanoseconds) } ?? .null])]
  }

  private mutating func due(_ policy: Policy) -> [Effect] {
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

// MARK: Debugging

extension Life {
  /// What is there ends, whatever it is wanted to be, and a command takes its place.
  private mutating func beginDebug() -> [Effect] {
    guard debug == nil else { return [] }
    debug = Debugging(rests: stage == .resting && want == .running)
    let told = Effect.record("app.debug", [:])
    switch stage {
    case .resting, .waiting, .backoff, .scheduled:
      stage = .waiting("its turn")
      return [.cancelTimers, told]
    case .preparing:
      replacing = true
      return [told, .cancelPrepare]
    case .creating, .starting, .preStarting, .running, .stopping, .killing, .clearing:
      replacing = true
      return [told]
    }
  }

  /// Nobody debugs it any more: the command, if there is one, ends.
  private mutating func endDebug(_ policy: Policy) -> [Effect] {
    guard let debug else { return [] }
    guard debug.isHere else {
      if case .waiting = stage { return leaveDebug(policy) }
      // What stood before it ends all the same, and comes back if it is wanted.
      self.debug = nil
      return []
    }
    self.debug?.isLeft = true
    return stage == .preparing ? [.cancelPrepare] : []
  }

  /// Nothing of the command is left: the app becomes what it is wanted to be.
  private mutating func leaveDebug(_ policy: Policy) -> [Effect] {
    let rests = debug?.rests ?? false
    // Told now: whoever hears it may debug it again at once.
    let told: [Effect] = [.record("app.debug_over", [:])] + (debug?.end.map { [Effect.debugOver(.exited($0))] } ?? [])
    debug = nil
    replacing = false
    guard want == .running, policy.schedule == nil else { return told + rest([], policy) }
    guard rests else { return told + again() }
    stage = .resting
    return told + [.keepRest, .record("app.resting", [:])]
  }
}
