internal import ContainerHosting
internal import Control
internal import EngineAPI
internal import ImageStorage
internal import Linux
internal import Model
internal import RPC

/// What is ours and nothing uses any more: found, shown with its size, and removed when an operator says so. Its work on files is done on
/// a thread of its own.
actor Leftovers {
  nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  private let loop: EventLoop
  private let layout: InstanceLayout
  private let containers: ContainerHost?
  private let engine: EngineAccess?
  private let images: StoreParts
  private let request: PruneRequest

  /// One thing that can go.
  private struct Item {
    enum Kind: String {
      case container, image, log, data, volume
      case ownImage = "own image"
    }
    var kind: Kind
    var name: String
    /// Nil: not known.
    var bytes: UInt64?
    /// The engine's name of it.
    var id = ""
  }

  init(
    _ layout: InstanceLayout, _ containers: ContainerHost?, _ engine: EngineAccess?, _ images: StoreParts,
    _ request: PruneRequest
  ) throws(SystemFault) {
    self.images = images
    loop = try EventLoop(name: "prune")
    self.layout = layout
    self.containers = containers
    self.engine = engine
    self.request = request
  }

  deinit { loop.stop() }

  /// With `dryRun` nothing is removed. What cannot be is told beside what was.
  func run() async throws(RPCFailure) -> JSONValue {
    var items: [Item] = []
    var notes: [String] = []
    do throws(HostFailure) { items += try await ended() } catch { notes.append("containers: \(error.message)") }
    do throws(EngineFailure) { items += try await unnamed() } catch { notes.append("images: \(error)") }
    items += await unnamedOfOurs()
    items += await files("log", .log, layout.log)
    if request.volumes {
      items += await files("apps", .data, layout.state)
      items += await files("volumes", .volume, layout.state)
    }
    guard !request.dryRun else { return Self.json(items, notes) }
    var removed: [Item] = []
    for item in items {
      if let failure = await remove(item) {
        notes.append("\(item.kind) \(item.name): \(failure)")
      } else {
        removed.append(item)
      }
    }
    return Self.json(removed, notes)
  }

  // MARK: Finding

  private func ended() async throws(HostFailure) -> [Item] {
    guard let containers else { return [] }
    return try await containers.leftovers(besides: await request.known()).map {
      Item(kind: .container, name: $0.name, bytes: nil, id: $0.id)
    }
  }

  private func unnamed() async throws(EngineFailure) -> [Item] {
    guard let engine else { return [] }
    return try await engine.engine().listImages(Filters().adding("dangling", "true")).map {
      Item(
        kind: .image, name: String(($0.id.split(separator: ":").last ?? "").prefix(12)), bytes: UInt64(max(0, $0.size)),
        id: $0.id)
    }
  }

  private func unnamedOfOurs() async -> [Item] {
    let used = await images.used()
    return images.store.images.filter { $0.names.isEmpty && !used.contains($0.id.description) }.map {
      Item(kind: .ownImage, name: String($0.id.hex.prefix(12)), bytes: $0.size, id: $0.id.description)
    }
  }

  /// Folders of apps that are not known, or volumes that no policy mentions.
  private func files(_ parent: String, _ kind: Item.Kind, _ root: String) async -> [Item] {
    let (top, folder) = kind == .log ? (Self.parent(of: root), Self.last(of: root)) : (root, parent)
    guard let names = try? Folder(opening: "\(top)/\(folder)").names() else { return [] }
    var items: [Item] = []
    for name in names.sorted() where await isUnused(name, kind) {
      guard let bytes = Tree.size(folder, name, in: top) else { continue }
      items.append(Item(kind: kind, name: name, bytes: bytes))
    }
    return items
  }

  private func isUnused(_ name: String, _ kind: Item.Kind) async -> Bool {
    switch kind {
    case .volume: return await !request.volumesInUse().contains(name)
    case .log, .data:
      guard let app = AppID(stored: name) else { return false }
      return await !request.known().contains(app)
    case .container, .image, .ownImage: return true
    }
  }

  private static func parent(of path: String) -> String {
    "/" + path.split(separator: "/").dropLast().joined(separator: "/")
  }
  private static func last(of path: String) -> String { path.split(separator: "/").last.map(String.init) ?? "" }

  // MARK: Removing

  /// Why it could not be; nil: it is gone. What has come into use meanwhile stays.
  private func remove(_ item: Item) async -> String? {
    do {
      switch item.kind {
      case .container: try await containers?.removeLeftover(item.id)
      case .image: _ = try await engine?.engine().removeImage(item.id)
      case .ownImage: _ = try await images.store.remove(item.id, used: images.used())
      case .log, .data, .volume:
        guard await isUnused(item.name, item.kind) else { return "it is used again" }
        switch item.kind {
        case .log: _ = try Tree.remove(Self.last(of: layout.log), item.name, in: Self.parent(of: layout.log))
        case .data:
          _ = try Tree.remove("apps", item.name, in: layout.state)
          if let app = AppID(stored: item.name) { await request.releaseIDs(app) }
        default: _ = try Tree.remove("volumes", item.name, in: layout.state)
        }
      }
      return nil
    } catch let failure as EngineFailure {
      if case .conflict = failure { return "a container uses it" }
      return "\(failure)"
    } catch { return "\(error)" }
  }

  private static func json(_ items: [Item], _ notes: [String]) -> JSONValue {
    .object([
      "items": .array(
        items.map {
          .object(["kind": .string($0.kind.rawValue), "name": .string($0.name), "bytes": .optional($0.bytes)])
        }), "bytes": .count(items.reduce(0) { $0 + ($1.bytes ?? 0) }), "notes": .array(notes.map { .string($0) }),
    ])
  }
}
