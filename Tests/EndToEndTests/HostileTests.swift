import Foundation
import Model
import Testing

@Suite("what must not be had from a whole instance", .serialized)
struct HostileTests {
  @Test("numbers at the edge end no daemon, and only its user reads what apps are given") func edges() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("a", "id: a\nentry: [/bin/sleep, '1000']\nenvironment: {PASSWORD: correct-horse}\n")
    #expect(instance.up().code == 0)
    func pid() -> JSONValue? { instance.run("api", "version").out.data(using: .utf8).flatMap(Self.pid) }
    let before = pid()
    #expect(before != nil)
    for number in [Int64.max, Int64.min, -1, 0] {
      for call in [
        ("app.await", "{\"apps\": [\"a\"], \"timeout_ms\": \(number)}"),
        ("app.logs", "{\"apps\": [\"a\"], \"tail\": \(number), \"since_ns\": \(number), \"until_ns\": \(number)}"),
        ("event.subscribe", "{\"after\": \(number), \"limit\": \(number)}"),
      ] { #expect(instance.run("api", call.0, call.1).code == 0, "\(call)") }
    }
    #expect(pid() == before)
    let state = "\(instance.root)/state"
    for name in try FileManager.default.contentsOfDirectory(atPath: state) where name.hasPrefix("state.db") {
      let mode = try FileManager.default.attributesOfItem(atPath: "\(state)/\(name)")[.posixPermissions] as? Int
      #expect(mode == 0o600, "\(name)")
    }
    let log = try String(contentsOfFile: "\(instance.root)/log/daemon.log", encoding: .utf8)
    #expect(!log.contains("correct-horse"))
    #expect(!instance.run("events", "--format", "json").out.contains("correct-horse"))
  }

  private static func pid(_ answer: Data) -> JSONValue? {
    (try? JSONValue(parsing: Array(answer), limits: .engine))?["pid"]
  }

  @Test("an app cannot name or nest its files so that they outlive it") func removal() throws {
    let instance = try Instance()
    defer { instance.end() }
    let script =
      "cd /data && touch \"$$(printf '\\377\\376')\" && i=0; while [ $$i -lt 700 ]; do mkdir d && cd d; i=$$((i+1)); done; "
      + "echo made; exec sleep 1000"
    try instance.write("nest", "id: nest\nentry:\n  - /bin/sh\n  - -c\n  - |\n    \(script)\n")
    #expect(instance.up().code == 0)
    let made = Date().addingTimeInterval(30)
    while !instance.run("logs", "nest").out.contains("made"), Date() < made { usleep(50_000) }
    let down = instance.run("down", "--all", "--data", "-y")
    #expect(down.code == 0, "\(down.err)")
    #expect(!FileManager.default.fileExists(atPath: "\(instance.root)/state/apps/nest"))
  }

  @Test("who leaves files in a volume that stays keeps its ids: nobody else becomes their owner") func idsStay() throws
  {
    let instance = try Instance()
    defer { instance.end() }
    func policy(_ id: String, _ volume: String) -> String {
      "id: \(id)\nentry: [/bin/sh, -c, 'cat /proc/self/uid_map; exec sleep 1000']\n"
        + "volumes: [{type: volume, source: \(volume), target: /shared}]\n"
    }
    func ids(_ id: String) -> String {
      let until = Date().addingTimeInterval(30)
      while instance.run("logs", id).out.isEmpty, Date() < until { usleep(20_000) }
      return instance.run("logs", id).out
    }
    for (id, volume) in [("one", "common"), ("two", "common"), ("alone", "own")] {
      try instance.write(id, policy(id, volume))
    }
    #expect(instance.up().code == 0)
    let first = ids("one")
    let alone = ids("alone")
    #expect(!first.isEmpty && first != alone)
    #expect(instance.run("down", "one", "alone", "--data", "-y").code == 0)
    for id in ["one", "alone"] { try FileManager.default.removeItem(atPath: "\(instance.policies)/\(id).yaml") }
    for id in ["three", "four"] { try instance.write(id, policy(id, "common")) }
    #expect(instance.up().code == 0)
    let later = [ids("three"), ids("four")]
    #expect(!later.contains(first))
    // Nothing of this one is left, and its ids are given out again.
    #expect(later.contains(alone))
  }

  @Test("a root that another user could put something else in the place of is refused") func strangersRoot() throws {
    let instance = try Instance()
    defer { instance.end() }
    guard getuid() == 0 else { return }
    #expect(chown(instance.root, 4242, 4242) == 0)
    let refused = instance.run("daemon", within: 20)
    #expect(refused.code == 78 && refused.err.contains("belongs to another user"), "\(refused)")
    #expect(chown(instance.root, 0, 0) == 0 && chmod(instance.root, 0o777) == 0)
    #expect(instance.run("daemon", within: 20).code == 78)
    #expect(chmod(instance.root, 0o755) == 0)
  }
}
