internal import EngineAPI
internal import Glibc
internal import Linux
package import Model
internal import Networking
internal import PacketFilter

extension ContainerHost: EngineNetworks {
  /// Docker's firewall lets nothing pass between others' bridges and the world; podman's does.
  package func hold(_ policy: Policy, holder: String) async throws(HostFailure) -> Bool {
    guard let facts = await link.lastFacts, facts.flavour == "docker", !hasExternal(policy) else { return false }
    _ = try await networks.acquire(policy, holder: holder, link.engine())
    return true
  }

  package func release(_ policy: Policy, holder: String) async {
    // Best effort: a network that stays is swept when the engine is back.
    guard let engine = try? await link.engine() else { return }
    await networks.release(policy, holder: holder, engine)
  }
}

extension ContainerHost {
  private func hasExternal(_ policy: Policy) -> Bool {
    policy.network.attachments.contains { settings.externalNetworks.contains($0.network) }
  }

  private func isFiltered(_ policy: Policy) -> Bool {
    NetworkPlace.concerns(policy) && !hasExternal(policy)
  }

  /// Why no packet filter holds apps here; nil: one does.
  private func obstacle() async -> HostFailure? {
    guard let fabric = settings.fabric else {
      // Root's daemon has one.
      if geteuid() == 0 { return nil }
      return HostFailure(
        .refused, "only root sets it, and this instance is an ordinary user's", hint: "Use the system's")
    }
    return await fabric.obstacle()
  }

  /// An app with a network of ours is held by the packet filter, or refused, or says that it is not.
  func refuseUnfiltered(_ policy: Policy) async throws(HostFailure) {
    let asks = policy.network.egress != nil || policy.network.bandwidth != Bandwidth()
    if hasExternal(policy) {
      guard asks || !policy.network.attachments.allSatisfy({ settings.externalNetworks.contains($0.network) }) else {
        return
      }
      throw HostFailure(
        .refused, "\(policy.id) is on a network that is not ours: what passes there cannot be held",
        hint: "Leave egress, bandwidth and networks of ours out, or use networks of ours alone")
    }
    guard asks || (policy.enforcement == .strict && isFiltered(policy)), let obstacle = await obstacle() else { return }
    throw HostFailure(
      .refused, "the network of \(policy.id) cannot be held by a packet filter here: \(obstacle.message)",
      hint: [obstacle.hint, asks ? nil : "or set enforcement: degrade to run without it"].compactMap { $0 }
        .joined(separator: ", "))
  }

  /// Its addresses, with the filter in force; nil: the engine connects it as it does.
  func place(_ launch: Launch) async throws(HostFailure) -> NetworkPlace? {
    guard isFiltered(launch.policy), let fabric = settings.fabric, await fabric.obstacle() == nil else { return nil }
    return try await fabric.admit(launch, container: true)
  }

  /// Ties a container's addresses to the ports the engine made for it, and holds these to their rates. What is missing under
  /// `degrade` is returned.
  func bind(_ instance: Instance, _ launch: Launch, pid: Int32) async throws(HostFailure) -> [String] {
    guard isFiltered(launch.policy) else { return [] }
    if let obstacle = await obstacle() { return ["packet filter: \(obstacle.message)"] }
    guard let fabric = settings.fabric else { return [] }
    let key = NetworkPlace.key(instance.app, instance.ownGroup)
    guard pid > 0, let place = await fabric.place(key) else { return [] }
    let ports: [FilterRules.Port]
    do throws(SystemFault) { ports = try await connections(place, launch.policy.network.bandwidth, pid) } catch {
      // Gone already: nothing of it reaches anything.
      guard File.exists("/proc/\(pid)/ns/net") else { return [] }
      throw HostFailure(.refused, "\(instance.app) was killed: its network could not be held: \(error)")
    }
    guard File.exists("/proc/\(pid)/ns/net") else { return [] }
    guard await fabric.isInForce(key) else {
      throw HostFailure(.refused, "\(instance.app) was killed: the kernel has no packet filter rules for it")
    }
    do throws(HostFailure) { try await fabric.bind(key, ports) } catch {
      throw HostFailure(.refused, "\(instance.app) was killed: \(error.message)")
    }
    return []
  }

  /// By which ports of our bridges a container is connected; each held to its rates.
  private func connections(_ place: NetworkPlace, _ bandwidth: Bandwidth, _ pid: Int32) async throws(SystemFault)
    -> [FilterRules.Port]
  {
    let inside = try await files.links(of: pid)
    let outside = try NetworkLinks.list()
    var ports: [FilterRules.Port] = []
    for interface in place.interfaces {
      guard let bridge = NetworkLinks.index(interface.bridge) else { continue }
      for end in inside {
        guard let port = outside.first(where: { $0.index == end.peer && $0.master == bridge && $0.peer == end.index }),
          end.hardware.count == 6
        else { continue }
        ports.append(FilterRules.Port(name: port.name, hardware: end.hardware, address: interface.address))
        if let rate = bandwidth.ingress { try NetworkLinks.shape(port.name, bitsPerSecond: rate) }
        if let rate = bandwidth.egress { try await files.shape(end.name, of: pid, bitsPerSecond: rate) }
      }
    }
    return ports
  }

  /// What an earlier daemon put into the filter stays in it. Returns what is not in force.
  func adoptNetworks(_ launch: Launch, pid: Int32) async -> [String] {
    guard isFiltered(launch.policy) else { return [] }
    do throws(HostFailure) {
      if let obstacle = await obstacle() { throw obstacle }
      guard let fabric = settings.fabric else { return [] }
      try await fabric.adopt(launch, container: true)
      guard pid > 0 else { return [] }
      let instance = Instance(
        app: launch.policy.id, generation: launch.generation, nonce: launch.nonce, handle: "", isBeside: launch.isBeside
      )
      return try await bind(instance, launch, pid: pid)
    } catch { return ["packet filter: \(error.message)"] }
  }

  /// Whether the kernel has the app in its packet filter.
  func networkReport(_ launch: Launch) async -> LayerReport? {
    guard isFiltered(launch.policy), let fabric = settings.fabric else { return nil }
    let held = await fabric.isInForce(NetworkPlace.key(launch.policy.id, launch.ownGroup))
    return LayerReport(
      name: "packet filter", asked: "its own rules", effective: held ? "nftables" : nil,
      status: held ? .enforced : .missing, note: held ? nil : "the kernel has no rules for it")
  }
}
