import ArgumentParser
internal import Linux
internal import Model
internal import Policies

/// `supervisor policy score`
struct PolicyScore: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "score", abstract: "Say how exposed the host is to an app: 0 is tight, 10 is exposed.",
    discussion:
      "Each layer with its weight, how far the policy opens it, and what that adds. A path is judged without a daemon, as on a host "
      + "that can enforce all of it; an app as it is applied, with what is missing while it runs. With --threshold the exit code is 1 "
      + "if any score is above it.")
  @OptionGroup var common: Common
  @Option(help: ArgumentHelp("Fail above this, 0 to 10.", valueName: "score")) var threshold: Double?
  @Argument(help: "Policy files, folders and apps.", completion: .file()) var subjects: [String] = []

  func validate() throws {
    if let threshold, !(0...10).contains(threshold) { throw ValidationError("--threshold is a number from 0 to 10") }
  }

  func run() throws {
    var scores: [(name: String, score: Score)] = []
    let paths = subjects.filter { Self.isPath($0) }
    if !paths.isEmpty || subjects.isEmpty {
      let checked = try CheckedFiles(paths, common)
      try checked.requireNoErrors()
      for entry in checked.readings {
        if let policy = entry.reading.policy { scores.append((policy.id.name, Score(policy))) }
      }
    }
    for app in subjects where !Self.isPath(app) { scores.append((app, try applied(app))) }
    for (place, entry) in scores.enumerated() {
      if Output.json { json(entry.name, entry.score) } else { table(entry.name, entry.score, isFirst: place == 0) }
    }
    if scores.contains(where: { exceeds($0.score) }) { throw ExitCode(1) }
  }

  private static func isPath(_ subject: String) -> Bool {
    subject.contains("/") || subject.hasSuffix(".yaml") || subject.hasSuffix(".yml") || AppID(subject) == nil
      || File.exists(subject)
  }

  private func applied(_ app: String) throws -> Score {
    let client = try Session(common).connect()
    let answer = try client.ask("app.config", .object(["app": .string(app)]))
    let text = answer["canonical"]?.stringValue ?? "{}"
    // best effort: told just below.
    let document = try? JSONValue(parsing: Array(text.utf8))
    guard let policy = document.flatMap({ readApplied($0).policy }) else {
      throw Failure(1, "the applied copy of \(app) cannot be read", hint: "`supervisor up` its policy file again")
    }
    let status = try client.ask("app.status", .object(["app": .string(app)]))
    return Score(policy).degraded(by: (status["missing"]?.arrayValue ?? []).compactMap(\.stringValue))
  }

  private func exceeds(_ score: Score) -> Bool { threshold.map { score.value > $0 } ?? false }

  private func json(_ name: String, _ score: Score) {
    Output.line(
      JSONValue.object([
        "name": .string(name), "score": .number(score.value), "word": .string(score.word),
        "scale": "0 is tight, 10 is exposed", "threshold": threshold.map { .number($0) } ?? .null,
        "exceeds": .bool(exceeds(score)),
        "layers": .array(
          score.layers.map { layer in
            .object([
              "layer": .string(layer.name), "weight": .number(layer.weight), "exposure": .number(layer.exposure),
              "cost": .number((score.cost(layer) * 100).rounded() / 100), "why": .string(layer.why),
            ])
          }),
      ]).text)
  }

  private func table(_ name: String, _ score: Score, isFirst: Bool) {
    if !isFirst { Output.line("") }
    var table = Table(["LAYER", "WEIGHT", "OPEN", "COST", "WHY"])
    for layer in score.layers {
      let style: Style = layer.exposure == 0 ? .good : layer.exposure < 0.5 ? .warning : .error
      table.add([
        Table.Cell(layer.name), Table.Cell(Self.decimal(layer.weight)),
        Table.Cell("\(Int((layer.exposure * 100).rounded()))%", style), Table.Cell(Self.decimal(score.cost(layer))),
        Table.Cell(layer.why),
      ])
    }
    table.print()
    let limit = exceeds(score) ? "; above the threshold \(Self.decimal(threshold ?? 0))" : ""
    Output.line(
      "\(Style.bold.on(name)): exposure \(Self.decimal(score.value)) of 10, \(score.word) (0 is tight, 10 is exposed)\(limit)"
    )
  }

  /// One digit after the point.
  private static func decimal(_ value: Double) -> String {
    let tenths = Int((value * 10).rounded())
    return "\(tenths / 10).\(tenths % 10)"
  }
}
