package import Model

/// A container to create: the body of `POST /containers/create`. What is nil or empty is left out of the request, which the Engine
/// reads as "not given" (an empty MaskedPaths would mean "mask nothing").
package struct ContainerSpec: Sendable, Equatable, CustomStringConvertible, CustomReflectable {
  /// What to run, best an image id.
  package var image: String
  /// `uid:gid`; empty: the image's.
  package var user = ""
  package var entrypoint: [String]?
  package var command: [String]?
  package var workingDirectory: String?
  /// Sent as NAME=VALUE in this order. Values are treated as secrets in errors.
  package var environment: [(name: String, value: String)] = []
  package var terminal = false
  package var openInput = false
  /// Input ends when the first attached client leaves.
  package var inputOnce = false
  package var healthcheck = HealthcheckSpec.image
  package var stopSignal: String?
  /// Seconds until the Engine's stop kills.
  package var stopTimeout: Int64?
  package var networkDisabled: Bool?
  package var labels: [String: String] = [:]
  package var hostname: String?
  package var host = HostSpec()
  /// The networks it is in from the start, by name. More than one needs API 1.44; connect the others after creation.
  package var networks: [String: NetworkEndpoint] = [:]

  package init(image: String) { self.image = image }

  /// Without its values: they can be secrets, and descriptions end in logs.
  package var description: String { "a container of \(image)" }
  package var customMirror: Mirror { Mirror(self, children: []) }

  package static func == (left: ContainerSpec, right: ContainerSpec) -> Bool {
    left.json(EngineDifferences(.other)) == right.json(EngineDifferences(.other))
  }

  /// The request's body for an Engine, of a spec that is adapted to it.
  package func json(_ differences: EngineDifferences) -> JSONValue {
    var exposed = JSONObject()
    for port in host.ports { exposed["\(port.container)/\(port.kind)"] = .object([:]) }
    let endpoints = networks.sorted { $0.key < $1.key }
    var attached = JSONObject()
    for (name, endpoint) in endpoints { attached[name] = endpoint.json }
    return .object([
      "Image": .string(image), "User": .string(user), "Entrypoint": .texts(entrypoint), "Cmd": .texts(command),
      "WorkingDir": workingDirectory.map { .string($0) },
      "Env": .array(environment.map { .string("\($0.name)=\($0.value)") }),
      "Tty": .bool(terminal), "OpenStdin": .bool(openInput), "StdinOnce": .bool(inputOnce),
      "AttachStdin": .bool(openInput), "AttachStdout": true, "AttachStderr": true,
      "Healthcheck": healthcheck.json, "StopSignal": stopSignal.map { .string($0) },
      "StopTimeout": stopTimeout.map { .integer($0) }, "NetworkDisabled": networkDisabled.map { .bool($0) },
      "Labels": .textMap(labels), "Hostname": hostname.map { .string($0) },
      "ExposedPorts": exposed.isEmpty ? nil : .object(exposed), "HostConfig": host.json(differences),
      "NetworkingConfig": attached.isEmpty ? nil : .object(["EndpointsConfig": .object(attached)]),
    ])
  }
}

/// A container's healthcheck.
package enum HealthcheckSpec: Sendable, Equatable {
  /// The image's, if it has one.
  case image
  case none
  /// `test` is `CMD` or `CMD-SHELL` and its arguments.
  case command(test: [String], interval: Duration, timeout: Duration, startPeriod: Duration, retries: Int64)

  var json: JSONValue? {
    switch self {
    case .image: nil
    case .none: .object(["Test": ["NONE"]])
    case .command(let test, let interval, let timeout, let startPeriod, let retries):
      .object([
        "Test": .texts(test), "Interval": .integer(interval.wholeNanoseconds),
        "Timeout": .integer(timeout.wholeNanoseconds), "StartPeriod": .integer(startPeriod.wholeNanoseconds),
        "Retries": .integer(retries),
      ])
    }
  }
}

/// A container's place in one network.
package struct NetworkEndpoint: Sendable, Equatable {
  package var aliases: [String] = []
  /// A fixed address, for a network with a subnet of its own.
  package var ipv4: String?
  package var ipv6: String?

  package init(aliases: [String] = [], ipv4: String? = nil, ipv6: String? = nil) {
    self.aliases = aliases
    self.ipv4 = ipv4
    self.ipv6 = ipv6
  }

  var json: JSONValue {
    let fixed: JSONValue? =
      ipv4 == nil && ipv6 == nil
      ? nil
      : .object(["IPv4Address": ipv4.map { .string($0) }, "IPv6Address": ipv6.map { .string($0) }])
    return .object(["Aliases": aliases.isEmpty ? nil : .texts(aliases), "IPAMConfig": fixed])
  }
}
