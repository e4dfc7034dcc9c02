import Foundation
import Model
import Testing

@Suite("Apps start and stop apps", .serialized) struct AppCallTests {
  @Test("an app starts and stops what it may, and what it started ends with it", arguments: StreamPlace.available)
  func launches(place: StreamPlace) throws {
    try place.withInstance { instance in
      let boss = try DrivenApp(
        place, instance, "boss", "permissions: [\"app.launch:w*\", \"app.stop:w*\", \"app.inspect:w*\"]\n")
      try instance.write("worker", place.app("worker", "sleep 1000", "stop_grace_period: 0s\n"))
      try instance.write("other", "id: other\nentry: [/bin/sleep, infinity]\nstop_grace_period: 0s\n")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      boss.awake()
      func state() throws -> String? { try boss.call("app.info", #"{"id":"worker"}"#)["result"]?["state"]?.stringValue }
      let worker = #"{"id":"worker"}"#
      #expect(try state() == "running")
      let list = try boss.call("app.list")["result"]?["apps"]?.arrayValue ?? []
      #expect(list.compactMap { $0["id"]?.stringValue } == ["boss", "worker"], "\(list.map(\.text))")
      #expect(try boss.call("app.info", #"{"id":"boss"}"#)["result"]?["ready"] == true)
      #expect(try boss.call("app.launch", worker)["error"] == -32006)
      for call in ["app.info", "app.launch", "app.stop"] {
        let denied = try boss.call(call, #"{"id":"other"}"#)
        #expect(denied["error"] == -32001 && denied["data"]?["capability"]?.stringValue?.hasSuffix(":other") == true)
        #expect(try boss.call(call, #"{"id":"wanted"}"#)["error"] == -32002)
        #expect(try boss.call(call, #"{"id":"../w"}"#)["error"] != nil)
      }
      #expect(try boss.call("app.launch", #"{"id":"worker","args":["-v"]}"#)["error"] == -32010)
      #expect(try boss.call("app.stop", worker)["result"] != nil)
      instance.wait("worker") { $0["state"] == "exited" }
      // Its child: over a restart of the daemon, and not over its own end.
      #expect(try boss.call("app.launch", worker)["result"] != nil)
      instance.wait("worker") { $0["state"] == "running" }
      instance.killDaemon()
      instance.startDaemon()
      boss.awake()
      #expect(try state() == "running")
      #expect(instance.run("restart", "boss").code == 0)
      instance.wait("worker") { $0["state"] == "exited" }
      boss.awake()
      // One that is detached stays.
      #expect(try boss.call("app.launch", #"{"id":"worker","detached":true}"#)["result"] != nil)
      instance.wait("worker") { $0["state"] == "running" }
      // Its own end is by the code that it says.
      try boss.begin("app.exit", #"{"code":7}"#)
      instance.wait("boss") { $0["state"] == "exited" && $0["exit_code"] == 7 }
      #expect(instance.app("worker")?["state"] == "running" && instance.app("other")?["state"] == "running")
    }
  }
}
