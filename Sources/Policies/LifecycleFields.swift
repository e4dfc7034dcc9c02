internal import Model

/// When an app starts, ends and starts again.
let lifecycleFields: [Field] = [
  Field(
    "restart", "What happens when a run ends",
    .checked(
      said: "no, always, unless-stopped or on-failure[:N]", pattern: "^(no|always|unless-stopped|on-failure(:[0-9]+)?)$"
    ) { restartRule($0) != nil },
    .inPlace, read: { $1.policy.restart = restartRule($0.text ?? "") ?? .no }, show: { .string(text(of: $0.restart)) }),
  Field(
    "restart_policy", "How restarts are spaced, and when they end", backoffForm, .inPlace, read: readBackoff,
    show: showBackoff),
  Field(
    "depends_on", "Apps that must be there first", dependenciesForm, .inPlace, read: readDependencies,
    show: showDependencies),
  Field(
    "stop_signal", "What asks the app to end",
    .checked(said: "a signal such as SIGTERM", pattern: "^[A-Z0-9+-]+$") { signalNumber($0) != nil }, .inPlace,
    read: { $1.policy.stopSignal = signalNumber($0.text ?? "") ?? 15 }, show: { .string(signalName($0.stopSignal)) }),
  Field(
    "stop_grace_period", "How long it may take before it is killed", .duration, .inPlace,
    read: { node, draft in
      draft.policy.stopGrace = node.text.flatMap { Duration(parsing: $0) } ?? .seconds(10)
      if draft.policy.stopGrace > .seconds(3600) { draft.findings.error(node, "stop_grace_period is at most 1h") }
    }, show: { .string($0.stopGrace.compact) }),
]

private func restartRule(_ text: String) -> RestartRule? {
  switch text {
  case "no": return .no
  case "always": return .always
  case "unless-stopped": return .unlessStopped
  case "on-failure": return .onFailure(maximum: nil)
  default:
    guard text.hasPrefix("on-failure:"), let count = Form.whole(String(text.dropFirst(11))), count > 0 else {
      return nil
    }
    return UInt32(exactly: count).map { .onFailure(maximum: $0) }
  }
}

func text(of rule: RestartRule) -> String {
  switch rule {
  case .no: "no"
  case .always: "always"
  case .unlessStopped: "unless-stopped"
  case .onFailure(let maximum): "on-failure" + (maximum.map { ":\($0)" } ?? "")
  }
}

private let backoffForm = Form.object([
  .init("delay", .duration, "Before the first restart"),
  .init("multiplier", .decimal(1...100), "Each delay is this times the last"),
  .init("max_delay", .duration, "No delay is longer"),
  .init("jitter", .decimal(0...1), "Each delay varies by this fraction"),
  .init("window", .duration, "max_attempts are counted within this time"),
  .init("max_attempts", .whole(1...1_000_000), "So many restarts within window end in failed"),
  .init("reset_after", .duration, "A run this long counts as good"),
])

@Sendable private func readBackoff(_ node: Written, _ draft: inout Draft) {
  func duration(_ key: String, _ current: Duration) -> Duration {
    node[key]?.text.flatMap { Duration(parsing: $0) } ?? current
  }
  func decimal(_ key: String, _ current: Double) -> Double { node[key]?.text.flatMap { Double($0) } ?? current }
  var backoff = Backoff()
  backoff.delay = duration("delay", backoff.delay)
  backoff.multiplier = decimal("multiplier", backoff.multiplier)
  backoff.maximumDelay = duration("max_delay", max(backoff.maximumDelay, backoff.delay))
  backoff.jitter = decimal("jitter", backoff.jitter)
  backoff.window = duration("window", backoff.window)
  backoff.maximumAttempts = node["max_attempts"]?.text.flatMap { UInt32($0) } ?? backoff.maximumAttempts
  backoff.resetAfter = duration("reset_after", backoff.resetAfter)
  if backoff.maximumDelay < backoff.delay {
    draft.findings.error(node["max_delay"] ?? node, "max_delay is shorter than delay")
  }
  if backoff.window == .zero { draft.findings.error(node["window"] ?? node, "window cannot be 0") }
  draft.policy.backoff = backoff
}

@Sendable private func showBackoff(_ policy: Policy) -> JSONValue? {
  let backoff = policy.backoff
  return .object([
    "delay": .string(backoff.delay.compact), "multiplier": .decimal(backoff.multiplier),
    "max_delay": .string(backoff.maximumDelay.compact),
    "jitter": .decimal(backoff.jitter), "window": .string(backoff.window.compact),
    "max_attempts": .count(backoff.maximumAttempts),
    "reset_after": .string(backoff.resetAfter.compact),
  ])
}

private let dependenciesForm = Form.either(
  [
    .list(.appID, most: 100),
    .map(
      .orNothing(
        .object([
          .init(
            "condition", .word(Policy.Dependency.Condition.allCases.map(\.rawValue)),
            "What the other app must have reached"),
          .init("restart", .boolean, "Restart this app when the other was restarted"),
          .init("required", .boolean, "false: a missing app is fine"),
        ])), most: 100),
  ], said: "a list of apps, or a map of app to condition")

@Sendable private func readDependencies(_ node: Written, _ draft: inout Draft) {
  var entries: [(place: Written, name: String, options: Written?)] = []
  for item in node.list ?? [] { entries.append((item, item.text ?? "", nil)) }
  for member in node.members ?? [] { entries.append((member.keyNode, member.key, member.value)) }
  var dependencies: [Policy.Dependency] = []
  for (place, name, options) in entries {
    guard let app = AppID(name) else {
      draft.findings.error(place, "\(name.quoted) is not an app's id")
      continue
    }
    if app == draft.policy.id { draft.findings.error(place, "an app cannot depend on itself") }
    if dependencies.contains(where: { $0.app == app }) { draft.findings.error(place, "\(name.quoted) is given twice") }
    let condition = options?["condition"]?.text.flatMap { Policy.Dependency.Condition(rawValue: $0) } ?? .started
    dependencies.append(
      Policy.Dependency(
        app: app, condition: condition, restart: options?["restart"]?.text == "true",
        required: options?["required"]?.text != "false"))
  }
  draft.policy.dependencies = dependencies.sorted { $0.app < $1.app }
}

@Sendable private func showDependencies(_ policy: Policy) -> JSONValue? {
  .map(
    policy.dependencies.map {
      (
        $0.app.name,
        .object([
          "condition": .string($0.condition.rawValue), "restart": .bool($0.restart), "required": .bool($0.required),
        ])
      )
    })
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `RTMAX-1`; nil: no signal of Linux. Numbers 32 and 33 are the C library's own.
package func signalNumber(_ text: String) -> Int32? {
  if let number = SignalName.number(text) { return number == 32 || number == 33 ? nil : number }
  let upper = text.uppercased()
  let name = upper.hasPrefix("SIG") ? String(upper.dropFirst(3)) : upper
  for (prefix, base, sign) in [("RTMIN", Int32(34), Int32(1)), ("RTMAX", 64, -1)] where name.hasPrefix(prefix) {
    let rest = name.dropFirst(prefix.count)
    guard !rest.isEmpty else { return base }
    guard rest.first == (sign > 0 ? "+" : "-"), let offset = Form.whole(String(rest.dropFirst())),
      (0...30).contains(offset)
    else { return nil }
    return base + sign * Int32(offset)
  }
  return nil
}

/// `SIGTERM`, `SIGRTMIN+3`.
package func signalName(_ number: Int32) -> String {
  SignalName.name(of: number) ?? ((34...64).contains(number) ? "SIGRTMIN+\(number - 34)" : String(number))
}
