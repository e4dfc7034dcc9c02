package import Model

/// The health of one run: takes the outcomes of its checks, and says when the next one is due. Pure; times are nanoseconds of one
/// monotonic clock.
package struct Monitor: Sendable, Equatable {
  /// The first checks of a run come faster and faster apart, beginning with this; a command costs the app more than a connection.
  private static let firstPause: Int64 = 2_000_000
  private static let firstCommandPause: Int64 = 100_000_000
  /// The least time between two checks, however long one took.
  private static let leastPause: Int64 = 10_000_000

  package let check: Healthcheck.Settled
  private let began: Int64
  package private(set) var word = HealthWord.starting
  /// Failures in a row.
  package private(set) var failing: UInt32 = 0
  /// What the last check found out, and how long it took.
  package private(set) var last: (outcome: ProbeOutcome, took: Duration)?
  private var pause: Int64

  /// `began`: when the run did.
  package init(_ check: Healthcheck.Settled, began: Int64) {
    self.check = check
    self.began = began
    if case .command = check.test { pause = Self.firstCommandPause } else { pause = Self.firstPause }
    pause = min(pause, check.startInterval.wholeNanoseconds)
  }

  /// What a check that went from `start` to `end` means: the new word, if it is another, and when the next check begins.
  package mutating func take(_ outcome: ProbeOutcome, from start: Int64, to end: Int64) -> (
    change: HealthWord?, next: Int64
  ) {
    last = (outcome, .nanoseconds(end - start))
    let before = word
    let isEarly = word == .starting && end - began < check.startPeriod.wholeNanoseconds
    switch outcome {
    case .healthy:
      failing = 0
      word = .healthy
    // Not the app's doing: it says nothing about it.
    case .unknown: break
    case .unhealthy:
      failing = failing == .max ? failing : failing + 1
      if isEarly { failing = 0 } else if failing >= check.retries { word = .unhealthy }
    }
    let change = word == before ? nil : word
    guard isEarly, word == .starting else {
      return (change, max(start + check.interval.wholeNanoseconds, end + Self.leastPause))
    }
    let next = end + pause
    pause = min(pause * 2, check.startInterval.wholeNanoseconds)
    return (change, next)
  }

  package static func == (left: Monitor, right: Monitor) -> Bool {
    left.check == right.check && left.began == right.began && left.word == right.word && left.failing == right.failing
      && left.last?.outcome == right.last?.outcome && left.last?.took == right.last?.took && left.pause == right.pause
  }
}
