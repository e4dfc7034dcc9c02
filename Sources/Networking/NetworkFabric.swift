internal import Glibc
package import Linux
package import Model
package import PacketFilter

/// Who is on which network now, and the packet filter that says so to the kernel. Its work is on a thread of its own: a change is a
/// millisecond or two of the kernel's.
package actor NetworkFabric {
  private nonisolated let loop: EventLoop
  package nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  private let layout: InstanceLayout
  private let rules: FilterRules
  private let names: HostNames
  private var filter: PacketFilter?
  private var book = AddressBook()
  private var isBookRead = false
  private var runs: [String: Run] = [:]
  private var engine: (any EngineNetworks)?
  private let warn: @Sendable (String, String) -> Void

  /// One run that is on networks.
  private struct Run {
    var policy: Policy
    var generation: UInt64
    var place: NetworkPlace
    var app: FilterRules.App
    /// When each address of a name was last seen, monotonic seconds.
    var seen: [String: [IPv4: Int64]] = [:]
    var engineHolds = false
  }

  /// Addresses of a name are let go of so long after they were last told: an app may keep what it looked up.
  private static let memory: Int64 = 600
  private static let period = Duration.seconds(30)

  /// Touches nothing yet. `warn` is told what had to be put right: an event's name and a reason.
  package init(_ layout: InstanceLayout, warn: @escaping @Sendable (String, String) -> Void = { _, _ in })
    throws(SystemFault)
  {
    self.layout = layout
    self.warn = warn
    rules = FilterRules(instance: layout.name)
    loop = try EventLoop(name: "networks")
    names = try HostNames()
  }

  deinit { loop.stop() }

  package func use(_ engine: any EngineNetworks) { self.engine = engine }

  // MARK: Whether it can

  /// Why apps' networks cannot be held here; nil: they can.
  package func obstacle() -> HostFailure? {
    filter == nil ? PacketFilter.obstacle : nil
  }

  /// The filter with its tables in place. What others changed in them is made anew.
  private func opened() throws(HostFailure) -> PacketFilter {
    if let filter { return filter }
    let filter = try PacketFilter()
    if !isWhole(filter) {
      readBook()
      try rebuild(filter, runs.values.map(\.app))
    }
    self.filter = filter
    return filter
  }

  /// Everything anew, in one transaction. Apps of ours that are not taken over yet reach nothing until they are: their bridges are known.
  private func rebuild(_ filter: PacketFilter, _ apps: [FilterRules.App]) throws(HostFailure) {
    try filter.run(rules.whole(apps, bridges: book.networks.keys.sorted().map { Self.bridge($0, layout) }))
    try record(filter)
  }

  /// With the last app the tables go, by the kernel's word of who is in them.
  private func clear() {
    guard runs.isEmpty, let filter, let listed = try? filter.run(rules.lookForAny, elements: true),
      !listed.contains("elements")
    else { return }
    // Best effort: empty tables hold nobody, and are made use of by the next.
    _ = try? filter.run(rules.away)
    try? Folder(opening: layout.run).remove("filter")
    self.filter = nil
  }

  private var recordPath: String { "\(layout.run)/filter" }

  /// What all apps share, as the kernel lists it. A table at a time: nft 1.0.6 lists but the last of several.
  private func listing(_ filter: PacketFilter) -> String? {
    var text = ""
    for family in ["inet", "bridge"] {
      guard let listed = try? filter.run(rules.list(family)) else { return nil }
      text += FilterRules.shared(listed)
    }
    return text
  }

  private func isWhole(_ filter: PacketFilter) -> Bool {
    guard let recorded = try? File.text(recordPath), !recorded.isEmpty else { return false }
    return listing(filter) == recorded
  }

  private func record(_ filter: PacketFilter) throws(HostFailure) {
    guard let text = listing(filter) else { throw HostFailure(.failed, "the packet filter was set, and is not there") }
    do throws(SystemFault) {
      try Folder(opening: layout.run).replace("filter", with: Array(text.utf8), mode: 0o600)
    } catch { throw HostFailure(.failed, "what the packet filter is cannot be kept: \(error)") }
  }

  /// Runs a transaction; if it cannot be because the tables are not what they were, all of them are made anew, in one.
  private func apply(_ text: String, else apps: [FilterRules.App]) throws(HostFailure) {
    let filter = try opened()
    do throws(HostFailure) { try filter.run(text) } catch {
      warn("filter.rebuilt", error.message)
      try rebuild(filter, apps)
    }
  }

  // MARK: Admitting

  /// Gives a run its addresses and puts it into the packet filter: afterwards nothing of it can be unfiltered. Safe to repeat.
  package func admit(_ launch: Launch, container: Bool) async throws(HostFailure) -> NetworkPlace {
    let policy = launch.policy
    _ = try opened()
    let key = NetworkPlace.key(policy.id, launch.ownGroup)
    let resolved = await resolve(policy.network.egress?.names ?? [], within: .seconds(2))
    var run = try makeRun(key, launch, container: container)
    note(resolved, in: &run)
    if !container {
      run.engineHolds = try await holdNetworks(policy, key)
      for interface in run.place.interfaces { try ensureBridge(interface) }
    }
    try apply(rules.admit(run.app), else: runs.values.filter { $0.place.key != key }.map(\.app) + [run.app])
    runs[key] = run
    try writeHosts()
    return run.place
  }

  private func makeRun(_ key: String, _ launch: Launch, container: Bool) throws(HostFailure) -> Run {
    let policy = launch.policy
    readBook()
    var interfaces: [NetworkPlace.Interface] = []
    let before = book
    for network in Self.networks(policy, layout) {
      do throws(AddressBook.Full) {
        let block = try book.block(
          of: network, taken: NetworkLinks.routes(), seed: UInt32(shortHash(layout.id).prefix(6), radix: 16) ?? 0)
        let address = try book.address(of: key, in: network, present: Set(runs.keys).union([key]))
        interfaces.append(
          NetworkPlace.Interface(
            network: network, bridge: Self.bridge(network, layout), block: block, address: address,
            port: "asv" + shortHash("\(layout.id) \(key) \(launch.generation) \(network)"),
            hardware: [0x02, 0x42] + address.bytes))
      } catch {
        book = before
        throw HostFailure(
          .refused,
          error == .blocks
            ? "no block of addresses is free for the network \(network): all of \(AddressBook.pool) is in use"
            : "the network \(network) is full: all its addresses are in use",
          hint: "Take apps down that are on it")
      }
    }
    if book != before { try keepBook() }
    let ports = interfaces.map { FilterRules.Port(name: $0.port, hardware: $0.hardware, address: $0.address) }
    return Run(
      policy: policy, generation: launch.generation,
      place: NetworkPlace(
        key: key, interfaces: interfaces, hostsFile: layout.hostsFile(key), resolvers: Resolvers.of(policy)),
      app: FilterRules.App(
        key: key, seats: interfaces.map { FilterRules.Seat(bridge: $0.bridge, address: $0.address) },
        egress: policy.network.egress, ports: container ? [] : ports))
  }

  static func networks(_ policy: Policy, _ layout: InstanceLayout) -> [String] {
    switch policy.network.mode {
    case .none, .host: []
    case .bridge: [layout.ownNetworkName(policy.id)]
    case .named: policy.network.attachments.map { layout.networkName($0.network) }
    }
  }

  static func bridge(_ network: String, _ layout: InstanceLayout) -> String {
    "asb" + shortHash("\(layout.id) \(network)")
  }

  /// What an engine is to make a network with, so that native apps find it there; nil: not one of ours.
  package func plan(_ network: String) -> (bridge: String, block: IPv4Block)? {
    readBook()
    return book.networks[network].map { (Self.bridge(network, layout), $0.block) }
  }

  /// An engine says that a network's block is somebody else's: whoever is admitted next gets another. Returns the block; nil: others are
  /// on that network.
  package func giveUpBlock(of network: String) throws(HostFailure) -> IPv4Block? {
    let holders = runs.values.filter { run in run.place.interfaces.contains { $0.network == network } }
    guard holders.count <= 1, let block = book.networks[network]?.block else { return nil }
    book.avoid(blockOf: network)
    try keepBook()
    return block
  }

  /// What a run was given; nil: it is on no network.
  package func place(_ key: String) -> NetworkPlace? { runs[key]?.place }

  /// Where Docker is, its firewall drops what is routed for bridges that it did not make.
  private func holdNetworks(_ policy: Policy, _ key: String) async throws(HostFailure) -> Bool {
    guard let engine else { return false }
    do throws(HostFailure) { return try await engine.hold(policy, holder: "native \(key)") } catch {
      // An engine that is away makes none: then we do, and what lies beyond may be out of reach until it is back.
      if error.kind == .unavailable { return false }
      throw error
    }
  }

  private func ensureBridge(_ interface: NetworkPlace.Interface) throws(HostFailure) {
    do throws(SystemFault) {
      try NetworkLinks.makeBridge(interface.bridge, interface.gateway, prefix: interface.block.prefix)
      let forwarding = "/proc/sys/net/ipv4/ip_forward"
      if try File.text(forwarding) != "1\n" { try File.write(forwarding, "1") }
    } catch { throw HostFailure(.failed, "the network \(interface.network) could not be made: \(error)") }
  }

  // MARK: While it runs

  /// A container runs, and the kernel shows by which ports: from now on its addresses are used by these alone.
  package func bind(_ key: String, _ ports: [FilterRules.Port]) throws(HostFailure) {
    guard var run = runs[key] else { throw HostFailure(.failed, "\(key) is on no network") }
    guard Set(ports.map(\.address)) == Set(run.app.seats.map(\.address)) else {
      throw HostFailure(.refused, "\(key) was started on other networks than its policy names")
    }
    for other in runs.values where other.place.key != key {
      if let same = other.app.ports.first(where: { port in ports.contains { $0.hardware == port.hardware } }) {
        throw HostFailure(.refused, "\(key) has the hardware address of \(other.place.key) (\(same.address))")
      }
    }
    let text = rules.bind(run.app, ports)
    run.app.ports = ports
    runs[key] = run
    try apply(text, else: runs.values.map(\.app))
  }

  /// Whether the kernel has it in the filter.
  package func isInForce(_ key: String) -> Bool {
    guard let run = runs[key], let filter = try? opened() else { return false }
    return (try? filter.run(rules.look(run.app.seats))) != nil
  }

  /// Takes a run out that has ended. Safe to repeat.
  package func release(_ instance: Instance) async {
    let key = NetworkPlace.key(instance.app, instance.ownGroup)
    // Not the run that has come after it.
    guard let run = runs[key], run.generation == instance.generation else { return }
    runs[key] = nil
    let gone = Set(run.app.seats.map(\.bridge)).filter { bridge in
      !runs.values.contains { $0.app.seats.contains { $0.bridge == bridge } }
    }
    // Best effort: whoever comes next has it made anew; an address that nobody has reaches nothing.
    _ = try? apply(rules.dismiss(run.app, bridges: gone.sorted()), else: runs.values.map(\.app))
    // Best effort: they go with the app's network namespace, which may take a moment.
    for port in run.app.ports where port.name.hasPrefix("asv") { try? NetworkLinks.remove(port.name) }
    if run.engineHolds { await engine?.release(run.policy, holder: "native \(key)") }
    for bridge in gone where !runs.values.contains(where: { $0.app.seats.contains { $0.bridge == bridge } }) {
      // Best effort: an empty bridge costs next to nothing; one that an engine still uses has ports.
      if (try? NetworkLinks.hasPorts(bridge)) == false { try? NetworkLinks.remove(bridge) }
    }
    // Best effort: it is written anew by the next.
    try? Folder(opening: "\(layout.run)/hosts").remove(key)
    try? writeHosts()
    clear()
  }

  /// A run that an earlier daemon left: it is in the filter as before, or put in again.
  package func adopt(_ launch: Launch, container: Bool) async throws(HostFailure) {
    let key = NetworkPlace.key(launch.policy.id, launch.ownGroup)
    guard runs[key] == nil else { return }
    _ = try opened()
    var run = try makeRun(key, launch, container: container)
    note(await resolve(run.policy.network.egress?.names ?? [], within: .seconds(2)), in: &run)
    if !container { run.engineHolds = (try? await holdNetworks(run.policy, key)) ?? false }
    runs[key] = run
    if isInForce(key) {
      // Its chains are there, and count what they counted; only what names mean may have changed.
      if !run.seen.isEmpty { try apply(rules.allow(run.app), else: runs.values.map(\.app)) }
    } else {
      warn("filter.restored", key)
      try apply(rules.admit(run.app), else: runs.values.map(\.app))
    }
    try writeHosts()
  }

  // MARK: Names

  /// Asks again what names mean, and looks whether the filter is still what it was, until cancelled.
  package func run() async {
    while !Task.isCancelled {
      try? await Task.sleep(for: Self.period)
      if Task.isCancelled { return }
      await refresh()
    }
  }

  private func refresh() async {
    guard let filter, !runs.isEmpty else { return }
    let seats = runs.values.flatMap(\.app.seats)
    if !isWhole(filter) || (try? filter.run(rules.look(seats))) == nil {
      warn("filter.rebuilt", "it was changed by somebody else")
      // Best effort: said again in half a minute.
      try? rebuild(filter, runs.values.map(\.app))
    }
    let wanted = Array(Set(runs.values.flatMap { $0.policy.network.egress?.names ?? [] })).sorted()
    guard !wanted.isEmpty else { return }
    let found = await names.resolve(wanted)
    for (key, run) in runs where run.policy.network.egress?.names.isEmpty == false {
      var changed = run
      note(found, in: &changed)
      guard changed.app != run.app else {
        runs[key] = changed
        continue
      }
      runs[key] = changed
      // Best effort: what was allowed before stays so, and is tried again.
      try? apply(rules.allow(changed.app), else: runs.values.map(\.app))
    }
    try? writeHosts()
  }

  private func note(_ found: [String: [IPv4]], in run: inout Run) {
    let now = Clock.monotonic() / 1_000_000_000
    for name in run.policy.network.egress?.names ?? [] {
      for address in found[name] ?? [] { run.seen[name, default: [:]][address] = now }
      // While nothing answers, what was known last stays.
      if found[name] != nil { run.seen[name] = run.seen[name]?.filter { now - $0.value < Self.memory } }
      run.app.resolved[name] = run.seen[name]?.keys.sorted()
    }
  }

  /// What is not known within the time is asked for again later.
  private func resolve(_ wanted: [String], within limit: Duration) async -> [String: [IPv4]] {
    guard !wanted.isEmpty else { return [:] }
    let (answers, answer) = AsyncStream.makeStream(of: [String: [IPv4]].self)
    // Both end by themselves: one when the resolver gives up, the other after the limit.
    Task { [names] in
      answer.yield(await names.resolve(wanted))
      answer.finish()
    }
    Task {
      try? await Task.sleep(for: limit)
      answer.finish()
    }
    for await found in answers { return found }
    return [:]
  }

  private func writeHosts() throws(HostFailure) {
    do throws(SystemFault) {
      _ = try Folder(making: "\(layout.run)/hosts", mode: 0o700)
      for run in runs.values { try HostsFile.write(hosts(of: run).text, to: run.place.hostsFile) }
    } catch { throw HostFailure(.failed, "apps' host names could not be written: \(error)") }
  }

  private func hosts(of run: Run) -> HostsFile {
    let policy = run.policy
    var file = HostsFile(hostName: policy.network.hostname ?? String(policy.id.name.map { $0 == "_" ? "-" : $0 }))
    file.own = run.app.seats.first?.address
    file.extra = policy.network.extraHosts
    file.resolved = run.app.resolved
    for (index, interface) in run.place.interfaces.enumerated() {
      let others = runs.values.sorted { $0.place.key < $1.place.key }
      for other in others {
        guard let place = other.place.interfaces.firstIndex(where: { $0.network == interface.network }) else {
          continue
        }
        let attachments = other.policy.network.attachments
        let aliases = place < attachments.count ? attachments[place].aliases : []
        // Its own names too, as seen on the first network they are on.
        let isOwn = other.place.key == run.place.key
        if isOwn, index > 0 { continue }
        let names = [other.policy.id.name] + aliases.filter { $0 != other.policy.id.name }
        let new = names.filter { !isOwn || $0 != file.hostName }
        if new.isEmpty { continue }
        file.neighbours.append(.init(address: other.place.interfaces[place].address, names: new))
      }
    }
    return file
  }

  // MARK: On disk

  private func readBook() {
    guard !isBookRead else { return }
    isBookRead = true
    // best effort: without it apps get other addresses; those that run keep theirs by what the engine or the kernel has.
    guard let bytes = try? Folder(opening: layout.state).read("networks.json"),
      let json = try? JSONValue(parsing: bytes)
    else { return }
    book = AddressBook(json)
  }

  private func keepBook() throws(HostFailure) {
    do throws(SystemFault) {
      try Folder(opening: layout.state).replace("networks.json", with: Array(book.json.text.utf8), mode: 0o600)
    } catch { throw HostFailure(.failed, "apps' addresses could not be stored: \(error)") }
  }
}

/// Whom native apps ask for names.
enum Resolvers {
  /// The policy's; else the host's own, but never one on the host's loopback, which is the app's own there. With a list of what it may
  /// reach an app asks nobody: names it may use are in its hosts file, and a question is a way out.
  static func of(_ policy: Policy) -> [String] {
    if !policy.network.dns.isEmpty { return policy.network.dns }
    if policy.network.egress?.allow != nil { return [] }
    for path in ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"] {
      // best effort: the next one, or none.
      let text = (try? File.text(path)) ?? ""
      let found = text.split(separator: "\n").compactMap { line -> String? in
        let words = line.split { $0 == " " || $0 == "\t" }
        guard words.count >= 2, words[0] == "nameserver", let address = IPv4(words[1]), address.value >> 24 != 127
        else { return nil }
        return address.description
      }
      if !found.isEmpty { return Array(found.prefix(3)) }
    }
    return []
  }
}
