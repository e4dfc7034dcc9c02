import Cgroups
import Glibc
import Linux
import ImageStorage
import Model
import ProcessHosting
import Testing

/// Whether this host lets us make groups and namespaces; `REQUIRE=cgroup` makes a skip a failure.
let canRunNative: Bool = {
  let required = getenv("REQUIRE").map { String(cString: $0).split(separator: ",").contains("cgroup") } ?? false
  guard let hierarchy = try? CgroupHierarchy.detect(), let root = hierarchy.unified ?? hierarchy.legacy[.memory] else {
    return required
  }
  return required || (geteuid() == 0 && access(root, W_OK) == 0)
}()

/// Native apps in an instance of the test's own.
final class NativeRig: HostRig {
  let layout: InstanceLayout
  let hierarchy: CgroupHierarchy
  let folder: String

  init() throws {
    let name = "test\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    folder = "\(getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp")/appsupervisor-\(name)"
    layout = InstanceLayout(
      config: "\(folder)/config", state: "\(folder)/state", run: "\(folder)/run", log: "\(folder)/log", name: name,
      id: name)
    hierarchy = try CgroupHierarchy.detect()
    _ = try Folder(making: folder, mode: 0o711)
  }

  /// Beside the tests themselves, or where `APPSUPERVISOR_BIN` says.
  static var shim: String {
    if let folder = getenv("APPSUPERVISOR_BIN") { return "\(String(cString: folder))/supervisor-shim" }
    let own = (try? Place.resolve("/proc/self/exe")) ?? ""
    let beside = own.split(separator: "/").dropLast().joined(separator: "/")
    if File.exists("/\(beside)/supervisor-shim") { return "/\(beside)/supervisor-shim" }
    let package = #filePath.split(separator: "/").dropLast(3).joined(separator: "/")
    return "/\(package)/.build/debug/supervisor-shim"
  }

  func makeHost() async throws -> any AppHost {
    try NativeHost(
      layout: layout, hierarchy: hierarchy, shimPath: Self.shim,
      images: ImageStore(folder: layout.images, program: "/nonexistent"))
  }

  func drop(_ host: any AppHost) async { await (host as? NativeHost)?.shutDown() }

  func policy(_ name: String, _ script: String) throws -> Policy {
    var policy = Policy(id: try #require(AppID(name)), stack: "test", runtime: .native, baseFolder: folder)
    policy.entry = ["/bin/sh", "-c", script]
    policy.limits.memory = .mebibytes(64)
    policy.limits.memoryAndSwap = .mebibytes(64)
    policy.limits.pids = 64
    return policy
  }

  func tearDown() async {
    for root in hierarchy.roots {
      let parent = root + layout.cgroupParent
      for name in (try? Folder(opening: parent).names()) ?? [] where File.exists("\(parent)/\(name)/cgroup.procs") {
        let group = AppCgroup(hierarchy, path: "\(layout.cgroupParent)/\(name)", kind: .native)
        _ = try? group.kill(within: .seconds(5))
        _ = try? group.remove(within: .seconds(5))
      }
    }
    AppCgroup.removeParent(hierarchy, parent: layout.cgroupParent)
    let remove: [UnsafeMutablePointer<CChar>?] = [strdup("rm"), strdup("-rf"), strdup(folder), nil]
    defer { for text in remove { free(text) } }
    var pid: pid_t = 0
    if posix_spawn(&pid, "/bin/rm", nil, nil, remove, environ) == 0 {
      var status: Int32 = 0
      waitpid(pid, &status, 0)
    }
  }
}
