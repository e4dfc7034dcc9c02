import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// `supervisor attach`
struct Attach: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "attach", abstract: "Show what an app writes from now on, and type into it.",
    discussion: """
      An app whose policy says `stdin_open: true` reads what is typed or piped here; with `tty: true` it sits at a terminal, \
      which has this one's size. Of others only the output is shown: to type into those, run a command in them, \
      `supervisor exec -it APP sh`.

      Ctrl-P Ctrl-Q at a terminal and Ctrl-C without one leave the app running; so does a terminal that vanishes. The end of \
      standard input is not the app's: its output is shown on. Several may be attached to one app at once: all see what it \
      writes, and what they type arrives in the order it comes.

        supervisor attach game-server
        echo save | supervisor attach game-server
      """)
  @OptionGroup var common: Common
  @Flag(help: "Only show what it writes.")
  var noStdin = false
  @Argument(help: "The app.")
  var app: String

  func run() throws {
    let client = try Session(common).connect()
    let row = try client.ask("app.list", .object(["apps": .array([.string(app)])]))["apps"]?.arrayValue?.first ?? .null
    guard row["pid"]?.isNull == false else { throw Failure(7, "\(app) is not running") }
    let takesInput = row["stdin_open"]?.boolValue == true
    guard takesInput, !noStdin, common.format != .json else {
      if !takesInput, !noStdin, Output.errorIsTerminal {
        Output.error("\(app) was started without `stdin_open: true`: only its output is shown")
      }
      return try watch(client)
    }
    let terminal = row["tty"]?.boolValue == true && isatty(0) == 1
    let streams = try CommandSession(client, input: true, terminal: terminal, leaving: .byInterrupt)
    do {
      var arguments = JSONObject()
      arguments["app"] = .string(app)
      _ = try streams.run(arguments, of: "app.attach")
    } catch is CommandSession.Detached {
      if Output.errorIsTerminal { Output.error("left \(app) running") }
    }
  }

  private func watch(_ client: RPCClient) throws {
    let printer = LogPrinter(prefixed: false, timestamps: false, json: common.format == .json)
    let interrupt = try Interrupt()
    do {
      _ = try client.ask(
        "app.logs", .object(["apps": .array([.string(app)]), "follow": true, "tail": 0]), interrupt: interrupt.raw
      ) { printer.take($0) }
    } catch is Interrupt.Caught {}
    printer.finish()
  }
}
