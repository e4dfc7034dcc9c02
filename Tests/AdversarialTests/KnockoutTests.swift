import FileSystems
import Foundation
import Linux
import Model
import Sandboxing
import Seccomp
import Testing

/// The real shim with the real plan of a default policy, and one layer taken out of the plan. That needs no switch in any program:
/// the plan is a value, and only the daemon makes one outside tests.
private struct Knockout {
  let folder: String
  let layer: Layer?

  init(_ layer: Layer?) throws {
    self.layer = layer
    let scratch = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/var/tmp"
    folder = "\(scratch)/appsup-knockout-\(UInt32.random(in: 0 ... .max))"
    for name in ["", "/run", "/state", "/log", "/runs", "/control"] {
      try FileManager.default.createDirectory(
        atPath: folder + name, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    }
    try "a secret of the host\n".write(toFile: "\(folder)/secret", atomically: true, encoding: .utf8)
    chmod("\(folder)/secret", 0o644)
    try FileManager.default.copyItem(atPath: try #require(Probe.path), toPath: "\(folder)/control/suid")
    chown("\(folder)/control/suid", 0, 0)
    chmod("\(folder)/control/suid", 0o4755)
  }

  private func plan(_ attacks: [String], _ surroundings: [String: String]) throws -> LaunchPlan {
    var policy = Policy(id: try #require(AppID("attacker")), stack: "test", runtime: .native, baseFolder: folder)
    policy.entry = [try #require(Probe.path)] + attacks
    policy.environment = surroundings.map { Policy.EnvironmentEntry(name: $0.key, value: $0.value) }
    policy.mounts = [Mount(target: "/control", kind: .bind(source: "\(folder)/control"), readOnly: false)]
    let layout = InstanceLayout(
      config: "\(folder)/config", state: "\(folder)/state", run: "\(folder)/run", log: "\(folder)/log",
      name: "knockout", id: "knockout")
    let launch = Launch(policy: policy, generation: 1, nonce: "ab", uidBase: 0x2F_0000, artifact: "")
    let table = try MountTable(policy, layout, uidBase: launch.uidBase)
    try table.prepareSources()
    var places = LaunchPlan.Places()
    (places.sockets, places.runs, places.log) = ("\(folder)/run", "\(folder)/runs", "\(folder)/log")
    var walls = LaunchPlan.Walls()
    if layer != .seccomp { walls.filter = try FilterProgram.compile(try #require(SeccompProfile(policy))) }
    walls.landlock = layer != .landlock
    walls.readsProcesses = !Privileges.keepsOutOfMemoryScore
    var plan = try LaunchPlan(launch, table, LaunchPlan.Membership(), places, walls)
    plan.ownFolders = ["\(folder)/state", "\(folder)/run", "/usr", "/dev"]
    if layer == .userns {
      plan.identity.namespaces.remove(.user)
      (plan.identity.uidMap, plan.identity.gidMap) = ([], [])
      plan.identity.uid += launch.uidBase
      plan.identity.gid += launch.uidBase
    }
    return plan
  }

  /// What the attacks came to, in one run of the probe.
  func run(_ attacks: [String]) throws -> [Answer] {
    let honeypots = try Honeypots()
    defer { honeypots.end() }
    let plan = try plan(
      attacks,
      [
        "PROBE_SECRETS": "\(folder)/secret", "PROBE_SOCKETS": "\(folder)/run/x.sock", "PROBE_SUID": "/control/suid",
        "PROBE_PIDS": "\(getpid())", "PROBE_PORT": "\(honeypots.port)",
        "PROBE_ADDRESSES": honeypots.addresses.joined(separator: ","), "PROBE_ABSTRACT": honeypots.name,
      ])
    var pair = try PacketPair()
    guard let parent = pair.parent.take(), let child = pair.child.take() else { return [] }
    let ours = SharedDescriptor(parent)
    let theirs = SharedDescriptor(child)
    let file = try SealedMemory.make("launch-plan", plan.bytes)
    try ours.withRaw { raw in
      _ = try file.withRaw { (file) throws(SystemFault) in try UnixSocket.send(raw, [0], descriptors: [file]) }
      try PacketPair.send(raw, ShimRequest.go.bytes)
    }
    let null = try Place.null()
    let pid = try null.withRaw { (null) throws(SystemFault) in
      try theirs.withRaw { (theirs) throws(SystemFault) in
        try Children.spawn(
          "\(Instance.programs)/supervisor-shim", ["supervisor-shim", "-"], descriptors: [null, null, null, theirs])
      }
    }
    // Said when the app has ended; the shim stays until it is known.
    var words = ""
    ending: while true {
      let bytes = try ours.withRaw { raw in try PacketPair.receive(raw, limit: ShimReply.maximumBytes).bytes }
      if bytes.isEmpty { break }
      if case .state(_, .ended(let outcome)) = try ShimReply(bytes: bytes) {
        words = "\(outcome.cause)"
        try ours.withRaw { raw in try PacketPair.send(raw, ShimRequest.acknowledge.bytes) }
        break ending
      }
    }
    _ = try Children.wait(pid, block: true)
    let names = try FileManager.default.contentsOfDirectory(atPath: "\(folder)/log").filter { $0.hasSuffix(".log") }
    let text = try names.sorted().map { try String(contentsOfFile: "\(folder)/log/\($0)", encoding: .utf8) }.joined()
    let answers = Answer.all(in: text)
    #expect(answers.map(\.attack) == attacks, "\(words) \(text.suffix(400))")
    #expect(honeypots.visits == 0)
    return answers
  }

  func end() { try? FileManager.default.removeItem(atPath: folder) }
}

extension Attacks {
  @Suite("with a layer taken away", .serialized, .enabled(if: geteuid() == 0, "needs root")) struct Knockouts {
    /// A23 asks every call with nonsense, which without a filter is no attack but an accident.
    private static let names = Escapes.names.filter { $0 != "A23" }

    @Test("with none taken away, all is as in an app of the daemon's")
    func whole() throws {
      let knockout = try Knockout(nil)
      defer { knockout.end() }
      for answer in try knockout.run(Self.names) {
        #expect(Table.shared.differences(answer, .native) == [], "\(answer.attack)")
      }
    }

    @Test("what depends on one layer alone gets further, and nothing else does", arguments: Layer.allCases)
    func without(_ layer: Layer) throws {
      let knockout = try Knockout(layer)
      defer { knockout.end() }
      let answers = try knockout.run(Self.names)
      for answer in answers {
        let differences = Table.shared.differences(answer, without: layer)
        #expect(differences.isEmpty, "\(answer.attack): \(differences.joined(separator: ", "))")
      }
      let further = Table.shared.rows.filter { $0.without[layer] != nil }
      #expect(!further.isEmpty, "no attack notices that the layer is gone: the suite could not fail for it")
    }
  }
}
