package import Cgroups
package import Model
package import Networking

/// What a ContainerHost is told once.
package struct ContainerSettings: Sendable {
  package var endpoint: EngineEndpoint
  package var layout: InstanceLayout
  package var hierarchy: CgroupHierarchy
  /// First host uid of the instance's range: a given uid below it needs the app in `unsafeHostUIDs`.
  package var uidRangeBase: UInt32 = 0x20_0000
  /// Engine objects without our label that apps may use; never removed.
  package var externalVolumes: Set<String> = []
  package var externalNetworks: Set<String> = []
  /// Apps whose containers may run as a host uid below the range.
  package var unsafeHostUIDs: Set<AppID> = []
  /// Which engines are good enough.
  package var gate = EngineGate()
  /// Creates and starts at a time; four is where more brings nothing (measured on docker).
  package var width = 4
  /// How long one engine call may take before the app counts as stuck behind the engine.
  package var callTimeout: Duration = .seconds(60)
  /// How often an engine whose event stream is silent is asked whether it still answers, and how long it may take.
  package var heartbeat: Duration = .seconds(2)

  /// How apps reach the supervisor, if they do.
  package var doors: (any AppDoors)?

  /// Nil: the engine alone says what its networks are.
  package var fabric: NetworkFabric?

  package init(endpoint: EngineEndpoint, layout: InstanceLayout, hierarchy: CgroupHierarchy) {
    self.endpoint = endpoint
    self.layout = layout
    self.hierarchy = hierarchy
  }

  /// The name of an app's container: `appsup-01234567-notes-3`.
  func containerName(_ app: AppID, _ generation: UInt64) -> String {
    "appsup-\(layout.id.prefix(8))-\(app)-\(generation)"
  }

  /// Whether a container's name is one that `containerName` makes; engines put a `/` before it.
  func isName(_ name: String) -> Bool {
    (name.hasPrefix("/") ? name.dropFirst() : name[...]).hasPrefix("appsup-\(layout.id.prefix(8))-")
  }

  /// The network that `network_mode: bridge` makes for one app alone. No policy can name it: a name does not begin with a dot.
  func ownNetworkName(_ app: AppID) -> String { layout.ownNetworkName(app) }

  /// The name of a network of ours on the engine.
  func networkName(_ name: String) -> String { layout.networkName(name) }
}

/// The labels that say whose a container or network is.
enum Label {
  static let instance = "io.appsupervisor.instance"
  static let app = "io.appsupervisor.app"
  static let policyHash = "io.appsupervisor.policy-hash"
  static let generation = "io.appsupervisor.generation"
  static let nonce = "io.appsupervisor.nonce"
  static let network = "io.appsupervisor.network"
  static let prefix = "io.appsupervisor."
}

/// Which engine answers, for `doctor` and `status`.
package struct EngineFacts: Sendable, Equatable {
  package var endpoint: String
  package var flavour: String
  package var version: String
  package var apiVersion: String
  package var cgroupDriver: String
  package var cgroupVersion: String
  package var storageDriver: String
  package var runtime: String
  /// `runc 1.1.5`, as far as the engine says.
  package var components: [String]
  package var remapsUsers: Bool
  /// It runs without root: it cannot write the groups limits are held in.
  package var isRootless: Bool
  package var liveRestore: Bool
  /// `docker 20.10.24, runc 1.1.5`: what an upgrade changes.
  package var summary: String {
    (["\(flavour) \(version)"] + components.filter { !$0.hasPrefix("Engine") }).joined(separator: ", ")
  }
  /// Its own small init can be put before an app.
  package var hasInit: Bool
}
