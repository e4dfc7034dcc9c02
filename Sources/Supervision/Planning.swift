package import Model
package import Policies
package import Storage

/// What `up` would do to one app.
package struct PlannedChange: Sendable {
  package var id: AppID
  package var change: Change
  /// What stays set beside the file.
  package var overrides: [StoredOverride]
  /// Why what runs is not yet as the applied policy says.
  package var behind: String?
  /// The new generation would prove itself beside the present one.
  package var startsFirst = false
}

extension Supervisor {
  /// What applying these policies would change, for each of them; nothing is changed.
  package func planned(_ checked: [CheckedApp], recreate: Bool = false) async throws(OperationFailure)
    -> [PlannedChange]
  {
    var planned: [PlannedChange] = []
    let moved = await movedImages(checked)
    let secrets = await changedSecrets(checked)
    for app in checked {
      let id = app.policy.id
      let record = apps[id]
      let overrides = record?.overrides ?? []
      let (policy, canonical) = try effective(Self.document(app.canonical), overrides, id)
      var change = difference(record, policy, moved: moved[id], secrets: secrets[id] ?? [])
      if let record, recreate { change.kind = record.life.isAtRest ? .start : .recreate }
      if let record, change.kind == .none, record.life.want != .running || record.life.isAtRest { change.kind = .start }
      var entry = PlannedChange(id: id, change: change, overrides: overrides, behind: record?.behind)
      let target = Target(id: id, base: .null, policy: policy, canonical: canonical, change: change)
      let applied = change.kind == .restart || change.kind == .recreate ? AppliedChange.replaced : .unchanged
      switch way(record, target, applied, recreate: recreate) {
      case .beside: entry.startsFirst = true
      case .underWay:
        entry.startsFirst = true
        entry.behind = "the new one is proving itself"
      case .plain, .tracked: break
      }
      planned.append(entry)
    }
    return planned
  }
}
