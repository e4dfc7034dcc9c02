import Foundation
import Model
import Storage
import Testing

@Suite final class StoreTests {
  private let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
    "appsup-store-\(UUID().uuidString)")
  private var path: String { folder.appendingPathComponent("state.db").path }

  init() throws { try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true) }

  deinit { try? FileManager.default.removeItem(at: folder) }

  private func app(_ name: String, slot: UInt32) throws -> StoredApp {
    StoredApp(
      id: try #require(AppID(name)), stack: "s", origin: "/p", file: "/p/\(name).yaml", folder: "/p", canonical: "{}",
      want: .running,
      generation: 3, uidSlot: slot, artifact: "sha256:1")
  }

  @Test("what was committed is there for the next daemon, value for value")
  func roundTrip() async throws {
    let web = try app("web", slot: 0)
    let instance = StoredInstance(
      instance: Instance(app: web.id, generation: 3, nonce: "abc", handle: "c1"), runtime: .container, canonical: "{}",
      folder: "/p", artifact: "sha256:1")
    let exits: [ExitReport.Cause] = [
      .code(7), .signal(9), .neverStarted(step: "execve", reason: "not there\nat all"), .unknown("gone"),
    ]
    let rests = try exits.enumerated().map { place, cause in
      StoredRest(
        app: try #require(AppID("r\(place)")),
        exit: ExitReport(
          cause: cause, outOfMemory: place == 1, startedAt: WallTime(nanoseconds: 5), endedAt: WallTime(nanoseconds: 9)),
        failure: place == 2 ? "why" : nil, restarts: 4)
    }
    do {
      let store = try Store(path: path)
      try await store.commit([.putApp(web), .putInstance(instance)] + rests.map { .putRest($0) }, durable: true)
      try await store.setValue("boot_id", "b")
    }
    let snapshot = try await Store(path: path).load()
    #expect(snapshot.apps == [web])
    #expect(snapshot.instances == [instance])
    #expect(snapshot.rests.sorted { $0.app < $1.app } == rests)
    #expect(snapshot.values["boot_id"] == "b")
  }

  @Test(
    "two generations of an app are kept, one of them what it is; a place that was given is not taken by writing again")
  func generations() async throws {
    let store = try Store(path: path)
    let web = try app("web", slot: 0)
    func row(_ generation: UInt64, _ seat: StoredInstance.Seat, beside: Bool) -> StoredInstance {
      StoredInstance(
        instance: Instance(
          app: web.id, generation: generation, nonce: "n\(generation)", handle: "h", isBeside: beside),
        runtime: .native, canonical: "{}", folder: "/p", artifact: "", seat: seat)
    }
    let old = row(3, .present, beside: false)
    let new = row(4, .next, beside: true)
    var next = web
    next.canonical = "{\"a\":1}"
    let update = StoredUpdate(role: .next, app: next)
    try await store.commit([.putApp(web), .putInstance(old), .putUpdate(update), .putInstance(new)])
    var snapshot = try await store.load()
    #expect(Set(snapshot.instances.map(\.instance)) == [old.instance, new.instance])
    #expect(snapshot.instances.contains(new) && snapshot.updates == [update])
    // The new one takes over, and what is written of either afterwards leaves it so.
    try await store.commit([.putApp(next), .removeUpdate(web.id, .next), .seatInstances(web.id, present: 4)])
    try await store.commit([.putInstance(new), .putInstance(old), .removeUpdate(web.id, .previous)])
    snapshot = try await store.load()
    #expect(snapshot.instances.first { $0.instance == new.instance }?.seat == .present)
    #expect(snapshot.instances.first { $0.instance == old.instance }?.seat == .past)
    #expect(snapshot.updates.isEmpty && snapshot.apps == [next])
    try await store.commit([.removeInstance(web.id, generation: 3)])
    #expect(try await store.load().instances.map(\.instance) == [new.instance])
    try await store.commit([.putUpdate(StoredUpdate(role: .previous, app: web)), .removeUpdate(web.id, .next)])
    #expect(try await store.load().updates.map(\.role) == [.previous])
    try await store.commit([.removeApp(web.id)])
    snapshot = try await store.load()
    #expect(snapshot.instances.isEmpty && snapshot.updates.isEmpty)
  }

  @Test("an app that is removed keeps its id block until its data is gone")
  func idBlocks() async throws {
    let store = try Store(path: path)
    let web = try app("web", slot: 4)
    try await store.commit([.putApp(web)])
    try await store.commit([.removeApp(web.id)])
    #expect(try await store.load().idSlots == [web.id: 4])
    try await store.commit([.releaseIDs(web.id)])
    #expect(try await store.load().idSlots.isEmpty)
  }

  @Test("two apps never share an id block: the whole change is refused")
  func sharedBlock() async throws {
    let store = try Store(path: path)
    try await store.commit([.putApp(try app("web", slot: 1))])
    let db = try app("db", slot: 2)
    try await store.commit([.putApp(db)])
    await #expect(throws: StorageFailure.self) { try await store.commit([.putApp(try app("x", slot: 2))]) }
    #expect(try await store.load().apps.map(\.id.name) == ["db", "web"])
  }

  @Test("many writers at once share commits, and each change is there")
  func groupCommit() async throws {
    let store = try Store(path: path)
    try await withThrowingTaskGroup(of: Void.self) { group in
      for number in 0..<200 {
        group.addTask {
          let event = Event(
            cursor: Int64(number + 1), time: WallTime(nanoseconds: 1), app: AppID("web"), name: "app.started",
            fields: ["n": .integer(Int64(number))])
          try await store.commit([.addEvent(event)])
        }
      }
      try await group.waitForAll()
    }
    let events = try await store.events(after: 0, limit: 1000)
    #expect(events.map(\.cursor) == Array(1...200))
    #expect(try await store.events(after: 198, limit: 10).count == 2)
    #expect(try await store.events(after: 0, app: AppID("other"), limit: 10).isEmpty)
  }

  @Test("a change that cannot be written takes no other with it")
  func oneBadChange() async throws {
    let store = try Store(path: path)
    let event = Event(cursor: 1, time: WallTime(nanoseconds: 1), app: nil, name: "a")
    try await store.commit([.addEvent(event)])
    await #expect(throws: StorageFailure.self) {
      try await store.commit([.putApp(try app("web", slot: 0)), .addEvent(event)])
    }
    #expect(try await store.load().apps.isEmpty)
  }

  @Test("a file that is no database stops the daemon with a clear text and is left as it is")
  func damaged() throws {
    let junk = Data(repeating: 0x41, count: 8192)
    try junk.write(to: URL(fileURLWithPath: path))
    let error = #expect(throws: StorageFailure.self) { _ = try Store(path: path) }
    #expect(error?.description.contains("damaged") == true)
    #expect(try Data(contentsOf: URL(fileURLWithPath: path)) == junk)
  }

  @Test("a database of a newer version is refused")
  func newer() async throws {
    do { _ = try Store(path: path) }
    let sqlite = Process()
    sqlite.executableURL = URL(fileURLWithPath: "/usr/bin/env")
    sqlite.arguments = [
      "python3", "-c",
      "import sqlite3,sys; d=sqlite3.connect(sys.argv[1]); d.execute(\"INSERT INTO grdb_migrations VALUES('9 from the future')\"); d.commit()",
      path,
    ]
    try sqlite.run()
    sqlite.waitUntilExit()
    let error = #expect(throws: StorageFailure.self) { _ = try Store(path: path) }
    #expect(error?.description.contains("newer") == true)
  }
}
