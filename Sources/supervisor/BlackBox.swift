internal import Client
internal import Linux
internal import Model

/// How one run of an app ended, in words.
enum BlackBox {
  static func explain(_ app: String, _ run: Int64, _ common: Common) throws {
    let client = try Session(common).connect()
    let exit = try client.ask("app.exits", .object(["app": .string(app), "run": .integer(run)]))
    if common.format == .json { return Output.line(exit.text) }
    for line in lines(app, exit) { Output.line(line) }
    let said = exit["output"]?.stringValue ?? ""
    let output = said.hasSuffix("\n") ? said.dropLast() : said[...]
    guard !output.isEmpty else { return Output.line("It wrote nothing.") }
    Output.line("")
    Output.line("What it wrote last:")
    for line in output.split(separator: "\n", omittingEmptySubsequences: false) {
      Output.line("  " + LogPrinter.onlyColours(String(line)))
    }
  }

  static func lines(_ app: String, _ exit: JSONValue) -> [String] {
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
    lines += Advice.lines(exit)
    return lines
  }
}

/// The line of a policy that would help, where what happened says so.
enum Advice {
  static func lines(_ exit: JSONValue) -> [String] {
    func whole(_ key: String) -> UInt64 { exit[key]?.integerValue.map { UInt64(clamping: $0) } ?? 0 }
    var lines: [String] = []
    let output = (exit["output"]?.stringValue ?? "").lowercased()
    if exit["oom"]?.boolValue == true || whole("oom_kills") > 0 {
      let limit = whole("memory_limit")
      let more = limit > 0 ? Bytes(limit * 2).compactText : "1g"
      lines.append("It ran out of memory. Give it more: `mem_limit: \(more)`.")
    }
    if whole("pids_refused") > 0 || output.contains("resource temporarily unavailable") {
      lines.append("It was refused more tasks. Raise `pids_limit`.")
    }
    for (path, rule) in denied(output) { lines.append("It may not write \(path). Give it a place: \(rule).") }
    if output.contains("operation not permitted") || output.contains("permission denied") {
      for (word, right) in capabilities where output.contains(word) {
        lines.append("It asks for what needs a capability. `cap_add: [\(right)]` gives it, if it must have it.")
        break
      }
    }
    if output.contains("address already in use") {
      lines.append("A port is taken: change `ports`, or stop what holds it.")
    }
    switch exit["exit_code"]?.integerValue {
    case 126: lines.append("126 says that the program may not be executed: see its mode, and `entry`.")
    case 127: lines.append("127 says that a program was not found: see `entry`, and PATH in `environment`.")
    default: break
    }
    return lines
  }

  private static let capabilities = [
    ("setgroups", "SETGID"), ("setgid", "SETGID"), ("setuid", "SETUID"), ("chown", "CHOWN"),
    ("bind()", "NET_BIND_SERVICE"),
    ("bind(", "NET_BIND_SERVICE"), ("raw socket", "NET_RAW"), ("sethostname", "SYS_ADMIN"), ("mount", "SYS_ADMIN"),
  ]

  /// Places that output names beside `read-only file system` or `permission denied`.
  private static func denied(_ output: String) -> [(path: String, rule: String)] {
    var found: [(String, String)] = []
    for line in output.split(separator: "\n") {
      guard line.contains("read-only file system") || line.contains("permission denied") else { continue }
      let words = line.split { " \"'`:(),".contains($0) }
      guard let path = words.first(where: { $0.hasPrefix("/") && $0.count > 1 && !$0.hasPrefix("/proc") }) else {
        continue
      }
      let parts = path.split(separator: "/")
      // A file's folder is what has to be a place.
      let folder = "/" + parts.prefix(max(1, min(parts.count - 1, 3))).joined(separator: "/")
      guard !found.contains(where: { $0.0 == folder }), found.count < 3 else { continue }
      let isScratch = ["/run", "/tmp", "/var/run", "/var/tmp", "/var/cache"].contains { folder.hasPrefix($0) }
      found.append(
        (folder, isScratch ? "`tmpfs: [\"\(folder):size=64m\"]`" : "`volumes: [\"NAME:\(folder)\"]`, or `tmpfs`"))
    }
    return found
  }
}

extension Bytes {
  /// As a policy writes it: `64m`.
  fileprivate var compactText: String {
    count >= 1 << 30 && count % (1 << 30) == 0 ? "\(count >> 30)g" : "\(max(1, count >> 20))m"
  }
}
