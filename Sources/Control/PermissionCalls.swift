internal import Calls
internal import Model
internal import RPC
internal import Storage
internal import Supervision

/// What apps may ask: looked at and changed by their operators.
extension ControlService {
  func permissions(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let app = try await one(arguments)
    let held = await interface.permissions(of: app)
    guard let policy = await supervisor.reports([app]).first?.policy.permissions else {
      throw RPCFailure(.notFound, "no app is named '\(app)'")
    }
    return .object([
      "app": .string(app.name),
      "policy": .array(
        (policy.granted.map(\.description) + policy.denied.map { "deny:\($0)" }).map { .string($0) }),
      "decided": .array(
        await interface.decisions(of: app).map {
          .object(["capability": .string($0.permission), "decision": .string($0.kind.rawValue)])
        }),
      "instances": .array(
        held.map { generation, rules in
          .object(["generation": .count(generation), "granted": rules["granted"], "denied": rules["denied"]])
        }),
    ])
  }

  func decide(_ kind: StoredDecision.Kind?, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let app = try await one(arguments)
    let permission: Permission
    let text = try arguments.text("capability") ?? ""
    do throws(Permission.Problem) { permission = try Permission(parsing: text) } catch {
      throw RPCFailure(.invalidParameters, error.message, hint: error.hint)
    }
    if kind == .granted { try checkReach(permission, of: app, access) }
    do throws(StorageFailure) { try await interface.decide(app, permission, kind) } catch {
      throw RPCFailure(
        .fault, "the decision could not be stored: \(error)", hint: "free some space where the daemon keeps its state")
    }
    return .object(["app": .string(app.name), "capability": .string(permission.description)])
  }

  func judged(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let app = try await one(arguments)
    let limit = try arguments.integer("limit") ?? 100
    guard 1...10_000 ~= limit else { throw RPCFailure(.invalidParameters, "limit is 1 to 10000") }
    let entries: [StoredAudit]
    do throws(StorageFailure) { entries = try await store.audit(app, limit: Int(limit)) } catch {
      throw RPCFailure(.fault, "the audit cannot be read: \(error)")
    }
    return .object([
      "entries": .array(
        entries.map { entry in
          .object([
            "time": .integer(entry.time.nanoseconds), "app": .string(entry.app.name), "run": .count(entry.generation),
            "call": .string(entry.call), "object": .optional(entry.object), "capability": .string(entry.permission),
            "rule": .optional(entry.rule), "decision": .string(entry.allowed ? "allowed" : "denied"),
            "more": .integer(entry.more),
          ])
        })
    ])
  }
}
