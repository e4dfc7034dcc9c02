/// Where one instance keeps its things, and the names that tell it from others on this host.
package struct InstanceLayout: Sendable, Equatable {
  /// `config.yaml` and `policies/`.
  package var config: String
  /// What must last: the database, volumes, apps' own data, runs' outcomes.
  package var state: String
  /// What a reboot may take: sockets, the lock.
  package var run: String
  /// Native apps' logs and ended containers' ones.
  package var log: String
  /// The configuration's `instance`, or the first 8 characters of `id` for an instance under a root of its own.
  package var name: String
  /// Random, 128 bits in hex, made once and kept in `state`.
  package var id: String
  /// The daemon's configuration's `cgroup_parent`.
  package var cgroupBase: String

  package init(
    config: String, state: String, run: String, log: String, name: String, id: String,
    cgroupBase: String = "/appsupervisor"
  ) {
    self.config = config
    self.state = state
    self.run = run
    self.log = log
    self.name = name
    self.id = id
    self.cgroupBase = cgroupBase
  }

  /// The parent of all cgroups of this instance, relative to each hierarchy's root: `/appsupervisor-default`.
  package var cgroupParent: String { "\(cgroupBase)-\(name)" }

  /// `state/volumes/NAME`: a volume of ours.
  package func volume(_ name: String) -> String { "\(state)/volumes/\(name)" }

  /// `state/images`: the instance's own images.
  package var images: String { "\(state)/images" }

  /// `state/apps/ID`: holds an app's own `data` and `cache`.
  package func appData(_ app: AppID) -> String { "\(state)/apps/\(app)" }

  /// `log/ID`
  package func appLog(_ app: AppID) -> String { "\(log)/\(app)" }

  /// `run/apps/ID.GENERATION/sock`: what one instance of an app sees at `/run/supervisor`.
  package func appSockets(_ app: AppID, _ generation: UInt64) -> String { "\(run)/apps/\(app).\(generation)/sock" }

  /// The control socket.
  package var controlSocket: String { "\(run)/supervisor.sock" }
}

extension InstanceLayout {
  /// The network that `network_mode: bridge` makes for one app alone. No policy can name it: a name does not begin with a dot.
  package func ownNetworkName(_ app: AppID) -> String { "appsup_\(name)_.\(app)" }

  /// What a network of ours is called for the kernel and the engine.
  package func networkName(_ network: String) -> String { "appsup_\(name)_\(network)" }

  /// `run/hosts/KEY`: the names that one run of an app knows, bound at its `/etc/hosts`.
  package func hostsFile(_ key: String) -> String { "\(run)/hosts/\(key)" }
}
