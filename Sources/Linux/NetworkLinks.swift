internal import Glibc
package import Model

/// A network interface as the kernel lists it.
package struct NetworkLink: Sendable, Equatable {
  package var name: String
  package var index: Int32
  /// Of the other end of a pair, as numbered in the namespace that one is in.
  package var peer: Int32?
  /// The bridge it is a port of.
  package var master: Int32?
  /// Six bytes, or as many as its kind has.
  package var hardware: [UInt8]
}

/// Links, addresses and routes of the caller's network namespace (rtnetlink(7)). Nothing here waits for anybody but the kernel.
package enum NetworkLinks {
  private static let newLink: UInt16 = 16
  private static let deleteLink: UInt16 = 17
  private static let getLink: UInt16 = 18
  private static let newAddress: UInt16 = 20
  private static let newRoute: UInt16 = 24
  private static let newQueue: UInt16 = 36
  private static let create: UInt16 = 0x400
  private static let exclusive: UInt16 = 0x200
  private static let replace: UInt16 = 0x100
  private static let dump: UInt16 = 0x300

  private static func linkHeader(index: Int32 = 0, up: Bool = false) -> [UInt8] {
    // struct ifinfomsg: family, padding, type, index, flags, which flags change (IFF_UP).
    [0, 0, 0, 0] + NetlinkRequest.bytes(index) + NetlinkRequest.bytes(UInt32(up ? 1 : 0))
      + NetlinkRequest.bytes(UInt32(up ? 1 : 0))
  }

  /// The kernel's number of an interface (if_nametoindex(3)); nil: there is none of that name.
  package static func index(_ name: String) -> Int32? {
    let index = if_nametoindex(name)
    return index == 0 ? nil : Int32(bitPattern: index)
  }

  /// Makes a bridge with an address of the host's and brings it up; one that is there keeps what it has. IPv6 is off on it.
  package static func makeBridge(_ name: String, _ gateway: IPv4, prefix: Int) throws(SystemFault) {
    let socket = try NetlinkSocket()
    if index(name) == nil {
      var request = NetlinkRequest(newLink, create | exclusive, linkHeader())
      request.text(3, name)
      request.nest(18) { $0.text(1, "bridge") }
      do throws(SystemFault) { try socket.perform(request, "make bridge", name) } catch  where error.code == EEXIST {}
    }
    try setNoIPv6(name)
    do throws(SystemFault) { try addAddress(socket, name, gateway, prefix: prefix) } catch  where error.code == EEXIST {
    }
    try socket.perform(NetlinkRequest(newLink, 0, linkHeader(index: try known(name), up: true)), "set up", name)
  }

  /// Makes a pair of interfaces: `outer` here, a port of `bridge`; `inner` in the network namespace of a process, with the hardware
  /// address `hardware`. Both ends go with that namespace.
  package static func makePair(
    outer: String, inner: String, hardware: [UInt8], in pid: Int32, bridge: String
  ) throws(SystemFault) {
    let socket = try NetlinkSocket()
    var request = NetlinkRequest(newLink, create | exclusive, linkHeader())
    request.text(3, outer)
    request.nest(18) { info in
      info.text(1, "veth")
      info.nest(2) { data in
        data.nest(1, linkHeader()) { peer in
          peer.text(3, inner)
          peer.attribute(1, hardware)
          peer.attribute(19, NetlinkRequest.bytes(pid))
        }
      }
    }
    try socket.perform(request, "make veth", outer)
    try setNoIPv6(outer)
    var member = NetlinkRequest(newLink, 0, linkHeader(index: try known(outer), up: true))
    member.attribute(10, NetlinkRequest.bytes(try known(bridge)))
    try socket.perform(member, "set master", "\(outer) \(bridge)")
  }

  /// Gives an interface its address and brings it up; `gateway`: everything else is reached through it.
  package static func configure(_ name: String, _ address: IPv4, prefix: Int, gateway: IPv4?) throws(SystemFault) {
    let socket = try NetlinkSocket()
    try addAddress(socket, name, address, prefix: prefix)
    try socket.perform(NetlinkRequest(newLink, 0, linkHeader(index: try known(name), up: true)), "set up", name)
    guard let gateway else { return }
    // struct rtmsg: IPv4, no destination; the main table, static, universe, unicast.
    var route = NetlinkRequest(
      newRoute, create | exclusive, [UInt8(AF_INET), 0, 0, 0, 254, 4, 0, 1] + NetlinkRequest.bytes(UInt32(0)))
    route.attribute(5, gateway.bytes)
    route.attribute(4, NetlinkRequest.bytes(try known(name)))
    try socket.perform(route, "add route", "\(gateway)")
  }

  private static func addAddress(
    _ socket: borrowing NetlinkSocket, _ name: String, _ address: IPv4, prefix: Int
  ) throws(SystemFault) {
    var request = NetlinkRequest(
      newAddress, create | exclusive,
      [UInt8(AF_INET), UInt8(prefix), 0, 0] + NetlinkRequest.bytes(try known(name)))
    request.attribute(2, address.bytes)
    request.attribute(1, address.bytes)
    try socket.perform(request, "add address", "\(address) \(name)")
  }

  /// What leaves `name` is held to so many bits a second, by a token bucket (tc-tbf(8)) of at most 1/50 s.
  package static func shape(_ name: String, bitsPerSecond: UInt64) throws(SystemFault) {
    let bytes = bitsPerSecond / 8
    let burst = UInt32(clamping: max(bytes / 50, 16_384))
    let socket = try NetlinkSocket()
    var request = NetlinkRequest(
      newQueue, create | replace,
      // struct tcmsg: family, padding, index, handle, parent (TC_H_ROOT), info.
      [0, 0, 0, 0] + NetlinkRequest.bytes(try known(name)) + NetlinkRequest.bytes(UInt32(0))
        + NetlinkRequest.bytes(UInt32.max) + NetlinkRequest.bytes(UInt32(0)))
    request.text(1, "tbf")
    let low = NetlinkRequest.bytes(UInt32(clamping: bytes))
    // struct tc_ratespec: cell_log, linklayer (Ethernet: no rate table), overhead, cell_align, mpu, rate; then the peak's, limit, buffer, mtu.
    let rate: [UInt8] = [0, 1, 0, 0, 0, 0, 0, 0] + low
    let none = [UInt8](repeating: 0, count: 12)
    let limit = NetlinkRequest.bytes(UInt32(clamping: UInt64(burst) + max(bytes / 10, 65_536)))
    // The buffer in ticks of 64 ns; the burst attribute overrules it.
    let ticks = UInt32(clamping: UInt64(burst) * 1_000_000_000 / max(bytes, 1) >> 6)
    request.nest(2) { options in
      options.attribute(1, rate + none + limit + NetlinkRequest.bytes(ticks) + NetlinkRequest.bytes(UInt32(0)))
      options.attribute(6, NetlinkRequest.bytes(burst))
      if bytes > UInt64(UInt32.max) { options.attribute(4, NetlinkRequest.bytes(bytes)) }
    }
    try socket.perform(request, "shape", name)
  }

  package static func remove(_ name: String) throws(SystemFault) {
    guard let index = index(name) else { return }
    let socket = try NetlinkSocket()
    try socket.perform(NetlinkRequest(deleteLink, 0, linkHeader(index: index)), "remove link", name)
  }

  /// Whether some interface belongs to a bridge; false where there is no such bridge.
  package static func hasPorts(_ bridge: String) throws(SystemFault) -> Bool {
    guard let master = index(bridge) else { return false }
    let socket = try NetlinkSocket()
    return try socket.answers(NetlinkRequest(getLink, dump, linkHeader()), "list links", "").contains { payload in
      payload.count >= 16 && NetlinkSocket.attributes(payload, after: 16)[10] == NetlinkRequest.bytes(master)
    }
  }

  /// All interfaces of the namespace.
  package static func list() throws(SystemFault) -> [NetworkLink] {
    let socket = try NetlinkSocket()
    return try socket.answers(NetlinkRequest(getLink, dump, linkHeader()), "list links", "").compactMap { payload in
      guard payload.count >= 16 else { return nil }
      let attributes = NetlinkSocket.attributes(payload, after: 16)
      guard let name = attributes[3] else { return nil }
      return NetworkLink(
        name: String(decoding: name.prefix { $0 != 0 }, as: UTF8.self),
        index: NetlinkSocket.number(payload[...], 4),
        peer: attributes[5].flatMap { $0.count == 4 ? NetlinkSocket.number($0[...], 0) : nil },
        master: attributes[10].flatMap { $0.count == 4 ? NetlinkSocket.number($0[...], 0) : nil },
        hardware: attributes[1] ?? [])
    }
  }

  /// Blocks that the main routing table leads to, the default apart.
  package static func routes() -> [IPv4Block] {
    // best effort: without it a block that is in use may be chosen, and adding its address or network then fails.
    let text = (try? File.text("/proc/net/route")) ?? ""
    return text.split(separator: "\n").dropFirst().compactMap { line in
      let fields = line.split(separator: "\t")
      guard fields.count > 7, let first = UInt32(fields[1], radix: 16), let mask = UInt32(fields[7], radix: 16),
        mask != 0
      else { return nil }
      // In network byte order, read as a number of this machine's.
      return IPv4Block(IPv4(UInt32(bigEndian: first)), prefix: mask.nonzeroBitCount)
    }
  }

  private static func known(_ name: String) throws(SystemFault) -> Int32 {
    guard let index = index(name) else { throw SystemFault(call: "if_nametoindex", subject: name, code: ENODEV) }
    return index
  }

  /// A kernel without IPv6 has nothing to turn off.
  private static func setNoIPv6(_ name: String) throws(SystemFault) {
    let path = "/proc/sys/net/ipv6/conf/\(name)/disable_ipv6"
    do throws(SystemFault) { try File.write(path, "1") } catch  where error.code == ENOENT {}
  }
}
