package import Model

/// The states a container can be in, in the Engine's words.
package enum ContainerStatus: String, Sendable {
  case created, running, paused, restarting, removing, exited, dead
  /// Podman's words for a container that is on its way or was cleaned up.
  case configured, initialized, stopping, stopped, unknown
}

/// How a container is.
package struct ContainerState: Sendable, Equatable {
  package var status: ContainerStatus
  /// Its first process in the Engine's pid namespace; 0: none.
  package var pid: Int32
  package var exitCode: Int64
  /// The kernel killed something in it for memory. Kept by the Engine after the end.
  package var oomKilled: Bool
  package var startedAt: WallTime?
  package var finishedAt: WallTime?
  /// Why it could not be started.
  package var error: String
  /// `healthy`, `unhealthy`, `starting`; nil without a healthcheck.
  package var health: String?

  package var isRunning: Bool { status == .running || status == .paused }

  init(_ json: JSONValue) {
    status = ContainerStatus(rawValue: json.text("Status")) ?? .unknown
    pid = Int32(clamping: json.whole("Pid"))
    exitCode = json.whole("ExitCode")
    oomKilled = json.flag("OOMKilled")
    startedAt = WallTime(rfc3339: json.text("StartedAt"))
    finishedAt = WallTime(rfc3339: json.text("FinishedAt"))
    error = json.text("Error")
    let words = json["Health"]?.text("Status") ?? ""
    health = words.isEmpty || words == "none" ? nil : words
  }
}

/// What `GET /containers/{id}/json` says: what was asked for, as the Engine took it, and how it is. What an Engine leaves out is zero
/// or empty here; `json` has everything.
package struct ContainerDetails: Sendable, Equatable {
  package var id: String
  /// Without the leading slash.
  package var name: String
  /// The image's id.
  package var image: String
  /// The image as it was named at creation.
  package var imageName: String
  package var created: WallTime?
  package var state: ContainerState
  package var labels: [String: String]
  package var user: String
  package var terminal: Bool
  package var openInput: Bool
  package var entrypoint: [String]
  package var command: [String]
  /// NAME=VALUE; not for logs.
  package var environment: [String]
  package var workingDirectory: String
  package var limits: ContainerLimits
  package var mounts: [ContainerMount]
  package var ports: [PublishedBinding]
  /// Networks by name.
  package var networks: [String: AttachedNetwork]
  package var restartCount: Int64
  /// Everything the Engine said.
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    let config = json["Config"] ?? .null
    let network = json["NetworkSettings"] ?? .null
    id = json.text("Id")
    name = json.text("Name").hasPrefix("/") ? String(json.text("Name").dropFirst()) : json.text("Name")
    image = json.text("Image")
    imageName = config.text("Image")
    created = WallTime(rfc3339: json.text("Created"))
    state = ContainerState(json["State"] ?? .null)
    labels = config.textMap("Labels")
    user = config.text("User")
    terminal = config.flag("Tty")
    openInput = config.flag("OpenStdin")
    entrypoint = config.texts("Entrypoint")
    command = config.texts("Cmd")
    environment = config.texts("Env")
    workingDirectory = config.text("WorkingDir")
    limits = ContainerLimits(json["HostConfig"] ?? .null)
    mounts = json.list("Mounts").map { ContainerMount($0) }
    ports = PublishedBinding.read(network["Ports"])
    var attached: [String: AttachedNetwork] = [:]
    for (name, value) in network["Networks"]?.objectValue ?? JSONObject() { attached[name] = AttachedNetwork(value) }
    networks = attached
    restartCount = json.whole("RestartCount")
  }
}

/// The limits and rights of a container as the Engine holds them (HostConfig), for reading back. 0, -1 and "" are the Engine's own
/// words for "no limit" and are kept.
package struct ContainerLimits: Sendable, Equatable {
  package var memory: Int64
  package var memorySwap: Int64
  package var memoryReservation: Int64
  package var nanoCPUs: Int64
  package var cpuShares: Int64
  package var cpuPeriod: Int64
  package var cpuQuota: Int64
  package var cpuset: String
  /// 0 or -1: none.
  package var pidsLimit: Int64
  package var oomScoreAdjustment: Int64
  package var blkioWeight: Int64
  package var shmSize: Int64
  package var ulimits: [Ulimit]
  package var readonlyRoot: Bool
  package var privileged: Bool
  package var capAdd: [String]
  package var capDrop: [String]
  package var securityOptions: [String]
  package var networkMode: String
  package var ipcMode: String
  package var pidMode: String
  package var utsMode: String
  package var usernsMode: String
  package var cgroupnsMode: String
  package var cgroupParent: String
  /// Options by target.
  package var tmpfs: [String: String]
  package var maskedPaths: [String]
  package var readonlyPaths: [String]
  package var runsInit: Bool
  package var restartPolicy: String
  package var logDriver: String
  package var logOptions: [String: String]

  init(_ json: JSONValue) {
    memory = json.whole("Memory")
    memorySwap = json.whole("MemorySwap")
    memoryReservation = json.whole("MemoryReservation")
    nanoCPUs = json.whole("NanoCpus")
    cpuShares = json.whole("CpuShares")
    cpuPeriod = json.whole("CpuPeriod")
    cpuQuota = json.whole("CpuQuota")
    cpuset = json.text("CpusetCpus")
    pidsLimit = json.whole("PidsLimit")
    oomScoreAdjustment = json.whole("OomScoreAdj")
    blkioWeight = json.whole("BlkioWeight")
    shmSize = json.whole("ShmSize")
    ulimits = json.list("Ulimits").map {
      let name = $0.text("Name").lowercased()
      // Podman says RLIMIT_NOFILE.
      return Ulimit(
        name.hasPrefix("rlimit_") ? String(name.dropFirst(7)) : name, soft: $0.whole("Soft"), hard: $0.whole("Hard"))
    }
    readonlyRoot = json.flag("ReadonlyRootfs")
    privileged = json.flag("Privileged")
    capAdd = json.texts("CapAdd")
    capDrop = json.texts("CapDrop")
    securityOptions = json.texts("SecurityOpt")
    networkMode = json.text("NetworkMode")
    ipcMode = json.text("IpcMode")
    pidMode = json.text("PidMode")
    utsMode = json.text("UTSMode")
    usernsMode = json.text("UsernsMode")
    cgroupnsMode = json.text("CgroupnsMode")
    cgroupParent = json.text("CgroupParent")
    tmpfs = json.textMap("Tmpfs")
    maskedPaths = json.texts("MaskedPaths")
    readonlyPaths = json.texts("ReadonlyPaths")
    runsInit = json.flag("Init")
    restartPolicy = json["RestartPolicy"]?.text("Name") ?? ""
    logDriver = json["LogConfig"]?.text("Type") ?? ""
    logOptions = json["LogConfig"]?.textMap("Config") ?? [:]
  }
}

/// One mount of a container as it is.
package struct ContainerMount: Sendable, Equatable {
  /// `bind`, `volume`, `tmpfs`.
  package var kind: String
  /// A volume's name.
  package var name: String
  package var source: String
  package var target: String
  package var writable: Bool
  package var propagation: String

  init(_ json: JSONValue) {
    kind = json.text("Type")
    name = json.text("Name")
    source = json.text("Source")
    target = json.text("Destination")
    writable = json.flag("RW")
    propagation = json.text("Propagation")
  }
}

/// A published port as it was really taken.
package struct PublishedBinding: Sendable, Equatable {
  package var container: UInt16
  package var kind: String
  package var address: String
  package var host: UInt16

  static func read(_ json: JSONValue?) -> [PublishedBinding] {
    var result: [PublishedBinding] = []
    for (key, value) in json?.objectValue ?? JSONObject() {
      let parts = key.split(separator: "/")
      guard parts.count == 2, let port = UInt16(parts[0]) else { continue }
      for binding in value.arrayValue ?? [] {
        guard let host = UInt16(binding.text("HostPort")) else { continue }
        // Podman leaves out the address that means all of them.
        let address = binding.text("HostIp")
        result.append(
          PublishedBinding(
            container: port, kind: String(parts[1]), address: address.isEmpty ? "0.0.0.0" : address, host: host))
      }
    }
    return result
  }
}

/// A container's place in a network as it is.
package struct AttachedNetwork: Sendable, Equatable {
  package var networkID: String
  package var ipv4: String
  package var ipv6: String
  package var gateway: String
  package var aliases: [String]

  init(_ json: JSONValue) {
    networkID = json.text("NetworkID")
    ipv4 = json.text("IPAddress")
    ipv6 = json.text("GlobalIPv6Address")
    gateway = json.text("Gateway")
    aliases = json.texts("Aliases")
  }
}

/// A line of `GET /containers/json`.
package struct ContainerSummary: Sendable, Equatable {
  package var id: String
  /// Without the leading slashes.
  package var names: [String]
  package var image: String
  package var imageID: String
  package var status: ContainerStatus
  /// `Up 2 minutes`, for people.
  package var statusText: String
  package var labels: [String: String]
  package var created: WallTime
  package var json: JSONValue

  init(_ json: JSONValue) {
    self.json = json
    id = json.text("Id")
    names = json.texts("Names").map { $0.hasPrefix("/") ? String($0.dropFirst()) : $0 }
    image = json.text("Image")
    imageID = json.text("ImageID")
    status = ContainerStatus(rawValue: json.text("State")) ?? .unknown
    statusText = json.text("Status")
    labels = json.textMap("Labels")
    created = WallTime(nanoseconds: json.whole("Created") &* 1_000_000_000)
  }
}
