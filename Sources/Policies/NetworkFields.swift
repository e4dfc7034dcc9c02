internal import Model

/// What an app reaches, and what reaches it.
let networkFields: [Field] = [
  Field(
    "network_mode", "none, bridge (a network of its own; implied by ports) or host", .word(["none", "bridge", "host"]),
    .recreate,
    read: { $1.policy.network.mode = $0.text.flatMap { Network.Mode(rawValue: $0) } ?? .none },
    show: { $0.network.mode == .named ? nil : .string($0.network.mode.rawValue) }),
  Field(
    "networks", "Named networks, shared with every app that names them too", networksForm, .recreate,
    read: readNetworks, show: showNetworks),
  Field(
    "ports", "Ports of the app that the host publishes, on 127.0.0.1 unless host_ip says otherwise", portsForm,
    .recreate, read: readPorts, show: showPorts),
  Field(
    "extra_hosts", "Names that resolve to fixed addresses", extraHostsForm, read: readExtraHosts, show: showExtraHosts),
  Field(
    "dns", "Name servers", .oneOrMore(address, said: "an IP address, or a list"),
    read: { $1.policy.network.dns = $0.texts },
    show: { .strings($0.network.dns) }),
  Field(
    "hostname", "The app's host name; default: its id",
    .checked(said: "a host name", pattern: "^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$", isHostname),
    read: { $1.policy.network.hostname = $0.text },
    show: { $0.network.hostname.map { .string($0) } }),
  Field(
    "egress", "What the app may connect to beyond its networks; everything but metadata addresses if it is not given",
    egressForm, .recreate, read: readEgress, show: showEgress),
  Field(
    "bandwidth", "Bits a second that the app may send and receive, as 10mbit",
    .object([.init("egress", rate, "Out"), .init("ingress", rate, "In")]), .recreate, read: readBandwidth,
    show: showBandwidth),
]

private let address = Form.checked(said: "an IP address", isAddress)

@Sendable func isHostname(_ text: String) -> Bool {
  (1...253).contains(text.utf8.count)
    && text.split(separator: ".", omittingEmptySubsequences: false).allSatisfy { label in
      (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
        && label.utf8.allSatisfy {
          (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) || $0 == 0x2D
        }
    }
}

/// Dotted IPv4, or IPv6 as RFC 4291 writes it (no zone).
@Sendable func isAddress(_ text: String) -> Bool { isIPv4(text[...]) || isIPv6(text) }

private func isIPv4(_ text: Substring) -> Bool {
  let parts = text.split(separator: ".", omittingEmptySubsequences: false)
  return parts.count == 4 && parts.allSatisfy { Form.whole(String($0)).map { (0...255).contains($0) } == true }
}

private func isIPv6(_ text: String) -> Bool {
  guard text.utf8.count <= 45 else { return false }
  let halves = separated(text)
  guard halves.count <= 2 else { return false }
  var count = 0
  for (position, half) in halves.enumerated() where !half.isEmpty {
    let groups = half.split(separator: ":", omittingEmptySubsequences: false)
    for (place, group) in groups.enumerated() {
      if place == groups.count - 1, position == halves.count - 1, isIPv4(group) {
        count += 2
      } else if (1...4).contains(group.utf8.count), group.utf8.allSatisfy({ Character(Unicode.Scalar($0)).isHexDigit })
      {
        count += 1
      } else {
        return false
      }
    }
  }
  return halves.count == 2 ? count < 8 : count == 8
}

/// Splits at `::`.
private func separated(_ text: String) -> [Substring] {
  var parts: [Substring] = []
  var rest = text[...]
  var index = rest.startIndex
  while index < rest.endIndex {
    let next = rest.index(after: index)
    if rest[index] == ":", next < rest.endIndex, rest[next] == ":" {
      parts.append(rest[..<index])
      rest = rest[rest.index(after: next)...]
      index = rest.startIndex
    } else {
      index = next
    }
  }
  return parts + [rest]
}

// MARK: networks

private let networksForm = Form.either(
  [
    .list(.objectName, most: 64),
    .map(
      .orNothing(
        .object([
          .init(
            "aliases", .list(.checked(said: "a host name", isHostname), most: 64), "Further names of the app there"),
          .init("ipv4_address", .text(), "A fixed address", later: "a fixed address"),
        ])), most: 64),
  ], said: "a list of names, or a map of name to {aliases}")

@Sendable private func readNetworks(_ node: Written, _ draft: inout Draft) {
  var attachments: [Network.Attachment] = []
  func attach(_ name: String, _ aliases: [String], _ place: Written, _ draft: inout Draft) {
    if !isObjectName(name) { draft.findings.error(place, "\(name.quoted) is not a network's name") }
    if attachments.contains(where: { $0.network == name }) {
      draft.findings.error(place, "\(name.quoted) is given twice")
    }
    attachments.append(Network.Attachment(network: name, aliases: aliases))
  }
  for item in node.list ?? [] { attach(item.text ?? "", [], item, &draft) }
  for member in node.members ?? [] { attach(member.key, member.value["aliases"]?.texts ?? [], member.keyNode, &draft) }
  draft.policy.network.attachments = attachments
  if !attachments.isEmpty { draft.policy.network.mode = .named }
}

@Sendable private func showNetworks(_ policy: Policy) -> JSONValue? {
  var object = JSONObject()
  for attachment in policy.network.attachments {
    object[attachment.network] = .object(["aliases": .strings(attachment.aliases)])
  }
  return .object(object)
}

// MARK: ports

/// Ports an app may publish, ranges counted one by one.
let mostPorts = 1024

private let portsForm = Form.list(
  .either(
    [
      .text(most: 128),
      .object([
        .init("target", .text(most: 16), "The app's port", required: true),
        .init("published", .text(most: 16), "The host's port; default: any free one"),
        .init("host_ip", address, "The host's address; default: 127.0.0.1"),
        .init("protocol", .word(["tcp", "udp"]), "Default: tcp"),
        .init("mode", .word(["host", "ingress"]), "Accepted from Compose: one host has no other"),
        .init("name", .text(), "For people"),
        .init("app_protocol", .text(), "For people"),
      ]),
    ], said: "HOST:APP such as 8080:80, or {target, published}"), most: mostPorts)

@Sendable private func readPorts(_ node: Written, _ draft: inout Draft) {
  var ports: [PublishedPort] = []
  for item in node.list ?? [] {
    let read: Result<[PublishedPort], Wrong>
    if let text = item.text {
      read = shortPort(text)
    } else {
      read = portRange(
        host: item["published"]?.text, app: item["target"]?.text ?? "", address: item["host_ip"]?.text,
        transport: item["protocol"]?.text ?? "tcp")
    }
    switch read {
    case .failure(let wrong): draft.findings.error(item, wrong.message, hint: wrong.hint)
    case .success(let new):
      for port in new {
        if port.hostPort > 0, let other = ports.first(where: { $0.claims(sameAs: port) }) {
          draft.findings.error(
            item, "host port \(port.hostPort)/\(port.transport) is published twice",
            hint: "it leads to \(other.appPort) already")
        }
        ports.append(port)
      }
    }
    if ports.count > mostPorts {
      draft.findings.error(item, "more than \(mostPorts) ports are published")
      break
    }
  }
  draft.policy.network.ports = ports
}

private struct Wrong: Error {
  var message: String
  var hint: String?
}

/// `[ADDRESS:][HOST]:APP[/udp]`, `APP`, both with ranges, the address in brackets if it holds colons.
private func shortPort(_ text: String) -> Result<[PublishedPort], Wrong> {
  let halves = text.split(separator: "/", omittingEmptySubsequences: false)
  guard halves.count <= 2, let whole = halves.first else {
    return .failure(Wrong(message: "\(text.quoted) is not a port", hint: "write HOST:APP such as 8080:80"))
  }
  let transport = halves.count == 2 ? String(halves[1]) : "tcp"
  var rest = whole
  var address: String?
  if rest.hasPrefix("[") {
    guard let close = rest.firstIndex(of: "]"), rest[rest.index(after: close)...].hasPrefix(":") else {
      return .failure(Wrong(message: "\(text.quoted) has no ']:' after its address"))
    }
    address = String(rest[rest.index(after: rest.startIndex)..<close])
    rest = rest[rest.index(close, offsetBy: 2)...]
  }
  var parts = rest.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
  if address == nil, parts.count == 3 { address = parts.removeFirst() }
  guard parts.count <= 2, let app = parts.last else {
    return .failure(
      Wrong(message: "\(text.quoted) is not a port", hint: "write HOST:APP, or [ADDRESS]:HOST:APP for an IPv6 address"))
  }
  if let address, !isAddress(address) { return .failure(Wrong(message: "\(address.quoted) is not an IP address")) }
  return portRange(host: parts.count == 2 ? parts[0] : nil, app: app, address: address, transport: transport)
}

private func portRange(host: String?, app: String, address: String?, transport: String) -> Result<
  [PublishedPort], Wrong
> {
  guard let transport = PublishedPort.Transport(rawValue: transport) else {
    return .failure(Wrong(message: "\(transport.quoted) is not tcp or udp"))
  }
  func range(_ text: String) -> ClosedRange<Int>? {
    let ends = text.split(separator: "-", omittingEmptySubsequences: false).map {
      Form.whole(String($0)).flatMap { (1...65535).contains($0) ? Int($0) : nil }
    }
    guard ends.count <= 2, let first = ends.first ?? nil, let last = ends.last ?? nil, first <= last else { return nil }
    return first...last
  }
  guard let inside = range(app) else {
    return .failure(Wrong(message: "\(app.quoted) is not a port", hint: "ports are 1 to 65535, ranges FIRST-LAST"))
  }
  guard inside.count <= mostPorts else { return .failure(Wrong(message: "more than \(mostPorts) ports are published")) }
  var outside: ClosedRange<Int>?
  if let host, !host.isEmpty, host != "0" {
    guard let given = range(host) else {
      return .failure(Wrong(message: "\(host.quoted) is not a port", hint: "ports are 1 to 65535, ranges FIRST-LAST"))
    }
    guard given.count == inside.count else {
      return .failure(Wrong(message: "\(host) and \(app) are not the same number of ports"))
    }
    outside = given
  }
  return .success(
    inside.map { port in
      PublishedPort(
        hostAddress: address ?? "127.0.0.1",
        hostPort: outside.map { UInt16($0.lowerBound + port - inside.lowerBound) } ?? 0,
        appPort: UInt16(port), transport: transport)
    })
}

extension PublishedPort {
  /// Whether both could not listen on one host: one port, and addresses that overlap.
  func claims(sameAs other: PublishedPort) -> Bool {
    guard hostPort == other.hostPort, hostPort > 0, transport == other.transport else { return false }
    func isAny(_ address: String) -> Bool { address == "0.0.0.0" || address == "::" }
    return hostAddress == other.hostAddress || isAny(hostAddress) || isAny(other.hostAddress)
  }
}

@Sendable private func showPorts(_ policy: Policy) -> JSONValue? {
  .array(
    policy.network.ports.map { port in
      .object([
        "target": .count(port.appPort), "published": port.hostPort == 0 ? nil : .string(String(port.hostPort)),
        "host_ip": .string(port.hostAddress), "protocol": .string(port.transport.rawValue),
      ])
    })
}

// MARK: names

private let extraHostsForm = Form.either(
  [.map(.text(most: 64)), .list(.text(most: 320))], said: "a map of name to address, or a list of NAME=ADDRESS")

@Sendable private func readExtraHosts(_ node: Written, _ draft: inout Draft) {
  var entries: [(place: Written, name: String, address: String)] = []
  for member in node.members ?? [] { entries.append((member.keyNode, member.key, member.value.text ?? "")) }
  for item in node.list ?? [] {
    let text = item.text ?? ""
    let separator = text.firstIndex(of: "=") ?? text.firstIndex(of: ":")
    entries.append(
      (
        item, String(text[..<(separator ?? text.endIndex)]),
        separator.map { String(text[text.index(after: $0)...]) } ?? ""
      ))
  }
  for (place, name, address) in entries {
    var address = address
    if address.hasPrefix("["), address.hasSuffix("]") { address = String(address.dropFirst().dropLast()) }
    if address == "host-gateway" {
      draft.findings.error(place, "host-gateway is not supported yet", hint: "write the address")
    } else if !isHostname(name) || !isAddress(address) {
      draft.findings.error(place, "not a name and an IP address", hint: "write NAME=ADDRESS such as db=10.0.0.5")
    }
    draft.policy.network.extraHosts.append((name, address))
  }
  draft.policy.network.extraHosts.sort { ($0.name, $0.address) < ($1.name, $1.address) }
}

@Sendable private func showExtraHosts(_ policy: Policy) -> JSONValue? {
  .strings(policy.network.extraHosts.map { "\($0.name)=\($0.address)" })
}
