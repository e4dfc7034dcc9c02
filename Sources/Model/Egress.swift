/// An IPv4 address, in the host's byte order.
package struct IPv4: Sendable, Hashable, Comparable, CustomStringConvertible {
  package var value: UInt32
  package init(_ value: UInt32) { self.value = value }

  /// Reads `10.0.0.1`; nil for anything else, leading zeros included.
  package init?(_ text: some StringProtocol) {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false)
    guard parts.count == 4 else { return nil }
    var value: UInt32 = 0
    for part in parts {
      guard let byte = UInt8(part), String(byte) == part else { return nil }
      value = value << 8 | UInt32(byte)
    }
    self.value = value
  }

  package var description: String {
    [24, 16, 8, 0].map { String(value >> $0 & 255) }.joined(separator: ".")
  }

  /// Most significant byte first.
  package var bytes: [UInt8] { [24, 16, 8, 0].map { UInt8(value >> $0 & 255) } }

  package static func < (left: IPv4, right: IPv4) -> Bool { left.value < right.value }
}

/// A block of IPv4 addresses.
package struct IPv4Block: Sendable, Hashable, CustomStringConvertible {
  /// The first address: bits beyond the prefix are 0.
  package var first: IPv4
  /// 0…32.
  package var prefix: Int

  package init(_ address: IPv4, prefix: Int) {
    self.prefix = prefix
    first = IPv4(address.value & Self.mask(prefix))
  }

  package static func mask(_ prefix: Int) -> UInt32 { prefix == 0 ? 0 : UInt32.max << UInt32(32 - prefix) }

  package var last: IPv4 { IPv4(first.value | ~Self.mask(prefix)) }

  package func overlaps(_ other: IPv4Block) -> Bool { first <= other.last && other.first <= last }

  package var description: String { "\(first)/\(prefix)" }
}

/// What an app may connect to beyond the networks it is on.
package struct Egress: Sendable, Equatable {
  /// Nil: everything but what is always blocked.
  package var allow: [Rule]?
  /// Connections that leave its networks, at once; nil: as many as it likes.
  package var maximumConnections: UInt32?

  package init(allow: [Rule]? = nil, maximumConnections: UInt32? = nil) {
    self.allow = allow
    self.maximumConnections = maximumConnections
  }

  package struct Rule: Sendable, Hashable {
    package enum Target: Sendable, Hashable {
      case block(IPv4Block)
      /// An exact host name, lower case; what it resolves to is looked up by the supervisor.
      case name(String)
    }
    package var target: Target
    package var ports: ClosedRange<UInt16>
    package var transport: PublishedPort.Transport

    package init(_ target: Target, ports: ClosedRange<UInt16>, transport: PublishedPort.Transport = .tcp) {
      self.target = target
      self.ports = ports
      self.transport = transport
    }

    /// As a policy file writes it.
    package var text: String {
      let host =
        switch target {
        case .block(let block): block.prefix == 32 ? block.first.description : block.description
        case .name(let name): name
        }
      let ports =
        ports.lowerBound == ports.upperBound ? "\(ports.lowerBound)" : "\(ports.lowerBound)-\(ports.upperBound)"
      return "\(host):\(ports)" + (transport == .tcp ? "" : "/\(transport.rawValue)")
    }
  }

  /// The names among its rules, each once.
  package var names: [String] {
    var names: [String] = []
    for rule in allow ?? [] {
      if case .name(let name) = rule.target, !names.contains(name) { names.append(name) }
    }
    return names
  }
}

/// How fast an app's networks are, in bits a second; nil: as fast as the host.
package struct Bandwidth: Sendable, Equatable {
  /// What it sends.
  package var egress: UInt64?
  /// What it receives.
  package var ingress: UInt64?
  package init(egress: UInt64? = nil, ingress: UInt64? = nil) {
    self.egress = egress
    self.ingress = ingress
  }
}
