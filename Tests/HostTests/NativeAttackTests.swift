import Glibc
import Linux
import Model
import Sandboxing
import Testing

/// What a hostile app, or a badly timed end of the daemon, must not achieve.
@Suite("a native app's attacks", .enabled(if: canRunNative, "needs root and writable cgroups"))
struct NativeAttackTests {
  /// A shim alone, without a host and without groups, in a folder of its own.
  final class LoneShim {
    let folder: String
    var plan: LaunchPlan

    init(_ script: String) throws {
      folder = "/tmp/appsupervisor-shim\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
      for name in ["run", "runs", "log", "data"] { _ = try Folder(making: "\(folder)/\(name)", mode: 0o755) }
      #expect(chown("\(folder)/data", 0x20_03E8, 0x20_03E8) == 0)
      plan = LaunchPlan(app: "lone", generation: 1, nonce: "ab")
      plan.places.sockets = "\(folder)/run"
      plan.places.runs = "\(folder)/runs"
      plan.places.log = "\(folder)/log"
      plan.identity.namespaces = [.mount, .pid, .ipc, .uts, .network, .user]
      plan.identity.uidMap = [.init(inside: 0, outside: 0x20_0000), .init(inside: 1000, outside: 0x20_03E8)]
      plan.identity.gidMap = plan.identity.uidMap
      plan.identity.uid = 1000
      plan.identity.gid = 1000
      plan.identity.hostName = "lone"
      plan.root = [
        .init("usr", .bind(source: "/usr", rules: [.readOnly, .noSetuid], folder: true, follow: true)),
        .init("data", .bind(source: "\(folder)/data", rules: [.noSetuid], folder: true, follow: false)),
      ]
      for name in ["bin", "lib", "lib64"] {
        if let target = try? Place.link("/\(name)") { plan.root.append(.init(name, .link(to: target))) }
      }
      plan.program.relative = String(try Place.resolve("/bin/sh").dropFirst("/usr/".count))
      plan.program.path = "/bin/sh"
      plan.program.arguments = ["sh", "-c", script]
    }

    deinit { system("rm -rf '\(folder)'") }

    /// Starts it, with `go` said already; `body` gets our end of the connection. Waits for it to leave.
    func run(_ body: (consuming Descriptor) throws -> Void) throws {
      var pair = try PacketPair()
      guard let ours = pair.parent.take(), let theirs = pair.child.take() else {
        throw SystemFault(call: "socketpair", subject: "", code: EBADF)
      }
      try tell(ours)
      let pid = try spawn(theirs)
      try body(ours)
      _ = try Children.wait(pid, block: true)
    }

    /// Starts it with `go` said and our end closed before it exists. Waits for it to leave.
    func runAlone() throws {
      var pair = try PacketPair()
      guard let theirs = pair.child.take() else { throw SystemFault(call: "socketpair", subject: "", code: EBADF) }
      guard let ours = pair.parent.take() else { throw SystemFault(call: "socketpair", subject: "", code: EBADF) }
      try tell(ours)
      _ = consume ours
      let pid = try spawn(theirs)
      _ = try Children.wait(pid, block: true)
    }

    /// What it will find waiting: its plan and `go`.
    private func tell(_ ours: borrowing Descriptor) throws(SystemFault) {
      let file = try SealedMemory.make("launch-plan", plan.bytes)
      try ours.withRaw { (raw) throws(SystemFault) in
        _ = try file.withRaw { (file) throws(SystemFault) in try UnixSocket.send(raw, [0], descriptors: [file]) }
        try PacketPair.send(raw, ShimRequest.go.bytes)
      }
    }

    /// Its end of the connection is closed here once the shim has it.
    private func spawn(_ theirs: consuming Descriptor) throws(SystemFault) -> Int32 {
      let null = try Place.null()
      return try null.withRaw { (null) throws(SystemFault) in
        try theirs.withRaw { (theirs) throws(SystemFault) in
          try Children.spawn(NativeRig.shim, ["supervisor-shim", "-"], descriptors: [null, null, null, theirs])
        }
      }
    }

    /// The outcome it tells.
    static func outcome(_ connection: consuming Descriptor) throws -> RunOutcome? {
      while true {
        let bytes = try connection.withRaw { (raw) throws(SystemFault) in
          try PacketPair.receive(raw, limit: ShimReply.maximumBytes).bytes
        }
        if bytes.isEmpty { return nil }
        if case .state(_, .ended(let outcome)) = try ShimReply(bytes: bytes) { return outcome }
      }
    }
  }

  @Test("a source that became a link on the way after it was looked at is not mounted") func swappedSource() throws {
    let shim = try LoneShim("cat /secret/file")
    #expect(system("cd \(shim.folder) && mkdir -p real/inner && echo secret > real/inner/file && ln -s real way") == 0)
    for (path, works) in [("real/inner", true), ("way/inner", false), ("way/inner/file", false)] {
      let item = LaunchPlan.RootItem(
        "secret",
        .bind(source: "\(shim.folder)/\(path)", rules: [.readOnly], folder: path != "way/inner/file", follow: false))
      if shim.plan.root.last?.path == "secret" { shim.plan.root.removeLast() }
      shim.plan.root.append(item)
      try shim.run { connection in
        let outcome = try LoneShim.outcome(connection)
        if works {
          #expect(outcome?.cause == .code(0))
        } else if case .neverStarted(let step, _, let code)? = outcome?.cause {
          #expect(step == "mount source" && code == ELOOP)
        } else {
          Issue.record("it was mounted: \(String(describing: outcome))")
        }
      }
    }
  }

  @Test("a shim whose daemon died before anybody could find it runs nothing, though `go` was said") func lostDaemon()
    throws
  {
    let shim = try LoneShim("echo ran > /data/ran")
    try shim.runAlone()
    #expect(!File.exists("\(shim.folder)/data/ran"))
    #expect(try Folder(opening: "\(shim.folder)/run").names() == [])
    #expect(try Folder(opening: "\(shim.folder)/runs").names() == [])
  }

  @Test("a working folder that is not there, or is what the shim has open, is said to be just that") func folders()
    async throws
  {
    try await HostContract.withStage(NativeRig()) { stage in
      for folder in ["/no/such", "/etc/passwd", "/proc/1/cwd"] + (3...20).map({ "/proc/self/fd/\($0)" }) {
        var policy = try stage.rig.policy("cwd", "echo ran")
        policy.workingDirectory = folder
        do {
          _ = try await stage.complete(policy)
          Issue.record("it ran in \(folder)")
        } catch let failure as HostFailure {
          #expect(failure.message.contains("working_dir"), "\(folder): \(failure)")
        }
      }
    }
  }

  @Test("single bytes of output do not fill the disk with records of them") func drip() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig else { return }
      var policy = try rig.policy("drip", "i=0; while [ $i -lt 400 ]; do printf x; sleep 0.002; i=$((i+1)); done")
      policy.logging.maximumSize = Bytes(4096)
      policy.logging.maximumFiles = 2
      _ = try await stage.complete(policy)
      let folder = try Folder(opening: "\(rig.layout.log)/drip")
      let size = try folder.names().reduce(0) { try $0 + folder.read($1).count }
      #expect(size <= 2 * (4096 + 64), "\(size)")
    }
  }
}
