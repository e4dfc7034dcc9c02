/// What one app may have and how it is to live: a policy file after parsing, checking, presets and defaults.
///
/// Every field holds the *effective* value: presets are filled in, so no reader asks "was it set?". What the file itself
/// wrote is kept as the canonical document (`Policies`), which is also what is stored and compared.
package struct Policy: Sendable, Equatable {
  package var id: AppID
  package var stack: String
  package var template = false
  package var maximumInstances: UInt32 = 20
  package var name: String
  package var about = About()
  package var runtime: Runtime
  package var image: ImageSource?
  /// Native: an absolute path of a directory to pivot into; nil: the standard root.
  package var rootfs: String?
  /// The program and its arguments (native, wasm), or Compose's `command` (container). Empty: the image's own.
  package var entry: [String] = []
  /// Container only: replaces the image's entrypoint.
  package var entrypoint: [String]?
  package var hosted = false
  package var fallback: Fallback = .none
  /// Sorted by name. Values from `env_file` are already here; a secret stands by name until start.
  package var environment: [EnvironmentEntry] = []
  package var workingDirectory: String?
  package var user: User = .auto
  package var preset: Preset = .standard
  package var enforcement: Enforcement = .strict
  package var limits = Limits()
  package var priority = Priority.normal
  package var schedulingClass: SchedulingClass = .fair
  package var restart: RestartRule = .no
  package var backoff = Backoff()
  package var dependencies: [Dependency] = []
  package var healthcheck = Healthcheck()
  package var readiness = Readiness.started
  /// Commands that must succeed first, each run like the app itself, in this order.
  package var preStart: [PreStart] = []
  package var schedule: Schedule?
  package var update = UpdateRule()
  package var stopSignal: Int32 = 15
  package var stopGrace: Duration = .seconds(10)
  package var network = Network()
  package var mounts: [Mount] = []
  package var devices: [DeviceGrant] = []
  /// Files under `/run/secrets`, and what `environment` takes values from.
  package var secrets: [Secret] = []
  package var readOnlyRoot = true
  package var capabilities = CapabilitySet()
  package var securityOptions: [String] = []
  package var supplementaryGroups: [UInt32] = []
  /// What it may ask of the supervisor, its preset's included.
  package var permissions = Permissions()
  /// Its standard input can be written to; else it is empty.
  package var opensInput = false
  /// Its standard streams are a terminal.
  package var terminal = false
  package var logging = LogLimits()
  package var labels: [String: String] = [:]
  package var profiles: [String] = []
  /// The folder the policy file lies in: relative paths were resolved against it. Absolute.
  package var baseFolder: String
  /// Who loaded it, if neither root nor the daemon's own user: what it names on the host is opened with these ids.
  package var loader: Loader?

  package init(id: AppID, stack: String, runtime: Runtime, baseFolder: String) {
    self.id = id
    self.stack = stack
    self.name = id.name
    self.runtime = runtime
    self.baseFolder = baseFolder
  }

  /// A user of this host as the kernel named them when they called.
  package struct Loader: Sendable, Hashable {
    package var uid: UInt32
    package var gid: UInt32
    /// Supplementary ones.
    package var groups: [UInt32]

    package init(uid: UInt32, gid: UInt32, groups: [UInt32]) {
      self.uid = uid
      self.gid = gid
      self.groups = groups
    }

    /// `uid:gid:group,group`.
    package var text: String { "\(uid):\(gid):\(groups.map { "\($0)" }.joined(separator: ","))" }

    /// Reads `text` back; nil for anything else.
    package init?(_ text: String) {
      let parts = text.split(separator: ":", omittingEmptySubsequences: false)
      guard parts.count == 3, let uid = UInt32(parts[0]), let gid = UInt32(parts[1]) else { return nil }
      let groups = parts[2].split(separator: ",").map { UInt32($0) }
      guard groups.allSatisfy({ $0 != nil }) else { return nil }
      self.init(uid: uid, gid: gid, groups: groups.compactMap { $0 })
    }
  }

  /// What people and the desktop show of an app.
  package struct About: Sendable, Equatable {
    package var description = ""
    package var publisher = ""
    package var version = ""
    package var category = ""
    package init() {}
  }

  package enum Fallback: String, Sendable, CaseIterable { case none, native }
  package enum Preset: String, Sendable, CaseIterable { case minimal, standard, privileged }
  /// `strict` refuses to start where a required limit or layer cannot be had; `degrade` starts and says so everywhere.
  package enum Enforcement: String, Sendable, CaseIterable { case strict, degrade }
  package enum SchedulingClass: String, Sendable, CaseIterable {
    case fair, batch
    case roundRobin = "round-robin"
  }

  package struct EnvironmentEntry: Sendable, Equatable {
    package var name: String
    /// Empty where a secret gives the value.
    package var value: String
    /// The name of the secret whose content is the value at start; nil: `value` is.
    package var secret: String?
    package init(name: String, value: String, secret: String? = nil) {
      self.name = name
      self.value = value
      self.secret = secret
    }
  }

  package enum User: Sendable, Equatable {
    /// A uid:gid of the app's own (base + 1000).
    case auto
    /// What the image says.
    case image
    /// `uid[:gid]` as given.
    case given(uid: UInt32, gid: UInt32)
  }

  package struct Dependency: Sendable, Equatable {
    package var app: AppID
    package var condition: Condition
    package var restart: Bool
    package var required: Bool
    package enum Condition: String, Sendable, CaseIterable {
      case started = "service_started"
      case healthy = "service_healthy"
      case completed = "service_completed_successfully"
    }
    package init(app: AppID, condition: Condition = .started, restart: Bool = false, required: Bool = true) {
      self.app = app
      self.condition = condition
      self.restart = restart
      self.required = required
    }
  }

  /// A step before the start.
  package struct PreStart: Sendable, Equatable {
    package var command: [String]
    /// Then it is killed, and has failed; zero: never.
    package var timeout: Duration
    package init(_ command: [String], timeout: Duration = .seconds(600)) {
      self.command = command
      self.timeout = timeout
    }
  }

  /// Per app, and kept by the supervisor (native) or the Engine (container).
  package struct LogLimits: Sendable, Equatable {
    package var maximumSize = Bytes.mebibytes(10)
    package var maximumFiles = 3
    package init() {}
  }

  package struct CapabilitySet: Sendable, Equatable {
    /// Without the `CAP_` prefix, upper case, sorted.
    package var add: [String] = []
    package var drop: [String] = ["ALL"]
    package init() {}
  }
}

/// Which of the three kinds of thing an app is.
package enum Runtime: String, Sendable, CaseIterable, CustomStringConvertible {
  case container, native, wasm
  package var description: String { rawValue }
}

/// Where a container's image comes from.
package enum ImageSource: Sendable, Equatable {
  case reference(String, PullRule)
  /// `context` is an absolute folder; `dockerfile` is relative to it; `tag` is the name the result gets.
  case build(context: String, dockerfile: String, arguments: [String: String], tag: String)

  package enum PullRule: String, Sendable, CaseIterable { case always, never, missing }

  /// The name the Engine knows the image by.
  package var reference: String {
    switch self {
    case .reference(let name, _): name
    case .build(_, _, _, let tag): tag
    }
  }
}

/// What the kernel is to hold an app to. Nil: no such limit (allowed only as policy.md says).
package struct Limits: Sendable, Equatable {
  package var memory: Bytes?
  package var memoryHigh: Bytes?
  package var memoryReservation: Bytes?
  /// Memory and swap together; equal to `memory` means no swap.
  package var memoryAndSwap: Bytes?
  /// Hard ceiling in cores.
  package var cpus: Double?
  /// Docker's scale 2…262144; nil: from the priority.
  package var cpuShares: UInt64?
  /// The kernel's list format, `0-1,3`.
  package var cpuset: String?
  package var pids: UInt64?
  package var rlimits: [ResourceLimit] = []
  package var block = BlockLimits()
  package var oomScoreAdjustment: Int32 = 500
  package var shmSize: Bytes?
  package var maximumRuntime: Duration?
  package var maximumCPUTime: Duration?
  package init() {}

  /// One rlimit by its Docker name (`nofile`, `nproc`, `core`, …).
  package struct ResourceLimit: Sendable, Equatable {
    package var name: String
    package var soft: UInt64
    package var hard: UInt64
    package init(name: String, soft: UInt64, hard: UInt64) {
      self.name = name
      self.soft = soft
      self.hard = hard
    }
  }

  package struct BlockLimits: Sendable, Equatable {
    /// 10…1000.
    package var weight: UInt16?
    package var readBytesPerSecond: [DeviceRate] = []
    package var writeBytesPerSecond: [DeviceRate] = []
    package var readOperationsPerSecond: [DeviceRate] = []
    package var writeOperationsPerSecond: [DeviceRate] = []
    package init() {}
    package var isEmpty: Bool { self == BlockLimits() }
    package struct DeviceRate: Sendable, Equatable {
      /// The device's node, `/dev/vda`.
      package var path: String
      package var rate: UInt64
      package init(path: String, rate: UInt64) {
        self.path = path
        self.rate = rate
      }
    }
  }
}

/// The CPU class of an app, 0…10.
package struct Priority: Sendable, Hashable, Comparable {
  package let value: Int
  package init?(_ value: Int) {
    guard (0...10).contains(value) else { return nil }
    self.value = value
  }
  private init(known value: Int) { self.value = value }
  package static let idle = Priority(known: 0)
  package static let low = Priority(known: 3)
  package static let normal = Priority(known: 5)
  package static let high = Priority(known: 8)
  package static let critical = Priority(known: 10)
  package static let names: [(name: String, value: Priority)] = [
    ("idle", .idle), ("low", .low), ("normal", .normal), ("high", .high), ("critical", .critical),
  ]
  package static func < (left: Priority, right: Priority) -> Bool { left.value < right.value }
}

package enum RestartRule: Sendable, Equatable {
  case no
  case always
  case unlessStopped
  /// Nil: as often as `Backoff` allows.
  case onFailure(maximum: UInt32?)
}

/// How restarts are spaced, and when they end in `failed`.
package struct Backoff: Sendable, Equatable {
  package var delay: Duration = .seconds(1)
  package var multiplier = 2.0
  package var maximumDelay: Duration = .seconds(60)
  /// ± this fraction of each delay.
  package var jitter = 0.2
  package var window: Duration = .seconds(300)
  /// This many restarts within `window` end in `failed`.
  package var maximumAttempts: UInt32 = 10
  /// A run this long counts as good: the next delay is `delay` again.
  package var resetAfter: Duration = .seconds(10)
  package init() {}
}

package struct Network: Sendable, Equatable {
  package var mode: Mode = .none
  /// Named networks of ours, with the app's aliases on each.
  package var attachments: [Attachment] = []
  package var ports: [PublishedPort] = []
  package var extraHosts: [(name: String, address: String)] = []
  package var dns: [String] = []
  package var hostname: String?
  /// Nil: everything but what is always blocked.
  package var egress: Egress?
  package var bandwidth = Bandwidth()
  package init() {}

  package enum Mode: String, Sendable, CaseIterable { case none, bridge, host, named }
  package struct Attachment: Sendable, Equatable {
    package var network: String
    package var aliases: [String]
    package init(network: String, aliases: [String]) {
      self.network = network
      self.aliases = aliases
    }
  }
  package static func == (left: Network, right: Network) -> Bool {
    left.mode == right.mode && left.attachments == right.attachments && left.ports == right.ports
      && left.dns == right.dns && left.egress == right.egress && left.bandwidth == right.bandwidth
      && left.hostname == right.hostname && left.extraHosts.elementsEqual(right.extraHosts, by: ==)
  }
}

package struct PublishedPort: Sendable, Hashable {
  package var hostAddress: String
  /// 0: any free one.
  package var hostPort: UInt16
  package var appPort: UInt16
  package var transport: Transport
  package enum Transport: String, Sendable { case tcp, udp }
  package init(hostAddress: String = "127.0.0.1", hostPort: UInt16, appPort: UInt16, transport: Transport = .tcp) {
    self.hostAddress = hostAddress
    self.hostPort = hostPort
    self.appPort = appPort
    self.transport = transport
  }
}

/// One entry of `volumes` or `tmpfs`. Targets are absolute and normalised; sources of binds absolute.
package struct Mount: Sendable, Equatable {
  package var target: String
  package var kind: Kind
  package var readOnly: Bool
  /// Of a bind: its owner's files appear as the app's own, and what the app makes belongs to that owner on disk.
  package var mapsOwner = false

  package enum Kind: Sendable, Equatable {
    /// Ours: `state/volumes/NAME`, the same folder under every runtime. External: the Engine's own.
    case volume(name: String, external: Bool)
    case bind(source: String)
    /// A tmpfs with a hard size; `mode` as in chmod, nil: the runtime's default.
    case memory(size: Bytes, mode: UInt32?)
  }

  package init(target: String, kind: Kind, readOnly: Bool = false) {
    self.target = target
    self.kind = kind
    self.readOnly = readOnly
  }
}
