package import Model

/// An image's name as people write it, taken apart: `host:port/path:tag` or `path@digest`.
package struct ImageReference: Sendable, Hashable, CustomStringConvertible {
  package var name: String
  /// A tag (`latest` when none is written) or a digest (`sha256:…`).
  package var tag: String

  package init(_ text: String) {
    if let at = text.firstIndex(of: "@") {
      // A tag before a digest says nothing more than the digest.
      name = Self.split(String(text[..<at])).name
      tag = String(text[text.index(after: at)...])
    } else {
      let (name, tag) = Self.split(text)
      self.name = name
      self.tag = tag ?? "latest"
    }
  }

  private static func split(_ text: String) -> (name: String, tag: String?) {
    let afterSlash = text.lastIndex(of: "/").map { text.index(after: $0) } ?? text.startIndex
    guard let colon = text[afterSlash...].lastIndex(of: ":") else { return (text, nil) }
    return (String(text[..<colon]), String(text[text.index(after: colon)...]))
  }

  package var description: String { tag.contains(":") ? "\(name)@\(tag)" : "\(name):\(tag)" }
}

/// What an image says of itself.
package struct ImageDetails: Sendable, Equatable {
  /// `sha256:…`.
  package var id: String
  package var tags: [String]
  package var digests: [String]
  package var created: WallTime?
  package var architecture: String
  package var operatingSystem: String
  /// Bytes.
  package var size: Int64
  package var user: String
  package var entrypoint: [String]
  package var command: [String]
  package var environment: [String]
  package var workingDirectory: String
  package var stopSignal: String
  package var labels: [String: String]
  /// `8080/tcp`.
  package var exposedPorts: [String]
  /// Paths that would become anonymous volumes.
  package var volumes: [String]
  /// The check the image asks for; its test is never `image`.
  package var healthcheck: Healthcheck?
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    let config = json["Config"] ?? .null
    id = json.text("Id")
    tags = json.texts("RepoTags")
    digests = json.texts("RepoDigests")
    created = WallTime(rfc3339: json.text("Created"))
    architecture = json.text("Architecture")
    operatingSystem = json.text("Os")
    size = json.whole("Size")
    user = config.text("User")
    entrypoint = config.texts("Entrypoint")
    command = config.texts("Cmd")
    environment = config.texts("Env")
    workingDirectory = config.text("WorkingDir")
    stopSignal = config.text("StopSignal")
    labels = config.textMap("Labels")
    exposedPorts = config["ExposedPorts"]?.objectValue?.keys ?? []
    volumes = config["Volumes"]?.objectValue?.keys ?? []
    healthcheck = config["Healthcheck"].flatMap { Healthcheck(image: $0) }
  }
}

/// A line of `GET /images/json`.
package struct ImageSummary: Sendable, Equatable {
  package var id: String
  package var tags: [String]
  package var digests: [String]
  package var size: Int64
  package var labels: [String: String]
  package var created: WallTime
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    id = json.text("Id")
    tags = json.texts("RepoTags").filter { $0 != "<none>:<none>" }
    digests = json.texts("RepoDigests")
    size = json.whole("Size")
    labels = json.textMap("Labels")
    created = WallTime(nanoseconds: json.whole("Created") &* 1_000_000_000)
  }
}

/// What removing or pruning images did.
package struct RemovedImages: Sendable, Equatable {
  package var untagged: [String] = []
  package var deleted: [String] = []

  init(_ reports: [JSONValue]) {
    for report in reports {
      if let name = report["Untagged"]?.stringValue { untagged.append(name) }
      if let id = report["Deleted"]?.stringValue { deleted.append(id) }
      // Podman's prune reports.
      if let id = report["Id"]?.stringValue { deleted.append(id) }
    }
  }
}

extension Healthcheck {
  /// An image's `Config.Healthcheck`; nil if it asks for nothing that can be understood. Durations are nanoseconds, 0 the default.
  init?(image json: JSONValue) {
    let words = json.texts("Test")
    switch words.first {
    case "CMD" where words.count > 1: self.init(.command(Array(words.dropFirst())))
    case "CMD-SHELL" where words.count == 2: self.init(.command(["/bin/sh", "-c", words[1]]))
    default: return nil
    }
    func duration(_ key: String, atLeast least: Duration) -> Duration? {
      let value = json.whole(key)
      return value > 0 ? min(max(.nanoseconds(value), least), .seconds(86_400)) : nil
    }
    interval = duration("Interval", atLeast: .milliseconds(100))
    timeout = duration("Timeout", atLeast: .milliseconds(10))
    startPeriod = duration("StartPeriod", atLeast: .milliseconds(1))
    startInterval = duration("StartInterval", atLeast: .milliseconds(10))
    let count = json.whole("Retries")
    retries = count > 0 ? UInt32(clamping: count) : nil
  }
}
