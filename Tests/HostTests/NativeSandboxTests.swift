import Cgroups
import Glibc
import Linux
import Model
import ProcessHosting
import Testing

@Suite("a native app's sandbox, seen from inside", .enabled(if: canRunNative, "needs root and writable cgroups"))
struct NativeSandboxTests {
  /// What a script in a fresh sandbox writes.
  func inside(
    _ script: String, _ change: (inout Policy) throws -> Void = { _ in }
  ) async throws -> (report: ExitReport, output: String) {
    var result: (report: ExitReport, output: String)?
    try await HostContract.withStage(NativeRig()) { stage in
      var policy = try stage.rig.policy("probe", script)
      try change(&policy)
      result = try await stage.complete(policy)
    }
    return try #require(result)
  }

  @Test("no capability, no way to get one, and no one else's uid") func privileges() async throws {
    let (_, text) = try await inside("cat /proc/self/status")
    for line in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
      #expect(text.contains("\(line):\t0000000000000000\n"), "\(line)")
    }
    #expect(text.contains("NoNewPrivs:\t1\n"))
    #expect(text.contains("Uid:\t1000\t1000\t1000\t1000\n"))
    #expect(text.contains("Groups:\t \n"))
  }

  @Test("the root is the standard one, and cannot be written") func root() async throws {
    let (_, text) = try await inside(
      "ls -A / | tr '\\n' ' '; ls -A /etc | tr '\\n' ' '; touch /new /etc/new /usr/new /dev/new; cat /etc/hostname")
    #expect(text.contains("app") == false || !text.contains("home"))
    for name in ["home", "root", "var", "opt", "sys", "srv", "mnt"] {
      #expect(!text.split(separator: " ").contains(Substring(name)), "\(name)")
    }
    for name in ["usr", "etc", "proc", "dev", "tmp", "data", "cache", "passwd"] {
      #expect(text.split(separator: " ").contains(Substring(name)), "\(name)")
    }
    #expect(!text.contains("shadow"))
    #expect(text.split(separator: "\n").filter { $0.contains("Read-only file system") }.count == 4)
    #expect(text.contains("probe\n"))
  }

  @Test("/data and /tmp can be written, /data lasts, /tmp runs nothing") func writable() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      let first = try await stage.complete(
        stage.rig.policy(
          "keeper", "echo kept > /data/file && printf '#!/bin/sh\\n' > /tmp/x && chmod +x /tmp/x && /tmp/x; echo $?"))
      #expect(first.output.contains("126"))
      let second = try await stage.complete(stage.rig.policy("keeper", "cat /data/file; ls /tmp"))
      #expect(second.output == first.output + "kept\n")
    }
  }

  @Test("of processes it sees its own, of descriptors three") func processes() async throws {
    let (_, text) = try await inside("echo /proc/[0-9]*; ls /proc; for f in /proc/$$/fd/*; do echo fd ${f##*/}; done")
    // Its first process is ours, can be seen, and not looked into.
    let (_, ours) = try await inside(
      "for f in environ maps mem fd cwd root; do (cat /proc/1/$f || ls /proc/1/$f/) >/dev/null 2>&1 && echo BAD $f; done; "
        + "kill -9 1 2>/dev/null && echo BAD; echo alive")
    #expect(ours == "alive\n")
    for name in ["kcore", "sys\n", "kallsyms", "sysrq-trigger", "cpuinfo"] { #expect(!text.contains(name), "\(name)") }
    let open = text.split(separator: "\n").filter { $0.hasPrefix("fd ") && $0 != "fd 3" && $0 != "fd 10" }
    #expect(open == ["fd 0", "fd 1", "fd 2"])
  }

  @Test("the filter refuses namespaces, set-uid files, odd sockets and a terminal's input, and lets the rest pass")
  func filter() async throws {
    let script = """
      unshare -U true 2>/dev/null && echo BAD namespace
      unshare -m true 2>/dev/null && echo BAD mount namespace
      cd /data; cp /bin/true t; chmod 4755 t 2>/dev/null && echo BAD setuid; chmod 755 t && ./t && echo ran
      perl -e 'socket(S, 40, 1, 0) and print "BAD vsock\\n"; socket(S, 38, 5, 0) and print "BAD alg\\n"'
      perl -e 'socket(S, 16, 3, 9) and print "BAD audit\\n"; socket(S, 16, 3, 0) or print "BAD routes\\n"'
      perl -e 'socket(S, 2, 1, 0) or print "BAD inet\\n"; socket(S, 1, 1, 0) or print "BAD unix\\n"'
      perl -e '$b = "x"; ioctl(STDIN, 0x5412, $b); print $!{EPERM} ? "" : "BAD TIOCSTI\\n"'
      perl -e '$! = 0; syscall(435, 0, 0); print $!{ENOSYS} ? "" : "BAD clone3\\n"'
      perl -e '$! = 0; syscall(468); print $!{ENOSYS} ? "" : "BAD new call\\n"'
      perl -e '$! = 0; syscall(425, 1, 0); print $!{EPERM} ? "" : "BAD io_uring\\n"'
      echo done
      """
    let (_, text) = try await inside(script)
    #expect(text == "ran\ndone\n")
  }

  @Test("its network is a loopback of its own") func network() async throws {
    let (_, text) = try await inside("cat /proc/self/net/dev")
    #expect(text.contains("lo:"))
    #expect(!text.contains("eth0:"))
  }

  @Test("a start leaves no namespace shared with the host, and enforcement says so") func layers() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      let running = try await stage.run(stage.rig.policy("layers", "exec sleep 1000"))
      let layers = try await stage.host.enforcement(running.instance, running.launch)
      for name in [
        "ids", "capabilities", "no-new-privileges", "namespaces", "cgroup", "read-only root", "landlock", "seccomp",
      ] {
        #expect(layers.first { $0.name == name }?.status == .enforced, "\(name)")
      }
      for (_, name) in NamespaceKinds.files {
        let theirs = try Place.link("/proc/\(running.facts.pid)/ns/\(name)")
        #expect(theirs != (try Place.link("/proc/self/ns/\(name)")), "\(name)")
      }
      let ids = try File.text("/proc/\(running.facts.pid)/status")
      #expect(ids.contains("Uid:\t\(0x20_0000 + 1000)\t"))
      #expect(try File.text("/proc/\(running.facts.pid)/oom_score_adj") == "500\n")
      try await stage.host.kill(running.instance)
      _ = try await stage.end(running)
      try await stage.host.remove(running.instance)
    }
  }

  @Test("limits of the process: no core, few files, as the policy says") func rlimits() async throws {
    let (_, text) = try await inside("ulimit -c; ulimit -n; ulimit -l") {
      $0.limits.rlimits = [.init(name: "nofile", soft: 99, hard: 99)]
    }
    #expect(text == "0\n99\n64\n")
  }

  @Test("an entry outside /usr is alone at its own path; a relative one appears under /app") func entries() async throws
  {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig else { return }
      let folder = try Folder(making: "\(rig.folder)/app", mode: 0o755)
      try folder.replace("tool", with: Array("#!/bin/sh\necho I am $0; ls -A /app\n".utf8), mode: 0o755)
      try folder.replace("secret", with: Array("no".utf8))
      var policy = try rig.policy("relative", "")
      policy.entry = ["./app/tool"]
      #expect(try await stage.complete(policy).output.hasPrefix("I am /app/app/tool"))
      policy.entry = ["\(rig.folder)/app/tool"]
      let text = try await stage.complete(policy).output
      #expect(text.contains("I am \(rig.folder)/app/tool"))
      policy.entry = ["./app/secret"]
      await #expect(throws: HostFailure.self) { try await stage.run(policy) }
      policy.entry = ["../tool"]
      await #expect(throws: HostFailure.self) { try await stage.run(policy) }
    }
  }

  @Test("binds, volumes and memory are where the policy puts them") func mounts() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig else { return }
      let folder = try Folder(making: "\(rig.folder)/conf", mode: 0o755)
      try folder.replace("a.conf", with: Array("answer=42\n".utf8))
      var policy = try rig.policy(
        "mounts",
        "cat /etc2/conf/a.conf; echo x > /etc2/conf/a.conf; echo y > /vol/f && cat /vol/f; df -k /scratch/deep")
      policy.mounts = [
        Mount(target: "/etc2/conf", kind: .bind(source: "\(rig.folder)/conf"), readOnly: true),
        Mount(target: "/vol", kind: .volume(name: "v", external: false)),
        Mount(target: "/scratch/deep", kind: .memory(size: .mebibytes(3), mode: nil)),
      ]
      let text = try await stage.complete(policy).output
      #expect(text.contains("answer=42\n") && text.contains("Read-only file system") && text.contains("y\n"))
      #expect(text.contains(" 3072 "))
    }
  }

  @Test("a rootfs is the app's root, with what must be in every root") func rootfs() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig, File.exists("/bin/busybox") else { return }
      let bin = try Folder(making: "\(rig.folder)/root/bin", mode: 0o755)
      try bin.replace("busybox", with: File.read("/bin/busybox", limit: 8 << 20), mode: 0o755)
      var policy = try rig.policy("rooted", "")
      policy.rootfs = "\(rig.folder)/root"
      policy.entry = ["/bin/busybox", "sh", "-c", "busybox ls -A /; busybox id -u; busybox touch /bin/x"]
      policy.environment = [.init(name: "PATH", value: "/bin")]
      let text = try await stage.complete(policy).output
      #expect(text.hasPrefix("bin\ndev\nproc\nrun\ntmp\n1000\n"), "\(text)")
      #expect(text.contains("Read-only file system"))
    }
  }

  @Test("what is not supported yet is refused before anything is made") func refusals() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      for change: (inout Policy) -> Void in [
        { $0.network.mode = .bridge }, { $0.network.mode = .host }, { $0.network.mode = .named },
        {
          $0.network.mode = .bridge
          $0.network.ports = [PublishedPort(hostPort: 1, appPort: 1, transport: .udp)]
        }, { $0.limits.memoryHigh = .mebibytes(1) }, { $0.securityOptions = ["apparmor=mine"] },
      ] {
        var policy = try stage.rig.policy("refused", "true")
        change(&policy)
        // A pure v2 host has memory.high.
        if policy.limits.memoryHigh != nil, try CgroupHierarchy.detect().layout == .unified { continue }
        let failure = await #expect(throws: HostFailure.self) { try await stage.host.prepare(policy) { _ in } }
        #expect(failure?.kind == .refused)
      }
    }
  }
}
