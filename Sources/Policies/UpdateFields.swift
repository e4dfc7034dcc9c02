internal import Model

/// How an app comes to a new version of itself.
let updateFields: [Field] = [
  Field(
    "update_config", "How a new policy or image takes over from what runs",
    .object([
      .init(
        "order", .word(UpdateRule.Order.allCases.map(\.rawValue)),
        "start-first: the new one proves itself beside the old one, which is stopped then; default: stop-first"),
      .init(
        "failure_action", .word(["rollback", "pause", "continue"]),
        "When the new one does not prove itself; default: rollback with start-first, else continue"),
      .init(
        "monitor", .duration,
        "How long the new one must stay up where no healthcheck and no ready say more; default: 5s"),
    ]), .inPlace, read: readUpdate, show: showUpdate)
]

@Sendable private func readUpdate(_ node: Written, _ draft: inout Draft) {
  var rule = UpdateRule()
  rule.order = node["order"]?.text.flatMap { UpdateRule.Order(rawValue: $0) } ?? rule.order
  rule.failureAction =
    node["failure_action"]?.text.flatMap { UpdateRule.FailureAction(rawValue: $0) }
    ?? (rule.order == .startFirst ? .rollback : .continue)
  if let part = node["monitor"], let time = part.text.flatMap({ Duration(parsing: $0) }) {
    if time > .seconds(3600) { draft.findings.error(part, "monitor is at most 1h") }
    rule.monitor = time
  }
  draft.policy.update = rule
}

@Sendable private func showUpdate(_ policy: Policy) -> JSONValue? {
  let rule = policy.update
  guard rule != UpdateRule() else { return nil }
  return .object([
    "order": .string(rule.order.rawValue), "failure_action": .string(rule.failureAction.rawValue),
    "monitor": .string(rule.monitor.compact),
  ])
}

extension Draft {
  /// Two generations beside each other must not be in each other's way.
  mutating func checkUpdate() {
    guard policy.update.order == .startFirst else { return }
    for (place, reason) in startFirstObstacles {
      error(
        at: "update_config", "order: start-first does not go with \(place) for now: \(reason)",
        hint: "say order: stop-first, or remove \(place)")
    }
    if policy.update.failureAction == .pause {
      error(
        at: "update_config",
        "failure_action: pause leaves the failed one in place, and with order: start-first the old one still runs",
        hint: "say rollback or continue, or order: stop-first")
    }
  }

  private var startFirstObstacles: [(place: String, reason: String)] {
    var found: [(String, String)] = []
    if !policy.network.ports.isEmpty { found.append(("ports", "a port of the host belongs to one of two generations")) }
    for mount in policy.mounts where !mount.readOnly {
      switch mount.kind {
      case .volume(let name, _):
        found.append(("the writable volume \(name)", "both generations would write it"))
      case .bind(let source): found.append(("the writable bind \(source)", "both generations would write it"))
      case .memory: break
      }
    }
    switch policy.network.mode {
    case .host: found.append(("network_mode: host", "both generations would have the host's own ports"))
    case .named:
      found.append(("networks", "both generations would answer to the app's name before the new one has proved itself"))
    case .none, .bridge: break
    }
    if policy.schedule != nil { found.append(("schedule", "its runs have an end of their own")) }
    return found
  }
}
