internal import EngineAPI
internal import Model
internal import Networking

/// Networks of ours on the engine: made when the first app needs one, removed with the last. One change at a time.
actor Networks {
  private let settings: ContainerSettings
  private let turnstile = Turnstile(width: 1)
  /// Container names by network: who holds it.
  private var holders: [String: Set<String>] = [:]

  init(_ settings: ContainerSettings) { self.settings = settings }

  /// The engine's names of the networks an app is to be in, first one first, with its place among the policy's attachments.
  nonisolated func names(_ policy: Policy) -> [String] {
    switch policy.network.mode {
    case .none, .host: []
    case .bridge: [settings.ownNetworkName(policy.id)]
    case .named:
      policy.network.attachments.map {
        settings.externalNetworks.contains($0.network) ? $0.network : settings.networkName($0.network)
      }
    }
  }

  /// Makes what is missing and keeps it as long as `holder` is not released.
  func acquire(_ policy: Policy, holder: String, _ engine: Engine) async throws(HostFailure) -> [String] {
    let names = names(policy)
    guard !names.isEmpty else { return [] }
    do throws(HostFailure) {
      try await turnstile.pass { () throws(HostFailure) in
        for name in names {
          try await ensure(name, engine)
          hold(name, holder)
        }
      }
    } catch {
      // What the first of them were made for is not to be.
      await letGo(names, holder, engine)
      throw error
    }
    return names
  }

  private func hold(_ name: String, _ holder: String) { holders[name, default: []].insert(holder) }

  /// A container that is there already and uses these.
  func adopt(_ policy: Policy, holder: String) {
    for name in names(policy) { hold(name, holder) }
  }

  private func ensure(_ name: String, _ engine: Engine) async throws(HostFailure) {
    if let found = try await find(name, engine) {
      guard settings.externalNetworks.contains(name) || found.labels[Label.instance] == settings.layout.id else {
        throw HostFailure(
          .refused, "the network \(name) is not ours: it has no label of this instance",
          hint: "List it under `external_networks` in config.yaml, or use another name")
      }
      if await fits(found) || settings.externalNetworks.contains(name) { return }
      do throws(EngineFailure) { try await engine.removeNetwork(name) } catch {
        throw HostFailure(
          .conflict,
          "the network \(name) has other addresses than the supervisor gives, and cannot be made anew: \(error)",
          hint: "Stop what else is in it")
      }
    }
    guard !settings.externalNetworks.contains(name) else {
      throw HostFailure(
        .missing, "the external network \(name) does not exist", hint: "Make it, or leave it out of the policy")
    }
    // Containers of one network reach each other; no other network of ours does.
    let plan = await settings.fabric?.plan(name)
    do throws(EngineFailure) { _ = try await engine.createNetwork(spec(name, plan)) } catch {
      // Another network of the engine's has these addresses, and is not up, or is somewhere that we do not see.
      let overlaps = "\(error)".contains("overlap") || "\(error)".contains("already used")
      guard overlaps, plan != nil, let block = try await settings.fabric?.giveUpBlock(of: name) else {
        throw HostFailure(error)
      }
      throw HostFailure(
        .conflict, "the addresses of the network \(name), \(block), are another network's of the engine",
        hint: "Start it again: it gets others")
    }
  }

  private func spec(_ name: String, _ plan: (bridge: String, block: IPv4Block)?) -> NetworkSpec {
    var spec = NetworkSpec(name: name)
    spec.labels = [Label.instance: settings.layout.id, Label.network: name]
    guard let plan else { return spec }
    spec.subnet = plan.block.description
    spec.gateway = IPv4(plan.block.first.value + 1).description
    spec.options["com.docker.network.bridge.name"] = plan.bridge
    return spec
  }

  /// Whether a network that is there has the addresses we give; one from before they were ours to give is made anew.
  private func fits(_ found: NetworkDetails) async -> Bool {
    guard let plan = await settings.fabric?.plan(found.name) else { return true }
    return found.subnets == [plan.block.description]
  }

  private func find(_ name: String, _ engine: Engine) async throws(HostFailure) -> NetworkDetails? {
    do throws(EngineFailure) { return try await engine.inspectNetwork(name) } catch {
      if case .notFound = error { return nil }
      throw HostFailure(error)
    }
  }

  /// Lets go for `holder`; a network of ours that nobody holds is removed.
  func release(_ policy: Policy, holder: String, _ engine: Engine) async {
    await letGo(names(policy), holder, engine)
  }

  private func letGo(_ names: [String], _ holder: String, _ engine: Engine) async {
    guard !names.isEmpty else { return }
    _ = try? await turnstile.pass { () throws(HostFailure) in
      for name in names { await drop(name, holder, engine) }
    }
  }

  private func drop(_ name: String, _ holder: String, _ engine: Engine) async {
    // One it never held may be another's.
    guard holders[name]?.remove(holder) != nil else { return }
    guard holders[name]?.isEmpty ?? true, !settings.externalNetworks.contains(name) else { return }
    holders[name] = nil
    // Best effort: one that someone else has put a container into stays.
    try? await engine.removeNetwork(name)
  }

  /// Removes networks of this instance that nobody holds.
  func sweep(_ engine: Engine) async {
    let filter = Filters.label("\(Label.instance)=\(settings.layout.id)")
    _ = try? await turnstile.pass { () throws(HostFailure) in
      let found = try await asked { () throws(EngineFailure) in try await engine.listNetworks(filter) }
      for network in found where network.labels[Label.instance] == settings.layout.id && !isHeld(network.name) {
        try? await engine.removeNetwork(network.name)
      }
    }
  }

  private func isHeld(_ name: String) -> Bool { !(holders[name]?.isEmpty ?? true) }
}
