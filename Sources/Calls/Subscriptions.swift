internal import Linux
package import Model
internal import RPC

/// event: what happens to apps, told as it happens by notifications named `event`.
let eventCalls: [Call] = [
  Call(
    name: "event.subscribe", arguments: [.init("names", .list)], right: .events, streams: true,
    summary: "be told what happens to the app and to those it may inspect; `app.*` stands for all that begin so"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    try interface.here { (interface) throws(RPCFailure) in try interface.subscribe(caller, arguments) }
  },
  Call(
    name: "event.unsubscribe", arguments: [.init("subscription", .number)], summary: "be told no more"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let number = try arguments.integer("subscription") ?? 0
    return .now(
      try interface.here { (interface) throws(RPCFailure) in try interface.unsubscribe(caller, number) })
  },
]

/// Names of events that apps may be told; all are of one app.
let eventNames: Set<String> = [
  "app.created", "app.started", "app.ready", "app.health", "app.exited", "app.oom", "app.oom_kill", "app.failed",
  "app.backoff", "app.stopping", "app.restarting", "app.paused", "app.unpaused", "app.changed", "app.updated",
  "app.removed", "permission.granted", "permission.denied",
]

/// Events on their way to one subscriber.
final class Subscription: @unchecked Sendable {
  // SAFETY: touched only on the interface's loop.

  /// Events that wait for a subscriber to read; of more, the oldest are counted instead.
  static let most = 256
  /// Subscriptions of one instance.
  static let mostOfOne = 16

  let number: UInt64
  let caller: Caller
  let names: Set<String>
  /// It is the one use that its right was granted for, and goes on without it.
  let isOnce: Bool
  private(set) var waiting: [Event] = []
  private(set) var missed: UInt64 = 0
  /// Nothing more comes; the failure is told last.
  private(set) var end: Result<Void, RPCFailure>?
  var sleeper: CheckedContinuation<Void, Never>?

  init(_ number: UInt64, _ caller: Caller, _ names: Set<String>) {
    self.number = number
    isOnce = caller.usesOnce
    self.caller = caller
    self.names = names
  }

  func add(_ event: Event) {
    guard end == nil else { return }
    if waiting.count == Self.most {
      waiting.removeFirst()
      missed += 1
    }
    waiting.append(event)
    wake()
  }

  func finish(_ end: Result<Void, RPCFailure>) {
    guard self.end == nil else { return }
    self.end = end
    waiting = []
    wake()
  }

  func wake() {
    sleeper?.resume()
    sleeper = nil
  }

  /// What is to be sent next, if anything is.
  func next() -> JSONValue? {
    if let event = waiting.first {
      waiting.removeFirst()
      var object = JSONObject()
      object["subscription"] = .count(number)
      object["event"] = .string(event.name)
      object["app"] = .optional(event.app?.name)
      object["time"] = .integer(event.time.nanoseconds)
      if missed > 0 { object["missed"] = .count(missed) }
      missed = 0
      for (key, value) in event.fields.sorted(by: { $0.key < $1.key }) where object[key] == nil { object[key] = value }
      return .object(object)
    }
    guard case .failure(let failure)? = end else { return nil }
    end = .success(())
    return .object(["subscription": .count(number), "error": failure.json])
  }
}

extension AppInterface {
  func subscribe(_ caller: Caller, _ arguments: Arguments) throws(RPCFailure) -> RPCAnswer {
    var names: Set<String> = []
    for text in try arguments.texts("names") ?? [] {
      let found =
        text.hasSuffix("*")
        ? eventNames.filter { $0.utf8.starts(with: text.utf8.dropLast()) } : eventNames.filter { $0 == text }
      guard !found.isEmpty else {
        throw RPCFailure(
          .invalidParameters, "there is no event '\(text.prefix(64))'",
          hint: "there are: \(eventNames.sorted().joined(separator: ", ")), and * for any rest")
      }
      names.formUnion(found)
    }
    guard subscriptions.values.count(where: { $0.caller === caller }) < Subscription.mostOfOne else {
      throw RPCFailure(
        .quota, "an app has at most \(Subscription.mostOfOne) subscriptions",
        data: .object(["limit": .count(Subscription.mostOfOne), "hint": "one may name several events"]))
    }
    let subscription = Subscription(nextWaiter, caller, names)
    nextWaiter += 1
    subscriptions[subscription.number] = subscription
    return .stream(.object(["subscription": .count(subscription.number)])) { notices in
      await self.deliver(subscription, notices)
    }
  }

  func unsubscribe(_ caller: Caller, _ number: Int64) throws(RPCFailure) -> JSONValue {
    guard let subscription = UInt64(exactly: number).flatMap({ subscriptions[$0] }), subscription.caller === caller
    else { throw RPCFailure(.notFound, "there is no subscription \(number)") }
    subscription.finish(.success(()))
    return .object([:])
  }

  private func deliver(_ subscription: Subscription, _ notices: RPCNotices) async {
    defer { subscriptions[subscription.number] = nil }
    do {
      while true {
        if let message = subscription.next() {
          try await notices.send("event", message)
        } else if subscription.end != nil {
          return
        } else {
          await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
              subscription.sleeper = continuation
              if Task.isCancelled { subscription.wake() }
            }
          } onCancel: {
            // Ends at once.
            Task { await self.wake(subscription) }
          }
          try Task.checkCancellation()
        }
      }
    } catch {
      // The subscriber is gone.
    }
  }

  private func wake(_ subscription: Subscription) { subscription.wake() }

  /// Passes on what happened to those who asked for it and may know it.
  package func publish(_ event: Event) {
    guard let app = event.app, eventNames.contains(event.name) else { return }
    if ["app.exited", "app.oom", "app.failed", "app.removed"].contains(event.name) { endChildren(ofGone: app) }
    for subscription in subscriptions.values where subscription.names.contains(event.name) {
      if mayInspect(subscription.caller, app) { subscription.add(event) }
    }
  }

  /// Whether an app may see what is told of another; of itself it may. What is granted for one use is for a call.
  func mayInspect(_ caller: Caller, _ app: AppID) -> Bool {
    if caller.instance.app == app { return true }
    if case .allowed(let rule) = caller.rights.decide(.inspectApp, app.name) { return rule.source != .once }
    return false
  }

  /// What a right that is gone was needed for ends.
  func endRevoked(_ caller: Caller) {
    guard case .denied(let rule) = caller.rights.decide(.events) else { return }
    for subscription in subscriptions.values
    where subscription.caller === caller && (rule != nil || !subscription.isOnce) {
      subscription.finish(
        .failure(
          RPCFailure(
            .revoked, "events is not granted any more",
            hint: "`supervisor perm list \(caller.instance.app)` shows by which rule")))
    }
  }
}
