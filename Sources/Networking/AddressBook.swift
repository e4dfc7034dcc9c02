internal import Linux
internal import Model

/// Which block each network has and which address each app, as kept on disk: an app has the same address as long as nobody else needs it.
struct AddressBook: Sendable, Equatable {
  struct Entry: Sendable, Equatable {
    var block: IPv4Block
    /// By key of a run.
    var addresses: [String: IPv4]
  }

  private(set) var networks: [String: Entry] = [:]
  /// Blocks that an engine knows to be somebody else's, the newest last.
  private(set) var avoided: [IPv4Block] = []

  /// Where blocks are taken from: 1024 of 61 apps each.
  static let pool = IPv4Block(IPv4(0x0AE7_0000), prefix: 16)
  static let prefix = 26

  enum Full: Error { case blocks, addresses }

  init() {}

  /// The block of a network; a new one overlaps none of `taken`. `seed`: where the search begins, so that instances differ.
  mutating func block(of network: String, taken: [IPv4Block], seed: UInt32) throws(Full) -> IPv4Block {
    if let known = networks[network] { return known.block }
    let count = UInt32(1) << UInt32(Self.prefix - Self.pool.prefix)
    let used = taken + avoided + networks.values.map(\.block)
    for step in 0..<count {
      let place = (seed &+ step) % count
      let block = IPv4Block(IPv4(Self.pool.first.value + place << UInt32(32 - Self.prefix)), prefix: Self.prefix)
      guard !used.contains(where: { $0.overlaps(block) }) else { continue }
      networks[network] = Entry(block: block, addresses: [:])
      return block
    }
    throw .blocks
  }

  /// The address of `key` in a network that has a block. One of somebody who is not `present` is given on when none is free.
  mutating func address(of key: String, in network: String, present: Set<String>) throws(Full) -> IPv4 {
    guard var entry = networks[network] else { throw .blocks }
    if let known = entry.addresses[key] { return known }
    // The first is the bridge's own, the last the broadcast.
    let all = (entry.block.first.value + 2)..<entry.block.last.value
    func free(_ entry: Entry) -> IPv4? {
      let used = Set(entry.addresses.values)
      return all.lazy.map { IPv4($0) }.first { !used.contains($0) }
    }
    var found = free(entry)
    if found == nil {
      entry.addresses = entry.addresses.filter { present.contains($0.key) }
      found = free(entry)
    }
    guard let found else { throw .addresses }
    entry.addresses[key] = found
    networks[network] = entry
    return found
  }

  /// Gives up a block that cannot be used here; the next one of the network is another.
  mutating func avoid(blockOf network: String) {
    guard let entry = networks.removeValue(forKey: network) else { return }
    avoided.append(entry.block)
    // What was somebody else's long ago may be free again.
    if avoided.count > 64 { avoided.removeFirst() }
  }

  // MARK: On disk

  var json: JSONValue {
    var document = JSONObject()
    for (name, entry) in networks.sorted(by: { $0.key < $1.key }) {
      var addresses = JSONObject()
      for (key, address) in entry.addresses.sorted(by: { $0.key < $1.key }) {
        addresses[key] = .string(address.description)
      }
      document[name] = .object(["block": .string(entry.block.description), "addresses": .object(addresses)])
    }
    return .object(["networks": .object(document), "avoided": .array(avoided.map { .string($0.description) })])
  }

  /// What `json` says; entries that make no sense are left out, and get others.
  init(_ json: JSONValue) {
    avoided = (json["avoided"]?.arrayValue ?? []).suffix(64).compactMap(Self.block)
    for (name, value) in json["networks"]?.objectValue ?? JSONObject() {
      guard let block = value["block"].flatMap(Self.block),
        !networks.values.contains(where: { $0.block.overlaps(block) })
      else { continue }
      var entry = Entry(block: block, addresses: [:])
      for (key, text) in value["addresses"]?.objectValue ?? JSONObject() {
        guard let address = text.stringValue.flatMap({ IPv4($0) }), address > entry.block.first,
          address < entry.block.last, !entry.addresses.values.contains(address)
        else { continue }
        entry.addresses[key] = address
      }
      networks[name] = entry
    }
  }

  private static func block(_ json: JSONValue) -> IPv4Block? {
    let parts = json.stringValue?.split(separator: "/") ?? []
    guard parts.count == 2, let first = IPv4(parts[0]), parts[1] == "\(prefix)" else { return nil }
    return IPv4Block(first, prefix: prefix)
  }
}
