import Model
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
