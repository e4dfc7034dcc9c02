import Model
import Supervision
import Testing

/// An operator's command in the place of an app's program.
@Suite struct DebugLifeTests {
  private static let app = AppID("web") ?? AppID("web").unsafelyUnwrapped
  private let facts = RunFacts(pid: 7, startedAt: WallTime(nanoseconds: 0))
  private let failed = ExitReport(cause: .code(3), startedAt: nil, endedAt: WallTime(nanoseconds: 1))

  private func instance(_ generation: UInt64) -> Instance {
    Instance(app: Self.app, generation: generation, nonce: "n", handle: "h")
  }

  private struct Driven {
    var life = Life(want: .stopped)
    var policy: Policy
    var effects: [Effect] = []

    init(_ restart: RestartRule) {
      policy = Policy(id: DebugLifeTests.app, stack: "s", runtime: .native, baseFolder: "/")
      policy.restart = restart
    }

    mutating func send(_ events: LifeEvent...) {
      for event in events { effects = life.handle(event, policy, now: WallTime(nanoseconds: 0), chance: 0.5) }
    }

    var isWaiting: Bool { if case .waiting = life.stage { true } else { false } }
  }

  private func run(_ app: inout Driven, _ generation: UInt64) {
    app.send(.admitted, .prepared, .created(instance(generation)), .started(facts))
  }

  @Test("a running app ends first, the command takes its place, and then the app is there again")
  func running() {
    var app = Driven(.always)
    app.send(.want(.running))
    run(&app, 1)
    app.send(.debug(true))
    #expect(app.life.shouldStop)
    app.send(.releasedToStop, .exited(failed), .cleared)
    #expect(app.isWaiting && app.life.debug?.isHere == false)
    run(&app, 2)
    #expect(app.life.debug?.isHere == true && !app.life.shouldStop)
    app.send(.exited(failed), .cleared)
    #expect(app.effects.contains(.debugOver(.exited(failed))))
    #expect(app.life.debug == nil && app.isWaiting && app.life.restarts == 0, "without a backoff")
  }

  @Test("an app that failed has failed afterwards as well; one that was stopped is stopped")
  func resting() {
    var app = Driven(.no)
    app.send(.want(.running), .admitted, .stepFailed(HostFailure(.missing, "no image")))
    #expect(app.life.failure == "no image")
    app.send(.debug(true))
    run(&app, 2)
    app.send(.exited(failed), .cleared)
    #expect(app.life.stage == .resting && app.life.failure == "no image" && app.effects.contains(.keepRest))

    var stopped = Driven(.always)
    stopped.send(.debug(true))
    run(&stopped, 1)
    #expect(stopped.life.isRunning && !stopped.life.shouldStop)
    stopped.send(.exited(failed), .cleared)
    #expect(stopped.life.stage == .resting && stopped.life.want == .stopped)
  }

  @Test("a crash loop is held while somebody debugs it, and goes on afterwards")
  func crashing() {
    var app = Driven(.always)
    app.send(.want(.running))
    run(&app, 1)
    app.send(.exited(failed), .cleared)
    guard case .backoff = app.life.stage else { Issue.record("\(app.life.stage)"); return }
    app.send(.debug(true))
    #expect(app.isWaiting && app.effects.contains(.cancelTimers))
    run(&app, 2)
    app.send(.exited(failed), .cleared)
    #expect(app.isWaiting && app.life.restarts == 1)
  }

  @Test("whoever goes away ends the command with a hang-up, at each step of its way")
  func left() {
    var app = Driven(.always)
    app.send(.want(.running), .debug(true), .debug(false))
    #expect(app.life.debug == nil && app.isWaiting)
    app.send(.debug(true), .admitted, .debug(false))
    #expect(app.effects == [.cancelPrepare])
    app.send(.stepFailed(HostFailure(.failed, "cancelled")))
    #expect(app.life.debug == nil && app.isWaiting)
    app.send(.debug(true), .admitted, .prepared, .debug(false), .created(instance(1)))
    #expect(app.effects == [.clear(instance(1))])
    app.send(.cleared)
    #expect(app.life.debug == nil && app.isWaiting)
    app.send(.debug(true))
    run(&app, 2)
    app.send(.debug(false))
    #expect(app.life.shouldStop)
    app.send(.releasedToStop)
    #expect(
      app.effects.contains(.signal(instance(2), 1, thaw: false))
        && app.effects.contains(.after(.seconds(1), .graceOver)))
  }

  @Test("a stop ends the command, and the app stays stopped; a new policy does not")
  func stopped() {
    var app = Driven(.always)
    app.send(.want(.running), .debug(true))
    run(&app, 1)
    app.send(.replace)
    #expect(!app.life.shouldStop)
    app.send(.want(.stopped))
    #expect(app.life.shouldStop)
    app.send(.releasedToStop, .exited(failed), .cleared)
    #expect(app.life.stage == .resting && app.life.want == .stopped && app.life.debug == nil)
  }

  @Test("a command that cannot be started is told, and the app comes back")
  func unstartable() {
    var app = Driven(.always)
    app.send(.want(.running), .debug(true), .admitted, .prepared, .created(instance(1)))
    let fault = HostFailure(.missing, "no sh")
    app.send(.stepFailed(fault), .cleared)
    #expect(app.effects.contains(.debugOver(.failed(fault))))
    #expect(app.life.debug == nil && app.isWaiting)
  }

  @Test("a command of pre_start that hangs is killed when its time is over, and the reason says so")
  func hangingStep() {
    var app = Driven(.no)
    app.policy.preStart = [.init(["/a"], timeout: .seconds(5))]
    app.send(.want(.running))
    run(&app, 1)
    #expect(app.effects == [.after(.seconds(5), .stepTimeOver)])
    app.send(.stepTimeOver)
    #expect(app.effects.contains(.kill(instance(1))))
    app.send(.exited(ExitReport(cause: .signal(9), startedAt: nil, endedAt: WallTime(nanoseconds: 9))), .cleared)
    #expect(app.life.failure == "pre_start 1 of 1, /a: not done within 5s, its timeout")
  }

  @Test("a run that is due while the last one goes on begins beside it, where the policy says so")
  func beside() throws {
    var app = Driven(.no)
    app.policy.schedule = Schedule(cron: try Cron(parsing: "@daily"), concurrency: .allow)
    app.send(.want(.running), .due)
    run(&app, 1)
    app.send(.due)
    #expect(app.effects == [.armSchedule, .runBeside] && app.life.isRunning)
  }
}
