internal import GRDB
internal import Model

/// Tables, and the mapping between rows and records. Statements are cached by GRDB.
enum Schema {
  static var migrator: DatabaseMigrator {
    var migrator = DatabaseMigrator()
    migrator.registerMigration("1 apps, instances, rests, events") { database in
      try database.execute(
        sql: """
          CREATE TABLE value (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
          CREATE TABLE app (
            id TEXT PRIMARY KEY, stack TEXT NOT NULL, origin TEXT NOT NULL, file TEXT NOT NULL, folder TEXT NOT NULL,
            canonical TEXT NOT NULL, want TEXT NOT NULL, generation INTEGER NOT NULL, artifact TEXT NOT NULL) STRICT;
          CREATE TABLE id_slot (app TEXT PRIMARY KEY, slot INTEGER NOT NULL UNIQUE) STRICT;
          CREATE TABLE instance (
            app TEXT PRIMARY KEY, generation INTEGER NOT NULL, nonce TEXT NOT NULL, handle TEXT NOT NULL, runtime TEXT NOT NULL,
            canonical TEXT NOT NULL, folder TEXT NOT NULL, artifact TEXT NOT NULL) STRICT;
          CREATE TABLE rest (
            app TEXT PRIMARY KEY, cause TEXT, number INTEGER, detail TEXT, oom INTEGER, started INTEGER, ended INTEGER,
            failure TEXT, restarts INTEGER NOT NULL) STRICT;
          CREATE TABLE event (cursor INTEGER PRIMARY KEY, time INTEGER NOT NULL, app TEXT, name TEXT NOT NULL, fields TEXT NOT NULL) STRICT;
          CREATE INDEX event_app ON event (app, cursor);
          """)
    }
    migrator.registerMigration("2 whose exit, which engine") { database in
      try database.execute(
        sql: """
          ALTER TABLE rest ADD COLUMN generation INTEGER NOT NULL DEFAULT 0;
          ALTER TABLE instance ADD COLUMN engine TEXT NOT NULL DEFAULT '';
          """)
    }
    migrator.registerMigration("3 what an instance is for, and whether it is ready") { database in
      try database.execute(
        sql: """
          ALTER TABLE instance ADD COLUMN pre_start INTEGER;
          ALTER TABLE instance ADD COLUMN ready INTEGER NOT NULL DEFAULT 0;
          """)
    }
    migrator.registerMigration("how runs ended") { database in
      try database.execute(
        sql: """
          CREATE TABLE run_exit (
            app TEXT NOT NULL, run INTEGER NOT NULL, facts TEXT NOT NULL, canonical TEXT NOT NULL, artifact TEXT NOT NULL,
            output TEXT NOT NULL, PRIMARY KEY (app, run)) STRICT;
          """)
    }
    migrator.registerMigration("overrides of policies") { database in
      try database.execute(
        sql: """
          CREATE TABLE override (
            app TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, until INTEGER, PRIMARY KEY (app, key)) STRICT;
          """)
    }
    migrator.registerMigration("instances that an operator debugs in") { database in
      try database.execute(sql: "ALTER TABLE instance ADD COLUMN debug INTEGER")
    }
    migrator.registerMigration("generations beside each other") { database in
      try database.execute(
        sql: """
          CREATE TABLE generation (
            app TEXT NOT NULL, generation INTEGER NOT NULL, nonce TEXT NOT NULL, handle TEXT NOT NULL, runtime TEXT NOT NULL,
            canonical TEXT NOT NULL, folder TEXT NOT NULL, artifact TEXT NOT NULL, engine TEXT NOT NULL, pre_start INTEGER,
            ready INTEGER NOT NULL, seat TEXT NOT NULL, beside INTEGER NOT NULL, debug INTEGER, PRIMARY KEY (app, generation)) STRICT;
          INSERT INTO generation SELECT
            app, generation, nonce, handle, runtime, canonical, folder, artifact, engine, pre_start, ready, 'present', 0, debug
            FROM instance;
          DROP TABLE instance;
          ALTER TABLE generation RENAME TO instance;
          CREATE TABLE app_update (
            app TEXT PRIMARY KEY, role TEXT NOT NULL, stack TEXT NOT NULL, origin TEXT NOT NULL, file TEXT NOT NULL,
            folder TEXT NOT NULL, canonical TEXT NOT NULL, generation INTEGER NOT NULL, artifact TEXT NOT NULL) STRICT;
          """)
    }
    migrator.registerMigration("what apps may ask, have asked, and keep") { database in
      try database.execute(
        sql: """
          CREATE TABLE decision (
            app TEXT NOT NULL, permission TEXT NOT NULL, kind TEXT NOT NULL, generation INTEGER NOT NULL,
            PRIMARY KEY (app, permission, generation)) STRICT;
          CREATE TABLE audit (
            id INTEGER PRIMARY KEY, time INTEGER NOT NULL, app TEXT NOT NULL, generation INTEGER NOT NULL, call TEXT NOT NULL,
            object TEXT, permission TEXT NOT NULL, rule TEXT, allowed INTEGER NOT NULL, more INTEGER NOT NULL) STRICT;
          CREATE TABLE app_value (
            app TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (app, key)) STRICT, WITHOUT ROWID;
          """)
    }
    return migrator
  }

  static func apply(_ change: StorageChange, _ database: Database) throws {
    switch change {
    case .putApp(let app): try put(app, database)
    case .setWant(let id, let want, let generation):
      try run(
        database, "UPDATE app SET want = ?, generation = max(generation, ?) WHERE id = ?",
        [want.rawValue, Int64(generation), id.name])
    case .mark:
      try run(
        database,
        "INSERT INTO value (key, value) VALUES ('mark', 1) ON CONFLICT (key) DO UPDATE SET value = value + 1", [])
    case .setGeneration(let id, let generation):
      try run(
        database, "UPDATE app SET generation = max(generation, ?) WHERE id = ?", [Int64(generation), id.name])
    case .setArtifact(let id, let artifact):
      try run(database, "UPDATE app SET artifact = ? WHERE id = ?", [artifact, id.name])
    case .setOverrides(let id, let overrides):
      try run(database, "DELETE FROM override WHERE app = ?", [id.name])
      for item in overrides {
        try run(
          database, "INSERT INTO override VALUES (?, ?, ?, ?)",
          [id.name, item.key, item.value, item.until?.nanoseconds])
      }
    case .setInstancePolicy(let id, let generation, let canonical):
      try run(
        database, "UPDATE instance SET canonical = ? WHERE app = ? AND generation = ?",
        [canonical, id.name, Int64(generation)])
    case .removeApp(let id):
      try run(database, "DELETE FROM value WHERE key IN (?, ?)", ["due.\(id)", "parent.\(id)"])
      try run(database, "DELETE FROM decision WHERE app = ?", [id.name])
      try run(database, "DELETE FROM override WHERE app = ?", [id.name])
      try run(database, "DELETE FROM app WHERE id = ?", [id.name])
      try run(database, "DELETE FROM instance WHERE app = ?", [id.name])
      try run(database, "DELETE FROM app_update WHERE app = ?", [id.name])
      try run(database, "DELETE FROM rest WHERE app = ?", [id.name])
      try run(database, "DELETE FROM run_exit WHERE app = ?", [id.name])
    case .putInstance(let stored):
      try run(
        database,
        "INSERT INTO instance VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (app, generation) DO UPDATE SET nonce = excluded.nonce, handle = excluded.handle, runtime = excluded.runtime, canonical = excluded.canonical, folder = excluded.folder, artifact = excluded.artifact, engine = excluded.engine, pre_start = excluded.pre_start, ready = excluded.ready, debug = excluded.debug",
        [
          stored.instance.app.name, Int64(stored.instance.generation), stored.instance.nonce, stored.instance.handle,
          stored.runtime.rawValue, stored.canonical, stored.folder, stored.artifact,
          stored.engine, stored.preStart.map { Int64($0) }, stored.isReady ? 1 : 0, stored.seat.rawValue,
          stored.instance.isBeside ? 1 : 0, stored.debug.map { Int64($0.rawValue) },
        ])
    case .removeInstance(let id, let generation):
      try run(database, "DELETE FROM instance WHERE app = ? AND generation = ?", [id.name, Int64(generation)])
    case .seatInstances(let id, let present):
      try run(
        database, "UPDATE instance SET seat = CASE WHEN generation IS ? THEN 'present' ELSE 'past' END WHERE app = ?",
        [present.map { Int64($0) }, id.name])
    case .putUpdate(let update):
      let app = update.app
      try run(
        database, "INSERT OR REPLACE INTO app_update VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        [
          app.id.name, update.role.rawValue, app.stack, app.origin, app.file, app.folder, app.canonical,
          Int64(app.generation), app.artifact,
        ])
    case .removeUpdate(let id, let role):
      try run(database, "DELETE FROM app_update WHERE app = ? AND role = ?", [id.name, role.rawValue])
    case .setReady(let id, let generation):
      try run(
        database, "UPDATE instance SET ready = 1 WHERE app = ? AND generation = ?", [id.name, Int64(generation)])
    case .setDue(let id, let time):
      guard let time else { return try run(database, "DELETE FROM value WHERE key = ?", ["due.\(id)"]) }
      try run(
        database, "INSERT OR REPLACE INTO value (key, value) VALUES (?, ?)", ["due.\(id)", "\(time.nanoseconds)"])
    case .setParent(let id, let parent):
      guard let parent else { return try run(database, "DELETE FROM value WHERE key = ?", ["parent.\(id)"]) }
      try run(database, "INSERT OR REPLACE INTO value (key, value) VALUES (?, ?)", ["parent.\(id)", parent])
    case .putRest(let rest): try put(rest, database)
    case .addEvent(let event):
      var fields = JSONObject()
      for (key, value) in event.fields.sorted(by: { $0.key < $1.key }) { fields[key] = value }
      try run(
        database, "INSERT INTO event VALUES (?, ?, ?, ?, ?)",
        [event.cursor, event.time.nanoseconds, event.app?.name, event.name, JSONValue.object(fields).text])
    case .putExit(let exit):
      // One of an app that was removed meanwhile is nobody's.
      try run(
        database,
        "INSERT OR REPLACE INTO run_exit SELECT ?, ?, ?, ?, ?, ? WHERE EXISTS (SELECT 1 FROM app WHERE id = ?)",
        [
          exit.app.name, Int64(exit.run), JSONValue.object(exit.facts).text, exit.canonical, exit.artifact,
          exit.output, exit.app.name,
        ])
      try run(
        database,
        "DELETE FROM run_exit WHERE app = ?1 AND run NOT IN (SELECT run FROM run_exit WHERE app = ?1 ORDER BY run DESC LIMIT ?2)",
        [exit.app.name, ExitRecord.kept])
    case .setExitOutput(let id, let number, let output):
      try run(
        database, "UPDATE run_exit SET output = ? WHERE app = ? AND run = ?",
        [output, id.name, Int64(number)])
    case .putDecision(let decision):
      try run(
        database, "INSERT OR REPLACE INTO decision VALUES (?, ?, ?, ?)",
        [decision.app.name, decision.permission, decision.kind.rawValue, Int64(decision.generation)])
    case .removeDecision(let id, let permission):
      try run(
        database, "DELETE FROM decision WHERE app = ? AND permission = ? AND generation = 0", [id.name, permission])
    case .removeDropped(let id, let generation):
      try run(database, "DELETE FROM decision WHERE app = ? AND generation = ?", [id.name, Int64(generation)])
    case .addAudit(let entry): try add(entry, database)
    case .releaseIDs(let id):
      try run(database, "DELETE FROM app_value WHERE app = ?", [id.name])
      try run(database, "DELETE FROM id_slot WHERE app = ?", [id.name])
    }
  }

  /// How many judged calls are kept.
  static let keptAudit: Int64 = 50_000

  private static func add(_ entry: StoredAudit, _ database: Database) throws {
    try run(
      database,
      "INSERT INTO audit (time, app, generation, call, object, permission, rule, allowed, more) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
      [
        entry.time.nanoseconds, entry.app.name, Int64(entry.generation), entry.call, entry.object, entry.permission,
        entry.rule, entry.allowed ? 1 : 0, entry.more,
      ])
    let id = database.lastInsertedRowID
    if id % 256 == 0 { try run(database, "DELETE FROM audit WHERE id <= ?", [id - keptAudit]) }
  }

  private static func run(_ database: Database, _ sql: String, _ arguments: StatementArguments) throws {
    try database.cachedStatement(sql: sql).execute(arguments: arguments)
  }

  private static func put(_ app: StoredApp, _ database: Database) throws {
    try run(
      database, "INSERT OR REPLACE INTO app VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
      [
        app.id.name, app.stack, app.origin, app.file, app.folder, app.canonical, app.want.rawValue,
        Int64(app.generation), app.artifact,
      ])
    // A block that another app has fails the whole change: it is never shared.
    try run(
      database, "INSERT INTO id_slot VALUES (?, ?) ON CONFLICT (app) DO UPDATE SET slot = excluded.slot",
      [app.id.name, Int64(app.uidSlot)])
  }

  private static func put(_ rest: StoredRest, _ database: Database) throws {
    let (cause, number, detail): (String?, Int64?, String?) =
      switch rest.exit?.cause {
      case .code(let code): ("code", Int64(code), nil)
      case .signal(let signal): ("signal", Int64(signal), nil)
      case .neverStarted(let step, let reason): ("never", nil, "\(step)\n\(reason)")
      case .unknown(let why): ("unknown", nil, why)
      case nil: (nil, nil, nil)
      }
    try run(
      database, "INSERT OR REPLACE INTO rest VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
      [
        rest.app.name, cause, number, detail, rest.exit.map { $0.outOfMemory ? 1 : 0 },
        rest.exit?.startedAt?.nanoseconds,
        rest.exit?.endedAt.nanoseconds, rest.failure, Int64(rest.restarts), Int64(rest.generation),
      ])
  }

  // MARK: Reading

  static func snapshot(_ database: Database, _ path: String) throws -> StorageSnapshot {
    var snapshot = StorageSnapshot()
    for row in try Row.fetchAll(database, sql: "SELECT * FROM value") { snapshot.values[row["key"]] = row["value"] }
    for (key, value) in snapshot.values where key.hasPrefix("parent.") {
      snapshot.parents[try id(String(key.dropFirst(7)), path)] = value
    }
    for row in try Row.fetchAll(database, sql: "SELECT * FROM id_slot") {
      snapshot.idSlots[try id(row["app"], path)] = UInt32(row["slot"] as Int64)
    }
    for row in try Row.fetchAll(database, sql: "SELECT * FROM app ORDER BY id") {
      snapshot.apps.append(try app(row, snapshot.idSlots, path))
    }
    for row in try Row.fetchAll(database, sql: "SELECT * FROM instance") {
      snapshot.instances.append(try instance(row, path))
    }
    for row in try Row.fetchAll(database, sql: "SELECT * FROM rest") { snapshot.rests.append(try rest(row, path)) }
    for row in try Row.fetchAll(database, sql: "SELECT * FROM app_update") {
      if let update = try update(row, snapshot.apps, path) { snapshot.updates.append(update) }
    }
    for row in try Row.fetchAll(database, sql: "SELECT app, max(run) AS last FROM run_exit GROUP BY app") {
      snapshot.lastRuns[try id(row["app"], path)] = UInt64(clamping: row["last"] as Int64)
    }
    for row in try Row.fetchAll(database, sql: "SELECT * FROM override ORDER BY app, key") {
      snapshot.overrides[try id(row["app"], path), default: []].append(
        StoredOverride(
          key: row["key"], value: row["value"], until: (row["until"] as Int64?).map { WallTime(nanoseconds: $0) }))
    }
    for row in try Row.fetchAll(database, sql: "SELECT * FROM decision") {
      guard let kind = StoredDecision.Kind(rawValue: row["kind"]) else {
        throw StorageFailure.damaged(path: path, why: "a decision about a permission does not add up")
      }
      snapshot.decisions.append(
        StoredDecision(
          app: try id(row["app"], path), permission: row["permission"], kind: kind,
          generation: UInt64(row["generation"] as Int64)))
    }
    snapshot.lastCursor = try Int64.fetchOne(database, sql: "SELECT max(cursor) FROM event") ?? 0
    return snapshot
  }

  private static func id(_ name: String, _ path: String) throws -> AppID {
    guard let id = AppID(stored: name) else {
      throw StorageFailure.damaged(path: path, why: "an app's name is not one")
    }
    return id
  }

  private static func app(_ row: Row, _ slots: [AppID: UInt32], _ path: String) throws -> StoredApp {
    let id = try id(row["id"], path)
    guard let want = StoredApp.Want(rawValue: row["want"]), let slot = slots[id] else {
      throw StorageFailure.damaged(path: path, why: "the row of app \(id) does not add up")
    }
    return StoredApp(
      id: id, stack: row["stack"], origin: row["origin"], file: row["file"], folder: row["folder"],
      canonical: row["canonical"], want: want,
      generation: UInt64(row["generation"] as Int64), uidSlot: slot, artifact: row["artifact"])
  }

  /// Nil: of an app that is not there any more. The rest of what it says is the app's own.
  private static func update(_ row: Row, _ apps: [StoredApp], _ path: String) throws -> StoredUpdate? {
    let id = try id(row["app"], path)
    guard var app = apps.first(where: { $0.id == id }) else { return nil }
    guard let role = StoredUpdate.Role(rawValue: row["role"]) else {
      throw StorageFailure.damaged(path: path, why: "the update of app \(id) does not add up")
    }
    app.stack = row["stack"]
    app.origin = row["origin"]
    app.file = row["file"]
    app.folder = row["folder"]
    app.canonical = row["canonical"]
    app.generation = UInt64(row["generation"] as Int64)
    app.artifact = row["artifact"]
    return StoredUpdate(role: role, app: app)
  }

  private static func instance(_ row: Row, _ path: String) throws -> StoredInstance {
    guard let runtime = Runtime(rawValue: row["runtime"]), let seat = StoredInstance.Seat(rawValue: row["seat"]) else {
      throw StorageFailure.damaged(path: path, why: "an instance's row does not add up")
    }
    return StoredInstance(
      instance: Instance(
        app: try id(row["app"], path), generation: UInt64(row["generation"] as Int64), nonce: row["nonce"],
        handle: row["handle"], isBeside: row["beside"] as Int64 == 1),
      runtime: runtime, canonical: row["canonical"], folder: row["folder"], artifact: row["artifact"],
      engine: row["engine"], preStart: (row["pre_start"] as Int64?).map { Int($0) },
      isReady: row["ready"] as Int64 == 1,
      debug: (row["debug"] as Int64?).flatMap { StoredInstance.Debug(rawValue: Int($0)) }, seat: seat)
  }

  private static func rest(_ row: Row, _ path: String) throws -> StoredRest {
    let number = Int32(truncatingIfNeeded: (row["number"] as Int64?) ?? 0)
    let detail = (row["detail"] as String?) ?? ""
    let cause: ExitReport.Cause? =
      switch row["cause"] as String? {
      case "code": .code(number)
      case "signal": .signal(number)
      case "never":
        .neverStarted(
          step: String(detail.prefix { $0 != "\n" }), reason: String(detail.drop { $0 != "\n" }.dropFirst()))
      case "unknown": .unknown(detail)
      default: nil
      }
    let exit = cause.map {
      ExitReport(
        cause: $0, outOfMemory: (row["oom"] as Int64?) == 1,
        startedAt: (row["started"] as Int64?).map { WallTime(nanoseconds: $0) },
        endedAt: WallTime(nanoseconds: (row["ended"] as Int64?) ?? 0))
    }
    return StoredRest(
      app: try id(row["app"], path), exit: exit, failure: row["failure"], restarts: UInt32(row["restarts"] as Int64),
      generation: UInt64(row["generation"] as Int64))
  }

  static func exit(_ row: Row) -> ExitRecord? {
    // best effort: an unreadable row is left out of a listing
    guard let app = AppID(stored: row["app"]),
      let facts = try? JSONValue(parsing: Array((row["facts"] as String).utf8)).objectValue
    else { return nil }
    return ExitRecord(
      app: app, run: UInt64(clamping: row["run"] as Int64), facts: facts, canonical: row["canonical"],
      artifact: row["artifact"], output: row["output"])
  }

  static func event(_ row: Row) -> Event? {
    // best effort: an unreadable row is left out of a listing
    let fields = try? JSONValue(parsing: Array((row["fields"] as String).utf8))
    guard let object = fields?.objectValue else { return nil }
    var members: [String: JSONValue] = [:]
    for (key, value) in object { members[key] = value }
    return Event(
      cursor: row["cursor"], time: WallTime(nanoseconds: row["time"]),
      app: (row["app"] as String?).flatMap { AppID(stored: $0) },
      name: row["name"], fields: members)
  }
}
