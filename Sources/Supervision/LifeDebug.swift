internal import Model

/// An operator's command in the place of the program.
extension Life {
  /// What is there ends, whatever it is wanted to be, and a command takes its place.
  mutating func beginDebug() -> [Effect] {
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
  mutating func endDebug(_ policy: Policy) -> [Effect] {
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
  mutating func leaveDebug(_ policy: Policy) -> [Effect] {
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
