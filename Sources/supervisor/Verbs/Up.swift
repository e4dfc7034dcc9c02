import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import Policies
internal import RPC

/// `supervisor up`
struct Up: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "up", abstract: "Load policies and make them run.",
    discussion: """
      PATH is a policy file or a folder of them; without one, ./policies if it is there, else the instance's config folder. \
      A daemon is started if none runs. All files are checked before anything changes. Without -d the logs are followed: \
      Ctrl-C stops what this command started, a second Ctrl-C kills it.
      """)
  @OptionGroup var common: Common
  @Flag(name: [.customShort("d"), .long], help: "Return instead of following the logs.")
  var detach = false
  @Flag(help: "Return once every app is ready and healthy, or cannot be.")
  var wait = false
  @Option(help: ArgumentHelp("How long --wait waits.", valueName: "duration"))
  var waitTimeout = "60s"
  @Flag(help: "Show what would change, as `plan` does, and change nothing.")
  var dryRun = false
  @Flag(help: "Follow the files instead of the logs: each change of one is applied. Ctrl-C ends that; apps run on.")
  var watch = false
  @Flag(help: "Make every app anew, changed or not.")
  var forceRecreate = false
  @Flag(help: "Also take down apps of this PATH whose file is gone.")
  var removeOrphans = false
  @Flag(help: "Leave apps that these depend on alone.")
  var noDeps = false
  @Option(help: "Also load policies of this profile.")
  var profile: [String] = []
  @Option(
    help: ArgumentHelp(
      "Container engine for a daemon that is started: docker, podman, none or a socket.", valueName: "engine"))
  var engine: String?
  @Option(help: "auto, tty, plain, json or quiet.")
  var progress: ProgressMode = .auto
  @Argument(help: "Policy files and folders.", completion: .file())
  var paths: [String] = []

  func run() throws {
    guard let timeout = Duration(parsing: waitTimeout) else {
      throw ValidationError("--wait-timeout '\(waitTimeout)' is not a duration such as 60s")
    }
    let session = try Session(common)
    let files = try PolicyFiles(paths, session)
    if dryRun {
      let answer = try PlanView.ask(
        try session.connect(), files, session, recreate: forceRecreate, profiles: profile)
      return try PlanView.show(answer, json: common.format == .json, detailed: false)
    }
    let interrupt = try Interrupt()
    let client = try session.connectStarting(engine: engine)
    if let engine { try Self.checkEngine(engine, client) }
    // Before the first load, so that nothing that is written meanwhile is missed.
    let changes = watch ? try PolicyWatch(files, interrupt) : nil
    let answer: JSONValue
    do {
      answer = try client.call("app.up", arguments(files, session))
    } catch RPCClient.Stop.answered(let failure) {
      try PolicyProblems.report(failure)
    }
    for warning in answer["warnings"]?.arrayValue ?? [] { Output.error(warning.stringValue ?? "") }
    let applied = answer["apps"]?.objectValue ?? JSONObject()
    for orphan in answer["orphans"]?.arrayValue ?? [] {
      Output.error(
        "\(Style.warning.on("warning:", Output.errorStyle)) \(orphan.stringValue ?? "") was loaded from here before and its file is gone; "
          + (removeOrphans ? "taking it down" : "take it down with --remove-orphans"))
    }
    if applied.isEmpty { Output.error("nothing to do: no policy was found") }
    guard !applied.isEmpty || watch else { return }
    let view = ProgressView(progress, json: common.format == .json)
    if let changes {
      for (name, change) in applied { view.note(name, change.stringValue ?? "") }
      return try changes.run { try reload(session, client, view) }
    }
    if detach, !wait {
      for (name, change) in applied { view.note(name, change.stringValue ?? "") }
      return
    }
    try follow(client, applied, view, interrupt, timeout)
    if !detach { try Attached(session, applied.keys, interrupt).run(json: common.format == .json) }
  }

  /// Applies the files as they are now; what is wrong with them is printed, and what is applied stays.
  private func reload(_ session: Session, _ client: RPCClient, _ view: ProgressView) throws {
    do {
      let answer = try client.call("app.up", arguments(try PolicyFiles(paths, session), session))
      for warning in answer["warnings"]?.arrayValue ?? [] { Output.error(warning.stringValue ?? "") }
      for (name, change) in answer["apps"]?.objectValue ?? JSONObject() where change != "unchanged" {
        view.note(name, change.stringValue ?? "")
      }
      for orphan in answer["orphans"]?.arrayValue ?? [] {
        Output.error(
          "\(orphan.stringValue ?? ""): its file is gone" + (removeOrphans ? "; taking it down" : "; it runs on"))
      }
    } catch RPCClient.Stop.answered(let failure) {
      do { try PolicyProblems.report(failure) } catch let failure as Failure { failure.report() }
    } catch RPCClient.Stop.disconnected(let why) {
      throw Failure(69, "the daemon went away: \(why)", hint: "apps run on; `supervisor up --watch` starts anew")
    } catch let failure as Failure {
      failure.report()
    }
  }

  private func arguments(_ files: PolicyFiles, _ session: Session) -> JSONValue {
    .object([
      "files": files.json, "origin": .string(files.origin),
      "environment": .object(session.environment.mapJSON { .string($0) }),
      "recreate": .bool(forceRecreate), "remove_orphans": .bool(removeOrphans), "no_deps": .bool(noDeps),
      "profiles": .array(profile.map { .string($0) }),
    ])
  }

  private static func checkEngine(_ wanted: String, _ client: RPCClient) throws {
    let engine = try client.ask("version")["engine"]
    let chosen = engine?["choice"]?.stringValue ?? "auto"
    guard chosen != wanted else { return }
    throw Failure(
      1, "the daemon that runs was started with the engine '\(chosen)', not '\(wanted)'",
      hint: "end it first: `supervisor daemon --stop` leaves apps running")
  }

  /// Shows how the apps get there; throws when one does not.
  private func follow(
    _ client: RPCClient, _ changes: JSONObject, _ view: ProgressView, _ interrupt: Interrupt, _ timeout: Duration
  ) throws {
    for (name, change) in changes { view.begin(name, change.stringValue ?? "") }
    let outcome: JSONValue
    do {
      outcome = try client.ask(
        "app.await",
        .object([
          "apps": .array(changes.keys.map { .string($0) }),
          "timeout_ms": .integer(timeout.wholeNanoseconds / 1_000_000), "ready": .bool(wait),
        ]),
        interrupt: interrupt.raw
      ) { view.take($0) }
    } catch is Interrupt.Caught {
      view.end()
      throw Failure(
        130, "interrupted while apps were starting", hint: "what was started goes on; `supervisor ps -a` shows it")
    }
    view.settle(outcome)
    view.end()
    try Settled.check(outcome, "did not start")
  }
}

/// What `app.await` came back with, as a failure.
enum Settled {
  static func check(_ outcome: JSONValue, _ what: String) throws {
    let failed = outcome["failed"]?.objectValue ?? JSONObject()
    if let (name, why) = failed.first(where: { _ in true }) {
      let others = failed.count > 1 ? " (and \(failed.count - 1) more)" : ""
      let reason = why.stringValue ?? ""
      // An update that was not kept says so itself: the app runs.
      let text = reason.hasPrefix("the update ") ? "\(name): \(reason)" : "\(name) \(what): \(reason)"
      throw Failure(
        1, "\(text)\(others)",
        hint: "`supervisor explain \(name)` says more, `supervisor logs \(name)` what it wrote")
    }
    let waiting = (outcome["waiting"]?.arrayValue ?? []).compactMap(\.stringValue)
    guard outcome["timed_out"]?.boolValue == true, let first = waiting.first else { return }
    throw Failure(
      124, "timed out waiting for \(waiting.joined(separator: ", "))",
      hint: "`supervisor explain \(first)` says what holds it back")
  }
}

extension Dictionary where Key == String {
  /// An object with this dictionary's members, sorted by name.
  func mapJSON(_ body: (Value) -> JSONValue) -> JSONObject {
    var object = JSONObject()
    for (key, value) in self.sorted(by: { $0.key < $1.key }) { object[key] = body(value) }
    return object
  }
}

extension JSONValue {
  static func object(_ object: JSONObject?) -> JSONValue { object.map { .object($0) } ?? .null }
}

/// Following the logs of what `up` started, until Ctrl-C.
struct Attached {
  private let session: Session
  private let apps: [String]
  private let interrupt: Interrupt

  init(_ session: Session, _ apps: [String], _ interrupt: Interrupt) {
    self.session = session
    self.apps = apps
    self.interrupt = interrupt
  }

  func run(json: Bool) throws {
    let client = try session.connect()
    let printer = LogPrinter(prefixed: true, timestamps: false, json: json)
    let names = JSONValue.array(apps.map { .string($0) })
    do {
      _ = try client.ask("app.logs", .object(["apps": names, "follow": true, "tail": 20]), interrupt: interrupt.raw) {
        printer.take($0)
      }
      printer.finish()
      return
    } catch is Interrupt.Caught {}
    printer.finish()
    interrupt.consume()
    Output.error("\nStopping \(apps.joined(separator: ", ")) (Ctrl-C again kills)")
    try stop(try session.connect(), names)
  }

  private func stop(_ client: RPCClient, _ names: JSONValue) throws {
    _ = try client.ask("app.stop", .object(["apps": names]))
    let view = ProgressView(.auto, json: false)
    for name in apps { view.begin(name, "stopping") }
    var hurried = false
    while true {
      do {
        let outcome = try client.ask("app.await", .object(["apps": names]), interrupt: interrupt.raw) { view.take($0) }
        view.settle(outcome)
        break
      } catch is Interrupt.Caught {
        interrupt.consume()
        guard !hurried else { throw Failure(130, "interrupted again", hint: "`supervisor ps -a` shows what is left") }
        hurried = true
        _ = try client.ask("app.hurry", .object(["apps": names]))
      }
    }
    view.end()
    let running = (try client.ask("app.list")["apps"]?.arrayValue ?? []).contains { $0["wanted"] == "running" }
    if !running { _ = try client.ask("daemon.stop") }
  }
}
