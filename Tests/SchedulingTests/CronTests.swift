import Foundation
import Model
import Testing

@testable import Scheduling

private func zone(_ name: String) throws -> Zone {
  guard name != "UTC" else { return .utc }
  return try Zone(Array(Data(contentsOf: URL(fileURLWithPath: "/usr/share/zoneinfo/\(name)"))))
}

private let hasZones = FileManager.default.fileExists(atPath: "/usr/share/zoneinfo/Europe/Berlin")

/// `2026-03-29 01:30` of UTC as a moment.
private func utc(_ text: String) throws -> WallTime {
  let parts = text.split { !$0.isNumber }.compactMap { Int64($0) }
  try #require(parts.count == 5)
  let days = Calendar.days(year: parts[0], month: parts[1], day: parts[2])
  return WallTime(nanoseconds: (days * 86_400 + parts[3] * 3600 + parts[4] * 60) * 1_000_000_000)
}

private func text(_ time: WallTime?) -> String {
  guard let seconds = time.map({ $0.nanoseconds / 1_000_000_000 }) else { return "never" }
  let date = Calendar.date(seconds / 86_400)
  func two(_ value: Int64) -> String { value < 10 ? "0\(value)" : "\(value)" }
  return "\(date.year)-\(two(date.month))-\(two(date.day)) \(two(seconds % 86_400 / 3600)):\(two(seconds % 3600 / 60))"
}

@Suite("Schedules") struct CronTests {
  @Test(
    "the next run, in UTC",
    arguments: [
      ("0 3 * * *", "2026-01-01 02:59", "2026-01-01 03:00"), ("0 3 * * *", "2026-01-01 03:00", "2026-01-02 03:00"),
      ("*/15 * * * *", "2026-01-01 10:07", "2026-01-01 10:15"),
      ("5,35 8-9 * * *", "2026-01-01 09:40", "2026-01-02 08:05"),
      ("0 0 29 2 *", "2026-01-01 00:00", "2028-02-29 00:00"), ("0 0 31 * *", "2026-02-01 00:00", "2026-03-31 00:00"),
      ("0 0 * * sun", "2026-01-01 00:00", "2026-01-04 00:00"), ("0 0 * * 7", "2026-01-01 00:00", "2026-01-04 00:00"),
      ("0 12 13 * fri", "2026-01-01 00:00", "2026-01-02 12:00"),
      ("0 0 1 jan *", "2026-01-01 00:00", "2027-01-01 00:00"),
      ("0 0 */2 * mon", "2026-01-01 00:00", "2026-01-05 00:00"), ("@hourly", "2026-12-31 23:30", "2027-01-01 00:00"),
      ("0 0 29 2 mon", "2026-01-01 00:00", "2026-02-02 00:00"),
      ("59 23 31 12 *", "2026-12-31 23:59", "2027-12-31 23:59"),
      ("10-20/5 0 * * *", "2026-01-01 00:11", "2026-01-01 00:15"),
    ])
  func next(_ cron: String, _ now: String, _ expected: String) throws {
    #expect(text(try Cron(parsing: cron).next(after: utc(now), in: .utc)) == expected)
  }

  @Test(
    "what is no schedule is refused with the field that is wrong",
    arguments: [
      ("", "5 fields"), ("* * * *", "5 fields"), ("* * * * * *", "5 fields"), ("60 * * * *", "minute"),
      ("-1 * * * *", "minute"), ("* 24 * * *", "hour"), ("* * 0 * *", "day of month"), ("* * 32 * *", "day of month"),
      ("* * * 13 *", "month"), ("* * * * 8", "day of week"), ("* * * * funday", "day of week"),
      ("5-1 * * * *", "ends before"),
      ("*/0 * * * *", "step"), ("*/-5 * * * *", "step"), ("1,,2 * * * *", "minute"), ("1-2-3 * * * *", "range"),
      ("1/2/3 * * * *", "minute"), ("0 0 30 2 *", "no month"), ("0 0 31 4,6 *", "no month"), ("@often", "@daily"),
      ("@reboot", "restart"), ("@daily now", "@daily"), ("١ * * * *", "minute"), ("1e1 * * * *", "minute"),
      ("99999999999999999999 * * * *", "minute"),
    ])
  func nonsense(_ cron: String, _ named: String) {
    do throws(Cron.Nonsense) {
      _ = try Cron(parsing: cron)
      Issue.record("'\(cron)' was taken")
    } catch { #expect(error.description.contains(named), "\(error)") }
  }

  // Berlin: 29 March 2026 02:00 → 03:00; 25 October 2026 03:00 → 02:00.
  @Test(
    "where clocks are set forward a time of day comes right after the gap, once; an interval goes on",
    .enabled(if: hasZones, "no time zone database on this host"),
    arguments: [
      ("30 2 * * *", "2026-03-28 01:31", "2026-03-29 01:00"), ("30 2 * * *", "2026-03-29 01:00", "2026-03-30 00:30"),
      ("30 3 * * *", "2026-03-28 12:00", "2026-03-29 01:30"), ("*/30 * * * *", "2026-03-29 00:30", "2026-03-29 01:00"),
      ("15 * * * *", "2026-03-29 00:15", "2026-03-29 01:15"),
    ])
  func forward(_ cron: String, _ now: String, _ expected: String) throws {
    #expect(text(try Cron(parsing: cron).next(after: utc(now), in: zone("Europe/Berlin"))) == expected)
  }

  @Test(
    "where clocks are set back a time of day comes once, the first time; an interval goes on",
    .enabled(if: hasZones, "no time zone database on this host"),
    arguments: [
      ("30 2 * * *", "2026-10-24 12:00", "2026-10-25 00:30"), ("30 2 * * *", "2026-10-25 00:30", "2026-10-26 01:30"),
      ("30 * * * *", "2026-10-25 00:30", "2026-10-25 01:30"), ("*/30 * * * *", "2026-10-25 01:00", "2026-10-25 01:30"),
      ("0 3 * * *", "2026-10-24 12:00", "2026-10-25 02:00"),
    ])
  func back(_ cron: String, _ now: String, _ expected: String) throws {
    #expect(text(try Cron(parsing: cron).next(after: utc(now), in: zone("Europe/Berlin"))) == expected)
  }

  @Test("far in the future, in the south, and where the change is half an hour or a whole day", .enabled(if: hasZones))
  func zones() throws {
    for (name, cron, now, expected) in [
      ("Europe/Berlin", "30 2 * * *", "2090-03-25 12:00", "2090-03-26 01:00"),
      ("America/New_York", "30 2 * * *", "2060-03-13 12:00", "2060-03-14 07:00"),
      ("Australia/Sydney", "0 12 * * *", "2050-01-01 00:00", "2050-01-01 01:00"),
      ("Australia/Sydney", "0 12 * * *", "2050-07-01 00:00", "2050-07-01 02:00"),
      ("Australia/Lord_Howe", "15 2 * * *", "2026-10-03 12:00", "2026-10-03 15:30"),
      ("Asia/Kathmandu", "0 6 * * *", "2026-01-01 00:00", "2026-01-01 00:15"),
      ("Pacific/Apia", "0 12 30 12 *", "2011-12-29 00:00", "2011-12-30 10:00"),
    ] { #expect(text(try Cron(parsing: cron).next(after: utc(now), in: zone(name))) == expected, "\(name) \(cron)") }
  }

  @Test("the clocks of a zone are the C library's", .enabled(if: hasZones))
  func offsets() throws {
    for name in ["Europe/Berlin", "America/St_Johns", "Africa/Casablanca", "America/Sao_Paulo", "Europe/Dublin"] {
      let mine = try zone(name)
      let other = try #require(TimeZone(identifier: name))
      for step in Int64(0)..<1500 {
        let time = step * 86_400 * 13 + 7200
        #expect(
          mine.offset(at: time) == Int64(other.secondsFromGMT(for: Date(timeIntervalSince1970: Double(time)))),
          "\(name) at \(time)")
      }
    }
  }

  @Test("a file that is no time zone, or cut anywhere, is refused", .enabled(if: hasZones))
  func hostileFiles() throws {
    let bytes = Array(try Data(contentsOf: URL(fileURLWithPath: "/usr/share/zoneinfo/Europe/Berlin")))
    for length in stride(from: 0, to: bytes.count - 40, by: 7) {
      #expect(throws: Zone.Problem.self) { try Zone(Array(bytes[..<length])) }
    }
    var wild = bytes
    for place in 20..<44 { wild[place] = 0xFF }
    #expect(throws: Zone.Problem.self) { try Zone(wild) }
    for rule in [
      "CET-1CEST", "CET-1CEST,M3.5.0", "C-1", "CET", "CET-1CEST,M13.5.0,M10.5.0", "CET-1CEST,M3.5.0,M10.5.0x",
    ] {
      #expect(throws: Zone.Problem.self, "\(rule)") { try Rule(rule) }
    }
  }
}
