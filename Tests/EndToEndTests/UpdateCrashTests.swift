import Foundation
import Model
import Testing

/// `kill -9` of the daemon at any moment of an update. SUPERVISOR_TEST_SEED repeats a run.
@Suite("updates and crashes", .serialized) struct UpdateCrashTests {
  private func running(_ mark: Int) -> Int {
    Process.all.count { Process.command($0) == ["/bin/sleep", "\(mark)"] }
  }

  /// Kills the daemon while an update of `web` from `old` to a policy with `new` goes on; one generation is left, of the policy that
  /// is the applied one by then, and `plan` knows it.
  private func round(
    _ instance: Instance, _ place: Place, _ old: Int, _ new: Int, _ policy: String, fails: Bool, after pause: UInt32,
    staysUp: Bool, _ what: Comment
  ) throws {
    let pid = try #require(instance.daemon, what)
    let lookout = staysUp ? Lookout(old, new) : nil
    try instance.write("web", policy)
    let up = try instance.begin([
      "up", "-d", "--wait", "--progress", "quiet", "--engine", instance.engine, instance.policies,
    ])
    usleep(pause)
    kill(pid, SIGKILL)
    _ = up.finish(within: 30)
    eventually("the daemon is gone") { !Process.isAlive(pid) }
    instance.startDaemon()
    let row = instance.wait("web", seconds: 60) {
      $0["state"] == "running" && $0["status"]?.stringValue?.contains("updating") == false
    }
    let isNew = instance.run("config", "--applied", "web").out.contains("\(new)")
    #expect(!fails || !isNew, "\(what): one that fails is not kept: \(row?.text ?? "")")
    eventually("one generation, of the applied policy: \(what), \(isNew ? "new" : "old")") {
      running(isNew ? new : old) == 1 && running(isNew ? old : new) == 0
    }
    if let seen = lookout?.end() { #expect(seen.gaps == 0, "\(what): \(seen)") }
    let planned = instance.run("plan", "--format", "json", instance.policies).lines.first
    #expect((planned?["change"] == "none") == isNew, "\(what): \(planned?.text ?? "")")
    if let rig = place.rig, let id = instance.id {
      eventually("one container: \(what)") { rig.containers(of: id).count == 1 }
    }
    eventually("one group: \(what)") {
      Set(instance.cgroups.compactMap { $0.split(separator: "/").last }).filter { $0.hasPrefix("web") }.count == 1
    }
  }

  @Test(
    "before or after, never between: exactly one generation is left, and start-first never lets go",
    arguments: Place.available)
  func random(_ place: Place) throws {
    let seed = Rig.variable("SUPERVISOR_TEST_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
    print("updates: seed \(seed) for \(place)")
    var numbers = Seeded(state: seed)
    try place.with { instance in
      var marks = [Int.random(in: 1_000_000...9_000_000, using: &numbers)]
      for order in ["start-first", "stop-first"] {
        let rule =
          "update_config: {order: \(order), failure_action: rollback, monitor: 300ms}\nrestart: always\nrestart_policy: {delay: 50ms, jitter: 0, max_attempts: 1000}\n"
        try instance.write("web", place.policy("web", marks[marks.count - 1], rule))
        #expect(instance.up().code == 0)
        instance.knownID = instance.id
        for number in 0..<(place == .native ? 10 : 5) {
          let old = marks[marks.count - 1]
          let new = old + 1_000_000 + number
          let fails = Bool.random(using: &numbers)
          let most: UInt32 = place == .native ? 700_000 : 2_500_000
          let pause = UInt32.random(in: 0...most, using: &numbers)
          let what = Comment(
            rawValue: "\(place), seed \(seed), \(order), round \(number), \(fails ? "fails" : "works"), \(pause) µs")
          let policy =
            fails
            ? place.policy(
              "web", new,
              rule + "healthcheck: {test: [CMD, /bin/false], interval: 100ms, retries: 1, start_period: 100ms}\n")
            : place.policy("web", new, rule)
          try round(
            instance, place, old, new, policy, fails: fails, after: pause, staysUp: order == "start-first", what)
          let isNew = instance.run("config", "--applied", "web").out.contains("\(new)")
          if isNew {
            marks.append(new)
          } else {
            try instance.write("web", place.policy("web", old, rule))
            #expect(instance.up().code == 0, what)
          }
        }
      }
    }
  }
}
