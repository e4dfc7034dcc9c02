import Foundation
import Model
import Testing

@Suite("Apps are told what happens", .serialized) struct EventCallTests {
  @Test(
    "an app hears of itself and of what it may inspect, and nothing once that is revoked",
    arguments: StreamPlace.available)
  func events(place: StreamPlace) throws {
    try place.withInstance { instance in
      let app = try DrivenApp(place, instance, "hears", "permissions: [events, \"app.inspect:seen\"]\n")
      try instance.write("seen", "id: seen\nentry: [/bin/sleep, infinity]\nstop_grace_period: 0s\n")
      try instance.write("unseen", "id: unseen\nentry: [/bin/sleep, infinity]\nstop_grace_period: 0s\n")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      app.awake()
      let all = try app.begin("listen", #"{"names":["app.*","permission.granted"]}"#)
      #expect(app.answer(all)["result"] != nil, "\(app.answer(all).text)")
      let ends = try app.begin("listen", #"{"names":["app.exited"]}"#, way: "other")
      #expect(app.answer(ends)["result"] != nil)
      #expect(try app.call("event.subscribe", #"{"names":["app.exploded"]}"#)["error"] == -32602)
      #expect(try app.call("event.unsubscribe", #"{"subscription":999}"#)["error"] == -32002)
      #expect(instance.run("restart", "unseen").code == 0)
      #expect(instance.run("restart", "seen").code == 0)
      #expect(instance.run("perm", "grant", "hears", "app.stop:none").code == 0)
      func heard(_ number: Int) -> [String] {
        app.heard(number).map { "\($0["app"]?.stringValue ?? "") \($0["event"]?.stringValue ?? "")" }
      }
      eventually("it hears of what it may inspect, and of itself") {
        heard(all).contains("seen app.exited") && heard(all).contains("seen app.started")
          && heard(all).contains("hears permission.granted")
      }
      eventually("it hears what it named alone") { heard(ends) == ["seen app.exited"] }
      #expect(!heard(all).contains { $0.hasPrefix("unseen") })
      #expect(app.heard(all).first { $0["event"] == "app.exited" }?["exit_code"]?.integerValue != nil)
      #expect(app.heard(all).first { $0["event"] == "permission.granted" }?["capability"] == "app.stop:none")
      // Its right is gone, and the streams with it, at once.
      #expect(instance.run("perm", "revoke", "hears", "events").code == 0)
      eventually("both streams are over", seconds: 5) {
        app.answer(all)["error"] == -32008 && app.answer(ends)["error"] == -32008
      }
      let before = heard(all).count
      #expect(instance.run("restart", "seen").code == 0)
      #expect(try app.call("event.subscribe", #"{"names":["app.*"]}"#)["error"] == -32001)
      #expect(heard(all).count == before)
    }
  }
}
