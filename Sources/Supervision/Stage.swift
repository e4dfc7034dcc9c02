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
  /// A command of `pre_start` runs, in the place of the app.
  case preStarting(Instance, RunFacts)
  case running(Instance, RunFacts, paused: Bool)
  /// The stop signal was sent; the grace time runs.
  case stopping(Instance, RunFacts)
  case killing(Instance, RunFacts?)
  /// It has ended; the host releases what it held.
  case clearing(Instance)
  case backoff(until: WallTime)
  /// Its next run begins of itself; nil: it is being found out when.
  case scheduled(until: WallTime?)

  /// The instance that exists at a host, if there is one.
  package var instance: Instance? {
    switch self {
    case .resting, .waiting, .preparing, .creating, .backoff, .scheduled: nil
    case .starting(let instance), .preStarting(let instance, _), .running(let instance, _, _),
      .stopping(let instance, _),
      .killing(let instance, _), .clearing(let instance):
      instance
    }
  }

  /// What is known of the running program.
  package var facts: RunFacts? {
    switch self {
    case .running(_, let facts, _), .preStarting(_, let facts), .stopping(_, let facts): facts
    case .killing(_, let facts): facts
    case .resting, .waiting, .preparing, .creating, .starting, .clearing, .backoff, .scheduled: nil
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
  /// All its tasks together have used `max_cpu_time`.
  case cpuTimeOver
  /// It counts as ready; how that is known.
  case ready(String)
  /// So many checks in a row failed that it counts as unhealthy: why.
  case unhealthy(String)
  /// When its schedule begins the next run; nil: never.
  case nextRun(WallTime?)
  /// Its schedule says that a run begins now.
  case due
  /// An operator's command takes its program's place, or no longer.
  case debug(Bool)
  /// A command of `pre_start` has had its time.
  case stepTimeOver
  case paused(Bool)
  case exited(ExitReport)
  case cleared
  case clearFailed(HostFailure)
  case clearAgain
  case backoffOver
  /// What ended, or ends, is not started again: why.
  case giveUp(String)
  /// Its policy is another one now: what it failed at before is forgotten, and no pause is waited out.
  case renew
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
  /// Find out when the next run is due, and say so then.
  case armSchedule
  /// Another run beside the one that goes on.
  case runBeside
  /// How an operator's command in the app's place ended.
  case debugOver(DebugEnd)
  /// It rests as before, whatever run has been meanwhile.
  case keepRest
  /// What is there must not be taken over any more: a daemon that comes before its end begins anew as well.
  case outdate
  /// Write the stage's lasting part and tell the world.
  case record(String, [String: JSONValue])
  /// It was to be removed, and nothing of it is left.
  case forget
}

/// How debugging an app ended.
package enum DebugEnd: Sendable, Equatable {
  case exited(ExitReport)
  /// The command never ran.
  case failed(HostFailure)
}
