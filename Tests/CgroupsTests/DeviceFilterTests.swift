import Glibc
import Linux
import Model
import Testing

@testable import Cgroups

private let hasV2: Bool = {
  guard canMakeGroups, geteuid() == 0 else { return false }
  return (try? CgroupHierarchy.detect())?.unified != nil
}()

@Suite("what a group's processes may do with devices", .enabled(if: hasV2, "needs root and a v2 hierarchy"))
struct DeviceFilterTests {
  /// Runs `script` in a group of v2's that has the rules; its exit code.
  private func run(_ script: String, under rules: [String], again: [String]? = nil) throws -> Int32 {
    let root = try #require(try CgroupHierarchy.detect().unified)
    let folder = "\(root)/appsupervisor-test-\(getpid())-\(UInt32.random(in: 0...UInt32.max))"
    _ = try Folder(making: folder, mode: 0o755)
    defer { rmdir(folder) }
    #expect(!DeviceFilter.isSet(folder))
    for rules in [rules] + (again.map { [$0] } ?? []) {
      try DeviceFilter.set(folder, rules.map { try #require(DeviceFilter.Rule($0), "\($0)") })
    }
    #expect(DeviceFilter.isSet(folder))
    let argv: [UnsafeMutablePointer<CChar>?] = [
      strdup("sh"), strdup("-c"), strdup("echo $$ > '\(folder)/cgroup.procs' || exit 99; \(script)"), nil,
    ]
    defer { for argument in argv { free(argument) } }
    var pid: pid_t = 0
    #expect(posix_spawn(&pid, "/bin/sh", nil, nil, argv, environ) == 0)
    return waitFor(pid) >> 8
  }

  @Test("what a rule names can be used as it says, everything else cannot, also by root")
  func rules() throws {
    let basic = ["c 1:3 rwm", "c 1:5 r"]
    #expect(try run("exec 3<>/dev/null", under: basic) == 0)
    #expect(try run("exec 3</dev/zero", under: basic) == 0)
    #expect(try run("(exec 3>/dev/zero) 2>&-", under: basic) == 2)
    #expect(try run("(exec 3</dev/full) 2>&-", under: basic) == 2)
    #expect(try run("(exec 3</dev/kmsg) 2>&-", under: basic) == 2)
    #expect(try run("(exec 3</dev/full) 2>&-", under: []) == 2)
  }

  @Test("any minor number, the making of nodes, and a second set in place of the first")
  func widths() throws {
    #expect(try run("exec 3</dev/full 4</dev/zero", under: ["c 1:* r"]) == 0)
    let make = "cd /var/tmp && n=node.$$ && mknod $n c 1 7 2>&-; code=$?; rm -f $n; exit $code"
    #expect(try run(make, under: ["c 1:7 rw"]) == 1)
    #expect(try run(make, under: ["c 1:7 m"]) == 0)
    #expect(try run("(exec 3</dev/zero) 2>&-", under: ["c 1:5 r"], again: ["c 1:3 rwm"]) == 2)
    #expect(try run("exec 3</dev/zero", under: ["c 1:3 rwm"], again: ["c 1:5 r"]) == 0)
  }

  @Test("what is no rule for a character device is none")
  func malformed() {
    for text in ["", "c 1:3", "b 8:0 rwm", "a *:* rwm", "c *:* rwm", "c 1:x r", "c 1:3 rx", "c -1:3 r", "c 4096:0 r"] {
      #expect(DeviceFilter.Rule(text) == nil, "\(text)")
    }
    #expect(throws: SystemFault.self) { try DeviceFilter.set("/sys/fs/cgroup/not-there", []) }
  }
}
