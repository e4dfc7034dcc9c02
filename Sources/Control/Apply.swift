internal import Model
internal import Policies
internal import RPC
internal import Supervision

extension ControlService {
  /// The files of a call, checked alone and together.
  struct CheckedFiles {
    var checked: [CheckedApp] = []
    /// Those whose profile is not asked for, too.
    var present: Set<AppID> = []
    var warnings: [JSONValue] = []
  }

  /// `app.up`: all files are checked, alone and together, before anything changes.
  func up(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let files = try await checkedFiles(arguments, of: "app.up")
    return try await apply(files.checked, files.present, arguments, files.warnings)
  }

  /// Throws every problem of every file; nothing is changed.
  func checkedFiles(_ arguments: Arguments, of method: String) async throws(RPCFailure) -> CheckedFiles {
    let environment = try arguments.map("environment")
    let profiles = Set(try arguments.texts("profiles") ?? [])
    var problems: [JSONValue] = []
    var warnings: [JSONValue] = []
    var checked: [CheckedApp] = []
    var left: Set<AppID> = []
    var readings: [Reading] = []
    for file in try arguments.objects("files") {
      var source = try Self.source(file, environment)
      source.loader = access.loader
      let reading = Policies.read(source, rules: standing.rules)
      for problem in reading.problems {
        let rendered = problem.rendered(file: source.path)
        if problem.severity == .error {
          problems.append(Self.json(problem, rendered))
        } else {
          warnings.append(.string(rendered))
        }
      }
      if let policy = reading.policy, let canonical = reading.canonical {
        guard policy.profiles.isEmpty || !profiles.isDisjoint(with: policy.profiles) else {
          left.insert(policy.id)
          continue
        }
        readings.append(reading)
        checked.append(CheckedApp(policy: policy, canonical: canonical.text, file: source.path))
      }
    }
    problems += await together(readings).map { Self.json($0, $0.rendered(file: "policies")) }
    guard problems.isEmpty else {
      throw RPCFailure(
        .invalidParameters,
        problems.count == 1
          ? "a policy is not valid; nothing was changed"
          : "\(problems.count) problems in policies; nothing was changed",
        data: .object(["problems": .array(problems), "hint": "`supervisor policy check` checks without a daemon"]))
    }
    let names = checked.map(\.policy.id.name)
    do throws(RPCFailure) { try await checkAccess(checked.map(\.policy)) } catch {
      await recordDenied(method, names, error)
      throw error
    }
    try await recordAllowed(method, names)
    // A file whose profile is not asked for is there all the same.
    let present = Set(readings.compactMap(\.policy?.id)).union(left)
    return CheckedFiles(checked: checked, present: present, warnings: warnings)
  }

  private func apply(
    _ checked: [CheckedApp], _ present: Set<AppID>, _ arguments: Arguments, _ warnings: [JSONValue]
  ) async throws(RPCFailure) -> JSONValue {
    let origin = try arguments.text("origin") ?? ""
    let recreate = try arguments.flag("recreate")
    let noDependencies = try arguments.flag("no_deps")
    let keepWants = try arguments.flag("keep_wants")
    let isAtRest = try arguments.flag("at_rest")
    let changes: [AppID: AppliedChange]
    do throws(OperationFailure) {
      changes = try await supervisor.apply(
        checked.filter { !$0.policy.template }, origin: origin, recreate: recreate, noDependencies: noDependencies,
        keepWants: keepWants, isAtRest: isAtRest)
    } catch { throw RPCFailure(error) }
    let owned = Set(await visible().filter { (access.role(in: $0.stack) ?? .viewer) >= needed }.map(\.id))
    let orphans = await supervisor.orphans(of: origin, keeping: present).filter { owned.contains($0) }
    if try arguments.flag("remove_orphans"), !orphans.isEmpty {
      do throws(OperationFailure) { try await supervisor.want(.removed, orphans) } catch { throw RPCFailure(error) }
    }
    var applied = JSONObject()
    for (id, change) in changes.sorted(by: { $0.key < $1.key }) { applied[id.name] = .string(change.rawValue) }
    return .object([
      "apps": .object(applied), "orphans": .array(orphans.map { .string($0.name) }), "warnings": .array(warnings),
    ])
  }

  /// Whether the caller may load all of these: into their stacks, in place of what is there under their ids.
  private func checkAccess(_ policies: [Policy]) async throws(RPCFailure) {
    let stacks = Dictionary(uniqueKeysWithValues: await supervisor.known.map { ($0.id, $0.stack) })
    for policy in policies {
      for stack in Set([policy.stack, stacks[policy.id] ?? policy.stack]).sorted() {
        guard let role = access.role(in: stack), role >= needed else {
          throw access.denied("loading \(policy.id)", needed, in: stack)
        }
      }
      try checkOwned(policy, access)
      try checkNames(policy, access)
    }
  }

  private func together(_ readings: [Reading]) async -> [Problem] {
    let ids = Set(readings.compactMap(\.policy?.id))
    let others = await supervisor.reports(nil).filter { !ids.contains($0.id) }.map(\.policy)
    return Policies.checkTogether(readings, alreadyApplied: others)
  }

  private static func source(_ file: JSONObject, _ environment: [String: String]) throws(RPCFailure) -> PolicySource {
    guard let path = file["path"]?.stringValue, let folder = file["folder"]?.stringValue, folder.hasPrefix("/"),
      let bytes = file["base64"]?.stringValue.flatMap({ Base64.decode($0) })
    else { throw RPCFailure(.invalidParameters, "a file has path, folder (absolute) and base64") }
    var source = PolicySource(
      path: path, folder: folder, bytes: bytes, environment: environment,
      defaultStack: file["stack"]?.stringValue ?? "default")
    for (name, text) in try Arguments.map(file["env_files"] ?? .object([:]), "env_files") {
      guard let content = Base64.decode(text) else { throw RPCFailure(.invalidParameters, "env_files holds base64") }
      source.envFiles[name] = content
    }
    return source
  }

  private static func json(_ problem: Problem, _ rendered: String) -> JSONValue {
    .object([
      "severity": .string(problem.severity.rawValue), "line": .integer(Int64(problem.line)),
      "column": .integer(Int64(problem.column)),
      "key": .string(problem.path), "message": .string(problem.message), "hint": problem.hint.map { .string($0) },
      "rendered": .string(rendered),
    ])
  }
}
