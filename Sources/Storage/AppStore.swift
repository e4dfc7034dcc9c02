internal import GRDB
package import Model

/// What apps keep for themselves by `store.*`, and what of their calls was judged.
extension Store {
  /// Why a value was not kept.
  package enum ValueRefusal: Error, Sendable, Equatable {
    /// The app's values would take more than `limit` bytes in all.
    case bytes(limit: Int)
    /// It would have more than `limit` values.
    case count(limit: Int)
    case failed(String)
  }

  /// Bytes of all keys and values of one app, and how many there may be.
  package static let mostValueBytes = 10 << 20
  package static let mostValues = 10_000

  package func value(of app: AppID, _ key: String) async throws(StorageFailure) -> String? {
    do {
      return try await database.read {
        try String.fetchOne(
          $0, sql: "SELECT value FROM app_value WHERE app = ? AND key = ?", arguments: [app.name, key])
      }
    } catch { throw .failed("\(error)") }
  }

  /// Keeps a value in place of an earlier one, or nothing of it. On the disk (fsync) when this returns.
  package func setValue(of app: AppID, _ key: String, _ value: String) async throws(ValueRefusal) {
    do {
      try await database.writeWithoutTransaction { database in
        try database.execute(sql: "PRAGMA synchronous = FULL")
        try database.inTransaction {
          let row = try Row.fetchOne(
            database,
            sql: """
              SELECT count(*) AS many, coalesce(sum(length(CAST(key AS BLOB)) + length(CAST(value AS BLOB))), 0) AS bytes
              FROM app_value WHERE app = ? AND key <> ?
              """, arguments: [app.name, key])
          let bytes = (row?["bytes"] as Int? ?? 0) + key.utf8.count + value.utf8.count
          guard bytes <= Self.mostValueBytes else { throw ValueRefusal.bytes(limit: Self.mostValueBytes) }
          guard (row?["many"] as Int? ?? 0) < Self.mostValues else { throw ValueRefusal.count(limit: Self.mostValues) }
          try database.execute(
            sql: "INSERT OR REPLACE INTO app_value VALUES (?, ?, ?)", arguments: [app.name, key, value])
          return .commit
        }
      }
    } catch let refusal as ValueRefusal {
      throw refusal
    } catch { throw .failed("\(error)") }
  }

  /// False: there was none.
  package func removeValue(of app: AppID, _ key: String) async throws(StorageFailure) -> Bool {
    do {
      return try await database.write { database in
        try database.execute(sql: "DELETE FROM app_value WHERE app = ? AND key = ?", arguments: [app.name, key])
        return database.changesCount > 0
      }
    } catch { throw .failed("\(error)") }
  }

  /// Keys that begin with `prefix`, after `cursor`, in order.
  package func keys(of app: AppID, prefix: String, after cursor: String, limit: Int) async throws(StorageFailure)
    -> [String]
  {
    do {
      return try await database.read {
        try String.fetchAll(
          $0,
          sql:
            "SELECT key FROM app_value WHERE app = ? AND key > ? AND substr(key, 1, length(?)) = ? ORDER BY key LIMIT ?",
          arguments: [app.name, cursor, prefix, prefix, limit])
      }
    } catch { throw .failed("\(error)") }
  }

  /// Judged calls, newest first; of one app if named.
  package func audit(_ app: AppID?, limit: Int) async throws(StorageFailure) -> [StoredAudit] {
    do {
      return try await database.read { database in
        try Row.fetchAll(
          database, sql: "SELECT * FROM audit WHERE ? IS NULL OR app = ? ORDER BY id DESC LIMIT ?",
          arguments: [app?.name, app?.name, limit]
        ).compactMap { row in
          AppID(stored: row["app"]).map { app in
            StoredAudit(
              time: WallTime(nanoseconds: row["time"]), app: app,
              generation: UInt64(clamping: row["generation"] as Int64),
              call: row["call"], object: row["object"], permission: row["permission"], rule: row["rule"],
              allowed: row["allowed"] as Int64 == 1, more: row["more"])
          }
        }
      }
    } catch { throw .failed("\(error)") }
  }
}
