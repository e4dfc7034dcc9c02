import Foundation
import Model
import Testing

/// Others than root, by their uid: the daemon runs where /etc/group has the group `appsupervisor`.
@Suite("operators", .serialized, .enabled(if: getuid() == 0, "needs root")) struct OperatorTests {
  /// The host's own group where it has one (Tests/run makes it); else one that only the daemon sees.
  private static let realGid = getgrnam("appsupervisor").map { Int($0.pointee.gr_gid) }
  private static let gid = realGid ?? 54321
  private static let sleeper = "entry: [/bin/sleep, '1000']\n"

  /// The CLI as another user, in the operators' group or not.
  private func run(_ instance: Instance, as uid: Int, group: Bool = true, _ arguments: String...) -> Outcome {
    instance.run(
      arguments,
      prefix: [
        "setpriv", "--reuid", "\(uid)", "--regid", "\(uid)", group ? "--groups" : "--clear-groups",
      ] + (group ? ["\(Self.gid)"] : []))
  }

  private func with(_ operators: String, engine: String = "none", _ body: (Instance) throws -> Void) throws {
    let instance = try Instance(engine: engine)
    defer { instance.end() }
    try FileManager.default.createDirectory(atPath: "\(instance.root)/config", withIntermediateDirectories: true)
    try "operators:\n\(operators)audit: {max_size: 1m}\n".write(
      toFile: "\(instance.root)/config/config.yaml", atomically: true, encoding: .utf8)
    let group = "\(instance.root)/group"
    let known = try String(contentsOfFile: "/etc/group", encoding: .utf8)
      .split(separator: "\n").filter { !$0.hasPrefix("appsupervisor:") }.joined(separator: "\n")
    try "\(known)\nappsupervisor:x:\(Self.gid):\n".write(toFile: group, atomically: true, encoding: .utf8)
    try instance.write("web", "id: shop-web\nstack: shop\n\(Self.sleeper)")
    try instance.write("lab", "id: lab\nstack: lab\n\(Self.sleeper)")
    let up = instance.run(
      ["up", "-d", "--wait", "--progress", "quiet", "--engine", engine, instance.policies],
      prefix: Self.realGid != nil
        ? []
        : [
          "unshare", "-m", "--propagation", "slave", "sh", "-c",
          "mount --bind \(group) /etc/group && exec \"$0\" \"$@\"",
        ])
    #expect(up.code == 0, "\(up.err)")
    try body(instance)
  }

  private func names(_ outcome: Outcome) -> [String] { outcome.lines.compactMap { $0["name"]?.stringValue }.sorted() }

  @Test("a viewer looks at her stacks and nothing else; each refusal ends with 4 and says which role is missing")
  func viewer() throws {
    try with("  - {user: '1700', role: viewer, stacks: [shop]}\n") { instance in
      let list = run(instance, as: 1700, "ps", "-a", "--format", "json")
      #expect(list.code == 0 && names(list) == ["shop-web"], "\(list.out)\(list.err)")
      #expect(run(instance, as: 1700, "status", "shop-web").code == 0)
      let foreign = run(instance, as: 1700, "status", "lab")
      #expect(foreign.code == 4 && foreign.err.contains("no app is named"), "\(foreign.err)")
      for verb in [["stop"], ["restart"], ["logs"], ["down"]] {
        let refused = instance.run(
          verb + ["shop-web"],
          prefix: ["setpriv", "--reuid", "1700", "--regid", "1700", "--groups", "\(Self.gid)"])
        #expect(refused.code == 4, "\(verb) \(refused.err)")
        #expect(refused.err.contains("viewer") && refused.err.contains("config.yaml"), "\(verb) \(refused.err)")
      }
      #expect(run(instance, as: 1700, "daemon", "--stop").code == 4)
      #expect(instance.app("shop-web")?["state"] == "running")
    }
  }

  @Test(
    "an operator of every stack stops and starts, but loads and removes nothing; who is not in the group is not let in")
  func operatorRole() throws {
    try with("  - {group: '\(Self.gid)', role: operator}\n") { instance in
      #expect(run(instance, as: 1701, "restart", "lab").code == 0)
      #expect(run(instance, as: 1701, "stop", "@shop").code == 0)
      #expect(instance.wait("shop-web") { $0["state"] == "exited" } != nil)
      #expect(run(instance, as: 1701, "down", "lab").code == 4)
      let up = run(instance, as: 1701, "up", "-d", instance.policies)
      #expect(up.code == 4 && up.err.contains("owner"), "\(up.err)")
      let outsider = run(instance, as: 1701, group: false, "ps")
      #expect(outsider.code == 4, "\(outsider.err)")
    }
  }

  @Test("the audit has who, what and whether it was granted, and no look at a list")
  func audit() throws {
    try with("  - {user: '1702', role: operator, stacks: [shop]}\n") { instance in
      #expect(run(instance, as: 1702, "ps").code == 0)
      #expect(run(instance, as: 1702, "restart", "shop-web").code == 0)
      #expect(run(instance, as: 1702, "down", "shop-web").code == 4)
      let text = try String(contentsOfFile: "\(instance.root)/log/audit.log", encoding: .utf8)
      let records = try text.split(separator: "\n").map { try JSONValue(parsing: Array($0.utf8)) }
      let hers = records.filter { $0["uid"] == 1702 }
      #expect(
        hers.contains { $0["method"] == "app.restart" && $0["decision"] == "allowed" && $0["apps"] == ["shop-web"] })
      #expect(hers.contains { $0["method"] == "app.down" && $0["decision"] == "denied" })
      #expect(!records.contains { $0["method"] == "app.list" })
      #expect(records.contains { $0["uid"] == 0 && $0["method"] == "app.up" })
      let mode = try FileManager.default.attributesOfItem(atPath: "\(instance.root)/log/audit.log")[.posixPermissions]
      #expect(mode as? Int == 0o600)
    }
  }

  @Test("an owner's binds and programs are opened with her uid: what she cannot read, her app does not get")
  func owner() throws {
    try with("  - {user: '1703', role: owner, stacks: ['alice-*']}\n") { instance in
      let home = "\(instance.root)-home"
      defer { try? FileManager.default.removeItem(atPath: home) }
      for (folder, mode) in [("open", 0o755), ("hidden", 0o700)] {
        try FileManager.default.createDirectory(
          atPath: "\(home)/\(folder)", withIntermediateDirectories: true, attributes: [.posixPermissions: mode])
      }
      try "words".write(toFile: "\(home)/open/file", atomically: true, encoding: .utf8)
      func load(_ yaml: String) throws -> Outcome {
        try yaml.write(toFile: "\(home)/app.yaml", atomically: true, encoding: .utf8)
        return run(instance, as: 1703, "up", "-d", "--wait", "--progress", "quiet", "\(home)/app.yaml")
      }
      let base = "id: alice-app\nstack: alice-x\n"
      let good = try load(
        "\(base)entry: [/bin/sh, -c, 'cat /f/file; exec sleep 1000']\nvolumes: ['\(home)/open:/f:ro']\n")
      #expect(good.code == 0, "\(good.err)")
      #expect(run(instance, as: 1703, "logs", "alice-app").out.contains("words"))
      let hidden = try load("\(base)\(Self.sleeper)volumes: ['\(home)/hidden:/f:ro']\n")
      #expect(hidden.code != 0 && hidden.err.contains("1703"), "\(hidden.err)")
      // Root's own load of the same is root's to decide.
      #expect(instance.run("up", "-d", "--wait", "\(home)/app.yaml").code == 0)
      #expect(run(instance, as: 1703, "down", "alice-app").code == 0)

      for (yaml, what) in [
        ("id: alice-b\nstack: other\n\(Self.sleeper)", "stack"), ("id: lab\nstack: alice-x\n\(Self.sleeper)", "lab"),
        ("id: stranger\nstack: alice-x\n\(Self.sleeper)", "stranger"),
        ("\(base)\(Self.sleeper)volumes: ['lab-data:/d']\n", "lab-data"),
        ("\(base)\(Self.sleeper)enforcement: degrade\n", "admin"),
      ] {
        let refused = try load(yaml)
        #expect(refused.code == 4 && refused.err.contains(what), "\(yaml) \(refused.code) \(refused.err)")
      }
      #expect(instance.app("lab")?["stack"] == "lab")
    }
  }

  @Test(
    "an owner's container gets what she can read, from what was opened with her uid; nothing of it stays mounted on the host",
    .enabled(if: !Rig.available.isEmpty, "no SUPERVISOR_TEST_*_SOCK is set"),
    .enabled(if: realGid != nil, "this host has no group appsupervisor"), arguments: Rig.available)
  func containers(_ rig: Rig) throws {
    let socket = try #require(rig.socket)
    try with("  - {user: '1705', role: owner, stacks: ['alice-*']}\n", engine: socket) { instance in
      let home = "\(instance.root)-home"
      defer { try? FileManager.default.removeItem(atPath: home) }
      for (folder, mode) in [("open", 0o755), ("hidden", 0o700)] {
        try FileManager.default.createDirectory(
          atPath: "\(home)/\(folder)", withIntermediateDirectories: true, attributes: [.posixPermissions: mode])
      }
      try "words\n".write(toFile: "\(home)/open/file", atomically: true, encoding: .utf8)
      func load(_ yaml: String) throws -> Outcome {
        try "id: alice-c\nstack: alice-x\nimage: \(Rig.image)\n\(yaml)".write(
          toFile: "\(home)/app.yaml", atomically: true, encoding: .utf8)
        return run(instance, as: 1705, "up", "-d", "--wait", "--progress", "quiet", "\(home)/app.yaml")
      }
      let show = "entry: [sh, -c, 'cat /f/file /one; exec sleep 1000']\n"
      let good = try load("\(show)volumes: ['\(home)/open:/f:ro', '\(home)/open/file:/one:ro']\n")
      #expect(good.code == 0, "\(good.err)")
      #expect(
        eventually("the app has read both") {
          run(instance, as: 1705, "logs", "alice-c").out.split(separator: "\n").count { $0.hasSuffix("words") } == 2
        })
      let mounts = try String(contentsOfFile: "/proc/self/mountinfo", encoding: .utf8)
      #expect(!mounts.contains("\(instance.root)/run/binds"), "pins are gone once the container has its own mounts")
      let hidden = try load("entry: [sleep, '1000']\nvolumes: ['\(home)/hidden:/f:ro']\n")
      #expect(hidden.code != 0 && hidden.err.contains("1705"), "\(hidden.err)")
      // Groups are the host's: the folder is open to her, and what the group 42 may read in it is not.
      for yaml in [
        "cap_add: [CHOWN]\n", "group_add: [42]\nvolumes: ['\(home)/open:/f:ro']\n",
        "user: image\nvolumes: ['\(home)/open:/f:ro']\n",
      ] {
        let refused = try load(yaml)
        #expect(refused.code == 4 && refused.err.contains("admin"), "\(yaml) \(refused.err)")
      }
      // A folder she builds from is read with her rights, too.
      try "FROM \(Rig.image)\nCOPY secret /secret\n".write(
        toFile: "\(home)/open/Dockerfile", atomically: true, encoding: .utf8)
      try "hidden".write(toFile: "\(home)/open/secret", atomically: true, encoding: .utf8)
      try FileManager.default.setAttributes([.posixPermissions: 0o600], ofItemAtPath: "\(home)/open/secret")
      let build = run(instance, as: 1705, "build", "-t", "alice-x/tool:1", "\(home)/open")
      #expect(build.code != 0 && build.err.contains("secret"), "\(build.err)")
      try FileManager.default.setAttributes([.posixPermissions: 0o644], ofItemAtPath: "\(home)/open/secret")
      let built = run(instance, as: 1705, "build", "-t", "alice-x/tool:1", "\(home)/open")
      #expect(built.code == 0, "\(built.err)")
      let foreign = run(instance, as: 1705, "build", "-t", "\(Rig.image)", "\(home)/open")
      #expect(foreign.code == 4, "\(foreign.err)")
      #expect(run(instance, as: 1705, "load", "\(home)/open/file").code == 4, "an archive brings any name")
    }
  }

  @Test("every method refuses one without a role, whatever it is asked")
  func everyMethod() throws {
    try with("  - {user: '1704', role: viewer, stacks: [nothing]}\n") { instance in
      let table = instance.run("api", "--list", "--format", "json").lines
      #expect(table.count > 15)
      for method in table {
        let name = method["method"]?.stringValue ?? ""
        guard method["role"] != "viewer" else { continue }
        let takes = method["arguments"]?.arrayValue ?? []
        var arguments = "{}"
        if takes.contains("apps") { arguments = #"{"apps":["shop-web"]}"# }
        if takes.contains("app") { arguments = #"{"app":"shop-web"}"# }
        let answer = run(instance, as: 1704, "api", name, arguments)
        #expect(answer.code == 4, "\(name): \(answer.code) \(answer.err)")
      }
      #expect(instance.app("shop-web")?["state"] == "running")
    }
  }
}
