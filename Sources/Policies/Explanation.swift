package import Model

/// What an app will be, in plain sentences: how it runs, as whom, with what limits, what it sees and reaches, and when it
/// starts again. Needs no daemon.
package func explain(_ policy: Policy) -> [String] {
  [program(policy), identity(policy), rights(policy), memory(policy), processor(policy), tasks(policy)] + files(policy)
    + network(policy)
    + lifecycle(policy)
}

private func program(_ policy: Policy) -> String {
  let command = policy.entry.joined(separator: " ")
  switch policy.runtime {
  case .container:
    var line = "\(policy.id) is a container "
    switch policy.image {
    case .build(let context, let dockerfile, _, _)?: line += "of an image built from \(context) by \(dockerfile)"
    case .reference(let name, let rule)?:
      let when =
        switch rule {
        case .always: "fetched at every start"
        case .never: "which must be there already"
        case .missing: "fetched if it is not there"
        }
      line += "of the image \(name), \(when)"
    case nil: line += "without an image"
    }
    if let entrypoint = policy.entrypoint { line += "; its entrypoint is \(entrypoint.joined(separator: " "))" }
    if !command.isEmpty { line += "; it runs \(command)" }
    if policy.fallback == .native { line += "; without an engine it runs as a process of this host" }
    return line + "."
  case .native:
    let root =
      policy.rootfs.map { "in the root file system \($0)" } ?? "in a root of its own made from this host's /usr"
    return "\(policy.id) is a process of this host, \(command), \(root)."
  case .wasm: return "\(policy.id) is the WebAssembly module \(command)."
  }
}

private func identity(_ policy: Policy) -> String {
  switch policy.user {
  case .auto: "It runs as a user and group that no other app and nobody on the host has."
  case .image: "It runs as the user that the image names, which can be root."
  case .given(let uid, let gid):
    policy.runtime == .container
      ? "It runs as uid \(uid), gid \(gid): ids of the host where the engine does not map them."
      : "It runs as uid \(uid), gid \(gid) of its own user namespace."
  }
}

private func rights(_ policy: Policy) -> String {
  let added = policy.capabilities.add.joined(separator: ", ")
  let dropsAll = policy.capabilities.drop.contains("ALL")
  switch policy.preset {
  case .minimal:
    return "The sandbox is minimal: no capability, no new privileges, only the paths and system calls that it declares."
  case .standard:
    return
      "The sandbox is standard: \(dropsAll ? (added.isEmpty ? "no capability" : "no capability but \(added)") : "the engine's capabilities"), no new privileges."
  case .privileged:
    return
      "The sandbox is privileged: \(dropsAll ? "no capabilities" : "the engine's capabilities")\(added.isEmpty ? "" : " and \(added)"); the daemon's configuration must allow it."
  }
}

private func memory(_ policy: Policy) -> String {
  guard let limit = policy.limits.memory else { return "Its memory is not limited." }
  var line = "It may have \(limit.readable) of memory"
  switch policy.limits.memoryAndSwap {
  case limit?: line += " and no swap"
  case let both?: line += " and \(Bytes(both.count - limit.count).readable) of swap"
  case nil: line += " and any amount of swap"
  }
  if let high = policy.limits.memoryHigh { line += "; from \(high.readable) on it is slowed down" }
  if let kept = policy.limits.memoryReservation { line += "; \(kept.readable) is protected" }
  return line + ". At the limit it is ended."
}

private func processor(_ policy: Policy) -> String {
  var line = "Its share of the processor is that of priority \(policy.priority.value)"
  if let shares = policy.limits.cpuShares { line = "Its share of the processor is \(shares) on Docker's scale" }
  if let cpus = policy.limits.cpus { line += ", never more than \(short(cpus)) cores" }
  if let cores = policy.limits.cpuset { line += ", on the cores \(cores)" }
  if policy.schedulingClass == .batch { line += ", and it stands back for other work" }
  return line + "."
}

private func tasks(_ policy: Policy) -> String {
  let files = policy.limits.rlimits.first { $0.name == "nofile" }
  let pids = policy.limits.pids.map { "\($0) processes and threads" } ?? "any number of processes"
  return "It may have \(pids)\(files.map { " and \($0.soft) open files each" } ?? "")."
}

private func files(_ policy: Policy) -> [String] {
  var lines = [
    policy.readOnlyRoot
      ? "It cannot write to its root file system."
      : "It can write to its root file system; what it writes there is lost."
  ]
  for mount in policy.mounts {
    let access = mount.readOnly ? ", read-only" : ""
    switch mount.kind {
    case .volume(let name, let external):
      lines.append("\(mount.target) is the \(external ? "engine's volume" : "volume") \(name)\(access); it lasts.")
    case .bind(let source): lines.append("\(mount.target) is the host's \(source)\(access).")
    case .memory(let size, _):
      lines.append("\(mount.target) is memory, at most \(size.readable)\(access); it is gone when the app ends.")
    }
  }
  return lines
}

private func network(_ policy: Policy) -> [String] {
  var lines: [String]
  switch policy.network.mode {
  case .none: lines = ["It has no network."]
  case .bridge: lines = ["It has a network of its own and reaches whatever the host reaches; no other app is on it."]
  case .host: lines = ["It has the host's own network."]
  case .named:
    lines = [
      "It is on the networks \(policy.network.attachments.map(\.network).joined(separator: ", ")), with every app that names them too."
    ]
  }
  for port in policy.network.ports {
    let outside = port.hostPort == 0 ? "A free port" : "Port \(port.hostPort)"
    let whom =
      port.hostAddress == "127.0.0.1" || port.hostAddress == "::1"
      ? "this host only" : "whoever reaches \(port.hostAddress)"
    lines.append("\(outside) of the host leads to its port \(port.appPort)/\(port.transport.rawValue), for \(whom).")
  }
  return lines
}

private func lifecycle(_ policy: Policy) -> [String] {
  var lines: [String] = []
  if !policy.dependencies.isEmpty {
    lines.append("It starts after \(policy.dependencies.map(\.app.name).joined(separator: ", ")).")
  }
  if !policy.profiles.isEmpty {
    lines.append("It starts only with one of the profiles \(policy.profiles.joined(separator: ", ")).")
  }
  let backoff = policy.backoff
  let spacing =
    "after \(backoff.delay.compact), then at growing intervals up to \(backoff.maximumDelay.compact); \(backoff.maximumAttempts) times within \(backoff.window.compact) count as failed"
  switch policy.restart {
  case .no: lines.append("When it ends it stays ended.")
  case .always: lines.append("When it ends it is started again, also at boot: \(spacing).")
  case .unlessStopped:
    lines.append("When it ends it is started again, also at boot, unless someone stopped it: \(spacing).")
  case .onFailure(let maximum):
    lines.append("When it fails it is started again\(maximum.map { ", \($0) times at most" } ?? ""): \(spacing).")
  }
  if let longest = policy.limits.maximumRuntime { lines.append("A run is ended after \(longest.compact).") }
  lines.append("To stop it, \(signalName(policy.stopSignal)) is sent; after \(policy.stopGrace.compact) it is killed.")
  lines.append(
    policy.enforcement == .strict
      ? "Where a limit or layer cannot be enforced, it is not started."
      : "Where a limit or layer cannot be enforced, it is started without, and that is shown.")
  return lines
}
