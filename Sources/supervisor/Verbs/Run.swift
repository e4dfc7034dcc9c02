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

      -i passes standard input on, -t gives it a terminal; Ctrl-P Ctrl-Q then lets go of it and leaves it running, for \
      `supervisor attach` to come back to.

        supervisor run --rm debian:12 uname -a
        supervisor run --rm -it debian:12 bash
        supervisor run --rm -e DAYS=7 ./policies/report.yaml
        supervisor run --timeout 10m backup

      Exit codes: the program's own; 124 when its time was over; 125 when it could not be started, 126 when it may not be \
      executed, 127 when it is not there.
      """)
  @OptionGroup var common: Common
  @Flag(help: "Forget it at the end, with its data and its log.")
  var rm = false
  @Flag(name: [.customShort("i"), .long], help: "Pass standard input on.")
  var interactive = false
  @Flag(name: [.customShort("t"), .long], help: "Give it a terminal.")
  var tty = false
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
    if tty, interactive, isatty(0) == 0 {
      throw ValidationError("-t needs a terminal on standard input; leave it out to pipe")
    }
    let session = try Session(common)
    if let timeout, Duration(parsing: timeout) == nil {
      throw ValidationError("--timeout '\(timeout)' is not a duration such as 30s")
    }
    let client = try session.connectStarting(engine: engine)
    let policy = try OneRun.policy(self, client, session)
    let one = OneRun(session, policy.id, common, quiet: quiet, origin: policy.origin)
    let code = try one.run(client, policy.file, removing: rm, joining: interactive || tty ? (interactive, tty) : nil)
    if code != 0 { throw ExitCode(code) }
  }
}

/// One run of something, from its policy to its end.
struct OneRun {
  private let session: Session
  private let id: String
  private let common: Common
  private let quiet: Bool
  private let origin: String

  init(_ session: Session, _ id: String, _ common: Common, quiet: Bool, origin: String) {
    self.origin = origin
    self.session = session
    self.id = id
    self.common = common
    self.quiet = quiet
  }

  // MARK: Its policy

  /// A policy of its own, as a file for `app.up`. Runs of a template are counted by where they come from.
  static func policy(_ verb: Run, _ client: RPCClient, _ session: Session) throws -> (
    id: String, file: JSONValue, origin: String
  ) {
    var (document, folder, base) = try document(verb.subject, client, session)
    let id = verb.name ?? name(base)
    guard AppID(id) != nil else { throw ValidationError("'\(id)' is not a name: a-z, 0-9, - and _, at most 63") }
    let isTemplate = document["template"]?.boolValue == true
    for key in [
      "ports", "depends_on", "healthcheck", "ready", "schedule", "restart_policy", "template", "profiles", "hostname",
      "x-folder",
    ] + (isTemplate ? [] : ["instances"]) { document[key] = nil }
    if verb.interactive { document["stdin_open"] = true }
    if verb.tty { document["tty"] = true }
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
    if verb.tty, variables["TERM"] == nil, let kind = session.environment["TERM"], !kind.isEmpty {
      variables["TERM"] = .string(plain(kind))
    }
    if !variables.isEmpty { document["environment"] = .object(variables) }
    let text = JSONValue.object(document).text
    let file = JSONValue.object([
      "path": .string("\(folder)/run of \(base)"), "folder": .string(folder), "stack": "run",
      "base64": .string(Base64.encode(Array(text.utf8))),
    ])
    return (id, file, isTemplate ? "run:\(base)" : "run")
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

  /// `joining`: with whose input, and whether at a terminal; nil: its output is read from its log.
  func run(_ client: RPCClient, _ file: JSONValue, removing: Bool, joining: (input: Bool, terminal: Bool)?) throws
    -> Int32
  {
    let names = JSONValue.array([.string(id)])
    do {
      _ = try client.ask(
        "app.up",
        .object([
          "files": .array([file]), "origin": .string(origin), "environment": .object([:]), "no_deps": true,
          "at_rest": .bool(joining != nil),
        ]))
    } catch let failure as Failure where failure.code == 1 {
      throw Failure(125, failure.message, hint: failure.hint, name: failure.name)
    }
    var isLeft = false
    defer {
      if removing, !isLeft {
        // best effort: what stays is seen in `ps -a`.
        _ = try? session.connect().call("app.down", .object(["apps": names, "data": true]))
      }
    }
    if let joining {
      do { try join(names, client, joining) } catch is CommandSession.Detached {
        isLeft = true
        Output.error("")
        Output.error("left \(id) running: `supervisor attach \(id)` comes back to it, `supervisor stop \(id)` ends it")
        return 0
      }
    } else {
      try refuseHopeless(names)
    }
    try follow(names, try Interrupt(), prints: joining == nil)
    let row = try session.connect().ask("app.list", .object(["apps": names]))["apps"]?.arrayValue?.first ?? .null
    // best effort: the bill is not the run.
    let exit = try? session.connect().ask("app.exits", .object(["app": .string(id), "run": -1]))
    if !quiet { bill(exit) }
    return try code(row)
  }

  /// At its streams from its first instruction to its end.
  private func join(_ names: JSONValue, _ client: RPCClient, _ joining: (input: Bool, terminal: Bool)) throws {
    let streams = try CommandSession(
      client, input: joining.input, terminal: joining.terminal, leaving: .byKeys)
    var arguments = JSONObject()
    arguments["app"] = .string(id)
    arguments["start"] = true
    arguments["ends_input"] = .bool(!joining.terminal)
    do { _ = try streams.run(arguments, of: "app.attach") } catch let failure as Failure {
      // It did not come to run, which its state says better; or the caller is in a hurry.
      if failure.code > 128, failure.code != 129 {
        _ = try? session.connect().call("app.stop", .object(["apps": names, "grace_ms": 1000]))
      } else if failure.code == 129 || failure.name == "unreachable" {
        throw failure
      }
    }
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
  private func follow(_ names: JSONValue, _ interrupt: Interrupt, prints: Bool) throws {
    let printer = LogPrinter(prefixed: false, timestamps: false, json: common.format == .json)
    var asked = 0
    var hasPrinted = false
    while true {
      do {
        if asked == 0, prints {
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
    guard !hasPrinted, prints else { return }
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
