internal import GRDB
package import Model

/// The instance's database. Commits are grouped: while one is being written, what others hand over waits and goes together.
///
/// No call blocks the caller's thread: GRDB writes on a queue of its own.
package actor Store {
  private struct Waiting {
    var changes: [StorageChange]
    var durable: Bool
    var done: CheckedContinuation<Result<Void, StorageFailure>, Never>
  }

  let database: DatabaseQueue
  private let path: String
  private var waiting: [Waiting] = []
  private var writing = false
  /// Events kept at least; about a tenth more are before old ones are dropped.
  private static let keptEvents: Int64 = 20_000
  private var eventsSinceTrim: Int64 = 0

  /// Opens or makes the database, checks it and brings its schema up to date. Blocking: called once, before anything is served.
  package init(path: String) throws(StorageFailure) {
    self.path = path
    do {
      var configuration = Configuration()
      configuration.label = "store"
      configuration.prepareDatabase { database in
        try database.execute(sql: "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")
      }
      database = try DatabaseQueue(path: path, configuration: configuration)
    } catch let error as DatabaseError where error.resultCode == .SQLITE_NOTADB || error.resultCode == .SQLITE_CORRUPT {
      throw .damaged(path: path, why: error.message ?? "not a database")
    } catch {
      throw .cannotOpen(path: path, why: "\(error)")
    }
    try Self.prepare(database, path)
  }

  private static func prepare(_ database: DatabaseQueue, _ path: String) throws(StorageFailure) {
    do {
      let problem = try database.read { try String.fetchOne($0, sql: "PRAGMA quick_check(1)") }
      guard problem == "ok" else { throw StorageFailure.damaged(path: path, why: problem ?? "no answer") }
      let migrator = Schema.migrator
      guard try !database.read(migrator.hasBeenSuperseded) else { throw StorageFailure.newer(path: path) }
      try migrator.migrate(database)
    } catch let failure as StorageFailure {
      throw failure
    } catch {
      throw .damaged(path: path, why: "\(error)")
    }
  }

  // MARK: Writing

  /// Writes all of `changes` or none of them; returns once they are committed. `durable` also waits for the disk (fsync): they
  /// survive a loss of power, not just of the process.
  package func commit(_ changes: [StorageChange], durable: Bool = false) async throws(StorageFailure) {
    guard !changes.isEmpty else { return }
    let result = await withCheckedContinuation { done in
      waiting.append(Waiting(changes: changes, durable: durable, done: done))
      // Ends when nothing waits any more; whoever hands over meanwhile is taken along.
      if !writing { Task { await self.writeAll() } }
      writing = true
    }
    try result.get()
  }

  /// Returns once everything committed so far is on the disk.
  package func sync() async throws(StorageFailure) { try await commit([.mark], durable: true) }

  private func writeAll() async {
    while !waiting.isEmpty {
      let batch = waiting
      waiting = []
      let changes = batch.map(\.changes)
      let result = await write(changes, durable: batch.contains(where: \.durable))
      for (item, outcome) in zip(batch, result) { item.done.resume(returning: outcome) }
    }
    writing = false
  }

  /// One transaction for all; if that fails, one for each, so that one bad change takes no other with it.
  private func write(_ groups: [[StorageChange]], durable: Bool) async -> [Result<Void, StorageFailure>] {
    let events = Int64(groups.joined().count { if case .addEvent = $0 { true } else { false } })
    eventsSinceTrim += events
    let trim = eventsSinceTrim > Self.keptEvents / 10
    if trim { eventsSinceTrim = 0 }
    do {
      try await database.writeWithoutTransaction { database in
        try database.execute(sql: "PRAGMA synchronous = \(durable ? "FULL" : "NORMAL")")
        try database.inTransaction {
          for change in groups.joined() { try Schema.apply(change, database) }
          if trim {
            try database.execute(
              sql: "DELETE FROM event WHERE cursor <= (SELECT max(cursor) FROM event) - ?", arguments: [Self.keptEvents]
            )
          }
          return .commit
        }
      }
      return groups.map { _ in .success(()) }
    } catch {
      guard groups.count > 1 else { return [.failure(.failed("\(error)"))] }
      var results: [Result<Void, StorageFailure>] = []
      for group in groups { results += await write([group], durable: durable) }
      return results
    }
  }

  /// Sets one of the instance's own values (`instance_id`, `boot_id`).
  package func setValue(_ key: String, _ value: String) async throws(StorageFailure) {
    do {
      try await database.write {
        try $0.execute(sql: "INSERT OR REPLACE INTO value (key, value) VALUES (?, ?)", arguments: [key, value])
      }
    } catch { throw .failed("\(error)") }
  }

  /// Ends the use of the database in good order: all of it is in its one file then. Nothing may be asked of it any more.
  package func close() {
    // best effort: what is left in the log beside the file is found by the next daemon.
    try? database.close()
  }

  // MARK: Reading

  /// Everything, once, at start.
  package func load() async throws(StorageFailure) -> StorageSnapshot {
    let path = path
    do {
      return try await database.read { try Schema.snapshot($0, path) }
    } catch let failure as StorageFailure {
      throw failure
    } catch {
      throw .failed("\(error)")
    }
  }

  /// How an app's runs ended, newest first.
  package func exits(of app: AppID) async throws(StorageFailure) -> [ExitRecord] {
    do {
      return try await database.read { database in
        try Row.fetchAll(
          database, sql: "SELECT * FROM run_exit WHERE app = ? ORDER BY run DESC", arguments: [app.name]
        ).compactMap(Schema.exit)
      }
    } catch { throw .failed("\(error)") }
  }

  /// Events after `cursor`, oldest first, at most `limit`; of one app if named.
  package func events(after cursor: Int64, app: AppID? = nil, limit: Int) async throws(StorageFailure) -> [Event] {
    do {
      return try await database.read { database in
        let rows = try Row.fetchAll(
          database,
          sql: "SELECT * FROM event WHERE cursor > ? AND (? IS NULL OR app = ?) ORDER BY cursor LIMIT ?",
          arguments: [cursor, app?.name, app?.name, limit])
        return rows.compactMap(Schema.event)
      }
    } catch { throw .failed("\(error)") }
  }
}
