internal import Linux
internal import Model
internal import Policies
internal import RPC
internal import Storage
internal import Supervision

/// What is changed and how: `app.plan`, `app.set`, `app.unset`.
extension ControlService {
  // MARK: Plan

  /// What `app.up` with the same arguments would do.
  func plan(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let files = try await checkedFiles(arguments, of: "app.plan")
    let origin = try arguments.text("origin") ?? ""
    let apps = files.checked.filter { !$0.policy.template }
    let planned: [PlannedChange]
    do throws(OperationFailure) {
      planned = try await supervisor.planned(apps, recreate: try Self.flag("recreate", arguments))
    } catch { throw RPCFailure(error) }
    let orphans = await supervisor.orphans(of: origin, keeping: files.present)
    return .object([
      "apps": .array(planned.map(\.json)), "orphans": .array(orphans.map { .string($0.name) }),
      "warnings": .array(files.warnings),
    ])
  }

  private static func flag(_ key: String, _ arguments: Arguments) throws(OperationFailure) -> Bool {
    do throws(RPCFailure) { return try arguments.flag(key) } catch { throw .invalid(error.message, hint: error.hint) }
  }

  // MARK: Set

  func set(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let id = try await one(arguments)
    var values: [(key: String, value: JSONValue)] = []
    for text in try arguments.texts("values") ?? [] {
      do throws(OverrideRefusal) { values.append(try readOverride(text)) } catch {
        throw RPCFailure(.invalidParameters, error.message, hint: error.hint)
      }
    }
    guard !values.isEmpty else { throw RPCFailure(.invalidParameters, "values must hold at least one KEY=VALUE") }
    let limit = try arguments.integer("for_ms")
    if let limit, !(1...31_536_000_000).contains(limit) {
      throw RPCFailure(.invalidParameters, "for_ms is a number of milliseconds up to a year")
    }
    let until = limit.map { WallTime(nanoseconds: Clock.wall().nanoseconds + $0 * 1_000_000) }
    do throws(OperationFailure) {
      let change = try await supervisor.override(
        id, set: values, until: until, dryRun: try Self.flag("dry_run", arguments))
      return Self.answer(id, change)
    } catch { throw RPCFailure(error) }
  }

  func unset(_ arguments: Arguments) async throws(RPCFailure) -> JSONValue {
    let id = try await one(arguments)
    let keys = try arguments.texts("keys") ?? []
    do throws(OperationFailure) {
      let change = try await supervisor.override(id, unset: keys, dryRun: try Self.flag("dry_run", arguments))
      return Self.answer(id, change)
    } catch { throw RPCFailure(error) }
  }

  private static func answer(_ id: AppID, _ change: Change) -> JSONValue {
    .object([
      "app": .string(id.name), "change": .string(change.kind.rawValue), "fields": .array(change.fields.map(\.json)),
    ])
  }
}

extension PlannedChange {
  /// The keys of `plan --format json`.
  var json: JSONValue {
    .object([
      "name": .string(id.name), "change": .string(change.kind.rawValue), "fields": .array(change.fields.map(\.json)),
      "overrides": .array(overrides.map(\.json)), "behind": .optional(behind),
      "order": startsFirst ? "start-first" : .null,
    ])
  }
}

extension Change.Difference {
  /// Values of the environment are not told: only which names differ.
  var json: JSONValue {
    let (before, after) = key == "environment" ? Self.names(old, new) : (old, new)
    return .object([
      "key": .string(key), "old": before ?? .null, "new": after ?? .null, "change": .string(kind.rawValue),
    ])
  }

  private static func names(_ old: JSONValue?, _ new: JSONValue?) -> (JSONValue?, JSONValue?) {
    func values(_ value: JSONValue?) -> [String: JSONValue] {
      var values: [String: JSONValue] = [:]
      for (name, item) in value?.objectValue ?? JSONObject() { values[name] = item }
      return values
    }
    let before = values(old)
    let after = values(new)
    let differ = Set(before.keys).union(after.keys).filter { before[$0] != after[$0] }.sorted()
    func shown(_ side: [String: JSONValue]) -> JSONValue {
      .array(differ.filter { side[$0] != nil }.map { .string($0) })
    }
    return (shown(before), shown(after))
  }
}

extension StoredOverride {
  var json: JSONValue {
    .object([
      // best effort: it was written by this program.
      "key": .string(key), "value": (try? JSONValue(parsing: Array(value.utf8))) ?? .null,
      "until": .optional(until?.nanoseconds),
    ])
  }
}
