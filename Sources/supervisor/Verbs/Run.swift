import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import Policies
internal import RPC

/// `supervisor run`
struct Run: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "run",
    abstract: "Run an image, a policy file, or another instance of an app once, and say what it cost.",
    discussion: """
      An IMAGE runs under `standard`; an APP or a FILE (also one with `template: true`) as its policy says, under a name of its \
      own, with no ports, dependencies or health checks, and without being restarted. CMD takes the place of its entry. Its \
      output is printed; Ctrl-C stops it, twice kills it. At the end a line on standard error says the time, CPU and memory \
      it took.

        supervisor run --rm debian:12 uname -a
        supervisor run --rm -e DAYS=7 ./policies/report.yaml
        supervisor run --timeout 10m backup

      Exit codes: the program's own; 124 when its time was over; 125 when it could not be started, 126 when it may not be \
      executed, 127 when it is not there.
      """)
  @OptionGroup var common: Common
  @Flag(help: "Forget it at the end, with its data and its log.")
  var rm = false
  @Option(
    name: [.customShort("e"), .long],
    help: ArgumentHelp("A variable; NAME alone takes its value from here.", valueName: "name=value"))
  var env: [String] = []
  @Option(help: ArgumentHelp("Stop it after this long.", valueName: "duration"))
  var timeout: String?
  @Option(help: ArgumentHelp("What to call it.", valueName: "name"))
  var name: String?
  @Option(help: ArgumentHelp("docker, podman, none or a socket, if a daemon is started.", valueName: "engine"))
  var engine: String?
  @Flag(help: "No line about what it cost.")
  var quiet = false
  @Argument(help: ArgumentHelp("An image, a policy file, or an app.", valueName: "image|file|app"))
  var subject: String
  @Argument(parsing: .captureForPassthrough, help: "A command in place of its entry.")
  var command: [String] = []

  func run() throws {
    let session = try Session(common)
    if let timeout, Duration(parsing: timeout) == nil {
      throw ValidationError("--timeout '\(timeout)' is not a duration such as 30s")
    }
    let client = try session.connectStarting(engine: engine)
    let policy = try OneRun.policy(self, client, session)
    let code = try OneRun(session, policy.id, common, quiet: quiet).run(client, policy.file, removing: rm)
    if code != 0 { throw ExitCode(code) }
  }
}

/// One run of something, from its policy to its end.
struct OneRun {
  private let session: Session
  private let id: String
  private let common: Common
  private let quiet: Bool

  init(_ session: Session, _ id: String, _ common: Common, quiet: Bool) {
    self.session = session
    self.id = id
    self.common = common
    self.quiet = quiet
  }

  // MARK: Its policy

  /// A policy of its own, as a file for `app.up`.
  static func policy(_ verb: Run, _ client: RPCClient, _ session: Session) throws -> (id: String, file: JSONValue) {
    var (document, folder, base) = try document(verb.subject, client, session)
    let id = verb.name ?? name(base)
    guard AppID(id) != nil else { throw ValidationError("'\(id)' is not a name: a-z, 0-9, - and _, at most 63") }
    for key in [
      "ports", "depends_on", "healthcheck", "ready", "schedule", "restart_policy", "template", "instances", "profiles",
      "hostname", "x-folder",
    ] { document[key] = nil }
    document["id"] = .string(id)
    document["restart"] = "no"
    let words = verb.command.first == "--" ? Array(verb.command.dropFirst()) : verb.command
    if !words.isEmpty { document["entry"] = .array(words.map { .string(plain($0)) }) }
    if let timeout = verb.timeout { document["max_runtime"] = .string(timeout) }
    var variables = document["environment"]?.objectValue ?? JSONObject()
    for entry in verb.env {
      let parts = entry.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard let name = parts.first, !name.isEmpty else { throw ValidationError("-e '\(entry)' has no name") }
      guard let value = parts.count > 1 ? parts[1] : session.environment[name] else { continue }
      variables[name] = .string(plain(value))
    }
    if !variables.isEmpty { document["environment"] = .object(variables) }
    let text = JSONValue.object(document).text
    let file = JSONValue.object([
      "path": .string("\(folder)/run of \(base)"), "folder": .string(folder), "stack": "run",
      "base64": .string(Base64.encode(Array(text.utf8))),
    ])
    return (id, file)
  }

  private static func document(_ subject: String, _ client: RPCClient, _ session: Session) throws -> (
    JSONObject, folder: String, base: String
  ) {
    if subject.hasSuffix(".yaml") || subject.hasSuffix(".yml") {
      let files = try PolicyFiles([subject], session)
      guard let source = files.entries.first?.source else { throw Failure(2, "there is no policy at \(subject)") }
      let reading = Policies.read(source)
      let errors = reading.problems.filter { $0.severity == .error }
      guard errors.isEmpty, let canonical = reading.canonical, let object = canonical.objectValue else {
        throw Failure(
          2, errors.map { $0.rendered(file: subject) }.joined(), hint: "`supervisor policy check \(subject)` says more")
      }
      return (escaped(.object(object)).objectValue ?? object, source.folder, object["id"]?.stringValue ?? "run")
    }
    do {
      let applied = try client.ask("app.config", .object(["app": .string(subject)]))
      let canonical = try JSONValue(parsing: Array((applied["canonical"]?.stringValue ?? "").utf8))
      let object = escaped(canonical).objectValue ?? JSONObject()
      return (object, applied["folder"]?.stringValue ?? "/", subject)
    } catch let failure as Failure where failure.code == 4 {
      var object = JSONObject()
      object["image"] = .string(plain(subject))
      let last = subject.split(separator: "/").last ?? "image"
      let base = last.prefix { $0 != ":" && $0 != "@" }.lowercased().filter {
        ("a"..."z").contains($0) || ("0"..."9").contains($0) || $0 == "-" || $0 == "_"
      }
      return (object, session.currentFolder, base.first.map { $0.isLetter || $0.isNumber } == true ? base : "image")
    }
  }

  /// Text in which nothing is taken for a variable.
  private static func plain(_ text: String) -> String { text.replacing("$", with: "$$") }

  private static func escaped(_ value: JSONValue) -> JSONValue {
    switch value {
    case .string(let text): return .string(plain(text))
    case .array(let items): return .array(items.map(escaped))
    case .object(let members):
      var copy = JSONObject()
      for (key, value) in members { copy[key] = escaped(value) }
      return .object(copy)
    default: return value
    }
  }

  private static func name(_ base: String) -> String {
    let mark = String(UInt32.random(in: 0x1000...0xFFFF), radix: 16)
    return "\(base.prefix(50))-run-\(mark)"
  }

  // MARK: Its run

  func run(_ client: RPCClient, _ file: JSONValue, removing: Bool) throws -> Int32 {
    let interrupt = try Interrupt()
    let names = JSONValue.array([.string(id)])
    _ = try client.ask(
      "app.up",
      .object(["files": .array([file]), "origin": .string("run"), "environment": .object([:]), "no_deps": true]))
    defer {
      if removing {
        // best effort: what stays is seen in `ps -a`.
        _ = try? session.connect().call("app.down", .object(["apps": names, "data": true]))
      }
    }
    try refuseHopeless(names)
    try follow(names, interrupt)
    let row = try session.connect().ask("app.list", .object(["apps": names]))["apps"]?.arrayValue?.first ?? .null
    // best effort: the bill is not the run.
    let exit = try? session.connect().ask("app.exits", .object(["app": .string(id), "run": -1]))
    if !quiet { bill(exit) }
    return try code(row)
  }

  /// What waits for its turn is waited for; what waits for an engine nobody has is not.
  private func refuseHopeless(_ names: JSONValue) throws {
    let row = try session.connect().ask("app.list", .object(["apps": names]))["apps"]?.arrayValue?.first ?? .null
    let reason = row["reason"]?.stringValue ?? ""
    guard row["state"] == "pending", reason.hasPrefix("no container engine") || reason.hasPrefix("this host cannot")
    else {
      return
    }
    // best effort: what stays is seen in `ps -a`.
    _ = try? session.connect().call("app.down", .object(["apps": names]))
    throw Failure(
      125, "\(id) could not be run: \(reason)", hint: "`supervisor doctor` says which engine was looked for")
  }

  /// Prints what it writes until it is over.
  private func follow(_ names: JSONValue, _ interrupt: Interrupt) throws {
    let printer = LogPrinter(prefixed: false, timestamps: false, json: common.format == .json)
    var asked = 0
    var hasPrinted = false
    while true {
      do {
        if asked == 0 {
          _ = try session.connect().ask(
            "app.logs", .object(["apps": names, "follow": true]), interrupt: interrupt.raw
          ) { item in
            hasPrinted = true
            printer.take(item)
          }
        }
        _ = try session.connect().ask("app.await", .object(["apps": names]), interrupt: interrupt.raw)
        let row = try session.connect().ask("app.list", .object(["apps": names]))["apps"]?.arrayValue?.first ?? .null
        // Its log may end a moment before it is known how it did.
        if row["pid"]?.isNull ?? true, ["exited", "completed", "failed"].contains(row["state"]?.stringValue ?? "") {
          break
        }
        _ = poll(nil, 0, 20)
      } catch is Interrupt.Caught {
        interrupt.consume()
        asked += 1
        _ = try session.connect().ask(asked == 1 ? "app.stop" : "app.hurry", .object(["apps": names]))
      }
    }
    printer.finish()
    // One that was over before anybody could listen has its output all the same.
    guard !hasPrinted else { return }
    // best effort: it may have written nothing.
    _ = try? session.connect().call("app.logs", .object(["apps": names, "run": -1])) { printer.take($0) }
    printer.finish()
  }

  private func code(_ row: JSONValue) throws -> Int32 {
    let reason = row["reason"]?.stringValue ?? ""
    if row["state"] == "failed" {
      let missing =
        reason.hasSuffix("is not in the container")
        || ["No such file", "does not exist"].contains { reason.contains($0) }
      throw Failure(
        missing ? 127 : 125, "\(id) could not be run: \(reason)", hint: "`supervisor explain \(id)` says more")
    }
    if reason.hasPrefix("max_runtime") { return 124 }
    return Int32(truncatingIfNeeded: row["exit_code"]?.integerValue ?? 125)
  }

  private func bill(_ exit: JSONValue?) {
    guard let exit else { return }
    func seconds(_ value: Double?) -> String { value.map { Bytes.fixed($0, 2) + " s" } ?? "?" }
    let time = exit["ran_ms"]?.integerValue.map { Double($0) / 1000 }
    let peak = exit["memory_peak"]?.integerValue.map { Bytes(UInt64(clamping: $0)).readable } ?? "?"
    Output.errorLine(
      Style.dim.on(
        "\(id): \(seconds(time)), CPU \(seconds(exit["cpu_seconds"]?.numberValue)), memory at most \(peak), \(exit["reason"]?.stringValue ?? "")",
        Output.errorStyle))
  }
}

/// `supervisor attach`
struct Attach: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attach", abstract: "Show what an app writes from now on.",
    discussion: """
      Ctrl-C leaves it running. An app has no standard input to be attached to: what reads it gets its end at once, in a \
      container as in a sandbox. To type into an app, run a command in it: `supervisor exec -it APP sh`.
      """)
  @OptionGroup var common: Common
  @Argument(help: "The app.")
  var app: String

  func run() throws {
    let client = try Session(common).connect()
    let row = try client.ask("app.list", .object(["apps": .array([.string(app)])]))["apps"]?.arrayValue?.first ?? .null
    guard row["pid"]?.isNull == false else { throw Failure(7, "\(app) is not running") }
    let printer = LogPrinter(prefixed: false, timestamps: false, json: common.format == .json)
    let interrupt = try Interrupt()
    do {
      _ = try client.ask(
        "app.logs", .object(["apps": .array([.string(app)]), "follow": true, "tail": 0]), interrupt: interrupt.raw
      ) { printer.take($0) }
    } catch is Interrupt.Caught {}
    printer.finish()
  }
}
