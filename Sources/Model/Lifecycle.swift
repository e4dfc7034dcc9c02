/// How it is found out whether an app works: what its policy says, over what its image says, over the defaults.
package struct Healthcheck: Sendable, Equatable {
  /// What is tried.
  package enum Test: Sendable, Equatable {
    /// The image's own check, if it has one.
    case image
    /// Nothing, also where the image has a check.
    case none
    /// A command inside the app; exit code 0 is success.
    case command([String])
    /// `GET http://127.0.0.1:PORT/PATH` inside the app's network; a status of 200 to 399 is success.
    case http(port: UInt16, path: String)
    /// A connection to 127.0.0.1:PORT inside the app's network.
    case tcp(port: UInt16)
  }

  /// What an app that became unhealthy means.
  package enum Action: String, Sendable, CaseIterable { case none, restart, stop, notify }

  package var test = Test.image
  /// Nil: as the image says, else the default.
  package var interval: Duration?
  package var timeout: Duration?
  package var retries: UInt32?
  package var startPeriod: Duration?
  package var startInterval: Duration?
  /// Nil: `restart` where the app is restarted when it ends, else `none`.
  package var onFailure: Action?

  package init(_ test: Test = .image) { self.test = test }

  /// A test with every value settled: what a running app is held to.
  package struct Settled: Sendable, Equatable {
    /// Never `image` or `none`.
    package var test: Test
    /// From the start of one check to the start of the next.
    package var interval: Duration
    package var timeout: Duration
    /// So many failures in a row make it unhealthy.
    package var retries: UInt32
    /// Failures before the first success do not count for so long.
    package var startPeriod: Duration
    /// The longest time between checks while it starts.
    package var startInterval: Duration
    package var onFailure: Action

    package init(
      test: Test, interval: Duration, timeout: Duration, retries: UInt32, startPeriod: Duration,
      startInterval: Duration, onFailure: Action
    ) {
      self.test = test
      self.interval = interval
      self.timeout = timeout
      self.retries = retries
      self.startPeriod = startPeriod
      self.startInterval = startInterval
      self.onFailure = onFailure
    }
  }

  /// What is in force, given what the image asks for; nil: no check.
  package func settled(image: Healthcheck?, restart: RestartRule) -> Settled? {
    let test: Test
    switch self.test {
    case .image: test = image?.test ?? .none
    case .none, .command, .http, .tcp: test = self.test
    }
    switch test {
    case .image, .none: return nil
    case .command, .http, .tcp: break
    }
    let interval = self.interval ?? image?.interval ?? .seconds(30)
    return Settled(
      test: test, interval: interval, timeout: timeout ?? image?.timeout ?? .seconds(30),
      retries: retries ?? image?.retries ?? 3,
      // The Engine's own first check comes after one interval, so that much time every app had to start.
      startPeriod: startPeriod ?? image?.startPeriod ?? interval,
      startInterval: min(startInterval ?? image?.startInterval ?? .seconds(1), interval),
      onFailure: onFailure ?? (restart == .no ? .none : .restart))
  }
}

/// When an app counts as ready.
package enum Readiness: Sendable, Equatable {
  /// As soon as its program runs.
  case started
  /// At its first successful healthcheck.
  case healthy
  /// When it says so, by a datagram `READY=1` to the socket that NOTIFY_SOCKET names (sd_notify(3)).
  case notify
  /// When it writes a line that holds this text.
  case logLine(String)
}

/// How an app shows itself while it runs.
package enum HealthWord: String, Sendable, CaseIterable { case starting, healthy, unhealthy }

/// What one check found out.
package enum ProbeOutcome: Sendable, Equatable {
  case healthy
  /// Why not, in a few words; whatever of it is the app's own is cut and without control characters.
  case unhealthy(String)
  /// It could not be tried, for a reason that lies not with the app.
  case unknown(String)
}

/// When runs of an app begin of themselves.
package struct Schedule: Sendable, Equatable {
  package enum Concurrency: String, Sendable, CaseIterable {
    /// A run that is due while the last one goes on is left out.
    case forbid
    /// Runs go on beside each other.
    case allow
    /// The last run is ended first.
    case replace
  }
  package var cron: Cron
  /// A name of the time zone database, `Europe/Berlin`.
  package var timezone: String
  package var concurrency: Concurrency
  package var missed = Missed.skip

  /// What becomes of runs that were due while no supervisor ran.
  package enum Missed: String, Sendable, CaseIterable {
    /// They are told, and left out.
    case skip
    /// One run takes the place of all of them.
    case run
  }

  package init(cron: Cron, timezone: String = "UTC", concurrency: Concurrency = .forbid) {
    self.cron = cron
    self.timezone = timezone
    self.concurrency = concurrency
  }
}
