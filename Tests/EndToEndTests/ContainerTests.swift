import Foundation
import Model
import Testing

@Suite(
  "container apps", .serialized,
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct ContainerTests {
  static let sleep = "image: \(Rig.image)\nentry: [/bin/sleep, '1000']\nstop_grace_period: 1s\n"

  /// An app that runs a script in the tests' image.
  static func app(_ name: String, _ script: String, _ more: String = "") -> String {
    let indented = script.split(separator: "\n").map { "    \($0)\n" }.joined().replacingOccurrences(
      of: "$", with: "$$")
    return "id: \(name)\nimage: \(Rig.image)\nstop_grace_period: 1s\nentry:\n- /bin/sh\n- -c\n- |\n\(indented)\(more)"
  }

  @Test("a container goes up, shows in ps, writes its log, and comes down with its network", arguments: Rig.available)
  func slice(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write("web", Self.app("web", "echo hello; echo oops >&2; exec sleep 1000", "network_mode: bridge\n"))
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      let row = try #require(instance.app("web"))
      #expect(row["state"] == "running" && row["runtime"] == "container" && row["image"] == .string(Rig.image))
      let id = try #require(instance.id)
      let containers = rig.containers(of: id)
      #expect(containers.count == 1)
      #expect(containers.first?["Id"]?.stringValue == row["container_id"]?.stringValue)
      #expect(Process.isAlive(try #require(instance.pid("web"))))
      eventually("both streams are kept") {
        let logs = instance.run("logs", "web")
        return logs.out == "hello\n" && logs.err == "oops\n"
      }
      let table = instance.run("ps").out
      #expect(table.contains("Up ") && table.contains(Rig.image), "\(table)")
      let down = instance.run("down", instance.policies)
      #expect(down.code == 0, "\(down.err)")
      #expect(rig.containers(of: id).isEmpty && rig.networks(of: id).isEmpty)
      #expect(instance.run("ps", "-aq").out.isEmpty)
    }
  }

  @Test("every limit is in force, as the kernel's own files say", arguments: Rig.available)
  func limits(_ rig: Rig) throws {
    try rig.with { instance in
      let disk = "/dev/vda"
      let throttles =
        access("/sys/fs/cgroup/blkio/blkio.throttle.write_bps_device", F_OK) == 0 && access(disk, F_OK) == 0
      try instance.write(
        "box",
        "id: box\n\(Self.sleep)"
          + """
          mem_limit: 64m
          memswap_limit: 64m
          mem_reservation: 32m
          cpus: 0.5
          cpu_shares: 512
          cpuset: "0"
          pids_limit: 21
          oom_score_adj: 600
          ulimits: {nofile: {soft: 100, hard: 120}, core: 0}
          \(throttles ? "blkio_config: {device_write_bps: [{path: \(disk), rate: 10mb}]}" : "labels: {}")

          """)
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      func file(_ names: String...) -> String? { instance.cgroup("box", names) }
      #expect(file("memory.limit_in_bytes", "memory.max") == "67108864")
      if let both = file("memory.memsw.limit_in_bytes") { #expect(both == "67108864") }
      if let swap = file("memory.swap.max") { #expect(swap == "0") }
      #expect(file("memory.soft_limit_in_bytes", "memory.low") == "33554432")
      #expect(file("cpu.cfs_quota_us", "cpu.max")?.hasPrefix("50000") == true)
      if let shares = file("cpu.shares") { #expect(shares == "512") }
      #expect(file("cpuset.cpus") == "0")
      #expect(file("pids.max") == "21")
      if throttles { #expect(file("blkio.throttle.write_bps_device")?.hasSuffix(" 10485760") == true) }
      let pid = try #require(instance.pid("box"))
      let limits = try String(contentsOfFile: "/proc/\(pid)/limits", encoding: .utf8)
      func limit(_ name: String) -> [String] {
        limits.split(separator: "\n").first { $0.hasPrefix(name) }?.dropFirst(26).split(separator: " ").map(String.init)
          ?? []
      }
      #expect(limit("Max open files").prefix(2) == ["100", "120"])
      #expect(limit("Max core file size").prefix(2) == ["0", "0"])
      #expect(try String(contentsOfFile: "/proc/\(pid)/oom_score_adj", encoding: .utf8) == "600\n")
      let layers = instance.status("box")?["layers"]?.arrayValue ?? []
      #expect(!layers.isEmpty && !layers.contains { $0["status"] == "missing" }, "\(layers.map(\.text))")
    }
  }

  @Test("environment, folder, user, read-only root, tmpfs and binds are as the policy says", arguments: Rig.available)
  func surroundings(_ rig: Rig) throws {
    try rig.with { instance in
      try FileManager.default.createDirectory(atPath: "\(instance.policies)/conf", withIntermediateDirectories: true)
      try "value\n".write(toFile: "\(instance.policies)/conf/key", atomically: true, encoding: .utf8)
      let script = """
        echo "env=$MODE"; echo "pwd=$(pwd)"; echo "uid=$(id -u):$(id -g)"
        touch /here 2>/dev/null && echo root=writable || echo root=read-only
        echo x >/scratch/file && echo scratch=writable
        dd if=/dev/zero of=/scratch/big bs=1M count=4 2>/dev/null || echo scratch=bounded
        echo "conf=$(cat /conf/key)"; touch /conf/x 2>/dev/null || echo conf=read-only
        grep -q NoNewPrivs:.1 /proc/self/status && echo nnp=on
        grep CapEff /proc/self/status
        echo end; exec sleep 1000
        """
      let more = """
        environment: {MODE: "a b"}
        working_dir: /tmp
        tmpfs: ["/scratch:size=2m"]
        volumes: [{type: bind, source: ./conf, target: /conf, read_only: true}]

        """
      try instance.write("auto", Self.app("auto", script, more))
      try instance.write("given", Self.app("given", script, more + "user: \"3000000:3000001\"\n"))
      try instance.write("image", Self.app("image", script, more + "user: image\n"))
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      for (name, user) in [("auto", ""), ("given", "3000000:3000001"), ("image", "0:0")] {
        eventually("\(name) is done") { instance.run("logs", name).out.contains("end\n") }
        let lines = instance.run("logs", name).out.split(separator: "\n").map(String.init)
        for line in [
          "env=a b", "pwd=/tmp", "root=read-only", "scratch=writable", "scratch=bounded", "conf=value",
          "conf=read-only",
          "nnp=on", "CapEff:\t0000000000000000",
        ] { #expect(lines.contains(line), "\(name): \(line) in \(lines)") }
        let uid = lines.first { $0.hasPrefix("uid=") }?.dropFirst(4) ?? ""
        if name == "auto" {
          #expect((Int(uid.prefix { $0 != ":" }) ?? 0) >= 0x20_0000, "\(uid)")
        } else {
          #expect(uid == user)
        }
      }
    }
  }

  @Test("an end is told with its code, its signal, or the memory limit that caused it", arguments: Rig.available)
  func ends(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write("zero", Self.app("zero", "exit 0"))
      try instance.write("three", Self.app("three", "exit 3"))
      try instance.write("late", Self.app("late", "sleep 1; exit 5"))
      try instance.write("killed", "id: killed\n\(Self.sleep)")
      try instance.write(
        "hog",
        "id: hog\nimage: \(Rig.image)\nmem_limit: 24m\n"
          + "entry: [/bin/busybox, dd, if=/dev/zero, of=/dev/null, bs=200M, count=2]\n")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      #expect(instance.run("kill", "killed").code == 0)
      let zero = instance.wait("zero") { $0["state"] == "completed" }
      #expect(zero?["exit_code"] == 0)
      #expect(instance.wait("three") { $0["state"] == "exited" }?["exit_code"] == 3)
      #expect(instance.wait("late") { $0["state"] == "exited" }?["exit_code"] == 5)
      let killed = instance.wait("killed") { $0["state"] == "exited" }
      #expect(killed?["exit_code"] == 137 && killed?["reason"]?.stringValue?.contains("SIGKILL") == true)
      let hog = instance.wait("hog") { $0["state"] == "exited" }
      #expect(hog?["reason"] == "out of memory")
      #expect(instance.run("explain", "hog").out.contains("memory"))
      #expect(rig.containers(of: try #require(instance.id)).isEmpty, "what has ended is cleared, its log is kept")
    }
  }

  @Test("restart ends one container and starts another; a restart rule does so by itself", arguments: Rig.available)
  func restart(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write("a", "id: a\n\(Self.sleep)")
      try instance.write(
        "loop",
        Self.app("loop", "echo run; exit 9", "restart: on-failure:2\nrestart_policy: {delay: 10ms}\n"))
      _ = instance.up()
      let before = try #require(instance.app("a"))
      #expect(instance.run("restart", "a").code == 0)
      let after = try #require(instance.app("a"))
      #expect(after["pid"] != before["pid"] && after["container_id"] != before["container_id"])
      let loop = instance.wait("loop") { $0["state"] == "failed" }
      #expect(loop?["restarts"] == 2 && loop?["reason"]?.stringValue?.contains("exit code 9") == true)
      #expect(instance.run("logs", "loop").out == "run\nrun\nrun\n", "the output of ended runs is kept")
      #expect(instance.run("pause", "a").code == 0)
      #expect(instance.app("a")?["state"] == "paused")
      #expect(instance.run("stop", "a", within: 30).code == 0)
    }
  }

  @Test("an image or a program that is not there: what, why and what to do next", arguments: Rig.available)
  func missing(_ rig: Rig) throws {
    try rig.with { instance in
      let never = try instance.write("never", "id: never\nimage: no/such:1\npull_policy: never\nentry: [/bin/true]\n")
      let local = instance.run("up", "-d", "--wait", "--engine", instance.engine, never)
      #expect(local.code == 1)
      #expect(
        local.err.contains("the image no/such:1 is not on this host, and pull_policy is never")
          && local.err.contains("Load or build it first"), "\(local.err)")
      let name = "\(Rig.registry ?? "127.0.0.1:5000")/no/such:1"
      let remote = try instance.write("remote", "id: remote\nimage: \(name)\nentry: [/bin/true]\n")
      let pulled = instance.run("up", "-d", "--wait", "--engine", instance.engine, remote)
      #expect(pulled.code == 1)
      #expect(
        pulled.err.contains("the image \(name) is not on this host and could not be pulled:")
          && pulled.err.contains("Check its name"), "\(pulled.err)")
      let program = try instance.write("program", "id: program\nimage: \(Rig.image)\nentry: [/no/such/program]\n")
      let started = instance.run("up", "-d", "--wait", "--engine", instance.engine, program)
      #expect(started.code == 1 && started.err.contains("/no/such/program"), "\(started.err)")
      for app in ["never", "remote", "program"] { #expect(instance.app(app)?["state"] == "failed", "\(app)") }
    }
  }

  @Test(
    "an engine that the configuration refuses starts nothing; doctor says what it is worth", arguments: Rig.available)
  func gate(_ rig: Rig) throws {
    try rig.with { instance in
      let name = rig.rawValue
      try FileManager.default.createDirectory(atPath: "\(instance.root)/config", withIntermediateDirectories: true)
      try "engine_gate: {refuse: [\(name)]}\n".write(
        toFile: "\(instance.root)/config/config.yaml", atomically: true, encoding: .utf8)
      let file = try instance.write("a", "id: a\nimage: \(Rig.image)\nentry: [/bin/sleep, \"1000\"]\n")
      let up = instance.run("up", "-d", "--wait", "--engine", instance.engine, file)
      #expect(
        up.code == 1 && up.err.contains("\(name) is refused by engine_gate") && up.err.contains("change engine_gate"),
        "\(up.err)")
      #expect(rig.containers(of: try #require(instance.id)).isEmpty)
      let doctor = instance.run("doctor")
      #expect(doctor.out.contains("is refused: \(name) is refused by engine_gate"), "\(doctor.out)")
    }
  }
}
