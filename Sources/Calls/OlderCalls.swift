internal import Model
internal import RPC

/// What clients of the older protocol say: one call that names another, answered by a status.
let olderCalls: [Call] = [
  Call(
    name: "api_call",
    arguments: [.init("cmd", .text), .init("data", .object, required: false), .init("rid", .mark, required: false)],
    summary: "another call, by any of its names; answers {rid, status, data, error}"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let name = try arguments.text("cmd") ?? ""
    let mark = arguments.object["rid"] ?? .null
    do throws(RPCFailure) {
      guard name != "api_call" else { throw RPCFailure(.invalidRequest, "api_call does not call itself") }
      switch try interface.begin(arguments.call.instead(name, arguments.object["data"] ?? .object([:])), caller) {
      case .now(let result): return .now(answer(mark, result))
      case .handing(let body):
        return .handing { () throws(RPCFailure) in
          let handed = try await body()
          guard let result = answer(mark, .object(handed.result)).objectValue else { return handed }
          return RPCHanded(result, handed.descriptor)
        }
      case .stream(let result, let body): return .stream(answer(mark, result), body)
      case .later(let body):
        return .later { () throws(RPCFailure) in
          do throws(RPCFailure) { return answer(mark, try await body()) } catch {
            return answer(mark, error)
          }
        }
      }
    } catch { return .now(answer(mark, error)) }
  }
]

private func answer(_ mark: JSONValue, _ result: JSONValue) -> JSONValue {
  .object(["rid": mark, "status": 0, "data": result, "error": .null])
}

private func answer(_ mark: JSONValue, _ failure: RPCFailure) -> JSONValue {
  .object([
    "rid": mark, "status": .integer(status(failure)), "data": failure.data ?? .null, "error": .string(failure.message),
  ])
}

/// 0 Success, 1 Error, 2 PermissionDenied, 3 NotFound, 4 InvalidRequest, 5 Timeout, 6 Busy, 7 NotSupported.
private func status(_ failure: RPCFailure) -> Int64 {
  switch RPCFailure.Code(rawValue: failure.code) {
  case .denied, .revoked: 2
  case .notFound: 3
  case .parse, .invalidRequest, .invalidParameters, .tooLarge: 4
  case .timedOut: 5
  case .conflict, .rate, .quota: 6
  case .unknownMethod, .unsupported: 7
  case .fault, .closed, nil: 1
  }
}
