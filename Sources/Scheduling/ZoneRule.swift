/// How clocks are set from now on, as POSIX writes it in TZ: `CET-1CEST,M3.5.0,M10.5.0/3`.
struct Rule: Sendable, Equatable {
  private var standard: Int64
  /// How far ahead in summer, and when that begins and ends; nil: never.
  private var summer: Summer?

  private struct Summer: Sendable, Equatable {
    var offset: Int64
    var begins: Day
    var ends: Day
  }

  /// A day of each year, and the time on its clocks, in seconds; it may lie on a day before or after.
  private struct Day: Sendable, Equatable {
    enum Kind: Sendable, Equatable {
      case weekday(month: Int64, week: Int64, day: Int64)
      /// 1…365; 29 February is never counted.
      case withoutLeap(Int64)
      /// 0…365.
      case ofYear(Int64)
    }
    var kind: Kind
    var time: Int64

    /// Local seconds as if they were UTC.
    func local(_ year: Int64) -> Int64 {
      let start = Calendar.days(year: year, month: 1, day: 1)
      let day: Int64
      switch kind {
      case .ofYear(let number): day = start + number
      case .withoutLeap(let number): day = start + number - 1 + (Calendar.isLeap(year) && number >= 60 ? 1 : 0)
      case .weekday(let month, let week, let weekday):
        let first = Calendar.days(year: year, month: month, day: 1)
        let next = Calendar.days(year: month == 12 ? year + 1 : year, month: month == 12 ? 1 : month + 1, day: 1)
        var found = first + (weekday - Calendar.weekday(first) + 7) % 7 + (week - 1) * 7
        while found >= next { found -= 7 }
        day = found
      }
      return day * 86_400 + time
    }
  }

  init(_ text: String) throws(Zone.Problem) {
    var input = Input(rest: Array(text.utf8)[...])
    try input.skipName()
    // West is positive there.
    standard = -(try input.time())
    guard !input.rest.isEmpty else { return }
    try input.skipName()
    var offset = standard + 3600
    if let next = input.rest.first, next != UInt8(ascii: ",") { offset = -(try input.time()) }
    guard input.skip(",") else { throw Input.problem }
    let begins = try input.day()
    guard input.skip(",") else { throw Input.problem }
    summer = Summer(offset: offset, begins: begins, ends: try input.day())
    guard input.rest.isEmpty else { throw Input.problem }
  }

  func offset(at time: Int64) -> Int64 {
    guard let summer else { return standard }
    let day = (time + standard) / 86_400 - ((time + standard) % 86_400 < 0 ? 1 : 0)
    let year = Calendar.date(day).year
    let begins = summer.begins.local(year) - standard
    let ends = summer.ends.local(year) - summer.offset
    // In the south summer lasts over the turn of the year.
    let isSummer = begins < ends ? time >= begins && time < ends : time >= begins || time < ends
    return isSummer ? summer.offset : standard
  }

  private struct Input {
    static let problem = Zone.Problem(description: "its rule for the future cannot be read")
    var rest: ArraySlice<UInt8>

    mutating func skip(_ character: Character) -> Bool {
      guard rest.first == character.asciiValue else { return false }
      rest = rest.dropFirst()
      return true
    }

    mutating func skipName() throws(Zone.Problem) {
      if skip("<") {
        rest = rest.drop { $0 != UInt8(ascii: ">") }
        guard skip(">") else { throw Self.problem }
        return
      }
      let letters = rest.prefix { (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) }
      guard letters.count >= 3 else { throw Self.problem }
      rest = rest.dropFirst(letters.count)
    }

    mutating func number(_ range: ClosedRange<Int64>) throws(Zone.Problem) -> Int64 {
      let digits = rest.prefix { (0x30...0x39).contains($0) }
      guard (1...3).contains(digits.count), let value = Int64(String(decoding: digits, as: UTF8.self)),
        range.contains(value)
      else { throw Self.problem }
      rest = rest.dropFirst(digits.count)
      return value
    }

    /// `[+-]hh[:mm[:ss]]` in seconds.
    mutating func time() throws(Zone.Problem) -> Int64 {
      let isNegative = skip("-")
      if !isNegative { _ = skip("+") }
      var seconds = try number(0...167) * 3600
      if skip(":") { seconds += try number(0...59) * 60 }
      if skip(":") { seconds += try number(0...59) }
      return isNegative ? -seconds : seconds
    }

    mutating func day() throws(Zone.Problem) -> Day {
      let kind: Day.Kind
      if skip("M") {
        let month = try number(1...12)
        guard skip(".") else { throw Self.problem }
        let week = try number(1...5)
        guard skip(".") else { throw Self.problem }
        kind = .weekday(month: month, week: week, day: try number(0...6))
      } else if skip("J") {
        kind = .withoutLeap(try number(1...365))
      } else {
        kind = .ofYear(try number(0...365))
      }
      return Day(kind: kind, time: skip("/") ? try time() : 7200)
    }
  }
}
