import Model
import Testing

@testable import Calls

@Suite("what an app may ask") struct RightSetTests {
  private func set(_ granted: [String], _ denied: [String] = []) throws -> RightSet {
    var set = RightSet()
    for text in granted { set.grant(try Permission(parsing: text), .policy) }
    for text in denied { set.deny(try Permission(parsing: text), .policy) }
    return set
  }

  private func isAllowed(_ set: RightSet, _ right: Right, _ object: String? = nil) -> Bool {
    if case .allowed = set.decide(right, object) { true } else { false }
  }

  @Test("what nobody granted is denied, and a denial wins over any grant")
  func defaults() throws {
    let set = try set(["log", "fs.read:/data/**"], ["fs.read:/data/keys/**", "time"])
    #expect(isAllowed(set, .log) && !isAllowed(set, .time) && !isAllowed(set, .systemInfo))
    #expect(isAllowed(set, .fileRead, "/data/a/b") && !isAllowed(set, .fileRead, "/data/keys/a"))
    // All of it is more than a part of it.
    #expect(!isAllowed(set, .fileRead) && !isAllowed(set, .fileWrite, "/data/a"))
    #expect(set.decide(.time) == .denied(set.denied.first { $0.permission.right == .time }))
    #expect(set.decide(.systemInfo) == .denied(nil))
  }

  @Test(
    "scopes match what they say and nothing beside it",
    arguments: [
      ("fs.read:/data/**", "/data", true), ("fs.read:/data/**", "/data/x", true),
      ("fs.read:/data/**", "/database", false),
      ("fs.read:/data/**", "/other/data/x", false), ("fs.read:/data/*", "/data/x", true),
      ("fs.read:/data/*", "/data/x/y", false), ("fs.read:/data/*.txt", "/data/a.txt", true),
      ("fs.read:/data/*.txt", "/data/a/b.txt", false), ("fs.read:/**/log", "/a/b/log", true),
      ("fs.read:/**/log", "/a/b/logs", false), ("fs.read:/a/**/b*/c", "/a/x/y/b1/c", true),
      ("fs.read:/a/**/b*/c", "/a/x/b1/y/c", false), ("fs.read:/d?ta", "/data", true), ("fs.read:/d?ta", "/d/ta", false),
      ("fs.read:/data", "/data/x", false), ("fs.read:/data", "/Data", false), ("fs.read", "/anything", true),
      ("ipc.send:queue/ord*", "queue/orders", true), ("ipc.send:queue/ord*", "queue/bills", false),
      ("app.launch:web-*", "web-1", true), ("app.launch:web-*", "db", false),
    ])
  func scopes(permission: String, object: String, expected: Bool) throws {
    let permission = try Permission(parsing: permission)
    var set = RightSet()
    set.grant(permission, .policy)
    #expect(isAllowed(set, permission.right, object) == expected, "\(permission) \(object)")
  }

  @Test("a pattern made to take long does not")
  func hostile() throws {
    let pattern = "fs.read:/" + String(repeating: "*a", count: 200) + "b"
    let set = try set([pattern])
    let clock = ContinuousClock()
    let time = clock.measure { _ = isAllowed(set, .fileRead, "/" + String(repeating: "a", count: 4000)) }
    #expect(!isAllowed(set, .fileRead, "/" + String(repeating: "a", count: 4000)))
    #expect(time < .seconds(1), "\(time)")
  }

  @Test(
    "what is no permission is refused with a reason",
    arguments: [
      "", "fs", "fs.reed:/data", "fs.read:data", "fs.read:/data/../etc", "fs.read:/data//x", "fs.read:", "log:x",
      "net.listen:0", "net.listen:65536", "ipc.send:orders", "fs.read:/a\nb", "deny:log", "app.launch:a/b",
    ])
  func malformed(text: String) {
    #expect(throws: Permission.Problem.self) { try Permission(parsing: text) }
  }

  @Test("older names stand for today's")
  func aliases() throws {
    #expect(try Permission(parsing: "FileRead:/data/**") == Permission(.fileRead, "/data/**"))
    #expect(try Permission(parsing: "SpawnProcess") == Permission(.spawn))
  }

  @Test("every call is there once, under each of its names")
  func table() {
    let names = CallTable.all.flatMap { [$0.name] + $0.aliases }
    #expect(Set(names).count == names.count)
    #expect(CallTable.named.count == names.count)
    for call in CallTable.all { #expect(call.right?.isBuilt ?? true, "\(call.name)") }
  }

  @Test("a whole folder takes a grant for all below it, and no denial that could mean something there")
  func below() throws {
    let plain = try set(["fs.delete:/data/**"])
    #expect(plain.holdsAll(.fileDelete, below: "/data") && plain.holdsAll(.fileDelete, below: "/data/x/y"))
    #expect(!plain.holdsAll(.fileDelete, below: "/") && !plain.holdsAll(.fileDelete, below: "/database"))
    #expect(try !set(["fs.delete:/data/*", "fs.delete:/data"]).holdsAll(.fileDelete, below: "/data"))
    #expect(try set(["fs.delete"]).holdsAll(.fileDelete, below: "/"))
    for denial in ["/data/keys", "/data/keys/**", "/data/**", "/data", "/**/keys"] {
      let denied = try set(["fs.delete:/data/**"], ["fs.delete:\(denial)"])
      #expect(!denied.holdsAll(.fileDelete, below: "/data"), "\(denial)")
    }
    #expect(try set(["fs.delete:/data/**"], ["fs.delete:/data/keys"]).holdsAll(.fileDelete, below: "/data/x"))
  }

  @Test("paths are compared by their bytes")
  func bytes() throws {
    let set = try set(["fs.read:/data/\u{E9}"])
    #expect(isAllowed(set, .fileRead, "/data/\u{E9}") && !isAllowed(set, .fileRead, "/data/e\u{301}"))
  }
}
