internal import Calls
internal import Model
internal import RPC
internal import Storage

/// What apps ask a person for, and what the person says.
extension ControlService {
  /// `perm.watch`: questions of apps that the caller may see; each comes once, and with `follow` once more when it is over.
  func watchPrompts(_ call: RPCCall, _ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    guard try arguments.flag("follow") else {
      for facts in await interface.openPrompts where await mayAnswer(facts) { try await send(facts.json, call) }
      return .object([:])
    }
    for await news in await interface.watchPrompts() {
      switch news {
      case .asked(let facts):
        if await mayAnswer(facts) { try await send(facts.json, call) }
      case .over(let facts, let word):
        guard await mayAnswer(facts) else { continue }
        try await send(
          .object(["request": .string(facts.id), "app": .string(facts.app.name), "over": .string(word)]), call)
      }
    }
    throw RPCFailure(.closed, "cancelled")
  }

  private func send(_ item: JSONValue, _ call: RPCCall) async throws(RPCFailure) {
    do { try await call.send(item) } catch { throw RPCFailure(.closed, "the caller is gone") }
  }

  private func mayAnswer(_ facts: PromptFacts) async -> Bool {
    await visible().contains { $0.id == facts.app && access.role(in: $0.stack).map { $0 >= needed } ?? false }
  }

  /// `perm.answer`
  func answer(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    guard let id = try arguments.text("request") else { throw RPCFailure(.invalidParameters, "request is missing") }
    let word = try arguments.text("answer") ?? ""
    guard let answer = PromptAnswer(rawValue: word) else {
      throw RPCFailure(
        .invalidParameters, "'\(word)' is no answer",
        hint: "there are: \(PromptAnswer.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    let gone = RPCFailure(
      .notFound, "no app waits for the answer to '\(id)'",
      hint: "it is answered, withdrawn or over after 30 s; `supervisor perm grant` decides without being asked")
    // One that is another's is not there for the caller.
    guard let facts = await interface.prompt(id), await visible().contains(where: { $0.id == facts.app }) else {
      throw gone
    }
    do throws(RPCFailure) {
      _ = try await resolve([facts.app.name])
      if answer != .never { try checkReach(facts.permission, of: facts.app, access) }
    } catch {
      if error.code == RPCFailure.Code.denied.rawValue { await recordDenied("perm.answer", [facts.app.name], error) }
      throw error
    }
    try await recordAllowed("perm.answer", [facts.app.name])
    let isAnswered: Bool
    do throws(StorageFailure) { isAnswered = try await interface.answer(id, answer) } catch {
      throw RPCFailure(
        .fault, "the answer could not be stored: \(error)", hint: "free some space where the daemon keeps its state")
    }
    guard isAnswered else { throw gone }
    return .object([
      "app": .string(facts.app.name), "capability": .string(facts.permission.description), "answer": .string(word),
    ])
  }
}

extension PromptFacts {
  /// The keys of `perm watch --format json`; keys are only ever added.
  fileprivate var json: JSONValue {
    .object([
      "request": .string(id), "app": .string(app.name), "run": .count(generation),
      "capability": .string(permission.description), "reason": .string(reason),
      "asked_at": .integer(asked.nanoseconds), "expires_at": .integer(expires.nanoseconds),
    ])
  }
}
