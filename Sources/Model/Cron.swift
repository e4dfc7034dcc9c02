/// Five fields of crontab(5), parsed: minute, hour, day of month, month, day of week.
///
/// A day is meant if its month fits and, where both day fields are given, either of them; where one is `*`, the other alone.
package struct Cron: Sendable, Equatable, CustomStringConvertible {
  /// Bit n: the value n is meant.
  package private(set) var minutes: UInt64 = 0
  package private(set) var hours: UInt64 = 0
  package private(set) var days: UInt64 = 0
  package private(set) var months: UInt64 = 0
  /// Sunday is 0.
  package private(set) var weekdays: UInt64 = 0
  /// As it was written, with single blanks.
  package let description: String
  private var anyDay = false
  private var anyWeekday = false
  /// The hour or the minute begins with `*`: it is about intervals, not about a time of day.
  package private(set) var isInterval = false

  /// What is wrong with a text, in words.
  package struct Nonsense: Error, Sendable, Equatable, CustomStringConvertible { package var description: String }

  private static let months = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]
  private static let weekdays = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"]
  private static let nicknames = [
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
  ]

  package init(parsing text: String) throws(Nonsense) {
    guard text.utf8.count <= 256 else { throw Nonsense(description: "the schedule is over 256 characters") }
    let words = text.split { $0 == " " || $0 == "\t" }.map { String($0) }
    description = words.joined(separator: " ")
    var fields = words
    if let first = words.first, first.hasPrefix("@") {
      guard words.count == 1, let meant = Self.nicknames[first.lowercased()] else {
        throw Nonsense(
          description: first.lowercased() == "@reboot"
            ? "@reboot is no time: `restart: always` starts an app at boot"
            : "'\(first)' is none of \(Self.nicknames.keys.sorted().joined(separator: ", "))")
      }
      fields = meant.split(separator: " ").map { String($0) }
    }
    guard fields.count == 5 else {
      throw Nonsense(
        description: "a schedule has 5 fields (minute, hour, day of month, month, day of week), not \(fields.count)")
    }
    minutes = try Self.field(fields[0], "minute", 0...59)
    hours = try Self.field(fields[1], "hour", 0...23)
    days = try Self.field(fields[2], "day of month", 1...31)
    months = try Self.field(fields[3], "month", 1...12, names: Self.months, from: 1)
    weekdays = try Self.field(fields[4], "day of week", 0...7, names: Self.weekdays, from: 0)
    // 7 is Sunday too.
    if weekdays & 1 << 7 != 0 { weekdays = weekdays & 0x7F | 1 }
    anyDay = fields[2].hasPrefix("*")
    anyWeekday = fields[4].hasPrefix("*")
    isInterval = fields[0].hasPrefix("*") || fields[1].hasPrefix("*")
    guard anyWeekday, !hasDay else { return }
    throw Nonsense(description: "no month that is meant has a day \(fields[2])")
  }

  /// Whether some month that is meant is long enough for some day that is meant.
  private var hasDay: Bool {
    (1...12).contains { month in
      months & 1 << UInt64(month) != 0 && days & ((UInt64(2) << Self.longest(month)) - 2) != 0
    }
  }

  private static func longest(_ month: Int) -> UInt64 {
    switch month {
    case 2: 29
    case 4, 6, 9, 11: 30
    default: 31
    }
  }

  /// Whether runs may be due on a day. `weekday` counts from Sunday, 0.
  package func means(month: Int, day: Int, weekday: Int) -> Bool {
    guard months & 1 << UInt64(month) != 0 else { return false }
    let byDay = days & 1 << UInt64(day) != 0
    let byWeekday = weekdays & 1 << UInt64(weekday) != 0
    return anyDay || anyWeekday ? byDay && byWeekday : byDay || byWeekday
  }

  package func means(hour: Int, minute: Int) -> Bool {
    hours & 1 << UInt64(hour) != 0 && minutes & 1 << UInt64(minute) != 0
  }

  /// `*`, `5`, `1-5`, `*/10`, `1-30/2`, lists of them; names where there are any.
  private static func field(
    _ text: String, _ what: String, _ range: ClosedRange<Int>, names: [String] = [], from first: Int = 0
  ) throws(Nonsense) -> UInt64 {
    func number(_ text: Substring) throws(Nonsense) -> Int {
      if let place = names.firstIndex(of: text.lowercased()) { return place + first }
      guard (1...4).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
        let value = Int(text), range.contains(value)
      else {
        throw Nonsense(
          description: "'\(text.prefix(20))' is no \(what): it is \(range.lowerBound) to \(range.upperBound)"
            + (names.isEmpty ? "" : " or \(names[0]) to \(names[names.count - 1])"))
      }
      return value
    }
    var bits: UInt64 = 0
    for part in text.split(separator: ",", omittingEmptySubsequences: false) {
      let pieces = part.split(separator: "/", omittingEmptySubsequences: false)
      guard pieces.count <= 2, let span = pieces.first else {
        throw Nonsense(description: "'\(part.prefix(20))' is no \(what)")
      }
      var step = 1
      if pieces.count == 2 {
        guard let value = Int(pieces[1]), (1...range.upperBound).contains(value), !pieces[1].hasPrefix("+") else {
          throw Nonsense(description: "a step in \(what) is 1 to \(range.upperBound), not '\(pieces[1].prefix(20))'")
        }
        step = value
      }
      var lower = range.lowerBound
      var upper = range.upperBound
      if span != "*" {
        let ends = span.split(separator: "-", omittingEmptySubsequences: false)
        guard ends.count <= 2 else { throw Nonsense(description: "'\(span.prefix(20))' is no range of \(what)") }
        lower = try number(ends[0])
        upper = ends.count == 2 ? try number(ends[1]) : pieces.count == 2 ? range.upperBound : lower
        guard lower <= upper else {
          throw Nonsense(description: "'\(span.prefix(20))' in \(what) ends before it begins")
        }
      } else if names.isEmpty == false, range.upperBound == 7 {
        upper = 6
      }
      for value in stride(from: lower, through: upper, by: step) { bits |= 1 << UInt64(value) }
    }
    return bits
  }
}
