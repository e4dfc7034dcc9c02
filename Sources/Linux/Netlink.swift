internal import Glibc

/// One request of rtnetlink(7), built in memory: header, fixed part, attributes that may nest.
struct NetlinkRequest {
  private(set) var bytes: [UInt8] = []

  /// `fixed`: the family's own header (ifinfomsg, ifaddrmsg, rtmsg, tcmsg).
  init(_ type: UInt16, _ flags: UInt16, _ fixed: [UInt8]) {
    number(UInt32(0))
    number(type)
    number(flags | Self.request | Self.acknowledge)
    number(UInt32(1))
    number(UInt32(0))
    bytes += fixed
  }

  private static let request: UInt16 = 1
  private static let acknowledge: UInt16 = 4

  mutating func number(_ value: some FixedWidthInteger) { bytes += Self.bytes(value) }

  static func bytes(_ value: some FixedWidthInteger) -> [UInt8] { withUnsafeBytes(of: value) { Array($0) } }

  mutating func attribute(_ type: UInt16, _ payload: [UInt8]) {
    number(UInt16(4 + payload.count))
    number(type)
    bytes += payload
    pad()
  }

  mutating func text(_ type: UInt16, _ text: String) { attribute(type, Array(text.utf8) + [0]) }

  /// An attribute that holds others; `fixed` stands before them.
  mutating func nest(_ type: UInt16, _ fixed: [UInt8] = [], _ body: (inout NetlinkRequest) -> Void) {
    let start = bytes.count
    number(UInt16(0))
    number(type)
    bytes += fixed
    body(&self)
    set(UInt16(bytes.count - start), at: start)
  }

  private mutating func pad() { while bytes.count % 4 != 0 { bytes.append(0) } }

  private mutating func set(_ value: some FixedWidthInteger, at place: Int) {
    for (offset, byte) in Self.bytes(value).enumerated() { bytes[place + offset] = byte }
  }

  /// Whole, with its length.
  var finished: [UInt8] {
    var copy = self
    copy.set(UInt32(bytes.count), at: 0)
    return copy.bytes
  }
}

/// A conversation with the kernel about links, addresses, routes and queues of the caller's network namespace (rtnetlink(7)).
/// Answers come at once.
struct NetlinkSocket: ~Copyable {
  private let descriptor: Descriptor

  init() throws(SystemFault) {
    // SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE.
    descriptor = Descriptor(owning: try check("socket", "netlink") { socket(AF_NETLINK, 3 | 0o2_000_000, 0) })
  }

  /// Sends, and waits for the kernel's word; `subject` is for the message.
  borrowing func perform(_ request: NetlinkRequest, _ call: StaticString, _ subject: String) throws(SystemFault) {
    _ = try answers(request, call, subject)
  }

  /// The payloads (without their 16 bytes of header) that come before the acknowledgement.
  borrowing func answers(_ request: NetlinkRequest, _ call: StaticString, _ subject: String) throws(SystemFault)
    -> [[UInt8]]
  {
    let message = request.finished
    return try descriptor.withRaw { (raw) throws(SystemFault) in
      _ = try check("send", subject) { message.withUnsafeBytes { send(raw, $0.baseAddress, $0.count, 0) } }
      var payloads: [[UInt8]] = []
      var room = [UInt8](repeating: 0, count: 65536)
      while true {
        let got = try check("recv", subject) { room.withUnsafeMutableBytes { recv(raw, $0.baseAddress, $0.count, 0) } }
        var rest = room[..<got]
        while rest.count >= 16 {
          let length = Int(Self.number(rest, 0) as UInt32)
          guard length >= 16, length <= rest.count else {
            throw SystemFault(call: "\(call)", subject: subject, code: EBADMSG)
          }
          let type = Self.number(rest, 4) as UInt16
          let payload = Array(rest[rest.startIndex + 16..<rest.startIndex + length])
          switch type {
          case 2:
            let code = payload.count >= 4 ? Self.number(payload[...], 0) as Int32 : -EBADMSG
            guard code == 0 else { throw SystemFault(call: "\(call)", subject: subject, code: -code) }
            return payloads
          case 3: return payloads
          default: payloads.append(payload)
          }
          rest = rest.dropFirst((length + 3) & ~3)
        }
      }
    }
  }

  static func number<Value: FixedWidthInteger>(_ bytes: ArraySlice<UInt8>, _ place: Int) -> Value {
    var value: Value = 0
    for offset in (0..<MemoryLayout<Value>.size).reversed() {
      value = value << 8 | Value(truncatingIfNeeded: bytes[bytes.startIndex + place + offset])
    }
    return value
  }

  /// The attributes after `skip` bytes of a payload, by type.
  static func attributes(_ payload: [UInt8], after skip: Int) -> [UInt16: [UInt8]] {
    var found: [UInt16: [UInt8]] = [:]
    var rest = payload.dropFirst(skip)
    while rest.count >= 4 {
      let length = Int(number(rest, 0) as UInt16)
      guard length >= 4, length <= rest.count else { break }
      found[number(rest, 2) & 0x3FFF] = Array(rest[rest.startIndex + 4..<rest.startIndex + length])
      rest = rest.dropFirst((length + 3) & ~3)
    }
    return found
  }
}
