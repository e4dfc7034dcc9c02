import ArgumentParser
internal import Glibc
internal import Linux
internal import Model
internal import Policies
internal import RPC

/// `supervisor policy …`
struct PolicyGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "policy", abstract: "Check policy files and look into them; needs no daemon and no root.",
    subcommands: [PolicyCheck.self, PolicyShow.self, PolicyScore.self, PolicySchema.self])
}

/// Policies read and checked by this program alone.
struct CheckedFiles {
  var readings: [(file: PolicyFiles.Entry, reading: Reading)] = []
  var problems = 0

  /// Prints every problem of every file, and of the files together.
  init(_ paths: [String], _ common: Common) throws {
    let files = try PolicyFiles(paths, Session(common))
    for entry in files.entries {
      let reading = Policies.read(entry.source)
      readings.append((entry, reading))
      for problem in reading.problems { print(problem, entry.source.path) }
    }
    for problem in checkTogether(readings.map(\.reading)) { print(problem, paths.first ?? "policies") }
  }

  private mutating func print(_ problem: Problem, _ file: String) {
    if problem.severity == .error { problems += 1 }
    if Output.json {
      Output.line(
        JSONValue.object([
          "file": .string(file), "severity": .string(problem.severity.rawValue), "line": .count(problem.line),
          "column": .count(problem.column),
          "key": .string(problem.path), "message": .string(problem.message), "hint": .optional(problem.hint),
        ]).text)
    } else {
      Output.rawError(problem.rendered(file: file))
    }
  }

  /// Ends the verb with 2 if there was an error.
  func requireNoErrors() throws {
    guard problems > 0 else { return }
    if !Output.json { Output.error("\(problems) error\(problems == 1 ? "" : "s")") }
    throw ExitCode(2)
  }
}

struct PolicyCheck: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check", abstract: "Check files, alone and together; print every problem.",
    discussion: "A file named config.yaml is checked as the daemon's configuration. Exit code 2 if anything is wrong.")
  @OptionGroup var common: Common
  @Argument(help: "Policy files and folders.", completion: .file()) var paths: [String] = []

  func run() throws {
    let configurations = paths.filter { $0.split(separator: "/").last == "config.yaml" }
    var wrong = 0
    for path in configurations { wrong += try checkConfiguration(path) }
    let policies = paths.filter { !configurations.contains($0) }
    guard configurations.isEmpty || !policies.isEmpty else {
      if wrong > 0 { throw ExitCode(2) }
      return
    }
    let checked = try CheckedFiles(policies, common)
    try checked.requireNoErrors()
    if wrong > 0 { throw ExitCode(2) }
    if !Output.json {
      Output.line("\(checked.readings.count) file\(checked.readings.count == 1 ? "" : "s"), no errors")
    }
  }

  private func checkConfiguration(_ path: String) throws -> Int {
    let bytes: [UInt8]
    do throws(SystemFault) { bytes = try File.read(path, limit: 1 << 20) } catch { throw Failure(1, "\(error)") }
    let reading = readConfiguration(bytes)
    for problem in reading.problems { Output.rawError(problem.rendered(file: path)) }
    let errors = reading.problems.count { $0.severity == .error }
    if errors == 0, !Output.json { Output.line("\(path): no errors") }
    return errors
  }
}

struct PolicySchema: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "schema", abstract: "Print the JSON Schema of policy files, for editors.")
  @Flag(name: .customLong("config"), help: "That of the daemon's config.yaml instead.") var ofConfiguration = false
  func run() throws {
    Output.line((ofConfiguration ? configurationSchemaDocument() : schemaDocument()).prettyText)
  }
}

struct PolicyShow: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "show", abstract: "Print the effective policy: every value, presets and defaults filled in.")
  @OptionGroup var common: Common
  @Argument(help: "Policy files and folders.", completion: .file()) var paths: [String] = []

  func run() throws {
    let checked = try CheckedFiles(paths, common)
    try checked.requireNoErrors()
    for (place, entry) in checked.readings.enumerated() {
      guard let policy = entry.reading.policy else { continue }
      let document = effectiveDocument(policy)
      if common.format == .json {
        Output.line(document.text)
      } else {
        if place > 0 { Output.line("---") }
        Output.raw(yamlText(document))
      }
    }
  }
}

/// `supervisor config`
struct Config: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "config", abstract: "Print policies as they are understood: canonical names, variables resolved.",
    discussion: "Reads files without a daemon; --applied APP prints the copy that is in force.")
  @OptionGroup var common: Common
  @Option(help: ArgumentHelp("The applied copy of an app.", valueName: "app")) var applied: String?
  @Argument(help: "Policy files and folders.", completion: .file()) var paths: [String] = []

  func run() throws {
    if let applied {
      let answer = try Session(common).connect().ask("app.config", .object(["app": .string(applied)]))
      let text = answer["canonical"]?.stringValue ?? "{}"
      guard let document = try? JSONValue(parsing: Array(text.utf8)) else {
        throw Failure(1, "the applied copy of \(applied) cannot be read")
      }
      try show(document)
      return
    }
    let checked = try CheckedFiles(paths, common)
    try checked.requireNoErrors()
    for (place, entry) in checked.readings.enumerated() {
      if place > 0, common.format != .json { Output.line("---") }
      if let canonical = entry.reading.canonical { try show(canonical) }
      guard let policy = entry.reading.policy, common.format != .json else { continue }
      for line in notInForce(policy) { Output.line("# not in force yet: \(line)") }
    }
  }

  private func show(_ document: JSONValue) throws {
    if common.format == .json { Output.line(document.text) } else { Output.raw(yamlText(document)) }
  }
}

/// `supervisor explain`
struct Explain: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "explain", abstract: "Say in words what a policy file will do, or how an app is and why.",
    discussion: "A path is explained without a daemon, an app by the daemon.")
  @OptionGroup var common: Common
  @Option(
    parsing: .unconditional,
    help: ArgumentHelp(
      "How a run of the app ended: -1 is the last, -2 the one before; or its number.", valueName: "run"))
  var exit: Int64?
  @Argument(help: "A policy file, or an app.", completion: .file()) var subject: String

  func run() throws {
    if let exit { return try BlackBox.explain(subject, exit, common) }
    if subject.contains("/") || subject.hasSuffix(".yaml") || subject.hasSuffix(".yml") {
      try explainFile()
    } else {
      try explainApp()
    }
  }

  private func explainFile() throws {
    let checked = try CheckedFiles([subject], common)
    try checked.requireNoErrors()
    for entry in checked.readings {
      guard let policy = entry.reading.policy else { continue }
      let lines = explain(policy)
      if common.format == .json {
        Output.line(
          JSONValue.object(["name": .string(policy.id.name), "explanation": .array(lines.map { .string($0) })]).text)
      } else {
        Output.line(Style.bold.on(policy.id.name))
        for line in lines { Output.line("  \(line)") }
      }
    }
  }

  private func explainApp() throws {
    let client = try Session(common).connect()
    let app = try client.ask("app.status", .object(["app": .string(subject)]))
    var words = Explanation(app, try recent(client)).lines
    if ["failed", "backoff", "exited"].contains(app["state"]?.stringValue ?? "") {
      // best effort: what cannot be had is left out of an explanation.
      let exit = try? client.ask("app.exits", .object(["app": .string(subject), "run": -1]))
      let advice = exit.map { Advice.lines($0, image: Advice.image($0["policy"], client)) } ?? []
      words.insert(contentsOf: advice.filter { line in !words.contains(line) }, at: min(1, words.count))
      if exit != nil { words.append("`supervisor explain \(subject) --exit -1` says more of its end.") }
    }
    if app["state"] == "running", app["health"]?.stringValue.map({ $0 != "healthy" }) ?? false || app["ready"] == false
    {
      words.insert(
        contentsOf: advice(of: app, client).filter { line in !words.contains(line) }, at: min(1, words.count))
    }
    if common.format == .json {
      Output.line(
        JSONValue.object([
          "name": .string(subject), "state": app["state"], "explanation": .array(words.map { .string($0) }),
        ]).text)
    } else {
      for line in words { Output.line(line) }
    }
  }

  /// What the last lines of one that runs and does not work say. Best effort.
  private func advice(of app: JSONValue, _ client: RPCClient) -> [String] {
    var output = ""
    let query = JSONValue.object(["apps": .array([.string(subject)]), "tail": 60])
    _ = try? client.call("app.logs", query) { output += $0["text"]?.stringValue ?? "" }
    var run = JSONObject()
    run["output"] = .string(output)
    run["policy"] = app["policy"]
    run["runtime"] = app["runtime"]
    return Advice.lines(.object(run), image: Advice.image(app["policy"], client))
  }

  private func recent(_ client: RPCClient) throws -> [JSONValue] {
    var events: [JSONValue] = []
    _ = try client.ask("event.subscribe", .object(["apps": .array([.string(subject)])])) { events.append($0) }
    return events.suffix(8)
  }
}

/// Why an app is as it is, from what the daemon knows.
struct Explanation {
  private(set) var lines: [String] = []

  init(_ app: JSONValue, _ events: [JSONValue]) {
    let name = app["name"]?.stringValue ?? ""
    let reason = app["reason"]?.stringValue ?? ""
    let exit = app["exit"]?["reason"]?.stringValue
    switch app["state"]?.stringValue {
    case "running":
      lines.append("\(name) runs: \(app["status"]?.stringValue ?? "").")
      // A clause of its own, or what follows "it is".
      if reason.hasPrefix("the ") {
        lines.append("But \(reason).")
      } else if !reason.isEmpty {
        lines.append("It is \(reason).")
      }
      if let said = app["said"]?.stringValue { lines.append("It says: \(said).") }
    case "starting":
      let step = app["pre_start"]?.stringValue.map { ": the command \($0) of pre_start runs" } ?? ""
      lines.append("\(name) is being started\(step).")
    case "scheduled":
      let when = app["next_run"]?.integerValue.map { LocalTime.text(WallTime(nanoseconds: $0)) } ?? "never"
      lines.append(
        "\(name) waits for its next run, \(when), by its schedule \(app["schedule"]?.stringValue ?? ""); `supervisor start \(name)` begins one now."
      )
      if let exit { lines.append("Its last run ended with \(exit).") }
    case "paused": lines.append("\(name) is paused; `supervisor unpause \(name)` lets it go on.")
    case "pending": lines.append("\(name) waits: \(reason).")
    case "backoff":
      lines.append(
        "\(name) ended (\(exit ?? reason)) and is restarted after a pause: \(app["status"]?.stringValue ?? "").")
    case "failed": lines.append("\(name) failed and is not tried again: \(reason).")
    case "completed": lines.append("\(name) has done its work (\(exit ?? "exit code 0")).")
    case "exited": lines.append("\(name) does not run: it ended with \(exit ?? reason), and \(Self.rest(app)).")
    default: lines.append("\(name): \(app["status"]?.stringValue ?? app["state"]?.stringValue ?? "unknown").")
    }
    advise(name, app, reason + " " + (exit ?? ""))
    for line in app["missing"]?.arrayValue ?? [] {
      lines.append("Left out under `enforcement: degrade`: \(line.stringValue ?? "").")
    }
    guard !events.isEmpty else { return }
    lines.append("")
    lines.append("Lately:")
    for event in events { lines.append("  " + Events.line(event)) }
  }

  private static func rest(_ app: JSONValue) -> String {
    app["wanted"] == "running" ? "its policy says `restart: \(app["restart"]?.stringValue ?? "no")`" : "it was stopped"
  }

  private mutating func advise(_ name: String, _ app: JSONValue, _ why: String) {
    if why.contains("out of memory") {
      lines.append(
        "It used all of its \(app["memory_limit"]?.integerValue.map { Bytes(UInt64($0)).readable } ?? "memory"): raise `mem_limit`, or make it need less."
      )
    }
    if why.contains("in use") || why.contains("already allocated") {
      lines.append("Another program holds the port: change `ports`, or stop that program.")
    } else if why.contains("port "), why.contains("Connection refused") {
      lines.append("Nothing listens there inside the app: does it use another port, or an address of its own?")
    }
    let wants = ["failed", "backoff", "exited"].contains(app["state"]?.stringValue ?? "")
    if wants {
      lines.append("Its last words: `supervisor logs --tail 20 \(name)`. To try again: `supervisor start \(name)`.")
    }
  }
}
