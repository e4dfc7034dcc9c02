internal import Linux
internal import Model
internal import RPC
internal import Storage
internal import Synchronization

/// One instance of an app as a caller: what it may do, and what it has asked for so far.
final class Caller: @unchecked Sendable {
  // SAFETY: touched only on the interface's loop.

  let instance: Instance
  var policy: Policy
  var rights = RightSet()
  /// The group its processes are in, relative to a hierarchy's root.
  let cgroup: String
  var environment: [String: String]
  /// What its operator granted for one use each, when it asked.
  var once: [Permission] = []
  /// The call that begins now is such a use.
  var usesOnce = false
  var files = CallerFiles()
  /// It has ended: what waits to be done for it is not.
  let isGone = Atomic<Bool>(false)
  /// Changes with its rights, but for a use that is used up.
  private(set) var version = 0
  /// Denials that were not written, by call.
  private var unwritten: [String: Int64] = [:]
  /// Denials written in this second.
  private var denials = 0
  private var second: Int64 = 0
  private var lines = 0
  private var linesSecond: Int64 = 0
  private static let mostDenials = 8
  static let mostLines = 20
  private var writes = 0
  private var writesSecond: Int64 = 0
  static let mostWrites = 50

  private var questions = 0
  private var questionsSecond: Int64 = 0
  static let mostAsked = 20
  private var reclaimed: Int64 = 0

  init(_ instance: Instance, _ policy: Policy, cgroup: String) {
    self.instance = instance
    self.cgroup = cgroup
    self.policy = policy
    environment = Dictionary(policy.environment.filter { $0.secret == nil }.map { ($0.name, $0.value) }) { $1 }
  }

  /// Takes the rights of its policy and what was decided beside it.
  func settle(_ decisions: [StoredDecision]) {
    version += 1
    rights = RightSet()
    for permission in policy.permissions.granted { rights.grant(permission, .policy) }
    for permission in policy.permissions.denied { rights.deny(permission, .policy) }
    for decision in decisions where decision.app == instance.app {
      guard let permission = try? Permission(parsing: decision.permission) else { continue }
      switch decision.kind {
      case .granted: rights.grant(permission, .operator)
      case .revoked: rights.deny(permission, .operator)
      case .dropped: if decision.generation == instance.generation { rights.deny(permission, .dropped) }
      case .session: if decision.generation == instance.generation { rights.grant(permission, .session) }
      }
    }
    for permission in once { rights.grant(permission, .once) }
    files.revoke(by: rights)
  }

  /// What of a call is to be written down.
  struct Judgement {
    var audit: StoredAudit?
    /// What was granted for one use was used.
    var isOnce = false
    /// Nil: it may go on.
    var refusal: RPCFailure?
  }

  /// The one place where a right is checked. `object` is what the call is about.
  func judge(_ right: Right, _ object: String?, _ call: String, _ now: WallTime) -> Judgement {
    let asked = object.map { "\(right.rawValue):\($0)" } ?? right.rawValue
    switch rights.decide(right, object) {
    case .allowed(let rule):
      let isOnce = rule.source == .once
      if isOnce {
        rights.spend(rule)
        if let place = once.firstIndex(of: rule.permission) { once.remove(at: place) }
      }
      guard policy.preset == .privileged else { return Judgement(isOnce: isOnce) }
      return Judgement(audit: entry(now, call, object, asked, rule.text, true), isOnce: isOnce)
    case .denied(let rule):
      var audit: StoredAudit?
      if isWorthWriting(now) {
        audit = entry(now, call, object, asked, rule?.text, false)
        audit?.more = unwritten.removeValue(forKey: call) ?? 0
      } else if unwritten.count < 256 || unwritten[call] != nil {
        unwritten[call, default: 0] += 1
      }
      let hint =
        switch rule?.source {
        case .dropped: "the app gave it up; its next run has it again"
        case .operator: "its operator took it away: `supervisor perm grant \(instance.app) \(asked)`"
        case .policy: "its policy denies it: `deny:\(rule?.permission.description ?? asked)`"
        case .session, .once, nil:
          "add \(asked) to `permissions` of its policy, or `supervisor perm grant \(instance.app) \(asked)`"
        }
      return Judgement(
        audit: audit,
        refusal: RPCFailure(
          .denied, "\(call) needs \(asked)",
          data: .object(["call": .string(call), "capability": .string(asked), "hint": .string(hint)])))
    }
  }

  private func entry(
    _ now: WallTime, _ call: String, _ object: String?, _ asked: String, _ rule: String?, _ allowed: Bool
  ) -> StoredAudit {
    // A path may have 4 KiB, and an app may ask for many.
    func short(_ text: String) -> String {
      text.utf8.count <= 256 ? text : String(decoding: text.utf8.prefix(250), as: UTF8.self) + "…"
    }
    return StoredAudit(
      time: now, app: instance.app, generation: instance.generation, call: call, object: object.map(short),
      permission: short(asked), rule: rule, allowed: allowed)
  }

  private func isWorthWriting(_ now: WallTime) -> Bool {
    let this = now.nanoseconds / 1_000_000_000
    if this != second {
      second = this
      denials = 0
    }
    denials += 1
    return denials <= Self.mostDenials
  }

  /// Whether another value of it is put on the disk now.
  func mayKeepValue(_ now: WallTime) -> Bool {
    let this = now.nanoseconds / 1_000_000_000
    if this != writesSecond {
      writesSecond = this
      writes = 0
    }
    writes += 1
    return writes <= Self.mostWrites
  }

  /// Whether the kernel works for it once more now, which takes CPU time that is not the app's: once a second.
  func mayReclaim(_ now: WallTime) -> Bool {
    guard abs(now.nanoseconds - reclaimed) >= 1_000_000_000 else { return false }
    reclaimed = now.nanoseconds
    return true
  }

  /// Whether it asks about apps and limits once more now.
  func mayAskKeeper(_ now: WallTime) -> Bool {
    let this = now.nanoseconds / 1_000_000_000
    if this != questionsSecond {
      questionsSecond = this
      questions = 0
    }
    questions += 1
    return questions <= Self.mostAsked
  }

  /// Whether another line of it is written now.
  func mayWriteLine(_ now: WallTime) -> Bool {
    let this = now.nanoseconds / 1_000_000_000
    if this != linesSecond {
      linesSecond = this
      lines = 0
    }
    lines += 1
    return lines <= Self.mostLines
  }
}
