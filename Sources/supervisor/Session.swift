import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import Policies
internal import RPC

/// A verb's failure: what is printed, and the exit code.
struct Failure: Error {
  var code: Int32
  var message: String
  var hint: String?
  var name = "failed"

  init(_ code: Int32, _ message: String, hint: String? = nil, name: String = "failed") {
    self.code = code
    self.message = message
    self.hint = hint
    self.name = name
  }

  init(_ unreachable: Unreachable) {
    self.init(
      unreachable.code, unreachable.message, hint: unreachable.hint,
      name: unreachable.code == 4 ? "denied" : "unreachable")
  }

  init(_ answer: RPCFailure) {
    let code: Int32 =
      switch answer.code {
      case RPCFailure.Code.notFound.rawValue, RPCFailure.Code.denied.rawValue: 4
      case RPCFailure.Code.conflict.rawValue where answer.data?["reason"] == "not_running": 7
      case RPCFailure.Code.invalidParameters.rawValue: 2
      case RPCFailure.Code.timedOut.rawValue: 124
      default: 1
      }
    self.init(code, answer.message, hint: answer.hint, name: "\(answer.code)")
  }

  func report() {
    if Output.json {
      Output.errorLine(
        JSONValue.object([
          "error": .object([
            "code": .string(name), "message": .string(message), "hint": hint.map { .string($0) } ?? .null,
          ])
        ]).text)
      return
    }
    Output.error("\(Style.error.on("error:", Output.errorStyle)) \(Output.escaped(message))")
    if let hint, !hint.isEmpty { Output.error("\(Style.dim.on("hint:", Output.errorStyle)) \(Output.escaped(hint))") }
  }
}

/// How a verb prints.
enum Format: ExpressibleByArgument, Equatable {
  case table, json
  /// `ps` only: text with `{{.key}}` for each row's value, keys as in JSON.
  case template(String)

  init?(argument: String) {
    switch argument {
    case "table": self = .table
    case "json": self = .json
    default:
      guard argument.contains("{{") else { return nil }
      self = .template(argument)
    }
  }

  var defaultValueDescription: String { "table" }
}
enum Ansi: String, ExpressibleByArgument, CaseIterable { case auto, always, never }

/// What every verb takes.
struct Common: ParsableArguments {
  @Option(help: ArgumentHelp("Keep one instance under DIR (config, state, run, log).", valueName: "dir"))
  var root: String?

  @Flag(help: "The system's instance (default for root).")
  var system = false

  @Flag(help: "Your own instance (default for others).")
  var user = false

  @Option(help: ArgumentHelp("How to print: table, json, or for ps a text with {{.key}}.", valueName: "format"))
  var format: Format = .table

  @Option(help: "Colours: auto is on a terminal only; NO_COLOR turns them off.")
  var ansi: Ansi = .auto

  /// Set by `ps` alone, which is the only verb with rows to fill in.
  private var takesTemplate: Bool { CommandLine.arguments.contains("ps") }

  mutating func validate() throws {
    guard [system, user, root != nil].count(where: { $0 }) <= 1 else {
      throw ValidationError("--root, --system and --user exclude each other")
    }
    Output.json = format == .json
    if case .template = format, !takesTemplate { throw ValidationError("only `ps` takes a template") }
    Output.choose(ansi)
  }
}

/// One verb's way to its daemon.
struct Session {
  let daemon: Daemon
  let environment: [String: String]
  let currentFolder: String

  init(_ common: Common) throws {
    environment = Environment.all()
    currentFolder = Environment.currentFolder()
    let place: InstancePlace =
      if let root = common.root ?? (common.system || common.user ? nil : environment["SUPERVISOR_ROOT"]) {
        .root(Environment.absolute(root, in: currentFolder))
      } else if common.system {
        .system
      } else if common.user {
        .user
      } else {
        getuid() == 0 ? .system : .user
      }
    guard let folders = place.folders(environment, uid: getuid()) else {
      throw Failure(78, "HOME is not set, so your own instance has no place", hint: "set HOME, or use --root DIR")
    }
    daemon = Daemon(place: place, folders: folders, programs: Environment.programFolder())
  }

  func connect() throws -> RPCClient {
    do throws(Unreachable) { return try daemon.connect() } catch { throw Failure(error) }
  }

  func connectStarting(engine: String?) throws -> RPCClient {
    do throws(Unreachable) { return try daemon.connectStarting(engine: engine) } catch { throw Failure(error) }
  }
}

extension RPCClient {
  /// Calls, with the daemon's failures as the verb's.
  func ask(
    _ method: String, _ parameters: JSONValue = .object([:]), descriptors: [Int32] = [], interrupt: Int32 = -1,
    item: (JSONValue) throws -> Void = { _ in }
  ) throws -> JSONValue {
    do {
      return try call(method, parameters, descriptors: descriptors, interrupt: interrupt, item: item)
    } catch Stop.answered(let failure) {
      throw Failure(failure)
    } catch Stop.disconnected(let why) {
      throw Failure(
        69, "the daemon went away: \(why)", hint: "apps run on; `supervisor up -d` starts a daemon again",
        name: "unreachable")
    }
  }
}

/// The process's surroundings.
enum Environment {
  static func all() -> [String: String] {
    var variables: [String: String] = [:]
    var entry = environ
    while let text = entry.pointee {
      let pair = String(cString: text)
      if let equals = pair.firstIndex(of: "=") {
        variables[String(pair[..<equals])] = String(pair[pair.index(after: equals)...])
      }
      entry = entry.advanced(by: 1)
    }
    return variables
  }

  static func currentFolder() -> String {
    guard let folder = getcwd(nil, 0) else { return "/" }
    defer { free(folder) }
    return String(cString: folder)
  }

  /// `path` from the root, `.` and `..` resolved by text.
  static func absolute(_ path: String, in folder: String) -> String { absolutePath(path, in: folder) }

  /// Where this program's file is.
  static func programFolder() -> String {
    guard let path = realpath("/proc/self/exe", nil) else { return "/usr/bin" }
    defer { free(path) }
    return String(String(cString: path).split(separator: "/").dropLast().reduce("") { "\($0)/\($1)" })
  }
}
