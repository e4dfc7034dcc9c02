package import Model

/// How one app comes to a new policy or image, and what follows where the new generation does not prove itself. Pure, as a life is:
/// `handle` is the only place that changes it. It belongs to whoever is to become, or to stay, what the app is.
package struct Update: Sendable, Equatable {
  package let rule: UpdateRule
  /// Only generations after this one are of the new policy.
  package let after: UInt64
  package private(set) var stage = Stage.coming
  /// How long a new generation may take in all.
  package let patience: Duration

  package enum Stage: Sendable, Equatable {
    /// No generation of the new policy runs yet.
    case coming
    /// This one runs, and is looked at.
    case proving(UInt64)
    case decided(Verdict)
  }

  package enum Verdict: Sendable, Equatable {
    case proven
    case failed(String)
    /// Somebody wants something else by now.
    case givenUp
  }

  /// For waiting, fetching an image, and becoming ready; `start_period` comes on top.
  package static let patience = Duration.seconds(300)

  package init(_ policy: Policy, after generation: UInt64) {
    rule = policy.update
    after = generation
    patience = Self.patience + (policy.healthcheck.startPeriod ?? .zero)
  }

  package var verdict: Verdict? { if case .decided(let verdict) = stage { verdict } else { nil } }

  /// Whether what it stands for is to be the app, whatever has become of it.
  package var isAccepted: Bool {
    switch verdict {
    case .proven: true
    case .failed: rule.failureAction == .continue
    case .givenUp, nil: false
    }
  }

  package mutating func handle(_ event: UpdateEvent) -> [UpdateEffect] {
    if case .decided = stage { return [] }
    switch event {
    case .begun: return [.after(patience, .tooLong)]
    case .runs(let generation, let byTime):
      guard generation > after, stage != .proving(generation) else { return [] }
      stage = .proving(generation)
      return byTime ? [.after(rule.monitor, .stayed(generation))] : []
    case .proven(let generation), .stayed(let generation):
      guard stage == .proving(generation) else { return [] }
      return prove()
    case .completed(let generation):
      return generation > after ? prove() : []
    case .failed(let generation, let reason):
      guard generation.map({ $0 > after }) ?? true else { return [] }
      return fail(reason)
    case .tooLong: return fail("it did not get ready within \(patience.compact)")
    case .givenUp(let reason):
      stage = .decided(.givenUp)
      return rule.order == .startFirst ? [.withdraw(reason)] : [.settle]
    }
  }

  private mutating func prove() -> [UpdateEffect] {
    stage = .decided(.proven)
    return rule.order == .startFirst ? [.takeOver] : [.settle]
  }

  private mutating func fail(_ reason: String) -> [UpdateEffect] {
    stage = .decided(.failed(reason))
    switch (rule.failureAction, rule.order) {
    case (.rollback, .startFirst), (.pause, .startFirst): return [.withdraw(reason)]
    case (.rollback, .stopFirst): return [.restore(reason)]
    case (.pause, .stopFirst): return [.hold(reason)]
    case (.continue, .startFirst): return [.goOn(reason), .takeOver]
    case (.continue, .stopFirst): return [.goOn(reason), .settle]
    }
  }
}

/// What can happen to an update.
package enum UpdateEvent: Sendable, Equatable {
  case begun
  /// A generation runs; `byTime`: nothing but that it stays up will show that it works.
  case runs(UInt64, byTime: Bool)
  /// It is ready, and healthy where it is checked.
  case proven(UInt64)
  /// It has run for as long as `monitor` says.
  case stayed(UInt64)
  /// It has ended well, and its policy lets it rest then.
  case completed(UInt64)
  /// It could not be made or started, has ended, or is unhealthy: why. Nil: it had no generation yet.
  case failed(UInt64?, String)
  case tooLong
  /// Somebody wants something else: what.
  case givenUp(String)
}

/// What is to be done about it.
package enum UpdateEffect: Sendable, Equatable {
  case after(Duration, UpdateEvent)
  /// The new generation takes the place of the present one, which is ended.
  case takeOver
  /// The policy before it is forgotten.
  case settle
  /// The new generation is ended, the present one runs on.
  case withdraw(String)
  /// The policy before it is put in force again.
  case restore(String)
  /// What has failed stays so.
  case hold(String)
  /// It failed, and its own rules decide what follows.
  case goOn(String)
}
