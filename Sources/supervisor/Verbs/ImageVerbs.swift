import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import RPC

struct Images: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "images", abstract: "List the images of the engine and of the supervisor's own store.",
    subcommands: [List.self, Adopt.self], defaultSubcommand: List.self)

  struct List: ParsableCommand {
    static let configuration = CommandConfiguration(commandName: "list", abstract: "List them (the default).")
    @OptionGroup var common: Common
    func run() throws { try Images.list(common) }
  }

  struct Adopt: ImageWork {
    static let configuration = CommandConfiguration(
      commandName: "adopt", abstract: "Copy an image from the engine into the supervisor's own store.",
      discussion: """
        An app with that image then also runs where no engine answers (`fallback: native`), or by `runtime: native`.
        """)
    @OptionGroup var common: Common
    @Argument(help: "The image, NAME[:TAG].") var image: String
    func run() throws { try work("image.adopt", .object(["reference": .string(image)]), "adopted") }
  }

  static func list(_ common: Common) throws {
    let answer = try Session(common).connect().ask("image.list")
    let images = answer["images"]?.arrayValue ?? []
    for note in answer["notes"]?.arrayValue ?? [] { Output.error("note: \(Output.escaped(note.stringValue ?? ""))") }
    if common.format == .json {
      for image in images { Output.line(image.text) }
      return
    }
    var table = Table(["IMAGE", "ID", "CREATED", "SIZE", "STORE"])
    for image in images {
      let age =
        image["created"]?.integerValue.map {
          Clock.wall().since(WallTime(nanoseconds: $0 * 1_000_000_000)).readable + " ago"
        } ?? "-"
      let id = (image["id"]?.stringValue ?? "").split(separator: ":").last.map { String($0.prefix(12)) } ?? ""
      let tags = (image["tags"]?.arrayValue ?? []).compactMap(\.stringValue)
      for tag in tags.isEmpty ? ["<none>"] : tags {
        table.add([
          .init(tag), .init(id), .init(age), .init(Bytes(UInt64(max(0, image["size"]?.integerValue ?? 0))).readable),
          .init(image["store"]?.stringValue ?? "-"),
        ])
      }
    }
    table.print()
  }
}

/// What pulls, loads and builds share: steps with progress, then one line.
protocol ImageWork: ParsableCommand {
  var common: Common { get }
}

extension ImageWork {
  /// `path`: what is opened with the caller's own rights and passed to the daemon as `fd`.
  func work(_ method: String, _ arguments: JSONValue, _ title: String, passing path: String? = nil) throws {
    let opened = try path.map { try Self.open($0) }
    let client = try Session(common).connect()
    let interrupt = try Interrupt()
    let view = LayerView(json: common.format == .json)
    do {
      let answer = try Self.with(opened) {
        try client.ask(method, arguments, descriptors: $0, interrupt: interrupt.raw) { view.take($0) }
      }
      view.end()
      if common.format == .json {
        Output.line(answer.text)
      } else {
        Output.line("\(title) \(Output.escaped(answer["id"]?.stringValue ?? "done"))")
        for note in answer["notes"]?.arrayValue ?? [] {
          Output.error("note: \(Output.escaped(note.stringValue ?? ""))")
        }
      }
    } catch is Interrupt.Caught {
      view.end()
      throw Failure(130, "interrupted", hint: "nothing is left half-made; run it again to go on")
    }
  }

  private static func open(_ path: String) throws -> SharedDescriptor {
    do throws(SystemFault) {
      return SharedDescriptor(
        Descriptor(owning: try check("open", path) { Glibc.open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY) }))
    } catch { throw Failure(1, "\(error)", hint: "check the path and its permissions") }
  }

  private static func with(_ opened: SharedDescriptor?, _ body: ([Int32]) throws -> JSONValue) throws -> JSONValue {
    guard let opened else { return try body([]) }
    return try opened.withRaw { try body([$0]) }
  }
}

/// Layers or build steps as they come.
final class LayerView {
  private let json: Bool
  private let live: Bool
  private var layers: [(item: String, text: String)] = []
  private var drawn = 0

  init(json: Bool) {
    self.json = json
    live = !json && Output.errorIsTerminal && Output.errorStyle
  }

  func take(_ step: JSONValue) {
    if json {
      Output.line(step.text)
      return
    }
    let item = step["item"]?.stringValue ?? ""
    let status = step["status"]?.stringValue ?? ""
    var text = status
    if let done = step["done"]?.integerValue, let total = step["total"]?.integerValue, total > 0 {
      text += " " + ProgressView.bar([item: (UInt64(done), UInt64(total))])
    } else if !live {
      Output.error(Output.escaped(item.isEmpty ? status : "\(item): \(status)"))
    }
    guard live else { return }
    if item.isEmpty {
      if drawn > 0 { Output.rawError("\u{1B}[\(drawn)A\u{1B}[J") }
      Output.error(Output.escaped(status))
      drawn = 0
    } else if let place = layers.firstIndex(where: { $0.item == item }) {
      layers[place].text = text
    } else {
      layers.append((item, text))
    }
    draw()
  }

  func end() { drawn = 0 }

  private func draw() {
    var text = drawn > 0 ? "\u{1B}[\(drawn)A" : ""
    let width = max(20, Output.columns(2))
    for layer in layers {
      text += "\u{1B}[2K" + Output.escaped("\(layer.item)  \(layer.text)").prefix(width - 1) + "\n"
    }
    drawn = layers.count
    Output.rawError(text)
  }
}

struct Pull: ImageWork {
  static let configuration = CommandConfiguration(commandName: "pull", abstract: "Pull an image through the engine.")
  @OptionGroup var common: Common
  @Argument(help: "The image, NAME[:TAG].") var image: String
  func run() throws { try work("image.pull", .object(["reference": .string(image)]), "pulled") }
}

struct Load: ImageWork {
  static let configuration = CommandConfiguration(
    commandName: "load",
    abstract:
      "Load an image archive (docker save, podman save, OCI layout) into the engine or the supervisor's own store.",
    discussion: """
      Without --into: into the engine if there is one, else into the supervisor's own store, which native apps run from. The archive may \
      be compressed by gzip or zstd. Of an archive that is damaged, forged or too big nothing is kept.
      """)
  enum Place: String, ExpressibleByArgument, CaseIterable { case engine, store }
  @OptionGroup var common: Common
  @Option(help: "Where to: engine or store.") var into: Place?
  @Argument(help: "The archive.", completion: .file()) var file: String

  func run() throws {
    let session = try Session(common)
    try work(
      "image.load", .object(["fd": 0, "into": into.map { .string($0.rawValue) }]), "loaded",
      passing: Environment.absolute(file, in: session.currentFolder))
  }
}

struct RemoveImage: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "rmi", abstract: "Remove an image, or one of its names, from the supervisor's own store.",
    discussion:
      "What an app's policy names or runs from stays. The engine's images are removed by the engine's own command.")
  @OptionGroup var common: Common
  @Argument(help: "NAME[:TAG], or an id or its first 12 digits.") var images: [String]

  func run() throws {
    let client = try Session(common).connect()
    for image in images {
      let answer = try client.ask("image.remove", .object(["reference": .string(image)]))
      if common.format == .json {
        Output.line(answer.text)
        continue
      }
      for name in answer["untagged"]?.arrayValue ?? [] { Output.line("untagged \(name.stringValue ?? "")") }
      for id in answer["removed"]?.arrayValue ?? [] { Output.line("removed \(id.stringValue ?? "")") }
    }
  }
}

struct Build_: ImageWork {
  static let configuration = CommandConfiguration(commandName: "build", abstract: "Build an image through the engine.")
  @OptionGroup var common: Common
  @Option(name: [.customShort("t"), .long], help: "The image's name.") var tag: String
  @Option(name: [.customShort("f"), .customLong("file")], help: "The Dockerfile, relative to the folder.")
  var dockerfile = "Dockerfile"
  @Option(help: ArgumentHelp("A build argument.", valueName: "key=value")) var buildArg: [String] = []
  @Argument(help: "The folder that is sent.", completion: .directory) var folder: String

  func run() throws {
    let session = try Session(common)
    var values = JSONObject()
    for argument in buildArg {
      let parts = argument.split(separator: "=", maxSplits: 1).map(String.init)
      guard parts.count == 2 else { throw ValidationError("--build-arg takes KEY=VALUE") }
      values[parts[0]] = .string(parts[1])
    }
    try work(
      "image.build",
      .object([
        "fd": 0, "dockerfile": .string(dockerfile), "tag": .string(tag), "arguments": .object(values),
      ]), "built \(tag)", passing: Environment.absolute(folder, in: session.currentFolder))
  }
}
