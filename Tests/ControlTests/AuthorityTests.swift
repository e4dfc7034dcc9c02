import Foundation
import Linux
import Model
import Policies
import Testing

@testable import Control

@Suite("Who may do what") struct AuthorityTests {
  private let authority = Authority(
    ownUID: 7,
    grants: [
      .init(.group(50), .operator, stacks: ["*"]), .init(.user(1000), .owner, stacks: ["alice-*", "shop"]),
      .init(.user(1001), .admin, stacks: ["lab"]), .init(.user(1002), .viewer, stacks: ["shop"]),
      .init(.user(1003), .admin, stacks: ["*"]),
    ])

  private func access(_ uid: UInt32, gid: UInt32 = 900, groups: [UInt32] = []) -> Access {
    authority.access(of: PeerCredentials(pid: 1, uid: uid, gid: gid, groups: groups))
  }

  @Test("root and the daemon's own user are admins of everything; one who is not listed has nothing")
  func extremes() {
    for uid in [UInt32(0), 7] {
      #expect(access(uid).everywhere == .admin)
      #expect(access(uid).loader == nil)
    }
    let nobody = access(5)
    #expect(nobody.best == nil && nobody.everywhere == nil && nobody.role(in: "shop") == nil)
    #expect(!nobody.owns("shop"))
  }

  @Test("a group counts by the first gid and by the supplementary ones; the highest role wins, stack by stack")
  func groups() {
    #expect(access(5, gid: 50).everywhere == .operator)
    #expect(access(5, groups: [3, 50]).role(in: "any") == .operator)
    let both = access(1000, groups: [50])
    #expect(both.role(in: "shop") == .owner)
    #expect(both.role(in: "alice-blog") == .owner)
    #expect(both.role(in: "other") == .operator)
    #expect(both.everywhere == .operator)
  }

  @Test("a name belongs to an owner if it begins with one of her stacks' names, and to nobody by a mere prefix")
  func names() {
    let alice = access(1000)
    for name in ["alice-data", "shop", "shop-db", "shop_data", "alice-x:1"] { #expect(alice.owns(name), "\(name)") }
    for name in ["alice", "shopping", "db", "malice-data", ""] { #expect(!alice.owns(name), "\(name)") }
    #expect(!access(1002).owns("shop"), "a viewer owns nothing")
    #expect(access(1003).owns("anything"))
  }

  private func policy(_ yaml: String) throws -> Policy {
    let reading = read(PolicySource(path: "p", folder: "/srv", bytes: Array("stack: shop\nid: shop-a\n\(yaml)".utf8)))
    return try #require(reading.policy, "\(reading.rendered())")
  }

  @Test(
    "what gives an app more than its own is an admin's to ask for",
    arguments: [
      "image: i\ncap_add: [CHOWN]\n", "image: i\nsandbox: privileged\n",
      "image: i\nsandbox: privileged\nnetwork_mode: host\n", "image: i\nenforcement: degrade\n",
      "image: i\nsecurity_opt: [apparmor=mine]\n", "image: i\ngroup_add: [42]\n",
      "image: i\nuser: image\nvolumes: ['/home/a:/a:ro']\n",
      "image: i\nuser: 1000:1000\nvolumes: ['/home/a:/a']\n",
    ])
  func owned(_ yaml: String) throws {
    let policy = try policy(yaml)
    #expect(throws: (any Error).self) { try checkOwned(policy, access(1000)) }
    try checkOwned(policy, access(1003))
  }

  @Test("a container gets further groups of who loads it, and no others: they are the host's, and read its folders")
  func groupsOfContainers() throws {
    let shadow = try policy("image: i\ngroup_add: [42]\nvolumes: ['/srv/x:/e:ro']\n")
    #expect(throws: (any Error).self) { try checkOwned(shadow, access(1000, groups: [43])) }
    try checkOwned(shadow, access(1000, groups: [42]))
    try checkOwned(shadow, access(1000, gid: 42))
    // Natively they are numbers of the app's own.
    try checkOwned(policy("entry: [/bin/true]\ngroup_add: [42]\n"), access(1000))
  }

  @Test(
    "A68: a stack's pattern is a name, or a name's beginning with * after it, and nothing else stands for anything",
    arguments: [
      ("*", "any", true), ("*", "", true), ("a*", "a", true), ("a*", "ab", true), ("a*", "b", false),
      ("a-*", "a", false), ("**", "x", false), ("**", "*x", true), ("a*b", "axb", false), ("*b", "b", false),
      ("", "", true), ("", "x", false), ("/", "x", false), ("A", "a", false), ("a.", "a", false), ("a", "a.", false),
      ("caf\u{e9}", "cafe\u{301}", false), ("\u{430}", "a", false), ("a?", "ab", false), ("[a]", "a", false),
    ])
  func patterns(_ pattern: String, _ name: String, _ matches: Bool) {
    let authority = Authority(ownUID: 7, grants: [.init(.user(9), .viewer, stacks: [pattern])])
    let access = authority.access(of: PeerCredentials(pid: 1, uid: 9, gid: 9))
    #expect((access.role(in: name) != nil) == matches, "\(pattern) \(name)")
  }

  @Test("A68: patterns and names of any length are compared in no time")
  func longPatterns() {
    let long = String(repeating: "a", count: 1 << 20)
    let authority = Authority(ownUID: 7, grants: [.init(.user(9), .viewer, stacks: ["\(long)*", long])])
    let access = authority.access(of: PeerCredentials(pid: 1, uid: 9, gid: 9))
    var role: Role?
    let took = ContinuousClock().measure { role = access.role(in: String(long.dropLast())) }
    #expect(role == nil && took < .seconds(1), "\(took)")
  }

  @Test("ids, volumes, networks and images of another stack cannot be taken by their name")
  func foreign() throws {
    try checkNames(policy("image: i\nvolumes: ['shop-data:/d']\nnetworks: [shop_back]\n"), access(1000))
    try checkNames(policy("image: i\npermissions: ['app.stop:shop-*', events]\n"), access(1000))
    for yaml in [
      "image: i\nvolumes: ['data:/d']\n", "image: i\nnetworks: [back]\n",
      "image: other/web:1\nbuild: ./x\n",
      "image: i\nvolumes: [{type: volume, source: shop-x, target: /x, external: true}]\n",
      "image: i\npermissions: ['app.stop:db']\n", "image: i\npermissions: [app.inspect]\n",
      "image: i\npermissions: ['app.launch:*']\n", "image: i\npermissions: ['app.launch:shop*']\n",
    ] {
      let policy = try policy(yaml)
      #expect(throws: (any Error).self, "\(yaml)") { try checkNames(policy, access(1000)) }
      try checkNames(policy, access(1003))
    }
    var other = try policy("image: i\n")
    other.id = try #require(AppID("db"))
    #expect(throws: (any Error).self) { try checkNames(other, access(1000)) }
  }

  @Test("the table says a role for each method; those that concern everybody need it everywhere")
  func table() {
    let roles = Dictionary(uniqueKeysWithValues: ControlService.table.map { ($0.name, $0) })
    #expect(roles["app.list"]?.role == .viewer)
    #expect(roles["app.logs"]?.role == .operator)
    #expect(roles["app.config"]?.role == .operator, "environments stand in it")
    #expect(roles["app.up"]?.role == .owner)
    for name in ["daemon.stop", "image.prune", "image.load"] { #expect(roles[name]?.scope == .everything, "\(name)") }
    for method in ControlService.table where method.role == .viewer {
      #expect(!method.name.hasSuffix("up") && !["app.start", "app.stop", "app.kill"].contains(method.name))
    }
  }
}

@Suite("The audit") struct AuditTests {
  private func with(_ size: Bytes, _ body: (Audit, String) async throws -> Void) async throws {
    let folder = "/tmp/appsup-audit-\(UInt64.random(in: 0 ... .max))"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: folder) }
    try await body(try Audit(folder: folder, maximumSize: size) { _ in }, folder)
  }

  private func lines(_ path: String) throws -> [JSONValue] {
    try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").map {
      try JSONValue(parsing: Array($0.utf8))
    }
  }

  private let peer = PeerCredentials(pid: 4, uid: 1000, gid: 1000)

  @Test("a record says who, what, on which apps and whether it was granted")
  func record() async throws {
    try await with(.mebibytes(1)) { audit, folder in
      try await audit.record(peer, "app.stop", ["web", "@shop"], .allowed)
      try await audit.record(peer, "app.rm", ["x\u{1B}[2J"], .denied, "needs owner")
      let all = try lines("\(folder)/audit.log")
      #expect(all[0]["uid"] == 1000 && all[0]["decision"] == "allowed" && all[0]["apps"] == ["web", "@shop"])
      #expect(all[1]["reason"] == "needs owner" && all[1]["apps"] == ["x\u{1B}[2J"])
    }
  }

  @Test("two files of half its size are all it takes, whatever is asked; a flood of denials pushes out little")
  func bounded() async throws {
    try await with(.mebibytes(1)) { audit, folder in
      let long = Array(repeating: String(repeating: "a", count: 400), count: 50)
      for _ in 0..<400 { try await audit.record(peer, "app.stop", long, .allowed) }
      for name in ["audit.log", "audit.log.1"] {
        let size = try FileManager.default.attributesOfItem(atPath: "\(folder)/\(name)")[.size] as? Int ?? 0
        #expect(size > 0 && size <= 1 << 19, "\(name) \(size)")
        _ = try lines("\(folder)/\(name)")
      }
    }
    try await with(.mebibytes(1)) { audit, folder in
      for _ in 0..<1000 { try await audit.record(peer, "app.stop", [], .denied, "no") }
      let count = try lines("\(folder)/audit.log").count
      #expect(count >= 8 && count <= 40, "\(count)")
    }
  }
}
