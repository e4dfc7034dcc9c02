import ArgumentParser
internal import Client
internal import Model

/// `supervisor perm`
struct PermissionGroup: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "perm", abstract: "What apps may ask of the supervisor: look, grant, revoke.",
    discussion: """
      A permission is AREA.VERB[:SCOPE], as `log` or `fs.read:/data/**`. What an app's policy and its preset grant can be widened by \
      `grant` and narrowed by `revoke`, for all its runs, at once and until `reset`; a denial wins over any grant. An app may ask \
      for more while it runs: `watch` shows that and takes answers. \
      `supervisor calls` prints what each call needs.
      """,
    subcommands: [
      PermissionList.self, PermissionGrant.self, PermissionRevoke.self, PermissionReset.self, PermissionWatch.self,
      PermissionAnswer.self, PermissionAudit.self,
    ])
}

struct PermissionList: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "list", abstract: "Show what an app may ask, and by which rule.")
  @OptionGroup var common: Common
  @Argument(help: "The app.") var app: String

  func run() throws {
    let answer = try Session(common).connect().ask("perm.list", .object(["app": .string(app)]))
    guard common.format != .json else { return Output.line(answer.text) }
    var table = Table(["CAPABILITY", "DECISION", "BY", "RUN"])
    let instances = answer["instances"]?.arrayValue ?? []
    for instance in instances {
      for (key, word) in [("granted", "allowed"), ("denied", "denied")] {
        for rule in instance[key]?.arrayValue ?? [] {
          table.add([
            .init(rule["capability"]?.stringValue ?? ""), .init(word, key == "granted" ? .good : .error),
            .init(rule["by"]?.stringValue ?? ""), .init("\(instance["generation"]?.integerValue ?? 0)"),
          ])
        }
      }
    }
    if instances.isEmpty {
      for entry in (answer["policy"]?.arrayValue ?? []).compactMap(\.stringValue) {
        let isDenied = entry.hasPrefix("deny:")
        table.add([
          .init(isDenied ? String(entry.dropFirst(5)) : entry),
          .init(isDenied ? "denied" : "allowed", isDenied ? .error : .good),
          .init("policy"), .init("-"),
        ])
      }
      for decision in answer["decided"]?.arrayValue ?? [] {
        let isGrant = decision["decision"] == "granted"
        table.add([
          .init(decision["capability"]?.stringValue ?? ""),
          .init(isGrant ? "allowed" : "denied", isGrant ? .good : .error),
          .init("operator"), .init("-"),
        ])
      }
    }
    table.print()
  }
}

struct PermissionGrant: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "grant", abstract: "Let an app ask for something beside its policy, from its next call on.")
  @OptionGroup var common: Common
  @Argument(help: "The app.") var app: String
  @Argument(help: ArgumentHelp("AREA.VERB[:SCOPE].", valueName: "permission")) var capability: String

  func run() throws { try decide("perm.grant", "may ask for", app, capability, common) }
}

struct PermissionRevoke: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "revoke", abstract: "Deny an app something whatever its policy says, from its next call on.")
  @OptionGroup var common: Common
  @Argument(help: "The app.") var app: String
  @Argument(help: ArgumentHelp("AREA.VERB[:SCOPE].", valueName: "permission")) var capability: String

  func run() throws { try decide("perm.revoke", "is denied", app, capability, common) }
}

struct PermissionReset: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "reset", abstract: "Take back what was granted or revoked: the app's policy decides again.")
  @OptionGroup var common: Common
  @Argument(help: "The app.") var app: String
  @Argument(help: ArgumentHelp("AREA.VERB[:SCOPE].", valueName: "permission")) var capability: String

  func run() throws { try decide("perm.reset", "is decided by its policy:", app, capability, common) }
}

private func decide(_ method: String, _ words: String, _ app: String, _ capability: String, _ common: Common) throws {
  let answer = try Session(common).connect().ask(
    method, .object(["app": .string(app), "capability": .string(capability)]))
  if common.format == .json { return Output.line(answer.text) }
  Output.line("\(Output.escaped(app)) \(words) \(Output.escaped(answer["capability"]?.stringValue ?? capability))")
}

struct PermissionAudit: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audit",
    abstract: "Show calls that were judged, newest first: denials, and all that privileged apps ask.")
  @OptionGroup var common: Common
  @Option(name: [.customShort("n"), .long], help: "At most so many.") var limit = 100
  @Argument(help: "The app.") var app: String

  func run() throws {
    let answer = try Session(common).connect().ask(
      "perm.audit", .object(["app": .string(app), "limit": .integer(Int64(limit))]))
    let entries = answer["entries"]?.arrayValue ?? []
    guard common.format != .json else {
      for entry in entries { Output.line(entry.text) }
      return
    }
    var table = Table(["TIME", "RUN", "CALL", "CAPABILITY", "DECISION", "BY"])
    for entry in entries {
      let more = entry["more"]?.integerValue ?? 0
      let isAllowed = entry["decision"] == "allowed"
      table.add([
        .init(LocalTime.text(WallTime(nanoseconds: entry["time"]?.integerValue ?? 0))),
        .init("\(entry["run"]?.integerValue ?? 0)"),
        .init(entry["call"]?.stringValue ?? ""), .init(entry["capability"]?.stringValue ?? ""),
        .init((isAllowed ? "allowed" : "denied") + (more > 0 ? " (+\(more))" : ""), isAllowed ? .good : .error),
        .init(entry["rule"]?.stringValue ?? "nothing grants it"),
      ])
    }
    table.print()
  }
}

/// `supervisor calls`
struct CallsVerb: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "calls", abstract: "Print what apps may ask of the supervisor, and the permission each call needs.")
  @OptionGroup var common: Common

  func run() throws {
    let calls = try Session(common).connect().ask("call.list").arrayValue ?? []
    guard common.format != .json else {
      for call in calls { Output.line(call.text) }
      return
    }
    var table = Table(["CALL", "PERMISSION", "ARGUMENTS", "WHAT IT DOES"])
    for call in calls {
      let arguments = (call["arguments"]?.arrayValue ?? []).map { argument in
        (argument["name"]?.stringValue ?? "") + (argument["required"] == true ? "" : "?")
      }
      table.add([
        .init(call["call"]?.stringValue ?? ""), .init(call["capability"]?.stringValue ?? "-"),
        .init(arguments.joined(separator: " ")), .init(call["summary"]?.stringValue ?? ""),
      ])
    }
    table.print()
  }
}
