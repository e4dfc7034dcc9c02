/// Why a run of an app ended, as the kernel tells it.
package struct ExitReport: Sendable, Equatable {
  package enum Cause: Sendable, Equatable {
    case code(Int32)
    case signal(Int32)
    /// The program could not be started at all: step and reason.
    case neverStarted(step: String, reason: String)
    /// The run ended while nobody could record how (the host was rebooted, the container was removed by someone else).
    case unknown(String)
  }
  package var cause: Cause
  /// The kernel killed a process of this app for its memory limit (the cgroup's own counter, or the Engine's).
  package var outOfMemory: Bool
  package var startedAt: WallTime?
  package var endedAt: WallTime

  package init(cause: Cause, outOfMemory: Bool = false, startedAt: WallTime?, endedAt: WallTime) {
    self.cause = cause
    self.outOfMemory = outOfMemory
    self.startedAt = startedAt
    self.endedAt = endedAt
  }

  /// As a shell counts: the code, or 128 + signal; 127 when the program never started; 255 when unknown.
  package var exitCode: Int32 {
    switch cause {
    case .code(let code): code
    case .signal(let number): 128 + number
    case .neverStarted: 127
    case .unknown: 255
    }
  }

  package var succeeded: Bool { cause == .code(0) && !outOfMemory }

  /// `out of memory`, `signal 9 (SIGKILL)`, `exit code 3`.
  package var reason: String {
    switch cause {
    case _ where outOfMemory: "out of memory"
    case .code(let code): "exit code \(code)"
    case .signal(let number): "signal \(number)" + (SignalName.name(of: number).map { " (\($0))" } ?? "")
    case .neverStarted(let step, let reason): "could not start: \(step): \(reason)"
    case .unknown(let why): why
    }
  }
}

/// The word for an app's state in `ps`, events and JSON: the Engine's words and our own.
package enum StateWord: String, Sendable, CaseIterable {
  case created, running, paused, restarting, exited, dead
  case pending, pulling, starting, stopping, backoff, failed, completed, scheduled
}

/// Signals by the names policies and `kill -s` use.
package enum SignalName {
  private static let names: [(String, Int32)] = [
    ("SIGHUP", 1), ("SIGINT", 2), ("SIGQUIT", 3), ("SIGILL", 4), ("SIGTRAP", 5), ("SIGABRT", 6), ("SIGBUS", 7),
    ("SIGFPE", 8),
    ("SIGKILL", 9), ("SIGUSR1", 10), ("SIGSEGV", 11), ("SIGUSR2", 12), ("SIGPIPE", 13), ("SIGALRM", 14),
    ("SIGTERM", 15),
    ("SIGSTKFLT", 16), ("SIGCHLD", 17), ("SIGCONT", 18), ("SIGSTOP", 19), ("SIGTSTP", 20), ("SIGTTIN", 21),
    ("SIGTTOU", 22),
    ("SIGURG", 23), ("SIGXCPU", 24), ("SIGXFSZ", 25), ("SIGVTALRM", 26), ("SIGPROF", 27), ("SIGWINCH", 28),
    ("SIGIO", 29),
    ("SIGPWR", 30), ("SIGSYS", 31),
  ]

  /// The number of `SIGTERM`, `TERM`, `term` or `15`; nil for anything else, real-time signals but by number included.
  package static func number(_ text: String) -> Int32? {
    if let value = Int32(text) { return (1...64).contains(value) ? value : nil }
    let upper = text.uppercased()
    return names.first { $0.0 == upper || $0.0.dropFirst(3) == upper }?.1
  }

  package static func name(of number: Int32) -> String? { names.first { $0.1 == number }?.0 }

  /// Every name, for did-you-mean.
  package static var all: [String] { names.map(\.0) }
}

/// One thing that happened, persisted in order and streamed. Field values are short and never hold a secret.
package struct Event: Sendable, Equatable {
  /// Its place in the instance's history; only ever grows. 0 until stored.
  package var cursor: Int64
  package var time: WallTime
  package var app: AppID?
  /// A stable name, `app.started`.
  package var name: String
  package var fields: [String: JSONValue]

  package init(cursor: Int64 = 0, time: WallTime, app: AppID?, name: String, fields: [String: JSONValue] = [:]) {
    self.cursor = cursor
    self.time = time
    self.app = app
    self.name = name
    self.fields = fields
  }
}
