import ArgumentParser
internal import Client
internal import Model
internal import Policies
internal import RPC

/// `supervisor plan`
struct Plan: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "plan", abstract: "Show what `up` would change, and why.",
    discussion: """
      Compares policy files with what is applied, and says for each app what `up` would do: nothing, start it, change it in place \
      (it runs on), restart it, recreate it, or create it, with every field that differs; (start-first) where the new one proves \
      itself before the old one is stopped. An image whose name means another one by now is shown as `image`. What was set with \
      `supervisor set` is listed too. Nothing is changed.

      With --detailed-exitcode: 0 nothing would change, 1 an error, 2 something would.
      """)
  @OptionGroup var common: Common
  @Flag(help: "Exit with 2 if something would change.") var detailedExitcode = false
  @Option(help: "Also load policies of this profile.") var profile: [String] = []
  @Argument(help: "Policy files and folders.", completion: .file()) var paths: [String] = []

  func run() throws {
    do {
      let session = try Session(common)
      let files = try PolicyFiles(paths, session)
      let answer = try PlanView.ask(try session.connect(), files, session, profiles: profile)
      try PlanView.show(answer, json: common.format == .json, detailed: detailedExitcode)
    } catch let failure as Failure where detailedExitcode {
      // 2 says that something would change.
      failure.report()
      throw ExitCode(1)
    }
  }
}

/// What `plan` and `up --dry-run` print.
enum PlanView {
  static func ask(
    _ client: RPCClient, _ files: PolicyFiles, _ session: Session, recreate: Bool = false, profiles: [String]
  ) throws -> JSONValue {
    do {
      return try client.call(
        "app.plan",
        .object([
          "files": files.json, "origin": .string(files.origin),
          "environment": .object(session.environment.mapJSON { .string($0) }), "recreate": .bool(recreate),
          "profiles": .array(profiles.map { .string($0) }),
        ]))
    } catch RPCClient.Stop.answered(let failure) {
      try PolicyProblems.report(failure)
    }
  }

  static func show(_ answer: JSONValue, json: Bool, detailed: Bool) throws {
    let apps = answer["apps"]?.arrayValue ?? []
    if json {
      for app in apps { Output.line(app.text) }
    } else {
      for warning in answer["warnings"]?.arrayValue ?? [] { Output.error(warning.stringValue ?? "") }
      for app in apps { write(app) }
      for orphan in answer["orphans"]?.arrayValue ?? [] {
        Output.line(
          "\(Style.warning.on("orphan")) \(Output.escaped(orphan.stringValue ?? "")): its file is gone; `up --remove-orphans` takes it down"
        )
      }
      summarise(apps)
    }
    if detailed, apps.contains(where: { $0["change"]?.stringValue != "none" }) { throw ExitCode(2) }
  }

  private static func write(_ app: JSONValue) {
    let change = app["change"]?.stringValue ?? ""
    let order = app["order"]?.stringValue.map { " (\($0))" } ?? ""
    Output.line(
      "\(Style.bold.on(Output.escaped(app["name"]?.stringValue ?? ""))): \((style(change)).on(change))\(order)")
    for field in app["fields"]?.arrayValue ?? [] { Output.line("  \(line(field))") }
    for item in app["overrides"]?.arrayValue ?? [] {
      Output.line("  \(Style.accent.on("*")) \(override(item))")
    }
    if let behind = app["behind"]?.stringValue {
      Output.line("  \(Style.warning.on("not in force:")) \(Output.escaped(behind))")
    }
  }

  /// `mem_limit: 64m → 128m (in-place)`
  static func line(_ field: JSONValue) -> String {
    let key = field["key"]?.stringValue ?? ""
    return Output.escaped(
      "\(key): \(Change.text(field["old"])) → \(Change.text(field["new"])) (\(field["change"]?.stringValue ?? ""))")
  }

  /// `mem_limit: 1g, set beside the file until 2026-01-31T12:00:00.000Z`
  static func override(_ item: JSONValue) -> String {
    let until = item["until"]?.integerValue.map { " until \(LocalTime.text(WallTime(nanoseconds: $0)))" } ?? ""
    return Output.escaped(
      "\(item["key"]?.stringValue ?? ""): \(Change.text(item["value"])), set beside the file\(until)")
  }

  private static func style(_ change: String) -> Style {
    switch Change.Kind(rawValue: change) {
    case .none?, nil: .dim
    case .start, .inPlace, .create: .good
    case .restart, .recreate: .warning
    case .remove: .error
    }
  }

  private static func summarise(_ apps: [JSONValue]) {
    guard !apps.isEmpty else {
      Output.error("nothing to do: no policy was found")
      return
    }
    let counts = Change.Kind.allCases.compactMap { kind -> String? in
      let count = apps.count { $0["change"]?.stringValue == kind.rawValue }
      return count == 0 ? nil : "\(count) \(kind == .none ? "unchanged" : kind.rawValue)"
    }
    Output.line(counts.joined(separator: ", "))
  }
}
