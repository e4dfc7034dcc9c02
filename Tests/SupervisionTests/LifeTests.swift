import Model
import Supervision
import Testing

/// A native app that restarts for ever with fixed delays, so that every effect is known.
private func policy(_ restart: RestartRule = .always) throws -> Policy {
  var policy = Policy(id: try #require(AppID("web")), stack: "shop", runtime: .native, baseFolder: "/")
  policy.restart = restart
  policy.backoff.jitter = 0
  return policy
}

private let instance = Instance(
  app: AppID("web") ?? AppID("web").unsafelyUnwrapped, generation: 1, nonce: "n", handle: "h")
private let facts = RunFacts(pid: 7, startedAt: WallTime(nanoseconds: 0))
private let second: Int64 = 1_000_000_000

private func report(_ cause: ExitReport.Cause, oom: Bool = false, ran seconds: Int64 = 1, endedAt: Int64 = 1)
  -> ExitReport
{
  ExitReport(
    cause: cause, outOfMemory: oom, startedAt: WallTime(nanoseconds: (endedAt - seconds) * second),
    endedAt: WallTime(nanoseconds: endedAt * second))
}

/// One life driven by events; time stands still unless a test moves it.
private struct Driven {
  var life: Life
  var policy: Policy
  var now = WallTime(nanoseconds: 0)
  var effects: [Effect] = []

  init(_ restart: RestartRule = .always) throws {
    life = Life(want: .stopped)
    policy = try SupervisionTests.policy(restart)
  }

  mutating func send(_ events: LifeEvent...) {
    for event in events { effects = life.handle(event, policy, now: now, chance: 0.5) }
  }

  mutating func run() { send(.want(.running), .admitted, .prepared, .created(instance), .started(facts)) }
}

@Suite struct LifeTests {
  @Test("an app goes up step by step, and each step asks for the next")
  func up() throws {
    var app = try Driven()
    app.send(.want(.running))
    guard case .waiting = app.life.stage else { Issue.record("\(app.life.stage)"); return }
    app.send(.admitted)
    #expect(app.effects == [.prepare])
    app.send(.prepared)
    #expect(app.effects == [.create])
    app.send(.created(instance))
    #expect(app.effects.contains(.start(instance)))
    app.send(.started(facts))
    #expect(app.life.stage == .running(instance, facts, paused: false))
  }

  @Test(
    "a stop that arrives before the process exists is remembered",
    arguments: [StoppedDuring.preparing, .creating, .starting])
  func earlyStop(_ during: StoppedDuring) throws {
    var app = try Driven()
    app.send(.want(.running), .admitted)
    if during != .preparing { app.send(.prepared) }
    if during == .starting { app.send(.created(instance)) }
    app.send(.want(.stopped))
    switch during {
    case .preparing:
      #expect(app.effects == [.cancelPrepare])
      app.send(.stepFailed(HostFailure(.failed, "cancelled")))
      #expect(app.life.stage == .resting)
      #expect(app.life.failure == nil)
    case .creating:
      app.send(.created(instance))
      #expect(app.effects == [.clear(instance)])
      app.send(.cleared)
      #expect(app.life.stage == .resting)
    case .starting:
      app.send(.started(facts))
      #expect(app.life.shouldStop)
      app.send(.releasedToStop)
      #expect(app.effects.contains(.signal(instance, 15)))
    }
  }
  enum StoppedDuring: Sendable { case preparing, creating, starting }

  @Test("a stop sends the signal, waits out the grace time, then kills, and kills again while nothing ends")
  func stop() throws {
    var app = try Driven()
    app.run()
    app.send(.want(.stopped), .releasedToStop)
    #expect(app.effects.contains(.signal(instance, 15)))
    #expect(app.effects.contains(.after(.seconds(10), .graceOver)))
    app.send(.graceOver)
    #expect(app.effects.contains(.kill(instance)))
    app.send(.killAgain)
    #expect(app.effects.contains(.kill(instance)))
    app.send(.exited(report(.signal(9))), .cleared)
    #expect(app.life.stage == .resting)
    #expect(app.life.failure == nil)
  }

  @Test("delays grow by the multiplier up to the maximum, and a good run starts them anew")
  func backoff() throws {
    var app = try Driven()
    app.policy.backoff.maximumDelay = .seconds(5)
    app.policy.backoff.maximumAttempts = 100
    app.run()
    var delays: [Duration] = []
    for _ in 0..<5 {
      app.send(.exited(report(.code(1))), .cleared)
      for case .after(let delay, .backoffOver) in app.effects { delays.append(delay) }
      app.send(.backoffOver, .admitted, .prepared, .created(instance), .started(facts))
    }
    #expect(delays == [.seconds(1), .seconds(2), .seconds(4), .seconds(5), .seconds(5)])
    app.send(.exited(report(.code(1), ran: 10, endedAt: 20)), .cleared)
    #expect(app.effects.contains(.after(.seconds(1), .backoffOver)))
  }

  @Test(
    "jitter moves a delay by at most its fraction, either way", arguments: [(0.0, 800), (0.5, 1000), (0.999, 1199)])
  func jitter(_ chance: Double, _ milliseconds: Int) throws {
    var app = try Driven()
    app.policy.backoff.jitter = 0.2
    app.run()
    app.send(.exited(report(.code(1))))
    let effects = app.life.handle(.cleared, app.policy, now: app.now, chance: chance)
    let delay = try #require(
      effects.compactMap { if case .after(let delay, .backoffOver) = $0 { delay } else { nil } }.first)
    #expect(abs(delay.wholeNanoseconds / 1_000_000 - Int64(milliseconds)) <= 1)
  }

  @Test("more restarts than allowed within the window end in failed with the reason")
  func window() throws {
    var app = try Driven()
    app.policy.backoff.maximumAttempts = 3
    app.policy.backoff.delay = .zero
    app.run()
    for _ in 0..<3 {
      app.send(.exited(report(.code(3))), .cleared)
      app.send(.backoffOver, .admitted, .prepared, .created(instance), .started(facts))
    }
    app.send(.exited(report(.code(3))), .cleared)
    #expect(app.life.stage == .resting)
    #expect(app.life.failure?.contains("exit code 3") == true)
    #expect(app.life.restarts == 3)
    app.send(.want(.running))
    #expect(app.life.failure == nil, "being wanted anew forgives")
  }

  @Test("restarts outside the window do not count")
  func windowPasses() throws {
    var app = try Driven()
    app.policy.backoff.maximumAttempts = 1
    app.policy.backoff.delay = .zero
    app.run()
    for round in 1...4 {
      app.now = WallTime(nanoseconds: Int64(round) * 301 * second)
      app.send(.exited(report(.code(1))), .cleared)
      #expect(app.life.failure == nil)
      app.send(.backoffOver, .admitted, .prepared, .created(instance), .started(facts))
    }
  }

  @Test(
    "each restart rule decides by how the run ended",
    arguments: [
      (RestartRule.no, Int32(1), false), (.no, 0, false), (.always, 0, true), (.always, 1, true),
      (.unlessStopped, 0, true),
      (.onFailure(maximum: nil), 0, false), (.onFailure(maximum: nil), 1, true), (.onFailure(maximum: 1), 1, true),
    ])
  func rules(_ rule: RestartRule, _ code: Int32, _ restarts: Bool) throws {
    var app = try Driven(rule)
    app.run()
    app.send(.exited(report(.code(code))), .cleared)
    if case .backoff = app.life.stage { #expect(restarts) } else { #expect(!restarts) }
  }

  @Test("on-failure:N gives up after N restarts")
  func onFailureMaximum() throws {
    var app = try Driven(.onFailure(maximum: 2))
    app.policy.backoff.delay = .zero
    app.run()
    for _ in 0..<2 {
      app.send(.exited(report(.code(1))), .cleared)
      app.send(.backoffOver, .admitted, .prepared, .created(instance), .started(facts))
    }
    app.send(.exited(report(.code(1))), .cleared)
    #expect(app.life.failure?.contains("2 restarts") == true)
  }

  @Test("an out of memory kill with exit code 0 is a failure")
  func outOfMemory() throws {
    var app = try Driven(.onFailure(maximum: nil))
    app.run()
    app.send(.exited(report(.code(0), oom: true)))
    #expect(app.effects.contains { if case .record("app.oom", _) = $0 { true } else { false } })
    app.send(.cleared)
    if case .backoff = app.life.stage {} else { Issue.record("it must be restarted: \(app.life.stage)") }
  }

  @Test("max_runtime stops the run and says so")
  func maximumRuntime() throws {
    var app = try Driven(.no)
    app.policy.limits.maximumRuntime = .seconds(60)
    app.run()
    #expect(app.effects.contains(.after(.seconds(60), .runtimeOver)))
    app.send(.runtimeOver)
    #expect(app.effects.contains(.signal(instance, 15)))
    #expect(app.life.endReason == "max_runtime 1m")
  }

  @Test("an engine that is gone and a conflict are tried again; a refused or missing thing fails the app")
  func failures() throws {
    for (kind, expected) in [
      (HostFailure.Kind.unavailable, "backoff"), (.refused, "failed"), (.missing, "failed"), (.conflict, "backoff"),
      (.failed, "backoff"),
    ] {
      var app = try Driven()
      app.send(.want(.running), .admitted, .stepFailed(HostFailure(kind, "why")))
      let outcome =
        switch app.life.stage {
        case .waiting: "waiting"
        case .backoff: "backoff"
        case .resting: app.life.failure == nil ? "resting" : "failed"
        default: "\(app.life.stage)"
        }
      #expect(outcome == expected, "\(kind)")
    }
  }

  @Test("what a failed start left behind is cleared before anything else happens")
  func failedStart() throws {
    var app = try Driven()
    app.send(
      .want(.running), .admitted, .prepared, .created(instance),
      .stepFailed(HostFailure(.refused, "the memory limit is not in force")))
    #expect(app.life.stage == .clearing(instance))
    app.send(.cleared)
    #expect(app.life.failure == "the memory limit is not in force")
  }

  @Test("an app whose clearing fails is cleared again, and nothing new is made meanwhile")
  func clearFails() throws {
    var app = try Driven()
    app.run()
    app.send(.exited(report(.code(0))), .clearFailed(HostFailure(.unavailable, "gone")))
    #expect(app.life.stage == .clearing(instance))
    app.send(.clearAgain)
    #expect(app.effects == [.clear(instance)])
  }

  @Test("removed while it runs: it is stopped, cleared, and then forgotten")
  func removal() throws {
    var app = try Driven()
    app.run()
    app.send(.want(.removed), .releasedToStop, .exited(report(.signal(15))), .cleared)
    #expect(app.effects.contains(.forget))
  }

  @Test("replaced while it runs: the old instance ends, then a new one is made, without a backoff")
  func replacement() throws {
    var app = try Driven()
    app.run()
    app.send(.replace)
    #expect(app.life.shouldStop)
    app.send(.releasedToStop, .exited(report(.signal(15))), .cleared)
    guard case .waiting = app.life.stage else { Issue.record("\(app.life.stage)"); return }
    #expect(!app.life.replacing)
  }

  @Test("wanted again while it is being stopped: it ends, and is then started, whatever its restart rule")
  func wantedAgain() throws {
    var app = try Driven(.no)
    app.run()
    app.send(.want(.stopped), .releasedToStop, .want(.running), .exited(report(.signal(15))), .cleared)
    guard case .waiting = app.life.stage else { Issue.record("\(app.life.stage)"); return }
  }

  @Test("a frozen app is thawed to see its stop signal")
  func frozen() throws {
    var app = try Driven()
    app.run()
    app.send(.paused(true), .want(.stopped), .releasedToStop)
    #expect(app.effects.contains(.signal(instance, 15, thaw: true)))
  }

  @Test("what is given up is not started again, whatever its restart rule; what runs, runs on")
  func givenUp() throws {
    var app = try Driven(.always)
    app.run()
    app.send(.giveUp("why"))
    #expect(app.life.isRunning)
    app.send(.exited(report(.code(1))), .giveUp("why"), .cleared)
    #expect(app.life.failure == "why" && app.life.stage == .resting)
    // Also in a pause between two runs.
    var paused = try Driven(.always)
    paused.run()
    paused.send(.exited(report(.code(1))), .cleared)
    guard case .backoff = paused.life.stage else { Issue.record("\(paused.life.stage)"); return }
    paused.send(.giveUp("why"))
    #expect(paused.life.failure == "why" && paused.effects.contains(.cancelTimers))
  }

  @Test("another policy waits out no pause, and forgets what the one before failed at")
  func renewed() throws {
    for ending in [RestartRule.always, .no] {
      var app = try Driven(ending)
      app.run()
      app.send(.exited(report(.code(1))), .cleared, .renew)
      guard case .waiting = app.life.stage else { Issue.record("\(ending): \(app.life.stage)"); return }
      #expect(app.life.restarts == 0 && app.life.failure == nil)
    }
    var stopped = try Driven()
    stopped.run()
    stopped.send(.want(.stopped), .releasedToStop, .exited(report(.code(0))), .cleared, .renew)
    #expect(stopped.life.stage == .resting)
  }

  @Test("every stage takes every event without losing an instance that exists")
  func everyPair() throws {
    for stage in everyStage {
      for event in everyEvent {
        for (want, planned, debug) in everyKind {
          var life = Life(want: want)
          life.stage = stage
          life.debug = debug
          var policy = try policy(planned ? .no : .always)
          policy.healthcheck = Healthcheck(.tcp(port: 1))
          if planned {
            policy.schedule = Schedule(cron: try Cron(parsing: "@daily"), concurrency: .replace)
            policy.preStart = [.init(["a"]), .init(["b"])]
            life.preStart = stage == .preStarting(instance, facts) ? 0 : nil
          }
          let effects = life.handle(event, policy, now: WallTime(nanoseconds: 0), chance: 0.5)
          // An instance may only leave the state once it was reported cleared.
          if let held = stage.instance, event != .cleared {
            #expect(life.stage.instance == held, "\(stage) × \(event)")
          }
          if life.stage == .resting, stage != .resting, life.want == .removed {
            #expect(effects.contains(.forget), "\(stage) × \(event)")
          }
        }
      }
    }
  }

  private var everyKind: [(Want, planned: Bool, debug: Life.Debugging?)] {
    [Want.running, .stopped, .removed].flatMap { want in
      [false, true].flatMap { planned in
        [nil, Life.Debugging(rests: false), Life.Debugging(isHere: true, rests: true)].map { (want, planned, $0) }
      }
    }
  }

  private var everyStage: [Stage] {
    [
      .resting, .waiting("x"), .preparing, .creating, .starting(instance), .preStarting(instance, facts),
      .scheduled(until: nil), .scheduled(until: WallTime(nanoseconds: 9)), .running(instance, facts, paused: false),
      .running(instance, facts, paused: true), .stopping(instance, facts), .killing(instance, facts),
      .killing(instance, nil), .clearing(instance),
      .backoff(until: WallTime(nanoseconds: 5)),
    ]
  }

  private var everyEvent: [LifeEvent] {
    [
      .want(.running), .want(.stopped), .want(.removed), .replace, .admitted, .held("y"), .prepared, .created(instance),
      .started(facts),
      .stepFailed(HostFailure(.failed, "f")), .releasedToStop, .graceOver, .killAgain, .killRequested, .runtimeOver,
      .cpuTimeOver, .ready("x"), .unhealthy("x"), .nextRun(nil), .nextRun(WallTime(nanoseconds: 9)), .due,
      .paused(true), .paused(false),
      .exited(report(.code(0))), .cleared, .clearFailed(HostFailure(.failed, "f")), .clearAgain, .backoffOver,
      .giveUp("x"),
      .renew,
      .debug(true), .debug(false), .stepTimeOver,
    ]
  }
}
