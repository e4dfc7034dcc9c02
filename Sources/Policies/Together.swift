package import Model

/// Judges files that are loaded together, with what is applied already: ids given twice, dependencies that are unknown
/// or go round, host ports that two apps publish. Readings without a policy are left out.
///
/// An applied app is replaced by the reading of the same id. A problem's `path` begins with the id it is about.
package func checkTogether(_ readings: [Reading], alreadyApplied: [Policy] = []) -> [Problem] {
  var problems: [Problem] = []
  var files: [AppID: String] = [:]
  var policies: [Policy] = []
  for reading in readings {
    guard let policy = reading.policy else { continue }
    if let other = files[policy.id] {
      problems.append(
        Problem(
          "the id \(policy.id) is given twice: in \(other) and in \(reading.path)",
          hint: "ids are unique in the instance", path: "\(policy.id).id"))
    } else {
      files[policy.id] = reading.path
      policies.append(policy)
    }
  }
  policies += alreadyApplied.filter { files[$0.id] == nil }
  let loaded = Set(files.keys)
  problems += unknownDependencies(policies, loaded)
  problems += impossibleConditions(policies, loaded)
  problems += cycles(policies)
  problems += sharedPorts(policies, loaded)
  return problems
}

private func unknownDependencies(_ policies: [Policy], _ loaded: Set<AppID>) -> [Problem] {
  let known = policies.map(\.id.name)
  return policies.filter { loaded.contains($0.id) }.flatMap { policy in
    policy.dependencies.filter { $0.required && !known.contains($0.app.name) }.map { dependency in
      Problem(
        "\(policy.id) depends on \(dependency.app), which is neither loaded nor applied",
        hint: didYouMean(dependency.app.name, known) ?? "load its policy too, or say required: false",
        path: "\(policy.id).depends_on")
    }
  }
}

/// What is waited for must be able to come.
private func impossibleConditions(_ policies: [Policy], _ loaded: Set<AppID>) -> [Problem] {
  let known = Dictionary(policies.map { ($0.id, $0) }) { first, _ in first }
  return policies.flatMap { policy in
    policy.dependencies.compactMap { dependency -> Problem? in
      guard let other = known[dependency.app], loaded.contains(policy.id) || loaded.contains(other.id) else {
        return nil
      }
      let path = "\(policy.id).depends_on"
      switch dependency.condition {
      case .started: return nil
      case .healthy:
        // An image may have a check of its own.
        let isChecked =
          other.healthcheck.test != .none && (other.runtime == .container || other.healthcheck.test != .image)
        guard !isChecked, other.readiness == .started else { return nil }
        return Problem(
          "\(policy.id) waits for \(other.id) to be healthy, which has no healthcheck",
          hint: "give \(other.id) a healthcheck or a ready, or wait for service_started", path: path)
      case .completed:
        guard other.restart == .always || other.restart == .unlessStopped else { return nil }
        return Problem(
          "\(policy.id) waits for \(other.id) to do its work, which is restarted whenever it ends",
          hint: "say restart: no or on-failure in \(other.id)", path: path)
      }
    }
  }
}

/// One problem for each group of apps that wait for each other, naming a way round.
private func cycles(_ policies: [Policy]) -> [Problem] {
  var edges: [AppID: [AppID]] = [:]
  for policy in policies { edges[policy.id] = policy.dependencies.map(\.app) }
  var done: Set<AppID> = []
  var problems: [Problem] = []
  for start in edges.keys.sorted() where !done.contains(start) {
    // Depth first without recursion: a chain may be as long as there are apps.
    var path: [(app: AppID, next: Int)] = [(start, 0)]
    var onPath: Set<AppID> = [start]
    while let (app, next) = path.last {
      let targets = edges[app] ?? []
      guard next < targets.count else {
        done.insert(app)
        onPath.remove(app)
        path.removeLast()
        continue
      }
      path[path.count - 1].next += 1
      let target = targets[next]
      if onPath.contains(target) {
        let round = path.map(\.app).drop { $0 != target } + [target]
        problems.append(
          Problem(
            "these apps wait for each other: \(round.map(\.name).joined(separator: " → "))",
            hint: "remove one of the dependencies", path: "\(target).depends_on"))
      } else if !done.contains(target), edges[target] != nil {
        path.append((target, 0))
        onPath.insert(target)
      }
    }
  }
  return problems
}

private func sharedPorts(_ policies: [Policy], _ loaded: Set<AppID>) -> [Problem] {
  var holders: [UInt32: [(app: AppID, port: PublishedPort)]] = [:]
  var problems: [Problem] = []
  for policy in policies {
    for port in policy.network.ports where port.hostPort > 0 {
      let key = UInt32(port.hostPort) << 1 | (port.transport == .udp ? 1 : 0)
      let others = holders[key, default: []].filter { $0.port.claims(sameAs: port) && $0.app != policy.id }
      if let other = others.first, loaded.contains(policy.id) || loaded.contains(other.app) {
        problems.append(
          Problem(
            "\(other.app) and \(policy.id) both publish port \(port.hostPort)/\(port.transport.rawValue) of the host",
            hint: "give one of them another host port", path: "\(policy.id).ports"))
      }
      holders[key, default: []].append((policy.id, port))
    }
  }
  return problems
}
