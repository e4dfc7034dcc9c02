internal import Linux
internal import Logging
package import Model
package import Policies
package import Scheduling
internal import Storage

extension Supervisor {
  // MARK: Reading

  /// The policy that a canonical document and overrides make together.
  func effective(_ canonical: JSONValue, _ overrides: [StoredOverride], _ id: AppID) throws(OperationFailure) -> (
    policy: Policy, canonical: String
  ) {
    var values: [(key: String, value: JSONValue)] = []
    for item in overrides {
      guard let value = try? JSONValue(parsing: Array(item.value.utf8)) else {
        throw .invalid(
          "the override of \(item.key) of \(id) cannot be read",
          hint: "take it back: `supervisor unset \(id) \(item.key)`")
      }
      values.append((item.key, value))
    }
    let reading = Policies.readApplied(overridden(canonical, by: values), rules: rules)
    guard let policy = reading.policy, let document = reading.canonical else {
      let why = reading.errors.map(\.message).joined(separator: "; ")
      let names = overrides.map { "\($0.key)" }.joined(separator: ", ")
      throw .invalid(
        overrides.isEmpty ? "\(id): \(why)" : "\(id) with what was set beside its file (\(names)): \(why)",
        hint: overrides.isEmpty ? nil : "`supervisor unset \(id)` takes back what was set")
    }
    return (policy, document.text)
  }

  static func document(_ canonical: String) -> JSONValue {
    // best effort: what was stored by this program can be read by it; null makes no policy, which is told.
    (try? JSONValue(parsing: Array(canonical.utf8))) ?? .null
  }

  // MARK: The daemon's configuration

  /// Holds for what is decided from now on.
  package func reconfigure(rules: HostRules, admission: Admission) {
    self.rules = rules
    self.admission = admission
    converge()
  }

  /// Tells of something that is about no app.
  package func note(_ name: String, _ fields: [String: JSONValue]) { save([tell(name, nil, fields)]) }

  // MARK: Set and unset

  /// Sets keys beside the app's file, or with `keys` takes them back (empty: all). Returns what that changes; with `dryRun` nothing is.
  package func override(
    _ id: AppID, set values: [(key: String, value: JSONValue)] = [], unset keys: [String]? = nil,
    until: WallTime? = nil,
    dryRun: Bool = false
  ) async throws(OperationFailure) -> Change {
    await beginChange([id])
    defer { endChange([id]) }
    guard let record = apps[id] else { throw .noSuchApp(id) }
    if !dryRun, next(id) != nil || record.update != nil {
      throw .invalid(
        "\(id) is being updated: what is set beside its file waits for the outcome",
        hint: "try again when `supervisor events` tells that it was updated or rolled back")
    }
    var overrides = record.overrides
    if let keys {
      for key in keys where !overrides.contains(where: { $0.key == key }) {
        throw .invalid("\(key) of \(id) is not set beside its file", hint: "`supervisor plan` lists what is")
      }
      overrides.removeAll { keys.isEmpty || keys.contains($0.key) }
    }
    for (key, value) in values {
      overrides.removeAll { $0.key == key }
      overrides.append(StoredOverride(key: key, value: value.text, until: until))
    }
    return try await replace(id, record, overrides, dryRun: dryRun)
  }

  /// Makes `overrides` those of the app. Whoever calls has begun the change.
  @discardableResult
  private func replace(_ id: AppID, _ record: AppRecord, _ overrides: [StoredOverride], dryRun: Bool)
    async throws(OperationFailure) -> Change
  {
    let base = Self.document(record.stored.canonical)
    let (policy, canonical) = try effective(base, overrides, id)
    let change = difference(record, policy)
    guard !dryRun else { return change }
    let isAnew = change.kind == .restart || change.kind == .recreate
    let generation = record.stored.generation + (isAnew && record.life.stage.instance != nil ? 1 : 0)
    try await carryOut(
      [Target(id: id, base: base, policy: policy, canonical: canonical, change: change)],
      storing: [.setOverrides(id, overrides), .setGeneration(id, generation)])
    guard let present = apps[id]?.stored.generation else { throw .noSuchApp(id) }
    let gone = record.overrides.filter { old in !overrides.contains { $0.key == old.key } }
    apps[id]?.overrides = overrides
    apps[id]?.policy = policy
    apps[id]?.effective = canonical
    apps[id]?.stored.generation = max(present, generation)
    for item in overrides where !record.overrides.contains(item) {
      save([tell("app.override", id, ["key": .string(item.key), "value": Self.document(item.value)])])
    }
    for item in gone { save([tell("app.override_ended", id, ["key": .string(item.key)])]) }
    if isAnew { send(.replace, to: id) } else { catchUp(id) }
    armExpiry()
    return change
  }

  // MARK: An end by the clock

  /// Waits for the next override that ends by itself.
  func armExpiry() {
    expiry?.cancel()
    guard let next = apps.values.flatMap(\.overrides).compactMap(\.until).min() else { return }
    // Cancelled when another is next.
    expiry = Task {
      do throws(SystemFault) { try await setup.alarms.wait(until: next) } catch {
        guard !Task.isCancelled else { return }
        setup.log.error("override.no_timer", metadata: ["reason": "\(error)"])
        return
      }
      guard !Task.isCancelled else { return }
      await endOverrides()
    }
  }

  private func endOverrides() async {
    let now = Clock.wall()
    for id in apps.keys.sorted() {
      guard apps[id]?.overrides.contains(where: { $0.isOver(now) }) == true else { continue }
      await beginChange([id])
      defer { endChange([id]) }
      guard let record = apps[id] else { continue }
      let kept = record.overrides.filter { !$0.isOver(now) }
      do throws(OperationFailure) { try await replace(id, record, kept, dryRun: false) } catch {
        // The kernel, or a full disk, does not let it go now: the app is as it was set until its next start.
        await letGo(id, record, kept, error)
      }
    }
    armExpiry()
  }

  /// Forgets overrides that are over although what runs cannot be changed back: the next run is without them.
  private func letGo(_ id: AppID, _ record: AppRecord, _ kept: [StoredOverride], _ failure: OperationFailure) async {
    guard let (policy, canonical) = try? effective(Self.document(record.stored.canonical), kept, id) else { return }
    let reason = if case .host(let refused) = failure { refused.description } else { "\(failure)" }
    await store([.setOverrides(id, kept)])
    apps[id]?.overrides = kept
    apps[id]?.policy = policy
    apps[id]?.effective = canonical
    apps[id]?.behind = reason
    save([tell("app.change_failed", id, ["reason": .string(reason)])])
  }
}

extension StoredOverride {
  func isOver(_ now: WallTime) -> Bool { until.map { $0 <= now } ?? false }
}
