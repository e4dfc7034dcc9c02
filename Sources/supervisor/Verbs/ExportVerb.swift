import ArgumentParser
internal import Client
internal import Converting
internal import Linux
internal import Model
internal import Policies
internal import RPC

extension ExportFormat: ExpressibleByArgument {}

/// `supervisor export`
struct ExportVerb: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "export", abstract: "Write policies as a Compose file, Quadlet units or Kubernetes manifests.",
    discussion: """
      Presets are written out, so that the same limits hold there. What the other format cannot say, or says otherwise, is \
      reported line by line on standard error. Needs no daemon, but for --applied.
      """)
  @OptionGroup var common: Common
  @Option(help: ArgumentHelp("compose, quadlet or kubernetes.", valueName: "format")) var to: ExportFormat
  @Option(
    name: [.customShort("o"), .customLong("output")],
    help: ArgumentHelp("Write files into this folder instead of printing them.", valueName: "folder"),
    completion: .directory)
  var output: String?
  @Flag(help: "Fail, and write nothing, if anything is dropped or changed.") var strict = false
  @Flag(help: "Replace files that are there.") var force = false
  @Option(help: ArgumentHelp("The applied copy of an app, instead of files.", valueName: "app")) var applied: [String] =
    []
  @Argument(help: "Policy files and folders.", completion: .file()) var paths: [String] = []

  func run() throws {
    let result = Converting.export(try sources(), to: to)
    for remark in result.remarks {
      if common.format == .json {
        Output.errorLine(remark.json.text)
      } else {
        Output.rawError(Output.escaped(remark.rendered, keepingLines: true))
      }
    }
    let losses = result.remarks.count { $0.isLoss }
    if strict, losses > 0 {
      throw Failure(
        1, "\(losses) thing\(losses == 1 ? " is" : "s are") lost; nothing was written",
        hint: "change the policies, or export without --strict", name: "loss")
    }
    guard !result.files.isEmpty else { throw Failure(1, "no policy could be exported") }
    if let output { try write(result, output) } else { print(result) }
  }

  private func sources() throws -> [ExportSource] {
    guard !applied.isEmpty else {
      let checked = try CheckedFiles(paths, common)
      try checked.requireNoErrors()
      return checked.readings.compactMap { entry in
        guard let policy = entry.reading.policy, let canonical = entry.reading.canonical else { return nil }
        return ExportSource(policy: policy, canonical: canonical, file: entry.file.source.path)
      }
    }
    guard paths.isEmpty else { throw ValidationError("--applied and files exclude each other") }
    let client = try Session(common).connect()
    return try applied.map { app in
      let answer = try client.ask("app.config", .object(["app": .string(app)]))
      guard let document = try? JSONValue(parsing: Array((answer["canonical"]?.stringValue ?? "").utf8)),
        let policy = readApplied(document).policy
      else {
        throw Failure(1, "the applied copy of \(app) cannot be read", hint: "load its file again with `supervisor up`")
      }
      return ExportSource(policy: policy, canonical: document, file: app)
    }
  }

  private func print(_ result: Export) {
    for (place, file) in result.files.enumerated() {
      if common.format == .json {
        Output.line(JSONValue.object(["file": .string(file.name), "content": .string(file.text)]).text)
        continue
      }
      if place > 0 { Output.line(to == .kubernetes ? "---" : "") }
      if result.files.count > 1 { Output.line("# \(file.name)") }
      Output.raw(file.text)
    }
  }

  private func write(_ result: Export, _ output: String) throws {
    let out = Environment.absolute(output, in: Environment.currentFolder())
    if !force, let there = result.files.first(where: { File.exists("\(out)/\($0.name)") }) {
      throw Failure(
        1, "\(out)/\(there.name) is there already; nothing was written",
        hint: "choose another folder with -o, or replace it with --force")
    }
    do throws(SystemFault) {
      let folder = try Folder(making: out, mode: 0o755)
      // Environments stand in them.
      for file in result.files { try folder.replace(file.name, with: Array(file.text.utf8), mode: 0o600) }
    } catch { throw Failure(1, "the files cannot be written: \(error)", hint: "check the folder's permissions") }
    for file in result.files {
      if common.format == .json {
        Output.line(JSONValue.object(["written": .string("\(out)/\(file.name)")]).text)
      } else {
        Output.line("\(out)/\(file.name)")
      }
    }
  }
}
