import Model
import Supervision
import Testing

private let instance = Instance(
  app: AppID("web") ?? AppID("web").unsafelyUnwrapped, generation: 1, nonce: "n", handle: "h")
private let facts = RunFacts(pid: 7, startedAt: WallTime(nanoseconds: 0))
private let second: Int64 = 1_000_000_000

private func report(_ cause: ExitReport.Cause, ran seconds: Int64 = 1) -> ExitReport {
  ExitReport(
    cause: cause, startedAt: WallTime(nanoseconds: 0), endedAt: WallTime(nanoseconds: seconds * second))
}

/// One life driven by events, with its policy.
private struct Driven {
  var life = Life(want: .stopped)
  var policy: Policy
  var effects: [Effect] = []

  init(_ restart: RestartRule = .always, _ change: (inout Policy) throws -> Void = { _ in }) throws {
    policy = Policy(id: try #require(AppID("web")), stack: "shop", runtime: .native, baseFolder: "/")
    policy.restart = restart
    policy.backoff.jitter = 0
    try change(&policy)
  }

  mutating func send(_ events: LifeEvent...) {
    for event in events { effects = life.handle(event, policy, now: WallTime(nanoseconds: 0), chance: 0.5) }
  }

  mutating func go() { send(.admitted, .prepared, .created(instance), .started(facts)) }
  mutating func run() {
    send(.want(.running))
    go()
  }

  func recorded(_ name: String) -> [String: JSONValue]? {
    for case .record(name, let fields) in effects { return fields }
    return nil
  }
  var isWaiting: Bool { if case .waiting = life.stage { true } else { false } }
}

@Suite("Life with health") struct HealthLifeTests {
  @Test("an unhealthy app is restarted at once at first, then with growing pauses, and ends in failed")
  func restart() throws {
    var app = try Driven(.no) {
      $0.healthcheck = Healthcheck(.tcp(port: 1))
      $0.healthcheck.onFailure = .restart
      $0.backoff.maximumAttempts = 3
    }
    app.run()
    app.send(.unhealthy("port 1: Connection refused"))
    #expect(app.effects.contains(.outdate), "a daemon that dies now has a successor that goes on")
    #expect(app.effects.contains(.signal(instance, 15)))
    app.send(.exited(report(.signal(15))))
    #expect(app.recorded("app.exited")?["reason"] == "unhealthy: port 1: Connection refused")
    app.send(.cleared)
    #expect(app.isWaiting, "also with restart: no, because on_failure says so: \(app.life.stage)")
    for _ in 0..<2 {
      app.go()
      app.send(.unhealthy("x"), .exited(report(.signal(15))), .cleared)
      guard case .backoff = app.life.stage else { Issue.record("\(app.life.stage)"); return }
      app.send(.backoffOver)
    }
    app.go()
    app.send(.unhealthy("x"), .exited(report(.signal(15))), .cleared)
    #expect(app.life.failure?.contains("unhealthy: x") == true)
  }

  @Test("on_failure decides; by default it is restart, and none where restart is no")
  func actions() throws {
    for (restart, action, signalled) in [
      (RestartRule.always, nil, true), (.no, nil, false), (.always, Healthcheck.Action.none, false),
      (.always, .notify, false), (.always, .stop, true), (.no, .restart, true),
    ] {
      var app = try Driven(restart) {
        $0.healthcheck = Healthcheck(.tcp(port: 1))
        $0.healthcheck.onFailure = action
      }
      app.run()
      app.send(.unhealthy("x"))
      #expect(app.effects.contains(.signal(instance, 15)) == signalled, "\(restart) \(String(describing: action))")
      #expect((app.recorded("app.alert") != nil) == (action == .notify))
      guard action == .stop else { continue }
      app.send(.exited(report(.signal(15))), .cleared)
      #expect(app.life.failure == "it was unhealthy: x")
    }
  }

  @Test("the image's check counts where the policy has none of its own")
  func imageCheck() throws {
    var facts = facts
    facts.imageHealthcheck = Healthcheck(.command(["hc"]))
    var app = try Driven()
    app.send(.want(.running), .admitted, .prepared, .created(instance), .started(facts), .unhealthy("x"))
    #expect(app.effects.contains(.signal(instance, 15)))
    var off = try Driven { $0.healthcheck = Healthcheck(.none) }
    off.send(.want(.running), .admitted, .prepared, .created(instance), .started(facts), .unhealthy("x"))
    #expect(off.effects.isEmpty)
  }

  @Test("ready is ready once, and not after the run")
  func ready() throws {
    var plain = try Driven()
    plain.run()
    #expect(plain.life.isReady)
    var app = try Driven { $0.readiness = .notify }
    app.run()
    #expect(!app.life.isReady)
    app.send(.ready("notify"))
    #expect(app.life.isReady && app.recorded("app.ready")?["by"] == "notify")
    app.send(.ready("notify"))
    #expect(app.effects.isEmpty)
    app.send(.exited(report(.code(0))))
    #expect(!app.life.isReady)
    app.send(.ready("notify"))
    #expect(!app.life.isReady, "what ended says nothing any more")
  }

  @Test("each command of pre_start runs by itself, in order, before the program")
  func preStart() throws {
    var app = try Driven { $0.preStart = [.init(["/a"]), .init(["/b"])] }
    app.send(.want(.running), .admitted, .prepared, .created(instance))
    #expect(app.recorded("app.pre_start")?["command"] == "1 of 2, /a")
    app.send(.started(facts))
    #expect(app.life.stage == .preStarting(instance, facts))
    app.send(.exited(report(.code(0))), .cleared)
    #expect(app.effects == [.create] && app.life.preStart == 1)
    app.send(.created(instance), .started(facts), .exited(report(.code(0))), .cleared)
    #expect(app.effects == [.create] && app.life.preStart == nil)
    app.send(.created(instance), .started(facts))
    #expect(app.life.stage == .running(instance, facts, paused: false))
    #expect(app.life.lastExit == nil)
    app.send(.exited(report(.code(1))), .cleared, .backoffOver)
    app.go()
    #expect(app.life.preStart == 0, "before each start")
  }

  @Test("a command of pre_start that fails fails the start, with the reason")
  func preStartFails() throws {
    var app = try Driven(.no) { $0.preStart = [.init(["/a"])] }
    app.run()
    app.send(.exited(report(.code(3))), .cleared)
    #expect(app.life.failure == "pre_start 1 of 1, /a: exit code 3")
    var again = try Driven { $0.preStart = [.init(["/a"])] }
    again.run()
    again.send(.exited(report(.signal(9))), .cleared)
    guard case .backoff = again.life.stage else { Issue.record("\(again.life.stage)"); return }
  }

  @Test("a stop while a command of pre_start runs ends it, and nothing more is begun")
  func preStartStopped() throws {
    var app = try Driven { $0.preStart = [.init(["/a"]), .init(["/b"])] }
    app.run()
    app.send(.want(.stopped))
    #expect(app.life.shouldStop)
    app.send(.releasedToStop)
    #expect(app.effects.contains(.signal(instance, 15)))
    app.send(.exited(report(.signal(15))), .cleared)
    #expect(app.life.stage == .resting && app.life.failure == nil)
  }

  @Test("max_cpu_time stops the run and says so")
  func cpuTime() throws {
    var app = try Driven(.no) { $0.limits.maximumCPUTime = .seconds(30) }
    app.run()
    app.send(.cpuTimeOver)
    #expect(app.life.endReason == "max_cpu_time 30s")
    app.send(.exited(report(.signal(15))))
    #expect(app.recorded("app.exited")?["reason"] == "max_cpu_time 30s")
  }
}

@Suite("Life with a schedule") struct ScheduleLifeTests {
  private func planned(_ concurrency: Schedule.Concurrency = .forbid, _ restart: RestartRule = .no) throws -> Driven {
    try Driven(restart) { $0.schedule = Schedule(cron: try Cron(parsing: "@daily"), concurrency: concurrency) }
  }

  @Test("up starts nothing: it waits for its time, runs, and waits again")
  func cycle() throws {
    var app = try planned()
    app.send(.want(.running))
    #expect(app.effects == [.armSchedule] && app.life.stage == .scheduled(until: nil))
    app.send(.nextRun(WallTime(nanoseconds: 5)))
    #expect(app.recorded("app.scheduled")?["next"] == 5)
    app.send(.due)
    #expect(app.isWaiting && app.effects.contains(.armSchedule))
    app.go()
    app.send(.exited(report(.code(0))), .cleared)
    #expect(app.effects.contains(.armSchedule))
    #expect(app.life.stage == .scheduled(until: nil) && app.life.lastExit?.succeeded == true)
  }

  @Test("a run that fails is not the end: the next one comes")
  func failing() throws {
    var app = try planned()
    app.send(.want(.running), .due)
    app.go()
    app.send(.exited(report(.code(1))), .cleared)
    #expect(app.life.stage == .scheduled(until: nil) && app.life.failure == nil)
    var retried = try planned(.forbid, .onFailure(maximum: 1))
    retried.send(.want(.running), .due)
    retried.go()
    retried.send(.exited(report(.code(1))), .cleared)
    guard case .backoff = retried.life.stage else { Issue.record("\(retried.life.stage)"); return }
    retried.send(.backoffOver)
    retried.go()
    retried.send(.exited(report(.code(1))), .cleared)
    #expect(retried.recorded("app.failed") != nil && retried.life.stage == .scheduled(until: nil))
    retried.send(.due)
    #expect(retried.isWaiting && retried.life.restarts == 0)
  }

  @Test("forbid leaves a run out while the last one goes on; replace ends that one first")
  func concurrency() throws {
    var forbid = try planned()
    forbid.send(.want(.running), .due)
    forbid.go()
    forbid.send(.due)
    #expect(forbid.recorded("app.due")?["skipped"] == true && !forbid.life.shouldStop)
    #expect(forbid.effects.contains(.armSchedule))
    var replace = try planned(.replace)
    replace.send(.want(.running), .due)
    replace.go()
    replace.send(.due)
    #expect(replace.recorded("app.due")?["skipped"] == false && replace.life.shouldStop)
    replace.send(.releasedToStop, .exited(report(.signal(15))), .cleared)
    #expect(replace.isWaiting)
  }

  @Test("a run that is due while the last one is being cleared away begins after it")
  func dueWhileClearing() throws {
    var app = try planned()
    app.send(.want(.running), .due)
    app.go()
    app.send(.exited(report(.code(0))), .due)
    #expect(app.recorded("app.due")?["skipped"] == nil && app.effects.contains(.armSchedule))
    app.send(.cleared)
    #expect(app.isWaiting)
    app.go()
    app.send(.exited(report(.code(0))), .cleared)
    #expect(app.life.stage == .scheduled(until: nil))
  }

  @Test("stopped means that no run begins any more, removed that it is forgotten")
  func ends() throws {
    var app = try planned()
    app.send(.want(.running), .want(.stopped))
    #expect(app.life.stage == .resting)
    app.send(.due)
    #expect(app.life.stage == .resting && app.effects.isEmpty)
    app.send(.want(.running), .want(.removed))
    #expect(app.effects.contains(.forget))
  }
}
