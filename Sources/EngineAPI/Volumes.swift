package import Model

/// A volume as the Engine tells it.
package struct VolumeDetails: Sendable, Equatable {
  package var name: String
  package var driver: String
  /// Where its files are on the host.
  package var mountpoint: String
  package var labels: [String: String]
  package var options: [String: String]
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    name = json.text("Name")
    driver = json.text("Driver")
    mountpoint = json.text("Mountpoint")
    labels = json.textMap("Labels")
    options = json.textMap("Options")
  }
}

/// Volumes: `/volumes`.
extension Engine {
  /// `POST /volumes/create`. A volume of that name that is there already is returned as it is; compare its labels.
  package func createVolume(
    _ name: String, labels: [String: String] = [:], driver: String = "local", options: [String: String] = [:]
  ) async throws(EngineFailure) -> VolumeDetails {
    var request = request(.post, "/volumes/create", "create volume \(name)")
    request.body = .json(
      .object([
        "Name": .string(name), "Driver": .string(driver), "Labels": .textMap(labels), "DriverOpts": .textMap(options),
      ]))
    // Options can hold a remote file system's password.
    request.secrets = options.values.filter { $0.utf8.count >= 4 }
    return VolumeDetails(try await document(request))
  }

  /// `GET /volumes/{name}`.
  package func inspectVolume(_ name: String) async throws(EngineFailure) -> VolumeDetails {
    VolumeDetails(try await document(request(.get, "/volumes/\(Request.encode(name))", "inspect volume \(name)")))
  }

  /// `GET /volumes`.
  package func listVolumes(_ filters: Filters = Filters()) async throws(EngineFailure) -> [VolumeDetails] {
    var request = request(.get, "/volumes", "list volumes")
    request.query = filters.query
    request.limit = transport.limits.listing
    return try await document(request).list("Volumes").map { VolumeDetails($0) }
  }

  /// `DELETE /volumes/{name}` with everything in it. 409 `conflict`: a container uses it.
  package func removeVolume(_ name: String) async throws(EngineFailure) {
    try await perform(request(.delete, "/volumes/\(Request.encode(name))", "remove volume \(name)"))
  }

  /// `POST /volumes/prune`: removes unused volumes that match, named ones too. Returns their names.
  package func pruneVolumes(_ filters: Filters) async throws(EngineFailure) -> [String] {
    var request = request(.post, "/volumes/prune", "prune volumes")
    // From 1.42 on only anonymous ones are meant unless all are asked for.
    let all = apiVersion >= APIVersion(1, 42) ? filters.adding("all", "true") : filters
    request.query = all.query
    return try await pruned(request, "VolumesDeleted")
  }
}
