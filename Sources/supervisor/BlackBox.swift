internal import Client
internal import Linux
internal import Model

/// How one run of an app ended, in words.
enum BlackBox {
  static func explain(_ app: String, _ run: Int64, _ common: Common) throws {
    let client = try Session(common).connect()
    let exit = try client.ask("app.exits", .object(["app": .string(app), "run": .integer(run)]))
    if common.format == .json { return Output.line(exit.text) }
    for line in lines(app, exit, image: Advice.image(exit["policy"], client)) { Output.line(line) }
    let said = exit["output"]?.stringValue ?? ""
    let output = said.hasSuffix("\n") ? said.dropLast() : said[...]
    guard !output.isEmpty else { return Output.line("It wrote nothing.") }
    Output.line("")
    Output.line("What it wrote last:")
    for line in output.split(separator: "\n", omittingEmptySubsequences: false) {
      Output.line("  " + LogPrinter.onlyColours(String(line)))
    }
  }

  /// `image`: what the image's config says, where it is known.
  static func lines(_ app: String, _ exit: JSONValue, image: JSONValue? = nil) -> [String] {
    func whole(_ key: String) -> UInt64? { exit[key]?.integerValue.map { UInt64(clamping: $0) } }
    func size(_ key: String) -> String { whole(key).map { Bytes($0).readable } ?? "unknown" }
    let reason = exit["reason"]?.stringValue ?? "unknown"
    var lines: [String] = []
    let ran = exit["ran_ms"]?.integerValue.map { Duration.milliseconds($0).readable }
    let ended = exit["ended_at"]?.integerValue.map { LocalTime.text(WallTime(nanoseconds: $0)) } ?? "?"
    let code = "exit code \(exit["exit_code"]?.integerValue ?? 0)"
    lines.append(
      "Run \(whole("run") ?? 0) of \(app) ended \(ended)\(ran.map { ", after \($0)" } ?? ""): \(reason)\(reason == code ? "" : " (\(code))")."
    )
    if let peak = whole("memory_peak") {
      var line = "Memory: at most \(Bytes(peak).readable)"
      if whole("memory_limit") != nil { line += " of \(size("memory_limit"))" }
      if let times = whole("memory_at_limit"), times > 0 { line += "; \(times) times at the limit" }
      if let kills = whole("oom_kills"), kills > 0 { line += "; \(kills) killed for it" }
      lines.append(line + ".")
    }
    if let peak = whole("pids_peak") {
      let refused = whole("pids_refused") ?? 0
      let limit = whole("pids_limit").map { " of \($0)" } ?? ""
      lines.append("Tasks: at most \(peak)\(limit)\(refused > 0 ? "; \(refused) refused" : "").")
    }
    if let seconds = exit["cpu_seconds"]?.numberValue {
      var line = "CPU: \(Bytes.fixed(seconds, 2)) s"
      if let held = whole("throttled_periods"), let all = whole("periods"), all > 0 {
        line += ", held back in \(held * 100 / all) % of the time"
      }
      lines.append(line + ".")
    }
    let pressures = ["cpu", "memory", "io"].compactMap { name in
      exit["\(name)_pressure"]?.numberValue.flatMap { $0 > 0 ? "\(name) \(Bytes.fixed($0, 1)) %" : nil }
    }
    if !pressures.isEmpty { lines.append("It waited at the end for: \(pressures.joined(separator: ", ")).") }
    if let good = whole("last_good_run") {
      let changed = (exit["changed_since"]?.arrayValue ?? []).compactMap(\.stringValue)
      lines.append(
        changed.isEmpty
          ? "Nothing in its policy or image changed since run \(good), which was good."
          : "Changed since run \(good), which was good: \(changed.joined(separator: ", "))."
      )
    }
    lines += Advice.lines(exit, image: image)
    return lines
  }
}
