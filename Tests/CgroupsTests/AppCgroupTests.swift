import Glibc
import Linux
import Model
import Scheduling
import Testing

@testable import Cgroups

/// Whether this host lets us make groups; `REQUIRE=cgroup` makes a skip a failure.
let canMakeGroups: Bool = {
  let required = getenv("REQUIRE").map { String(cString: $0).split(separator: ",").contains("cgroup") } ?? false
  guard let hierarchy = try? CgroupHierarchy.detect(), let root = hierarchy.unified ?? hierarchy.legacy[.memory] else {
    return required
  }
  return required || access(root, W_OK) == 0
}()

/// A group of the test's own, gone when the test is.
func withGroup(
  _ kind: AppCgroup.Kind = .native, _ limits: Limits = Limits(), _ body: (AppCgroup) async throws -> Void
) async throws {
  let parent = "/appsupervisor-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
  let hierarchy = try CgroupHierarchy.detect()
  let group = AppCgroup(hierarchy, parent: parent, app: try #require(AppID("probe")), kind: kind)
  defer {
    // Best effort: the test's own findings matter more.
    _ = try? group.kill(within: .seconds(5))
    _ = try? group.remove(within: .seconds(5))
    AppCgroup.removeParent(hierarchy, parent: parent)
  }
  try group.create(limits)
  try await body(group)
}

/// Starts a shell command whose first act is to join `group`.
func spawn(_ script: String, in group: AppCgroup, _ limits: Limits = Limits()) throws -> pid_t {
  let join = group.joinFiles(limits).map { "echo $$ > '\($0)' || exit 99; " }.joined()
  let argv: [UnsafeMutablePointer<CChar>?] = [strdup("sh"), strdup("-c"), strdup(join + script), nil]
  defer { for argument in argv { free(argument) } }
  var pid: pid_t = 0
  #expect(posix_spawn(&pid, "/bin/sh", nil, nil, argv, environ) == 0)
  return pid
}

func waitFor(_ pid: pid_t) -> Int32 {
  var status: Int32 = 0
  waitpid(pid, &status, 0)
  return status
}

func eventually(_ what: Comment, _ condition: () throws -> Bool) async throws {
  for _ in 0..<1000 {
    if try condition() { return }
    try await Task.sleep(for: .milliseconds(5))
  }
  Issue.record(what)
}

@Suite("an app's group on this kernel", .enabled(if: canMakeGroups, "no writable cgroup hierarchy"))
struct AppCgroupTests {
  func everything() -> Limits {
    var limits = Limits()
    limits.memory = .mebibytes(64)
    limits.memoryAndSwap = .mebibytes(64)
    limits.memoryReservation = .mebibytes(32)
    limits.pids = 40
    limits.cpus = 0.5
    limits.cpuset = "0"
    return limits
  }

  @Test("every limit is written, and read back as it was asked")
  func limits() async throws {
    let limits = everything()
    try await withGroup(.native, limits) { group in
      let share = CPUShare(.high)
      #expect(group.apply(limits, share: share) == [])
      let reports = group.readBack(limits, share: share)
      #expect(
        reports.filter { $0.status == .enforced }.map(\.name) == [
          "mem_limit", "memswap_limit", "mem_reservation", "pids_limit", "cpus", "cpu_shares", "cpuset",
        ])
      #expect(reports.filter { $0.status == .missing } == [])
      #expect(group.usage().memoryLimit == .mebibytes(64))
    }
  }

  @Test("limits change both ways while the group lives, and nil takes one away")
  func changes() async throws {
    var limits = everything()
    try await withGroup(.native, limits) { group in
      for size in [64, 256, 16, 128] as [UInt64] {
        limits.memory = .mebibytes(size)
        limits.memoryAndSwap = .mebibytes(size)
        limits.cpus = Double(size) / 64
        #expect(group.apply(limits, share: CPUShare(.normal)) == [])
        #expect(!group.readBack(limits, share: CPUShare(.normal)).contains { $0.status == .missing })
      }
      var open = Limits()
      open.cpuset = "0"
      #expect(group.apply(open, share: CPUShare(.normal), former: limits) == [])
      #expect(group.usage().memoryLimit == nil)
    }
  }

  @Test("a limit changed behind our back is seen")
  func tampering() async throws {
    let limits = everything()
    try await withGroup(.native, limits) { group in
      _ = group.apply(limits, share: CPUShare(.normal))
      let pids = try #require(group.folder(.pids))
      try File.write("\(pids.path)/pids.max", "4000")
      let report = group.readBack(limits, share: CPUShare(.normal)).first { $0.name == "pids_limit" }
      #expect(report?.status == .missing)
      #expect(report?.note == "pids.max is 4000, not 40")
    }
  }

  @Test("what this kernel cannot hold is named before anything is made")
  func unsupported() throws {
    let hierarchy = CgroupHierarchy(unified: nil, unifiedControllers: [], legacy: [.memory: "/nowhere"])
    let group = AppCgroup(hierarchy, parent: "/p", app: try #require(AppID("a")), kind: .native)
    var limits = everything()
    limits.memoryHigh = .mebibytes(50)
    limits.block.writeBytesPerSecond = [.init(path: "/dev/null", rate: 1000)]
    let found = group.unsupported(limits)
    #expect(found.contains(Shortfall("mem_high", "cgroup v1 has no such limit")))
    #expect(found.contains(Shortfall("pids_limit", "this kernel has no pids controller")))
    #expect(found.contains(Shortfall("blkio_config.device_write_bps", "/dev/null is not a block device")))
    #expect(!found.contains { $0.limit == "mem_limit" })
  }

  @Test("processes are seen, frozen, counted and killed, with their children and while frozen")
  func life() async throws {
    let limits = everything()
    try await withGroup(.native, limits) { group in
      #expect(group.apply(limits, share: CPUShare(.normal)) == [])
      #expect(try !group.isPopulated)
      let pid = try spawn("sleep 1000 & sleep 1000 & while :; do :; done", in: group, limits)
      try await eventually("three processes") { try group.processes.count == 3 }
      #expect(try group.isPopulated)
      #expect(group.usage().pids == 3)
      try await eventually("CPU time is counted") { group.usage().cpuNanoseconds > 20_000_000 }
      try group.setFrozen(true)
      try await eventually("frozen") { group.isFrozen }
      #expect(try !group.remove())
      #expect(try group.kill(within: .seconds(5)))
      #expect(waitFor(pid) == SIGKILL)
      #expect(try group.remove(within: .seconds(5)))
      #expect(!group.exists)
      #expect(try group.remove(), "removing twice is fine")
    }
  }

  @Test("a memory limit kills, and the count says so")
  func outOfMemory() async throws {
    var limits = Limits()
    limits.memory = .mebibytes(16)
    limits.memoryAndSwap = .mebibytes(16)
    try await withGroup(.native, limits) { group in
      #expect(group.apply(limits, share: CPUShare(.normal)) == [])
      #expect(group.outOfMemoryKills() == 0)
      let pid = try spawn("head -c 200m /dev/zero | tail -c 100m > /dev/null", in: group, limits)
      #expect(waitFor(pid) != 0)
      try await eventually("counted") { group.outOfMemoryKills() >= 1 }
    }
  }

  @Test("a pids limit holds from the first instruction")
  func pids() async throws {
    var limits = Limits()
    limits.pids = 3
    try await withGroup(.native, limits) { group in
      #expect(group.apply(limits, share: CPUShare(.normal)) == [])
      let pid = try spawn("sleep 5 & sleep 5 & sleep 5 & sleep 5 & exit 0", in: group, limits)
      #expect(waitFor(pid) != 0)
    }
  }

  @Test("groups below are killed and removed too")
  func nested() async throws {
    try await withGroup(.container) { group in
      var folders: [String] = []
      for file in group.joinFiles(Limits()) {
        let folder = file.dropLast("cgroup.procs".count) + "leaf"
        try check("mkdir", String(folder)) { mkdir(String(folder), 0o755) }
        folders.append(String(folder))
      }
      let join = folders.map { "echo $$ > \($0)/cgroup.procs || exit 99; " }.joined()
      let pid = try spawn("\(join) sleep 1000 & wait", in: group)
      try await eventually("two processes") { try group.processes.count == 2 }
      #expect(try group.kill(within: .seconds(5)))
      #expect(waitFor(pid) == SIGKILL)
      #expect(try group.remove(within: .seconds(5)))
    }
  }

  @Test("without cgroup.kill and freezing, everything is killed one by one")
  func killOneByOne() async throws {
    let real = try CgroupHierarchy.detect()
    guard let pids = real.legacy[.pids] else { return }
    let hierarchy = CgroupHierarchy(unified: nil, unifiedControllers: [], legacy: [.pids: pids])
    let group = AppCgroup(
      hierarchy, parent: "/appsupervisor-test-\(getpid())-one", app: try #require(AppID("probe")), kind: .native)
    try group.create()
    let pid = try spawn("sleep 1000 & sleep 1000 & wait", in: group)
    try await eventually("three processes") { try group.processes.count == 3 }
    #expect(try group.kill(within: .seconds(5)))
    #expect(waitFor(pid) == SIGKILL)
    #expect(try group.remove(within: .seconds(5)))
    AppCgroup.removeParent(hierarchy, parent: "/appsupervisor-test-\(getpid())-one")
  }
}
