internal import Model

/// One image as its archive lists it: where its configuration and layers are among the archive's members.
struct ListedImage: Equatable {
  var configuration: String
  /// Lowest first.
  var layers: [String]
  var names: [String]
}

/// Reading what lists the images of an archive: `manifest.json` of `docker save` and `podman save`, or `index.json` of an OCI layout
/// (image-layout.md). `read` gives a member's bytes by its name, nil if it is not there, and refuses one that is too long or does not
/// have the digest it is named by.
struct ManifestReader {
  let limits: ImageLimits
  let read: (String) throws(ImageProblem) -> [UInt8]?
  /// How deep one index may name another.
  private static let deepest = 4

  func images() throws(ImageProblem) -> [ListedImage] {
    if let bytes = try read("manifest.json") { return try docker(Self.parse(bytes, "manifest.json")) }
    if let bytes = try read("index.json") { return try index(Self.parse(bytes, "index.json"), names: [], depth: 0) }
    throw .malformed(
      "this is no image: the archive holds neither manifest.json (docker save, podman save) nor index.json (OCI layout)"
    )
  }

  static func parse(_ bytes: [UInt8], _ name: String) throws(ImageProblem) -> JSONValue {
    do throws(JSONSyntaxError) {
      return try JSONValue(parsing: bytes, limits: JSONLimits(depth: 32, keys: 100_000, elements: 100_000))
    } catch {
      throw .malformed("\(name) is \(error)")
    }
  }

  private func docker(_ json: JSONValue) throws(ImageProblem) -> [ListedImage] {
    guard let list = json.arrayValue, !list.isEmpty else { throw .malformed("manifest.json lists no image") }
    guard list.count <= limits.images else { throw tooManyImages(list.count) }
    var images: [ListedImage] = []
    for item in list {
      guard let configuration = item["Config"]?.stringValue, let layers = item["Layers"]?.arrayValue else {
        throw .malformed("manifest.json names no configuration or no layers")
      }
      images.append(
        ListedImage(
          configuration: configuration, layers: try texts(layers, "manifest.json"),
          names: try names(item["RepoTags"]?.arrayValue?.compactMap(\.stringValue) ?? [])))
    }
    return images
  }

  private func index(_ json: JSONValue, names: [String], depth: Int) throws(ImageProblem) -> [ListedImage] {
    guard let list = json["manifests"]?.arrayValue, !list.isEmpty else { throw .malformed("an index lists no image") }
    guard depth < Self.deepest else { throw .tooMuch("indexes name each other more than \(Self.deepest) deep") }
    let fitting = list.filter { Self.isForThisMachine($0) }
    guard !fitting.isEmpty else { throw .refused("the archive holds no image for Linux on \(Self.architecture)") }
    guard fitting.count <= limits.images else { throw tooManyImages(fitting.count) }
    var images: [ListedImage] = []
    for item in fitting {
      let member = try Self.blob(item, "an index")
      guard let bytes = try read(member) else {
        throw .malformed("\(member) is named by an index and not in the archive")
      }
      let inner = try Self.parse(bytes, member)
      let named = Self.annotatedNames(item)
      let names = named.isEmpty ? names : try self.names(named)
      if inner["manifests"] != nil {
        images += try index(inner, names: names, depth: depth + 1)
      } else {
        images.append(try manifest(inner, member, names))
      }
      guard images.count <= limits.images else { throw tooManyImages(images.count) }
    }
    return images
  }

  private func manifest(_ json: JSONValue, _ member: String, _ names: [String]) throws(ImageProblem) -> ListedImage {
    guard let configuration = json["config"], let layers = json["layers"]?.arrayValue else {
      throw .malformed("\(member) is no image manifest")
    }
    guard layers.count <= limits.layers else { throw tooManyLayers(layers.count) }
    var places: [String] = []
    for layer in layers { places.append(try Self.blob(layer, member)) }
    return ListedImage(configuration: try Self.blob(configuration, member), layers: places, names: names)
  }

  private func tooManyImages(_ count: Int) -> ImageProblem {
    .tooMuch("the archive holds \(count) images; \(limits.images) are allowed in one")
  }

  private func tooManyLayers(_ count: Int) -> ImageProblem {
    .tooMuch("an image has \(count) layers; \(limits.layers) are allowed")
  }

  private func texts(_ values: [JSONValue], _ place: String) throws(ImageProblem) -> [String] {
    guard values.count <= limits.layers else { throw tooManyLayers(values.count) }
    let texts = values.compactMap(\.stringValue)
    guard texts.count == values.count else { throw .malformed("\(place) names a layer that is no text") }
    return texts
  }

  private func names(_ names: [String]) throws(ImageProblem) -> [String] {
    guard names.count <= 64 else { throw .tooMuch("an image has \(names.count) names; 64 are allowed") }
    for name in names where !ImageName.isValid(name) {
      throw .refused("'\(LayerWriter.shown(Array(name.utf8)))' is no name for an image")
    }
    return names
  }

  /// containerd and docker write the whole name, others what the archive's reader is to call it by.
  private static func annotatedNames(_ item: JSONValue) -> [String] {
    let notes = item["annotations"]
    if let whole = notes?["io.containerd.image.name"]?.stringValue { return [whole] }
    guard let name = notes?["org.opencontainers.image.ref.name"]?.stringValue else { return [] }
    // Often the tag alone, which names nothing.
    return name.contains("/") || name.contains(":") ? [name] : []
  }

  private static func blob(_ descriptor: JSONValue, _ place: String) throws(ImageProblem) -> String {
    guard let text = descriptor["digest"]?.stringValue, text.hasPrefix("sha256:"), let digest = Digest(text) else {
      throw .malformed("\(place) names something without a sha256 digest")
    }
    return "blobs/sha256/\(digest.hex)"
  }

  private static func isForThisMachine(_ item: JSONValue) -> Bool {
    guard let platform = item["platform"] else { return true }
    let system = platform["os"]?.stringValue ?? "linux"
    return system == "linux" && (platform["architecture"]?.stringValue ?? architecture) == architecture
  }

  #if arch(arm64)
    static let architecture = "arm64"
  #else
    static let architecture = "amd64"
  #endif
}

/// Names of images as people write them.
package enum ImageName {
  /// `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`, ASCII.
  package static func isValid(_ text: String) -> Bool {
    guard let first = text.utf8.first, text.utf8.count <= 512, isAlphanumeric(first) else { return false }
    return text.utf8.allSatisfy { isAlphanumeric($0) || "._-/:@".utf8.contains($0) } && !text.contains("..")
      && !text.hasSuffix(":") && !text.hasSuffix("/") && !text.hasSuffix("@")
  }

  private static func isAlphanumeric(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
  }

  /// One spelling for all of the same: `busybox`, `docker.io/library/busybox:latest` and podman's `localhost/busybox` are one.
  package static func canonical(_ text: String) -> String {
    var name = text
    for prefix in ["docker.io/library/", "docker.io/", "localhost/"] where name.hasPrefix(prefix) {
      name = String(name.dropFirst(prefix.count))
      break
    }
    let last = name.split(separator: "/").last ?? ""
    return last.contains(":") || last.contains("@") ? name : name + ":latest"
  }
}
