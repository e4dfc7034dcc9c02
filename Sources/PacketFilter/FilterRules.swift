package import Model

/// The rules of one instance as nft(8) reads them: pure text. Names that are put in are made by us alone: apps' ids, hashes, numbers.
///
/// Two tables. `inet` judges what is routed: by the interface it comes through (a bridge of ours) and its source address, which leads to
/// the app's own chain. `bridge` judges what enters a bridge's port: whose address that port may use.
package struct FilterRules: Sendable {
  /// `appsupervisor_INSTANCE`.
  package let table: String

  package init(instance: String) {
    table = "appsupervisor_" + String(instance.map { $0.isASCII && ($0.isLetter || $0.isNumber) ? $0 : "_" })
  }

  /// One app's place in one network.
  package struct Seat: Sendable, Equatable {
    package var bridge: String
    package var address: IPv4
    package init(bridge: String, address: IPv4) {
      self.bridge = bridge
      self.address = address
    }
  }

  /// A port of a bridge and what may come in by it.
  package struct Port: Sendable, Equatable {
    package var name: String
    package var hardware: [UInt8]
    package var address: IPv4
    package init(name: String, hardware: [UInt8], address: IPv4) {
      self.name = name
      self.hardware = hardware
      self.address = address
    }
    var owner: String {
      let mac = hardware.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined(separator: ":")
      return "\"\(name)\" . \(mac) . \(address)"
    }
  }

  package struct App: Sendable, Equatable {
    /// Of a run: the app's name, with its generation if another is beside it.
    package var key: String
    package var seats: [Seat]
    package var egress: Egress?
    /// What the names among its rules mean now.
    package var resolved: [String: [IPv4]]
    /// Empty: not known yet, which of a container it is only once it runs.
    package var ports: [Port]
    package init(key: String, seats: [Seat], egress: Egress?, resolved: [String: [IPv4]] = [:], ports: [Port] = []) {
      self.key = key
      self.seats = seats
      self.egress = egress
      self.resolved = resolved
      self.ports = ports
    }
  }

  // MARK: What all share

  /// Link-local addresses, those of clouds' metadata among them; fd00:ec2::254 is IPv6, of which nothing passes.
  private static let linkLocal = "169.254.0.0/16"

  /// Everything but the apps. Priorities: before the usual filters, whose own verdicts still count; after the usual source translation.
  package var base: String {
    """
    table inet \(table) {
      set bridges { type ifname; }
      set same { type ifname . ifname; }
      set addresses { type ipv4_addr; }
      set resolving { type ipv4_addr; }
      map from { type ipv4_addr : verdict; }
      chain out {
        meta nfproto != ipv4 drop
        ip saddr != @addresses drop
        ip daddr \(Self.linkLocal) reject with icmpx admin-prohibited
        iifname . oifname @same accept
        ct state invalid drop
        ct state established,related accept
        oifname @bridges reject with icmpx admin-prohibited
        ip saddr vmap @from
        drop
      }
      chain in {
        meta nfproto != ipv4 drop
        ip saddr \(Self.linkLocal) drop
        ct state established,related accept
        ct status dnat accept
        drop
      }
      chain host {
        meta nfproto != ipv4 drop
        ip saddr != @addresses drop
        ip daddr \(Self.linkLocal) reject with icmpx admin-prohibited
        ct state established,related accept
        ip saddr @resolving meta l4proto { tcp, udp } th dport 53 accept
        reject with icmpx admin-prohibited
      }
      chain forward {
        type filter hook forward priority -10; policy accept;
        iifname @bridges goto out
        oifname @bridges goto in
      }
      chain input {
        type filter hook input priority -10; policy accept;
        iifname @bridges goto host
      }
      chain post {
        type nat hook postrouting priority 110; policy accept;
        ip saddr @addresses oifname != @bridges masquerade
      }
    }
    table bridge \(table) {
      set ports { type ifname; }
      set owners { type ifname . ether_addr . ipv4_addr; }
      set waiting { type ipv4_addr; }
      set addresses { type ipv4_addr; }
      chain bound {
        iifname . ether saddr . ip saddr @owners accept
        iifname . ether saddr . arp saddr ip @owners accept
        drop
      }
      chain pre {
        type filter hook prerouting priority -300; policy accept;
        iifname @ports goto bound
        ip saddr @waiting accept
        arp saddr ip @waiting accept
        ip saddr @addresses drop
        arp saddr ip @addresses drop
      }
    }

    """
  }

  /// Away with what was there, and everything anew, in one transaction.
  /// From `bridges` nothing passes that is not one of `apps`.
  package func whole(_ apps: [App], bridges: [String]) -> String {
    away + base + bridges.map { known($0) }.joined() + apps.map { admit($0) }.joined()
  }

  /// Takes both tables away, also if there are none.
  package var away: String {
    ["inet", "bridge"].map { "add table \($0) \(table)\ndelete table \($0) \(table)\n" }.joined()
  }

  /// Prints elements only if some app is in.
  package var lookForAny: String { "list set inet \(table) addresses\n" }

  private func known(_ bridge: String) -> String {
    add("inet", "bridges", "\"\(bridge)\"") + add("inet", "same", "\"\(bridge)\" . \"\(bridge)\"")
  }

  // MARK: One app

  /// Puts an app in; safe to repeat.
  package func admit(_ app: App) -> String {
    let chain = "a_\(app.key)"
    let end = "c_\(app.key)"
    var text = ""
    for name in [end, chain] {
      text += "add chain inet \(table) \(name)\nflush chain inet \(table) \(name)\n"
    }
    if let most = app.egress?.maximumConnections {
      text += rule(end, "ct count over \(most) reject with icmpx admin-prohibited")
    }
    text += rule(end, "accept") + allow(app)
    for seat in app.seats {
      text += known(seat.bridge)
      text += add("inet", "addresses", "\(seat.address)")
      text += add("inet", "from", "\(seat.address) : goto \(chain)")
      if app.egress?.allow == nil { text += add("inet", "resolving", "\(seat.address)") }
      text += add("bridge", "addresses", "\(seat.address)")
      if app.ports.isEmpty { text += add("bridge", "waiting", "\(seat.address)") }
    }
    return text
      + app.ports.map { add("bridge", "ports", "\"\($0.name)\"") + add("bridge", "owners", $0.owner) }.joined()
  }

  /// What it may connect to, in place of what it was; connections that are there go on, and go on being counted.
  package func allow(_ app: App) -> String {
    let chain = "a_\(app.key)"
    let end = "c_\(app.key)"
    var text = "flush chain inet \(table) \(chain)\n"
    guard let allowed = app.egress?.allow else { return text + rule(chain, "goto \(end)") }
    for entry in allowed {
      let transport = entry.transport == .tcp ? 6 : 17
      let ports =
        entry.ports.lowerBound == entry.ports.upperBound
        ? "\(entry.ports.lowerBound)" : "\(entry.ports.lowerBound)-\(entry.ports.upperBound)"
      let hosts: String
      switch entry.target {
      case .block(let block): hosts = "ip daddr \(block)"
      case .name(let name):
        guard let found = app.resolved[name], !found.isEmpty else { continue }
        hosts = "ip daddr { \(found.map(\.description).joined(separator: ", ")) }"
      }
      text += rule(chain, "\(hosts) meta l4proto \(transport) th dport \(ports) goto \(end)")
    }
    return text + rule(chain, "reject with icmpx admin-prohibited")
  }

  /// A container's ports, once they are known: from now on its addresses come in by these alone.
  package func bind(_ app: App, _ ports: [Port]) -> String {
    app.seats.map { delete("bridge", "waiting", "\($0.address)") }.joined()
      + ports.map { add("bridge", "ports", "\"\($0.name)\"") + add("bridge", "owners", $0.owner) }.joined()
  }

  /// Takes an app out. `bridges`: those that nobody else is on.
  package func dismiss(_ app: App, bridges: [String]) -> String {
    let chain = "a_\(app.key)"
    var text = ""
    for seat in app.seats {
      text += delete("inet", "from", "\(seat.address)") + delete("inet", "addresses", "\(seat.address)")
      if app.egress?.allow == nil { text += delete("inet", "resolving", "\(seat.address)") }
      text += delete("bridge", "addresses", "\(seat.address)")
      if app.ports.isEmpty { text += delete("bridge", "waiting", "\(seat.address)") }
    }
    for port in app.ports {
      text += delete("bridge", "owners", port.owner) + delete("bridge", "ports", "\"\(port.name)\"")
    }
    for bridge in bridges {
      text += delete("inet", "same", "\"\(bridge)\" . \"\(bridge)\"") + delete("inet", "bridges", "\"\(bridge)\"")
    }
    for name in [chain, "c_\(app.key)"] {
      text += "flush chain inet \(table) \(name)\n"
    }
    return text + "delete chain inet \(table) \(chain)\ndelete chain inet \(table) c_\(app.key)\n"
  }

  /// Fails unless all of these are in force.
  package func look(_ seats: [Seat]) -> String {
    "get element inet \(table) from { \(seats.map(\.address.description).joined(separator: ", ")) }\n"
  }

  /// Prints one of the tables.
  package func list(_ family: String) -> String { "list table \(family) \(table)\n" }

  /// A listing without what is each app's own.
  package static func shared(_ listing: String) -> String {
    var isOwn = false
    var kept = ""
    for line in listing.split(separator: "\n") {
      if line.hasPrefix("\tchain a_") || line.hasPrefix("\tchain c_") { isOwn = true }
      if !isOwn { kept += line + "\n" }
      if line == "\t}" { isOwn = false }
    }
    return kept
  }

  private func rule(_ chain: String, _ text: String) -> String { "add rule inet \(table) \(chain) \(text)\n" }

  private func add(_ family: String, _ set: String, _ element: String) -> String {
    "add element \(family) \(table) \(set) { \(element) }\n"
  }

  private func delete(_ family: String, _ set: String, _ element: String) -> String {
    "delete element \(family) \(table) \(set) { \(element) }\n"
  }
}
