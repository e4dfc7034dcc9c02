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
  /// Set while what a failed start left behind is cleared.
  var pendingFailure: HostFailure?
  /// What follows the end of this run.
  var sequel = Sequel.byRule

  enum Sequel: Sendable, Equatable {
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
  var isWanted: Bool { debug.map { !$0.isLeft } ?? (want == .running) }

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
    case .giveUp(let reason): return giveUp(reason, policy)
    case .renew: return renew()
    }
  }

  // MARK: Wishes

  mutating func wish(_ wanted: Want, _ policy: Policy) -> [Effect] {
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

  mutating func forgive() {
    failure = nil
    restarts = 0
    recentRestarts = []
    delays = 0
  }

  mutating func replace(_ policy: Policy) -> [Effect] {
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
}
