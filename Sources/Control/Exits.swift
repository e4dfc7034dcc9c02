internal import Model
internal import Policies
internal import RPC
internal import Supervision

extension ControlService {
  /// `app.exits`: how the runs of an app ended, newest first; with `run` that one with its last lines.
  func exits(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    guard let name = try arguments.text("app"), let id = try await resolve([name]).first else {
      throw RPCFailure(.invalidParameters, "app is missing")
    }
    let all = try await exits(of: id)
    guard let number = try arguments.integer("run") else {
      return .object(["exits": .array(all.indices.map { json(all, $0) })])
    }
    let place = try Self.place(number, all, id)
    guard var object = json(all, place).objectValue else { return .null }
    object["output"] = .string(all[place].output)
    // best effort: what cannot be read any more says nothing of its rights.
    if let document = try? JSONValue(parsing: Array(all[place].canonical.utf8)),
      let policy = Policies.readApplied(document, rules: standing.rules).policy
    {
      object["policy"] = policy.given
    }
    return .object(object)
  }

  private func exits(of id: AppID) async throws(RPCFailure) -> [ExitRecord] {
    do throws(OperationFailure) { return try await supervisor.exits(of: id) } catch { throw RPCFailure(error) }
  }

  /// -1 is the newest that ended, -2 the one before; a positive number is a run's own.
  private static func place(_ number: Int64, _ all: [ExitRecord], _ id: AppID) throws(RPCFailure) -> Int {
    let place = number < 0 ? Int(clamping: -1 - number) : all.firstIndex { $0.run == UInt64(number) } ?? all.count
    guard all.indices.contains(place) else {
      throw RPCFailure(
        .notFound, all.isEmpty ? "no run of \(id) has ended yet" : "there is no such run of \(id)",
        hint: all.isEmpty ? nil : "kept are \(all.map { String($0.run) }.joined(separator: ", "))")
    }
    return place
  }

  /// The generation that `run` of `app.logs` means.
  func run(_ number: Int64, of id: AppID) async throws(RPCFailure) -> ExitRecord {
    let all = try await exits(of: id)
    return all[try Self.place(number, all, id)]
  }

  private func json(_ all: [ExitRecord], _ place: Int) -> JSONValue {
    let exit = all[place]
    var object = exit.facts
    object["run"] = .count(exit.run)
    // Older ones follow.
    if exit.facts["good"]?.boolValue != true,
      let good = all[(place + 1)...].first(where: { $0.facts["good"]?.boolValue == true })
    {
      object["last_good_run"] = .count(good.run)
      object["changed_since"] = .array(
        Supervisor.changed(good, exit) { canonical in
          // best effort: what cannot be read any more differs in nothing that can be named.
          guard let document = try? JSONValue(parsing: Array(canonical.utf8)) else { return nil }
          return Policies.readApplied(document, rules: standing.rules).policy
        }.map { .string($0) })
    }
    return .object(object)
  }
}

extension Policy {
  /// What of it decides what an app may do: the keys of `policy` in `app.exits` and `app.status`.
  var given: JSONValue {
    .object([
      "user": .string(user == .image ? "image" : user == .auto ? "auto" : "given"),
      "cap_add": .array(capabilities.add.map { .string($0) }), "image": .optional(image?.reference),
      "working_dir": .optional(workingDirectory), "mounts": .array(mounts.map { .string($0.target) }),
    ])
  }
}
