/// A command to run inside a running instance: with the app's own limits and rights, and never more.
package struct ExecRequest: Sendable {
  /// The program and its arguments. Without a `/` the program is looked for in PATH, as the app sees it.
  package var command: [String]
  /// Besides what the app was started with; the same names win.
  package var environment: [(name: String, value: String)] = []
  /// Inside the app; nil: the app's own.
  package var workingFolder: String?
  /// Ids as the app sees them; nil: the app's own.
  package var user: ExecUser?
  package var streams = ExecStreams.keep(0)
  /// Afterwards every process of its group is killed; nil: it may take for ever. Counts from the call.
  package var timeout: Duration?
  /// What is asked of it while it runs; its end means nothing.
  package var orders: AsyncStream<ExecOrder>?

  package init(_ command: [String]) { self.command = command }

  /// Most bytes of arguments and variables together.
  package static let maximumBytes = 256 << 10
}

package struct ExecUser: Sendable, Equatable {
  package var uid: UInt32
  package var gid: UInt32

  package init(uid: UInt32, gid: UInt32) {
    self.uid = uid
    self.gid = gid
  }

  /// `UID` or `UID:GID`, in numbers: names are known inside the app only. Without a group it is the one of the same number.
  package init?(_ text: String) {
    let parts = text.split(separator: ":", omittingEmptySubsequences: false)
    guard (1...2).contains(parts.count), let uid = UInt32(parts[0]), let gid = UInt32(parts.last ?? "") else {
      return nil
    }
    self.init(uid: uid, gid: gid)
  }
}

/// A terminal's size in characters.
package struct TerminalSize: Sendable, Equatable {
  package var columns: UInt16
  package var rows: UInt16

  package init(columns: UInt16, rows: UInt16) {
    self.columns = columns
    self.rows = rows
  }
}

/// Where a command's input comes from and its output goes.
package enum ExecStreams: Sendable {
  /// It reads nothing; the last so many bytes of all it writes come back with its end. More is read and dropped, so that it never
  /// waits for a reader.
  case keep(Int)
  /// The caller's ends of pipes (or of a terminal, if `terminal`) are handed over before the command's first instruction. `input`: the
  /// caller writes to it, too; else it reads nothing. The bytes do not pass the host if they need not.
  case connect(
    input: Bool, terminal: TerminalSize?, @Sendable (any StreamEnds) async throws(HostFailure) -> Void)
}

/// The caller's ends of a command's streams: descriptors, which this layer knows nothing of (Linux.DescriptorEnds).
package protocol StreamEnds: Sendable {}

/// What can be asked of a running command.
package enum ExecOrder: Sendable, Equatable {
  case resize(TerminalSize)
  case signal(Int32)
}

/// Somebody at the streams of an app.
package struct AttachRequest: Sendable {
  /// `connect`; its terminal's size is given to the app's.
  package var streams: ExecStreams
  /// Sizes, and signals for the app's first process.
  package var orders: AsyncStream<ExecOrder>?
  /// The end of the caller's input is that of the app's.
  package var endsInput = false

  package init(_ streams: ExecStreams) { self.streams = streams }
}

/// How a command ended.
package struct ExecEnd: Sendable, Equatable {
  package enum Cause: Sendable, Equatable {
    case code(Int32)
    case signal(Int32)
    /// It was killed when its time was over.
    case timedOut
    /// It ended with the app or its runtime, and nobody knows how.
    case lost(String)
  }
  package var cause: Cause
  /// What `keep` asked for.
  package var output: [UInt8] = []
  /// Bytes it wrote before those.
  package var dropped: UInt64 = 0

  package init(_ cause: Cause) { self.cause = cause }

  /// As a shell says it: 128 + the signal.
  package var exitCode: Int32 {
    switch cause {
    case .code(let code): code
    case .signal(let number): 128 + number
    case .timedOut: 124
    case .lost: 137
    }
  }
}

/// The last bytes of something long.
package struct TailBytes: Sendable {
  private let most: Int
  private var held: [UInt8] = []
  private var taken: UInt64 = 0

  package init(_ most: Int) { self.most = max(0, most) }

  package mutating func add(_ bytes: some Collection<UInt8>) {
    taken += UInt64(bytes.count)
    held += bytes.suffix(most)
    // Moved down now and then, not at every piece.
    if held.count > 2 * most { held.removeFirst(held.count - most) }
  }

  /// At most `most` bytes.
  package var bytes: [UInt8] { Array(held.suffix(most)) }
  /// How many came before them.
  package var dropped: UInt64 { taken - UInt64(min(held.count, most)) }
}
