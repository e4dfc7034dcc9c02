package import Linux
package import Model

/// A version of the Engine's API, `1.41`.
package struct APIVersion: Sendable, Hashable, Comparable, CustomStringConvertible {
  package var major: Int
  package var minor: Int

  package init(_ major: Int, _ minor: Int) {
    self.major = major
    self.minor = minor
  }

  /// Reads `1.41`; nil for anything else.
  package init?(parsing text: String) {
    let parts = text.split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
    guard parts.count == 2, let major = parts[0], let minor = parts[1], major >= 0, minor >= 0 else { return nil }
    self.init(major, minor)
  }

  package static func < (left: APIVersion, right: APIVersion) -> Bool {
    (left.major, left.minor) < (right.major, right.minor)
  }

  package var description: String { "\(major).\(minor)" }

  /// The oldest that is spoken: Docker 20.10, Podman 4.
  package static let oldest = APIVersion(1, 41)
  /// The newest whose changes this client was written against; a newer Engine is spoken to in this one.
  package static let newest = APIVersion(1, 47)

  /// The version to speak with an Engine that has `oldest...newest`; throws `unsupported` when there is none.
  package static func negotiated(oldest: APIVersion?, newest: APIVersion) throws(EngineFailure) -> APIVersion {
    guard newest >= Self.oldest else {
      throw .unsupported(
        "the engine speaks API \(newest) at most; \(Self.oldest) is needed. Use Docker 20.10 or Podman 4, or newer")
    }
    if let oldest, oldest > Self.newest {
      throw .unsupported(
        "the engine speaks API \(oldest) and newer; this program knows \(Self.newest) at most. Update it")
    }
    return min(newest, Self.newest)
  }
}

/// One Engine, reached and understood. A value: copies share the connections. Any number of calls may run at a time, from any task;
/// each is cancelled with its task. Everything is of API v1.41 unless it says otherwise.
package struct Engine: Sendable {
  let transport: Transport
  let imageHealthchecks = ImageHealthchecks()
  package let endpoint: EngineEndpoint
  /// Which program answers.
  package let flavour: EngineFlavour
  /// The version spoken in every call.
  package let apiVersion: APIVersion
  /// What this Engine does otherwise than the API says.
  package var differences: EngineDifferences { EngineDifferences(flavour) }

  /// Connects, asks who answers (`GET /_ping`) and settles the version. An Engine that is replaced by another program or version
  /// while this value lives is found by connecting again. `close` it before the loop is stopped: what waits then would wait for ever.
  package static func connect(to endpoint: EngineEndpoint, on loop: EventLoop, limits: EngineLimits = EngineLimits())
    async throws(EngineFailure) -> Engine
  {
    let transport = try Transport(socket: endpoint.socket, limits: limits, loop: loop)
    let ping = try await Self.ping(transport)
    var oldest: APIVersion?
    if ping.apiVersion > .newest {
      let version = try await transport.document(Request(.get, "/version", "tell its version"))
      oldest = version["MinAPIVersion"]?.stringValue.flatMap { APIVersion(parsing: $0) }
    }
    let spoken = try APIVersion.negotiated(oldest: oldest, newest: ping.apiVersion)
    return Engine(transport: transport, endpoint: endpoint, flavour: ping.flavour, apiVersion: spoken)
  }

  /// What `/_ping` says.
  package struct Ping: Sendable, Equatable {
    /// The newest version the Engine speaks.
    package var apiVersion: APIVersion
    package var flavour: EngineFlavour
    /// The Engine's `Server` header: its name and version.
    package var server: String
  }

  /// Asks whether the Engine answers. About 100 µs over a kept connection.
  package func ping(within time: Duration? = nil) async throws(EngineFailure) -> Ping {
    try await Self.ping(transport, within: time)
  }

  private static func ping(_ transport: Transport, within time: Duration? = nil) async throws(EngineFailure) -> Ping {
    var request = Request(.get, "/_ping", "answer a ping")
    if let time { request.deadline = .after(time) }
    request.limit = 4096
    let answer = try await transport.call(request)
    let headers = answer.head.headers
    guard let text = headers["api-version"], let version = APIVersion(parsing: text) else {
      throw .malformed(operation: request.operation, what: "it has no Api-Version")
    }
    let server = headers["server"] ?? ""
    let podman = headers["libpod-api-version"] != nil || server.hasPrefix("Libpod")
    let flavour: EngineFlavour = podman ? .podman : (server.hasPrefix("Docker") ? .docker : .other)
    return Ping(apiVersion: version, flavour: flavour, server: server)
  }

  /// Ends every call and stream of this value and its copies with `cancelled`.
  package func close() async { await transport.close() }

  /// `GET /version`.
  package func version() async throws(EngineFailure) -> EngineVersion {
    let document = try await document(request(.get, "/version", "tell its version"))
    return EngineVersion(document)
  }

  /// `GET /info`: what this Engine and its host can do.
  package func info() async throws(EngineFailure) -> EngineInfo {
    EngineInfo(try await document(request(.get, "/info", "describe itself")))
  }

  // MARK: How the calls in the other files are made

  /// A request with the version in its path. `path` is percent-encoded already.
  func request(_ method: Request.Method, _ path: String, _ operation: String) -> Request {
    Request(method, "/v\(apiVersion)\(path)", operation)
  }

  func document(_ request: Request) async throws(EngineFailure) -> JSONValue { try await transport.document(request) }

  /// A call whose answer has nothing to read. Returns whether anything changed: 304 says that it was so already.
  @discardableResult
  func perform(_ request: Request) async throws(EngineFailure) -> Bool {
    try await transport.call(request).head.status != 304
  }
}

extension Transport {
  /// Calls and reads the answer as one JSON document.
  func document(_ request: Request) async throws(EngineFailure) -> JSONValue {
    let answer = try await call(request)
    return try parse(answer.body, request)
  }

  nonisolated private func parse(_ bytes: [UInt8], _ request: Request) throws(EngineFailure) -> JSONValue {
    do throws(JSONSyntaxError) { return try JSONValue(parsing: bytes, limits: .engine) } catch {
      throw .malformed(operation: request.operation, what: "\(error)")
    }
  }
}

/// What `/version` says.
package struct EngineVersion: Sendable, Equatable {
  package var version: String
  package var apiVersion: String
  package var minimumAPIVersion: String
  package var operatingSystem: String
  package var architecture: String
  package var kernel: String
  /// Name and version of each part (Engine, containerd, runc, conmon, OCI runtime).
  package var components: [(name: String, version: String)]
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    version = json.text("Version")
    apiVersion = json.text("ApiVersion")
    minimumAPIVersion = json.text("MinAPIVersion")
    operatingSystem = json.text("Os")
    architecture = json.text("Arch")
    kernel = json.text("KernelVersion")
    components = json.list("Components").map { ($0.text("Name"), $0.text("Version")) }
  }

  package static func == (left: EngineVersion, right: EngineVersion) -> Bool { left.json == right.json }
}

/// What `/info` says.
package struct EngineInfo: Sendable, Equatable {
  /// Where the Engine keeps its data.
  package var root: String
  package var cgroupDriver: String
  /// 1 or 2.
  package var cgroupVersion: String
  package var storageDriver: String
  package var defaultRuntime: String
  package var securityOptions: [String]
  /// It runs as an ordinary user.
  package var isRootless: Bool
  package var cpus: Int64
  package var memory: Int64
  package var containers: Int64
  package var images: Int64
  package var liveRestore: Bool
  package var warnings: [String]
  /// Random, made by the Engine once.
  package var id: String
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    root = json.text("DockerRootDir")
    cgroupDriver = json.text("CgroupDriver")
    cgroupVersion = json.text("CgroupVersion")
    storageDriver = json.text("Driver")
    defaultRuntime = json.text("DefaultRuntime")
    securityOptions = json.texts("SecurityOptions")
    // Docker says it among the options, podman beside them.
    isRootless = json["Rootless"]?.boolValue == true || securityOptions.contains { $0.contains("rootless") }
    cpus = json.whole("NCPU")
    memory = json.whole("MemTotal")
    containers = json.whole("Containers")
    images = json.whole("Images")
    liveRestore = json.flag("LiveRestoreEnabled")
    warnings = json.texts("Warnings")
    id = json.text("ID")
  }
}

/// Members of an answer, read leniently: an Engine leaves out what is empty, and `null` is the same as absent.
extension JSONValue {
  func text(_ key: String) -> String { self[key]?.stringValue ?? "" }
  func whole(_ key: String) -> Int64 { self[key]?.integerValue ?? 0 }
  func flag(_ key: String) -> Bool { self[key]?.boolValue ?? false }
  func list(_ key: String) -> [JSONValue] { self[key]?.arrayValue ?? [] }
  func texts(_ key: String) -> [String] { list(key).compactMap(\.stringValue) }

  func textMap(_ key: String) -> [String: String] {
    var result: [String: String] = [:]
    for (name, value) in self[key]?.objectValue ?? JSONObject() { result[name] = value.stringValue ?? "" }
    return result
  }

  /// A list of strings; nil stays out of the document.
  static func texts(_ values: [String]?) -> JSONValue? { values.map { .array($0.map { .string($0) }) } }

  /// An object of strings in the order of its keys.
  static func textMap(_ values: [String: String]) -> JSONValue {
    var object = JSONObject()
    for (key, value) in values.sorted(by: { $0.key < $1.key }) { object[key] = .string(value) }
    return .object(object)
  }
}
