import Model
import Testing

@testable import Policies

@Suite("Rules between fields") struct RuleTests {
  @Test("0 is unlimited under privileged only", arguments: ["mem_limit", "memswap_limit", "pids_limit", "cpus"])
  func zero(_ key: String) throws {
    #expect(complaints("\(key): 0") == ["\(key): 0 means unlimited, which needs sandbox: privileged"])
    _ = try container("sandbox: privileged\n\(key): 0")
  }

  @Test("a privileged policy without limits has none")
  func unlimited() throws {
    let policy = try container("sandbox: privileged\nmem_limit: 0\npids_limit: 0\nmemswap_limit: -1")
    #expect(policy.limits.memory == nil)
    #expect(policy.limits.memoryAndSwap == nil)
    #expect(policy.limits.pids == nil)
  }

  @Test("a working folder below /proc could be a descriptor of whoever starts the app")
  func workingFolder() throws {
    for folder in ["/proc", "/proc/self/fd/7", "/tmp/../proc/1/cwd"] {
      #expect(!complaints("working_dir: \(folder)").isEmpty, "\(folder)")
    }
    #expect(try container("working_dir: /process").workingDirectory == "/process")
  }

  @Test("memory limits must agree")
  func memory() throws {
    #expect(complaints("mem_limit: 64m\nmem_high: 65m") == ["mem_high is over mem_limit, 64m"])
    #expect(complaints("mem_reservation: 1g") == ["mem_reservation is over the preset's mem_limit, 512m"])
    #expect(complaints("mem_limit: 64m\nmemswap_limit: 63m").count == 1)
    #expect(try container("mem_limit: 64m").limits.memoryAndSwap == .mebibytes(64))
  }

  @Test("network none contradicts ports; host needs privileged")
  func network() throws {
    #expect(complaints("network_mode: none\nports: [80]") == ["network_mode: none contradicts ports"])
    #expect(complaints("networkAllowed: false\nports: [80]") == ["network_mode: none contradicts ports"])
    #expect(complaints("network_mode: host") == ["network_mode: host needs sandbox: privileged"])
    #expect(complaints("sandbox: privileged\nnetwork_mode: host\nports: [80]").count == 1)
    #expect(complaints("network_mode: bridge\nnetworks: [n]").count == 1)
    #expect(try container("ports: [80]").network.mode == .bridge)
    #expect(try container("").network.mode == .none)
  }

  @Test("privileged must be listed by the daemon's configuration, where it is known")
  func privileged() throws {
    let none = HostRules(privilegedApps: [])
    #expect(complaints("sandbox: privileged", rules: none) == ["sandbox: privileged is not allowed for a"])
    #expect(complaints("sandboxed: false", rules: none) == ["sandbox: privileged is not allowed for a"])
    _ = try container("sandbox: privileged", rules: HostRules(privilegedApps: ["a"]))
    _ = try container("sandbox: privileged", rules: .unknown)
  }

  @Test("standard keeps ordinary capabilities, minimal none, privileged any")
  func capabilities() throws {
    #expect(complaints("cap_add: [SYS_ADMIN]") == ["SYS_ADMIN needs sandbox: privileged"])
    #expect(complaints("cap_add: [ALL]") == ["ALL needs sandbox: privileged"])
    #expect(complaints("sandbox: minimal\ncap_add: [CHOWN]") == ["sandbox minimal keeps no capability"])
    _ = try container("sandbox: privileged\ncap_add: [SYS_ADMIN]")
  }

  @Test(
    "walls come down under privileged only",
    arguments: ["seccomp=unconfined", "seccomp:unconfined", "apparmor=unconfined", "no-new-privileges:false"])
  func securityOptions(_ option: String) throws {
    #expect(complaints("security_opt: [\"\(option)\"]").count == 1)
    _ = try container("sandbox: privileged\nsecurity_opt: [\"\(option)\"]")
    #expect(complaints("sandbox: privileged\nsecurity_opt: [\"nonsense\"]").count == 1)
    // Not built, so not silently left out.
    #expect(complaints("security_opt: [\"seccomp=./own.json\"]").count == 1)
  }

  @Test("a low oom_score_adj needs privileged")
  func oom() throws {
    #expect(complaints("oom_score_adj: 0").count == 1)
    _ = try container("sandbox: privileged\noom_score_adj: 0")
  }

  @Test("what there is to run decides the runtime, and must fit it")
  func runtime() {
    #expect(reading("id: a\nentry: [/bin/true]\n").policy?.runtime == .native)
    #expect(reading("id: a\nimage: i\nruntime: auto\n").policy?.runtime == .container)
    #expect(reading("id: a\nbuild: .\n").policy?.image?.reference == "appsupervisor/a:built")
    #expect(reading("id: a\n").errors.map(\.message) == ["there is nothing to run"])
    #expect(
      reading("id: a\nruntime: container\nentry: x\n").errors.map(\.message) == ["a container needs image or build"])
    #expect(reading("id: a\nruntime: native\nimage: i\n").errors.isEmpty)
    #expect(reading("id: a\nruntime: native\nbuild: .\n").errors.map(\.message) == ["only an engine builds images"])
    #expect(reading("id: a\nruntime: native\nimage: i\npull_policy: always\n").errors.count == 1)
    #expect(reading("id: a\nruntime: native\nimage: i\nrootfs: /srv\n").errors.count == 1)
    #expect(reading("id: a\nruntime: native\nimage: i\nsandbox: privileged\n").errors.count == 1)
    #expect(reading("id: a\nruntime: native\nimage: i\nuser: image\nentrypoint: x\n").errors.isEmpty)
    #expect(reading("id: a\nentry: x\nentrypoint: y\n").errors.count == 1)
    #expect(reading("id: a\nentry: app.wasm\n").errors.count == 1)
    #expect(reading("image: i\n").errors.map(\.message) == ["id is missing"])
  }

  @Test("a fallback needs something to fall back to")
  func fallback() {
    #expect(complaints("fallback: native").isEmpty)
    #expect(
      complaints("fallback: native\nrootfs: /srv") == ["fallback: native with rootfs needs entry, a program in it"])
    #expect(
      complaints("fallback: native\nentry: x\nvolumes: [{type: volume, source: v, target: /v, external: true}]").count
        == 1)
  }

  @Test("the engine's own volumes must be listed, where that is known")
  func external() throws {
    let lines = "volumes: [{type: volume, source: v, target: /v, external: true}]"
    #expect(complaints(lines, rules: HostRules(externalVolumes: [])) == ["the external volume v is not allowed"])
    _ = try container(lines, rules: HostRules(externalVolumes: ["v"]))
  }

  @Test("a host uid is an error where the engine maps none, a warning where that is not known")
  func uids() throws {
    var rules = HostRules(unsafeHostUIDs: [], engineRemapsUsers: false)
    #expect(complaints("user: 1000", rules: rules).count == 1)
    #expect(complaints("user: 2097152", rules: rules).isEmpty)
    rules.engineRemapsUsers = nil
    #expect(complaints("user: 1000", rules: rules).isEmpty)
    rules = HostRules(unsafeHostUIDs: ["a"], engineRemapsUsers: false)
    #expect(reading("id: a\nimage: i\nuser: 0\n", rules: rules).problems.isEmpty)
  }
}

@Suite("Presets") struct PresetTests {
  @Test("each preset fills in what policy.md's table says")
  func table() throws {
    let minimal = try container("sandbox: minimal")
    let standard = try container("")
    let privileged = try container("sandbox: privileged")
    #expect(
      [minimal, standard, privileged].map(\.limits.memory) == [.mebibytes(128), .mebibytes(512), .mebibytes(2048)])
    #expect([minimal, standard, privileged].allSatisfy { $0.limits.memoryAndSwap == $0.limits.memory })
    #expect([minimal, standard, privileged].map(\.limits.maximumCPUTime) == [.seconds(30), nil, nil])
    #expect([minimal, standard, privileged].map { $0.limits.rlimits.first?.hard } == [64, 1024, 4096])
    #expect([minimal, standard, privileged].map(\.limits.pids) == [32, 256, 2048])
    #expect([minimal, standard, privileged].map(\.readOnlyRoot) == [true, true, false])
    #expect([minimal, standard, privileged].map(\.capabilities.drop) == [["ALL"], ["ALL"], []])
    #expect(
      [minimal, standard, privileged].allSatisfy { $0.network.mode == .none && $0.limits.oomScoreAdjustment == 500 })
    #expect(minimal.mounts == [Mount(target: "/tmp", kind: .memory(size: .mebibytes(16), mode: 0o1777))])
    #expect(standard.mounts == [Mount(target: "/tmp", kind: .memory(size: .mebibytes(64), mode: 0o1777))])
    #expect(privileged.mounts.isEmpty)
    #expect(Policy.Preset.allCases.map { PresetValues.of($0).spawnedProcesses } == [1, 10, 50])
    #expect(Policy.Preset.allCases.map { PresetValues.of($0).brokeredConnections } == [0, 20, 100])
  }

  @Test("what the file says wins over the preset")
  func wins() throws {
    let policy = try container(
      "sandbox: minimal\nmem_limit: 1g\npids_limit: 999\nread_only: false\ncap_drop: []\nulimits: {nofile: 9}\ntmpfs: /tmp:size=1m"
    )
    #expect(policy.limits.memory == .mebibytes(1024))
    #expect(policy.limits.pids == 999)
    #expect(policy.readOnlyRoot == false)
    #expect(policy.capabilities.drop.isEmpty)
    #expect(policy.limits.rlimits == [.init(name: "nofile", soft: 9, hard: 9)])
    #expect(policy.mounts.first?.kind == .memory(size: .mebibytes(1), mode: nil))
  }

  @Test("what a preset stands for and is not built is listed")
  func listed() throws {
    #expect(notInForce(try container("ports: [80]")).contains { $0.hasPrefix("brokered connections (20)") })
  }
}
