import Model
import Supervision
import Testing

/// An update of one app, driven by events.
private struct Driven {
  var update: Update
  var effects: [UpdateEffect] = []

  init(_ order: UpdateRule.Order, _ action: UpdateRule.FailureAction = .rollback, after generation: UInt64 = 4) throws {
    var policy = Policy(id: try #require(AppID("web")), stack: "shop", runtime: .native, baseFolder: "/")
    policy.update.order = order
    policy.update.failureAction = action
    policy.update.monitor = .seconds(3)
    update = Update(policy, after: generation)
  }

  mutating func send(_ events: UpdateEvent...) {
    for event in events { effects = update.handle(event) }
  }
}

private let reason = "it ended: exit code 3"

@Suite("updates") struct UpdateTests {
  @Test("a new generation that stays up for as long as `monitor` says takes over, and only that one")
  func byTime() throws {
    var app = try Driven(.startFirst)
    app.send(.begun)
    #expect(app.effects == [.after(Update.patience, .tooLong)])
    app.send(.runs(5, byTime: true))
    #expect(app.effects == [.after(.seconds(3), .stayed(5))])
    app.send(.runs(5, byTime: true))
    #expect(app.effects.isEmpty, "looked at twice, waited for once")
    app.send(.stayed(4))
    #expect(app.effects.isEmpty && app.update.verdict == nil)
    app.send(.stayed(5))
    #expect(app.effects == [.takeOver])
    #expect(app.update.isAccepted)
  }

  @Test("one that is checked, or says when it is ready, is not let through by time")
  func byWord() throws {
    var app = try Driven(.startFirst)
    app.send(.begun, .runs(5, byTime: false))
    #expect(app.effects.isEmpty)
    app.send(.proven(5))
    #expect(app.effects == [.takeOver])
  }

  @Test("what the old generation does decides nothing", arguments: UpdateRule.Order.allCases)
  func old(_ order: UpdateRule.Order) throws {
    var app = try Driven(order)
    app.send(.begun)
    for event in [
      UpdateEvent.runs(4, byTime: true), .stayed(4), .proven(4), .completed(4), .failed(4, reason), .stayed(5),
    ] {
      app.send(event)
      #expect(app.effects.isEmpty && app.update.stage == .coming, "\(event)")
    }
  }

  @Test(
    "what follows a failure is as `order` and `failure_action` say",
    arguments: [
      (UpdateRule.Order.startFirst, UpdateRule.FailureAction.rollback, [UpdateEffect.withdraw(reason)], false),
      (.startFirst, .continue, [.goOn(reason), .takeOver], true),
      (.stopFirst, .rollback, [.restore(reason)], false), (.stopFirst, .pause, [.hold(reason)], false),
      (.stopFirst, .continue, [.goOn(reason), .settle], true),
    ])
  func failures(
    _ order: UpdateRule.Order, _ action: UpdateRule.FailureAction, _ effects: [UpdateEffect], _ isAccepted: Bool
  ) throws {
    for failure in [UpdateEvent.failed(5, reason), .failed(nil, reason)] {
      var app = try Driven(order, action)
      app.send(.begun, .runs(5, byTime: true), failure)
      #expect(app.effects == effects)
      #expect(app.update.isAccepted == isAccepted)
    }
    // It could not even be made.
    var app = try Driven(order, action)
    app.send(.begun, .failed(nil, reason))
    #expect(app.effects == effects)
  }

  @Test("one that never gets ready fails when its time is over, `start_period` on top")
  func tooLong() throws {
    var policy = Policy(id: try #require(AppID("web")), stack: "shop", runtime: .native, baseFolder: "/")
    policy.update.order = .startFirst
    policy.update.failureAction = .rollback
    policy.healthcheck.startPeriod = .seconds(60)
    var update = Update(policy, after: 1)
    #expect(update.handle(.begun) == [.after(.seconds(360), .tooLong)])
    #expect(update.handle(.tooLong) == [.withdraw("it did not get ready within 6m")])
  }

  @Test("a job that has done its work was a good one")
  func completed() throws {
    var app = try Driven(.stopFirst)
    app.send(.begun, .runs(5, byTime: true), .completed(5))
    #expect(app.effects == [.settle])
    #expect(app.update.verdict == .proven)
  }

  @Test("what somebody else wants ends an update: beside, the new one goes; else what is applied stays")
  func givenUp() throws {
    var beside = try Driven(.startFirst)
    beside.send(.begun, .runs(5, byTime: true), .givenUp("it was stopped"))
    #expect(beside.effects == [.withdraw("it was stopped")])
    #expect(!beside.update.isAccepted)
    var tracked = try Driven(.stopFirst)
    tracked.send(.begun, .givenUp("it was stopped"))
    #expect(tracked.effects == [.settle])
  }

  @Test("decided once, whatever comes after")
  func once() throws {
    let endings: [UpdateEvent] = [.stayed(5), .failed(5, reason), .completed(5), .tooLong, .givenUp("x")]
    let all: [UpdateEvent] = endings + [.begun, .runs(6, byTime: true), .proven(5), .proven(6), .failed(nil, reason)]
    for order in UpdateRule.Order.allCases {
      for action in UpdateRule.FailureAction.allCases {
        for ending in endings {
          var app = try Driven(order, action)
          app.send(.begun, .runs(5, byTime: true), ending)
          let decided = app.update
          #expect(decided.verdict != nil && app.effects.count >= 1)
          for event in all {
            app.send(event)
            #expect(app.effects.isEmpty && app.update == decided, "\(order) \(action): \(ending), \(event)")
          }
        }
      }
    }
  }
}
