internal import Model
internal import Networking
internal import Sandboxing

extension NativeHost {
  /// An app with a network is held by the packet filter, or told that there is none.
  func refuseUnfiltered(_ policy: Policy) async throws(HostFailure) {
    guard NetworkPlace.concerns(policy) else { return }
    let asks = policy.network.egress != nil || policy.network.bandwidth != Bandwidth()
    guard let fabric else {
      guard policy.network.mode == .named || asks || policy.network.ports.isEmpty else { return }
      throw HostFailure(
        .refused, "\(policy.id) cannot be connected: native apps of this instance have no networks but published ports",
        hint: "Networks and their packet filter are the system's: use its instance")
    }
    guard let obstacle = await fabric.obstacle() else { return }
    // Without the filter there is nothing that would connect it: what is left is what ports lead in.
    guard policy.enforcement == .strict || asks || policy.network.mode == .named else { return }
    throw HostFailure(
      .refused, "the network of \(policy.id) cannot be held by a packet filter here: \(obstacle.message)",
      hint: [obstacle.hint, "or remove its network"].compactMap { $0 }.joined(separator: ", "))
  }

  /// Its addresses, with the filter in force; nil: it has no network. Without a filter there is nothing but published ports.
  func place(_ launch: Launch, _ run: Run) async throws(HostFailure) -> NetworkPlace? {
    guard NetworkPlace.concerns(launch.policy), let fabric else { return nil }
    try await refuseUnfiltered(launch.policy)
    if let obstacle = await fabric.obstacle() {
      run.missing.append("packet filter: \(obstacle.message); it reaches nothing")
      return nil
    }
    run.isFiltered = true
    return try await fabric.admit(launch, container: false)
  }

  /// What an earlier daemon put into the filter stays in it.
  func adoptNetworks(_ launch: Launch, _ run: Run) async {
    guard NetworkPlace.concerns(launch.policy), let fabric, await fabric.obstacle() == nil else { return }
    run.isFiltered = true
    do throws(HostFailure) { try await fabric.adopt(launch, container: false) } catch {
      run.missing.append("packet filter: \(error.message)")
    }
  }

  static func names(_ place: NetworkPlace) -> LaunchPlan.NameSources {
    LaunchPlan.NameSources(hosts: place.hostsFile, resolvers: place.resolvers)
  }

  /// `eth0` is the first network, and the way out.
  static func links(_ place: NetworkPlace, _ policy: Policy) -> [LaunchPlan.Link] {
    place.interfaces.enumerated().map { index, interface in
      LaunchPlan.Link(
        bridge: interface.bridge, outer: interface.port, inner: "eth\(index)", hardware: interface.hardware,
        address: interface.address, prefix: UInt8(interface.block.prefix),
        gateway: index == 0 ? interface.gateway : nil, sends: policy.network.bandwidth.egress ?? 0,
        receives: policy.network.bandwidth.ingress ?? 0)
    }
  }

  /// Whether the kernel has the app in its packet filter.
  func networkReport(_ launch: Launch) async -> LayerReport? {
    guard NetworkPlace.concerns(launch.policy), let fabric else { return nil }
    let held = await fabric.isInForce(NetworkPlace.key(launch.policy.id, launch.ownGroup))
    return LayerReport(
      name: "packet filter", asked: "its own rules", effective: held ? "nftables" : nil,
      status: held ? .enforced : .missing, note: held ? nil : "the kernel has no rules for it")
  }
}
