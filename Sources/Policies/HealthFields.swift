internal import Glibc
internal import Model

/// How it is known that an app works and is ready, what runs before it, and when runs begin of themselves.
let healthFields: [Field] = [
  Field(
    "healthcheck", "How it is known that the app works", healthcheckForm, .inPlace, read: readHealthcheck,
    show: showHealthcheck),
  Field(
    "ready", "When the app counts as ready",
    .either(
      [
        .word(["started", "healthy", "notify"]),
        .object([
          .init("log_line", .text(most: 256), "Text of a line of its output", required: true)
        ]),
      ], said: "started, healthy, notify or {log_line: TEXT}"),
    .renew, read: readReadiness, show: { showReadiness($0.readiness) }),
  Field(
    "pre_start", "Commands that must succeed first, each run like the app itself",
    .list(
      .object([
        .init("command", .command, "What to run", required: true),
        .init("timeout", .duration, "Then it is killed and has failed; 0: never; default: 10m"),
        .init("user", .text(), "As whom", later: "commands before the start as another user"),
      ]), most: 20), .inPlace, read: readPreStart,
    show: {
      .array(
        $0.preStart.map { .object(["command": .strings($0.command), "timeout": .string($0.timeout.compact)]) })
    }),
  Field(
    "schedule", "When runs begin of themselves; up alone starts none",
    .object([
      .init(
        "cron",
        .text(most: 256),
        "Minute, hour, day of month, month, day of week; or @daily and the like", required: true),
      .init("timezone", .text(most: 64), "Its name, as Europe/Berlin; default: UTC"),
      .init("concurrency", .word(Schedule.Concurrency.allCases.map(\.rawValue)), "When the last run still goes on"),
      .init(
        "missed", .word(Schedule.Missed.allCases.map(\.rawValue)),
        "What becomes of runs that were due while no supervisor ran: skip, or one run for all; default: skip"),
    ]), .inPlace, read: readSchedule, show: showSchedule),
]

// MARK: Health

private let healthcheckForm = Form.object([
  .init(
    "test", .either([.text(), .list(.text(most: 131_072), most: 4096)], said: "[CMD, …], [CMD-SHELL, …] or a command"),
    "A command that succeeds; [NONE] switches the image's off"),
  .init(
    "http",
    .object([
      .init("port", .whole(1...65535), "Port of the app", required: true),
      .init(
        "path",
        .checked(said: "a path that begins with /, without blanks", pattern: "^/[!-~]*$") { text in
          text.hasPrefix("/") && text.utf8.count <= 1024 && text.utf8.allSatisfy { (0x21...0x7E).contains($0) }
        }, "Default: /"),
    ]),
    "A GET of the app's port that is answered with 200 to 399"),
  .init(
    "tcp", .object([.init("port", .whole(1...65535), "Port of the app", required: true)]),
    "A port of the app that accepts"),
  .init("interval", .duration, "From one check to the next; default: 30s"),
  .init("timeout", .duration, "Of one check; default: 30s"),
  .init("retries", .whole(1...1000), "So many failures in a row make it unhealthy; default: 3"),
  .init("start_period", .duration, "Failures before the first success do not count for so long; default: interval"),
  .init("start_interval", .duration, "The longest time between checks while it starts; default: 1s"),
  .init(
    "on_failure", .word(Healthcheck.Action.allCases.map(\.rawValue)),
    "What follows when it is unhealthy; default: restart, or none where restart is no"),
  .init("disable", .boolean, "true: no check, also not the image's"),
])

@Sendable private func readHealthcheck(_ node: Written, _ draft: inout Draft) {
  var check = Healthcheck()
  let tests = ["test", "http", "tcp"].filter { node[$0] != nil }
  if tests.count > 1, let second = node[tests[1]] {
    draft.findings.error(second, "healthcheck takes one of test, http and tcp", hint: "remove \(tests[1])")
  }
  if let test = node["test"] { check.test = readTest(test, &draft) }
  if let http = node["http"], let port = http["port"]?.text.flatMap({ UInt16($0) }) {
    check.test = .http(port: port, path: http["path"]?.text ?? "/")
  }
  if let port = node["tcp"]?["port"]?.text.flatMap({ UInt16($0) }) { check.test = .tcp(port: port) }
  if node["disable"]?.text == "true" {
    if let first = tests.first.flatMap({ node[$0] }), check.test != .none {
      draft.findings.error(first, "healthcheck is disabled and has a test", hint: "remove disable, or the test")
    }
    check.test = .none
  }
  func duration(_ key: String, atLeast least: Duration) -> Duration? {
    guard let part = node[key], let value = part.text.flatMap({ Duration(parsing: $0) }) else { return nil }
    if value < least { draft.findings.error(part, "\(key) is at least \(least.compact)") }
    if value > .seconds(86_400) { draft.findings.error(part, "\(key) is at most 24h") }
    return value
  }
  check.interval = duration("interval", atLeast: .milliseconds(100))
  check.timeout = duration("timeout", atLeast: .milliseconds(10))
  check.startPeriod = duration("start_period", atLeast: .zero)
  check.startInterval = duration("start_interval", atLeast: .milliseconds(10))
  check.retries = node["retries"]?.text.flatMap { UInt32($0) }
  check.onFailure = node["on_failure"]?.text.flatMap { Healthcheck.Action(rawValue: $0) }
  draft.policy.healthcheck = check
}

private func readTest(_ node: Written, _ draft: inout Draft) -> Healthcheck.Test {
  if let text = node.text {
    if text.allSatisfy(\.isWhitespace) { draft.findings.error(node, "test names no command") }
    return .command(["/bin/sh", "-c", text])
  }
  let words = node.texts
  switch words.first {
  case "NONE" where words.count == 1: return .none
  case "CMD" where words.count > 1 && !words[1].isEmpty: return .command(Array(words.dropFirst()))
  case "CMD-SHELL" where words.count == 2: return .command(["/bin/sh", "-c", words[1]])
  default:
    draft.findings.error(
      node, "test begins with CMD, CMD-SHELL or NONE",
      hint: "[CMD, PROGRAM, ARGUMENT…], [CMD-SHELL, \"a command\"] or [NONE]")
    return .none
  }
}

@Sendable private func showHealthcheck(_ policy: Policy) -> JSONValue? {
  let check = policy.healthcheck
  var object = JSONObject()
  switch check.test {
  case .image: break
  case .none: object["disable"] = true
  case .command(let words): object["test"] = .strings(["CMD"] + words)
  case .http(let port, let path): object["http"] = .object(["port": .count(port), "path": .string(path)])
  case .tcp(let port): object["tcp"] = .object(["port": .count(port)])
  }
  object["interval"] = check.interval.map { .string($0.compact) }
  object["timeout"] = check.timeout.map { .string($0.compact) }
  object["retries"] = check.retries.map { .count($0) }
  object["start_period"] = check.startPeriod.map { .string($0.compact) }
  object["start_interval"] = check.startInterval.map { .string($0.compact) }
  object["on_failure"] = check.onFailure.map { .string($0.rawValue) }
  return .object(object)
}

// MARK: Readiness

@Sendable private func readReadiness(_ node: Written, _ draft: inout Draft) {
  switch node.text {
  case "started": draft.policy.readiness = .started
  case "healthy": draft.policy.readiness = .healthy
  case "notify": draft.policy.readiness = .notify
  default:
    let line = node["log_line"]?.text ?? ""
    if line.isEmpty || line.contains("\n"), let part = node["log_line"] {
      draft.findings.error(part, "log_line is text of one line", hint: "write a part of the line that says it is ready")
    }
    draft.policy.readiness = .logLine(line)
  }
}

private func showReadiness(_ readiness: Readiness) -> JSONValue {
  switch readiness {
  case .started: "started"
  case .healthy: "healthy"
  case .notify: "notify"
  case .logLine(let text): .object(["log_line": .string(text)])
  }
}

// MARK: Before the start

@Sendable private func readPreStart(_ node: Written, _ draft: inout Draft) {
  for item in node.list ?? [] {
    guard let command = item["command"] else { continue }
    let found = command.text.map { words(of: $0) } ?? command.texts
    guard let found, let program = found.first, !program.isEmpty else {
      draft.findings.error(command, "command names no program", hint: "write a program with its arguments")
      continue
    }
    if found.contains(where: { $0.utf8.contains(0) }) { draft.findings.error(command, "command holds a NUL character") }
    var step = Policy.PreStart(found)
    if let limit = item["timeout"]?.text.flatMap({ Duration(parsing: $0) }) { step.timeout = limit }
    draft.policy.preStart.append(step)
  }
}

// MARK: Schedule

@Sendable private func readSchedule(_ node: Written, _ draft: inout Draft) {
  guard let text = node["cron"] else { return }
  let cron: Cron
  do throws(Cron.Nonsense) { cron = try Cron(parsing: text.text ?? "") } catch {
    draft.findings.error(
      text, error.description, hint: "minute hour day-of-month month day-of-week, such as \"0 3 * * *\" for 03:00")
    return
  }
  var schedule = Schedule(cron: cron)
  if let zone = node["timezone"] {
    schedule.timezone = zone.text ?? ""
    if !isZone(schedule.timezone) {
      draft.findings.error(
        zone, "\(schedule.timezone.quoted) is not the name of a time zone", hint: "such as Europe/Berlin, or UTC")
    } else if !draft.isStored, !isInstalled(schedule.timezone) {
      draft.findings.error(
        zone, "the time zone \(schedule.timezone) is not on this host",
        hint: "`timedatectl list-timezones` lists them; Debian's package is tzdata")
    }
  }
  schedule.concurrency =
    node["concurrency"]?.text.flatMap { Schedule.Concurrency(rawValue: $0) } ?? .forbid
  schedule.missed = node["missed"]?.text.flatMap { Schedule.Missed(rawValue: $0) } ?? .skip
  draft.policy.schedule = schedule
}

/// A name that cannot leave the folder of time zones.
private func isZone(_ name: String) -> Bool {
  let parts = name.split(separator: "/", omittingEmptySubsequences: false)
  return (1...3).contains(parts.count)
    && parts.allSatisfy { part in
      part.utf8.first.map { (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0) } == true
        && part.utf8.allSatisfy {
          (0x30...0x39).contains($0) || (0x41...0x5A).contains($0) || (0x61...0x7A).contains($0)
            || [0x2B, 0x2D, 0x5F].contains($0)
        }
    }
}

/// UTC needs no file.
private func isInstalled(_ zone: String) -> Bool { zone == "UTC" || access("/usr/share/zoneinfo/\(zone)", R_OK) == 0 }

@Sendable private func showSchedule(_ policy: Policy) -> JSONValue? {
  policy.schedule.map {
    .object([
      "cron": .string($0.cron.description), "timezone": .string($0.timezone),
      "concurrency": .string($0.concurrency.rawValue), "missed": .string($0.missed.rawValue),
    ])
  }
}

// MARK: What must hold between them

extension Draft {
  /// What health, readiness and schedules ask of each other and of the rest.
  mutating func checkHealth() {
    let image = policy.runtime == .container
    switch policy.healthcheck.test {
    case .none,
      .image where !image:
      if policy.readiness == .healthy {
        error(
          at: "ready", "ready: healthy needs a healthcheck", hint: "add healthcheck with test, http or tcp")
      }
      if policy.healthcheck.test == .image, policy.healthcheck != Healthcheck() {
        error(at: "healthcheck", "healthcheck has no test", hint: "add test, http or tcp")
      }
    case .image, .command, .http, .tcp: break
    }
    guard policy.schedule != nil else { return }
    switch policy.restart {
    case .no, .onFailure: break
    case .always, .unlessStopped:
      error(
        at: "restart", "an app with a schedule begins again when it is due, not when it ends",
        hint: "remove restart, or say on-failure")
    }
    if policy.hosted { error(at: "schedule", "a hosted app has no schedule") }
  }
}
