internal import Glibc
internal import Linux
internal import Sandboxing

/// The commands that run beside the app.
struct Commands {
  /// More than these at once are refused: each is charged to the app, but their end is this process's work.
  static let most = 64

  private(set) var all: [Command] = []
  /// Until when to look for children we know nothing of; 0: there are none.
  private var strangersUntil: Int64 = 0

  /// What to wait for, each with its place.
  enum Wait { case channel, entering, process }

  var waits: [(raw: Int32, place: Int, wait: Wait)] {
    all.enumerated().flatMap { place, command in
      [
        command.channel.map { ($0.withRaw { $0 }, place, Wait.channel) },
        command.entering.map { ($0.handle.withRaw { $0 }, place, Wait.entering) },
        command.process.map { ($0.handle.withRaw { $0 }, place, Wait.process) },
      ].compactMap { $0 }
    }
  }

  /// When to look again without being woken (monotonic clock); nil: never.
  var due: Int64? {
    var due = all.compactMap { $0.plan.deadline > 0 ? $0.plan.deadline : nil }.min()
    // One that is overdue is being killed, perhaps frozen: looked at ten times a second.
    let now = Clock.monotonic()
    if let time = due, time <= now { due = now + 100_000_000 }
    return strangersUntil > 0 ? min(due ?? .max, now + 10_000_000) : due
  }

  /// Begins one; what comes beside the request are its plan and its streams.
  mutating func begin(
    _ id: UInt32, _ descriptors: [SharedDescriptor], _ launch: LaunchPlan, app: borrowing Pidfd,
    for connection: SharedDescriptor
  ) throws(StepFailure) {
    guard descriptors.count == ShimRequest.execDescriptors, !all.contains(where: { $0.id == id }) else {
      throw StepFailure("request", reason: "a command comes with its plan and three streams", code: EINVAL)
    }
    guard all.count < Self.most else {
      throw StepFailure("request", reason: "\(Self.most) commands run in it already", code: EAGAIN)
    }
    let bytes = try step("request") { () throws(SystemFault) in
      try SealedMemory.read(descriptors[0], limit: ExecPlan.maximumBytes)
    }
    guard let plan = try? ExecPlan(bytes: bytes) else {
      throw StepFailure("request", reason: "the command's plan cannot be read", code: EINVAL)
    }
    all.append(
      try Command(id, plan, launch, app: app, streams: Array(descriptors.dropFirst()), connection: connection))
  }

  func command(_ id: UInt32, of connection: SharedDescriptor) -> Command? {
    all.first { $0.id == id && $0.connection === connection }
  }

  /// A daemon is gone: what nobody waits for any more ends.
  func abandon(_ connection: SharedDescriptor) {
    for command in all where command.connection === connection && !command.plan.outlivesDaemon {
      command.signal(SIGKILL)
    }
  }

  /// What one of them waited for is there.
  func handle(_ place: Int, _ wait: Wait) {
    switch wait {
    // Heard by `news`, below: all that was said comes before an end.
    case .channel: break
    case .entering: all[place].entered()
    case .process: all[place].ended()
    }
  }

  /// What is to be told, to whom; those that are over are forgotten. `ours` are the other children of this process.
  mutating func news(ours: [Int32]) -> [(Command, ExecState)] {
    guard !all.isEmpty || strangersUntil > 0 else { return [] }
    var news: [(Command, ExecState)] = []
    let now = Clock.monotonic()
    for command in all {
      for state in command.hear() { news.append((command, state)) }
      command.killOverdue(now)
      guard command.isOver else { continue }
      news.append((command, command.outcome))
      if command.mayHaveLeftOne { strangersUntil = now + 1_000_000_000 }
    }
    all.removeAll(where: \.isOver)
    if strangersUntil > 0 {
      let known = Set(ours + all.flatMap { [$0.entering?.pid, $0.process?.pid].compactMap { $0 } })
      if Children.reapStrangers(besides: known) > 0 || now > strangersUntil { strangersUntil = 0 }
    }
    return news
  }
}
