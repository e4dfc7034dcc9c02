import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import Policies
internal import RPC

/// `supervisor set`
struct SetVerb: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "set", abstract: "Change limits of an app now, beside its policy file or with --save in it.",
    discussion: """
      KEY is a limit or a rule of restarts as policies write it, VALUE what a policy would write after it: \
      `supervisor set web mem_limit=512m cpus=0.5`. Most limits change while the app runs; what needs a restart is said first, \
      then done. What is set stays over restarts of the app and the daemon and over `up`, is marked * in `ps` and listed by `plan`, \
      until `supervisor unset`, or the end of --for.

      --save edits the policy file instead: only that key's line, comments and layout stay. It is refused where that cannot be done \
      safely.
      """)
  @OptionGroup var common: Common
  @Flag(help: "Write it into the app's policy file.") var save = false
  @Option(name: .customLong("for"), help: ArgumentHelp("Take it back after this long.", valueName: "duration"))
  var time: String?
  @Argument(help: "The app.") var app: String
  @Argument(help: "KEY=VALUE.") var values: [String]

  func run() throws {
    if save, time != nil { throw ValidationError("--save and --for exclude each other: a file has no end") }
    var limit: Int64?
    if let time {
      guard let duration = Duration(parsing: time), duration > .zero else {
        throw ValidationError("--for '\(time)' is not a duration such as 1h")
      }
      limit = duration.wholeNanoseconds / 1_000_000
    }
    let session = try Session(common)
    let client = try session.connect()
    if save {
      try SavedValues(app, values, client, session).apply(json: common.format == .json)
      return
    }
    var arguments = JSONObject()
    arguments["app"] = .string(app)
    arguments["values"] = .array(values.map { .string($0) })
    arguments["for_ms"] = limit.map { .integer($0) }
    try ChangeView.carryOut("app.set", arguments, client, json: common.format == .json)
  }
}

/// `supervisor unset`
struct Unset: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "unset", abstract: "Take back what was set beside an app's policy file; all of it without a KEY.")
  @OptionGroup var common: Common
  @Argument(help: "The app.") var app: String
  @Argument(help: "Keys.") var keys: [String] = []

  func run() throws {
    var arguments = JSONObject()
    arguments["app"] = .string(app)
    arguments["keys"] = .array(keys.map { .string($0) })
    try ChangeView.carryOut("app.unset", arguments, try Session(common).connect(), json: common.format == .json)
  }
}

/// Says what a change needs, makes it, and says that it is made.
enum ChangeView {
  static func carryOut(_ method: String, _ arguments: JSONObject, _ client: RPCClient, json: Bool) throws {
    var trial = arguments
    trial["dry_run"] = true
    let planned = try client.ask(method, .object(trial))
    let kind = Change.Kind(rawValue: planned["change"]?.stringValue ?? "")
    if !json, kind == .restart || kind == .recreate { say(planned, "needs a") }
    let answer = try client.ask(method, .object(arguments))
    if json {
      Output.line(answer.text)
    } else if kind != .restart, kind != .recreate {
      say(answer, "")
    }
    guard kind == .restart || kind == .recreate else { return }
    let outcome = try client.ask("app.await", .object(["apps": .array([answer["app"] ?? .null])]))
    try Settled.check(outcome, "did not start")
  }

  static func say(_ answer: JSONValue, _ before: String) {
    let name = Output.escaped(answer["app"]?.stringValue ?? "")
    let change = answer["change"]?.stringValue ?? ""
    let words = before.isEmpty ? change : "\(before) \(change)"
    Output.line("\(Style.bold.on(name)): \(words == "none" ? "nothing changes" : words)")
    for field in answer["fields"]?.arrayValue ?? [] { Output.line("  \(PlanView.line(field))") }
  }
}

/// `set --save`: the policy file with other values, applied and written.
struct SavedValues {
  private let app: String
  private let values: [(key: String, value: JSONValue, text: String)]
  private let client: RPCClient
  private let session: Session

  init(_ app: String, _ values: [String], _ client: RPCClient, _ session: Session) throws {
    self.app = app
    self.client = client
    self.session = session
    self.values = try values.map { text in
      do throws(OverrideRefusal) {
        let (key, value) = try readOverride(text)
        return (key, value, String(text[text.index(after: text.firstIndex(of: "=") ?? text.startIndex)...]))
      } catch { throw Failure(2, error.message, hint: error.hint) }
    }
  }

  /// Applied first: a value that the daemon or the kernel refuses is not written. Written whole, by a rename.
  func apply(json: Bool) throws {
    let status = try client.ask("app.status", .object(["app": .string(app)]))
    guard let path = status["file"]?.stringValue, path.hasPrefix("/") else {
      throw Failure(1, "\(app) was not loaded from a file", hint: "set it without --save")
    }
    let origin = status["origin"]?.stringValue ?? path
    let stack = status["stack"]?.stringValue ?? "default"
    var file = try PolicyFiles(file: path, stack: stack, session)
    try requireApplied(file, origin)
    let before = file.bytes
    for (key, value, text) in values {
      do throws(EditRefusal) { file.bytes = try edited(file.bytes, setting: key, to: value, written: text) } catch {
        throw Failure(
          1, "\(path) is left as it is: \(error.message)", hint: error.hint ?? "edit the file, and `supervisor up` it")
      }
    }
    let planned = try load("app.plan", file, origin)["apps"]?.arrayValue?.first
    _ = try load("app.up", file, origin)
    do throws(SystemFault) { try Self.replace(path, before, file.bytes) } catch {
      file.bytes = before
      _ = try load("app.up", file, origin)
      throw Failure(1, "\(path) cannot be written, and nothing was changed: \(error)", hint: "check its permissions")
    }
    let set = (status["overrides"]?.arrayValue ?? []).compactMap { $0["key"]?.stringValue }
    let obsolete = values.map(\.key).filter { set.contains($0) }
    if !obsolete.isEmpty {
      _ = try client.ask(
        "app.unset", .object(["app": .string(app), "keys": .array(obsolete.map { .string($0) })]))
    }
    var answer = planned?.objectValue ?? JSONObject()
    answer["app"] = .string(app)
    answer["file"] = .string(path)
    if json {
      Output.line(JSONValue.object(answer).text)
    } else {
      ChangeView.say(.object(answer), "")
      Output.line("  saved in \(Output.escaped(path))")
    }
  }

  /// A file that is not what is applied has more to say than this one value.
  private func requireApplied(_ file: PolicyFiles, _ origin: String) throws {
    let planned = try load("app.plan", file, origin)["apps"]?.arrayValue?.first
    guard planned?["name"]?.stringValue == app else {
      throw Failure(1, "\(file.path) is not the policy of \(app) any more", hint: "`supervisor plan` compares them")
    }
    guard let change = planned?["change"]?.stringValue, change == "none" || change == "start" else {
      let fields = (planned?["fields"]?.arrayValue ?? []).compactMap { $0["key"]?.stringValue }
      throw Failure(
        1,
        "\(file.path) differs from what is applied in \(fields.joined(separator: ", ")), which saving would apply too",
        hint: "`supervisor up` it first, or set without --save")
    }
  }

  private func load(_ method: String, _ file: PolicyFiles, _ origin: String) throws -> JSONValue {
    var arguments = JSONObject()
    arguments["files"] = file.json
    arguments["origin"] = .string(origin)
    arguments["environment"] = .object(session.environment.mapJSON { .string($0) })
    if method == "app.up" { arguments["keep_wants"] = true }
    do { return try client.call(method, .object(arguments)) } catch RPCClient.Stop.answered(let failure) {
      try PolicyProblems.report(failure)
    }
  }

  /// Refuses a file that somebody else has changed since it was read.
  private static func replace(_ path: String, _ before: [UInt8], _ bytes: [UInt8]) throws(SystemFault) {
    // A link stays one: what it names is written.
    let real = try Place.resolve(path)
    let slash = real.lastIndex(of: "/") ?? real.startIndex
    let folder = try Folder(opening: slash == real.startIndex ? "/" : String(real[..<slash]))
    let name = String(real[real.index(after: slash)...])
    guard try folder.read(name) == before else { throw SystemFault(call: "read", subject: path, code: ESTALE) }
    var facts = stat()
    try check("stat", path) { stat(real, &facts) }
    try folder.replace(name, with: bytes, mode: facts.st_mode & 0o777)
    // The file keeps its owner; best effort, because only root can give it away.
    _ = chown(real, facts.st_uid, facts.st_gid)
  }
}
