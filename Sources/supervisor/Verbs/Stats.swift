import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model

/// `supervisor stats`
struct Stats: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "stats", abstract: "Show what apps use, as it changes.",
    discussion: """
      CPU is in percent of one core. THROTTLED is the share of time in which an app was held back at its `cpus` limit. \
      PRESSURE is the share of the last ten seconds in which some of its tasks waited for cpu/memory/disk, where the kernel \
      counts it. A dash is what this host does not count. Ctrl-C ends it.
      """)
  @OptionGroup var common: Common
  @Flag(help: "Once, and end.")
  var noStream = false
  @Option(help: ArgumentHelp("Time between two looks.", valueName: "duration"))
  var interval = "1s"
  @Option(help: "Sort by name, cpu, memory or pids.")
  var sort: Order = .name
  @Argument(help: "Apps, or @STACK; all that run without any.")
  var apps: [String] = []

  enum Order: String, ExpressibleByArgument, CaseIterable { case name, cpu, memory, pids }

  func run() throws {
    guard let pause = Duration(parsing: interval), pause >= .milliseconds(100) else {
      throw ValidationError("--interval '\(interval)' is not a duration of at least 100ms")
    }
    var arguments = JSONObject()
    arguments["apps"] = .array(apps.map { .string($0) })
    if noStream {
      arguments["settle"] = true
    } else {
      arguments["interval_ms"] = .integer(pause.wholeNanoseconds / 1_000_000)
    }
    let interrupt = try Interrupt()
    let live = !noStream && Output.isTerminal && common.format == .table
    do {
      _ = try Session(common).connect().ask("app.stats", .object(arguments), interrupt: interrupt.raw) { item in
        show(item, live)
      }
    } catch is Interrupt.Caught { if live { Output.line("") } }
  }

  private func show(_ item: JSONValue, _ live: Bool) {
    let rows = (item["apps"]?.arrayValue ?? []).sorted { left, right in
      switch sort {
      case .name: return false
      case .cpu: return number(left, "cpu_percent") > number(right, "cpu_percent")
      case .memory: return number(left, "memory") > number(right, "memory")
      case .pids: return number(left, "pids") > number(right, "pids")
      }
    }
    if common.format == .json {
      for row in rows {
        var object = row.objectValue ?? JSONObject()
        object["time"] = item["time"]
        Output.line(JSONValue.object(object).text)
      }
      return
    }
    // Home, draw, and clear what was below: no flicker.
    if live { Output.raw("\u{1B}[H\u{1B}[J") }
    Self.table(rows, most: live ? max(1, Output.rows() - 2) : .max)
  }

  private func number(_ row: JSONValue, _ key: String) -> Double { row[key]?.numberValue ?? 0 }

  static func table(_ rows: [JSONValue], most: Int) {
    var table = Table([
      "NAME", "CPU", "THROTTLED", "MEM/LIMIT", "MEM %", "PIDS", "NET IN/OUT", "BLOCK IN/OUT", "PRESSURE",
    ])
    for row in rows.prefix(most) {
      func whole(_ key: String) -> UInt64? { row[key]?.integerValue.map { UInt64(clamping: $0) } }
      func size(_ key: String) -> String? { whole(key).map { Bytes($0).readable } }
      func percent(_ key: String) -> Double? { row[key]?.numberValue }
      func pair(_ first: String, _ second: String) -> String {
        guard let first = size(first), let second = size(second) else { return "-" }
        return "\(first) / \(second)"
      }
      let memory = whole("memory") ?? 0
      let share = whole("memory_limit").map { Double(memory) / Double(max(1, $0)) * 100 }
      let throttled = percent("throttled_percent")
      let pressures = ["cpu_pressure", "memory_pressure", "io_pressure"].map(percent)
      table.add([
        Table.Cell(row["name"]?.stringValue ?? ""),
        Table.Cell(percent("cpu_percent").map { Bytes.fixed($0, 1) + "%" } ?? "-"),
        Table.Cell(throttled.map { Bytes.fixed($0, 0) + "%" } ?? "-", (throttled ?? 0) > 25 ? .warning : nil),
        Table.Cell("\(size("memory") ?? "-")/\(size("memory_limit") ?? "none")"),
        Table.Cell(
          share.map { Bytes.fixed($0, 1) + "%" } ?? "-",
          (share ?? 0) > 95 ? .error : (share ?? 0) > 80 ? .warning : nil),
        Table.Cell("\(whole("pids") ?? 0)" + (whole("pids_limit").map { "/\($0)" } ?? "")),
        Table.Cell(pair("net_received", "net_sent")), Table.Cell(pair("block_read", "block_written")),
        Table.Cell(
          pressures.allSatisfy { $0 == nil }
            ? "-" : pressures.map { $0.map { Bytes.fixed($0, 0) } ?? "-" }.joined(separator: "/"),
          pressures.contains { ($0 ?? 0) > 20 } ? .warning : nil),
      ])
    }
    table.print()
    if rows.count > most { Output.raw(Style.dim.on("… and \(rows.count - most) more")) }
  }
}

/// `supervisor top`
struct Top: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "top", abstract: "List the processes of an app, as the host sees them.")
  @OptionGroup var common: Common
  @Argument(help: "The app.")
  var app: String

  func run() throws {
    let answer = try Session(common).connect().ask("app.top", .object(["app": .string(app)]))
    let rows = answer["processes"]?.arrayValue ?? []
    if common.format == .json {
      for row in rows { Output.line(row.text) }
      return
    }
    var table = Table(["PID", "PPID", "UID", "STATE", "THREADS", "CPU TIME", "RSS", "COMMAND"])
    for row in rows {
      func text(_ key: String) -> String { row[key].map { $0.stringValue ?? $0.text } ?? "" }
      table.add([
        Table.Cell(text("pid")), Table.Cell(text("ppid")), Table.Cell(text("uid")), Table.Cell(text("state")),
        Table.Cell(text("threads")),
        Table.Cell((row["cpu_seconds"]?.numberValue).map { Bytes.fixed($0, 2) + "s" } ?? ""),
        Table.Cell((row["rss"]?.integerValue).map { Bytes(UInt64(clamping: $0)).readable } ?? ""),
        Table.Cell(text("command")),
      ])
    }
    table.print()
  }
}

/// `supervisor port`
struct Port: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "port", abstract: "Print where the ports of an app are.",
    discussion: "With PORT only that one, as docker prints it: HOST:PORT.")
  @OptionGroup var common: Common
  @Argument(help: "The app.")
  var app: String
  @Argument(help: ArgumentHelp("A port of the app, as 80 or 53/udp.", valueName: "port"))
  var port: String?

  func run() throws {
    let answer = try Session(common).connect().ask("app.list", .object(["apps": .array([.string(app)])]))
    guard let row = answer["apps"]?.arrayValue?.first else { throw Failure(4, "no app is named '\(app)'") }
    guard row["pid"]?.isNull == false else { throw Failure(7, "\(app) is not running") }
    // As the list writes them: `127.0.0.1:8080->80/tcp`.
    let all = (row["ports"]?.arrayValue ?? []).compactMap(\.stringValue).map { text -> (host: String, own: String) in
      let parts = text.components("->")
      return (parts.first ?? "", parts.last ?? "")
    }
    let wanted = port.map { $0.contains("/") ? $0 : "\($0)/tcp" }
    let found = all.filter { wanted == nil || $0.own == wanted }
    guard !found.isEmpty else {
      throw Failure(1, port.map { "\(app) publishes no port \($0)" } ?? "\(app) publishes no port")
    }
    for entry in found {
      if common.format == .json {
        Output.line(JSONValue.object(["host": .string(entry.host), "port": .string(entry.own)]).text)
      } else {
        Output.line(wanted == nil ? "\(entry.own) -> \(entry.host)" : entry.host)
      }
    }
  }
}

extension String {
  /// The parts around the first `separator`.
  fileprivate func components(_ separator: String) -> [String] {
    guard let range = firstRange(of: separator) else { return [self] }
    return [String(self[..<range.lowerBound]), String(self[range.upperBound...])]
  }
}

/// `supervisor inspect`
struct Inspect: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "inspect",
    abstract: "Print all that is known of apps, as JSON: state, limits and layers, usage, the applied policy.")
  @OptionGroup var common: Common
  @Argument(help: "Apps.")
  var apps: [String]

  func run() throws {
    let client = try Session(common).connect()
    for app in apps {
      var all = try client.ask("app.status", .object(["app": .string(app)])).objectValue ?? JSONObject()
      let config = try client.ask("app.config", .object(["app": .string(app)]))
      // best effort: it stays text where it is no document.
      all["policy"] = config["canonical"]?.stringValue.flatMap { try? JSONValue(parsing: Array($0.utf8)) } ?? .null
      _ = try client.ask("app.stats", .object(["apps": .array([.string(app)])])) { item in
        all["usage"] = item["apps"]?.arrayValue?.first ?? .null
      }
      Output.line(JSONValue.object(all).text)
    }
  }
}
