internal import Cgroups
internal import EngineAPI
internal import Glibc
internal import Linux
package import Model
internal import Scheduling

extension ContainerHost {
  package func change(_ instance: Instance, from old: Launch, to new: Launch) async throws(HostFailure) {
    guard let entry = await register.entry(instance.handle), entry.stage == .running else {
      throw HostFailure(.missing, "\(instance.app) is not running")
    }
    await settings.doors?.change(instance, new.policy)
    let before = old.policy.limits
    let after = new.policy.limits
    let share = CPUShare(new.policy)
    guard before != after || share != CPUShare(old.policy) else {
      return await register.setLaunch(instance.handle, new)
    }
    let group = cgroup(instance, try await link.facts())
    // An ordinary user's engine may have no say over cores, and refuses everything together with them.
    let namesCores = before.cpuset != nil || after.cpuset != nil
    try await carryOut(
      instance, group, before: before, after: after, shares: (CPUShare(old.policy), share),
      engine: Resources(old.policy) == Resources(new.policy)
        ? nil
        : (Resources(restoring: old.policy, cores: namesCores), Resources(restoring: new.policy, cores: namesCores)))
    // Last: what systemd is told it puts in force at once, without asking whether less memory is enough.
    try await files.hold(group, after, share)
    if before.memoryReservation != after.memoryReservation { await files.tellProtection(group) }
    await register.setLaunch(instance.handle, new)
  }

  /// The app's own group first, wide enough for a container that has still the old limits; then the container's group, by the engine;
  /// then the app's group as it is to be. Memory is in force with the first step. What fails takes back what came before it.
  private func carryOut(
    _ instance: Instance, _ group: AppCgroup, before: Limits, after: Limits, shares: (old: CPUShare, new: CPUShare),
    engine resources: (old: Resources, new: Resources)?
  ) async throws(HostFailure) {
    let wide = after.wide(enoughFor: before)
    let first = try await limited(instance, group, wide, shares.new, former: before)
    guard let resources else {
      try await limited(instance, group, after, shares.new, former: wide)
      return
    }
    do throws(HostFailure) {
      let engine = try await link.engine()
      try await update(instance, resources.new, engine)
      do throws(HostFailure) {
        let second = try await limited(instance, group, after, shares.new, former: wide)
        if let wrong = Self.difference(in: group, of: instance, after) {
          _ = await files.undo(second)
          throw HostFailure(
            .refused, "the limits of \(instance.app) stay as they were: the engine did not set \(wrong)")
        }
      } catch {
        // Wide enough again for both.
        _ = await files.undo(first)
        _ = try await limited(instance, group, before.wide(enoughFor: after), shares.old, former: before)
        try await update(instance, resources.old, engine)
        throw error
      }
    } catch {
      let left = await files.undo(first)
      guard !left.isEmpty else { throw error }
      throw HostFailure(error.kind, "\(error.message); not put back: \(left.joined(separator: ", "))", hint: error.hint)
    }
  }

  @discardableResult
  private func limited(
    _ instance: Instance, _ group: AppCgroup, _ limits: Limits, _ share: CPUShare, former: Limits
  ) async throws(HostFailure) -> LimitJournal {
    do throws(ChangeRefusal) { return try await files.change(group, to: limits, share, former: former) } catch {
      throw HostFailure(.refused, "the limits of \(instance.app) stay as they were: \(error)")
    }
  }

  private func update(_ instance: Instance, _ resources: Resources, _ engine: Engine) async throws(HostFailure) {
    let warnings: [String]
    do throws(EngineFailure) { warnings = try await engine.updateContainer(instance.handle, resources) } catch {
      if let details = try? await engine.inspectContainer(instance.handle), !details.state.isRunning {
        throw HostFailure(.missing, "\(instance.app) is not running")
      }
      let failure = HostFailure(error)
      throw HostFailure(
        failure.kind == .unavailable ? .unavailable : .refused,
        "the limits of \(instance.app) stay as they were: \(failure.message)", hint: failure.hint)
    }
    guard let warning = warnings.first(where: { !$0.isEmpty }) else { return }
    throw HostFailure(.refused, "the limits of \(instance.app) stay as they were: the engine says: \(warning)")
  }

  /// What the kernel shows in the container's own group otherwise than asked.
  static func difference(in group: AppCgroup, of instance: Instance, _ limits: Limits) -> String? {
    guard let leaf = group.leaf(named: instance.handle) else { return nil }
    return leaf.firstDifference(from: limits)
  }

  /// A daemon that was killed while it changed limits has left some of each: what was applied is put in force again.
  func reassert(_ instance: Instance, _ policy: Policy, _ facts: EngineFacts, _ engine: Engine)
    async throws(HostFailure)
  {
    let group = cgroup(instance, facts)
    let share = CPUShare(policy)
    let isSame = group.readBack(policy.limits, share: share).allSatisfy { $0.status != .missing }
    let leafDiffers = Self.difference(in: group, of: instance, policy.limits) != nil
    guard !isSame || leafDiffers else { return }
    if leafDiffers {
      // Nothing is known of where it stands, so the app's group gives way in what a child may not exceed.
      var wide = policy.limits
      wide.cpus = nil
      wide.cpuset = nil
      try await limited(instance, group, wide, share, former: policy.limits)
      let namesCores = !facts.isRootless || policy.limits.cpuset != nil
      try await update(instance, Resources(restoring: policy, cores: namesCores), engine)
    }
    try await limited(instance, group, policy.limits, share, former: policy.limits)
    try await files.hold(group, policy.limits, share)
  }
}

extension FileWork {
  /// Waits for the kernel to reclaim memory, where less is asked for than is used.
  func change(_ group: AppCgroup, to limits: Limits, _ share: CPUShare, former: Limits) throws(ChangeRefusal)
    -> LimitJournal
  { try group.change(to: limits, share: share, former: former) }

  func undo(_ journal: LimitJournal) -> [String] { journal.undo() }
}

extension Resources {
  /// The container's own group gets the same limits as the app's parent group, so that inspect shows them; block limits and
  /// `mem_high` are held by the parent alone.
  init(_ policy: Policy) {
    self.init()
    let limits = policy.limits
    memory = limits.memory.map { Int64(clamping: $0.count) }
    if limits.memory != nil {
      // Left out, it would mean twice the memory.
      memorySwap = limits.memoryAndSwap.map { Int64(clamping: $0.count) } ?? -1
    }
    memoryReservation = limits.memoryReservation.map { Int64(clamping: $0.count) }
    nanoCPUs = limits.cpus.map { Int64(($0 * 1e9).rounded()) }
    cpuShares = Int64(CPUShare(policy).shares)
    cpuset = limits.cpuset
    pidsLimit = limits.pids.map { Int64(clamping: $0) } ?? -1
  }

  /// The same for a container that runs: what is left out would stay as it is, so no limit is said as all there is. Without `cores` they
  /// stay as they are.
  init(restoring policy: Policy, cores namesCores: Bool) {
    self.init(policy)
    let cores = sysconf(Int32(_SC_NPROCESSORS_ONLN))
    if nanoCPUs == nil { nanoCPUs = Int64(cores) * 1_000_000_000 }
    if namesCores, cpuset == nil {
      // best effort: without it the cores stay as they are, which shows as a difference.
      cpuset = (try? File.text("/sys/devices/system/cpu/online"))?.filter { !$0.isWhitespace }
    }
    if memory == nil {
      memory = -1
      memorySwap = -1
    }
  }
}
