import Model
import Testing

@testable import Calls
@testable import RPC

@Suite("what subscribers are told") struct SubscriptionTests {
  private func subscription() throws -> Subscription {
    let id = try #require(AppID("a"))
    let instance = Instance(app: id, generation: 1, nonce: "n", handle: "h")
    return Subscription(
      3, Caller(instance, Policy(id: id, stack: "s", runtime: .native, baseFolder: "/"), cgroup: "/a"), ["app.started"])
  }

  private func event(_ number: Int) -> Event {
    Event(
      time: WallTime(nanoseconds: Int64(number)), app: AppID("b"), name: "app.started",
      fields: ["exit_code": .integer(Int64(number)), "app": "forged"])
  }

  @Test("one that is too slow is told how many it missed, and gets the newest")
  func slow() throws {
    let subscription = try subscription()
    for number in 0..<300 { subscription.add(event(number)) }
    let first = try #require(subscription.next())
    #expect(first["missed"] == 44 && first["time"] == 44 && first["app"] == "b" && first["subscription"] == 3)
    var last = first
    var count = 1
    while let next = subscription.next() {
      last = next
      count += 1
    }
    #expect(count == Subscription.most && last["time"] == 299)
    subscription.add(event(300))
    #expect(try #require(subscription.next())["time"] == 300)
  }

  @Test("what is revoked ends it, with nothing told after that")
  func revoked() throws {
    let subscription = try subscription()
    subscription.add(event(1))
    subscription.finish(.failure(RPCFailure(.revoked, "no more")))
    subscription.add(event(2))
    #expect(subscription.next()?["error"]?["code"] == -32008)
    #expect(subscription.next() == nil && subscription.end != nil)
  }
}
