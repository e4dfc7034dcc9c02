import EngineAPI
import Linux
import Model
import Testing

@Suite("limits and rights on a real engine")
struct LimitTests {
  private static let seccomp = #"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_X86_64"],"syscalls":[]}"#

  private func hardened(_ script: String) -> ContainerSpec {
    var spec = Rig.spec(script)
    spec.user = "65532:65532"
    spec.healthcheck = .none
    spec.environment = [("GREETING", "hello")]
    spec.host.readonlyRoot = true
    spec.host.capDrop = ["ALL"]
    spec.host.noNewPrivileges = true
    spec.host.resources.memory = 64 << 20
    spec.host.resources.memorySwap = 64 << 20
    spec.host.resources.memoryReservation = 32 << 20
    spec.host.resources.nanoCPUs = 500_000_000
    spec.host.resources.cpuShares = 256
    spec.host.resources.pidsLimit = 32
    spec.host.resources.cpuset = "0"
    spec.host.ipcMode = "private"
    spec.host.shmSize = 16 << 20
    spec.host.cgroupnsMode = "private"
    var tmpfs = TmpfsSpec("/tmp")
    tmpfs.size = 8 << 20
    tmpfs.inodes = 1024
    tmpfs.uid = 65532
    tmpfs.gid = 65532
    tmpfs.mode = "0700"
    spec.host.tmpfs = [tmpfs]
    spec.host.maskedPaths = ["/proc/interrupts", "/proc/keys"]
    spec.host.readonlyPaths = ["/proc/sys", "/proc/irq"]
    spec.host.log = LogSpec(driver: "local", options: ["max-size": "4m", "max-file": "2"])
    return spec
  }

  @Test("every limit of the hardening recipe is taken without a warning and read back", arguments: Rig.present)
  func readBack(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = hardened("sleep 60")
    if rig == .docker { spec.host.seccomp = .profile(json: Self.seccomp, file: nil) }
    let created = try await engine.createContainer(spec, named: nil)
    defer { Task { try? await engine.removeContainer(created.id, force: true) } }
    #expect(created.warnings == [])
    try await engine.startContainer(created.id)
    let details = try await engine.inspectContainer(created.id)
    let limits = details.limits
    #expect(limits.memory == 64 << 20 && limits.memorySwap == 64 << 20 && limits.memoryReservation == 32 << 20)
    #expect(limits.nanoCPUs == 500_000_000 || limits.cpuQuota * 2 == limits.cpuPeriod)
    #expect(limits.cpuShares == 256 && limits.pidsLimit == 32 && limits.cpuset == "0")
    #expect(limits.readonlyRoot && !limits.privileged && limits.networkMode == "none")
    #expect(limits.ulimits.contains(Ulimit("nofile", soft: 1024, hard: 1024)))
    #expect(limits.ulimits.contains(Ulimit("nproc", soft: 4096, hard: 4096)))
    #expect(limits.tmpfs["/tmp"] != nil)
    #expect(details.user == "65532:65532" && details.environment.contains("GREETING=hello"))
    #expect(details.labels["io.appsupervisor.test"] == Rig.labels["io.appsupervisor.test"])
    #expect(details.state.isRunning && details.state.pid > 0)
    if rig == .docker {
      #expect(limits.capDrop == ["ALL"] && limits.maskedPaths == spec.host.maskedPaths)
      #expect(limits.readonlyPaths == spec.host.readonlyPaths && limits.logDriver == "local")
    }
    // What an inspect may leave out is in /proc.
    let status = try File.text("/proc/\(details.state.pid)/status")
    #expect(status.contains("NoNewPrivs:\t1") && status.contains("CapBnd:\t0000000000000000"))
    #expect(status.contains("Uid:\t65532\t65532\t65532\t65532"))
    let mounts = try File.text("/proc/\(details.state.pid)/mountinfo")
    #expect(mounts.contains(" /proc/interrupts "))
    try await engine.removeContainer(created.id, force: true)
  }

  @Test("masked paths given as nil leave the engine's own masks in place", arguments: Rig.present)
  func defaultMasks(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("sleep 60")) { id in
      let pid = try await engine.inspectContainer(id).state.pid
      let mounts = try File.text("/proc/\(pid)/mountinfo")
      #expect(["/proc/keys", "/proc/timer_list", "/sys/firmware"].contains { mounts.contains(" \($0) ") })
    }
  }

  @Test("limits change while the container runs", arguments: Rig.present)
  func update(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = Rig.spec("sleep 60")
    spec.host.resources.memory = 64 << 20
    spec.host.resources.memorySwap = 64 << 20
    spec.host.resources.pidsLimit = 64
    try await engine.withContainer(spec) { id in
      let pid = try await engine.inspectContainer(id).state.pid
      var change = Resources()
      change.memory = 96 << 20
      change.memorySwap = 96 << 20
      change.cpuShares = 512
      change.pidsLimit = 40
      change.nanoCPUs = 250_000_000
      #expect(try await engine.updateContainer(id, change) == [])
      if rig == .docker {
        // Podman goes on telling what was asked at creation; the kernel's files below are the same for both.
        let limits = try await engine.inspectContainer(id).limits
        #expect(limits.memory == 96 << 20 && limits.cpuShares == 512 && limits.pidsLimit == 40)
      }
      #expect(try cgroupValue(pid, "memory", "memory.limit_in_bytes", "memory.max") == String(96 << 20))
      #expect(try cgroupValue(pid, "pids", "pids.max", "pids.max") == "40")
    }
  }

  /// A value of a process's cgroup: the v1 file of a controller, else v2's.
  private func cgroupValue(_ pid: Int32, _ controller: String, _ v1: String, _ v2: String) throws -> String {
    for line in try File.text("/proc/\(pid)/cgroup").split(separator: "\n") {
      let parts = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false)
      if parts[1].split(separator: ",").contains(where: { $0 == controller }) {
        return try File.text("/sys/fs/cgroup/\(controller)\(parts[2])/\(v1)").trimmed
      }
      if parts[1].isEmpty, File.exists("/sys/fs/cgroup\(parts[2])/\(v2)") {
        return try File.text("/sys/fs/cgroup\(parts[2])/\(v2)").trimmed
      }
    }
    return ""
  }

  @Test("a container killed for memory says so", arguments: Rig.present)
  func oom(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = Rig.spec("")
    spec.command = ["/bin/sh", "-c", "exec tail /dev/zero"]
    spec.host.resources.memory = 16 << 20
    spec.host.resources.memorySwap = 16 << 20
    try await engine.withContainer(spec) { id in
      let exit = try await within(.seconds(60)) { try await engine.waitContainer(id) }
      #expect(exit.code == 137)
      let told = try await engine.inspectContainer(id).state.oomKilled
      #expect(told || engine.differences.mayMissOutOfMemory)
    }
  }

  @Test("an unknown capability, a bad profile and a taken name are told apart", arguments: Rig.present)
  func refusals(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = Rig.spec("true")
    spec.host.capAdd = ["CAP_FLY"]
    let refusal = await failure { try await engine.withContainer(spec) { _ in } }
    guard case .refused(_, _, let message) = refusal else {
      Issue.record("\(String(describing: refusal))")
      return
    }
    #expect(message.contains("FLY"))
    let name = "appsup-test-taken-\(rig.rawValue)"
    try? await engine.removeContainer(name, force: true)  // best effort: one that an earlier run left
    let id = try await engine.createContainer(Rig.spec("true"), named: name).id
    let taken = await failure { _ = try await engine.createContainer(Rig.spec("true"), named: name) }
    switch taken {
    case .conflict: break
    case .refused(_, _, let message): #expect(rig == .podman && message.contains("in use"))
    default: Issue.record("\(String(describing: taken))")
    }
    try await engine.removeContainer(id)
  }
}

/// The failure that `body` ends with; nil when it does not fail, or with something else.
func failure(_ body: () async throws -> Void) async -> EngineFailure? {
  do { try await body() } catch { return error as? EngineFailure }
  return nil
}

extension String {
  var trimmed: String { String(drop { $0.isWhitespace }.reversed().drop { $0.isWhitespace }.reversed()) }
}
