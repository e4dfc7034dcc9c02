/// A time zone: how far its clocks are ahead of UTC at each moment, from a file of the time zone database (RFC 9636).
package struct Zone: Sendable, Equatable {
  /// A larger file is no time zone.
  package static let maximumBytes = 1 << 20

  package struct Problem: Error, Sendable, Equatable, CustomStringConvertible {
    package var description: String
    package init(description: String) { self.description = description }
  }

  package static let utc = Zone()

  /// When clocks were changed, seconds since 1970, rising; and how far ahead they are from then on, in seconds.
  private var transitions: [(at: Int64, offset: Int64)] = []
  /// Before the first transition.
  private var first: Int64 = 0
  /// After the last one.
  private var rule: Rule?

  private init() {}

  package static func == (left: Zone, right: Zone) -> Bool {
    left.first == right.first && left.rule == right.rule
      && left.transitions.elementsEqual(right.transitions, by: ==)
  }

  package init(_ bytes: [UInt8]) throws(Problem) {
    guard bytes.count <= Self.maximumBytes else { throw Problem(description: "the file is too large") }
    var input = Input(rest: bytes[...])
    var header = try Header(&input)
    var width = 4
    if header.version >= UInt8(ascii: "2") {
      // The first block is for readers of 32 bits.
      _ = try input.take(header.length(width: 4))
      header = try Header(&input)
      width = 8
    }
    try readBlock(&input, header, width)
    if width == 8, let text = input.line(), !text.isEmpty { rule = try Rule(text) }
  }

  private mutating func readBlock(_ input: inout Input, _ header: Header, _ width: Int) throws(Problem) {
    var times: [Int64] = []
    for _ in 0..<header.times { times.append(try input.number(width)) }
    var kinds: [Int] = []
    for _ in 0..<header.times { kinds.append(Int(try input.number(1) & 0xFF)) }
    var offsets: [Int64] = []
    for _ in 0..<header.types {
      let offset = try input.number(4)
      _ = try input.take(2)
      guard abs(offset) < 100 * 3600 else { throw Problem(description: "an offset is out of range") }
      offsets.append(offset)
    }
    _ = try input.take(header.characters + header.leaps * (width + 4) + header.standards + header.universals)
    guard let start = offsets.first, kinds.allSatisfy({ $0 < offsets.count }),
      zip(times, times.dropFirst()).allSatisfy({ $0 < $1 })
    else { throw Problem(description: "its parts do not add up") }
    first = start
    transitions = zip(times, kinds).map { ($0, offsets[$1]) }
  }

  /// Seconds that clocks are ahead of UTC at a moment.
  package func offset(at time: Int64) -> Int64 {
    if let last = transitions.last, time >= last.at, let rule { return rule.offset(at: time) }
    if transitions.isEmpty { return rule?.offset(at: time) ?? first }
    // The last transition that is not later.
    var low = 0
    var high = transitions.count
    while low < high {
      let middle = (low + high) / 2
      if transitions[middle].at <= time { low = middle + 1 } else { high = middle }
    }
    return low == 0 ? first : transitions[low - 1].offset
  }

  /// The moments at which clocks show `local` (seconds, as if it were UTC): none in a gap, two where an hour comes twice, earlier first.
  func moments(of local: Int64) -> [Int64] {
    let candidates = Set([offset(at: local - 86_400), offset(at: local), offset(at: local + 86_400)])
    return candidates.map { local - $0 }.filter { offset(at: $0) == local - $0 }.sorted()
  }

  /// The first moment at which clocks show more than `local`, which lies in a gap.
  func afterGap(_ local: Int64) -> Int64 {
    var low = local - 86_400 * 2
    var high = local + 86_400 * 2
    while high - low > 1 {
      let middle = low + (high - low) / 2
      if middle + offset(at: middle) > local { high = middle } else { low = middle }
    }
    return high
  }

  // MARK: Bytes

  private struct Input {
    var rest: ArraySlice<UInt8>

    mutating func take(_ count: Int) throws(Problem) -> ArraySlice<UInt8> {
      guard count >= 0, rest.count >= count else { throw Problem(description: "the file is cut short") }
      defer { rest = rest.dropFirst(count) }
      return rest.prefix(count)
    }

    /// A signed number of so many bytes, the highest first.
    mutating func number(_ width: Int) throws(Problem) -> Int64 {
      let bytes = try take(width)
      var value: Int64 = width < 8 && bytes.first.map { $0 & 0x80 != 0 } == true ? -1 : 0
      for byte in bytes { value = value << 8 | Int64(byte) }
      return value
    }

    /// What stands between two line ends; nil if nothing is left.
    mutating func line() -> String? {
      guard rest.first == 0x0A else { return nil }
      return String(decoding: rest.dropFirst().prefix { $0 != 0x0A }.prefix(200), as: UTF8.self)
    }
  }

  private struct Header {
    var version: UInt8
    var universals: Int
    var standards: Int
    var leaps: Int
    var times: Int
    var types: Int
    var characters: Int

    init(_ input: inout Input) throws(Problem) {
      guard try input.take(4).elementsEqual("TZif".utf8) else {
        throw Problem(description: "it is no file of the time zone database")
      }
      version = try input.take(1).first ?? 0
      _ = try input.take(15)
      var counts: [Int] = []
      for _ in 0..<6 {
        let count = Int(try input.number(4))
        guard (0...100_000).contains(count) else { throw Problem(description: "a count is out of range") }
        counts.append(count)
      }
      (universals, standards, leaps) = (counts[0], counts[1], counts[2])
      (times, types, characters) = (counts[3], counts[4], counts[5])
    }

    func length(width: Int) -> Int {
      times * (width + 1) + types * 6 + characters + leaps * (width + 4) + standards + universals
    }
  }
}

/// Days of the proleptic Gregorian calendar.
enum Calendar {
  /// Days since 1970-01-01.
  static func days(year: Int64, month: Int64, day: Int64) -> Int64 {
    // Years that begin in March, so that the leap day comes last.
    let shifted = month > 2 ? year : year - 1
    let era = (shifted >= 0 ? shifted : shifted - 399) / 400
    let ofEra = shifted - era * 400
    let ofYear = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1
    return era * 146_097 + ofEra * 365 + ofEra / 4 - ofEra / 100 + ofYear - 719_468
  }

  static func date(_ days: Int64) -> (year: Int64, month: Int64, day: Int64) {
    let shifted = days + 719_468
    let era = (shifted >= 0 ? shifted : shifted - 146_096) / 146_097
    let ofEra = shifted - era * 146_097
    let year = (ofEra - ofEra / 1460 + ofEra / 36_524 - ofEra / 146_096) / 365
    let ofYear = ofEra - (365 * year + year / 4 - year / 100)
    let fifth = (5 * ofYear + 2) / 153
    let month = fifth < 10 ? fifth + 3 : fifth - 9
    return (year + era * 400 + (month <= 2 ? 1 : 0), month, ofYear - (153 * fifth + 2) / 5 + 1)
  }

  /// Sunday is 0.
  static func weekday(_ days: Int64) -> Int64 { ((days + 4) % 7 + 7) % 7 }

  static func isLeap(_ year: Int64) -> Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }
}
