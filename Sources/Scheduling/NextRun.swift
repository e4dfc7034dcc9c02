package import Model

extension Cron {
  /// 29 February on a given weekday comes every 28 years, 40 over a century without a leap day.
  private static let horizon: Int64 = 366 * 41

  /// The first moment after `time` that is meant, on clocks of `zone`; nil: none.
  ///
  /// Where clocks are set forward, a time of day that is left out is due at once after the gap; where they are set back, one that comes
  /// twice is due the first time only. What is about intervals (`*/15`) follows the clocks as they run.
  package func next(after time: WallTime, in zone: Zone) -> WallTime? {
    let now = time.nanoseconds >= 0 ? time.nanoseconds / 1_000_000_000 : 0
    let local = now + zone.offset(at: now)
    let today = local / 86_400
    for day in (today - 1)...(today + Self.horizon) {
      let date = Calendar.date(day)
      guard means(month: Int(date.month), day: Int(date.day), weekday: Int(Calendar.weekday(day))) else { continue }
      if let found = first(on: day, after: now, zone) { return WallTime(nanoseconds: found * 1_000_000_000) }
    }
    return nil
  }

  private func first(on day: Int64, after now: Int64, _ zone: Zone) -> Int64? {
    var found: Int64?
    for hour in 0..<24 where hours & 1 << UInt64(hour) != 0 {
      for minute in 0..<60 where minutes & 1 << UInt64(minute) != 0 {
        let local = day * 86_400 + Int64(hour) * 3600 + Int64(minute) * 60
        var moments = zone.moments(of: local)
        if !isInterval {
          moments = moments.isEmpty ? [zone.afterGap(local)] : [moments[0]]
        }
        for moment in moments where moment > now && moment < found ?? .max { found = moment }
        // Clocks are never set back by more than a day's fraction: nothing later on this day can be earlier by more.
        if let found, local - zone.offset(at: found) > found + 4 * 3600 { return found }
      }
    }
    return found
  }
}
