import Model
import Scheduling
import Testing

@testable import Cgroups

@Suite("finding hierarchies")
struct HierarchyTests {
  @Test("a pure v2 host")
  func unified() {
    let found = CgroupHierarchy.parse(
      mountInfo: "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n")
    #expect(found.unified == "/sys/fs/cgroup")
    #expect(found.legacy.isEmpty)
    let hierarchy = CgroupHierarchy(unified: found.unified, unifiedControllers: [.memory, .pids], legacy: found.legacy)
    #expect(hierarchy.layout == .unified)
    #expect(hierarchy.home(of: .memory) == .init(root: "/sys/fs/cgroup", version: .v2))
    #expect(hierarchy.home(of: .cpu) == nil)
  }

  @Test("a mixed host, with cpu and cpuacct in one mount, an escaped space, and a bind of a part that does not count")
  func hybrid() {
    let found = CgroupHierarchy.parse(
      mountInfo: """
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
        32 31 0:29 /docker/abc /somewhere rw,relatime - cgroup cgroup rw,memory
        33 31 0:29 / /sys/fs/cgroup/mem\\040ory rw,relatime shared:1 - cgroup cgroup rw,memory
        34 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
        35 31 0:31 / /sys/fs/cgroup/blkio rw,relatime - cgroup cgroup rw,blkio
        40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
        """)
    #expect(found.unified == "/sys/fs/cgroup/unified")
    #expect(found.legacy[.memory] == "/sys/fs/cgroup/mem ory")
    #expect(found.legacy[.cpu] == found.legacy[.cpuacct])
    #expect(found.legacy[.io] == "/sys/fs/cgroup/blkio")
    #expect(found.legacy[.pids] == nil)
  }

  @Test("an app with a name the kernel uses gets a folder of its own all the same")
  func names() throws {
    #expect(CgroupName.path(parent: "/x-y", app: try #require(AppID("notes"))) == "/x-y/notes")
    #expect(CgroupName.path(parent: "/x-y", app: try #require(AppID("tasks"))) == "/x-y/_tasks")
    #expect(CgroupName.path(parent: "/x-y", app: try #require(AppID("shims"))) == "/x-y/_shims")
  }

  @Test("systemd's slice of an app, with dashes in names escaped, and where it lies")
  func slices() throws {
    let app = try #require(AppID("web-1"))
    let slice = CgroupName.slice(base: "/appsupervisor", instance: "default", app: app.instance(2))
    #expect(slice == "appsupervisor-default-web\\x2d1.2.slice")
    #expect(
      CgroupName.slicePath(slice)
        == "/appsupervisor.slice/appsupervisor-default.slice/appsupervisor-default-web\\x2d1.2.slice")
  }

  @Test("CPU lists in the kernel's own form")
  func cpuLists() {
    #expect(CPUList("3,0-1,2")?.description == "0-3")
    #expect(CPUList("0,2,4-4")?.description == "0,2,4")
    #expect(CPUList("1-0") == nil)
    #expect(CPUList("a") == nil)
    #expect(CPUList("0-9000") == nil)
  }
}

@Suite("what systemd is told of an app")
struct SystemdSliceTests {
  let hierarchy = CgroupHierarchy(
    unified: "/sys/fs/cgroup", unifiedControllers: [.memory, .cpu, .cpuset, .pids, .io], legacy: [:])

  private func values(_ limits: Limits, resetting: Bool = false) -> [String: [String]] {
    let all = SystemdSlice.properties(limits, CPUShare(.normal), hierarchy, resetting: resetting)
    return Dictionary(all.map { ($0[0], Array($0.dropFirst())) }) { first, second in first + second }
  }

  @Test("every limit is a property of the unit, in systemd's own units; what is not asked is not told")
  func limits() {
    var limits = Limits()
    limits.memory = .mebibytes(64)
    limits.memoryHigh = .mebibytes(48)
    limits.memoryAndSwap = .mebibytes(80)
    limits.pids = 21
    limits.cpus = 0.5
    limits.cpuset = "0,9"
    #expect(
      values(limits) == [
        "MemoryMax": ["t", "67108864"], "MemoryHigh": ["t", "50331648"], "MemorySwapMax": ["t", "16777216"],
        "TasksMax": ["t", "21"], "CPUWeight": ["t", "100"], "CPUQuotaPerSecUSec": ["t", "500000"],
        "AllowedCPUs": ["ay", "2", "1", "2"],
      ])
    #expect(values(Limits()) == ["CPUWeight": ["t", "100"]])
  }

  @Test("a limit that is taken away is told as none")
  func resetting() {
    let none = values(Limits(), resetting: true)
    for name in ["MemoryMax", "MemoryHigh", "MemorySwapMax", "TasksMax", "CPUQuotaPerSecUSec"] {
      #expect(none[name] == ["t", String(UInt64.max)], "\(name)")
    }
    #expect(none["MemoryLow"] == ["t", "0"])
    #expect(none["AllowedCPUs"] == ["ay", "0"])
    #expect(none["IOWriteBandwidthMax"] == ["a(st)", "0"])
  }

  @Test("a controller that is not there is not told of, and an ordinary user is told that it is not delegated")
  func user() {
    let own = CgroupHierarchy(
      unified: "/sys/fs/cgroup", unifiedControllers: [.memory, .pids, .cpu], legacy: [:],
      base: "/user.slice/user-1000.slice/user@1000.service")
    var limits = Limits()
    limits.cpuset = "0"
    #expect(
      !SystemdSlice.properties(limits, CPUShare(.normal), own, resetting: true).contains { $0[0] == "AllowedCPUs" })
    let group = AppCgroup(own, slice: "appsupervisor-default-notes.slice")
    #expect(
      group.path
        == "/user.slice/user-1000.slice/user@1000.service/appsupervisor.slice/appsupervisor-default.slice/appsupervisor-default-notes.slice"
    )
    #expect(group.unsupported(limits).first?.reason == "the cpuset controller is not delegated to your user's systemd")
  }
}
