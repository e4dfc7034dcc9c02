import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// `supervisor debug`
struct Debug: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "debug", abstract: "Run a shell, or a command, in the place of an app's program.",
    discussion: """
      The app is stopped first, and its program replaced by the command: mounts, user, network, ports and limits are the app's \
      own. It works as well for an app that crashes at once, has failed or is stopped. Until the command ends nothing restarts \
      the app; then it becomes what it was wanted to be before, also when this program or its terminal goes away. Health checks, \
      `ready`, `pre_start`, `depends_on` and `max_runtime` do not count meanwhile; other apps wait for it as if it were not there.

      Without CMD it is /bin/sh. What stands after APP is the command's own: options of `debug` come before it. At a terminal \
      -it is meant.

        supervisor debug db
        supervisor debug web ls -ln /data
        supervisor debug -i db sh < repair.sh

      Exit codes: the command's own; 128 + n when signal n ended it; 125 when it could not be tried, 126 when it may not be \
      executed, 127 when it is not there; 4 no such app.
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
  @Argument(help: "The app.")
  var app: String
  @Argument(parsing: .captureForPassthrough, help: "The command and its arguments; default: /bin/sh.")
  var command: [String] = []

  mutating func validate() throws {
    if command.first == "--" { command.removeFirst() }
    if !interactive, !tty, isatty(0) == 1, isatty(1) == 1 { (interactive, tty) = (true, true) }
    if tty, interactive, isatty(0) == 0 {
      throw ValidationError("-t needs a terminal on standard input; leave it out to pipe")
    }
  }

  func run() throws {
    let session = try Session(common)
    let inside = try CommandSession(try session.connect(), input: interactive, terminal: tty)
    let words = command.isEmpty ? ["/bin/sh"] : command
    if Output.errorIsTerminal {
      Output.error("\(app) makes room for \(words[0]); until that ends nothing restarts it")
    }
    let answer = try inside.run(
      ExecArguments.make(
        app, words, env: env, user: nil, folder: nil, timeout: nil, terminal: tty, session), of: "app.debug")
    let code = Int32(truncatingIfNeeded: answer["exit_code"]?.integerValue ?? 125)
    if code != 0 { throw ExitCode(code) }
  }
}
