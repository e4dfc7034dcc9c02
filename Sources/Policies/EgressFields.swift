internal import Model

/// How many rules one policy may have.
let mostEgressRules = 256

let egressForm = Form.object([
  .init(
    "allow", .list(.text(most: 320), most: mostEgressRules),
    "HOST:PORT, ADDRESS:PORT and CIDR:PORT, ports also FIRST-LAST, /udp for UDP"),
  .init("max_connections", .whole(1...1_000_000), "At once"),
])

let rate = Form.checked(said: "bits a second such as 10mbit", pattern: "^[0-9]+(bit|kbit|mbit|gbit)$") {
  bitsPerSecond($0) != nil
}

@Sendable func readEgress(_ node: Written, _ draft: inout Draft) {
  var egress = Egress()
  if let allow = node["allow"] {
    var rules: [Egress.Rule] = []
    for item in allow.list ?? [] {
      switch egressRule(item.text ?? "") {
      case .failure(let wrong): draft.findings.error(item, wrong.message, hint: wrong.hint)
      case .success(let rule): if !rules.contains(rule) { rules.append(rule) }
      }
    }
    egress.allow = rules
  }
  egress.maximumConnections = node["max_connections"]?.text.flatMap { UInt32($0) }
  draft.policy.network.egress = egress
}

@Sendable func showEgress(_ policy: Policy) -> JSONValue? {
  policy.network.egress.map { egress in
    .object([
      "allow": egress.allow.map { .strings($0.map(\.text)) },
      "max_connections": egress.maximumConnections.map { .count($0) },
    ])
  }
}

@Sendable func readBandwidth(_ node: Written, _ draft: inout Draft) {
  draft.policy.network.bandwidth = Bandwidth(
    egress: node["egress"]?.text.flatMap(bitsPerSecond), ingress: node["ingress"]?.text.flatMap(bitsPerSecond))
}

@Sendable func showBandwidth(_ policy: Policy) -> JSONValue? {
  let bandwidth = policy.network.bandwidth
  guard bandwidth != Bandwidth() else { return nil }
  return .object([
    "egress": bandwidth.egress.map { .string(rateText($0)) },
    "ingress": bandwidth.ingress.map { .string(rateText($0)) },
  ])
}

struct WrongRule: Error {
  var message: String
  var hint: String?
}

/// `HOST:PORT[-LAST][/udp]`; the host is a name, an address or a block of addresses.
func egressRule(_ text: String) -> Result<Egress.Rule, WrongRule> {
  func wrong(_ why: String, _ hint: String = "write HOST:PORT such as api.example.com:443 or 10.0.0.0/8:5432")
    -> Result<Egress.Rule, WrongRule>
  {
    .failure(WrongRule(message: "\(text.quoted) \(why)", hint: hint))
  }
  if text.hasPrefix("[") || text.split(separator: ":", omittingEmptySubsequences: false).count > 2 {
    return wrong("is not HOST:PORT", "apps' networks have no IPv6; name an IPv4 address or a host")
  }
  guard let colon = text.lastIndex(of: ":") else { return wrong("names no port") }
  let host = text[..<colon].lowercased()
  let rest = text[text.index(after: colon)...].split(separator: "/", omittingEmptySubsequences: false)
  guard rest.count <= 2, let transport = PublishedPort.Transport(rawValue: rest.count == 2 ? String(rest[1]) : "tcp")
  else { return wrong("ends in another transport than tcp or udp") }
  let ends = rest[0].split(separator: "-", omittingEmptySubsequences: false).map { UInt16($0) }
  guard ends.count <= 2, let first = ends.first ?? nil, let last = ends.last ?? nil, first > 0, first <= last else {
    return wrong("names no port", "ports are 1 to 65535, ranges FIRST-LAST")
  }
  let target: Egress.Rule.Target
  let parts = host.split(separator: "/", omittingEmptySubsequences: false)
  if let address = IPv4(parts[0]) {
    guard parts.count <= 2, let prefix = parts.count == 2 ? Int(parts[1]) : 32, (0...32).contains(prefix) else {
      return wrong("has no prefix between /0 and /32")
    }
    let block = IPv4Block(address, prefix: prefix)
    guard block.first == address else { return wrong("has bits set beyond its prefix", "the block is \(block)") }
    if prefix > 0, block.overlaps(IPv4Block(IPv4(0xA9FE_0000), prefix: 16)), prefix >= 16 {
      return wrong("is a link-local or metadata address", "those are always blocked")
    }
    target = .block(block)
  } else {
    guard parts.count == 1, isHostname(host), !host.allSatisfy({ $0.isNumber || $0 == "." }) else {
      return wrong("names neither a host nor an IPv4 address", "names are exact: there are no wildcards")
    }
    target = .name(host)
  }
  return .success(Egress.Rule(target, ports: first...last, transport: transport))
}

private let rateUnits: [(name: String, factor: UInt64)] = [
  ("gbit", 1_000_000_000), ("mbit", 1_000_000), ("kbit", 1000), ("bit", 1),
]

/// `10mbit`, powers of ten as tc(8) has them; 8 kbit to 100 Gbit.
@Sendable func bitsPerSecond(_ text: String) -> UInt64? {
  guard let unit = rateUnits.first(where: { text.hasSuffix($0.name) }),
    let number = UInt64(text.dropLast(unit.name.count)), number <= 100_000_000_000 / unit.factor
  else { return nil }
  let rate = number * unit.factor
  return rate >= 8000 ? rate : nil
}

func rateText(_ rate: UInt64) -> String {
  let unit = rateUnits.first { rate.isMultiple(of: $0.factor) } ?? ("bit", 1)
  return "\(rate / unit.factor)\(unit.name)"
}
