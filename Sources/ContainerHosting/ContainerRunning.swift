internal import Cgroups
internal import EngineAPI
internal import Linux
package import Model
internal import Networking
internal import Sandboxing
internal import Scheduling

extension ContainerHost {
  // MARK: Start

  package func start(_ instance: Instance, _ launch: Launch) async throws(HostFailure) -> RunFacts {
    let engine = try await link.engine()
    let facts = try await link.facts()
    let id = instance.handle
    guard await register.beginStart(id) else {
      throw HostFailure(.conflict, "\(instance.app) was started before", hint: "Each run has an instance of its own")
    }
    do throws(HostFailure) {
      try await redeliver(launch, facts)
      try await turnstile.pass { () throws(HostFailure) in
        if facts.isRootless, engine.differences.dropsUlimitsRootless {
          try await holdToUlimits(instance, launch, engine)
        }
        _ = try await asked { () throws(EngineFailure) in try await engine.startContainer(id) }
      }
      var run = try await attest(instance, launch, engine)
      run.missing += try await bind(instance, launch, pid: run.pid)
      await unpin(launch.policy, instance.generation)
      await takeBack(launch)
      if await register.started(id, run, group: cgroup(instance, facts).path) { await tellEnd(id, nil) }
      return run
    } catch {
      await register.reject(id)
      await takeBack(launch)
      await stopRejected(instance, engine, facts)
      throw error
    }
  }

  /// Podman without root leaves out what create says of ulimits. Its process is made first, and given them while it waits to run the
  /// app: we may, because the user namespace it is in is this user's.
  private func holdToUlimits(_ instance: Instance, _ launch: Launch, _ engine: Engine) async throws(HostFailure) {
    let recipe = try await recipe(launch, engine, networks.names(launch.policy).first)
    try await asked { () throws(EngineFailure) in try await engine.initContainer(instance.handle) }
    let details = try await asked { () throws(EngineFailure) in try await engine.inspectContainer(instance.handle) }
    let pid = details.state.pid
    do throws(SystemFault) {
      let process = try Pidfd(of: pid, in: cgroup(instance, recipe.facts).path)
      for limit in recipe.spec.host.ulimits {
        guard let number = ResourceName.number(limit.name) else { continue }
        func value(_ given: Int64) -> UInt64 { given < 0 ? .max : UInt64(given) }
        try Privileges.limit(number, of: pid, process, soft: value(limit.soft), hard: value(limit.hard))
      }
    } catch {
      throw HostFailure(
        .refused, "\(instance.app) was killed before it ran: its ulimits could not be set: \(error)",
        hint: "Without root a limit can be lowered only: see `ulimit -a -H` of your user")
    }
  }

  /// Nothing of a start that failed may go on running, also if the engine is gone.
  private func stopRejected(_ instance: Instance, _ engine: Engine, _ facts: EngineFacts) async {
    // Best effort: it may not run, and the group is next.
    try? await engine.killContainer(instance.handle)
    if await !register.hasOther(instance) { try? cgroup(instance, facts).kill() }
  }

  /// Reads back everything and compares.
  private func attest(_ instance: Instance, _ launch: Launch, _ engine: Engine) async throws(HostFailure) -> RunFacts {
    let proof = try await proof(instance, launch, engine)
    try await refuseUnstarted(instance, proof, engine)
    let broken = proof.broken
    let fatal = broken.first { Self.neverLeftOut.contains($0.name) || launch.policy.enforcement == .strict }
    if let fatal {
      throw HostFailure(
        .refused,
        "\(instance.app) was killed: \(fatal.name) is not in force as its policy asks (\(fatal.note ?? "no reason known"))",
        hint: launch.policy.enforcement == .strict && !Self.neverLeftOut.contains(fatal.name)
          ? "`enforcement: degrade` runs it without" : nil)
    }
    let state = proof.details.state
    return RunFacts(
      pid: state.pid, startedAt: state.startedAt ?? Clock.wall(), containerID: instance.handle,
      ports: ports(proof.details),
      missing: broken.map { "\($0.name): \($0.note ?? "not in force")" } + Self.exposedSecrets(launch.policy),
      imageHealthcheck: proof.recipe.image.healthcheck)
  }

  /// The engine's init hides that a program could not be run: it starts well, says so in the log, and ends.
  private func refuseUnstarted(_ instance: Instance, _ proof: Attestation, _ engine: Engine) async throws(HostFailure) {
    let state = proof.details.state
    guard proof.recipe.facts.hasInit, !state.isRunning else { return }
    // The init's own codes; with any other the app has run.
    guard [1, 126, 127].contains(state.exitCode) else { return }
    // What it says is the first that this container's log holds. From the beginning, because podman's tail loses the start of a
    // line that was written in parts; and again for a while, because podman knows the end before the log is there. The container's
    // files would tell too, but asking the engine for them makes it walk paths that an app has laid out.
    var said = ""
    for attempt in 0..<12 where said.isEmpty || !said.contains("\n") {
      if attempt > 0 { try? await Task.sleep(for: .milliseconds(40)) }
      said = (try? await beginning(of: instance, engine, terminal: proof.details.terminal)) ?? ""
    }
    let line = said.prefix { $0 != "\n" }
    guard line.hasPrefix("[FATAL tini") || line.hasPrefix("ERROR (catatonit") else { return }
    let program = (proof.details.entrypoint + proof.details.command).first ?? ""
    let reason = line.split(separator: ":").last.map { String($0.drop { $0 == " " }) } ?? String(line)
    throw HostFailure(
      reason.hasPrefix("No such file") ? .missing : .failed,
      "\(program) of \(instance.app) could not be run: \(reason)",
      hint: "Check `entry` and the image; a script also needs the interpreter named in its first line")
  }

  private func beginning(of instance: Instance, _ engine: Engine, terminal: Bool) async throws(EngineFailure) -> String
  {
    var said = ""
    let output = try await engine.containerLogs(instance.handle, LogsQuery(), terminal: terminal)
    var pieces = output.makeAsyncIterator()
    while said.utf8.count < 4096, let piece = try await pieces.next(isolation: #isolation) { said += piece.text }
    return said
  }

  /// What `degrade` does not forgive: these are not limits of this host but a container that is not what was created.
  private static let neverLeftOut: Set<String> = [
    "privileged", "image", "capabilities", "uid", "user", "cgroup", "pid namespace", "ipc namespace", "network mode",
    "mounts",
  ]

  func ports(_ details: ContainerDetails) -> [PublishedPort] {
    details.ports.compactMap { binding in
      PublishedPort.Transport(rawValue: binding.kind).map {
        PublishedPort(
          hostAddress: binding.address, hostPort: binding.host, appPort: binding.container, transport: $0)
      }
    }
  }

  /// The container as it is now, with its first process once that is the app and no longer the runtime.
  func proof(_ instance: Instance, _ launch: Launch, _ engine: Engine) async throws(HostFailure) -> Attestation {
    var recipe = try await recipe(launch, engine, networks.names(launch.policy).first)
    recipe.place = await settings.fabric?.place(NetworkPlace.key(instance.app, instance.ownGroup))
    let group = cgroup(instance, recipe.facts)
    var details = try await asked { () throws(EngineFailure) in try await engine.inspectContainer(instance.handle) }
    let end = Clock.monotonic() + Duration.seconds(2).wholeNanoseconds
    var pause = Duration.microseconds(200)
    while true {
      let process = details.state.isRunning ? ProcessFacts(details.state.pid) : nil
      let isApp = process.map { Self.isApp($0, details.state.pid, recipe) } ?? false
      if isApp || Clock.monotonic() > end {
        return Attestation(recipe: recipe, cgroup: group, details: details, process: process)
      }
      if process == nil {
        // Ended, or not seen: the engine knows which.
        details = try await asked { () throws(EngineFailure) in try await engine.inspectContainer(instance.handle) }
        // Podman says "stopped" before it knows the exit code.
        let isSettled = details.state.status == .exited || details.state.status == .dead
        if !details.state.isRunning, isSettled || Clock.monotonic() > end {
          return Attestation(recipe: recipe, cgroup: group, details: details, process: nil)
        }
      }
      // Cancelled or not, what has been started is judged.
      try? await Task.sleep(for: pause)
      pause = min(pause * 2, .milliseconds(10))
    }
  }

  /// Whether the runtime's own code is behind: its process has become the app, or the engine's init has, and runs it.
  private static func isApp(_ process: ProcessFacts, _ pid: Int32, _ recipe: Recipe) -> Bool {
    guard !process.name.hasPrefix("runc:"), process.seccomp == 2 || !recipe.isFiltered else { return false }
    guard recipe.facts.hasInit, let list = try? File.text("/proc/\(pid)/task/\(pid)/children") else { return true }
    return list.split(separator: " ").contains { child in
      guard let name = try? File.text("/proc/\(child)/comm") else { return false }
      return name.dropLast() != process.name
    }
  }

  // MARK: While it runs

  package func signal(_ instance: Instance, _ number: Int32) async throws(HostFailure) {
    if await signalProgram(instance, number) { return }
    let engine = try await link.engine()
    do throws(EngineFailure) { try await engine.killContainer(instance.handle, signal: String(number)) } catch {
      try await excuseEnded(instance, error)
    }
  }

  /// The engine's init passes signals on with the container's own rights, and dies of it where the program runs as another user and
  /// the policy gives no KILL. So the program itself is signalled, as what the kernel shows as its init's first child. False: it was
  /// not, and the engine is to do it.
  private func signalProgram(_ instance: Instance, _ number: Int32) async -> Bool {
    guard let facts = await link.lastFacts, facts.hasInit, let entry = await register.entry(instance.handle),
      entry.stage == .running, entry.pid > 0,
      let list = try? File.text("/proc/\(entry.pid)/task/\(entry.pid)/children"),
      let child = list.split(separator: " ").first.flatMap({ Int32($0) }), let process = try? Pidfd(of: child),
      let shown = ProcessFacts(child)
    else { return false }
    let group = cgroup(instance, facts)
    guard shown.cgroups.values.contains(where: { $0.hasPrefix(group.path + "/") }) else { return false }
    return (try? process.send(number)) != nil
  }

  package func kill(_ instance: Instance) async throws(HostFailure) {
    let facts = await link.lastFacts
    do throws(HostFailure) {
      let engine = try await link.engine()
      do throws(EngineFailure) { try await engine.killContainer(instance.handle) } catch {
        try await excuseEnded(instance, error)
      }
      if await register.entry(instance.handle)?.paused == true {
        // A frozen process takes its signal when it thaws.
        await register.expectPaused(instance.handle, false)
        try? await engine.unpauseContainer(instance.handle)
      }
    } catch {
      // The engine does not do it: the kernel does, unless that would hit another generation.
      guard await !register.hasOther(instance) else { throw error }
      do throws(SystemFault) { try cgroup(instance, facts).kill() } catch let fault {
        throw HostFailure(.failed, "\(instance.app) could not be killed: \(error.message); \(fault)")
      }
    }
  }

  /// A call that failed because the container has ended meanwhile did what was wanted; its end is told if it was missed.
  private func excuseEnded(_ instance: Instance, _ failure: EngineFailure) async throws(HostFailure) {
    switch failure {
    case .conflict, .notFound, .refused:
      guard let engine = try? await link.engine() else { throw HostFailure(failure) }
      if let details = try? await engine.inspectContainer(instance.handle) {
        if details.state.isRunning { throw HostFailure(failure) }
        // One that is only on its way there has its event still to come.
        guard [.exited, .dead, .stopped].contains(details.state.status) else { return }
      }
      await tellEnd(instance.handle, nil)
    case .unreachable, .timedOut, .interrupted, .unauthorized, .malformed, .unsupported, .sourceFailed, .cancelled:
      throw HostFailure(failure)
    }
  }

  package func setPaused(_ instance: Instance, _ paused: Bool) async throws(HostFailure) {
    let engine = try await link.engine()
    await register.expectPaused(instance.handle, paused)
    do throws(EngineFailure) {
      if paused {
        try await engine.pauseContainer(instance.handle)
      } else {
        try await engine.unpauseContainer(instance.handle)
      }
    } catch {
      if let details = try? await engine.inspectContainer(instance.handle), details.state.isRunning,
        (details.state.status == .paused) == paused
      {
        return await register.unexpectPaused(instance.handle, paused, paused: paused)
      }
      await register.unexpectPaused(instance.handle, paused, paused: !paused)
      throw HostFailure(error)
    }
  }

  package func usage(_ instance: Instance) async throws(HostFailure) -> Usage {
    let group = cgroup(instance, await link.lastFacts)
    guard group.exists else { throw HostFailure(.missing, "\(instance.app) has no cgroup: it does not run") }
    return group.usage()
  }

  package func usages(_ instances: [(instance: Instance, pid: Int32)], details: Bool) async -> [Instance: Usage] {
    // Best effort: an engine that does not answer has told its facts before, or its apps' groups are where they are without.
    let facts = await link.lastFacts
    return await files.usages(
      instances.map { ($0.instance, cgroup($0.instance, facts), $0.pid) }, details: details)
  }

  package func processes(_ instance: Instance) async -> [Int32] {
    (try? cgroup(instance, await link.lastFacts).processes) ?? []
  }

  package func enforcement(_ instance: Instance, _ launch: Launch) async throws(HostFailure) -> [LayerReport] {
    let engine = try await link.engine()
    return try await proof(instance, launch, engine).reports + [await networkReport(launch)].compactMap { $0 }
  }

  // MARK: Its end

  package func remove(_ instance: Instance) async throws(HostFailure) {
    let engine = try await link.engine()
    let facts = try await link.facts()
    let id = instance.handle
    let entry = await register.entry(id)
    await register.beginRemove(id)
    var details: ContainerDetails?
    do throws(EngineFailure) { details = try await engine.inspectContainer(id) } catch {
      // It is gone and we have not begun to remove it before: somebody else has.
      if case .notFound = error, entry?.removing == false { told.yield(.changedOutside(instance, .dead)) }
    }
    if let details, details.labels[Label.nonce] == instance.nonce {
      let limits = entry?.launch.policy.logging ?? Policy.LogLimits()
      await drain(instance, limits, engine, terminal: details.terminal)
      do throws(EngineFailure) {
        try await engine.removeContainer(id, force: true, volumes: true)
      } catch {
        guard case .notFound = error else { throw HostFailure(error) }
      }
    }
    if let entry { await unpin(entry.launch.policy, instance.generation) }
    await files.takeBack(run: "\(instance.app).\(instance.generation)", settings.layout)
    if let entry {
      if entry.launch.policy.readiness == .notify { await stopListening(instance) }
      await settings.doors?.close(instance)
      let name = settings.containerName(instance.app, instance.generation)
      await networks.release(entry.launch.policy, holder: name, engine)
      await settings.fabric?.release(instance)
    }
    if engine.differences.leavesExecMonitors {
      let others = AppCgroup.monitors(settings.hierarchy, parent: settings.layout.cgroupParent)
      ExecMonitor.kill(of: id, in: [cgroup(instance, facts), others])
    }
    if await !register.hasOther(instance) { try await removeGroup(cgroup(instance, facts)) }
    await register.drop(id)
  }

  /// A group goes a moment after its last process; one that does not is in the way of the next start.
  func removeGroup(_ group: AppCgroup) async throws(HostFailure) {
    let wasProtecting = group.isProtecting
    await files.release(group)
    var pause = Duration.milliseconds(1)
    for _ in 0..<200 {
      do throws(SystemFault) {
        if try group.remove() {
          if wasProtecting { await files.tellProtection(group) }
          return
        }
        try group.kill()
      } catch {
        throw HostFailure(.failed, "the cgroup \(group.path) could not be removed: \(error)")
      }
      try? await Task.sleep(for: pause)
      pause = min(pause * 2, .milliseconds(50))
    }
    throw HostFailure(.failed, "the cgroup \(group.path) still has processes after SIGKILL: the kernel holds them")
  }
}
