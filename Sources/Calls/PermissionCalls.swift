internal import Linux
internal import Model
internal import RPC
internal import Storage

/// perm: what the caller may do. None of these needs a right.
let permissionCalls: [Call] = [
  Call(
    name: "perm.check", aliases: ["CheckPermission"], arguments: [.init("capability", .text)],
    summary: "whether the app holds it now, and by which rule"
  ) { (_, caller, arguments) throws(RPCFailure) in
    let permission = try permission(arguments)
    switch caller.rights.decide(permission.right, permission.scope) {
    case .allowed(let rule): return .now(.object(["held": true, "rule": .string(rule.text)]))
    case .denied(let rule): return .now(.object(["held": false, "rule": .optional(rule?.text)]))
    }
  },
  Call(name: "perm.list", aliases: ["GetPermissions"], summary: "what the app holds, and what it is denied") {
    (_, caller, _) throws(RPCFailure) in .now(rules(of: caller.rights))
  },
  Call(
    name: "perm.request", aliases: ["RequestPermission"],
    arguments: [.init("capability", .text), .init("reason", .text, required: false)],
    summary: "ask a person; nobody's answer within 30 s is a no, and what is decided already is answered at once"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let permission = try permission(arguments)
    let reason = try arguments.text("reason") ?? ""
    return .later { () throws(RPCFailure) in try await interface.request(permission, reason, caller) }
  },
  Call(
    name: "perm.drop", arguments: [.init("capability", .text)],
    summary: "give a right up for the rest of this run; nothing brings it back"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let permission = try permission(arguments)
    return .later { () throws(RPCFailure) in try await interface.drop(permission, caller) }
  },
]

private func permission(_ arguments: Arguments) throws(RPCFailure) -> Permission {
  let text = try arguments.text("capability") ?? ""
  do throws(Permission.Problem) { return try Permission(parsing: text) } catch {
    throw RPCFailure(.invalidParameters, error.message, hint: error.hint)
  }
}

func rules(of rights: RightSet) -> JSONValue {
  func list(_ rules: [RightSet.Rule]) -> JSONValue {
    .array(
      rules.map { .object(["capability": .string($0.permission.description), "by": .string($0.source.rawValue)]) })
  }
  return .object(["granted": list(rights.granted), "denied": list(rights.denied)])
}
