package import Model

/// What an app will be, in plain sentences: how it runs, as whom, with what limits, what it sees and reaches, and when it
/// starts again. Needs no daemon.
package func explain(_ policy: Policy) -> [String] {
  [program(policy)] + streams(policy) + [
    identity(policy), rights(policy), memory(policy), processor(policy), tasks(policy),
  ] + files(policy)
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
    if policy.fallback == .native {
      line +=
        "; without an engine it runs as a process of this host, from that image if the supervisor's own store has it"
    }
    return line + "."
  case .native:
    if let image = policy.image {
      let what = command.isEmpty ? "" : ", with \(command)"
      return
        "\(policy.id) is a process of this host from the image \(image.reference) of the supervisor's own store\(what)."
    }
    let root =
      policy.rootfs.map { "in the root file system \($0)" } ?? "in a root of its own made from this host's /usr"
    return "\(policy.id) is a process of this host, \(command), \(root)."
  case .wasm: return "\(policy.id) is the WebAssembly module \(command)."
  }
}

private func streams(_ policy: Policy) -> [String] {
  switch (policy.opensInput, policy.terminal) {
  case (false, false): []
  case (true, false): ["Its standard input is open: `attach` writes to it."]
  case (false, true): ["Its output goes to a terminal; nobody types there."]
  case (true, true): ["It sits at a terminal: `attach` types there."]
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
  case .bridge: lines = ["It has a network of its own; no other app is on it."]
  case .host: lines = ["It has the host's own network."]
  case .named:
    lines = [
      "It is on the networks \(policy.network.attachments.map(\.network).joined(separator: ", ")), with every app that names them too."
    ]
  }
  lines += reach(policy.network)
  for port in policy.network.ports {
    let outside = port.hostPort == 0 ? "A free port" : "Port \(port.hostPort)"
    let whom =
      port.hostAddress == "127.0.0.1" || port.hostAddress == "::1"
      ? "this host only" : "whoever reaches \(port.hostAddress)"
    lines.append("\(outside) of the host leads to its port \(port.appPort)/\(port.transport.rawValue), for \(whom).")
  }
  return lines
}

/// What lies beyond its networks.
private func reach(_ network: Network) -> [String] {
  guard network.mode == .bridge || network.mode == .named else { return [] }
  var lines: [String]
  switch network.egress?.allow {
  case nil:
    lines = [
      "Beyond it reaches what the host reaches, but never metadata or link-local addresses, the host itself, or other networks of apps."
    ]
  case .some(let rules) where rules.isEmpty: lines = ["It reaches nothing beyond."]
  case .some(let rules): lines = ["Beyond it reaches only \(rules.map(\.text).joined(separator: ", "))."]
  }
  if let most = network.egress?.maximumConnections {
    lines.append("It has at most \(most) connections beyond at once.")
  }
  if let rate = network.bandwidth.egress { lines.append("It sends at most \(rateText(rate)) a second.") }
  if let rate = network.bandwidth.ingress { lines.append("It receives at most \(rateText(rate)) a second.") }
  return lines
}

private func lifecycle(_ policy: Policy) -> [String] {
  var lines: [String] = []
  lines += order(policy)
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
  if let most = policy.limits.maximumCPUTime {
    lines.append("A run is ended once it has used \(most.compact) of processor time.")
  }
  lines += health(policy)
  lines.append("To stop it, \(signalName(policy.stopSignal)) is sent; after \(policy.stopGrace.compact) it is killed.")
  lines.append(
    policy.enforcement == .strict
      ? "Where a limit or layer cannot be enforced, it is not started."
      : "Where a limit or layer cannot be enforced, it is started without, and that is shown.")
  return lines
}

private func order(_ policy: Policy) -> [String] {
  var lines: [String] = []
  for (condition, words) in [
    (Policy.Dependency.Condition.started, "runs"), (.healthy, "is ready and healthy"),
    (.completed, "has done its work"),
  ] {
    let those = policy.dependencies.filter { $0.condition == condition }
    guard !those.isEmpty else { continue }
    lines.append("It starts once \(those.map(\.app.name).joined(separator: " and ")) \(words).")
  }
  let carried = policy.dependencies.filter(\.restart).map(\.app.name)
  if !carried.isEmpty { lines.append("It is restarted when \(carried.joined(separator: " or ")) is.") }
  if policy.update.order == .startFirst {
    lines.append("A new version of it proves itself beside the old one, which is stopped then.")
  }
  switch policy.update.failureAction {
  case .rollback: lines.append("A new version that does not work is taken back.")
  case .pause: lines.append("A new version that does not work is left as it is.")
  case .continue: break
  }
  for step in policy.preStart {
    let bound = step.timeout > .zero ? " within \(step.timeout.compact)" : ""
    lines.append("Before each start \(step.command.joined(separator: " ")) must succeed\(bound).")
  }
  if let schedule = policy.schedule {
    let rest =
      switch schedule.concurrency {
      case .forbid: "the new one is left out"
      case .replace: "the old one is ended"
      case .allow: "the new one goes on beside it, up to \(policy.maximumInstances) at once"
      }
    let missed =
      schedule.missed == .run ? "one run makes up for those" : "they are told and left out"
    lines.append(
      "A run begins at \(schedule.cron) (\(schedule.timezone)); if the last one still goes on, \(rest). When runs were due while no supervisor ran, \(missed)."
    )
  }
  return lines
}

private func health(_ policy: Policy) -> [String] {
  var lines: [String] = []
  let test: String? =
    switch policy.healthcheck.test {
    case .image: policy.runtime == .container ? "by its image's own check, if it has one" : nil
    case .none: nil
    case .command(let words): "by \(words.joined(separator: " "))"
    case .http(let port, let path): "by a request of its port \(port), \(path)"
    case .tcp(let port): "by a connection to its port \(port)"
    }
  if let test, let check = policy.healthcheck.settled(image: Healthcheck(.tcp(port: 1)), restart: policy.restart) {
    let then =
      switch check.onFailure {
      case .none: "that is shown"
      case .notify: "that is told"
      case .restart: "it is restarted"
      case .stop: "it is stopped"
      }
    let isOpen = if case .image = policy.healthcheck.test { true } else { false }
    lines.append(
      isOpen
        ? "Whether it works is checked \(test); after failures in a row \(then)."
        : "Whether it works is checked \(test) every \(check.interval.compact); after \(check.retries) failures in a row \(then)."
    )
  }
  switch policy.readiness {
  case .started: break
  case .healthy: lines.append("It counts as ready at its first successful check.")
  case .notify: lines.append("It counts as ready when it says READY=1 to its notify socket.")
  case .logLine(let text): lines.append("It counts as ready when it writes a line with \"\(text)\".")
  }
  return lines
}
