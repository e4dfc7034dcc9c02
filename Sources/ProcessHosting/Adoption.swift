internal import Cgroups
internal import Glibc
internal import Linux
package import Model
internal import Sandboxing
internal import Scheduling

extension NativeHost {
  /// How long a shim has to say what its app does.
  private static let patience = Duration.seconds(5)

  package func adopt(_ known: [(instance: Instance, launch: Launch)]) async throws(HostFailure) -> (
    found: [Instance: Adoption], removed: [String]
  ) {
    var found: [Instance: Adoption] = [:]
    for (instance, launch) in known { found[instance] = try await adopt(instance, launch) }
    let waiting = found.filter { if case .created = $0.value { true } else { false } }
    takeBackOthers(than: Set(waiting.keys.map { Self.runName($0) }))
    return (found, try await sweep(known.map(\.instance)))
  }

  /// A shim that answers with our nonce says itself what became of the app; else its record on disk does; else what is left
  /// tells: a socket nobody listens on is that of a shim that was killed.
  private func adopt(_ instance: Instance, _ launch: Launch) async throws(HostFailure) -> Adoption {
    let run = Run(group(instance.app, instance.ownGroup), launch.policy.limits)
    run.missing = run.group.unsupported(launch.policy.limits).map(\.description)
    let socket: SharedDescriptor
    do throws(SystemFault) {
      socket = SharedDescriptor(
        try UnixSocket.connect("\(Self.sockets(layout))/\(Self.runName(instance)).sock", kind: .packets))
    } catch  where error.code == ENOENT || error.code == ECONNREFUSED {
      return await leftover(instance, run, staleSocket: error.code == ECONNREFUSED)
    } catch { throw HostFailure(.failed, "the shim of \(instance.app) could not be reached: \(error)") }
    runs[instance] = run
    run.isStarted = true
    do throws(SystemFault) { run.connection = try connect(socket, instance, run) } catch {
      throw HostFailure(.failed, "the shim of \(instance.app) could not be reached: \(error)")
    }
    _ = run.connection?.send(.status)
    switch await settled(run) {
    case .running(let facts):
      await reassert(run, launch.policy)
      await reopen(instance, launch.policy, run)
      await adoptNetworks(launch, run)
      return .running(self.facts(facts, launch.policy, run), paused: run.group.isFrozen)
    case .ended(let outcome):
      run.isEndKnown = true
      return .ended(Self.report(outcome))
    case .preparing where run.connection?.isClosed == false:
      // We came before it saw that the daemon that created it is gone: it waits for our `go` as well as for that one's.
      run.isStarted = false
      await reopen(instance, launch.policy, run)
      await adoptNetworks(launch, run)
      return .created
    case .preparing:
      // It left because the daemon that created it did; or it is not the one we know.
      runs[instance] = nil
      return await leftover(instance, run, staleSocket: false)
    }
  }

  /// A disk that is full keeps no app from being taken over: that it cannot ask then is said.
  private func reopen(_ instance: Instance, _ policy: Policy, _ run: Run) async {
    do throws(HostFailure) { try await open(instance, policy) } catch { run.missing.append("calls: \(error.message)") }
  }

  /// What the shim answers; `preparing` with a closed connection if it went away or took too long.
  private func settled(_ run: Run) async -> RunState {
    let deadline = Task {
      try await Task.sleep(for: Self.patience)
      run.connection?.close()
      wake(run)
    }
    defer { deadline.cancel() }
    return await withCheckedContinuation { run.waiting.append($0) }
  }

  private func leftover(_ instance: Instance, _ run: Run, staleSocket: Bool) async -> Adoption {
    if let outcome = record(instance) { return .ended(Self.report(outcome)) }
    // A shim that never got its `go` may be about to take its sandbox down.
    for _ in 0..<100 where !staleSocket && (try? run.group.isPopulated) == true {
      try? await Task.sleep(for: .milliseconds(10))
    }
    if (try? run.group.isPopulated) == true || (staleSocket && run.group.exists) {
      // Nobody keeps its output or would see its end. Best effort: remove tries again, and says what is left.
      try? run.group.kill()
      return .ended(ExitReport(cause: .unknown("its shim was killed"), startedAt: nil, endedAt: Clock.wall()))
    }
    return run.group.exists ? .created : .gone
  }

  private func record(_ instance: Instance) -> RunOutcome? {
    guard let folder = try? Folder(opening: Self.outcomes(layout)),
      let bytes = try? folder.read(Self.runName(instance), limit: 65_536)
    else { return nil }
    let outcome = try? RunOutcome(text: String(decoding: bytes, as: UTF8.self))
    return outcome?.nonce == instance.nonce ? outcome : nil
  }

  /// Ends what is ours and nobody knows of: found by its socket, never by its cgroup, which may be another runtime's.
  private func sweep(_ known: [Instance]) async throws(HostFailure) -> [String] {
    let names = Set(known.map { Self.runName($0) })
    var removed: [String] = []
    do throws(SystemFault) {
      let sockets = try Folder(opening: Self.sockets(layout))
      for file in try sockets.names() where file.hasSuffix(".sock") {
        let name = String(file.dropLast(".sock".count))
        guard !names.contains(name), let dot = name.lastIndex(of: "."), let app = AppID(stored: String(name[..<dot]))
        else { continue }
        if let generation = UInt64(name[name.index(after: dot)...]) {
          // Best effort: what is still there shows when the next launch of this app is refused for it.
          try? group(app, generation).kill()
        }
        if !known.contains(where: { $0.app == app }) {
          try? group(app).kill()
          removed.append(name)
        }
        if let left = try? UnixSocket.connect("\(Self.sockets(layout))/\(file)", kind: .packets) {
          left.withRaw { raw in try? PacketPair.send(raw, ShimRequest.acknowledge.bytes) }
        }
        try sockets.remove(file)
      }
      let outcomes = try Folder(opening: Self.outcomes(layout))
      for name in try outcomes.names() where !names.contains(name) { try outcomes.remove(name) }
    } catch { throw HostFailure(.failed, "what earlier runs left could not be looked through: \(error)") }
    return removed
  }
}
