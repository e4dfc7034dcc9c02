/// One generation of an app as a host made it: what is stored before it starts, and what it is found again by.
package struct Instance: Sendable, Hashable {
  package var app: AppID
  package var generation: UInt64
  /// 128 random bits in hex; a container or shim is ours only if it shows this.
  package var nonce: String
  /// The host's own name for it: a container id, or a shim's socket name.
  package var handle: String
  /// Made while another generation of the app was there: its cgroup has its generation in its name, and its log a file of its own.
  package var isBeside: Bool

  package init(app: AppID, generation: UInt64, nonce: String, handle: String, isBeside: Bool = false) {
    self.isBeside = isBeside
    self.app = app
    self.generation = generation
    self.nonce = nonce
    self.handle = handle
  }
}

extension Instance {
  /// The generation that its cgroup is named after; nil: after the app alone.
  package var ownGroup: UInt64? { isBeside ? generation : nil }
}

extension Launch {
  /// As the instance's.
  package var ownGroup: UInt64? { isBeside ? generation : nil }
}

/// What a host needs to make one generation of an app.
package struct Launch: Sendable {
  package var policy: Policy
  package var generation: UInt64
  package var nonce: String
  /// First of the `uidCount` host ids that belong to this app alone.
  package var uidBase: UInt32
  /// 65 536, unless the instance is an ordinary user's, who has so many for all apps: then 1, and `hostID` says which.
  package var uidCount: UInt32
  /// What `prepare` resolved: an image id; empty for native.
  package var artifact: String
  /// Another generation of the app is there. Both have the same ids: they are the same app.
  package var isBeside: Bool
  /// What runs in the place of its program, looked for in PATH as the app sees it; empty: its program. All else stays as it is.
  package var instead: [String] = []
  /// Of its terminal, if it has one; nil: 80 by 24.
  package var terminalSize: TerminalSize?
  /// Its input ends with that of its first visitor.
  package var inputOnce = false

  package init(
    policy: Policy, generation: UInt64, nonce: String, uidBase: UInt32, uidCount: UInt32 = 65_536, artifact: String,
    isBeside: Bool = false
  ) {
    self.uidCount = uidCount
    self.isBeside = isBeside
    self.policy = policy
    self.generation = generation
    self.nonce = nonce
    self.uidBase = uidBase
    self.artifact = artifact
  }
}

extension Launch {
  /// How many apps an ordinary user's ids are enough for: each has one of the first half, and one of the second for the root of its
  /// own user namespace.
  package static let mostWithoutRoot: UInt32 = 32_000

  /// The host's id of one inside of the app's user namespace.
  package func hostID(_ inside: UInt32) -> UInt32 {
    if uidCount >= 65_536 { return uidBase + inside }
    // As `user: auto` gives a container, so that an app keeps its id when it moves between runtimes.
    return inside == 0 ? uidBase + 1000 + Self.mostWithoutRoot : uidBase + 1000
  }
}

/// Why a host could not do what was asked. The text is for the user: what failed, why, and what to do.
package struct HostFailure: Error, Sendable, Equatable, CustomStringConvertible {
  package enum Kind: String, Sendable {
    /// The runtime behind the host does not answer; trying again later can help.
    case unavailable
    /// A limit or layer cannot be enforced here, or the policy asks for what must not be.
    case refused
    /// An image, program, volume or instance is not there.
    case missing
    /// Something else holds what is needed (a port, a name).
    case conflict
    case failed
  }
  package var kind: Kind
  package var message: String
  package var hint: String?

  package init(_ kind: Kind, _ message: String, hint: String? = nil) {
    self.kind = kind
    self.message = message
    self.hint = hint
  }

  package var description: String { hint.map { "\(message). \($0)" } ?? message }
}

/// What a running instance is known by, for people.
package struct RunFacts: Sendable, Equatable {
  /// The app's first process, in the host's numbering; for people only, never an identity.
  package var pid: Int32
  package var startedAt: WallTime
  package var containerID: String?
  /// With the host ports that were really taken.
  package var ports: [PublishedPort]
  /// One line per required layer or limit left out under `enforcement: degrade`.
  package var missing: [String]
  /// The check that its image asks for.
  package var imageHealthcheck: Healthcheck?
  /// It has said so by its notify socket, before it was taken over.
  package var saidReady: Bool

  package init(
    pid: Int32, startedAt: WallTime, containerID: String? = nil, ports: [PublishedPort] = [], missing: [String] = [],
    imageHealthcheck: Healthcheck? = nil, saidReady: Bool = false
  ) {
    self.saidReady = saidReady
    self.pid = pid
    self.startedAt = startedAt
    self.containerID = containerID
    self.ports = ports
    self.missing = missing
    self.imageHealthcheck = imageHealthcheck
  }
}

/// What a new daemon found of an instance an old one left behind.
package enum Adoption: Sendable, Equatable {
  case created
  case running(RunFacts, paused: Bool)
  case ended(ExitReport)
  /// Nothing of it is left, and no record of how it ended.
  case gone
}

/// What hosts tell of their own accord, in order.
package enum HostEvent: Sendable {
  case exited(Instance, ExitReport)
  /// A fact about a running instance that a person should see (`oom`, a process killed for memory though the app lives on).
  case outOfMemory(Instance)
  /// Someone else paused, unpaused or removed it.
  case changedOutside(Instance, StateWord)
  /// The runtime behind the host stopped answering (why), or answers again.
  case unavailable(String)
  case available
  /// Another version of the runtime answers than before.
  case engineChanged(from: String, to: String)
  /// The app itself says so, by its notify socket: that it is ready, and how it is, as text that was cut and cleaned.
  case told(Instance, ready: Bool, status: String?)
}

/// Usage of one app, from its cgroup.
package struct Usage: Sendable, Equatable {
  /// CPU time used so far by all tasks, nanoseconds.
  package var cpuNanoseconds: UInt64
  package var memory: Bytes
  package var memoryPeak: Bytes?
  package var memoryLimit: Bytes?
  package var pids: UInt64
  package var throttledNanoseconds: UInt64
  /// What costs more to read; nil unless it was asked for.
  package var details: UsageDetails?

  package init(
    cpuNanoseconds: UInt64 = 0, memory: Bytes = Bytes(0), memoryPeak: Bytes? = nil, memoryLimit: Bytes? = nil,
    pids: UInt64 = 0,
    throttledNanoseconds: UInt64 = 0
  ) {
    self.cpuNanoseconds = cpuNanoseconds
    self.memory = memory
    self.memoryPeak = memoryPeak
    self.memoryLimit = memoryLimit
    self.pids = pids
    self.throttledNanoseconds = throttledNanoseconds
  }
}

/// What more is known of an app's use of the host. Nil: this host does not count it.
package struct UsageDetails: Sendable, Equatable {
  /// Most tasks there ever were.
  package var pidsPeak: UInt64?
  package var pidsLimit: UInt64?
  /// How often a task more was refused.
  package var pidsRefused: UInt64?
  /// How often memory had to be reclaimed at the limit.
  package var memoryAtLimit: UInt64?
  package var outOfMemoryKills: UInt64?
  package var swap: Bytes?
  /// Bytes from and to disks.
  package var blockRead: UInt64?
  package var blockWritten: UInt64?
  /// Bytes over interfaces of its own, loopback left out.
  package var received: UInt64?
  package var sent: UInt64?
  /// Share of the last ten seconds, in percent, in which some task waited for it.
  package var cpuPressure: Double?
  package var memoryPressure: Double?
  package var ioPressure: Double?
  /// How many periods there were, and in how many of them it was held back.
  package var periods: UInt64?
  package var throttledPeriods: UInt64?
  package init() {}
}

/// One isolation layer or limit of a running app, as asked and as the kernel says it.
package struct LayerReport: Sendable, Equatable {
  package enum Status: String, Sendable { case enforced, missing, notBuilt = "not built", notAsked = "not asked" }
  package var name: String
  package var asked: String?
  package var effective: String?
  package var status: Status
  package var note: String?

  package init(name: String, asked: String?, effective: String?, status: Status, note: String? = nil) {
    self.name = name
    self.asked = asked
    self.effective = effective
    self.status = status
    self.note = note
  }
}

/// Which part of an app's output is wanted.
package struct LogQuery: Sendable, Equatable {
  package var follow: Bool
  /// The last so many lines; nil: all.
  package var tail: Int?
  package var since: WallTime?
  package var until: WallTime?
  /// Only what this generation wrote.
  package var run: UInt64?

  package init(
    follow: Bool = false, tail: Int? = nil, since: WallTime? = nil, until: WallTime? = nil, run: UInt64? = nil
  ) {
    self.run = run
    self.follow = follow
    self.tail = tail
    self.since = since
    self.until = until
  }
}

/// Some output of an app, as it was written: not necessarily whole lines.
package struct LogChunk: Sendable, Equatable {
  package enum Stream: UInt8, Sendable { case output = 1, error = 2 }
  package var time: WallTime
  package var stream: Stream
  package var bytes: [UInt8]

  package init(time: WallTime, stream: Stream, bytes: [UInt8]) {
    self.time = time
    self.stream = stream
    self.bytes = bytes
  }
}

/// Progress of one long piece of work (a pull, a build), for a bar or a line.
package struct WorkProgress: Sendable, Equatable {
  /// What is worked on: a layer, a build step.
  package var item: String
  package var status: String
  /// Bytes or steps done and in all; nil: not known.
  package var done: UInt64?
  package var total: UInt64?

  package init(item: String, status: String, done: UInt64? = nil, total: UInt64? = nil) {
    self.item = item
    self.status = status
    self.done = done
    self.total = total
  }
}

/// What Supervision asks of a runtime. One contract suite runs over every implementation.
///
/// No call blocks the caller's thread. A call that is cancelled leaves either nothing behind or an instance that `adopt`
/// finds. All calls about one instance come one at a time, `logs`, `usage` and `exec` apart.
package protocol AppHost: Sendable {
  /// Which apps this host runs.
  var runtime: Runtime { get }

  /// What happens to instances without being asked; finished only when the host is.
  var events: AsyncStream<HostEvent> { get }

  /// Follows what happens behind the host, for as long as its events are wanted; ends when cancelled.
  func run() async

  /// Checks that everything the policy asks can be had here and fetches what is missing (an image), before anything is created.
  /// Returns the resolved artifact (an image id; empty for native).
  func prepare(_ policy: Policy, progress: @escaping @Sendable (WorkProgress) -> Void) async throws(HostFailure)
    -> String

  /// What the image's name of a policy means now, if that is known here without fetching anything; nil: nothing to compare.
  func present(_ policy: Policy) async -> String?

  /// The names of the policy's secrets whose content is not what the app was given at its last start.
  func changedSecrets(_ policy: Policy) async -> [String]

  /// Forgets what is kept of an app beside its data and log, when it is taken down for good.
  func forget(_ app: AppID) async

  /// The handle of the instance that `create` would make, if that is known before, and if an instance that was not started ends
  /// with this process; else nil.
  func plannedHandle(_ launch: Launch) -> String?

  /// Makes the instance with its limits in force; nothing of the app runs yet.
  func create(_ launch: Launch) async throws(HostFailure) -> Instance

  /// Starts a created instance and attests it: what is returned runs under every limit and layer its policy names, or the whole
  /// has been killed and the error says which was missing.
  func start(_ instance: Instance, _ launch: Launch) async throws(HostFailure) -> RunFacts

  /// Sends a signal to the app's first process.
  func signal(_ instance: Instance, _ number: Int32) async throws(HostFailure)

  /// Kills every process of the instance; the exit arrives as an event.
  func kill(_ instance: Instance) async throws(HostFailure)

  /// Changes a running instance to a policy that differs only in what needs no new one: when this returns every limit is in force and
  /// read back from the kernel; when it throws all of them are as before (the message says what could not be put back), `missing` if
  /// the instance has ended.
  func change(_ instance: Instance, from old: Launch, to new: Launch) async throws(HostFailure)

  /// Freezes or thaws every process of the instance.
  func setPaused(_ instance: Instance, _ paused: Bool) async throws(HostFailure)

  /// Releases everything of an ended or never started instance but its data and its log. Safe to repeat.
  func remove(_ instance: Instance) async throws(HostFailure)

  /// Takes over what an earlier daemon left: for each known launch what became of it. From then on its events arrive.
  /// Instances of ours that are not among them are removed, and named in the second result.
  func adopt(_ known: [(instance: Instance, launch: Launch)]) async throws(HostFailure) -> (
    found: [Instance: Adoption], removed: [String]
  )

  /// Runs a command inside a running instance, and returns when that has ended. It gets the app's own sandbox, attested before its
  /// first instruction where the runtime allows it; it ends with the app. Cancelled: the command is hung up on, then killed.
  ///
  /// Throws `missing` where the program is not there, `refused` where it cannot be executed or asks for more than the app has,
  /// `conflict` where the app does not run or is paused.
  func exec(_ instance: Instance, _ launch: Launch, _ request: ExecRequest) async throws(HostFailure) -> ExecEnd

  /// Joins a caller to the streams of a created or running instance, until that has ended or closed its output. Of one that is not
  /// started yet the caller misses nothing. Input reaches it only where its policy opens it. Several callers at once all see its
  /// output, and what they type arrives in the order it comes. Cancelled: the caller is gone, and the app goes on.
  ///
  /// Throws `conflict` where it does not run. `request.streams` is `connect`.
  func attach(_ instance: Instance, _ launch: Launch, _ request: AttachRequest) async throws(HostFailure)

  /// Tries once whether a running instance answers within its own network, for at most `timeout`: `test` is `http` or `tcp`. Whatever
  /// the app does, this ends and costs a bounded amount.
  func probe(_ instance: Instance, _ test: Healthcheck.Test, timeout: Duration) async -> ProbeOutcome

  /// The output of an app's instances, oldest first; ends at the end of the log, or when a followed instance has ended.
  /// `instance` nil: what is kept of ended ones.
  func logs(_ app: AppID, _ instance: Instance?, _ query: LogQuery) -> AsyncThrowingStream<LogChunk, any Error>

  /// Usage now, from the kernel's own counters.
  func usage(_ instance: Instance) async throws(HostFailure) -> Usage

  /// Usage of many at once, in one pass over the kernel's files; those that are gone are left out. `pids` are their first processes,
  /// where the network's counters are found; with `details`, all that is counted.
  func usages(_ instances: [(instance: Instance, pid: Int32)], details: Bool) async -> [Instance: Usage]

  /// The host's numbers of its processes now; empty when it does not run.
  func processes(_ instance: Instance) async -> [Int32]

  /// Every limit and layer as asked and as in force.
  func enforcement(_ instance: Instance, _ launch: Launch) async throws(HostFailure) -> [LayerReport]
}

extension AppHost {
  /// For hosts whose events come of themselves.
  package func run() async {}

  package func plannedHandle(_ launch: Launch) -> String? { nil }

  package func present(_ policy: Policy) async -> String? { nil }

  package func changedSecrets(_ policy: Policy) async -> [String] { [] }

  package func forget(_ app: AppID) async {}
}
