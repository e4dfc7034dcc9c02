/// Where an Engine listens: a Unix socket.
package struct EngineEndpoint: Sendable, Hashable, CustomStringConvertible {
  /// The socket's absolute path.
  package let socket: String

  package init(socket: String) { self.socket = socket }

  /// Reads `unix:///run/docker.sock` or a plain absolute path, as in DOCKER_HOST and CONTAINER_HOST. Nil for anything else: an Engine
  /// over TCP or SSH is not this host's.
  package init?(parsing text: String) {
    let path = text.hasPrefix("unix://") ? String(text.dropFirst("unix://".count)) : text
    guard path.hasPrefix("/"), !path.utf8.contains(0) else { return nil }
    socket = path
  }

  package var description: String { "unix://\(socket)" }

  /// The places to look, best first: `given` (--engine), DOCKER_HOST, CONTAINER_HOST, then the usual sockets, the user's own before
  /// the system's when `runtimeFolder` (XDG_RUNTIME_DIR) is given. What is named but cannot be read is left out here.
  package static func candidates(given: String?, environment: (String) -> String?, runtimeFolder: String? = nil)
    -> [EngineEndpoint]
  {
    let named = [given, environment("DOCKER_HOST"), environment("CONTAINER_HOST")].compactMap { $0 }
    if let first = named.first(where: { !$0.isEmpty }) { return [EngineEndpoint(parsing: first)].compactMap { $0 } }
    let own = runtimeFolder.map { ["\($0)/docker.sock", "\($0)/podman/podman.sock"] } ?? []
    return (own + ["/run/docker.sock", "/run/podman/podman.sock"]).map { EngineEndpoint(socket: $0) }
  }
}
