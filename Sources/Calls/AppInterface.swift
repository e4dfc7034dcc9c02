internal import FileSystems
internal import Glibc
package import Linux
package import Logging
package import Model
internal import RPC
package import Storage

/// The sockets of all instances, and what is asked on them. Everything that belongs to one instance is touched on one loop.
package actor AppInterface: AppDoors {
  package nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  private final class Door {
    let caller: Caller
    let server: RPCServer
    let folder: String
    init(_ caller: Caller, _ server: RPCServer, _ folder: String) {
      self.caller = caller
      self.server = server
      self.folder = folder
    }
  }

  let loop: EventLoop
  /// Where apps' files are worked on: few, because a disk does not get faster by more.
  let workers: Workers
  let viewer: Viewer
  let store: Store
  let log: Logger
  /// The instance's folder `run`.
  private let run: String
  private let version: String
  nonisolated let startedAt = Clock.monotonic()
  private var doors: [Instance: Door] = [:]
  private var decisions: [StoredDecision]
  private(set) var keeper: (any AppKeeper)?
  /// Apps that were launched by others, and end with them.
  var children: [AppID: Parent]
  /// Questions that wait for a person, by what they are answered by.
  var prompts: [String: Prompt] = [:]
  var promptBounds = PromptBounds()
  var promptWatchers: [UInt64: AsyncStream<PromptNews>.Continuation] = [:]
  var subscriptions: [UInt64: Subscription] = [:]
  var nextWaiter: UInt64 = 1

  /// `run` is the folder of things that a reboot may take; `decisions` and `parents` are those of an earlier daemon.
  package init(
    run: String, version: String, store: Store, decisions: [StoredDecision], parents: [AppID: String], log: Logger
  ) throws(SystemFault) {
    children = parents.compactMapValues { Parent($0) }
    let loop = try EventLoop(name: "apps")
    self.loop = loop
    workers = Workers(name: "app-files", most: 4, on: loop) { () throws(SystemFault) in try AppFiles.prepareThread() }
    viewer = Viewer(on: loop)
    self.run = run
    self.version = version
    self.store = store
    self.decisions = decisions
    self.log = log
  }

  deinit {
    workers.stop()
    viewer.stop()
    loop.stop()
  }

  /// From now on apps can be asked about.
  package func use(_ keeper: any AppKeeper) { self.keeper = keeper }

  // MARK: Doors

  package func open(_ instance: Instance, _ policy: Policy, folder: String, cgroup: String) async throws(HostFailure) {
    if let old = doors.removeValue(forKey: key(instance)) {
      leaveFiles(old.caller)
      await old.server.close()
    }
    let caller = Caller(instance, policy, cgroup: cgroup)
    caller.settle(decisions)
    var quota = PeerQuota(forAll: 16)
    quota.descriptors = 0
    quota.calls = 128
    do throws(SystemFault) {
      // The way to the socket is the app's own mount: nobody else gets past this folder.
      _ = try Folder(making: "\(run)/apps", mode: 0o700)
      let place = try Folder(making: folder, mode: 0o755)
      try place.withRaw { (raw) throws(SystemFault) in _ = try check("chmod", folder) { fchmod(raw, 0o755) } }
      let listener = try UnixSocket.listen(place, AppDoor.socket, mode: 0o666)
      let server = RPCServer(
        loop: loop, listener: listener, service: CallService(interface: self, caller: caller), quota: quota
      ) { peer in (try? Pidfd(of: peer.pid, in: cgroup)) != nil }
      doors[key(instance)] = Door(caller, server, folder)
      try await server.start()
    } catch { throw HostFailure(.failed, "the socket of \(instance.app) could not be made: \(error)") }
  }

  package func change(_ instance: Instance, _ policy: Policy) {
    guard let door = doors[key(instance)] else { return }
    door.caller.policy = policy
    settle(instance.app)
  }

  package func close(_ instance: Instance) async {
    endChildren(of: Parent(app: instance.app, generation: instance.generation))
    guard let door = doors.removeValue(forKey: key(instance)) else { return }
    leaveFiles(door.caller)
    await door.server.close()
    forget(decisions.filter { $0.app == instance.app && $0.generation == instance.generation && $0.kind.isOfOne })
    // Best effort: what stays is an empty folder in a file system that a reboot empties.
    let name = door.folder.split(separator: "/").dropLast().last.map { String($0) } ?? ""
    _ = try? Tree.remove("apps", name, in: run)
  }

  func hasDoor(_ parent: Parent) -> Bool {
    doors.keys.contains { $0.app == parent.app && $0.generation == parent.generation }
  }

  /// Whether its run goes on, as far as this knows.
  func isOpen(_ caller: Caller) -> Bool { doors[key(caller.instance)]?.caller === caller }

  /// A container's handle is known only after its door was opened.
  private func key(_ instance: Instance) -> Instance {
    Instance(app: instance.app, generation: instance.generation, nonce: "", handle: "")
  }

  // MARK: Judging

  /// Begins a call that may be made.
  nonisolated func begin(_ call: RPCCall, _ caller: Caller) throws(RPCFailure) -> RPCAnswer {
    guard let entry = CallTable.named[call.method] else {
      throw RPCFailure(
        .unknownMethod, "there is no call '\(call.method.prefix(64))'", hint: "`supervisor calls` prints them all")
    }
    let arguments = try Arguments(call, entry.arguments.map(\.name))
    for argument in entry.arguments { try argument.check(arguments) }
    let subject = entry.subject.flatMap { arguments.object[$0]?.stringValue }
    // An app may look at itself.
    let isOwn = entry.right == .inspectApp && subject == caller.instance.app.name
    guard let right = entry.right, !entry.judgesItself, !isOwn else { return try entry.body(self, caller, arguments) }
    let judgement = caller.judge(right, subject, entry.name, Clock.wall())
    if let refusal = judgement.refusal {
      if let audit = judgement.audit { write(audit) }
      throw refusal
    }
    caller.usesOnce = judgement.isOnce
    guard let audit = judgement.audit else { return try entry.body(self, caller, arguments) }
    // What only looks need not wait for it.
    if entry.streams {
      write(audit)
      return try entry.body(self, caller, arguments)
    }
    // What must be written down is, before anything happens.
    return .later { () throws(RPCFailure) in
      do throws(StorageFailure) { try await self.store.commit([.addAudit(audit)]) } catch {
        throw RPCFailure(.fault, "the audit cannot be written, and nothing is done without it")
      }
      switch try await self.go(entry, caller, arguments) {
      case .now(let result): return result
      case .later(let body): return try await body()
      case .stream: throw RPCFailure(.fault, "\(entry.name) is not among the calls that go on telling")
      case .handing: throw RPCFailure(.fault, "\(entry.name) judges itself")
      }
    }
  }

  private func go(_ entry: Call, _ caller: Caller, _ arguments: Arguments) throws(RPCFailure) -> RPCAnswer {
    try entry.body(self, caller, arguments)
  }

  nonisolated func write(_ audit: StoredAudit) {
    log.notice(
      audit.allowed ? "call.audited" : "call.denied",
      metadata: ["app": "\(audit.app)", "call": "\(audit.call)", "capability": "\(audit.permission)"])
    // Ends with the commit; few a second of one app.
    Task { [store, log] in
      do throws(StorageFailure) { try await store.commit([.addAudit(audit)]) } catch {
        log.error("audit.not_written", metadata: ["reason": "\(error)"])
      }
    }
  }

  // MARK: Decisions

  /// What each app that has a door may do, and what was decided beside its policy.
  package func permissions(of app: AppID) -> [(generation: UInt64, rules: JSONValue)] {
    doors.filter { $0.key.app == app }.sorted { $0.key.generation < $1.key.generation }.map {
      ($0.key.generation, rules(of: $0.value.caller.rights))
    }
  }

  /// What operators decided beside the policy of an app.
  package func decisions(of app: AppID) -> [StoredDecision] {
    decisions.filter { $0.app == app && !$0.kind.isOfOne }
  }

  /// An operator's decision, in force at the next call once this returns; nil takes an earlier one back. Throws what cannot be stored.
  package func decide(
    _ app: AppID, _ permission: Permission, _ kind: StoredDecision.Kind?, by: String = "operator"
  ) async throws(StorageFailure) {
    func isAnother(_ decision: StoredDecision) -> Bool {
      decision.app != app || decision.permission != permission.description || decision.kind.isOfOne
    }
    guard let kind else {
      try await store.commit([.removeDecision(app, permission: permission.description)], durable: true)
      decisions = decisions.filter(isAnother)
      return settle(app)
    }
    let decision = StoredDecision(app: app, permission: permission.description, kind: kind)
    // What is taken away is gone at once, whatever the disk says.
    if kind == .revoked {
      decisions = decisions.filter(isAnother) + [decision]
      settle(app)
    }
    try await store.commit([.putDecision(decision)], durable: true)
    decisions = decisions.filter(isAnother) + [decision]
    settle(app)
    tell(
      kind == .granted ? "permission.granted" : "permission.denied", app,
      ["capability": .string(permission.description), "by": .string(by)])
  }

  /// What was decided for one instance, which may have ended meanwhile.
  func add(_ decision: StoredDecision) {
    let isThere = doors.keys.contains { $0.app == decision.app && $0.generation == decision.generation }
    decisions.append(decision)
    if isThere { settle(decision.app) } else { forget([decision]) }
  }

  func tell(_ name: String, _ app: AppID, _ fields: [String: JSONValue]) {
    guard let keeper else { return }
    // Ends at once.
    Task { await keeper.tell(name, app, fields) }
  }

  /// The app is gone, and what was decided about it with it.
  package func forget(_ app: AppID) {
    decisions.removeAll { $0.app == app }
    children[app] = nil
    settle(app)
  }

  func settle(_ app: AppID) {
    for door in doors.values where door.caller.instance.app == app {
      door.caller.settle(decisions)
      endRevoked(door.caller)
    }
    resettle(app)
  }

  func drop(_ permission: Permission, _ caller: Caller) async throws(RPCFailure) -> JSONValue {
    let decision = StoredDecision(
      app: caller.instance.app, permission: permission.description, kind: .dropped,
      generation: caller.instance.generation)
    if !decisions.contains(decision) {
      guard decisions.count(where: { $0.app == decision.app && $0.kind == .dropped }) < 256 else {
        throw RPCFailure(.quota, "an app gives up at most 256 permissions one by one", hint: "drop a wider one")
      }
      decisions.append(decision)
      settle(caller.instance.app)
      do throws(StorageFailure) { try await store.commit([.putDecision(decision)], durable: true) } catch {
        throw RPCFailure(.fault, "it is given up, but a restart of the supervisor may bring it back: \(error)")
      }
    }
    return .object([:])
  }

  private func forget(_ dropped: [StoredDecision]) {
    guard let first = dropped.first else { return }
    decisions.removeAll { dropped.contains($0) }
    // Ends with the commit; a row that stays is of a generation that never comes again.
    Task { [store] in try? await store.commit([.removeDropped(first.app, generation: first.generation)]) }
  }

  // MARK: What calls need

  /// What a call does as it begins, which is on the loop.
  nonisolated func here<Value: Sendable>(
    _ body: @Sendable (isolated AppInterface) throws(RPCFailure) -> Value
  ) throws(RPCFailure) -> Value {
    try assumeIsolated { interface in
      Result { () throws(RPCFailure) in try body(interface) }
    }.get()
  }

  nonisolated func stored<Value: Sendable>(_ body: @Sendable (Store) async throws(StorageFailure) -> Value)
    async throws(RPCFailure) -> Value
  {
    do throws(StorageFailure) { return try await body(store) } catch {
      log.error("store.failed", metadata: ["reason": "\(error)"])
      throw RPCFailure(.fault, "the supervisor's store does not answer", hint: "its log says why")
    }
  }

  nonisolated func keep(_ app: AppID, _ key: String, _ value: String) async throws(RPCFailure) -> JSONValue {
    do throws(Store.ValueRefusal) { try await store.setValue(of: app, key, value) } catch {
      switch error {
      case .bytes(let limit):
        throw RPCFailure(.quota, "an app keeps at most \(limit) bytes", data: .object(["limit": .count(limit)]))
      case .count(let limit):
        throw RPCFailure(.quota, "an app keeps at most \(limit) values", data: .object(["limit": .count(limit)]))
      case .failed(let why):
        log.error("store.failed", metadata: ["reason": "\(why)"])
        throw RPCFailure(.fault, "the supervisor's store does not answer", hint: "its log says why")
      }
    }
    return .object([:])
  }

  /// A line of an app in our own log.
  nonisolated func said(_ app: AppID, _ level: String, _ message: String, _ fields: [String: String]) {
    var metadata: Logger.Metadata = ["app": "\(app)", "message": "\(message)"]
    for (key, value) in fields { metadata["field.\(key)"] = "\(value)" }
    log.log(level: Logger.Level(rawValue: level) ?? .info, "app.said", metadata: metadata)
  }

  nonisolated func information(_ caller: Caller) -> JSONValue {
    var names = utsname()
    uname(&names)
    let kernel = withUnsafeBytes(of: &names.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    let limits = caller.policy.limits
    return .object([
      "app": .string(caller.instance.app.name), "generation": .count(caller.instance.generation),
      "runtime": .string(caller.policy.runtime.rawValue), "sandbox": .string(caller.policy.preset.rawValue),
      "supervisor": .string(version), "kernel": .string(kernel),
      "cores": .integer(Int64(sysconf(Int32(_SC_NPROCESSORS_ONLN)))),
      "memory": .integer(Int64(sysconf(Int32(_SC_PHYS_PAGES))) * Int64(sysconf(Int32(_SC_PAGESIZE)))),
      "limits": .object([
        "memory": .optional(limits.memory?.count), "pids": .optional(limits.pids),
      ]),
    ])
  }
}

/// What one instance's socket serves.
private struct CallService: RPCService {
  let interface: AppInterface
  let caller: Caller

  func begin(_ call: RPCCall) throws(RPCFailure) -> RPCAnswer {
    try interface.begin(call, caller)
  }
}
