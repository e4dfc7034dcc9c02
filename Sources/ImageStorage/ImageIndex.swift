internal import Linux
package import Model

/// An image as the store has it.
package struct StoredImage: Sendable, Equatable {
  package var id: Digest
  /// Canonical, sorted; empty: its names were given to others since.
  package var names: [String]
  package var layers: [Digest]
  /// Bytes of its files, those that other images share included.
  package var size: UInt64
  package var loaded: WallTime
}

/// What of the store counts: whatever it does not name is left over from a load that did not come to its end, or was removed.
struct ImageIndex: Sendable, Equatable {
  struct Entry: Sendable, Equatable {
    var layers: [Digest]
    var size: UInt64
    var loaded: WallTime
  }
  var images: [Digest: Entry] = [:]
  /// By canonical name.
  var names: [String: Digest] = [:]

  static let file = "index.json"
  static let longest = 64 << 20

  var layers: Set<Digest> { Set(images.values.flatMap(\.layers)) }

  func image(_ id: Digest) -> StoredImage? {
    guard let entry = images[id] else { return nil }
    return StoredImage(
      id: id, names: names.filter { $0.value == id }.map(\.key).sorted(), layers: entry.layers, size: entry.size,
      loaded: entry.loaded)
  }

  var text: [UInt8] {
    var list = JSONObject()
    for (id, entry) in images.sorted(by: { $0.key.hex < $1.key.hex }) {
      list[id.hex] = .object([
        "layers": .array(entry.layers.map { .string($0.hex) }), "size": .count(entry.size),
        "loaded": .integer(entry.loaded.nanoseconds),
      ])
    }
    var named = JSONObject()
    for (name, id) in names.sorted(by: { $0.key < $1.key }) { named[name] = .string(id.hex) }
    var bytes: [UInt8] = []
    JSONValue.object(["version": 1, "images": .object(list), "names": .object(named)]).write(to: &bytes)
    return bytes + [10]
  }

  init() {}

  /// Nil: not what this version writes.
  init?(_ bytes: [UInt8]) {
    guard let json = try? JSONValue(parsing: bytes, limits: .engine), json["version"]?.integerValue == 1,
      let list = json["images"]?.objectValue, let named = json["names"]?.objectValue
    else { return nil }
    for (hex, value) in list {
      let layers = value["layers"]?.arrayValue?.compactMap { $0.stringValue.flatMap { Digest($0) } }
      guard let id = Digest(hex), let layers, layers.count == value["layers"]?.arrayValue?.count,
        let size = value["size"]?.integerValue, let loaded = value["loaded"]?.integerValue
      else { return nil }
      images[id] = Entry(layers: layers, size: UInt64(max(0, size)), loaded: WallTime(nanoseconds: loaded))
    }
    for (name, value) in named {
      guard let id = value.stringValue.flatMap({ Digest($0) }), images[id] != nil else { return nil }
      names[name] = id
    }
  }
}
