internal import Cgroups
internal import EngineAPI
internal import Linux
package import Model

extension ContainerHost {
  /// Follows the engine until cancelled. When it goes away that is told, and when it is back, what happened meanwhile.
  package func run() async {
    var cursor = EventCursor(from: Clock.wall())
    var away = Away.no
    var pause = Duration.milliseconds(50)
    while !Task.isCancelled {
      let connected = Clock.monotonic()
      let end = await follow(&cursor, &away)
      if Task.isCancelled { break }
      await link.lost()
      if away == .no, end == Self.closed, Clock.monotonic() - connected > 1_000_000_000 {
        // Trouble only if it does not answer at once.
        away = .untold
        continue
      }
      if away != .told {
        away = .told
        told.yield(.unavailable(end))
      }
      // One that answered for a while is tried again at once; one that never does, more and more rarely.
      if Clock.monotonic() - connected > 5_000_000_000 { pause = .milliseconds(50) }
      try? await Task.sleep(for: pause)
      pause = min(pause * 2, .seconds(5))
    }
    told.finish()
  }

  private enum Away { case no, untold, told }

  private static let closed = "the engine closed its event stream"

  /// One connection's worth of events; returns why it ended.
  private func follow(_ cursor: inout EventCursor, _ away: inout Away) async -> String {
    do {
      let engine = try await link.engine()
      let filter = Filters.label("\(Label.instance)=\(settings.layout.id)").adding("type", "container")
      let stream = try await engine.events(from: cursor, filter)
      // The stream is open: whatever happens from here on is in it, so nothing falls between it and the list.
      if away != .no { await register.forgetExpected() }
      await reconcile(engine)
      if away == .told { told.yield(.available) }
      away = .no
      await noteEngine()
      // Ends with this connection.
      let watch = Task { await self.watch(engine, stream) }
      defer { watch.cancel() }
      for try await event in stream where cursor.admit(event) { await handle(event) }
      return Self.closed
    } catch EngineFailure.cancelled {
      return "the engine no longer answers"
    } catch let failure as HostFailure {
      return failure.message
    } catch {
      return "\(error)"
    }
  }

  /// Tells that another engine answers than before: one that was upgraded while apps ran.
  private func noteEngine() async {
    guard let facts = try? await link.facts() else { return }
    let before = await register.noteEngine(facts.summary)
    if let before, before != facts.summary { told.yield(.engineChanged(from: before, to: facts.summary)) }
  }

  /// A stream says nothing while nothing happens; an engine that hangs says nothing either. This tells them apart. And an event can be
  /// lost on the way: whether each first process is still there, the kernel says.
  private func watch(_ engine: Engine, _ stream: EventStream) async {
    while !Task.isCancelled {
      try? await Task.sleep(for: settings.heartbeat)
      if Task.isCancelled { return }
      do { _ = try await engine.ping(within: settings.heartbeat) } catch {
        return stream.cancel()
      }
      if await register.living.contains(where: { $0.hasLostProcess }) { await reconcile(engine) }
    }
  }

  private func handle(_ event: EngineEvent) async {
    switch event.action {
    case "die": await tellEnd(event.id, event)
    case "oom":
      if let instance = await register.noteOutOfMemory(event.id) { told.yield(.outOfMemory(instance)) }
    case "pause", "unpause":
      let paused = event.action == "pause"
      if let instance = await register.notePausedEvent(event.id, paused) {
        told.yield(.changedOutside(instance, paused ? .paused : .running))
      }
    case "destroy":
      await tellEnd(event.id, event)
      if let entry = await register.entry(event.id), !entry.removing {
        told.yield(.changedOutside(entry.instance, .dead))
      }
    default: break
    }
  }

  /// Tells the end of a container once, with all that is known of it.
  func tellEnd(_ id: String, _ event: EngineEvent?) async {
    guard await register.claimEnd(id) != nil else { return }
    let report = await endReport(id, event)
    guard let entry = await register.entry(id) else { return }
    told.yield(.exited(entry.instance, report))
  }

  private func endReport(_ id: String, _ event: EngineEvent?) async -> ExitReport {
    var details = try? await link.engine().inspectContainer(id)
    if details?.state.exitCode == 137, details?.state.oomKilled == false {
      // The kernel's report of a kill for memory can come a moment after the end.
      try? await Task.sleep(for: .milliseconds(50))
      details = try? await link.engine().inspectContainer(id)
    }
    let entry = await register.entry(id)
    let known = entry?.outOfMemory ?? false || entry?.memory?.happened ?? false
    let code = event?.action == "die" ? event?.exitCode : nil
    if let details, !details.state.isRunning {
      var report = Self.report(details, outOfMemory: known)
      // The event is the better witness: podman's state can still be on its way there.
      if let code, report.startedAt != nil { report.cause = Self.cause(code) }
      return report
    }
    return ExitReport(
      cause: code.map(Self.cause) ?? .unknown("the container was removed by someone else"), outOfMemory: known,
      startedAt: details?.state.startedAt ?? entry?.startedAt, endedAt: event?.time ?? Clock.wall())
  }

  static func report(_ details: ContainerDetails, outOfMemory: Bool) -> ExitReport {
    let state = details.state
    let cause: ExitReport.Cause =
      state.startedAt == nil && !state.error.isEmpty
      ? .neverStarted(step: "start", reason: state.error) : cause(state.exitCode)
    return ExitReport(
      cause: cause, outOfMemory: outOfMemory || state.oomKilled, startedAt: state.startedAt,
      // Podman notes the start of a short run after its end.
      endedAt: max(state.finishedAt ?? Clock.wall(), state.startedAt ?? WallTime(nanoseconds: 0)))
  }

  /// Engines say 128 + signal for a process that was killed, as a shell does.
  static func cause(_ code: Int64) -> ExitReport.Cause {
    (129...192).contains(code) ? .signal(Int32(code - 128)) : .code(Int32(clamping: code))
  }

  /// Compares what is known with what is there: ends that were missed, containers that are gone.
  private func reconcile(_ engine: Engine) async {
    let filter = Filters.label("\(Label.instance)=\(settings.layout.id)")
    guard let list = try? await engine.listContainers(all: true, filter) else { return }
    let found = Dictionary(list.map { ($0.id, $0) }) { first, _ in first }
    for entry in await register.living {
      let id = entry.instance.handle
      guard let summary = found[id], summary.labels[Label.nonce] == entry.instance.nonce else {
        await tellEnd(id, nil)
        told.yield(.changedOutside(entry.instance, .dead))
        continue
      }
      switch summary.status {
      case .running, .paused:
        if let instance = await register.notePaused(id, summary.status == .paused) {
          told.yield(.changedOutside(instance, summary.status == .paused ? .paused : .running))
        }
      case .exited, .dead, .stopped: await tellEnd(id, nil)
      // On its way to one of the above: its event comes.
      case .created, .restarting, .removing, .configured, .initialized, .stopping, .unknown: continue
      }
    }
  }

  // MARK: Taking over

  package func adopt(_ known: [(instance: Instance, launch: Launch)]) async throws(HostFailure) -> (
    found: [Instance: Adoption], removed: [String]
  ) {
    let engine = try await link.engine()
    let filter = Filters.label("\(Label.instance)=\(settings.layout.id)")
    let list = try await asked { () throws(EngineFailure) in try await engine.listContainers(all: true, filter) }
    // The filter is the engine's word; the label itself is looked at too.
    let ours = list.filter { $0.labels[Label.instance] == settings.layout.id }
    var found: [Instance: Adoption] = [:]
    var kept: Set<String> = []
    for (instance, launch) in known {
      guard let summary = ours.first(where: { Self.isSame($0, instance) }) else {
        found[instance] = .gone
        continue
      }
      kept.insert(summary.id)
      found[instance] = try await take(instance, launch, engine)
    }
    var removed: [String] = []
    for summary in ours where !kept.contains(summary.id) {
      if await register.entry(summary.id) != nil { continue }
      // An image made from a container of ours carries our labels on to containers of whoever runs it; our names it does not.
      guard summary.names.contains(where: { settings.isName($0) }) else { continue }
      do throws(EngineFailure) { try await engine.removeContainer(summary.id, force: true, volumes: true) } catch {
        guard case .notFound = error else { throw HostFailure(error) }
      }
      removed.append(summary.names.first ?? summary.id)
    }
    await networks.sweep(engine)
    let waiting = found.compactMap { instance, adoption in
      if case .created = adoption { pins(instance.app, instance.generation) } else { nil }
    }
    await files.unpinOthers(in: bindsFolder, keeping: Set(waiting))
    let created = found.filter { if case .created = $0.value { true } else { false } }
    await files.sweepSecrets(
      settings.layout, keeping: Set(created.keys.map { "\($0.app).\($0.generation)" }))
    return (found, removed)
  }

  private static func isSame(_ summary: ContainerSummary, _ instance: Instance) -> Bool {
    summary.id == instance.handle && summary.labels[Label.nonce] == instance.nonce
      && summary.labels[Label.app] == instance.app.name
  }

  private func take(_ instance: Instance, _ launch: Launch, _ engine: Engine) async throws(HostFailure) -> Adoption {
    let details = try await asked { () throws(EngineFailure) in try await engine.inspectContainer(instance.handle) }
    await networks.adopt(launch.policy, holder: settings.containerName(instance.app, instance.generation))
    try await open(instance, launch)
    let unheld = await adoptNetworks(launch, pid: details.state.isRunning ? details.state.pid : 0)
    switch details.state.status {
    case .running, .paused:
      let paused = details.state.status == .paused
      let group = cgroup(instance, try await link.facts())
      await register.add(
        instance, launch, .starting(ended: false), paused: paused, memory: OutOfMemoryWatch(group))
      var run = try await adoptedFacts(instance, launch, engine)
      run.missing += unheld
      if await register.started(instance.handle, run, group: group.path) { await tellEnd(instance.handle, nil) }
      return .running(run, paused: paused)
    case .created, .configured, .initialized:
      await register.add(instance, launch, .created)
      return .created
    case .restarting, .removing, .exited, .dead, .stopping, .stopped, .unknown:
      await register.add(instance, launch, .ended)
      // The group is this run's own, so what it counted is too. v1 counts nothing here, and podman says nothing there.
      let kills = cgroup(instance, try await link.facts()).outOfMemoryKills()
      return .ended(Self.report(details, outOfMemory: kills > 0))
    }
  }

  /// A running app that is taken over is not killed for what is missing: it is said.
  private func adoptedFacts(_ instance: Instance, _ launch: Launch, _ engine: Engine) async throws(HostFailure)
    -> RunFacts
  {
    // best effort: what is not in force is found and told below.
    try? await reassert(instance, launch.policy, link.facts(), engine)
    let proof = try await proof(instance, launch, engine)
    return RunFacts(
      pid: proof.details.state.pid, startedAt: proof.details.state.startedAt ?? Clock.wall(),
      containerID: instance.handle, ports: ports(proof.details),
      missing: proof.broken.map { "\($0.name): \($0.note ?? "not in force")" } + Self.exposedSecrets(launch.policy),
      imageHealthcheck: proof.recipe.image.healthcheck)
  }
}
