import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// `supervisor exec`
struct Exec: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "exec", abstract: "Run a command inside a running app.",
    discussion: """
      The command has what the app has and no more: its limits, its files, its user, its network. It ends with the app, and \
      when this program goes away.

      What stands after APP is the command's own: options of `exec` come before it.

        supervisor exec db psql -l
        supervisor exec -it web sh
        supervisor exec -i db psql < dump.sql

      Exit codes: the command's own; 128 + n when signal n ended it; 124 when its time was over; 125 when it could not be \
      tried, 126 when it may not be executed, 127 when it is not there; 4 no such app, 7 the app is not running.
      """)
  @OptionGroup var common: Common
  @Flag(name: [.customShort("i"), .long], help: "Pass standard input on.")
  var interactive = false
  @Flag(name: [.customShort("t"), .long], help: "Give the command a terminal.")
  var tty = false
  @Option(
    name: [.customShort("e"), .long],
    help: ArgumentHelp("A variable; NAME alone takes its value from here.", valueName: "name=value"))
  var env: [String] = []
  @Option(
    name: [.customShort("u"), .customLong("as")],
    help: ArgumentHelp("Another of the app's own users.", valueName: "uid[:gid]"))
  var user: String?
  @Option(name: [.customShort("w"), .long], help: ArgumentHelp("The folder it starts in.", valueName: "path"))
  var workdir: String?
  @Option(help: ArgumentHelp("Kill it after this long.", valueName: "duration"))
  var timeout: String?
  @Argument(help: "The app.")
  var app: String
  @Argument(parsing: .captureForPassthrough, help: "The command and its arguments.")
  var command: [String]

  mutating func validate() throws {
    if command.first == "--" { command.removeFirst() }
    guard !command.isEmpty else { throw ValidationError("name the command to run") }
    if tty, interactive, isatty(0) == 0 {
      throw ValidationError("-t needs a terminal on standard input; leave it out to pipe")
    }
  }

  func run() throws {
    let session = try Session(common)
    let inside = CommandSession.self
    let client = try session.connect()
    let command = try inside.init(client, input: interactive, terminal: tty)
    let answer = try command.run(
      ExecArguments.make(
        app, self.command, env: env, user: user, folder: workdir, timeout: timeout, terminal: tty, session))
    let code = Int32(truncatingIfNeeded: answer["exit_code"]?.integerValue ?? 125)
    if code != 0 { throw ExitCode(code) }
  }
}

/// The arguments of `app.exec` as verbs write them.
enum ExecArguments {
  static func make(
    _ app: String, _ command: [String], env: [String], user: String?, folder: String?, timeout: String?, terminal: Bool,
    _ session: Session
  ) throws -> JSONObject {
    var variables = JSONObject()
    if terminal, let kind = session.environment["TERM"], !kind.isEmpty { variables["TERM"] = .string(kind) }
    for entry in env {
      let parts = entry.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
      guard let name = parts.first, !name.isEmpty else { throw ValidationError("-e '\(entry)' has no name") }
      guard let value = parts.count > 1 ? parts[1] : session.environment[name] else { continue }
      variables[name] = .string(value)
    }
    var arguments = JSONObject()
    arguments["app"] = .string(app)
    arguments["command"] = .array(command.map { .string($0) })
    arguments["environment"] = .object(variables)
    arguments["user"] = user.map { .string($0) }
    arguments["folder"] = folder.map { .string($0) }
    if let timeout {
      guard let limit = Duration(parsing: timeout) else {
        throw ValidationError("--timeout '\(timeout)' is not a duration such as 30s")
      }
      arguments["timeout_ms"] = .integer(limit.wholeNanoseconds / 1_000_000)
    }
    return arguments
  }
}
