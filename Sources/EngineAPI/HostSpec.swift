internal import Model

/// The host's side of a container: HostConfig. Never privileged, no devices and no host namespaces but those named here.
package struct HostSpec: Sendable, Equatable {
  package var readonlyRoot = false
  package var capDrop: [String] = []
  package var capAdd: [String] = []
  package var noNewPrivileges = false
  package var seccomp = SeccompChoice.engineDefault
  /// Further SecurityOpt entries, as the Engine spells them.
  package var securityOptions: [String] = []
  package var groupAdd: [String] = []

  package var resources = Resources()
  package var oomScoreAdjustment: Int64?
  package var ulimits: [Ulimit] = []

  package var networkMode: String?
  package var ipcMode: String?
  package var pidMode = ""
  package var utsMode = ""
  package var usernsMode = ""
  package var cgroupnsMode: String?
  package var cgroupParent: String?
  package var shmSize: Int64?
  package var sysctls: [String: String] = [:]
  package var dns: [String] = []
  /// `name:address`.
  package var extraHosts: [String] = []
  package var ports: [PortBinding] = []

  package var tmpfs: [TmpfsSpec] = []
  package var mounts: [MountSpec] = []
  package var maskedPaths: [String]?
  package var readonlyPaths: [String]?

  package var devices: [DeviceSpec] = []
  package var runsInit: Bool?
  package var log: LogSpec?
  package var autoRemove = false

  package init() {}

  func json(_ differences: EngineDifferences) -> JSONValue {
    var options = noNewPrivileges ? ["no-new-privileges:true"] : []
    options += [differences.securityOption(seccomp)].compactMap { $0 } + securityOptions
    var shared = JSONObject()
    for entry in tmpfs { shared[entry.target] = .string(entry.options) }
    var bindings = JSONObject()
    for port in ports {
      let key = "\(port.container)/\(port.kind)"
      bindings[key] = .array((bindings[key]?.arrayValue ?? []) + [port.json])
    }
    var object = resources.members
    let rest: JSONValue = .object([
      "ReadonlyRootfs": .bool(readonlyRoot), "CapDrop": .texts(capDrop), "CapAdd": .texts(capAdd), "Privileged": false,
      "SecurityOpt": .texts(options), "GroupAdd": groupAdd.isEmpty ? nil : .texts(groupAdd),
      "OomScoreAdj": oomScoreAdjustment.map { .integer($0) },
      "Ulimits": ulimits.isEmpty ? nil : .array(ulimits.map(\.json)),
      "NetworkMode": networkMode.map { .string($0) }, "IpcMode": ipcMode.map { .string($0) },
      "PidMode": .string(pidMode), "UTSMode": .string(utsMode), "UsernsMode": .string(usernsMode),
      "CgroupnsMode": cgroupnsMode.map { .string($0) }, "CgroupParent": cgroupParent.map { .string($0) },
      "ShmSize": shmSize.map { .integer($0) }, "Sysctls": sysctls.isEmpty ? nil : .textMap(sysctls),
      "Dns": dns.isEmpty ? nil : .texts(dns), "ExtraHosts": extraHosts.isEmpty ? nil : .texts(extraHosts),
      "PortBindings": bindings.isEmpty ? nil : .object(bindings),
      "Tmpfs": shared.isEmpty ? nil : .object(shared),
      "Mounts": mounts.isEmpty ? nil : .array(mounts.map(\.json)),
      "MaskedPaths": .texts(maskedPaths), "ReadonlyPaths": .texts(readonlyPaths), "Init": runsInit.map { .bool($0) },
      "LogConfig": log?.json, "RestartPolicy": .object(["Name": "no", "MaximumRetryCount": 0]),
      "AutoRemove": .bool(autoRemove), "Devices": .array(devices.map(\.json)), "DeviceCgroupRules": [], "Binds": [],
      "VolumesFrom": [],
    ])
    for (key, value) in rest.objectValue ?? JSONObject() { object[key] = value }
    return .object(object)
  }
}

/// A device node: its number, owner and mode are taken from the host's.
package struct DeviceSpec: Sendable, Equatable {
  package var host: String
  package var container: String
  /// `r`, `w`, `rw`.
  package var access: String

  package init(_ host: String, at container: String, access: String) {
    self.host = host
    self.container = container
    self.access = access
  }

  var json: JSONValue {
    .object([
      "PathOnHost": .string(host), "PathInContainer": .string(container), "CgroupPermissions": .string(access),
    ])
  }
}

/// Limits that can also be changed while the container runs (`POST /containers/{id}/update`). Nil: not given, or left as it is.
package struct Resources: Sendable, Equatable {
  /// Bytes.
  package var memory: Int64?
  /// Bytes of memory and swap together; -1: no limit on swap. Equal to `memory`: no swap.
  package var memorySwap: Int64?
  package var memoryReservation: Int64?
  /// Billionths of a CPU.
  package var nanoCPUs: Int64?
  package var cpuShares: Int64?
  /// `0-1,3`.
  package var cpuset: String?
  package var pidsLimit: Int64?
  /// 10 to 1000.
  package var blkioWeight: Int64?
  package var readBytesPerSecond: [(device: String, rate: Int64)] = []
  package var writeBytesPerSecond: [(device: String, rate: Int64)] = []

  package init() {}

  package static func == (left: Resources, right: Resources) -> Bool { left.members == right.members }

  var members: JSONObject {
    func rates(_ rates: [(device: String, rate: Int64)]) -> JSONValue? {
      rates.isEmpty ? nil : .array(rates.map { .object(["Path": .string($0.device), "Rate": .integer($0.rate)]) })
    }
    let document: JSONValue = .object([
      "Memory": memory.map { .integer($0) }, "MemorySwap": memorySwap.map { .integer($0) },
      "MemoryReservation": memoryReservation.map { .integer($0) }, "NanoCpus": nanoCPUs.map { .integer($0) },
      "CpuShares": cpuShares.map { .integer($0) }, "CpusetCpus": cpuset.map { .string($0) },
      "PidsLimit": pidsLimit.map { .integer($0) }, "BlkioWeight": blkioWeight.map { .integer($0) },
      "BlkioDeviceReadBps": rates(readBytesPerSecond), "BlkioDeviceWriteBps": rates(writeBytesPerSecond),
    ])
    return document.objectValue ?? JSONObject()
  }

  /// The same as the OCI runtime specification's `linux.resources`, which is what podman's own update takes.
  var runtimeDocument: JSONValue {
    func group(_ members: KeyValuePairs<String, JSONValue?>) -> JSONValue? {
      let group = JSONValue.object(members)
      return group.objectValue?.isEmpty == true ? nil : group
    }
    let period: Int64 = 100_000
    return .object([
      "memory": group([
        "limit": memory.map { .integer($0) }, "swap": memorySwap.map { .integer($0) },
        "reservation": memoryReservation.map { .integer($0) },
      ]),
      "cpu": group([
        "shares": cpuShares.map { .integer($0) }, "quota": nanoCPUs.map { .integer($0 / (1_000_000_000 / period)) },
        "period": nanoCPUs.map { _ in .integer(period) }, "cpus": cpuset.map { .string($0) },
      ]),
      "pids": group(["limit": pidsLimit.map { .integer($0) }]),
      "blockIO": group(["weight": blkioWeight.map { .integer($0) }]),
    ])
  }
}

/// One resource limit of setrlimit(2).
package struct Ulimit: Sendable, Equatable {
  /// `nofile`.
  package var name: String
  package var soft: Int64
  package var hard: Int64

  package init(_ name: String, soft: Int64, hard: Int64) {
    self.name = name
    self.soft = soft
    self.hard = hard
  }

  var json: JSONValue { .object(["Name": .string(name), "Soft": .integer(soft), "Hard": .integer(hard)]) }
}

/// A container's port on the host.
package struct PortBinding: Sendable, Equatable {
  package var container: UInt16
  /// `tcp`, `udp`, `sctp`.
  package var kind: String
  /// The host's address; empty: all.
  package var address: String
  /// 0: any that is free.
  package var host: UInt16

  package init(container: UInt16, kind: String = "tcp", address: String = "", host: UInt16 = 0) {
    self.container = container
    self.kind = kind
    self.address = address
    self.host = host
  }

  var json: JSONValue { .object(["HostIp": .string(address), "HostPort": .string(host == 0 ? "" : String(host))]) }
}

/// Memory mounted at `target`.
package struct TmpfsSpec: Sendable, Equatable {
  package var target: String
  /// Bytes.
  package var size: Int64?
  package var inodes: Int64?
  package var uid: UInt32?
  package var gid: UInt32?
  /// Octal, `0700`. runc 1.1 prefers the mode of the image's folder.
  package var mode: String?
  package var executable = false
  /// Podman's own way to say uid and gid: those of the container's user; and not to copy the image's files into it.
  var ownedByUser = false
  /// Nothing can be written.
  package var isReadOnly = false
  /// What the image has there is seen; Podman's.
  var showsImageFiles = false

  package init(_ target: String) { self.target = target }

  var options: String {
    var parts = [isReadOnly ? "ro" : "rw", "nosuid", "nodev"]
    if !executable { parts.append("noexec") } else { parts.append("exec") }
    if let size { parts.append("size=\(size)") }
    if let inodes { parts.append("nr_inodes=\(inodes)") }
    if let uid { parts.append("uid=\(uid)") }
    if let gid { parts.append("gid=\(gid)") }
    if let mode { parts.append("mode=\(mode)") }
    if showsImageFiles { parts.append("tmpcopyup") }
    if ownedByUser { parts += ["U", "notmpcopyup"] }
    return parts.joined(separator: ",")
  }
}

/// A folder, file or volume mounted into a container.
package struct MountSpec: Sendable, Equatable {
  package enum Kind: String, Sendable { case bind, volume }
  package var kind: Kind
  /// A path of the host, or a volume's name.
  package var source: String
  package var target: String
  package var readOnly: Bool
  /// For a bind: `rprivate` and its kin.
  package var propagation: String?
  /// For a bind: without what is mounted below the source.
  package var nonRecursive = false
  /// For a volume: start empty instead of with the image's files.
  package var noCopy = false

  package init(_ kind: Kind, _ source: String, at target: String, readOnly: Bool, propagation: String? = nil) {
    self.kind = kind
    self.source = source
    self.target = target
    self.readOnly = readOnly
    self.propagation = propagation
  }

  var json: JSONValue {
    let bind: JSONValue = .object([
      "Propagation": propagation.map { .string($0) }, "NonRecursive": nonRecursive ? true : nil,
    ])
    return .object([
      "Type": .string(kind.rawValue), "Source": .string(source), "Target": .string(target),
      "ReadOnly": .bool(readOnly), "BindOptions": kind == .bind ? bind : nil,
      "VolumeOptions": kind == .volume && noCopy ? .object(["NoCopy": true]) : nil,
    ])
  }
}

/// Where the Engine keeps a container's output.
package struct LogSpec: Sendable, Equatable {
  package var driver: String
  package var options: [String: String]

  package init(driver: String, options: [String: String] = [:]) {
    self.driver = driver
    self.options = options
  }

  var json: JSONValue { .object(["Type": .string(driver), "Config": .textMap(options)]) }
}
