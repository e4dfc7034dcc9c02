import FileSystems
import Glibc
import Linux
import Model
import Testing

@Suite("an app's mounts as one table")
struct MountTableTests {
  let layout = InstanceLayout(
    config: "/etc/appsupervisor", state: "/var/lib/appsupervisor", run: "/run/appsupervisor",
    log: "/var/log/appsupervisor", name: "default", id: "00112233445566778899aabbccddeeff")

  func policy(_ runtime: Runtime, _ mounts: [Mount] = []) throws -> Policy {
    var policy = Policy(id: try #require(AppID("notes")), stack: "s", runtime: runtime, baseFolder: "/p")
    policy.mounts = mounts
    return policy
  }

  func table(_ policy: Policy) throws -> MountTable { try MountTable(policy, layout, uidBase: 0x20_0000) }

  @Test("a container gets /tmp in memory and nothing else unasked; a native app its own /data and /cache too")
  func defaults() throws {
    #expect(try table(policy(.container)).entries.map(\.target) == ["/tmp"])
    let native = try table(policy(.native)).entries
    #expect(native.map(\.target) == ["/cache", "/data", "/tmp"])
    #expect(native[1].source == .path("/var/lib/appsupervisor/apps/notes/data"))
    #expect(native[1].ownerUID == UInt32(2_098_152))
    #expect(native[1].making == 0o700)
  }

  @Test("the policy's own /tmp and /data win; a minimal one's /tmp is smaller, a privileged one's is the host's")
  func overridden() throws {
    var policy = try policy(
      .native,
      [
        Mount(target: "/tmp", kind: .memory(size: .mebibytes(5), mode: 0o700)),
        Mount(target: "/data", kind: .volume(name: "v", external: false)),
      ])
    let entries = try table(policy).entries
    #expect(entries.first { $0.target == "/tmp" }?.source == .memory(size: .mebibytes(5), mode: 0o700))
    #expect(entries.first { $0.target == "/data" }?.source == .path("/var/lib/appsupervisor/volumes/v"))
    policy.mounts = []
    policy.preset = .minimal
    #expect(try table(policy).entries.last?.source == .memory(size: .mebibytes(16), mode: nil))
    policy.preset = .privileged
    #expect(try !table(policy).entries.contains { $0.target == "/tmp" })
  }

  @Test("parents come before children, whatever the order and the spelling beside them")
  func order() throws {
    let memory = Mount.Kind.memory(size: .mebibytes(1), mode: nil)
    let targets = ["/a-b", "/a/b/c", "/a", "/a/b", "/tmp"]
    let entries = try table(policy(.container, targets.map { Mount(target: $0, kind: memory) })).entries
    #expect(entries.map(\.target) == ["/a", "/a/b", "/a/b/c", "/a-b", "/tmp"])
  }

  @Test(
    "targets that would replace what the supervisor makes, or are not plain paths, are refused",
    arguments: [
      "/", "/proc", "/proc/sys", "/sys/fs", "/dev", "/dev/shm", "/run/supervisor", "/run/supervisor/x", "data",
      "/a/../b",
      "/a/", "//a", "/a/./b", "",
    ])
  func badTargets(target: String) throws {
    let policy = try policy(.container, [Mount(target: target, kind: .memory(size: .mebibytes(1), mode: nil))])
    #expect {
      try table(policy)
    } throws: { if case .badTarget(target, _)? = $0 as? MountProblem { true } else { false } }
  }

  @Test("two mounts on one target, and a mount inside a volume or a bind, are refused")
  func overlaps() throws {
    let volume = Mount(target: "/v", kind: .volume(name: "v", external: false))
    #expect(throws: MountProblem.duplicateTarget("/v")) { try table(policy(.container, [volume, volume])) }
    let below = Mount(target: "/v/x", kind: .memory(size: .mebibytes(1), mode: nil))
    #expect(throws: MountProblem.nested(target: "/v/x", inside: "/v")) {
      try table(policy(.container, [below, volume]))
    }
  }

  @Test(
    "sources that are, hold or lie in a control socket, our state or the kernel's folders are refused",
    arguments: [
      "/", "/var", "/var/lib", "/var/lib/appsupervisor", "/var/lib/appsupervisor/volumes/other", "/run",
      "/run/docker.sock",
      "/var/run/docker.sock", "/run/podman/podman.sock", "/run/appsupervisor/supervisor.sock", "/etc",
      "/etc/appsupervisor", "/proc/1", "/sys", "/dev/sda", "/srv/engine", "/srv/engine/engine.sock",
    ])
  func forbidden(source: String) throws {
    let policy = try policy(.container, [Mount(target: "/x", kind: .bind(source: source), readOnly: true)])
    #expect {
      try MountTable(policy, layout, uidBase: 0, engineSockets: ["/srv/engine/engine.sock"])
    } throws: { if case .forbiddenSource(source, _)? = $0 as? MountProblem { true } else { false } }
  }

  @Test("a source with .. or not absolute, and a volume whose name is a path, are refused")
  func badSources() throws {
    for source in ["/srv/../etc/passwd", "srv", "/srv//x"] {
      let policy = try policy(.container, [Mount(target: "/x", kind: .bind(source: source))])
      #expect(throws: MountProblem.self) { try table(policy) }
    }
    for name in ["../x", "a/b", "", ".", "..", ".x", "-x", "ä"] {
      let policy = try policy(.container, [Mount(target: "/x", kind: .volume(name: name, external: false))])
      #expect(throws: MountProblem.self) { try table(policy) }
    }
  }

  @Test("the engine's own volumes are for containers only")
  func external() throws {
    let mounts = [Mount(target: "/x", kind: .volume(name: "v", external: true))]
    #expect(try table(policy(.container, mounts)).entries.last?.source == .external("v"))
    #expect(throws: MountProblem.externalVolume("v")) { try table(policy(.native, mounts)) }
  }
}

@Suite("folders behind mounts")
struct MountSourceTests {
  func withRoot(_ body: (String, InstanceLayout) throws -> Void) throws {
    var template = Array("/tmp/appsup-fs.XXXXXX".utf8CString)
    let root = String(cString: try #require(mkdtemp(&template)))
    defer { system("rm -rf '\(root)'") }
    try body(
      root,
      InstanceLayout(
        config: "\(root)/c", state: "\(root)/state", run: "\(root)/run", log: "\(root)/log", name: "t", id: "00"))
  }

  func policy(_ mounts: [Mount]) throws -> Policy {
    var policy = Policy(id: try #require(AppID("notes")), stack: "s", runtime: .native, baseFolder: "/p")
    policy.mounts = mounts
    return policy
  }

  func status(_ path: String) -> stat {
    var status = stat()
    #expect(lstat(path, &status) == 0)
    return status
  }

  @Test("volumes and own folders are made with owner and mode; one with data in it keeps its owner")
  func made() throws {
    try withRoot { root, layout in
      let policy = try policy([Mount(target: "/v", kind: .volume(name: "v", external: false))])
      try MountTable(policy, layout, uidBase: 2_000_000).prepareSources()
      let volume = status("\(root)/state/volumes/v")
      #expect(volume.st_mode & 0o7777 == 0o770)
      #expect(volume.st_uid == 2_001_000)
      #expect(status("\(root)/state/apps/notes/data").st_mode & 0o7777 == 0o700)
      #expect(status("\(root)/state/apps").st_mode & 0o7777 == 0o700)
      try MountTable(policy, layout, uidBase: 3_000_000).prepareSources()
      #expect(status("\(root)/state/volumes/v").st_uid == 3_001_000)
      _ = try Folder(making: "\(root)/state/volumes/v/x")
      try MountTable(policy, layout, uidBase: 2_000_000).prepareSources()
      #expect(status("\(root)/state/volumes/v").st_uid == 3_001_000)
    }
  }

  @Test("a link where a folder of ours should be is not followed")
  func planted() throws {
    try withRoot { root, layout in
      _ = try Folder(making: "\(root)/state/volumes")
      #expect(symlink("/etc", "\(root)/state/volumes/v") == 0)
      let table = try MountTable(
        policy([Mount(target: "/v", kind: .volume(name: "v", external: false))]), layout, uidBase: 0)
      #expect(throws: MountProblem.self) { try table.prepareSources() }
      #expect(status("/etc").st_mode & 0o7777 == 0o755)
    }
  }

  @Test("a root file system that shows a forbidden place, a socket and a device are refused as well")
  func forbiddenRoots() throws {
    try withRoot { root, layout in
      func prepare(_ rootfs: String) throws {
        var policy = try policy([])
        policy.rootfs = rootfs
        try MountTable(policy, layout, uidBase: 0).prepareSources()
      }
      func isForbidden(_ error: any Error) -> Bool {
        if case .forbiddenSource? = error as? MountProblem { true } else { false }
      }
      for path in ["/", "/run", "/dev", root, "\(root)/state", "\(root)/state/volumes"] {
        _ = try? Folder(making: path)
        #expect { try prepare(path) } throws: { isForbidden($0) }
      }
      #expect(symlink("/", "\(root)/all") == 0)
      #expect { try prepare("\(root)/all") } throws: { isForbidden($0) }
      _ = try Folder(making: "\(root)/c/policies/rootfs")
      try prepare("\(root)/c/policies/rootfs")
      _ = try Folder(making: "\(root)/x")
      _ = try UnixSocket.listen(Folder(opening: "\(root)/x"), "any.sock", mode: 0o600)
      #expect(mknod("\(root)/x/device", S_IFCHR | 0o600, 0) == 0 || geteuid() != 0)
      for name in ["any.sock", "device"] where File.exists("\(root)/x/\(name)") {
        let policy = try policy([Mount(target: "/x", kind: .bind(source: "\(root)/x/\(name)"))])
        #expect { try MountTable(policy, layout, uidBase: 0).prepareSources() } throws: { isForbidden($0) }
      }
    }
  }

  @Test("what an app leaves is removed whole: names that are no text, a thousand levels, very many files")
  func removal() throws {
    try withRoot { root, layout in
      #expect(try !Tree.remove("apps", "notes", in: root))
      let top = try Folder(making: "\(root)/apps/notes/data")
      try top.withRaw { (raw) throws(SystemFault) in
        for name: [CChar] in [[-1, -2, 0], [65, -1, 0]] {
          close(try check("open", "x") { openat(raw, name, O_WRONLY | O_CREAT, 0o600) })
        }
        _ = try check("mkdir", "x") { mkdirat(raw, [-3, 0], 0) }
        for number in 0..<3000 { _ = try check("symlink", "x") { symlinkat("/etc", raw, "l\(number)") } }
      }
      var deep = dup(top.withRaw { $0 })
      for _ in 0..<1000 {
        #expect(mkdirat(deep, "d", 0o700) == 0)
        let next = openat(deep, "d", O_RDONLY | O_DIRECTORY)
        close(deep)
        deep = next
      }
      close(deep)
      #expect(try Tree.remove("apps", "notes", in: root))
      #expect(try Folder(opening: "\(root)/apps").isEmpty())
    }
  }

  @Test("a bind of nothing, through a link, or of a forbidden place under another name is refused")
  func binds() throws {
    try withRoot { root, layout in
      _ = try Folder(making: "\(root)/real")
      _ = try Folder(making: "\(root)/run")
      #expect(symlink("\(root)/real", "\(root)/link") == 0)
      func prepare(_ source: String) throws {
        let policy = try policy([Mount(target: "/x", kind: .bind(source: source))])
        try MountTable(policy, layout, uidBase: 0).prepareSources()
      }
      try prepare("\(root)/real")
      #expect(throws: MountProblem.missingSource("\(root)/none")) { try prepare("\(root)/none") }
      #expect(throws: MountProblem.linkedSource("\(root)/link")) { try prepare("\(root)/link") }
      // The same folder through a bind mount, if this process may make one.
      _ = try Folder(making: "\(root)/alias")
      guard mount("\(root)/run", "\(root)/alias", nil, UInt(MS_BIND), nil) == 0 else { return }
      defer { umount("\(root)/alias") }
      #expect {
        try prepare("\(root)/alias")
      } throws: { if case .forbiddenSource? = $0 as? MountProblem { true } else { false } }
    }
  }
}
