package import Linux
package import Model

/// Everything a shim needs to build one native app's sandbox and run its program. A pure value: paths are the host's own, and
/// are resolved by the shim before any of the app's code exists.
package struct LaunchPlan: Sendable, Equatable {
  package var app: String
  package var generation: UInt64
  package var nonce: String
  package var membership = Membership()
  package var places = Places()
  package var identity = Identity()
  package var walls = Walls()
  /// Nil: the root is made of `root` alone, in memory.
  package var image: ImageRoot?
  package var root: [RootItem] = []
  package var rootReadOnly = true
  package var program = Program()
  package var streams = Streams()
  package var ports: [Port] = []
  package var links: [Link] = []
  package var logMaximumSize: UInt64 = 10 << 20
  package var logMaximumFiles: UInt32 = 3
  /// With whose rights mount sources are opened, and below which folders they are the supervisor's own, opened as it is.
  package var loader: Policy.Loader?
  package var ownFolders: [String] = []

  package init(app: String, generation: UInt64, nonce: String) {
    self.app = app
    self.generation = generation
    self.nonce = nonce
  }

  /// Which cgroups the app is in.
  package struct Membership: Sendable, Equatable {
    /// The app's v2 folder, to be born in (CLONE_INTO_CGROUP); nil without v2.
    package var folder: String?
    /// The app's `tasks` files in v1 hierarchies. A single thread that moves itself is the one move for which the kernel need not
    /// wait until nobody forks, which takes it 10 ms and more.
    package var files: [String] = []
    /// What the lines of `/proc/PID/cgroup` must end in once it is in all of them.
    package var path = ""
    /// The file with the kernel's `oom_kill` counter.
    package var outOfMemoryCounter: String?
    /// On pure v2 the cgroup namespace is made at clone, elsewhere after the v1 groups were joined.
    package var namespaceAtClone = false
    package init() {}
  }

  /// Folders of the instance.
  package struct Places: Sendable, Equatable {
    /// Sockets; 0700.
    package var sockets = ""
    /// Outcomes of runs.
    package var runs = ""
    package var log = ""
    /// Another shim writes there too: files of its own.
    package var logIsShared = false
    /// The host's folder with the app's way to the supervisor; the shim finds it among the mounts.
    package var door: String?
    package init() {}
  }

  /// Who the app is, inside and outside.
  package struct Identity: Sendable, Equatable {
    package var namespaces: NamespaceKinds = []
    package var uidMap: [IDRange] = []
    package var gidMap: [IDRange] = []
    /// Inside the user namespace, if there is one.
    package var uid: UInt32 = 0
    package var gid: UInt32 = 0
    package var groups: [UInt32] = []
    package var hostName = ""
    package var outOfMemoryAdjustment: Int32 = 500
    /// Capabilities (bit = number) the program has, and those it can never go beyond.
    package var capabilities: UInt64 = 0
    package var bounding: UInt64 = 0
    package var noNewPrivileges = true
    package init() {}
  }

  /// Layers beside namespaces and ids, for all of the app's processes.
  package struct Walls: Sendable, Equatable {
    /// The system call filter, as an array of `struct sock_filter`; empty: none.
    package var filter: [UInt8] = []
    /// Landlock holds it to what its root consists of.
    package var landlock = false
    /// And away from TCP altogether.
    package var noTCP = false
    /// And from writing to the files of its own processes: where the kernel would let it take back what was set there.
    package var readsProcesses = false
    package init() {}
  }

  /// An image's layers as the app's root (overlayfs): what the app writes, as far as it may, stays in memory.
  package struct ImageRoot: Sendable, Equatable {
    /// Folders of the store, topmost first.
    package var layers: [String]
    /// First of the host's ids that files' own ids, 0 to 65 535, are shown as.
    package var idBase: UInt32
    /// Bytes that what is made or written in it may take.
    package var size: UInt64
    package init(layers: [String], idBase: UInt32, size: UInt64) {
      self.layers = layers
      self.idBase = idBase
      self.size = size
    }
  }

  package struct IDRange: Sendable, Equatable {
    package var inside: UInt32
    package var outside: UInt32
    package var count: UInt32
    package init(inside: UInt32, outside: UInt32, count: UInt32 = 1) {
      self.inside = inside
      self.outside = outside
      self.count = count
    }
  }

  /// One thing in the app's root, in the order they are made: parents first. Paths are inside, without the leading `/`.
  package struct RootItem: Sendable, Equatable {
    package enum Kind: Sendable, Equatable {
      case folder(mode: UInt32)
      case link(to: String)
      case file(mode: UInt32, bytes: [UInt8])
      /// What lies at a host path; `folder` says what the place it is hung on must be. `follow`: links on the way are followed
      /// (to what is the system's), else refused.
      case bind(source: String, rules: MountRules, folder: Bool, follow: Bool)
      /// A file system in memory; `owner` is a uid and gid inside.
      case memory(size: UInt64, mode: UInt32, owner: UInt32, rules: MountRules)
      /// The app's own processes.
      case processes
      /// A socket that the shim hears what the app says of itself by; anybody in the app may write to it.
      case notifySocket
      /// A folder of the image that can be written where its root cannot; made if the image has none.
      case writable
    }
    package var path: String
    package var kind: Kind
    package init(_ path: String, _ kind: Kind) {
      self.path = path
      self.kind = kind
    }
  }

  package struct Program: Sendable, Equatable {
    /// Which bind of `root` holds it, and its path in there (empty: it is the bind itself). Opened through that mount, so what
    /// runs is read-only by the same rules as what is seen. `inImage`: the image does, where `path` leads in its root; one without
    /// a slash is looked for in its PATH.
    package var bind: UInt32 = 0
    package static let inImage = UInt32.max
    package var relative = ""
    /// Its path inside.
    package var path = ""
    package var arguments: [String] = []
    /// `NAME=value`.
    package var environment: [String] = []
    package var workingFolder = "/"
    package var limits: [ResourceLimit] = []
    /// What runs in its place, looked for in PATH inside; empty: it does.
    package var instead: [String] = []
    package init() {}
  }

  /// What the program's standard streams are; else its input is empty, and its output goes to the log by two pipes.
  package struct Streams: Sendable, Equatable {
    /// Its input can be written to.
    package var input = false
    /// All three are one terminal of this size.
    package var terminal = false
    package var columns: UInt16 = 80
    package var rows: UInt16 = 24
    package init() {}
  }

  package struct ResourceLimit: Sendable, Equatable {
    /// The kernel's number (RLIMIT_*).
    package var resource: Int32
    package var soft: UInt64
    package var hard: UInt64
    package init(_ resource: Int32, soft: UInt64, hard: UInt64) {
      self.resource = resource
      self.soft = soft
      self.hard = hard
    }
  }

  /// A TCP port of the host that leads to one of the app.
  package struct Port: Sendable, Equatable {
    package var address: String
    /// 0: any free one.
    package var outside: UInt16
    package var inside: UInt16
    package init(address: String, outside: UInt16, inside: UInt16) {
      self.address = address
      self.outside = outside
      self.inside = inside
    }
  }

  /// An interface of the app's own network namespace, and its other end, a port of a bridge of the host's.
  package struct Link: Sendable, Equatable {
    package var bridge: String
    package var outer: String
    package var inner: String
    package var hardware: [UInt8]
    package var address: IPv4
    package var prefix: UInt8
    /// The way to everything else; nil: another link's.
    package var gateway: IPv4?
    /// Bits a second that the app sends and receives; 0: no limit.
    package var sends: UInt64
    package var receives: UInt64
    package init(
      bridge: String, outer: String, inner: String, hardware: [UInt8], address: IPv4, prefix: UInt8, gateway: IPv4?,
      sends: UInt64 = 0, receives: UInt64 = 0
    ) {
      self.bridge = bridge
      self.outer = outer
      self.inner = inner
      self.hardware = hardware
      self.address = address
      self.prefix = prefix
      self.gateway = gateway
      self.sends = sends
      self.receives = receives
    }
  }

  /// Where the app finds its notify socket.
  package static let notifySocket = "/dev/supervisor/notify"

  /// `APP.GENERATION`: the name of its socket (with `.sock`) and of its outcome.
  package var runName: String { "\(app).\(generation)" }
}
