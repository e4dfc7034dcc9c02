internal import CoreMetrics
internal import Synchronization

/// Keeps every series that swift-metrics is told of and writes them as Prometheus text (exposition format 0.0.4).
///
/// What ends in `_total` is a counter, what a timer records a summary in seconds, all else a gauge. No more than `mostSeries` are
/// kept: what comes after that is dropped, and counted in `appsupervisor_metrics_dropped_total`.
package final class PrometheusRegistry: Sendable {
  package static let mostSeries = 50_000

  /// One name with its labels.
  private struct Key: Hashable {
    var name: String
    /// Rendered: `app="web",state="running"`.
    var labels: String
  }

  // Guards: the series, and how many were dropped.
  private let state = Mutex<(series: [Key: Series], help: [String: String], dropped: Int)>(([:], [:], 0))

  package init() {}

  /// Takes all metrics of this process from here on. Once a process, before any metric is made.
  package func bootstrap() { MetricsSystem.bootstrap(Factory(registry: self)) }

  /// What a name is, for its `# HELP` line.
  package func describe(_ name: String, _ help: String) { state.withLock { $0.help[name] = help } }

  /// Sets a value; the series is made if it is not there.
  package func set(_ name: String, _ labels: [(String, String)] = [], _ value: Double) {
    series(name, labels)?.put(value)
  }

  /// Adds to a value; the series is made if it is not there.
  package func add(_ name: String, _ labels: [(String, String)] = [], _ value: Double = 1) {
    series(name, labels)?.add(value)
  }

  /// Forgets every series of these names.
  package func forget(_ names: Set<String>) {
    state.withLock { state in state.series = state.series.filter { !names.contains($0.key.name) } }
  }

  package var count: Int { state.withLock { $0.series.count } }

  func series(_ name: String, _ labels: [(String, String)], isTimer: Bool = false) -> Series? {
    let key = Key(name: Self.name(name), labels: Self.rendered(labels))
    return state.withLock { state in
      if let known = state.series[key] { return known }
      guard state.series.count < Self.mostSeries else {
        state.dropped += 1
        return nil
      }
      let made = Series(isTimer: isTimer)
      state.series[key] = made
      return made
    }
  }

  func forget(_ handler: AnyObject) {
    state.withLock { state in
      if let key = state.series.first(where: { $0.value === handler })?.key { state.series[key] = nil }
    }
  }

  /// All of it, sorted.
  package var text: String {
    let (all, help, dropped) = state.withLock { ($0.series, $0.help, $0.dropped) }
    var groups: [String: [(labels: String, series: Series)]] = [:]
    for (key, series) in all { groups[key.name, default: []].append((key.labels, series)) }
    var text = ""
    for (name, members) in groups.sorted(by: { $0.key < $1.key }) {
      if let help = help[name] { text += "# HELP \(name) \(help)\n" }
      let isTimer = members.first?.series.isTimer == true
      text += "# TYPE \(name) \(isTimer ? "summary" : name.hasSuffix("_total") ? "counter" : "gauge")\n"
      for (labels, series) in members.sorted(by: { $0.labels < $1.labels }) {
        let (value, count) = series.value
        if isTimer {
          text += Self.line("\(name)_sum", labels, value) + Self.line("\(name)_count", labels, Double(count))
        } else {
          text += Self.line(name, labels, value)
        }
      }
    }
    if dropped > 0 {
      text += "# TYPE appsupervisor_metrics_dropped_total counter\n"
      text += Self.line("appsupervisor_metrics_dropped_total", "", Double(dropped))
    }
    return text
  }

  private static func line(_ name: String, _ labels: String, _ value: Double) -> String {
    "\(name)\(labels.isEmpty ? "" : "{\(labels)}") \(number(value))\n"
  }

  private static func number(_ value: Double) -> String {
    if value.isNaN { return "NaN" }
    if value.isInfinite { return value > 0 ? "+Inf" : "-Inf" }
    return Int64(exactly: value).map { "\($0)" } ?? "\(value)"
  }

  /// Letters, digits, `_` and `:`, as the format has it.
  private static func name(_ name: String) -> String {
    let letters = name.utf8.map { byte -> UInt8 in
      switch byte {
      case 0x30...0x39, 0x41...0x5A, 0x61...0x7A, 0x5F, 0x3A: byte
      default: 0x5F
      }
    }
    let text = String(decoding: letters, as: UTF8.self)
    return text.first?.isNumber == true ? "_\(text)" : text
  }

  private static func rendered(_ labels: [(String, String)]) -> String {
    labels.map { label, value in
      var safe = ""
      for character in value.unicodeScalars.prefix(200) {
        switch character {
        case "\\": safe += "\\\\"
        case "\"": safe += "\\\""
        case "\n": safe += "\\n"
        default: safe.unicodeScalars.append(character)
        }
      }
      return "\(name(label))=\"\(safe)\""
    }.joined(separator: ",")
  }
}

/// One series' value.
final class Series: Sendable {
  let isTimer: Bool
  // Guards: the value, and how often a timer recorded.
  private let state = Mutex<(value: Double, count: Int64)>((0, 0))

  init(isTimer: Bool) { self.isTimer = isTimer }

  var value: (value: Double, count: Int64) { state.withLock { $0 } }
  func put(_ value: Double) { state.withLock { $0.value = value } }
  func add(_ value: Double) {
    state.withLock {
      $0.value += value
      $0.count += 1
    }
  }
}

extension Series: CounterHandler, FloatingPointCounterHandler, MeterHandler, RecorderHandler, TimerHandler {
  func increment(by amount: Int64) { add(Double(amount)) }
  func increment(by amount: Double) { add(amount) }
  func decrement(by amount: Double) { add(-amount) }
  func reset() { put(0) }
  func set(_ value: Int64) { put(Double(value)) }
  func set(_ value: Double) { put(value) }
  func record(_ value: Int64) { put(Double(value)) }
  func record(_ value: Double) { put(value) }
  func recordNanoseconds(_ duration: Int64) { add(Double(duration) / 1e9) }
}

private struct Factory: MetricsFactory {
  let registry: PrometheusRegistry

  /// One that was dropped records into nothing.
  private func series(_ label: String, _ dimensions: [(String, String)], isTimer: Bool = false) -> Series {
    registry.series(label, dimensions, isTimer: isTimer) ?? Series(isTimer: isTimer)
  }

  func makeCounter(label: String, dimensions: [(String, String)]) -> any CounterHandler { series(label, dimensions) }
  func makeFloatingPointCounter(label: String, dimensions: [(String, String)]) -> any FloatingPointCounterHandler {
    series(label, dimensions)
  }
  func makeMeter(label: String, dimensions: [(String, String)]) -> any MeterHandler { series(label, dimensions) }
  func makeRecorder(label: String, dimensions: [(String, String)], aggregate: Bool) -> any RecorderHandler {
    series(label, dimensions)
  }
  func makeTimer(label: String, dimensions: [(String, String)]) -> any TimerHandler {
    series(label, dimensions, isTimer: true)
  }
  func destroyCounter(_ handler: any CounterHandler) { registry.forget(handler) }
  func destroyFloatingPointCounter(_ handler: any FloatingPointCounterHandler) { registry.forget(handler) }
  func destroyMeter(_ handler: any MeterHandler) { registry.forget(handler) }
  func destroyRecorder(_ handler: any RecorderHandler) { registry.forget(handler) }
  func destroyTimer(_ handler: any TimerHandler) { registry.forget(handler) }
}

/// Counts of the daemon itself, made through swift-metrics.
package enum Counted {
  /// A call of the control socket. `method` is one of the table's, so there are few.
  package static func call(_ method: String, denied: Bool) {
    Counter(
      label: "appsupervisor_control_calls_total",
      dimensions: [("method", method), ("decision", denied ? "denied" : "allowed")]
    ).increment()
  }

  /// An event of any app, by its name.
  package static func event(_ name: String) {
    Counter(label: "appsupervisor_events_total", dimensions: [("event", name)]).increment()
  }

  /// How long it took to collect and write the page.
  package static func scrape(_ nanoseconds: Int64) {
    Timer(label: "appsupervisor_scrape_seconds").recordNanoseconds(nanoseconds)
  }
}
