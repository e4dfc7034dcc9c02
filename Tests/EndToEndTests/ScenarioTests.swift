import Foundation
import Model
import Testing

/// A situation an operator meets: what is there, what is done, and which events must follow in which order. Others may come between.
struct Situation: Sendable, CustomTestStringConvertible {
  enum Act: Sendable {
    /// The CLI; it must end with this code.
    case run(Int32, [String])
    /// A file of policies is written, or written anew.
    case write(String, @Sendable (Place) -> String)
    /// The app's own process gets SIGKILL from beside.
    case murder(String)
    /// The daemon is killed and started again.
    case newDaemon
    /// Wait for this event before going on.
    case await(String)
  }

  var name: String
  var policies: @Sendable (Place) -> [String: String]
  var acts: [Act] = []
  /// `app event`, or `app event field=value`.
  var events: [String]
  /// What `up` of the policies ends with.
  var up: Int32 = 0

  var testDescription: String { name }
}

private let quick = "restart_policy: {delay: 10ms, jitter: 0, max_attempts: 2}\n"
private let stays = "exec sleep 1000"

/// The table: situation, expected events in order.
private let situations: [Situation] = [
  Situation(
    name: "an app starts after what it depends on, and stops before it",
    policies: { place in
      ["db": place.script("db", stays), "web": place.script("web", stays, "depends_on: [db]\n")]
    },
    acts: [.run(0, ["down", "--all", "-y"])],
    events: [
      "db app.started", "web app.created", "web app.started", "web app.stopping", "web app.exited", "db app.stopping",
      "db app.exited",
    ]),
  Situation(
    name: "an app that crashes is started again, and one that goes on crashing has failed",
    policies: { ["a": $0.script("a", "sleep 0.3; exit 3", "restart: always\n" + quick)] },
    events: [
      "a app.started", "a app.exited exit_code=3", "a app.backoff", "a app.restarting", "a app.started",
      "a app.exited exit_code=3", "a app.restarting", "a app.started", "a app.exited", "a app.failed",
    ]),
  Situation(
    name: "a process that is killed from beside is told by its signal and started again",
    policies: { ["a": $0.script("a", stays, "restart: always\n" + quick)] },
    acts: [.murder("a"), .await("a app.restarting")],
    events: ["a app.started", "a app.exited exit_code=137", "a app.restarting", "a app.started"]),
  Situation(
    name: "what depends on it with `restart` comes again after it",
    policies: { place in
      [
        "db": place.script("db", stays, "restart: always\n" + quick),
        "web": place.script("web", stays, "depends_on: {db: {condition: service_started, restart: true}}\n"),
      ]
    },
    acts: [.murder("db"), .await("web app.stopping")],
    events: [
      "db app.started", "web app.started", "db app.exited", "web app.stopping", "web app.exited", "web app.started",
    ]),
  Situation(
    name: "an app waits for a job to succeed",
    policies: { place in
      [
        "job": place.script("job", "sleep 0.3"),
        "web": place.script("web", stays, "depends_on: {job: {condition: service_completed_successfully}}\n"),
      ]
    },
    events: ["job app.started", "job app.exited exit_code=0", "web app.started"]),
  Situation(
    name: "a job that fails keeps its dependent from starting, with the reason",
    policies: { place in
      [
        "job": place.script("job", "sleep 0.3; exit 4"),
        "web": place.script("web", stays, "depends_on: {job: {condition: service_completed_successfully}}\n"),
      ]
    },
    events: ["job app.started", "job app.exited exit_code=4", "web app.pending"], up: 1),
  Situation(
    name: "a step before the start that fails ends the start",
    policies: {
      ["a": $0.script("a", stays, "pre_start: [{command: [/bin/true]}, {command: [/bin/false]}]\n")]
    },
    events: ["a app.pre_start", "a app.pre_start", "a app.start_failed", "a app.failed"], up: 1),
  Situation(
    name: "an app that no longer answers is restarted",
    policies: {
      [
        "a": $0.script(
          "a", "touch /tmp/well; sleep 1; rm /tmp/well; exec sleep 1000",
          "restart: always\nhealthcheck: {test: [CMD, test, -e, /tmp/well], interval: 200ms, retries: 1, on_failure: restart}\n"
        )
      ]
    },
    acts: [.await("a app.restarting")],
    events: [
      "a app.started", "a app.health health=healthy", "a app.health health=unhealthy", "a app.stopping", "a app.exited",
      "a app.restarting", "a app.started",
    ]),
  Situation(
    name: "a run has only so much time",
    policies: { ["a": $0.script("a", stays, "max_runtime: 500ms\n")] },
    acts: [.await("a app.exited")],
    events: ["a app.started", "a app.stopping", "a app.exited", "a app.resting"]),
  Situation(
    name: "a limit changes while it runs; another program is another run",
    policies: { ["a": $0.script("a", stays, "mem_limit: 64m\n")] },
    acts: [
      .write("a") { $0.script("a", stays, "mem_limit: 96m\n") }, .run(0, ["up", "-d", "--wait"]),
      .await("a app.changed"),
      .write("a") { $0.script("a", "sleep 1001", "mem_limit: 96m\n") }, .run(0, ["up", "-d", "--wait"]),
    ],
    events: ["a app.started", "a app.changed", "a app.stopping", "a app.exited", "a app.started"]),
  Situation(
    name: "a version that fails its gate is taken back, and what ran never ended",
    policies: { ["a": $0.script("a", stays, "update_config: {order: start-first, monitor: 500ms}\n")] },
    acts: [
      .write("a") { $0.script("a", "sleep 0.1; exit 5", "update_config: {order: start-first, monitor: 500ms}\n") },
      .run(1, ["up", "-d", "--wait"]),
    ],
    events: ["a app.started", "a app.update_started", "a app.update_rolled_back"]),
  Situation(
    name: "an app pauses, goes on, and is taken over by the next daemon",
    policies: { ["a": $0.script("a", stays)] },
    acts: [.run(0, ["pause", "a"]), .run(0, ["unpause", "a"]), .newDaemon, .run(0, ["stop", "a"])],
    events: [
      "a app.started", "a app.paused", "a app.unpaused", "a app.adopted", "a app.stopping", "a app.exited",
      "a app.resting",
    ]),
]

@Suite("Situations, and the events that follow", .serialized) struct ScenarioTests {
  @Test("each in its order, on every runtime", arguments: situations, Place.available)
  func situation(_ situation: Situation, _ place: Place) throws {
    try place.with { instance in
      for (name, policy) in situation.policies(place) { try instance.write(name, policy) }
      let up = instance.up("--wait-timeout", "60s")
      #expect(up.code == situation.up, "\(up.err)")
      for act in situation.acts { try perform(act, instance, place) }
      let last = try #require(situation.events.last)
      eventually("\(last), the last of all") { Self.missing(situation.events, in: Self.history(instance)) == nil }
      let missing = Self.missing(situation.events, in: Self.history(instance))
      #expect(
        missing == nil,
        "\(missing ?? "") is not there, or not in its place: \(Self.history(instance).compactMap(\.first))")
    }
  }

  private func perform(_ act: Situation.Act, _ instance: Instance, _ place: Place) throws {
    switch act {
    case .run(let code, let words):
      let places = words.first == "up" ? ["--engine", instance.engine, instance.policies] : []
      let done = instance.run(words + places)
      #expect(done.code == code, "\(words): \(done.err)")
    case .write(let name, let policy): try instance.write(name, policy(place))
    case .murder(let app): kill(try #require(instance.pid(app)), SIGKILL)
    case .newDaemon:
      instance.killDaemon()
      instance.startDaemon()
    case .await(let event): eventually(event) { Self.missing([event], in: Self.history(instance)) == nil }
    }
  }

  /// Every event as `app event`, and once more for each field as `app event field=value`.
  private static func history(_ instance: Instance) -> [[String]] {
    instance.run("events", "--format", "json").lines.compactMap { event in
      guard let app = event["app"]?.stringValue, let name = event["event"]?.stringValue else { return nil }
      let fields = (event.objectValue?.map { ($0.key, $0.value) } ?? []).compactMap { key, value -> String? in
        (value.stringValue ?? value.integerValue.map(String.init)).map { "\(app) \(name) \(key)=\($0)" }
      }
      return ["\(app) \(name)"] + fields
    }
  }

  /// The first of `events` that does not come after those before it.
  private static func missing(_ events: [String], in history: [[String]]) -> String? {
    var rest = history[...]
    for event in events {
      guard let place = rest.firstIndex(where: { $0.contains(event) }) else { return event }
      rest = rest[(place + 1)...]
    }
    return nil
  }
}
