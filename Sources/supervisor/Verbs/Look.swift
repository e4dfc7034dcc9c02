import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// How a state is coloured.
func style(ofState state: String) -> Style? {
  switch StateWord(rawValue: state) {
  case .running, .completed: .good
  case .scheduled: .good
  case .pending, .pulling, .starting, .stopping, .restarting, .backoff, .paused, .created: .warning
  case .failed, .dead: .error
  case .exited, nil: nil
  }
}

/// `supervisor ps`
struct List: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "ps", abstract: "List apps.")
  @OptionGroup var common: Common
  @Flag(name: [.customShort("a"), .long], help: "Also those that do not run.")
  var all = false
  @Flag(name: [.customShort("q"), .long], help: "Names only.")
  var quiet = false
  @Option(
    help: ArgumentHelp("Only apps whose KEY (state, runtime, stack, name, health) is VALUE.", valueName: "key=value"))
  var filter: [String] = []
  @Argument(help: "Apps, or @STACK.")
  var apps: [String] = []

  func run() throws {
    let filters = try filter.map { text in
      let parts = text.split(separator: "=", maxSplits: 1)
      guard parts.count == 2, ["state", "runtime", "stack", "name", "health"].contains(parts[0]) else {
        throw ValidationError("--filter takes KEY=VALUE with KEY one of state, runtime, stack, name, health")
      }
      return (String(parts[0]), String(parts[1]))
    }
    let answer = try Session(common).connect().ask("app.list", .object(["apps": .array(apps.map { .string($0) })]))
    let rows = (answer["apps"]?.arrayValue ?? []).filter { row in
      (all || !filters.isEmpty || !apps.isEmpty
        || !["exited", "completed", "created"].contains(row["state"]?.stringValue ?? ""))
        && filters.allSatisfy { row[$0.0]?.stringValue == $0.1 }
    }
    if case .template(let template) = common.format {
      for row in rows { Output.line(try Self.filled(template, row)) }
    } else if common.format == .json {
      for row in rows { Output.line(row.text) }
    } else if quiet {
      for row in rows { Output.line(row["name"]?.stringValue ?? "") }
    } else {
      Self.table(rows)
    }
  }

  /// `template` with every `{{.key}}` replaced by the row's value; `\t` and `\n` are a tab and a line end.
  private static func filled(_ template: String, _ row: JSONValue) throws -> String {
    var text = ""
    var rest = template.replacing("\\t", with: "\t").replacing("\\n", with: "\n")[...]
    while let open = rest.firstRange(of: "{{") {
      text += rest[..<open.lowerBound]
      guard let close = rest[open.upperBound...].firstRange(of: "}}") else {
        throw ValidationError("the template has a {{ without its }}")
      }
      let key = String(rest[open.upperBound..<close.lowerBound].filter { $0 != " " && $0 != "." })
      guard let value = row[key] else {
        let keys = (row.objectValue?.keys ?? []).joined(separator: ", ")
        throw ValidationError("no row has '\(key)'; there are: \(keys)")
      }
      text += Output.escaped(value.stringValue ?? (value.isNull ? "" : value.text))
      rest = rest[close.upperBound...]
    }
    return text + rest
  }

  static func table(_ rows: [JSONValue]) {
    var table = Table(["NAME", "RUNTIME", "IMAGE/ENTRY", "STATUS", "HEALTH", "RESTARTS", "CPU", "MEM/LIMIT", "PORTS"])
    for row in rows {
      let entry =
        row["image"]?.stringValue ?? (row["entry"]?.arrayValue ?? []).compactMap(\.stringValue).joined(separator: " ")
      let memory = row["memory"]?.integerValue.map { Bytes(UInt64($0)).readable } ?? "-"
      let limit = row["memory_limit"]?.integerValue.map { Bytes(UInt64($0)).readable } ?? "none"
      let mark = (row["missing"]?.arrayValue ?? []).isEmpty ? "" : " (degraded)"
      let status = row["status"]?.stringValue ?? ""
      table.add([
        Table.Cell(marked(row)), Table.Cell(row["runtime"]?.stringValue ?? ""),
        Table.Cell(shortened(entry, 32)),
        Table.Cell(
          shortened(status.contains("degraded") ? status : status + mark, 60),
          style(ofState: row["state"]?.stringValue ?? "")),
        Table.Cell(row["health"]?.stringValue ?? "-"), Table.Cell("\(row["restarts"]?.integerValue ?? 0)"),
        Table.Cell(row["cpu_percent"]?.numberValue.map { Bytes.fixed($0, 1) + "%" } ?? "-"),
        Table.Cell("\(memory)/\(limit)"),
        Table.Cell((row["ports"]?.arrayValue ?? []).compactMap(\.stringValue).joined(separator: ", ")),
      ])
    }
    table.print()
  }

  /// The name, with a `*` where something is set beside the policy file.
  private static func marked(_ row: JSONValue) -> String {
    (row["name"]?.stringValue ?? "") + ((row["overrides"]?.arrayValue ?? []).isEmpty ? "" : "*")
  }

  private static func shortened(_ text: String, _ width: Int) -> String {
    text.count <= width ? text : text.prefix(width - 1) + "…"
  }
}

/// `supervisor status APP`
struct Status: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "status", abstract: "Show one app: state, and each limit and layer as asked and in force.")
  @OptionGroup var common: Common
  @Argument(help: "The app.")
  var app: String

  func run() throws {
    let answer = try Session(common).connect().ask("app.status", .object(["app": .string(app)]))
    if common.format == .json { Output.line(answer.text) } else { Self.show(answer) }
    if answer["pid"]?.isNull ?? true { throw ExitCode(3) }
  }

  static func show(_ app: JSONValue) {
    func text(_ key: String) -> String { app[key].map { $0.stringValue ?? ($0.isNull ? "-" : $0.text) } ?? "-" }
    let state = text("state")
    let rows: [(String, String)] = [
      ("Status", (style(ofState: state) ?? .bold).on(Output.escaped(text("status")))), ("Runtime", text("runtime")),
      ("Image", text("image")),
      ("Entry", (app["entry"]?.arrayValue ?? []).compactMap(\.stringValue).joined(separator: " ")),
      ("Stack", text("stack")), ("Policy", text("file")), ("Pid", text("pid")), ("Container", text("container_id")),
      ("Restarts", "\(text("restarts")) (restart: \(text("restart")))"), ("Sandbox", text("sandbox")),
      ("Health", Self.health(app)), ("Ready", text("ready")), ("Says", text("said")), ("Schedule", text("schedule")),
      ("Ports", (app["ports"]?.arrayValue ?? []).compactMap(\.stringValue).joined(separator: ", ")),
      ("Reason", text("reason")),
      ("Last exit", app["exit"]?["reason"]?.stringValue ?? "-"),
    ]
    Output.line(Style.bold.on(text("name")))
    for (name, value) in rows where value != "-" && !value.isEmpty {
      Output.line(
        "  \(name)\(String(repeating: " ", count: 11 - name.count))\(name == "Status" ? value : Output.escaped(value))")
    }
    for item in app["overrides"]?.arrayValue ?? [] { Output.line("  Set*       \(PlanView.override(item))") }
    for item in app["missing"]?.arrayValue ?? [] {
      Output.line("  \(Style.error.on("Degraded"))   \(Output.escaped(item.stringValue ?? ""))")
    }
    if let behind = app["behind"]?.stringValue { Output.line("  Not in force \(Output.escaped(behind))") }
    let layers = app["layers"]?.arrayValue ?? []
    guard !layers.isEmpty else { return }
    Output.line("")
    var table = Table(["LIMIT OR LAYER", "ASKED", "IN FORCE", "STATE"])
    for layer in layers {
      let status = layer["status"]?.stringValue ?? ""
      let style: Style? = status == "enforced" ? .good : status == "missing" ? .error : .dim
      let note = layer["note"]?.stringValue.map { " (\($0))" } ?? ""
      table.add([
        Table.Cell(layer["name"]?.stringValue ?? ""), Table.Cell(layer["asked"]?.stringValue ?? "-"),
        Table.Cell(layer["effective"]?.stringValue ?? "-"), Table.Cell(status + note, style),
      ])
    }
    table.print()
  }
}

extension Status {
  /// `healthy: tcp port 80 every 30 s, 3 retries; last: success in 0.2 ms`.
  private static func health(_ app: JSONValue) -> String {
    guard let check = app["healthcheck"], !check.isNull else { return "-" }
    let test =
      check["test"]?.stringValue ?? (check["test"]?.arrayValue ?? []).compactMap(\.stringValue).joined(separator: " ")
    let interval = Duration.milliseconds(check["interval_ms"]?.integerValue ?? 0).compact
    var text =
      "\(check["health"]?.stringValue ?? ""): \(test) every \(interval), on failure \(check["on_failure"]?.stringValue ?? "")"
    if let last = check["last"]?.stringValue {
      text += "; last: \(last) in \(Duration.microseconds(check["last_took_us"]?.integerValue ?? 0).compact)"
    }
    if let failing = check["failing"]?.integerValue, failing > 0 { text += ", \(failing) failed in a row" }
    return text
  }
}

/// `supervisor events`
struct Events: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "events", abstract: "Print what happened, and with -f what happens.")
  @OptionGroup var common: Common
  @Flag(name: [.customShort("f"), .long], help: "Go on as things happen.")
  var follow = false
  @Option(
    name: [.long, .customLong("since")],
    help: ArgumentHelp("Only what came after this cursor, as JSON tells it.", valueName: "cursor"))
  var after: Int64?
  @Argument(help: "Apps, or @STACK.")
  var apps: [String] = []

  func run() throws {
    var arguments = JSONObject()
    arguments["follow"] = .bool(follow)
    arguments["after"] = after.map { .integer($0) }
    arguments["apps"] = .array(apps.map { .string($0) })
    let interrupt = try Interrupt()
    do {
      _ = try Session(common).connect().ask("event.subscribe", .object(arguments), interrupt: interrupt.raw) { event in
        if common.format == .json { Output.line(event.text) } else { Output.line(Self.line(event)) }
      }
    } catch is Interrupt.Caught {}
  }

  static func line(_ event: JSONValue) -> String {
    let time = event["time"]?.integerValue.map { LocalTime.text(WallTime(nanoseconds: $0)) } ?? ""
    let fields = (event.objectValue ?? JSONObject()).filter { !["cursor", "time", "app", "event"].contains($0.key) }
      .map { "\($0.key)=\($0.value.stringValue ?? $0.value.text)" }.joined(separator: " ")
    let name = event["event"]?.stringValue ?? ""
    let app = event["app"]?.stringValue ?? "-"
    return "\(Style.dim.on(time)) \(Style.accent.on(Output.escaped(app))) \(name) \(Output.escaped(fields))"
  }
}

/// `supervisor logs`
struct Logs: ParsableCommand {
  static let configuration = CommandConfiguration(commandName: "logs", abstract: "Print what apps wrote.")
  @OptionGroup var common: Common
  @Flag(name: [.customShort("f"), .long], help: "Go on as more is written, over restarts too.")
  var follow = false
  @Option(
    name: [.customShort("n"), .long], help: ArgumentHelp("Only the last so many lines of each.", valueName: "lines"))
  var tail: Int?
  @Option(help: ArgumentHelp("Only since a time: 10m ago, or 2026-01-31T12:00:00Z.", valueName: "time"))
  var since: String?
  @Option(help: ArgumentHelp("Only until a time.", valueName: "time"))
  var until: String?
  @Option(
    name: .customLong("run"), parsing: .unconditional,
    help: ArgumentHelp("Only an ended run: -1 is the last, -2 the one before; or its number.", valueName: "run"))
  var ofRun: Int64?
  @Flag(name: [.customShort("t"), .long], help: "With the time of each line.")
  var timestamps = false
  @Argument(help: "Apps, or @STACK; all without any.")
  var apps: [String] = []

  func run() throws {
    let client = try Session(common).connect()
    var names = apps
    if names.isEmpty {
      names = (try client.ask("app.list")["apps"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
      guard !names.isEmpty else { return }
    }
    var arguments = JSONObject()
    arguments["apps"] = .array(names.map { .string($0) })
    arguments["follow"] = .bool(follow)
    arguments["tail"] = tail.map { .integer(Int64($0)) }
    arguments["since_ns"] = try since.map { .integer(try Self.moment($0)) }
    arguments["until_ns"] = try until.map { .integer(try Self.moment($0)) }
    arguments["run"] = ofRun.map { .integer($0) }
    if follow, ofRun != nil { throw ValidationError("--run is about a run that has ended: leave out -f") }
    let printer = LogPrinter(
      prefixed: names.count > 1 || names.contains { $0.hasPrefix("@") }, timestamps: timestamps,
      json: common.format == .json)
    let interrupt = try Interrupt()
    do { try copy(client, &arguments, printer, interrupt) } catch is Interrupt.Caught {}
    printer.finish()
  }

  /// Goes on over a restart of the daemon: with what each app wrote after the last that was seen of it.
  private func copy(_ first: RPCClient, _ arguments: inout JSONObject, _ printer: LogPrinter, _ interrupt: Interrupt)
    throws
  {
    var client = first
    var seen: [String: Int64] = [:]
    var before: [String: Int64] = [:]
    while true {
      do {
        _ = try client.ask("app.logs", .object(arguments), interrupt: interrupt.raw) { item in
          let time = item["time"]?.integerValue ?? 0
          if let app = item["app"]?.stringValue {
            guard time > before[app] ?? .min else { return }
            seen[app] = max(time, seen[app] ?? time)
          }
          printer.take(item)
        }
        return
      } catch let failure as Failure where failure.code == 69 && follow {
        printer.finish()
        if Output.errorIsTerminal { Output.error("\(failure.message); waiting for the next daemon") }
        guard let next = try Self.awaitDaemon(common, interrupt) else { return }
        client = next
      }
      before = seen
      // From the oldest of the last pieces on; what was printed already is left out above.
      if let oldest = seen.values.min() { arguments["since_ns"] = .integer(oldest) }
      arguments["tail"] = nil
      guard seen.isEmpty else { continue }
      arguments["since_ns"] = .integer(Clock.wall().nanoseconds)
    }
  }

  /// The next daemon's socket, looked for five times a second; nil: interrupted.
  private static func awaitDaemon(_ common: Common, _ interrupt: Interrupt) throws -> RPCClient? {
    let daemon = try Session(common).daemon
    while true {
      // best effort: not there yet.
      if let client = try? daemon.connect() { return client }
      var wait = pollfd(fd: interrupt.raw, events: Int16(POLLIN), revents: 0)
      if poll(&wait, 1, 200) > 0 { return nil }
    }
  }

  private static func moment(_ text: String) throws -> Int64 {
    if let ago = Duration(parsing: text) { return Clock.wall().nanoseconds - ago.wholeNanoseconds }
    if let time = LocalTime.parse(text) { return time.nanoseconds }
    throw ValidationError("'\(text)' is not a time: write a duration (10m) or RFC 3339 (2026-01-31T12:00:00Z)")
  }
}
