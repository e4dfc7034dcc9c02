package import Model

/// A network to create.
package struct NetworkSpec: Sendable, Equatable {
  package var name: String
  package var driver = "bridge"
  /// Without a way out of the host.
  package var isInternal = false
  package var ipv6 = false
  /// `10.1.0.0/24`; nil: the Engine chooses.
  package var subnet: String?
  package var gateway: String?
  package var labels: [String: String] = [:]
  package var options: [String: String] = [:]

  package init(name: String) { self.name = name }

  var json: JSONValue {
    let pool: JSONValue? = subnet.map {
      .object(["Subnet": .string($0), "Gateway": gateway.map { .string($0) }])
    }
    return .object([
      "Name": .string(name), "Driver": .string(driver), "Internal": .bool(isInternal), "EnableIPv6": .bool(ipv6),
      "CheckDuplicate": true, "Labels": .textMap(labels), "Options": .textMap(options),
      "IPAM": pool.map { .object(["Config": .array([$0])]) },
    ])
  }
}

/// A network as the Engine tells it.
package struct NetworkDetails: Sendable, Equatable {
  package var id: String
  package var name: String
  package var driver: String
  package var isInternal: Bool
  package var labels: [String: String]
  package var subnets: [String]
  /// Addresses (with their prefix length) by container id. Podman may leave it empty.
  package var containers: [String: String]
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    id = json.text("Id")
    name = json.text("Name")
    driver = json.text("Driver")
    isInternal = json.flag("Internal")
    labels = json.textMap("Labels")
    subnets = json["IPAM"]?.list("Config").map { $0.text("Subnet") } ?? []
    var addresses: [String: String] = [:]
    for (id, container) in json["Containers"]?.objectValue ?? JSONObject() {
      addresses[id] = container.text("IPv4Address")
    }
    containers = addresses
  }
}

/// Networks: `/networks`. A network is named by its id or name.
extension Engine {
  /// `POST /networks/create`. Returns the id; a name that is taken is `conflict` (Podman may say `refused`).
  package func createNetwork(_ spec: NetworkSpec) async throws(EngineFailure) -> String {
    var request = request(.post, "/networks/create", "create network \(spec.name)")
    request.body = .json(spec.json)
    let answer = try await document(request)
    guard let id = answer["Id"]?.stringValue, !id.isEmpty else {
      throw .malformed(operation: request.operation, what: "it names no network")
    }
    return id
  }

  /// `GET /networks/{id}`.
  package func inspectNetwork(_ id: String) async throws(EngineFailure) -> NetworkDetails {
    NetworkDetails(try await document(request(.get, "/networks/\(Request.encode(id))", "inspect network \(id)")))
  }

  /// `GET /networks`.
  package func listNetworks(_ filters: Filters = Filters()) async throws(EngineFailure) -> [NetworkDetails] {
    var request = request(.get, "/networks", "list networks")
    request.query = filters.query
    request.limit = transport.limits.listing
    return try await document(request).arrayValue?.map { NetworkDetails($0) } ?? []
  }

  /// `POST /networks/{id}/connect`.
  package func connectNetwork(_ id: String, container: String, _ endpoint: NetworkEndpoint = NetworkEndpoint())
    async throws(EngineFailure)
  {
    var request = request(
      .post, "/networks/\(Request.encode(id))/connect", "connect container \(container) to network \(id)")
    request.body = .json(.object(["Container": .string(container), "EndpointConfig": endpoint.json]))
    try await perform(request)
  }

  /// `POST /networks/{id}/disconnect`.
  package func disconnectNetwork(_ id: String, container: String, force: Bool = false) async throws(EngineFailure) {
    var request = request(
      .post, "/networks/\(Request.encode(id))/disconnect", "disconnect container \(container) from network \(id)")
    request.body = .json(.object(["Container": .string(container), "Force": .bool(force)]))
    try await perform(request)
  }

  /// `DELETE /networks/{id}`. Docker answers 403 (`refused`) while a container is in it.
  package func removeNetwork(_ id: String) async throws(EngineFailure) {
    try await perform(request(.delete, "/networks/\(Request.encode(id))", "remove network \(id)"))
  }

  /// `POST /networks/prune`: removes unused networks that match. Returns their names.
  package func pruneNetworks(_ filters: Filters) async throws(EngineFailure) -> [String] {
    var request = request(.post, "/networks/prune", "prune networks")
    request.query = filters.query
    return try await pruned(request, "NetworksDeleted")
  }
}
