/// Which program answers as an Engine.
package enum EngineFlavour: String, Sendable { case docker, podman, other }

/// What an Engine does otherwise than the API says: the only place that knows. Tried on Docker 20.10 and Podman 4.3.
package struct EngineDifferences: Sendable, Equatable {
  package let flavour: EngineFlavour

  package init(_ flavour: EngineFlavour) { self.flavour = flavour }

  /// A seccomp profile is the path of a file the Engine reads (podman), not the profile itself (docker).
  package var seccompIsFile: Bool { flavour == .podman }
  /// The log driver that keeps logs in rotated files: podman answers `local` with an error.
  package var logDriver: String { flavour == .podman ? "json-file" : "local" }
  /// `Init` runs only with the host's package catatonit; docker brings its own init.
  package var initNeedsCatatonit: Bool { flavour == .podman }
  /// `nr_inodes` in a tmpfs's options is refused.
  package var tmpfsTakesInodes: Bool { flavour != .podman }
  /// `uid=` and `gid=` in a tmpfs's options are refused.
  package var tmpfsTakesOwner: Bool { flavour != .podman }
  /// Limits are changed by podman's own call, `POST /libpod/containers/{id}/update` (4.3 and newer), not by docker's.
  var updatesByOwnCall: Bool { flavour == .podman }
  /// Images with a name are pruned by podman's own call only.
  var prunesImagesByOwnCall: Bool { flavour == .podman }
  /// A container killed for memory may not say so: read the cgroup's own count.
  package var mayMissOutOfMemory: Bool { flavour == .podman }
  /// `MaskedPaths` is ignored; the security option `mask=` does it.
  package var masksBySecurityOption: Bool { flavour == .podman }
  /// Its own default ulimits can exceed what the host lets it set, and are dropped as soon as one is named: name nofile and nproc.
  package var needsExplicitUlimits: Bool { flavour == .podman }
  /// Without root, ulimits in docker's create request are left out.
  package var dropsUlimitsRootless: Bool { flavour == .podman }
  /// `wait` looks every 250 ms or so; follow events where the moment matters.
  package var waitPolls: Bool { flavour == .podman }
  /// Following the log of a container that has ended, or ends while its reader is behind, loses the rest: read on without following.
  var followCutsEnd: Bool { flavour == .podman }
  /// `until` in a request for events gives none at all.
  var ignoresUntil: Bool { flavour == .podman }
  /// What `top` is asked for. Docker gives it to the host's ps(1); podman has words of its own, and runs the container's ps for any
  /// others.
  var processColumns: String { flavour == .podman ? "pid,user,args" : "-eo pid,user,args" }
  /// A login without TLS works only at a registry named `localhost`.
  package var plainLoginNeedsLocalhost: Bool { flavour == .podman }
  /// A build whose client has gone runs the step it is in to its end.
  package var finishesBuildStep: Bool { flavour == .podman }
  /// An imported image does not get the name that was asked for.
  package var importIgnoresTag: Bool { flavour == .podman }
  /// `tail` of logs gives the last lines as they were written; podman glues an unfinished one to the line before it.
  package var tailIsExact: Bool { flavour != .podman }
  /// A monitor of each exec stays in the container's group for minutes after its end.
  package var leavesExecMonitors: Bool { flavour == .podman }
  /// A container's input ends when somebody who was attached to it leaves, sooner or later, also where it was made to stay open.
  package var endsInputWithVisitors: Bool { flavour == .podman }
  /// Inspecting an image leaves its healthcheck out; podman's own call has it.
  var hidesImageHealthcheck: Bool { flavour == .podman }
  /// Inspect leaves out LogConfig.Config.
  package var hidesLogOptions: Bool { flavour == .podman }

  /// The spec as this Engine wants it said. Throws `unsupported` for what it could not hold to, rather than leave it out.
  package func adapted(_ spec: ContainerSpec) throws(EngineFailure) -> ContainerSpec {
    guard flavour == .podman else { return spec }
    var spec = spec
    if case .profile(_, nil) = spec.host.seccomp {
      throw .unsupported("podman takes a seccomp profile from a file only; name the file as well as the profile")
    }
    if spec.host.ipcMode == "none", spec.host.shmSize != nil { spec.host.shmSize = nil }
    if let masked = spec.host.maskedPaths, !masked.isEmpty {
      spec.host.securityOptions.append("mask=" + masked.joined(separator: ":"))
      spec.host.maskedPaths = nil
    }
    for index in spec.host.tmpfs.indices {
      spec.host.tmpfs[index].inodes = nil
      guard spec.host.tmpfs[index].uid != nil || spec.host.tmpfs[index].gid != nil else { continue }
      // It refuses uid= and gid=, and gives it to the container's user when asked.
      spec.host.tmpfs[index].uid = nil
      spec.host.tmpfs[index].gid = nil
      spec.host.tmpfs[index].ownedByUser = true
    }
    // An address given as 0.0.0.0 becomes a rule for packets to just that; none means every address, as docker has it.
    for index in spec.host.ports.indices where spec.host.ports[index].address == "0.0.0.0" {
      spec.host.ports[index].address = ""
    }
    if spec.host.readonlyRoot { holdBackTmpfs(&spec.host) }
    if spec.host.log?.driver == "local" { spec.host.log?.driver = logDriver }
    if spec.host.log?.driver == "json-file" {
      // It knows only the size; blocking is its only mode.
      let size = spec.host.log?.options["max-size"]
      spec.host.log?.options = size.map { ["max-size": $0] } ?? [:]
    }
    return spec
  }

  /// With a read-only root podman adds writable memory without a limit at three places unasked; named here, they are the image's
  /// own content, read-only.
  private func holdBackTmpfs(_ host: inout HostSpec) {
    for target in ["/run", "/tmp", "/var/tmp"]
    where !host.tmpfs.contains(where: { $0.target == target }) && !host.mounts.contains(where: { $0.target == target })
    {
      var copy = TmpfsSpec(target)
      copy.isReadOnly = true
      copy.showsImageFiles = true
      copy.size = 4 << 20
      host.tmpfs.append(copy)
    }
  }

  /// What `adapted` cannot say to this Engine and the caller must check on the running container, or live without; for people.
  package func losses(_ spec: ContainerSpec) -> [String] {
    guard flavour == .podman else { return [] }
    var losses: [String] = []
    if spec.host.tmpfs.contains(where: { $0.inodes != nil }) {
      losses.append("podman: tmpfs without a limit of inodes")
    }
    if spec.host.tmpfs.contains(where: { $0.uid != nil }) { losses.append("podman: tmpfs without an owner, mode 1777") }
    if spec.host.log?.options["max-file"] != nil { losses.append("podman: one log file, not max-file of them") }
    if spec.host.readonlyPaths != nil { losses.append("podman: ReadonlyPaths may be ignored") }
    return losses
  }

  /// The security option for a seccomp choice.
  func securityOption(_ seccomp: SeccompChoice) -> String? {
    switch seccomp {
    case .engineDefault: nil
    case .unconfined: "seccomp=unconfined"
    case .profile(let json, let file): "seccomp=" + (seccompIsFile ? file ?? "" : json)
    }
  }
}

/// Which system calls a container may make.
package enum SeccompChoice: Sendable, Equatable {
  /// The Engine's own profile.
  case engineDefault
  case unconfined
  /// The profile as JSON, and a file the Engine can read with the same, for one that takes only files.
  case profile(json: String, file: String?)
}
