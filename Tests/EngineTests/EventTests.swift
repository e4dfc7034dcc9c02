@testable import EngineAPI
import Linux
import Model
import Testing

@Suite("events on a real engine")
struct EventTests {
  @Test("a container's life is told in order, and again from a cursor without repeats", arguments: Rig.present)
  func life(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var cursor = EventCursor(from: Clock.wall())
    var spec = Rig.spec("exit 5")
    spec.labels["events"] = "life-\(rig.rawValue)"
    let filters = Filters.label("events=life-\(rig.rawValue)").adding("type", "container")
    let stream = try await engine.events(from: cursor, filters)
    let id = try await engine.createContainer(spec, named: nil).id
    try await engine.startContainer(id)
    let (events, seen) = try await within { [cursor] in
      var cursor = cursor
      var events: [EngineEvent] = []
      for try await event in stream where cursor.admit(event) {
        events.append(event)
        if event.action == "die" { break }
      }
      return (events, cursor)
    }
    cursor = seen
    #expect(
      Array(events.map(\.action).filter { ["create", "start", "die"].contains($0) }) == ["create", "start", "die"])
    #expect(events.allSatisfy { $0.id == id && $0.kind == "container" })
    #expect(events.last?.exitCode == 5)
    // The connection is lost; meanwhile the container goes.
    try await engine.removeContainer(id, force: true)
    let resumed = try await within { [cursor] in
      var cursor = cursor
      var events: [EngineEvent] = []
      for try await event in try await engine.events(from: cursor, filters) where cursor.admit(event) {
        events.append(event)
        if event.action == "destroy" { break }
      }
      return events
    }
    #expect(resumed.last?.action == "destroy" && resumed.last?.id == id)
    #expect(Set(resumed.map(\.identity)).isDisjoint(with: events.map(\.identity)))
  }

  @Test("events until a moment end there", arguments: Rig.present)
  func until(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let start = EventCursor(from: Clock.wall())
    try await engine.withContainer(Rig.spec("true")) { id in
      _ = try await within { try await engine.waitContainer(id) }
    }
    let end = Clock.wall()
    let count = try await within {
      var count = 0
      for try await _ in try await engine.events(from: start, until: end, .label(Rig.label)) { count += 1 }
      return count
    }
    #expect(count >= 3)
  }

  @Test("a cursor admits each event once and forgets only old ones")
  func cursor() throws {
    var cursor = EventCursor(from: WallTime(nanoseconds: 5))
    for index in 0..<10_000 {
      let json = try JSONValue(
        parsing: Array(#"{"Type":"container","Action":"die","Actor":{"ID":"x\#(index)"},"timeNano":\#(index)}"#.utf8))
      let event = try #require(EngineEvent(json))
      let first = cursor.admit(event)
      let second = cursor.admit(event)
      #expect(first && !second)
    }
  }
}
