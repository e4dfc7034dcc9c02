internal import Model
internal import Synchronization

/// A build: `POST /build` with a tar of its context.
package struct BuildSpec: Sendable, CustomStringConvertible, CustomReflectable {
  /// The name of the result.
  package var tag: ImageReference
  /// In the context.
  package var dockerfile = "Dockerfile"
  package var target: String?
  /// Treated as secrets in errors.
  package var arguments: [String: String] = [:]
  package var labels: [String: String] = [:]
  package var noCache = false
  /// Look for newer base images.
  package var pull = false
  /// `none`, `host`, a network's name; nil: the Engine's default.
  package var networkMode: String?
  /// Logins for base images.
  package var credentials: [RegistryCredentials] = []

  package init(tag: ImageReference) { self.tag = tag }

  /// Without its values: they can be secrets, and descriptions end in logs.
  package var description: String { "a build of \(tag)" }
  package var customMirror: Mirror { Mirror(self, children: []) }
}

/// Images: `/images`, `/build`. An image is named by its id, `name:tag` or `name@digest`.
extension Engine {
  private func path(_ image: String, _ rest: String = "") -> String {
    "/images/\(Request.encode(image, keeping: "/:@"))\(rest)"
  }

  /// `GET /images/{name}/json`. `notFound`: it is not here; pull it.
  package func inspectImage(_ image: String) async throws(EngineFailure) -> ImageDetails {
    var request = request(.get, path(image, "/json"), "inspect image \(image)")
    request.limit = transport.limits.listing
    var details = ImageDetails(try await document(request))
    guard differences.hidesImageHealthcheck, details.healthcheck == nil else { return details }
    if let known = imageHealthchecks.of(details.id) {
      details.healthcheck = known
      return details
    }
    request.path = "/v4.0.0/libpod\(path(details.id, "/json"))"
    details.healthcheck = try await document(request)["Healthcheck"].flatMap { Healthcheck(image: $0) }
    imageHealthchecks.keep(details.healthcheck, of: details.id)
    return details
  }

  /// `GET /images/json`.
  package func listImages(all: Bool = false, _ filters: Filters = Filters()) async throws(EngineFailure)
    -> [ImageSummary]
  {
    var request = request(.get, "/images/json", "list images")
    request.query = [("all", all ? "1" : "0")] + filters.query
    request.limit = transport.limits.listing
    return try await document(request).arrayValue?.map { ImageSummary($0) } ?? []
  }

  /// `POST /images/create?fromImage=`. Read the stream to its end: the image is there only then, and a failure comes as its error.
  /// `timedOut` when no progress came for `idle`.
  package func pullImage(
    _ reference: ImageReference, _ credentials: RegistryCredentials? = nil, idle: Duration? = nil
  ) async throws(EngineFailure) -> ProgressStream {
    var request = request(.post, "/images/create", "pull \(reference)")
    request.query = [("fromImage", reference.name), ("tag", reference.tag)]
    request.authorize(credentials)
    return try await progress(request, idle: idle)
  }

  /// `POST /images/{name}/push`. Read the stream to its end.
  package func pushImage(_ reference: ImageReference, _ credentials: RegistryCredentials? = nil)
    async throws(EngineFailure) -> ProgressStream
  {
    var request = request(.post, path(reference.name, "/push"), "push \(reference)")
    request.query = [("tag", reference.tag)]
    request.authorize(credentials)
    // The header must be there even without a login.
    if credentials == nil { request.headers.append(("X-Registry-Auth", RegistryCredentials.base64(Array("{}".utf8)))) }
    return try await progress(request)
  }

  /// `GET /images/get`: a tar of images with their names, as `loadImages` takes it, streamed.
  package func saveImages(_ images: [String]) async throws(EngineFailure) -> ImageArchive {
    var request = request(.get, "/images/get", "save images")
    request.query = images.map { ("names", $0) }
    let (_, bytes) = try await transport.open(request)
    return ImageArchive(bytes, PlainBytes())
  }

  /// `POST /images/load` with a tar of docker save, streamed. What was loaded is in the progress. Read the stream to its end.
  package func loadImages(_ tar: ByteSource) async throws(EngineFailure) -> ProgressStream {
    var request = request(.post, "/images/load", "load images")
    request.query = [("quiet", "1")]
    request.body = .source(tar, type: "application/x-tar")
    return try await progress(request)
  }

  /// `POST /images/create?fromSrc=-`: makes an image of one layer of a tar of a root file system. Returns its id.
  package func importImage(_ tar: ByteSource, as reference: ImageReference, changes: [String] = [])
    async throws(EngineFailure) -> String
  {
    var request = request(.post, "/images/create", "import \(reference)")
    request.query = [("fromSrc", "-"), ("repo", reference.name), ("tag", reference.tag)]
    request.query += changes.map { ("changes", $0) }
    request.body = .source(tar, type: "application/x-tar")
    var id: String?
    for try await line in try await progress(request) {
      if let made = line.imageID { id = made }
    }
    guard let id else { throw .malformed(operation: request.operation, what: "it names no image") }
    if differences.importIgnoresTag { try await tagImage(id, as: reference) }
    return id
  }

  /// `POST /build` with a tar of the context, streamed. The result's id is in the last progress that has one. Read the stream to
  /// its end; letting go of it stops the build (podman: after the step that runs, see `finishesBuildStep`).
  package func buildImage(_ spec: BuildSpec, context: ByteSource) async throws(EngineFailure) -> ProgressStream {
    var request = request(.post, "/build", "build \(spec.tag)")
    request.query = [
      ("t", spec.tag.description), ("dockerfile", spec.dockerfile), ("rm", "1"), ("forcerm", "1"),
      ("nocache", spec.noCache ? "1" : "0"), ("labels", JSONValue.textMap(spec.labels).text),
      ("buildargs", JSONValue.textMap(spec.arguments).text),
    ]
    if spec.pull { request.query.append(("pull", "1")) }
    if let target = spec.target { request.query.append(("target", target)) }
    if let mode = spec.networkMode { request.query.append(("networkmode", mode)) }
    request.secrets = spec.arguments.values.filter { $0.utf8.count >= 4 }
    if !spec.credentials.isEmpty {
      var logins = JSONObject()
      for login in spec.credentials { logins[login.server] = login.json }
      let header = RegistryCredentials.base64(Array(JSONValue.object(logins).text.utf8))
      request.headers.append(("X-Registry-Config", header))
      request.secrets += spec.credentials.flatMap(\.secrets) + [header]
    }
    request.body = .source(context, type: "application/x-tar")
    return try await progress(request)
  }

  /// `POST /images/{name}/tag`: a further name for an image; a name that another image had moves.
  package func tagImage(_ image: String, as reference: ImageReference) async throws(EngineFailure) {
    var request = request(.post, path(image, "/tag"), "tag image \(image)")
    request.query = [("repo", reference.name), ("tag", reference.tag)]
    try await perform(request)
  }

  /// `DELETE /images/{name}`: takes the name away, and the image with its last name. 409 `conflict`: a container uses it.
  package func removeImage(_ image: String, force: Bool = false) async throws(EngineFailure) -> RemovedImages {
    var request = request(.delete, path(image), "remove image \(image)")
    request.query = [("force", force ? "1" : "0"), ("noprune", "0")]
    return RemovedImages(try await document(request).arrayValue ?? [])
  }

  /// `POST /images/prune`: removes images no container uses: those without a name, or all that match.
  package func pruneImages(unnamedOnly: Bool = true, _ filters: Filters = Filters()) async throws(EngineFailure)
    -> RemovedImages
  {
    var request = request(.post, "/images/prune", "prune images")
    if differences.prunesImagesByOwnCall {
      request.path = "/v4.0.0/libpod/images/prune"
      request.query = [("all", unnamedOnly ? "false" : "true")] + filters.query
    } else {
      request.query = filters.adding("dangling", unnamedOnly ? "true" : "false").query
    }
    let answer = try await document(request)
    return RemovedImages(answer.arrayValue ?? answer.list("ImagesDeleted"))
  }

  /// Opens a stream of progress lines; an error line ends it as the failure it names.
  private func progress(_ request: Request, idle: Duration? = nil) async throws(EngineFailure) -> ProgressStream {
    var request = request
    // The Engine says nothing until it has read the upload or reached the registry.
    request.deadline = .none
    let (_, bytes) = try await transport.open(request, idle: idle)
    let operation = request.operation
    let secrets = request.secrets
    let decoder = JSONLines<Progress>(operation: operation, lineLimit: transport.limits.line) {
      (json) throws(EngineFailure) in
      if let message = json["errorDetail"]?["message"]?.stringValue ?? json["error"]?.stringValue {
        throw .refused(operation: operation, status: 200, message: EngineFailure.clean(message, hiding: secrets))
      }
      return Progress(json)
    }
    return ProgressStream(bytes, decoder)
  }
}

/// The checks that images ask for, by image id: what an id names never changes, so each is asked for once.
final class ImageHealthchecks: Sendable {
  private let known = Mutex<[String: Healthcheck?]>([:])

  /// Nil: not known; a nil in it: the image asks for none.
  func of(_ id: String) -> Healthcheck?? { known.withLock { $0[id] } }

  func keep(_ check: Healthcheck?, of id: String) {
    known.withLock {
      if $0.count >= 256 { $0.removeAll() }
      $0[id] = .some(check)
    }
  }
}
