internal import Model

/// Which keys of config.yaml differ between two configurations, by what it takes to have the new value in force.
package struct ConfigurationChange: Sendable, Equatable {
  /// Taken over while the daemon runs.
  package var live: [String]
  /// In force with the daemon's next start; apps do not notice that.
  package var atRestart: [String]
}

/// The keys that a running daemon takes over.
private let liveKeys: Set<String> = ["privileged_apps", "reserve", "operators"]

extension ConfigurationChange {
  package init(from old: Configuration, to new: Configuration) {
    let differing = [
      ("instance", old.instance != new.instance), ("engine", old.engine != new.engine),
      ("engine_gate", old.engineGate != new.engineGate), ("cgroup_parent", old.cgroupParent != new.cgroupParent),
      ("reserve", old.reserve != new.reserve), ("uid_range", old.uidRange != new.uidRange),
      ("privileged_apps", old.privilegedApps != new.privilegedApps),
      ("external_volumes", old.externalVolumes != new.externalVolumes),
      ("external_networks", old.externalNetworks != new.externalNetworks),
      ("unsafe_host_uids", old.unsafeHostUIDs != new.unsafeHostUIDs), ("operators", old.operators != new.operators),
      ("logs", old.logs != new.logs), ("metrics", old.metrics != new.metrics),
      ("audit", old.auditSize != new.auditSize),
    ].filter(\.1).map(\.0)
    live = differing.filter { liveKeys.contains($0) }
    atRestart = differing.filter { !liveKeys.contains($0) }
  }
}

extension Configuration {
  /// This configuration with those keys of `new` that a running daemon takes over.
  package func takingOver(_ new: Configuration) -> Configuration {
    var taken = self
    taken.privilegedApps = new.privilegedApps
    taken.reserve = new.reserve
    taken.operators = new.operators
    return taken
  }
}
