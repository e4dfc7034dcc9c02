import ArgumentParser
internal import Client
internal import Glibc
internal import Model
internal import RPC

/// `supervisor prune`
struct Prune: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "prune", abstract: "Remove what is left over: containers, images and logs that nothing uses.",
    discussion: """
      Ended containers of this instance whose app is gone, images without a name that no container uses, and logs of apps that \
      are gone. With --volumes also volumes that no policy names, and the data of apps that are gone: what `down` left there on \
      purpose. Nothing of an app that is known is touched, and nothing of anybody else.

      What would go is shown first, with how much it frees; -y does it without asking, --dry-run only shows.

        supervisor prune --dry-run --volumes
        supervisor prune -y
      """)
  @OptionGroup var common: Common
  @Flag(name: [.customShort("y"), .long], help: "Do not ask.") var yes = false
  @Flag(help: "Only show what would be removed.") var dryRun = false
  @Flag(help: "Also volumes that no policy names, and data of apps that are gone.") var volumes = false

  func run() throws {
    let client = try Session(common).connect()
    if dryRun || !yes {
      let found = try ask(client, dryRun: true)
      if dryRun || common.format != .json { show(found) }
      guard !dryRun, found["items"]?.arrayValue?.isEmpty == false else { return }
      guard isatty(0) == 1 else {
        throw Failure(2, "this removes what is listed", hint: "add -y to do it without being asked")
      }
      Output.rawError("Remove all of this? [y/N] ")
      guard let answer = readLine(), ["y", "yes"].contains(answer.lowercased()) else {
        throw Failure(1, "nothing was done")
      }
    }
    let done = try ask(client, dryRun: false)
    if common.format == .json { return Output.line(done.text) }
    if yes { show(done) }
    Output.line("\((done["items"]?.arrayValue ?? []).count) removed, \(size(done["bytes"])) freed")
  }

  private func ask(_ client: RPCClient, dryRun: Bool) throws -> JSONValue {
    try client.ask("daemon.prune", .object(["volumes": .bool(volumes), "dry_run": .bool(dryRun)]))
  }

  private func size(_ value: JSONValue?) -> String {
    value?.integerValue.map { Bytes(UInt64(clamping: $0)).readable } ?? "-"
  }

  private func show(_ found: JSONValue) {
    if common.format == .json { return Output.line(found.text) }
    for note in found["notes"]?.arrayValue ?? [] { Output.error(Output.escaped(note.stringValue ?? "")) }
    let items = found["items"]?.arrayValue ?? []
    guard !items.isEmpty else { return Output.line("nothing is left over") }
    var table = Table(["KIND", "NAME", "SIZE"])
    for item in items {
      table.add([
        .init(item["kind"]?.stringValue ?? ""), .init(item["name"]?.stringValue ?? ""), .init(size(item["bytes"])),
      ])
    }
    table.print()
    if dryRun { Output.line("\(items.count) can go, \(size(found["bytes"])) would be freed") }
  }
}
