internal import Linux
internal import Logging
package import Model
internal import RPC
package import Storage

/// What a person says to an app that asks for a permission.
package enum PromptAnswer: String, Sendable, CaseIterable {
  /// For its next use.
  case once
  /// For the rest of this run.
  case session
  /// From now on, over restarts of everything.
  case always
  case never
}

/// One question to a person, for people.
package struct PromptFacts: Sendable, Equatable {
  /// What it is answered by.
  package var id: String
  package var app: AppID
  package var generation: UInt64
  package var permission: Permission
  /// The app's words: one line without anything a terminal would act on, but still the app's.
  package var reason: String
  package var asked: WallTime
  /// When it is a no if nobody answered.
  package var expires: WallTime
}

/// What watchers of questions are told.
package enum PromptNews: Sendable {
  case asked(PromptFacts)
  /// Nobody needs to answer it any more: an answer, `timeout`, `withdrawn`, or `decided` where it was decided beside it.
  case over(PromptFacts, String)
}

/// A question that waits, and who waits for its answer.
final class Prompt {
  let facts: PromptFacts
  let caller: Caller
  var waiting: [UInt64: CheckedContinuation<PromptEnd, Never>] = [:]
  var timer: EventLoop.TimerID?
  /// The answer that is being stored.
  var answer: PromptAnswer?

  init(_ facts: PromptFacts, _ caller: Caller) {
    self.facts = facts
    self.caller = caller
  }
}

struct PromptEnd: Sendable {
  var isGranted: Bool
  var word: String
}

/// How much an app may ask people.
struct PromptBounds {
  static let patience = Duration.seconds(30)
  /// Questions of one app that wait at once, and its calls that wait for one of them.
  static let mostOpen = 4
  static let mostWaiting = 16
  /// Questions of one app in a minute, over all its runs.
  static let mostInMinute = 10
  static let longestReason = 200

  /// When each app asked, in the last minute, by the monotonic clock.
  private var asked: [AppID: [Int64]] = [:]

  /// Whether it may ask once more now; if so, that is counted.
  mutating func admit(_ app: AppID, _ now: Int64) -> Bool {
    for (other, times) in asked where times.last.map({ now - $0 > 60_000_000_000 }) ?? true { asked[other] = nil }
    let recent = asked[app, default: []].filter { now - $0 <= 60_000_000_000 }
    guard recent.count < Self.mostInMinute else { return false }
    asked[app] = recent + [now]
    return true
  }

  /// An app's words made harmless: one line, nothing that a terminal or a reader is turned by, at most 200 characters.
  static func clean(_ text: String) -> String {
    var words = ""
    var isSpace = true
    for scalar in text.unicodeScalars.prefix(4096) {
      switch scalar.properties.generalCategory {
      case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator,
        .spaceSeparator:
        if !isSpace { words += " " }
        isSpace = true
      default:
        words.unicodeScalars.append(scalar)
        isSpace = false
      }
    }
    while words.hasSuffix(" ") { words.removeLast() }
    guard words.unicodeScalars.count > longestReason else { return words }
    return String(String.UnicodeScalarView(words.unicodeScalars.prefix(longestReason - 1))) + "…"
  }
}

extension AppInterface {
  // MARK: Asking

  /// Answers at once where it is decided already; else once a person has answered, or 30 s are over.
  func request(_ permission: Permission, _ reason: String, _ caller: Caller) async throws(RPCFailure) -> JSONValue {
    switch caller.rights.decide(permission.right, permission.scope) {
    case .allowed(let rule): return answered(permission, PromptEnd(isGranted: true, word: rule.text))
    case .denied(let rule?): return answered(permission, PromptEnd(isGranted: false, word: rule.text))
    case .denied(nil): break
    }
    guard permission.right.isBuilt else {
      throw RPCFailure(
        .unsupported, "\(permission.right.rawValue) opens no call in this version",
        hint: "`supervisor calls` prints what there is")
    }
    let prompt = try prompt(permission, reason, caller)
    guard prompt.waiting.count < PromptBounds.mostWaiting else {
      throw RPCFailure(
        .quota, "\(prompt.waiting.count) calls wait for the answer to this already", hint: "ask once, and wait")
    }
    let number = nextWaiter
    nextWaiter += 1
    let id = prompt.facts.id
    let end = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        prompt.waiting[number] = continuation
        if Task.isCancelled { leave(id, number) }
      }
    } onCancel: {
      // Ends at once.
      Task { await self.leave(id, number) }
    }
    return answered(permission, end)
  }

  private func answered(_ permission: Permission, _ end: PromptEnd) -> JSONValue {
    .object([
      "capability": .string(permission.description), "granted": .bool(end.isGranted), "by": .string(end.word),
    ])
  }

  /// The one that waits already for the same, or a new one.
  private func prompt(_ permission: Permission, _ reason: String, _ caller: Caller) throws(RPCFailure) -> Prompt {
    let app = caller.instance.app
    let own = prompts.values.filter { $0.facts.app == app }
    if let same = own.first(where: { $0.caller === caller && $0.facts.permission == permission }) { return same }
    guard own.count < PromptBounds.mostOpen else {
      throw RPCFailure(
        .quota, "\(own.count) questions of \(app) wait for a person already",
        data: .object(["limit": .count(PromptBounds.mostOpen), "hint": "wait for their answers"]))
    }
    guard promptBounds.admit(app, Clock.monotonic()) else {
      throw RPCFailure(
        .rate, "an app asks people at most \(PromptBounds.mostInMinute) times a minute",
        data: .object(["limit": .count(PromptBounds.mostInMinute), "hint": "take the answers as they are"]))
    }
    let now = Clock.wall()
    let facts = PromptFacts(
      id: promptID(), app: app, generation: caller.instance.generation, permission: permission,
      reason: PromptBounds.clean(reason), asked: now,
      expires: WallTime(nanoseconds: now.nanoseconds + PromptBounds.patience.wholeNanoseconds))
    let prompt = Prompt(facts, caller)
    prompts[facts.id] = prompt
    prompt.timer = loop.schedule(after: PromptBounds.patience) { [weak self] in
      self?.assumeIsolated { $0.expire(facts.id) }
    }
    log.notice(
      "permission.asked", metadata: ["app": "\(app)", "capability": "\(permission)", "request": "\(facts.id)"])
    for watcher in promptWatchers.values { watcher.yield(.asked(facts)) }
    return prompt
  }

  /// Short enough to be typed, and never that of an earlier daemon's question.
  private func promptID() -> String {
    while true {
      let id = String(UInt32.random(in: 0x1000_0000...UInt32.max), radix: 36)
      if prompts[id] == nil { return id }
    }
  }

  /// The caller is gone, and with the last one the question.
  private func leave(_ id: String, _ number: UInt64) {
    guard let prompt = prompts[id], let waiting = prompt.waiting.removeValue(forKey: number) else { return }
    waiting.resume(returning: PromptEnd(isGranted: false, word: "withdrawn"))
    if prompt.waiting.isEmpty { finish(prompt, PromptEnd(isGranted: false, word: "withdrawn")) }
  }

  private func expire(_ id: String) {
    guard let prompt = prompts[id] else { return }
    finish(prompt, PromptEnd(isGranted: false, word: "timeout"))
    tell(false, prompt.facts, "timeout")
  }

  private func finish(_ prompt: Prompt, _ end: PromptEnd) {
    prompts[prompt.facts.id] = nil
    if let timer = prompt.timer { loop.cancel(timer) }
    let waiting = prompt.waiting.values
    prompt.waiting = [:]
    for continuation in waiting { continuation.resume(returning: end) }
    for watcher in promptWatchers.values { watcher.yield(.over(prompt.facts, end.word)) }
  }

  private func tell(_ granted: Bool, _ facts: PromptFacts, _ by: String) {
    tell(
      granted ? "permission.granted" : "permission.denied", facts.app,
      ["capability": .string(facts.permission.description), "by": .string(by)])
  }

  /// Questions that what is decided now answers.
  func resettle(_ app: AppID) {
    for prompt in prompts.values where prompt.facts.app == app {
      let word = prompt.answer?.rawValue ?? "decided"
      switch prompt.caller.rights.decide(prompt.facts.permission.right, prompt.facts.permission.scope) {
      case .allowed: finish(prompt, PromptEnd(isGranted: true, word: word))
      case .denied(.some): finish(prompt, PromptEnd(isGranted: false, word: word))
      case .denied(nil): break
      }
    }
  }

  // MARK: Answering

  /// The questions that wait, then what becomes of them and further ones. A reader too slow for 1024 of them loses the oldest.
  package func watchPrompts() -> AsyncStream<PromptNews> {
    let number = nextWaiter
    nextWaiter += 1
    let (stream, continuation) = AsyncStream.makeStream(of: PromptNews.self, bufferingPolicy: .bufferingNewest(1024))
    for facts in openPrompts { continuation.yield(.asked(facts)) }
    promptWatchers[number] = continuation
    // Ends at once.
    continuation.onTermination = { [weak self] _ in Task { await self?.unwatchPrompts(number) } }
    return stream
  }

  private func unwatchPrompts(_ number: UInt64) { promptWatchers[number] = nil }

  /// Those that wait for an answer now, the oldest first.
  package var openPrompts: [PromptFacts] {
    prompts.values.map(\.facts).sorted { $0.asked.nanoseconds < $1.asked.nanoseconds }
  }

  package func prompt(_ id: String) -> PromptFacts? { prompts[id].flatMap { $0.answer == nil ? $0.facts : nil } }

  /// In force, and on the disk unless it is for one use, when this returns. False: there is no such question any more.
  package func answer(_ id: String, _ answer: PromptAnswer) async throws(StorageFailure) -> Bool {
    guard let prompt = prompts[id], prompt.answer == nil else { return false }
    let facts = prompt.facts
    prompt.answer = answer
    do throws(StorageFailure) {
      switch answer {
      case .once:
        prompt.caller.once.append(facts.permission)
        settle(facts.app)
        tell(true, facts, "once")
      case .session:
        let decision = StoredDecision(
          app: facts.app, permission: facts.permission.description, kind: .session, generation: facts.generation)
        try await store.commit([.putDecision(decision)], durable: true)
        add(decision)
        tell(true, facts, "session")
      case .always: try await decide(facts.app, facts.permission, .granted, by: "always")
      case .never: try await decide(facts.app, facts.permission, .revoked, by: "never")
      }
    } catch {
      prompt.answer = nil
      throw error
    }
    return true
  }
}
