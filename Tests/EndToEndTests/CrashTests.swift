import Foundation
import Model
import Testing

/// Which runtime a case is about.
enum Place: String, CaseIterable, CustomTestStringConvertible {
  case native, docker, podman
  var testDescription: String { rawValue }
  var rig: Rig? { Rig(rawValue: rawValue) }

  static var available: [Place] { allCases.filter { $0.rig.map { Rig.available.contains($0) } ?? true } }

  /// Runs `body` with an instance, and takes everything away.
  func with(_ body: (Instance) throws -> Void) throws {
    if let rig { return try rig.with(body) }
    let instance = try Instance()
    defer { instance.end() }
    try body(instance)
  }

  /// A policy whose process can be told from all others by its second argument.
  func policy(_ name: String, _ mark: Int, _ more: String = "") -> String {
    "id: \(name)\n\(rig == nil ? "" : "image: \(Rig.image)\n")entry: [/bin/sleep, '\(mark)']\nstop_grace_period: 200ms\n\(more)"
  }

  /// A policy that runs a script.
  func script(_ name: String, _ script: String, _ more: String = "") -> String {
    let native = script.split(separator: "\n").map { "    \($0)\n" }.joined().replacingOccurrences(of: "$", with: "$$")
    return rig == nil
      ? "id: \(name)\nentry:\n- /bin/sh\n- -c\n- |\n\(native)\(more)" : ContainerTests.app(name, script, more)
  }
}

/// Numbers that come again when their seed does.
struct Seeded: RandomNumberGenerator {
  var state: UInt64
  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var mixed = state
    mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
    mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
    return mixed ^ (mixed >> 31)
  }
}

/// `kill -9` at any moment. SUPERVISOR_TEST_SEED repeats a run.
@Suite("crashes", .serialized) struct CrashTests {
  /// Processes that run `/bin/sleep MARK`.
  private func sleepers(_ mark: Int) -> [Int32] {
    Process.all.filter { Process.command($0) == ["/bin/sleep", "\(mark)"] }
  }

  @Test(
    "kill -9 of the daemon at random moments of up, stop and restart: nothing runs twice, nothing is lost",
    arguments: Place.available)
  func random(_ place: Place) throws {
    let seed = Rig.variable("SUPERVISOR_TEST_SEED").flatMap { UInt64($0) } ?? .random(in: 0...UInt64.max)
    print("crashes: seed \(seed) for \(place)")
    var numbers = Seeded(state: seed)
    let marks = (0..<3).map { _ in Int.random(in: 1_000_000...99_000_000, using: &numbers) }
    try place.with { instance in
      for index in 0..<2 { try instance.write("stay\(index)", place.policy("stay\(index)", marks[index])) }
      let moving = try instance.write("moving", place.policy("moving", marks[2], "mem_limit: 64m\n"))
      #expect(instance.up().code == 0)
      let stays = (0..<2).map { instance.app("stay\($0)") }
      for round in 1...(place == .native ? 15 : 8) {
        let what = Comment(rawValue: "\(place), seed \(seed), round \(round)")
        let limit = 64 + round
        try instance.write("moving", place.policy("moving", marks[2], "mem_limit: \(limit)m\n"))
        let verbs = [
          ["up", "-d", "--wait", "--engine", instance.engine, moving], ["stop", "moving"], ["restart", "moving"],
          ["start", "moving"],
          ["up", "-d", "--wait", "--engine", instance.engine, "--force-recreate", moving], ["down", moving],
        ]
        let verb = try #require(verbs.randomElement(using: &numbers))
        let pid = try #require(instance.daemon, what)
        let started = try instance.begin(verb)
        usleep(UInt32.random(in: 0...(place == .native ? 120_000 : 900_000), using: &numbers))
        kill(pid, SIGKILL)
        let outcome = started.finish(within: 20)
        eventually("the daemon is gone") { !Process.isAlive(pid) }
        instance.startDaemon()
        for (index, before) in stays.enumerated() {
          let now = instance.app("stay\(index)")
          #expect(now?["pid"] == before?["pid"] && now?["generation"] == before?["generation"], what)
          #expect(now?["state"] == "running" && sleepers(marks[index]).count == 1, what)
        }
        settle(instance, place, marks[2], Comment(rawValue: "\(what): \(verb) → \(outcome.code) \(outcome.err)"))
      }
    }
  }

  /// `moving` becomes what it is wanted to be, once, under the limits that are applied.
  private func settle(_ instance: Instance, _ place: Place, _ mark: Int, _ what: Comment) {
    var row: JSONValue?
    let deadline = Date().addingTimeInterval(20)
    while Date() < deadline {
      row = instance.app("moving")
      guard let row else { break }
      if row["wanted"] == (row["state"] == "running" ? "running" : "stopped"),
        ["running", "exited", "completed", "created"].contains(row["state"]?.stringValue ?? "")
      {
        break
      }
      usleep(20000)
    }
    let runs = row?["state"] == "running"
    #expect(row.map { $0["wanted"] == (runs ? "running" : "stopped") } ?? true, "\(what): \(row?.text ?? "")")
    eventually("as many processes as wanted: \(what), \(row?.text ?? "gone")", seconds: 5) {
      sleepers(mark).count == (runs ? 1 : 0)
    }
    if runs {
      let applied = instance.run("config", "--applied", "moving").out
      let bytes = Int(instance.cgroup("moving", ["memory.limit_in_bytes", "memory.max"]) ?? "") ?? 0
      #expect(applied.contains("\(bytes >> 20)m"), "\(what): \(bytes) in force, but \(applied)")
    }
    guard let rig = place.rig, let id = instance.id else { return }
    #expect(rig.containers(of: id).count == (runs ? 3 : 2), what)
  }

  @Test("how apps ended while no daemon ran is told by the next one", arguments: Place.available)
  func meanwhile(_ place: Place) throws {
    try place.with { instance in
      let go = "\(instance.policies)/go"
      try FileManager.default.createDirectory(
        atPath: go, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
      let wait = "while [ ! -e /go/now ]; do sleep 0.05; done"
      let more = "volumes: [{type: bind, source: ./go, target: /go, read_only: true}]\n"
      try instance.write("seven", place.script("seven", "\(wait); exit 7", more))
      try instance.write("zero", place.script("zero", "\(wait); exit 0", more))
      try instance.write("again", place.script("again", "\(wait); exec sleep 1000", more + "restart: always\n"))
      try instance.write(
        "hog",
        place.script("hog", "\(wait); exec dd if=/dev/zero of=/dev/null bs=200M count=2", more + "mem_limit: 24m\n"))
      try instance.write("killed", place.script("killed", "exec sleep 1000", more))
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      let names = ["seven", "zero", "hog", "killed"]
      let pids = try names.map { try #require(instance.pid($0)) }
      let again = try #require(instance.pid("again"))
      instance.killDaemon()
      try "".write(toFile: "\(go)/now", atomically: true, encoding: .utf8)
      kill(pids[3], SIGKILL)
      kill(again, SIGKILL)
      eventually("all have ended") { !(pids + [again]).contains { Process.isAlive($0) } }
      instance.startDaemon()
      #expect(instance.wait("seven") { $0["state"] == "exited" }?["exit_code"] == 7)
      #expect(instance.wait("zero") { $0["state"] == "completed" }?["exit_code"] == 0)
      let hog = instance.wait("hog") { $0["state"] == "exited" }
      // podman on cgroup v1 keeps no record of it that anybody could read afterwards.
      if place == .podman, access("/sys/fs/cgroup/memory", F_OK) == 0 {
        #expect(hog?["exit_code"] == 137)
      } else {
        #expect(hog?["reason"] == "out of memory", "\(hog?.text ?? "")")
      }
      #expect(instance.wait("killed") { $0["state"] == "exited" }?["exit_code"] == 137)
      let restarted = instance.wait("again") { $0["state"] == "running" }
      #expect(restarted?["pid"]?.integerValue != Int64(again))
    }
  }

  @Test("kill -9 of a shim: no app goes on unwatched; it is told, cleared, and restarted by its rule")
  func shim() throws {
    try Place.native.with { instance in
      let marks = [Int.random(in: 1_000_000...99_000_000), Int.random(in: 1_000_000...99_000_000)]
      try instance.write("once", Place.native.policy("once", marks[0]))
      try instance.write(
        "always", Place.native.policy("always", marks[1], "restart: always\nrestart_policy: {delay: 10ms}\n"))
      #expect(instance.up().code == 0)
      for isWatched in [true, false] {
        #expect(instance.run("start", "once").code == 0)
        let before = instance.pid("always")
        let shims = instance.shims
        #expect(shims.count == 2)
        if !isWatched { instance.killDaemon() }
        for shim in shims { kill(shim, SIGKILL) }
        if !isWatched { instance.startDaemon() }
        let once = instance.wait("once") { $0["state"] == "exited" }
        #expect(once?["reason"]?.stringValue?.contains("shim was killed") == true, "\(once?.text ?? "")")
        #expect(sleepers(marks[0]).isEmpty)
        let always = instance.wait("always") {
          $0["state"] == "running" && $0["pid"]?.integerValue != before.map(Int64.init)
        }
        #expect(always != nil && sleepers(marks[1]).count == 1)
      }
    }
  }

  @Test("a CLI that is killed in the middle of `up` has changed all or nothing")
  func client() throws {
    try Place.native.with { instance in
      let names = (0..<6).map { "app\($0)" }
      for name in names { try instance.write(name, Place.native.policy(name, 1000)) }
      instance.startDaemon()
      for _ in 0..<8 {
        let started = try instance.begin(["up", "-d", "--wait", "--engine", "none", instance.policies])
        usleep(UInt32.random(in: 0...60_000))
        started.kill()
        _ = started.finish(within: 10)
        let known = instance.run("ps", "-aq").out.split(separator: "\n").count
        #expect(known == 0 || known == names.count, "\(known)")
        if known > 0 { for name in names { instance.wait(name) { $0["state"] == "running" } } }
        #expect(instance.run("down", instance.policies).code == 0)
      }
    }
  }

  @Test("a database that is cut short, overwritten, emptied or gone: 78 with clear text, and it is left as it is")
  func database() throws {
    try Place.native.with { instance in
      try instance.write("a", Place.native.policy("a", 1000))
      #expect(instance.up().code == 0)
      let pid = try #require(instance.pid("a"))
      #expect(instance.run("daemon", "--stop").code == 0)
      eventually("the daemon is gone") { instance.run("ps").code == 69 }
      let path = "\(instance.root)/state/state.db"
      let file = URL(fileURLWithPath: path)
      let whole = try Data(contentsOf: file)
      var noise = whole
      for index in stride(from: 4096, to: noise.count, by: 3) { noise[index] = UInt8.random(in: 0...255) }
      let damaged: [(String, Data)] = [
        ("cut", whole.prefix(whole.count / 2)), ("cut at 100", whole.prefix(100)), ("noise", noise),
        ("text", Data("not a database\n".utf8)), ("empty", Data()),
      ]
      for (name, bytes) in damaged {
        try bytes.write(to: file)
        let daemon = instance.run("daemon", "--engine", "none", within: 20)
        #expect(daemon.code == 78 && daemon.err.contains("damaged") && daemon.err.contains(path), "\(name): \(daemon)")
        #expect(try Data(contentsOf: file) == bytes, "\(name)")
        let up = instance.run("up", "-d", "--engine", "none", instance.policies)
        #expect(up.code == 78 && up.err.contains("damaged"), "\(name): \(up)")
        #expect(Process.isAlive(pid), "\(name)")
      }
      for name in ["state.db-wal", "state.db-shm"] {
        try? FileManager.default.removeItem(atPath: "\(instance.root)/state/\(name)")
      }
      try whole.write(to: file)
      instance.startDaemon()
      #expect(instance.pid("a") == pid)
    }
  }
}
