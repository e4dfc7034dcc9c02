/// A number of bytes, read and written as people do: `256m` is 256 × 1024².
package struct Bytes: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// The count itself.
  package var count: UInt64

  package init(_ count: UInt64) { self.count = count }

  package static func mebibytes(_ count: UInt64) -> Bytes { Bytes(count << 20) }

  /// Reads `64m`, `1.5g`, `512kb`, `4096`; units `b k kb m mb g gb t tb` of any case, 1024-based. Nil for anything else, and
  /// for what does not fit 63 bits (the kernel's and the Engine's own bound).
  package init?(parsing text: String) {
    let digits = text.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
    let unit = text[digits.endIndex...].lowercased()
    let shift: UInt64
    switch unit {
    case "", "b": shift = 0
    case "k", "kb": shift = 10
    case "m", "mb": shift = 20
    case "g", "gb": shift = 30
    case "t", "tb": shift = 40
    default: return nil
    }
    if let whole = UInt64(digits) {
      let (product, overflow) = whole.multipliedReportingOverflow(by: 1 << shift)
      guard !overflow, product <= UInt64(Int64.max) else { return nil }
      count = product
      return
    }
    guard let first = digits.first, first != ".", digits.last != ".", let value = Double(digits) else { return nil }
    let product = (value * Double(UInt64(1) << shift)).rounded()
    guard product < 9.2e18 else { return nil }
    count = UInt64(product)
  }

  /// The shortest exact form: `256m`, `1536k`, `1000`.
  package var description: String {
    for (unit, shift) in [("g", UInt64(30)), ("m", 20), ("k", 10)] where count > 0 && count & ((1 << shift) - 1) == 0 {
      return "\(count >> shift)\(unit)"
    }
    return String(count)
  }

  /// For people: `1.4 GiB`, three significant figures.
  package var readable: String {
    var value = Double(count)
    var unit = 0
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while value >= 1000, unit < units.count - 1 {
      value /= 1024
      unit += 1
    }
    let digits = unit == 0 || value >= 100 ? 0 : (value >= 10 ? 1 : 2)
    return "\(Self.fixed(value, digits)) \(units[unit])"
  }

  /// `value` with exactly `digits` decimals, without Foundation.
  package static func fixed(_ value: Double, _ digits: Int) -> String {
    var scale = 1.0
    for _ in 0..<digits { scale *= 10 }
    let scaled = (value.magnitude * scale).rounded()
    guard scaled < 9e18 else { return String(value) }
    let whole = UInt64(scaled)
    let sign = value < 0 && whole > 0 ? "-" : ""
    let step = UInt64(scale)
    guard digits > 0 else { return "\(sign)\(whole)" }
    let fraction = String(whole % step)
    return "\(sign)\(whole / step).\(String(repeating: "0", count: digits - fraction.count))\(fraction)"
  }

  package static func < (left: Bytes, right: Bytes) -> Bool { left.count < right.count }
}

extension Duration {
  /// Reads `1h5m30s20ms`; units `d h m s ms us ns`, each a decimal number, largest first not required. A bare number is an error
  /// (seconds or milliseconds? the writer says), except `0`.
  package init?(parsing text: String) {
    if text == "0" {
      self = .zero
      return
    }
    var rest = text[...]
    var total = Duration.zero
    guard !rest.isEmpty else { return nil }
    while !rest.isEmpty {
      let digits = rest.prefix { $0.isASCII && ($0.isNumber || $0 == ".") }
      rest = rest[digits.endIndex...]
      let unit = rest.prefix { $0.isASCII && $0.isLetter }
      rest = rest[unit.endIndex...]
      guard let value = Double(digits), value >= 0, digits.first != "." else { return nil }
      let seconds: Double
      switch unit {
      case "d": seconds = 86400
      case "h": seconds = 3600
      case "m": seconds = 60
      case "s": seconds = 1
      case "ms": seconds = 1e-3
      case "us", "µs": seconds = 1e-6
      case "ns": seconds = 1e-9
      default: return nil
      }
      guard value * seconds < 1e11 else { return nil }
      total += .nanoseconds(Int64((value * seconds * 1e9).rounded()))
    }
    self = total
  }

  /// The shortest exact form this type's parser reads: `1h5m`, `20ms`, `0s`.
  package var compact: String {
    var nanoseconds = wholeNanoseconds
    guard nanoseconds > 0 else { return "0s" }
    var text = ""
    for (unit, size) in [
      ("h", Int64(3_600_000_000_000)), ("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1000),
      ("ns", 1),
    ]
    where nanoseconds >= size {
      text += "\(nanoseconds / size)\(unit)"
      nanoseconds %= size
    }
    return text
  }

  /// This duration in nanoseconds, clamped to what 63 bits hold.
  package var wholeNanoseconds: Int64 {
    let (seconds, attoseconds) = components
    let (scaled, overflow) = seconds.multipliedReportingOverflow(by: 1_000_000_000)
    guard !overflow else { return seconds < 0 ? .min : .max }
    return scaled &+ attoseconds / 1_000_000_000
  }

  /// This duration in seconds.
  package var seconds: Double { Double(wholeNanoseconds) / 1e9 }

  /// For people, as docker says it: `3 seconds`, `About an hour`'s plain form `61 minutes`, `4 days`.
  package var readable: String {
    let seconds = Int64(self.seconds)
    func say(_ count: Int64, _ unit: String) -> String { "\(count) \(unit)\(count == 1 ? "" : "s")" }
    switch seconds {
    case ..<1: return "less than a second"
    case ..<120: return say(seconds, "second")
    case ..<7200: return say(seconds / 60, "minute")
    case ..<172_800: return say(seconds / 3600, "hour")
    default: return say(seconds / 86400, "day")
    }
  }
}

/// A moment on the wall clock: nanoseconds since 1970-01-01 UTC.
package struct WallTime: Hashable, Comparable, Sendable {
  package var nanoseconds: Int64
  package init(nanoseconds: Int64) { self.nanoseconds = nanoseconds }
  package static func < (left: WallTime, right: WallTime) -> Bool { left.nanoseconds < right.nanoseconds }
  /// The time from `earlier` to this moment.
  package func since(_ earlier: WallTime) -> Duration { .nanoseconds(nanoseconds &- earlier.nanoseconds) }
}
