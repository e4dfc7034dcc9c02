import Foundation
import Model
import Testing

@Suite("Apps ask people", .serialized) struct PromptTests {
  /// What waits for an answer.
  private func waiting(_ instance: Instance) -> [JSONValue] {
    instance.run("perm", "watch", "--now", "--format", "json").lines
  }

  /// The question that waits, once there is one.
  private func question(_ instance: Instance, _ capability: String) -> JSONValue {
    var found: JSONValue?
    eventually("\(capability) is asked for") {
      found = waiting(instance).first { $0["capability"]?.stringValue == capability }
      return found != nil
    }
    return found ?? .null
  }

  private func answer(_ instance: Instance, _ capability: String, _ word: String) {
    let id = question(instance, capability)["request"]?.stringValue ?? ""
    let done = instance.run("perm", "answer", id, word)
    #expect(done.code == 0, "\(done.err)")
  }

  private func ask(_ app: DrivenApp, _ capability: String, _ reason: String = "", way: String = "") throws -> Int {
    try app.begin("perm.request", "{\"capability\":\"\(capability)\",\"reason\":\"\(reason)\"}", way: way)
  }

  @Test("an app asks, and gets it once, for a run, for good, or never", arguments: StreamPlace.available)
  func answers(place: StreamPlace) throws {
    try place.withInstance { instance in
      let app = try DrivenApp(place, instance, "asker")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      app.awake()
      let subscribe = #"{"names":["app.*"]}"#
      // Held already: nobody is asked.
      #expect(app.answer(try ask(app, "time"))["result"]?["granted"] == true)
      // Once: the next use, and no other.
      var number = try ask(app, "events", #"to show\nthe \u001b[31mhost\u202e"#)
      let asked = question(instance, "events")
      #expect(asked["app"] == "asker" && asked["reason"] == "to show the [31mhost", "\(asked.text)")
      #expect(instance.run("perm", "answer", asked["request"]?.stringValue ?? "", "perhaps").code == 2)
      answer(instance, "events", "once")
      #expect(app.answer(number)["result"]?["by"] == "once", "\(app.answer(number).text)")
      let listens = try app.begin("listen", subscribe)
      #expect(app.answer(listens)["result"] != nil)
      #expect(try app.call("event.subscribe", subscribe)["error"] == -32001)
      // What it subscribed to with its one use goes on.
      #expect(instance.run("perm", "grant", "asker", "app.stop:none").code == 0)
      #expect(instance.run("pause", "asker").code == 0 && instance.run("unpause", "asker").code == 0)
      eventually("it hears what happens") { app.heard(listens).contains { $0["event"] == "app.unpaused" } }
      #expect(app.answer(listens)["error"] == nil)
      // For this run: over a restart of the daemon, not into the next run.
      number = try ask(app, "events")
      answer(instance, "events", "session")
      #expect(app.answer(number)["result"]?["granted"] == true)
      for _ in 0..<2 { #expect(try app.call("event.subscribe", subscribe)["result"] != nil) }
      instance.killDaemon()
      instance.startDaemon()
      app.awake()
      #expect(try app.call("event.subscribe", subscribe)["result"] != nil)
      // For good, and never; each is a decision as `perm grant` and `perm revoke` make it.
      number = try ask(app, "app.inspect:one")
      answer(instance, "app.inspect:one", "always")
      #expect(app.answer(number)["result"]?["by"] == "always")
      number = try ask(app, "app.inspect:two")
      answer(instance, "app.inspect:two", "never")
      #expect(app.answer(number)["result"]?["granted"] == false)
      let events = instance.run("events", "asker", "--format", "json").lines.filter {
        $0["event"]?.stringValue?.hasPrefix("permission.") == true
      }
      #expect(
        events.map { "\($0["event"]?.stringValue ?? "") \($0["by"]?.stringValue ?? "")" } == [
          "permission.granted once", "permission.granted operator", "permission.granted session",
          "permission.granted always",
          "permission.denied never",
        ], "\(events.map(\.text))")
      #expect(instance.run("restart", "asker").code == 0)
      instance.killDaemon()
      instance.startDaemon()
      app.awake()
      #expect(try app.call("event.subscribe", subscribe)["error"] == -32001)
      #expect(app.answer(try ask(app, "app.inspect:one"))["result"]?["granted"] == true)
      #expect(app.answer(try ask(app, "app.inspect:two"))["result"]?["granted"] == false)
      // Decided beside it: the question is answered.
      number = try ask(app, "app.inspect:three")
      _ = question(instance, "app.inspect:three")
      #expect(instance.run("perm", "grant", "asker", "app.inspect:three").code == 0)
      #expect(app.answer(number)["result"]?["by"] == "decided")
      #expect(waiting(instance).isEmpty)
    }
  }

  @Test("nobody's answer is a no after 30 s, a question goes with who asked, and a flood reaches nobody")
  func bounds() throws {
    try StreamPlace.native.withInstance { instance in
      let app = try DrivenApp(.native, instance, "asker")
      let quiet = try DrivenApp(.native, instance, "quiet")
      #expect(instance.up().code == 0)
      app.awake()
      quiet.awake()
      let watch = try instance.begin(["perm", "watch", "--format", "json"])
      let began = Date()
      let unanswered = try ask(quiet, "app.inspect:a", "please")
      let gone = try ask(app, "events", way: "leaves")
      _ = question(instance, "events")
      try app.begin("close", way: "leaves")
      eventually("its question went with it") { waiting(instance).allSatisfy { $0["app"] != "asker" } }
      #expect(app.answer(gone)["error"] == -32009)
      // The same twice is one question; of more than four at once, and ten a minute, nobody hears.
      let numbers = try (0..<20).map { try ask(app, "app.inspect:x\($0 % 10)") }
      eventually("all are refused but those that wait") { numbers.count { app.isAnswered($0) } == 12 }
      let codes = numbers.filter { app.isAnswered($0) }.compactMap { app.answer($0)["error"]?.integerValue }
      #expect(codes.count == 12 && codes.allSatisfy { $0 == -32003 || $0 == -32005 }, "\(codes)")
      #expect(waiting(instance).count { $0["app"] == "asker" } == 4)
      // Malformed, and of what is not there yet.
      #expect(try app.call("perm.request", #"{"capability":"fs.reed"}"#)["error"] == -32602)
      #expect(try app.call("perm.request", #"{"capability":"clipboard"}"#)["error"] == -32010)
      #expect(instance.run("perm", "answer", "nothing", "always").code == 4)
      let answer = quiet.answer(unanswered, seconds: 40)
      #expect(answer["result"]?["granted"] == false && answer["result"]?["by"] == "timeout", "\(answer.text)")
      #expect((29...36).contains(Date().timeIntervalSince(began)))
      watch.interrupt()
      let seen = watch.finish(within: 10).lines
      #expect(seen.contains { $0["app"] == "quiet" && $0["reason"] == "please" })
      #expect(seen.contains { $0["app"] == "quiet" && $0["over"] == "timeout" })
      #expect(seen.contains { $0["app"] == "asker" && $0["over"] == "withdrawn" })
      #expect(seen.count { $0["app"] == "asker" && $0["over"] == nil } == 5)
      // One that asks in a loop is stopped by the minute, whatever becomes of its questions.
      eventually("the flood is over", seconds: 40) { waiting(instance).isEmpty }
      var isRefused = false
      for number in 0..<12 where !isRefused {
        let capability = "app.inspect:y\(number)"
        let asked = try ask(app, capability, way: capability)
        eventually("it is asked, or refused") {
          waiting(instance).contains { $0["capability"]?.stringValue == capability } || app.isAnswered(asked)
        }
        isRefused = app.isAnswered(asked) && app.answer(asked)["error"] == -32005
        try app.begin("close", way: capability)
      }
      #expect(isRefused)
    }
  }
}
