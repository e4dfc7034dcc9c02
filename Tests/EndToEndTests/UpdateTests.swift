import Foundation
import Model
import Synchronization
import Testing

/// Looks without a pause which of some programs run, while something else goes on.
final class Lookout: Sendable {
  private struct Seen {
    var isOver = false
    var looks = 0
    var gaps = 0
    var most = 0
  }
  // Guards: what was seen.
  private let seen = Mutex(Seen())
  private let marks: [String]
  private let finished = DispatchSemaphore(value: 0)

  init(_ marks: Int...) {
    self.marks = marks.map { "\($0)" }
    Thread.detachNewThread { [self] in
      while !seen.withLock({ $0.isOver }) {
        let found = count
        seen.withLock {
          $0.looks += 1
          if found == 0 { $0.gaps += 1 }
          $0.most = max($0.most, found)
        }
        usleep(2000)
      }
      finished.signal()
    }
  }

  /// How many of the programs run.
  var count: Int {
    Process.all.count {
      let command = Process.command($0)
      return command.count == 2 && command[0] == "/bin/sleep" && marks.contains(command[1])
    }
  }

  /// How often it looked, how often nothing ran, and how many ran at most.
  func end() -> (looks: Int, gaps: Int, most: Int) {
    seen.withLock { $0.isOver = true }
    finished.wait()
    return seen.withLock { ($0.looks, $0.gaps, $0.most) }
  }
}

/// New policies and images on apps that run.
@Suite("updates", .serialized) struct UpdateTests {
  private static func marks() -> (Int, Int) {
    (.random(in: 1_000_000...49_000_000), .random(in: 50_000_000...99_000_000))
  }

  private func running(_ mark: Int) -> [Int32] {
    Process.all.filter { Process.command($0) == ["/bin/sleep", "\(mark)"] }
  }

  private func plan(_ instance: Instance, _ app: String = "web") -> JSONValue? {
    instance.run("plan", "--format", "json", instance.policies).lines.first { $0["name"]?.stringValue == app }
  }

  private func reason(_ instance: Instance, _ event: String) -> String? {
    instance.run("events", "--format", "json", "web").lines.last { $0["event"]?.stringValue == event }?["reason"]?
      .stringValue
  }

  private static let first = "update_config: {order: start-first, monitor: 700ms}\nrestart: always\n"

  @Test(
    "start-first: the new one proves itself beside the old one, and nothing is ever down", arguments: Place.available)
  func startFirst(_ place: Place) throws {
    let (old, new) = Self.marks()
    try place.with { instance in
      try instance.write("web", place.policy("web", old, Self.first + "mem_limit: 64m\n"))
      #expect(instance.up().code == 0)
      let before = try #require(instance.app("web"))
      try instance.write("web", place.policy("web", new, Self.first + "mem_limit: 48m\n"))
      #expect(plan(instance)?["order"] == "start-first")
      #expect(instance.run("plan", instance.policies).out.contains("(start-first)"))
      let lookout = Lookout(old, new)
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      #expect(running(new).count == 1)
      eventually("the old one is gone") { running(old).isEmpty }
      let seen = lookout.end()
      #expect(seen.looks > 20 && seen.gaps == 0 && seen.most == 2, "\(seen)")
      let after = try #require(instance.app("web"))
      #expect(after["state"] == "running" && after["pid"] != before["pid"] && after["restarts"] == 0)
      #expect(instance.events("web").contains("app.updated"))
      #expect(plan(instance)?["change"] == "none")
      #expect(instance.run("config", "--applied", "web").out.contains("\(new)"))
      // Its limits are its own: the group is named after its generation until it starts again.
      let generation = try #require(after["generation"]?.integerValue)
      let limit = { (name: String) in instance.cgroup(name, ["memory.limit_in_bytes", "memory.max"]) }
      #expect(limit("web+\(generation)") == "\(48 << 20)")
      eventually("the old one's group is gone") { limit("web") == nil }
      // Another daemon takes over the one that is left.
      instance.killDaemon()
      instance.startDaemon()
      #expect(instance.wait("web") { $0["state"] == "running" }?["pid"] == after["pid"])
      #expect(instance.run("restart", "web").code == 0)
      instance.wait("web") { $0["state"] == "running" && $0["pid"] != after["pid"] }
      #expect(limit("web") == "\(48 << 20)" && limit("web+\(generation)") == nil)
    }
  }

  @Test(
    "a new one that ends, is unhealthy or cannot be made is taken back: the old one was never touched",
    arguments: Place.available)
  func rolledBack(_ place: Place) throws {
    let (old, new) = Self.marks()
    try place.with { instance in
      let applied = place.policy("web", old, Self.first)
      try instance.write("web", applied)
      #expect(instance.up().code == 0)
      let before = try #require(instance.app("web"))
      let lookout = Lookout(old)
      let broken = [
        (place.script("web", "echo I fail; exit 3", Self.first), "exit code 3"),
        (
          place.policy(
            "web", new,
            Self.first + "healthcheck: {test: [CMD, /bin/false], interval: 100ms, retries: 2, start_period: 200ms}\n"),
          "unhealthy"
        ),
        (
          place.policy("web", new, Self.first).replacingOccurrences(of: "/bin/sleep", with: "/bin/not-there"),
          "not-there"
        ),
      ]
      for (policy, why) in broken {
        try instance.write("web", policy)
        let up = instance.up()
        #expect(up.code == 1 && up.err.contains("rolled back") && up.err.contains(why), "\(why): \(up.code) \(up.err)")
        #expect(reason(instance, "app.update_rolled_back")?.contains(why) == true)
        let after = try #require(instance.app("web"))
        #expect(after["pid"] == before["pid"] && after["generation"] == before["generation"] && after["restarts"] == 0)
        #expect(instance.run("config", "--applied", "web").out.contains("\(old)"))
        #expect(plan(instance)?["change"] != "none")
        eventually("nothing of the new one is left") { running(new).isEmpty }
      }
      let seen = lookout.end()
      #expect(seen.looks > 20 && seen.gaps == 0 && seen.most == 1, "\(seen)")
      // What it wrote stays to be read.
      eventually("its log is there") { instance.run("logs", "web").out.contains("I fail") }
      try instance.write("web", applied)
      #expect(instance.up().code == 0)
      #expect(instance.app("web")?["pid"] == before["pid"])
      if let rig = place.rig, let id = instance.id {
        eventually("one container") { rig.containers(of: id).count == 1 }
      }
    }
  }

  @Test(
    "stop-first: what was before comes back, or what failed stays so, as failure_action says",
    arguments: Place.available)
  func stopFirst(_ place: Place) throws {
    let (old, new) = Self.marks()
    try place.with { instance in
      let rule = { (action: String) in
        "update_config: {failure_action: \(action), monitor: 500ms}\nrestart: always\nrestart_policy: {delay: 100ms, jitter: 0}\n"
      }
      try instance.write("web", place.policy("web", old, rule("rollback")))
      #expect(instance.up().code == 0)
      try instance.write("web", place.script("web", "echo I fail; exit 3", rule("rollback")))
      let up = instance.up()
      #expect(up.code == 1 && up.err.contains("rolled back: it ended: exit code 3"), "\(up.err)")
      eventually("the old policy is in force again") { running(old).count == 1 }
      instance.wait("web") { $0["state"] == "running" }
      #expect(instance.run("config", "--applied", "web").out.contains("\(old)"))
      #expect(instance.events("web").contains("app.update_rolled_back"))
      // One that proves itself is kept.
      try instance.write("web", place.policy("web", new, rule("pause")))
      #expect(instance.up().code == 0)
      #expect(running(new).count == 1 && running(old).isEmpty)
      try instance.write("web", place.script("web", "sleep 0.2; exit 4", rule("pause")))
      let paused = instance.up()
      #expect(paused.code == 1 && paused.err.contains("stopped at its failure"), "\(paused.err)")
      let failed = instance.wait("web") { $0["state"] == "failed" }
      #expect(failed?["reason"]?.stringValue?.contains("exit code 4") == true)
      #expect(instance.events("web").contains("app.update_paused"))
      #expect(running(new).isEmpty && running(old).isEmpty)
      instance.killDaemon()
      instance.startDaemon()
      #expect(instance.wait("web") { $0["state"] == "failed" } != nil)
    }
  }

  @Test(
    "an image whose name means another one by now is planned and taken over like any change", arguments: Rig.available)
  func image(_ rig: Rig) throws {
    let (mark, _) = Self.marks()
    try rig.with { instance in
      let name = "appsup-test/moving-\(mark)"
      func tag(_ image: String) {
        guard let socket = rig.socket else { return }
        let encoded = image.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
        let full = "localhost/\(name)".addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
        _ = Shell.run([
          "curl", "-s", "--max-time", "20", "--unix-socket", socket, "-X", "POST",
          "http://engine/v1.41/images/\(encoded)/tag?repo=\(full)&tag=1",
        ])
      }
      defer {
        if let socket = rig.socket {
          _ = Shell.run([
            "curl", "-s", "--max-time", "20", "--unix-socket", socket, "-X", "DELETE",
            "http://engine/v1.41/images/localhost%2F\(name.replacingOccurrences(of: "/", with: "%2F")):1",
          ])
        }
      }
      tag(Rig.image)
      try instance.write(
        "web",
        "id: web\nimage: localhost/\(name):1\npull_policy: never\nentry: [/bin/sleep, '\(mark)']\nstop_grace_period: 200ms\n"
          + Self.first)
      #expect(instance.up().code == 0)
      let before = try #require(instance.app("web"))
      #expect(plan(instance)?["change"] == "none")
      tag("appsup-test/layers:1")
      let planned = plan(instance)
      #expect(planned?["change"] == "recreate" && planned?["order"] == "start-first", "\(planned?.text ?? "")")
      let fields = planned?["fields"]?.arrayValue ?? []
      #expect(fields.count == 1 && fields.first?["key"] == "image" && fields.first?["old"] != fields.first?["new"])
      // A restart alone keeps the image that was applied.
      #expect(instance.run("restart", "web").code == 0)
      instance.wait("web") { $0["state"] == "running" && $0["pid"] != before["pid"] }
      #expect(plan(instance)?["change"] == "recreate")
      let lookout = Lookout(mark)
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      let seen = lookout.end()
      #expect(seen.gaps == 0 && seen.most == 2, "\(seen)")
      #expect(plan(instance)?["change"] == "none")
    }
  }

  @Test("both generations count for memory while both run")
  func memory() throws {
    let (old, new) = Self.marks()
    let instance = try Instance()
    defer { instance.end() }
    let host = ProcessInfo.processInfo.physicalMemory >> 20
    let policy = { (mark: Int, limit: UInt64) in
      Place.native.policy("web", mark, Self.first + "mem_limit: \(limit)m\n")
    }
    try instance.write("web", policy(old, host * 6 / 10))
    #expect(instance.up().code == 0)
    let pid = instance.pid("web")
    try instance.write("web", policy(new, host * 5 / 10))
    let up = instance.up()
    #expect(up.code == 1 && up.err.contains("memory: needs"), "\(up.err)")
    #expect(instance.pid("web") == pid && running(new).isEmpty)
    try instance.write("web", policy(new, 64))
    #expect(instance.up().code == 0)
    #expect(instance.pid("web") != pid && running(old).isEmpty)
  }

  @Test("an update that somebody stops, takes down or replaces leaves nothing behind", arguments: Place.available)
  func givenUp(_ place: Place) throws {
    let (old, new) = Self.marks()
    let (third, _) = Self.marks()
    try place.with { instance in
      let rule = "update_config: {order: start-first, monitor: 1m}\n"
      try instance.write("web", place.policy("web", old, rule))
      #expect(instance.up().code == 0)
      let pid = instance.pid("web")
      func begin(_ mark: Int) throws {
        try instance.write("web", place.policy("web", mark, rule))
        #expect(instance.run("up", "-d", instance.policies).code == 0)
        eventually("the new one runs beside the old one") { running(mark).count == 1 && running(old).count == 1 }
      }
      try begin(new)
      #expect(instance.app("web")?["status"]?.stringValue?.contains("(updating)") == true)
      #expect(instance.run("set", "web", "pids_limit=33").err.contains("being updated"))
      // Another policy in its place.
      try begin(third)
      eventually("the second is gone") { running(new).isEmpty }
      #expect(instance.pid("web") == pid)
      // The old one again.
      try instance.write("web", place.policy("web", old, rule))
      #expect(instance.up().code == 0)
      eventually("the third is gone") { running(third).isEmpty }
      #expect(instance.pid("web") == pid)
      try begin(new)
      #expect(instance.run("stop", "web").code == 0)
      eventually("nothing runs") { running(old).isEmpty && running(new).isEmpty }
      #expect(instance.run("config", "--applied", "web").out.contains("\(old)"))
      #expect(instance.run("start", "web").code == 0)
      instance.wait("web") { $0["state"] == "running" }
      try begin(new)
      #expect(instance.run("down", "web").code == 0)
      #expect(running(old).isEmpty && running(new).isEmpty && instance.app("web") == nil)
      if let rig = place.rig, let id = instance.id { #expect(rig.containers(of: id).isEmpty) }
    }
  }
}
