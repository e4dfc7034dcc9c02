import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import RPC

struct PermissionWatch: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "watch", abstract: "Show what apps ask for, and on a terminal take your answers.",
    discussion: """
      Without an answer within 30 s it is a no. once: for its next use; session: for this run; always and never: from now on, until \
      `perm reset`. `perm answer` answers without a terminal.
      """)
  @OptionGroup var common: Common
  @Flag(help: "Only print what waits for an answer now.") var now = false

  private struct Left: Error {}

  func run() throws {
    let interrupt = try Interrupt()
    let session = try Session(common)
    let client = try session.connect()
    let asks = !now && common.format != .json && isatty(0) == 1 && Output.isTerminal
    if asks { Output.line(Style.dim.on("Waiting for apps to ask; Ctrl-C ends.")) }
    do {
      _ = try client.ask("perm.watch", .object(["follow": .bool(!now)]), interrupt: interrupt.raw) { item in
        if common.format == .json { return Output.line(item.text) }
        let app = Style.accent.on(Output.escaped(item["app"]?.stringValue ?? ""))
        let id = Output.escaped(item["request"]?.stringValue ?? "")
        if let over = item["over"]?.stringValue {
          return Output.line(Style.dim.on("\(id) is over: \(Output.escaped(over))"))
        }
        Output.line("\(app) asks for \(Style.bold.on(Output.escaped(item["capability"]?.stringValue ?? ""))) (\(id))")
        let reason = item["reason"]?.stringValue ?? ""
        Output.line(reason.isEmpty ? "  it gives no reason" : "  in its own words: \"\(Output.escaped(reason))\"")
        if asks { try answer(item, session, interrupt) }
      }
    } catch is Interrupt.Caught {} catch is Left {}
  }

  private func answer(_ item: JSONValue, _ session: Session, _ interrupt: Interrupt) throws {
    let expires = (item["expires_at"]?.integerValue ?? 0) / 1_000_000
    // Nothing typed before it was asked is an answer to it.
    tcflush(0, TCIFLUSH)
    while true {
      Output.raw("  [o]nce, [s]ession, [a]lways, [n]ever, Enter leaves it open: ")
      guard let typed = try line(until: expires, interrupt) else { return Output.line("") }
      guard !typed.isEmpty else { return }
      guard let word = ["once", "session", "always", "never"].first(where: { $0.hasPrefix(typed) }) else { continue }
      do {
        _ = try session.connect().ask(
          "perm.answer", .object(["request": item["request"] ?? .null, "answer": .string(word)]))
      } catch let failure as Failure { failure.report() }
      return
    }
  }

  /// What was typed, in lower case; nil: the time is over.
  private func line(until expires: Int64, _ interrupt: Interrupt) throws -> String? {
    var waits = [
      pollfd(fd: 0, events: Int16(POLLIN), revents: 0), pollfd(fd: interrupt.raw, events: Int16(POLLIN), revents: 0),
    ]
    let left = expires - Clock.wall().nanoseconds / 1_000_000
    guard poll(&waits, 2, Int32(clamping: max(0, left))) > 0 else { return nil }
    guard waits[1].revents == 0, let typed = readLine() else { throw Left() }
    return typed.lowercased()
  }
}

struct PermissionAnswer: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "answer", abstract: "Answer what an app asks for: once, session, always or never.")
  @OptionGroup var common: Common
  @Argument(help: "The question, as `perm watch` shows it.") var request: String
  @Argument(help: "once, session, always or never.") var answer: String

  func run() throws {
    let result = try Session(common).connect().ask(
      "perm.answer", .object(["request": .string(request), "answer": .string(answer)]))
    if common.format == .json { return Output.line(result.text) }
    Output.line(
      "\(Output.escaped(result["app"]?.stringValue ?? "")) is answered: \(answer) "
        + Output.escaped(result["capability"]?.stringValue ?? ""))
  }
}
