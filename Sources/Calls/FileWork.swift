internal import FileSystems
internal import Glibc
internal import Linux
internal import Model
internal import RPC
internal import Storage
internal import Synchronization

/// What a call does to files: the rights it takes on the paths as they were written, and the work, on a thread that has the app's ids.
struct FileJob: Sendable {
  var rights: [(right: Right, path: AppPath)] = []
  /// Its answer may fill a frame.
  var isLarge: Bool
  var work: @Sendable (AppFiles) throws(FileProblem) -> JSONValue

  init(
    _ rights: [(right: Right, path: AppPath)], isLarge: Bool = false,
    _ work: @escaping @Sendable (AppFiles) throws(FileProblem) -> JSONValue
  ) {
    self.rights = rights
    self.isLarge = isLarge
    self.work = work
  }
}

/// Work on files in an app's name.
extension AppInterface {
  /// On the interface's loop: judges, and leaves the work for later.
  nonisolated func begin(_ job: FileJob, _ call: String, _ caller: Caller, _ arguments: Arguments) throws(RPCFailure)
    -> RPCAnswer
  {
    // With what was granted for this one use.
    let rules = caller.rights
    let version = caller.version
    let audits = try judge(job.rights, call, caller)
    let asked = job.rights.first?.path
    return .later { () throws(RPCFailure) in
      try await self.keep(audits)
      let body = { @Sendable () async throws(RPCFailure) -> JSONValue in
        let result = try await self.work(call, asked, caller, arguments, rules, job.work)
        try await self.confirm(job.rights, since: version, caller)
        return result
      }
      return job.isLarge ? try await self.inTurn(caller, arguments, body) : try await body()
    }
  }

  /// What was taken away since it was asked for is not answered.
  func confirm(_ rights: [(right: Right, path: AppPath)], since version: Int, _ caller: Caller) throws(RPCFailure) {
    guard caller.version != version else { return }
    for (right, path) in rights where !caller.rights.allows(right, path.description) {
      throw RPCFailure(.revoked, "the right to \(path) was taken away meanwhile")
    }
  }

  /// One of an instance's at a time, and not before its peer has read most of what it was answered.
  private func inTurn(
    _ caller: Caller, _ arguments: Arguments, _ body: @Sendable () async throws(RPCFailure) -> JSONValue
  ) async throws(RPCFailure) -> JSONValue {
    while caller.files.isAnswering { await withCheckedContinuation { caller.files.waiting.append($0) } }
    caller.files.isAnswering = true
    defer {
      caller.files.isAnswering = false
      if !caller.files.waiting.isEmpty { caller.files.waiting.removeFirst().resume() }
    }
    do { try await arguments.call.room() } catch { throw RPCFailure(.closed, "the peer is gone") }
    return try await body()
  }

  /// What must be written down before the work, if the caller may do all of it. On the interface's loop.
  nonisolated func judge(_ rights: [(right: Right, path: AppPath)], _ call: String, _ caller: Caller)
    throws(RPCFailure) -> [StoredAudit]
  {
    var audits: [StoredAudit] = []
    for (right, path) in rights {
      let judgement = caller.judge(right, path.description, call, Clock.wall())
      if let refusal = judgement.refusal {
        if let audit = judgement.audit { write(audit) }
        throw refusal
      }
      if let audit = judgement.audit { audits.append(audit) }
    }
    return audits
  }

  nonisolated func keep(_ audits: [StoredAudit]) async throws(RPCFailure) {
    guard !audits.isEmpty else { return }
    do throws(StorageFailure) { try await store.commit(audits.map { .addAudit($0) }) } catch {
      throw RPCFailure(.fault, "the audit cannot be written, and nothing is done without it")
    }
  }

  /// Runs `body` with the caller's ids and what its process sees. `asked`: for messages.
  func work<Result: Sendable>(
    _ call: String, _ asked: AppPath?, _ caller: Caller, _ arguments: Arguments, _ rules: RightSet,
    _ body: @escaping @Sendable (AppFiles) throws(FileProblem) -> Result
  ) async throws(RPCFailure) -> Result {
    let peer = arguments.peer
    let view = try await process(of: peer, caller).view
    let outcome: Swift.Result<Result, FileProblem>
    do throws(SystemFault) {
      outcome = try await workers.run(UInt64(UInt(bitPattern: ObjectIdentifier(caller)))) {
        () -> Swift.Result<Result, FileProblem> in
        if caller.isGone.load(ordering: .relaxed) {
          return .failure(.refused(.conflict, "the app has ended", hint: nil))
        }
        do throws(SystemFault) {
          try AppFiles.assume(uid: peer.uid, gid: peer.gid, groups: peer.groups)
        } catch { return .failure(.system(error)) }
        do throws(FileProblem) { return .success(try body(AppFiles(view, rules))) } catch { return .failure(error) }
      }
    } catch { throw RPCFailure(.fault, "the supervisor has no thread for work on files: \(error)") }
    switch outcome {
    case .success(let result): return result
    case .failure(let problem): throw failure(problem, call, asked, caller)
    }
  }

  /// The process at the other end of a connection, with what it sees.
  private func process(of peer: PeerCredentials, _ caller: Caller) async throws(RPCFailure) -> ViewedProcess {
    if let known = caller.files.processes[peer.pid], known.process.isAlive { return known }
    guard geteuid() == 0 else {
      throw RPCFailure(
        .unsupported, "a supervisor of an ordinary user's cannot look at an app's files",
        hint: "the app reaches them with its own system calls")
    }
    let made = try await look(at: peer.pid, caller.cgroup)
    // Another call of the same process may have come first meanwhile.
    if let known = caller.files.processes[peer.pid], known.process.isAlive { return known }
    if caller.files.processes.count >= CallerFiles.mostProcesses, caller.files.processes[peer.pid] == nil {
      guard let idle = caller.files.idleProcess else {
        throw RPCFailure(
          .quota, "\(CallerFiles.mostProcesses) processes of the app have files open here",
          data: .object(["limit": .count(CallerFiles.mostProcesses), "hint": "close handles with fs.close"]))
      }
      leave(idle, caller)
    }
    do throws(SystemFault) {
      try made.process.withRaw { (raw) throws(SystemFault) in
        try loop.watch(raw, .read) { [weak self, weak caller] _ in
          self?.assumeIsolated { interface in
            if let caller { interface.leave(peer.pid, caller) }
          }
        }
      }
    } catch { throw RPCFailure(.fault, "the end of the app's process cannot be waited for: \(error)") }
    leave(peer.pid, caller)
    caller.files.processes[peer.pid] = made
    return made
  }

  private func look(at pid: Int32, _ cgroup: String) async throws(RPCFailure) -> ViewedProcess {
    do throws(SystemFault) {
      return try await viewer.look(at: pid, in: cgroup)
    } catch {
      guard error.code == ESRCH else {
        throw RPCFailure(.fault, "what the app sees of files cannot be found out: \(error)")
      }
      throw RPCFailure(
        .closed, "the process that made this connection has ended", hint: "connect anew from the one that asks")
    }
  }

  private func leave(_ pid: Int32, _ caller: Caller) {
    if let old = caller.files.processes[pid] { old.process.withRaw { loop.unwatch($0) } }
    caller.files.leave(pid)
  }

  /// Lets go of all that an instance holds of its files.
  func leaveFiles(_ caller: Caller) {
    caller.isGone.store(true, ordering: .relaxed)
    for pid in caller.files.processes.keys { leave(pid, caller) }
  }

  // MARK: Failures

  func failure(_ problem: FileProblem, _ call: String, _ asked: AppPath?, _ caller: Caller) -> RPCFailure {
    switch problem {
    case .lacks(let right, let path):
      // Judged once more, so that it is refused and written down like any other.
      let judgement = caller.judge(right, path.description, call, Clock.wall())
      if let audit = judgement.audit { write(audit) }
      return judgement.refusal
        ?? RPCFailure(
          .denied, "\(call) needs \(right.rawValue):\(path)",
          data: .object([
            "call": .string(call), "capability": .string("\(right.rawValue):\(path)"),
            "hint": "it is needed for the whole folder, and nothing in it may be denied",
          ]))
    case .refused(let kind, let message, let hint):
      let code: RPCFailure.Code =
        switch kind {
        case .invalid: .invalidParameters
        case .conflict: .conflict
        case .missing: .notFound
        case .quota: .quota
        }
      return RPCFailure(code, message, hint: hint)
    case .tooLarge(let limit):
      return RPCFailure(
        .tooLarge, "\(asked?.description ?? call) has more than \(limit) bytes",
        data: .object(["limit": .integer(Int64(limit)), "hint": "read parts with offset and length, or use fs.open"]))
    case .system(let fault): return failure(fault, call, asked)
    }
  }

  private func failure(_ fault: SystemFault, _ call: String, _ asked: AppPath?) -> RPCFailure {
    let (code, hint): (RPCFailure.Code, String?) =
      switch fault.code {
      case EXDEV where fault.call == "rename":
        (.conflict, "they lie in two mounts: fs.copy, then fs.delete")
      case ELOOP, EXDEV: (.notFound, "a link there leads out of its mount, or would be followed to change something")
      case ENOENT, ENOTDIR: (.notFound, nil)
      case EACCES, EPERM: (.denied, "its owner and mode do not let the app's user do this")
      case EROFS: (.denied, "it is mounted to be read only")
      case EAGAIN: (.conflict, "another holds a lease on it, or renames it all the time: ask again")
      case EEXIST, ENOTEMPTY, EBUSY, ETXTBSY, EISDIR: (.conflict, nil)
      case ENOSPC, EDQUOT, EMFILE, ENFILE, EMLINK: (.quota, nil)
      case EFBIG: (.tooLarge, nil)
      case EBADF: (.invalidParameters, "it was not opened for that")
      case ENAMETOOLONG, EINVAL, ESPIPE, EOVERFLOW: (.invalidParameters, nil)
      default: (.fault, nil)
      }
    return RPCFailure(
      code, "\(call): \(asked.map { "\($0): " } ?? "")\(fault.reason)",
      data: .object(["call": .string(call), "errno": .integer(Int64(fault.code)), "hint": .optional(hint)]))
  }
}

/// Arguments of calls on files.
extension Arguments {
  /// As written, made absolute.
  func path(_ key: String, _ caller: Caller) throws(RPCFailure) -> AppPath {
    let text = try text(key) ?? ""
    do throws(AppPath.Problem) { return try AppPath(text, from: caller.files.folder) } catch {
      switch error {
      case .empty: throw RPCFailure(.invalidParameters, "\(key) is empty")
      case .hasNul: throw RPCFailure(.invalidParameters, "\(key) holds a NUL, which no path does")
      case .tooLong:
        throw RPCFailure(.invalidParameters, "\(key) has more than 4095 bytes, or a name in it more than 255")
      }
    }
  }

  /// Permission bits without set-uid and set-gid.
  func mode(_ key: String, default mode: UInt32) throws(RPCFailure) -> UInt32 {
    guard let number = try integer(key) else { return mode }
    guard 0...0o1777 ~= number else {
      throw RPCFailure(.invalidParameters, "\(key) is 0 to 1023 (0o1777): set-uid and set-gid are given to no file")
    }
    return UInt32(number)
  }

  func place(_ key: String) throws(RPCFailure) -> Int64? {
    guard let number = try integer(key) else { return nil }
    guard 0...(1 << 62) ~= number else { throw RPCFailure(.invalidParameters, "\(key) is 0 or more") }
    return number
  }

  /// A number of bytes to read.
  func length(_ key: String) throws(RPCFailure) -> Int? {
    guard let number = try place(key) else { return nil }
    guard number <= mostBytes else {
      throw RPCFailure(
        .tooLarge, "\(call.share > 1 ? "each call of this batch" : "one call") reads at most \(mostBytes) bytes",
        data: .object(["limit": .integer(Int64(mostBytes))]))
    }
    return Int(number)
  }

  /// What its part of a frame holds.
  var mostBytes: Int { AppFiles.mostBytes / call.share }

  func bytes(_ key: String) throws(RPCFailure) -> [UInt8] {
    let encoding = try text("encoding") ?? "utf8"
    guard let bytes = FileText.decode(try text(key) ?? "", encoding) else {
      throw RPCFailure(.invalidParameters, "\(key) is not what encoding says", hint: "encoding is utf8 or base64")
    }
    return bytes
  }
}
