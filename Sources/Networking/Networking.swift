package import Model

/// Apps' networks: which addresses apps have, what they may reach, and which names they know. The same for containers and native apps.
///
/// `NetworkFabric` is told of each run before anything of it exists, and puts it into the packet filter then; what it hands out (a
/// NetworkPlace) says the runtime how to connect the run. It makes bridges where no engine does. It never touches what is not the
/// instance's own, and what it set stays when the daemon ends. Next: NetworkFabric.swift, AddressBook.swift, HostsFile.swift.
package struct NetworkPlace: Sendable, Equatable {
  package struct Interface: Sendable, Equatable {
    /// The network's name for the kernel and the engine.
    package var network: String
    package var bridge: String
    package var block: IPv4Block
    package var address: IPv4
    /// Of a native app: the host's end, and its own end's hardware address.
    package var port: String
    package var hardware: [UInt8]
    /// The host's address there: the way out.
    package var gateway: IPv4 { IPv4(block.first.value + 1) }
  }
  /// Of the run: the app's name, with its generation if another is beside it.
  package var key: String
  package var interfaces: [Interface]
  /// Bound at the app's /etc/hosts.
  package var hostsFile: String
  /// Where native apps ask for other names; empty: nowhere.
  package var resolvers: [String]
}

/// Makes networks through an engine whose firewall drops what it did not make itself.
package protocol EngineNetworks: Sendable {
  /// Makes the networks of a policy, or keeps what is there, as long as `holder` is not released. False: this engine need not.
  func hold(_ policy: Policy, holder: String) async throws(HostFailure) -> Bool
  func release(_ policy: Policy, holder: String) async
}

extension NetworkPlace {
  /// `app`, or `app.generation` for one beside another: both have addresses of their own.
  package static func key(_ app: AppID, _ generation: UInt64?) -> String {
    generation.map { "\(app).\($0)" } ?? app.name
  }

  /// Whether a policy has a network that this is about.
  package static func concerns(_ policy: Policy) -> Bool {
    policy.network.mode == .bridge || policy.network.mode == .named
  }
}

/// FNV-1a, for short names of interfaces: the kernel allows 15 characters.
func shortHash(_ text: String) -> String {
  var hash: UInt64 = 0xcbf2_9ce4_8422_2325
  for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
  let digits = String(hash, radix: 16)
  return String((String(repeating: "0", count: 16 - digits.count) + digits).prefix(10))
}
