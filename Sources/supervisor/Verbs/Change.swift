import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// `supervisor down`
struct Down: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "down", abstract: "Stop apps and forget them, in reverse dependency order.",
    discussion: """
      Takes apps, @STACKs, or the PATHs that were given to `up`; without any, what `up` without any would load. \
      Data stays and its place is printed, unless --data.
      """)
  @OptionGroup var common: Common
  @Flag(help: "Every app of the instance.")
  var all = false
  @Flag(help: "Also remove their data. It is gone for good.")
  var data = false
  @Flag(help: "Also end the daemon.")
  var daemon = false
  @Flag(name: [.customShort("y"), .long], help: "Do not ask.")
  var yes = false
  @OptionGroup var grace: Grace
  @Option(help: ArgumentHelp("Give up waiting after this long.", valueName: "duration"))
  var timeout: String?
  @Option(help: "auto, tty, plain, json or quiet.")
  var progress: ProgressMode = .auto
  @Argument(help: "Apps, @STACKs or policy paths.", completion: .file())
  var targets: [String] = []

  func run() throws {
    var limit: Duration?
    if let timeout {
      guard let parsed = Duration(parsing: timeout) else {
        throw ValidationError("--timeout '\(timeout)' is not a duration such as 30s")
      }
      limit = parsed
    }
    let session = try Session(common)
    let client = try session.connect()
    let names = try chosen(session, client)
    if all || data { try confirm(names) }
    if !names.isEmpty {
      try takeDown(client, names, limit)
    } else if !daemon {
      Output.error("nothing to do: no app is loaded from there")
    }
    if daemon { _ = try client.ask("daemon.stop") }
  }

  /// The apps that are meant: by name and stack, or by the PATH they were loaded from.
  private func chosen(_ session: Session, _ client: RPCClient) throws -> [String] {
    let apps = try client.ask("app.list")["apps"]?.arrayValue ?? []
    let known = apps.compactMap { $0["name"]?.stringValue }
    if all { return known }
    var named = targets.filter { $0.hasPrefix("@") || known.contains($0) }
    let paths = targets.filter { !named.contains($0) }
    if targets.isEmpty || !paths.isEmpty {
      if let stray = paths.first(where: { !File.exists($0) && !$0.contains("/") && !$0.contains(".") }) {
        throw Failure(
          4, "no app is named '\(stray)', and no policy is at that path", hint: "`supervisor ps -a` lists the apps")
      }
      let absolute = paths.map { Environment.absolute($0, in: session.currentFolder) }
      let roots = absolute.isEmpty ? [Self.defaultRoot(session)] : absolute
      named += apps.filter { app in
        let file = app["file"]?.stringValue ?? ""
        return roots.contains { file == $0 || file.hasPrefix($0 + "/") }
      }.compactMap { $0["name"]?.stringValue }
    }
    return named
  }

  private static func defaultRoot(_ session: Session) -> String {
    let local = Environment.absolute("policies", in: session.currentFolder)
    return File.exists(local) ? local : "\(session.daemon.folders.config)/policies"
  }

  private func confirm(_ names: [String]) throws {
    guard !yes, !names.isEmpty else { return }
    let what =
      data
      ? "stop \(names.joined(separator: ", ")) and remove their data for good"
      : "stop and remove all: \(names.joined(separator: ", "))"
    guard isatty(0) == 1 else { throw Failure(2, "this would \(what)", hint: "add -y to do it without being asked") }
    Output.rawError("This will \(what).\nGo on? [y/N] ")
    guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else {
      throw Failure(1, "nothing was done")
    }
  }

  private func takeDown(_ client: RPCClient, _ names: [String], _ limit: Duration?) throws {
    let view = ProgressView(progress, json: common.format == .json)
    for name in names { view.begin(name, "waiting") }
    let outcome = try client.ask(
      "app.down",
      .object([
        "apps": .array(names.map { .string($0) }), "data": .bool(data), "grace_ms": grace.milliseconds,
        "timeout_ms": limit.map { .integer($0.wholeNanoseconds / 1_000_000) },
      ])
    ) { view.take($0) }
    view.settle(outcome)
    view.end()
    try Settled.check(outcome, "did not stop")
    guard common.format != .json, progress != .quiet else { return }
    for removed in outcome["removed_data"]?.arrayValue ?? [] { Output.error("removed \(removed.stringValue ?? "")") }
    let kept = (outcome["data"]?.arrayValue ?? []).compactMap(\.stringValue).filter { !data && File.exists($0) }
    for place in kept { Output.error("\(Style.dim.on("data stays in", Output.errorStyle)) \(place)") }
  }
}

/// How long an app is let be after its stop signal, as docker's `-t`.
struct Grace: ParsableArguments {
  @Option(
    name: [.customShort("t"), .customLong("time")],
    help: ArgumentHelp(
      "Kill what has not ended after this long, in seconds or as 1m30s. Default: the policy's stop_grace_period.",
      valueName: "duration"),
    transform: { text in
      guard let time = UInt32(text).map({ Duration.seconds($0) }) ?? Duration(parsing: text), time >= .zero else {
        throw ValidationError("'\(text)' is no duration such as 10 or 1m30s")
      }
      return time
    })
  var time: Duration?

  var milliseconds: JSONValue? { time.map { .integer($0.wholeNanoseconds / 1_000_000) } }
}

/// What the plain verbs share: apps, one call, and waiting for it to have happened.
protocol AppsVerb: ParsableCommand {
  var common: Common { get }
  var apps: [String] { get }
}

extension AppsVerb {
  /// Calls `method` for the apps and waits until each is as wanted.
  func change(_ method: String, _ verb: String, waiting: Bool = true, extra: KeyValuePairs<String, JSONValue?> = [:])
    throws
  {
    guard !apps.isEmpty else { throw ValidationError("name at least one app or @STACK") }
    let client = try Session(common).connect()
    var arguments = JSONObject()
    arguments["apps"] = .array(apps.map { .string($0) })
    for (key, value) in extra { if let value { arguments[key] = value } }
    let answer = try client.ask(method, .object(arguments))
    let names = (answer["apps"]?.arrayValue ?? []).compactMap(\.stringValue)
    guard waiting else {
      if common.format != .json { for name in names { Output.line(name) } }
      return
    }
    let view = ProgressView(.auto, json: common.format == .json)
    for name in names { view.begin(name, verb) }
    let outcome = try client.ask("app.await", .object(["apps": .array(names.map { .string($0) })])) { view.take($0) }
    view.settle(outcome)
    view.end()
    try Settled.check(outcome, "did not \(verb)")
  }
}

struct Start: AppsVerb {
  static let configuration = CommandConfiguration(commandName: "start", abstract: "Start apps that rest.")
  @OptionGroup var common: Common
  @Argument(help: "Apps, or @STACK.") var apps: [String] = []
  func run() throws { try change("app.start", "start") }
}

struct Stop: AppsVerb {
  static let configuration = CommandConfiguration(commandName: "stop", abstract: "Stop apps; they stay known.")
  @OptionGroup var common: Common
  @OptionGroup var grace: Grace
  @Argument(help: "Apps, or @STACK.") var apps: [String] = []
  func run() throws { try change("app.stop", "stop", extra: ["grace_ms": grace.milliseconds]) }
}

struct Restart: AppsVerb {
  static let configuration = CommandConfiguration(commandName: "restart", abstract: "End apps and start them again.")
  @OptionGroup var common: Common
  @OptionGroup var grace: Grace
  @Argument(help: "Apps, or @STACK.") var apps: [String] = []
  func run() throws { try change("app.restart", "restart", extra: ["grace_ms": grace.milliseconds]) }
}

struct Kill: AppsVerb {
  static let configuration = CommandConfiguration(
    commandName: "kill", abstract: "Send apps a signal; KILL, the default, reaches every process.")
  @OptionGroup var common: Common
  @Option(name: [.customShort("s"), .long], help: "The signal.") var signal = "KILL"
  @Argument(help: "Apps, or @STACK.") var apps: [String] = []
  func run() throws { try change("app.kill", "kill", waiting: false, extra: ["signal": .string(signal)]) }
}

struct Pause: AppsVerb {
  static let configuration = CommandConfiguration(commandName: "pause", abstract: "Freeze every process of apps.")
  @OptionGroup var common: Common
  @Argument(help: "Apps, or @STACK.") var apps: [String] = []
  func run() throws { try change("app.pause", "pause", waiting: false) }
}

struct Unpause: AppsVerb {
  static let configuration = CommandConfiguration(commandName: "unpause", abstract: "Let frozen apps go on.")
  @OptionGroup var common: Common
  @Argument(help: "Apps, or @STACK.") var apps: [String] = []
  func run() throws { try change("app.unpause", "unpause", waiting: false) }
}

struct Remove: AppsVerb {
  static let configuration = CommandConfiguration(commandName: "rm", abstract: "Forget apps that rest; data stays.")
  @OptionGroup var common: Common
  @Flag(name: [.customShort("f"), .long], help: "Stop those that run first.") var force = false
  @Argument(help: "Apps, or @STACK.") var apps: [String] = []

  func run() throws {
    guard !apps.isEmpty else { throw ValidationError("name at least one app or @STACK") }
    let client = try Session(common).connect()
    let names = JSONValue.array(apps.map { .string($0) })
    let rows = try client.ask("app.list", .object(["apps": names]))["apps"]?.arrayValue ?? []
    if !force, let running = rows.first(where: { $0["pid"]?.isNull == false }) {
      throw Failure(1, "\(running["name"]?.stringValue ?? "") is running", hint: "stop it first, or use -f")
    }
    let outcome = try client.ask("app.down", .object(["apps": names]))
    try Settled.check(outcome, "was not removed")
    for name in outcome["apps"]?.arrayValue ?? [] { Output.line(name.stringValue ?? "") }
  }
}

/// `supervisor wait`
struct Wait: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "wait", abstract: "Wait until apps have ended; print each exit code, exit with the last app's.")
  @OptionGroup var common: Common
  @Argument(help: "Apps, or @STACK.") var apps: [String]

  func run() throws {
    let client = try Session(common).connect()
    let names = JSONValue.array(apps.map { .string($0) })
    var codes: [(name: String, code: Int64)] = []
    var cursor: Int64 = 0
    /// Whether one is still to end.
    let isOpen: () throws -> Bool = {
      let answer = try client.ask("app.list", .object(["apps": names]))
      cursor = answer["cursor"]?.integerValue ?? 0
      let rows = answer["apps"]?.arrayValue ?? []
      codes = rows.compactMap { row in
        guard ["exited", "completed", "failed"].contains(row["state"]?.stringValue ?? ""),
          let name = row["name"]?.stringValue, let code = row["exit_code"]?.integerValue
        else { return nil }
        return (name, code)
      }
      return codes.count < rows.count
    }
    struct Done: Error {}
    if try isOpen() {
      let second = try Session(common).connect()
      do {
        _ = try second.ask(
          "event.subscribe", .object(["apps": names, "follow": true, "after": .integer(cursor)])
        ) { _ in
          if try !isOpen() { throw Done() }
        }
      } catch is Done {}
    }
    // In the order asked for; those of a stack by name.
    let ordered = apps.flatMap { app in codes.filter { $0.name == app } }
    let others = codes.filter { code in !apps.contains(code.name) }
    for (name, code) in ordered + others {
      Output.line(
        common.format == .json
          ? JSONValue.object(["name": .string(name), "exit_code": .integer(code)]).text : "\(code)")
    }
    throw ExitCode(Int32(truncatingIfNeeded: (ordered + others).last?.code ?? 0))
  }
}
