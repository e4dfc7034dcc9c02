import Foundation
import Model
import Testing

/// Secrets as apps get them, and where else they are looked for.
@Suite(.serialized, .enabled(if: getuid() == 0, "memory is mounted by root")) struct SecretTests {
  /// No policy, script or file name holds it.
  private static func word() -> String {
    "word-" + (0..<4).map { _ in String(UInt64.random(in: .min ... .max), radix: 36) }.joined()
  }

  /// What an app tries with its secret; says `done` at the end.
  private static let attack =
    "md5sum </run/secrets/db; stat -c '%a %u' /run/secrets/db; echo x >/run/secrets/new; echo x >/run/secrets/db; "
    + "rm -f /run/secrets/db; chmod 777 /run/secrets/db; mount -o remount,rw /run/secrets; umount /run/secrets; "
    + "grep ' /run/secrets ' /proc/self/mountinfo; md5sum </run/secrets/db; echo done; exec sleep 1000"

  private static func store(_ instance: Instance, _ word: String) throws -> String {
    let folder = "\(instance.root)-secrets"
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
    let path = "\(folder)/db"
    try "\(word)\n".write(toFile: path, atomically: true, encoding: .utf8)
    chmod(path, 0o600)
    return path
  }

  /// Files below `folder` that hold `word`.
  private static func traces(of word: String, in folder: String) -> String {
    sync()
    return Shell.run(["grep", "-rlaF", "--devices=skip", word, folder]).out
  }

  private static func digest(_ file: String) -> String {
    Shell.run(["sh", "-c", "md5sum <\(file)"]).out.split(separator: "\n").first.map(String.init) ?? "none"
  }

  private static func visible(_ instance: Instance) -> String {
    Shell.run(["grep", "\(instance.root)/run/secrets", "/proc/self/mountinfo"]).out
  }

  private static func check(_ instance: Instance, _ app: String, traces folders: [String]) throws {
    let word = word()
    let file = try store(instance, word)
    defer { try? FileManager.default.removeItem(atPath: "\(instance.root)-secrets") }
    let policy = "\(app)secrets: [{source: db, file: \(file)}]\n"
    try instance.write("keeper", "id: keeper\n\(policy)")
    try instance.write("other", "id: other\n\(app.replacingOccurrences(of: word, with: ""))")
    let up = instance.up()
    #expect(up.code == 0, "\(up.err)")
    eventually("it has tried") { instance.run("logs", "keeper").out.contains("done") }
    let said = instance.run("logs", "keeper").out.split(separator: "\n").map(String.init)
    #expect(said.count { $0 == digest(file) } == 2, "\(said)")
    #expect(said.contains { $0.hasPrefix("400 ") }, "\(said)")
    #expect(said.contains { $0.contains(" /run/secrets ro") && $0.contains("- tmpfs") }, "\(said)")
    #expect(visible(instance).isEmpty)
    #expect(!instance.run("logs", "other").out.contains(digest(file)))
    for arguments in [
      ["inspect", "keeper"], ["status", "keeper"], ["policy", "show", instance.policies], ["events"],
      ["config", "--applied", "keeper"], ["explain", "keeper"], ["plan", instance.policies],
      ["status", "keeper", "--format", "json"],
    ] {
      let answer = instance.run(arguments)
      #expect(!(answer.out + answer.err).contains(word), "\(arguments)")
    }
    for folder in [instance.root] + folders { #expect(traces(of: word, in: folder).isEmpty, "\(folder)") }

    // Another content is a change of its name, and `up` brings it.
    let next = Self.word()
    #expect(instance.run("plan", instance.policies).out.contains("2 unchanged"))
    let given = digest(try store(instance, next))
    let plan = instance.run("plan", instance.policies).out
    #expect(plan.contains("secrets.db") && !plan.contains(next) && !plan.contains(word), "\(plan)")
    #expect(instance.up().code == 0)
    eventually("it has the new one") { instance.run("logs", "keeper").out.contains(given) }

    // A daemon that is killed leaves nothing, and the next one takes over and starts again.
    instance.killDaemon()
    #expect(visible(instance).isEmpty)
    for folder in [instance.root] + folders { #expect(traces(of: next, in: folder).isEmpty, "\(folder)") }
    instance.startDaemon()
    #expect(instance.run("restart", "keeper").code == 0)
    #expect(instance.wait("keeper") { $0["state"] == "running" } != nil)
    #expect(instance.run("down", instance.policies).code == 0)
    #expect(visible(instance).isEmpty)
    #expect(!FileManager.default.fileExists(atPath: "\(instance.root)/state/secrets/keeper"))
  }

  @Test("a native app has its secret in read-only memory that nobody else sees, and nothing keeps it")
  func native() throws {
    let instance = try Instance()
    defer { instance.end() }
    try Self.check(instance, "entry: [/bin/sh, -c, \"\(Self.attack)\"]\n", traces: [])
  }

  @Test("a container has too", arguments: Rig.available)
  func container(_ rig: Rig) throws {
    try rig.with { instance in
      try Self.check(
        instance,
        "image: \(Rig.image)\nstop_grace_period: 1s\nlogging: {options: {max-size: 1m}}\nentry: [/bin/sh, -c, \"\(Self.attack)\"]\n",
        traces: Rig.folder.map { [$0] } ?? [])
    }
  }

  @Test("a native app's variable holds a secret; exec sees it; nothing that is stored or shown does")
  func variable() throws {
    let instance = try Instance()
    defer { instance.end() }
    let word = Self.word()
    let file = try Self.store(instance, word)
    defer { try? FileManager.default.removeItem(atPath: "\(instance.root)-secrets") }
    try instance.write(
      "a",
      "id: a\nentry: [/bin/sleep, '1000']\nenvironment: {PASSWORD: {secret: db}}\nsecrets: [{source: db, file: \(file)}]\n"
    )
    #expect(instance.up().code == 0)
    #expect(instance.shell("supervisor exec a sh -c 'echo $PASSWORD'").out == "\(word)\n")
    for arguments in [["inspect", "a"], ["policy", "show", instance.policies], ["config", "--applied", "a"]] {
      #expect(!instance.run(arguments).out.contains(word), "\(arguments)")
    }
    #expect(Self.traces(of: word, in: instance.root).isEmpty)
  }

  @Test("a container's variable is refused, and where it is allowed said to be open", arguments: Rig.available)
  func exposed(_ rig: Rig) throws {
    try rig.with { instance in
      let file = try Self.store(instance, Self.word())
      defer { try? FileManager.default.removeItem(atPath: "\(instance.root)-secrets") }
      let app =
        "id: a\n\(ContainerTests.sleep)environment: {PASSWORD: {secret: db}}\nsecrets: [{source: db, file: \(file)}]\n"
      try instance.write("a", app)
      let refused = instance.up()
      #expect(refused.code != 0 && refused.err.contains("PASSWORD"), "\(refused.err)")
      try instance.write("a", app + "enforcement: degrade\n")
      #expect(instance.up().code == 0)
      #expect(instance.run("status", "a").out.contains("secret variable PASSWORD"))
      #expect(instance.run("doctor").out.contains("runs degraded: secret variable PASSWORD"))
      #expect(instance.run("policy", "score", "a").out.contains("missing now"))
    }
  }

  @Test("a secret that is not one is refused before anything is made, with the way out")
  func refused() throws {
    let instance = try Instance()
    defer { instance.end() }
    let file = try Self.store(instance, "x")
    defer { try? FileManager.default.removeItem(atPath: "\(instance.root)-secrets") }
    chmod(file, 0o644)
    try instance.write("a", "id: a\nentry: [/bin/sleep, '1000']\nsecrets: [{source: db, file: \(file)}]\n")
    let up = instance.up()
    #expect(up.code != 0 && up.err.contains("everybody can reach"), "\(up.err)")
  }

  @Test("policy score says the direction, and fails above a threshold")
  func score() throws {
    let instance = try Instance()
    defer { instance.end() }
    let path = try instance.write("a", "id: a\nimage: i\nuser: image\nread_only: false\n")
    let answer = instance.run("policy", "score", path)
    #expect(answer.code == 0 && answer.out.contains("0 is tight, 10 is exposed"), "\(answer.out)")
    #expect(instance.run("policy", "score", "--threshold", "0.5", path).code == 1)
    #expect(instance.run("policy", "score", "--threshold", "5", path).code == 0)
    let json = instance.run("policy", "score", "--format", "json", "--threshold", "0.5", path)
    #expect(json.lines.first?["exceeds"] == true && json.lines.first?["layers"]?.arrayValue?.count ?? 0 > 10)
  }
}
