import ArgumentParser
internal import Client
internal import Converting
internal import Glibc
internal import Linux
internal import Model
internal import Policies
internal import RPC

/// `supervisor import`
struct ImportVerb: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "import", abstract: "Turn a Compose file into policies, one for each service.",
    discussion: """
      Variables are replaced by their values, from the environment and a .env beside the file. What could not be taken over, \
      or means something else now, is reported line by line on standard error and noted in the policies. Where a daemon with \
      an engine answers, what each image's config says (its user, its volumes) is written down too. \
      No file is replaced without --force; --strict writes nothing if anything is lost.
      """)
  @OptionGroup var common: Common
  @Option(
    name: [.customShort("o"), .customLong("output")],
    help: ArgumentHelp("Where the policies go; - prints them.", valueName: "folder"), completion: .directory)
  var output = "policies"
  @Option(help: ArgumentHelp("The stack's name; default: as the file says, else its folder's.", valueName: "name"))
  var project: String?
  @Option(help: ArgumentHelp("Put before every app's id.", valueName: "text")) var prefix = ""
  @Flag(help: "Fail, and write nothing, if anything is dropped or changed.") var strict = false
  @Flag(help: "Replace files that are there.") var force = false
  @Argument(help: "The Compose file.", completion: .file()) var file = "compose.yaml"

  func run() throws {
    let session = try Session(common)
    let path = Environment.absolute(file, in: session.currentFolder)
    let folder = "/" + path.split(separator: "/").dropLast().joined(separator: "/")
    let out = output == "-" ? folder : Environment.absolute(output, in: session.currentFolder)
    var source = ComposeSource(
      path: file, folder: folder, outFolder: out, bytes: try Self.bytes(path), environment: session.environment)
    for (name, value) in try dotEnv(folder) where source.environment[name] == nil { source.environment[name] = value }
    source.project = project
    source.prefix = prefix
    source.images = images(imagesNamed(in: source.bytes, environment: source.environment), session)
    let result = importCompose(source)
    for remark in result.remarks { report(remark) }
    guard result.problems.isEmpty else {
      for problem in result.problems { Output.rawError(problem.rendered(file: file)) }
      throw Failure(2, "\(file) cannot be imported; nothing was written", name: "invalid_compose")
    }
    let losses = result.remarks.count { $0.isLoss }
    if strict, losses > 0 {
      throw Failure(
        1, "\(losses) thing\(losses == 1 ? " is" : "s are") lost; nothing was written",
        hint: "change the file, or import without --strict", name: "loss")
    }
    if output == "-" { print(result) } else { try write(result, out) }
  }

  private func report(_ remark: Remark) {
    guard common.format == .json else {
      Output.rawError(Output.escaped(remark.rendered, keepingLines: true))
      return
    }
    Output.errorLine(remark.json.text)
  }

  private static func bytes(_ path: String) throws -> [UInt8] {
    do throws(SystemFault) { return try File.read(path, limit: 1 << 20 + 1, orOwnPipe: true) } catch
      where error.code == ENOENT
    {
      throw Failure(2, "there is no file \(path)", hint: "name the Compose file: `supervisor import FILE`")
    } catch { throw Failure(1, "the file cannot be read: \(error)", hint: "check its permissions and size") }
  }

  /// `.env` beside the file, if there is one.
  private func dotEnv(_ folder: String) throws -> [(String, String)] {
    let bytes: [UInt8]
    do throws(SystemFault) { bytes = try File.read("\(folder)/.env", limit: 1 << 20) } catch  where error.code == ENOENT
    {
      return []
    } catch { throw Failure(1, "the .env beside the file cannot be read: \(error)", hint: "check its permissions") }
    guard let pairs = assignments(in: bytes) else {
      throw Failure(2, "\(folder)/.env is not lines of NAME=VALUE")
    }
    return pairs
  }

  /// What the engine knows of these images; nothing where no daemon or no engine answers.
  private func images(_ names: [String], _ session: Session) -> [String: ImageFacts] {
    // best effort: what is not known is said in the report.
    guard !names.isEmpty, let client = try? session.daemon.connect() else { return [:] }
    var facts: [String: ImageFacts] = [:]
    for name in names {
      // best effort: as above.
      guard let image = try? client.call("image.inspect", .object(["reference": .string(name)])) else { continue }
      facts[name] = ImageFacts(
        user: image["user"]?.stringValue ?? "",
        volumes: (image["volumes"]?.arrayValue ?? []).compactMap(\.stringValue),
        stopSignal: image["stop_signal"]?.stringValue ?? "")
    }
    return facts
  }

  private func print(_ result: Import) {
    for (place, file) in result.files.enumerated() {
      if common.format == .json {
        Output.line(JSONValue.object(["file": .string(file.name), "content": .string(file.text)]).text)
      } else {
        if place > 0 { Output.line("---") }
        Output.raw(file.text)
      }
    }
  }

  private func write(_ result: Import, _ out: String) throws {
    if !force, let there = result.files.first(where: { File.exists("\(out)/\($0.name)") }) {
      throw Failure(
        1, "\(out)/\(there.name) is there already; nothing was written",
        hint: "choose another folder with -o, or replace it with --force")
    }
    do throws(SystemFault) {
      let folder = try Folder(making: out, mode: 0o755)
      for file in result.files {
        let parts = file.name.split(separator: "/").map(String.init)
        let mode: UInt32 = file.isPrivate ? 0o600 : 0o644
        if parts.count == 2 {
          // What an app is shown it must be able to read, whoever it is; nobody else gets past the folder.
          try folder.folder(parts[0], making: 0o700).replace(parts[1], with: Array(file.text.utf8), mode: 0o644)
        } else {
          try folder.replace(file.name, with: Array(file.text.utf8), mode: mode)
        }
      }
    } catch { throw Failure(1, "the policies cannot be written: \(error)", hint: "check the folder's permissions") }
    for file in result.files {
      if common.format == .json {
        Output.line(JSONValue.object(["written": .string("\(out)/\(file.name)")]).text)
      } else {
        Output.line("\(out)/\(file.name)")
      }
    }
    guard common.format != .json else { return }
    Output.error("Look at them, then: supervisor up \(output)")
  }
}

extension Remark {
  /// The keys of a loss report.
  var json: JSONValue {
    .object([
      "file": .string(file), "line": .count(line), "column": .count(column), "app": .string(app), "key": .string(key),
      "kind": .string(kind.rawValue), "message": .string(reason),
    ])
  }
}
