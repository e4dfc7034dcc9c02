internal import Glibc
internal import Model

/// What an image says of itself (OCI image specification, config.md): who runs what, where, with which variables.
package struct ImageConfiguration: Sendable, Equatable {
  /// Digests of the unpacked layers, lowest first.
  package var layers: [Digest]
  package var environment: [(name: String, value: String)]
  package var entrypoint: [String]
  package var command: [String]
  /// Absolute; `/` where the image says nothing.
  package var workingDirectory: String
  /// `user[:group]`, names or numbers; empty: root.
  package var user: String
  package var labels: [String: String]
  package var stopSignal: String
  /// Paths that the image wants to be writable and its own.
  package var volumes: [String]
  package var ports: [String]
  package var created: String

  package static func == (left: ImageConfiguration, right: ImageConfiguration) -> Bool {
    left.layers == right.layers && left.environment.elementsEqual(right.environment, by: ==)
      && left.entrypoint == right.entrypoint && left.command == right.command
      && left.workingDirectory == right.workingDirectory && left.user == right.user && left.labels == right.labels
      && left.stopSignal == right.stopSignal && left.volumes == right.volumes && left.ports == right.ports
  }

  /// Reads and checks; whatever a sandbox would have to be warned of is refused here, before anything is made of it.
  package init(_ bytes: [UInt8], _ limits: ImageLimits = ImageLimits()) throws(ImageProblem) {
    guard bytes.count <= limits.document else {
      throw .tooMuch("the image's configuration is longer than the \(limits.document >> 20) MiB that are allowed")
    }
    let json = try ManifestReader.parse(bytes, "the image's configuration")
    if let system = json["os"]?.stringValue, !system.isEmpty, system != "linux" {
      throw .refused("the image is for \(Self.shown(system)), not Linux")
    }
    if let machine = json["architecture"]?.stringValue, !machine.isEmpty, machine != ManifestReader.architecture {
      throw .refused("the image is for \(Self.shown(machine)), and this machine is \(ManifestReader.architecture)")
    }
    guard let list = json["rootfs"]?["diff_ids"]?.arrayValue else {
      throw .malformed("the image's configuration names no layers")
    }
    guard list.count <= limits.layers else {
      throw .tooMuch("an image has \(list.count) layers; \(limits.layers) are allowed")
    }
    layers = []
    for item in list {
      guard let text = item.stringValue, text.hasPrefix("sha256:"), let digest = Digest(text) else {
        throw .malformed("the image's configuration names a layer without a sha256 digest")
      }
      layers.append(digest)
    }
    let config = json["config"] ?? .null
    created = json["created"]?.stringValue ?? ""
    environment = try Self.environment(config)
    entrypoint = try Self.words(config["Entrypoint"], "Entrypoint")
    command = try Self.words(config["Cmd"], "Cmd")
    workingDirectory = try Self.folder(config["WorkingDir"]?.stringValue ?? "")
    user = try Self.user(config["User"]?.stringValue ?? "")
    labels = [:]
    for (key, value) in config["Labels"]?.objectValue ?? JSONObject() { labels[key] = value.stringValue ?? "" }
    stopSignal = config["StopSignal"]?.stringValue ?? ""
    volumes = try Self.volumes(config["Volumes"]?.objectValue?.keys ?? [])
    ports = (config["ExposedPorts"]?.objectValue?.keys ?? []).sorted()
  }

  private static func shown(_ text: String) -> String { LayerWriter.shown(Array(text.utf8)) }

  private static func words(_ value: JSONValue?, _ key: String) throws(ImageProblem) -> [String] {
    guard let value, !value.isNull else { return [] }
    guard let list = value.arrayValue, list.count <= 4096 else {
      throw .malformed("the image's \(key) is no list of words")
    }
    let words = list.compactMap(\.stringValue)
    guard words.count == list.count, words.allSatisfy({ !$0.utf8.contains(0) }) else {
      throw .malformed("the image's \(key) is no list of words")
    }
    return words
  }

  private static func environment(_ config: JSONValue) throws(ImageProblem) -> [(name: String, value: String)] {
    try words(config["Env"], "Env").map { (word) throws(ImageProblem) in
      let parts = word.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      guard parts.count == 2, !parts[0].isEmpty else {
        throw .malformed("the image's variable '\(shown(word))' is not NAME=VALUE")
      }
      return (String(parts[0]), String(parts[1]))
    }
  }

  /// Below these lie links to what a runtime has open, or what is not the image's.
  private static func folder(_ text: String) throws(ImageProblem) -> String {
    guard !text.isEmpty else { return "/" }
    guard !text.utf8.contains(0), text.utf8.count < 4096 else {
      throw .malformed("the image's working folder is no path")
    }
    var parts: [Substring] = []
    for part in text.split(separator: "/") where part != "." {
      guard part != ".." else { throw .refused("the image's working folder \(shown(text)) goes through ..") }
      parts.append(part)
    }
    let folder = "/" + parts.joined(separator: "/")
    for kernel in ["/proc", "/sys", "/dev"] where folder == kernel || folder.hasPrefix(kernel + "/") {
      throw .refused("the image's working folder \(shown(folder)) leads out of the app's own files")
    }
    return folder
  }

  private static func user(_ text: String) throws(ImageProblem) -> String {
    guard text.utf8.count <= 256, text.utf8.allSatisfy({ $0 > 32 && $0 < 127 }) else {
      throw .malformed("the image's user '\(shown(text))' is none")
    }
    return text
  }

  private static func volumes(_ paths: [String]) throws(ImageProblem) -> [String] {
    guard paths.count <= 256 else { throw .tooMuch("the image has \(paths.count) volumes; 256 are allowed") }
    var volumes: [String] = []
    for path in paths {
      let parts = path.split(separator: "/")
      guard path.hasPrefix("/"), !path.utf8.contains(0), !parts.contains(".."), !parts.contains(".") else {
        throw .refused("the image's volume \(shown(path)) is no plain absolute path")
      }
      let whole = "/" + parts.joined(separator: "/")
      guard !parts.isEmpty else { throw .refused("the image declares its whole root a volume") }
      for kernel in ["/proc", "/sys", "/dev", "/run/supervisor"] where whole == kernel || whole.hasPrefix(kernel + "/")
      {
        throw .refused("the image declares \(whole) a volume, which the supervisor makes")
      }
      volumes.append(whole)
    }
    return volumes.sorted()
  }
}
