import ImageStorage

/// Writes ustar archives by hand, so that they can be wrong in any way.
struct Tar {
  private(set) var bytes: [UInt8] = []

  static let file = UInt8(ascii: "0"), hardLink = UInt8(ascii: "1"), link = UInt8(ascii: "2"),
    character = UInt8(ascii: "3")
  static let block = UInt8(ascii: "4"), folder = UInt8(ascii: "5"), pipe = UInt8(ascii: "6"), pax = UInt8(ascii: "x")

  /// `size`: what the header says, where it is not the truth.
  mutating func add(
    _ name: String, _ type: UInt8 = Tar.file, _ content: [UInt8] = [], mode: Int = 0o755, uid: Int = 0, gid: Int = 0,
    to target: String = "", size: Int? = nil
  ) {
    var header = [UInt8](repeating: 0, count: 512)
    func put(_ text: String, at place: Int, _ room: Int) {
      for (index, byte) in text.utf8.prefix(room).enumerated() { header[place + index] = byte }
    }
    func number(_ value: Int, at place: Int, _ room: Int) {
      let digits = String(value, radix: 8)
      guard digits.utf8.count < room else {
        // Base 256, as GNU tar writes what octal has no room for.
        for index in 0..<room {
          header[place + room - 1 - index] = UInt8(truncatingIfNeeded: value >> (8 * min(index, 7)))
        }
        header[place] = 0x80
        return
      }
      put(String(repeating: "0", count: room - 1 - digits.utf8.count) + digits, at: place, room - 1)
    }
    put(name, at: 0, 100)
    number(mode, at: 100, 8)
    number(uid, at: 108, 8)
    number(gid, at: 116, 8)
    number(size ?? content.count, at: 124, 12)
    number(0, at: 136, 12)
    header[156] = type
    put(target, at: 157, 100)
    put("ustar\u{0}00", at: 257, 8)
    for index in 148..<156 { header[index] = 32 }
    put(String(header.reduce(0) { $0 + Int($1) }, radix: 8), at: 148, 7)
    bytes += header + content + [UInt8](repeating: 0, count: (512 - content.count % 512) % 512)
  }

  /// A PAX record for what follows it.
  mutating func add(pax key: String, _ value: String) {
    let rest = " \(key)=\(value)\n"
    var length = rest.utf8.count + 1
    while "\(length)".utf8.count + rest.utf8.count != length { length += 1 }
    add("pax", Tar.pax, Array("\(length)\(rest)".utf8))
  }

  var ended: [UInt8] { bytes + [UInt8](repeating: 0, count: 1024) }

  func digest() -> Digest { Digest(of: ended) }

  /// A `docker save` of layers, with a configuration that may say more.
  static func image(
    _ layers: [[UInt8]], config: String = "{}", names: [String] = ["test/image:1"], layerNames: [String]? = nil,
    diffs: [Digest]? = nil
  ) -> [UInt8] {
    let diffs = (diffs ?? layers.map { Digest(of: $0) }).map { "\"\($0)\"" }.joined(separator: ",")
    let configuration = Array(
      "{\"os\":\"linux\",\"config\":\(config),\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[\(diffs)]}}".utf8)
    let id = Digest(of: configuration).hex
    var tar = Tar()
    tar.add("\(id).json", Tar.file, configuration)
    for (index, layer) in layers.enumerated() { tar.add("\(index)/layer.tar", Tar.file, layer) }
    let places = (layerNames ?? layers.indices.map { "\($0)/layer.tar" }).map { "\"\($0)\"" }.joined(separator: ",")
    let tags = names.map { "\"\($0)\"" }.joined(separator: ",")
    tar.add(
      "manifest.json", Tar.file,
      Array("[{\"Config\":\"\(id).json\",\"RepoTags\":[\(tags)],\"Layers\":[\(places)]}]".utf8))
    return tar.ended
  }
}
