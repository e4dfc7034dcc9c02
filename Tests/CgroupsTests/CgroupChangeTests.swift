import Glibc
import Linux
import Model
import Scheduling
import Testing

@testable import Cgroups

@Suite("limits of a group whose processes run", .enabled(if: canMakeGroups, "no writable cgroup hierarchy"))
struct CgroupChangeTests {
  private static let share = CPUShare(Priority.normal)

  private func limits(_ memory: UInt64, pids: UInt64 = 64, cpus: Double? = nil, swap: UInt64? = nil) -> Limits {
    var limits = Limits()
    limits.memory = .mebibytes(memory)
    limits.memoryAndSwap = .mebibytes(swap ?? memory)
    limits.pids = pids
    limits.cpus = cpus
    return limits
  }

  private func broken(_ group: AppCgroup, _ limits: Limits) -> [LayerReport] {
    group.readBack(limits, share: Self.share).filter { $0.status == .missing }
  }

  @Test("grow and shrink, with swap and without, each in one go and read back")
  func both() async throws {
    let start = limits(64, cpus: 0.5)
    try await withGroup(.native, start) { group in
      #expect(group.apply(start, share: Self.share).isEmpty)
      let pid = try spawn("exec sleep 30", in: group, start)
      defer { kill(pid, SIGKILL); _ = waitFor(pid) }
      var former = start
      for next in [
        limits(128, pids: 32, cpus: 1), limits(32, cpus: 0.25), limits(32, swap: 96), limits(96, swap: 96),
        limits(48, swap: 200), limits(200, swap: 200), limits(64),
      ] {
        try group.change(to: next, share: Self.share, former: former)
        #expect(broken(group, next).isEmpty, "\(broken(group, next))")
        former = next
      }
    }
  }

  @Test("what is undone is as it was, to the letter")
  func undo() async throws {
    let start = limits(64, cpus: 0.5)
    try await withGroup(.native, start) { group in
      #expect(group.apply(start, share: Self.share).isEmpty)
      let journal = try group.change(to: limits(32, pids: 9, swap: 32), share: CPUShare(Priority.high), former: start)
      #expect(!journal.entries.isEmpty)
      #expect(journal.undo().isEmpty)
      #expect(broken(group, start).isEmpty)
    }
  }

  @Test("nothing is written where all is as asked")
  func same() async throws {
    let start = limits(64)
    try await withGroup(.native, start) { group in
      #expect(group.apply(start, share: Self.share).isEmpty)
      #expect(try group.change(to: start, share: Self.share, former: start).entries.isEmpty)
      try group.reassert(start, share: Self.share)
    }
  }

  @Test("less memory than is used and cannot be reclaimed is refused in words, and nothing of the rest is changed")
  func tooSmall() async throws {
    let start = limits(128)
    try await withGroup(.native, start) { group in
      #expect(group.apply(start, share: Self.share).isEmpty)
      // A shell variable of 24 MiB is memory that cannot be reclaimed without swap.
      let pid = try spawn(
        "x=$(head -c 25165824 /dev/zero | tr '\\0' a); echo ready >&2; exec 2>&-; sleep 30; : $x", in: group, start)
      defer { try? group.kill(); _ = waitFor(pid) }
      try await eventually("it holds its memory") { group.usage().memory > .mebibytes(24) }
      let refusal = #expect(throws: ChangeRefusal.self) {
        try group.change(to: limits(8, pids: 5), share: Self.share, former: start)
      }
      #expect(refusal?.limit == "mem_limit" || refusal?.limit == "memswap_limit")
      #expect(refusal?.reason.contains("reclaim") == true, "\(refusal?.description ?? "")")
      #expect(refusal?.notRestored == [])
      #expect(broken(group, start).isEmpty)
      #expect(kill(pid, 0) == 0)
    }
  }

  @Test("a limit this kernel has not is refused, and nothing of the rest is changed")
  func unsupported() async throws {
    let start = limits(64)
    try await withGroup(.native, start) { group in
      #expect(group.apply(start, share: Self.share).isEmpty)
      var next = limits(32)
      next.block.writeBytesPerSecond = [.init(path: "/dev/no-such-disk", rate: 1)]
      #expect(throws: ChangeRefusal.self) { try group.change(to: next, share: Self.share, former: start) }
      #expect(broken(group, start).isEmpty)
    }
  }

  @Test("a set of cores can be given to what runs, and taken away again")
  func cores() async throws {
    let start = limits(64)
    try await withGroup(.native, start) { group in
      guard group.folder(.cpuset) != nil else { return }
      #expect(group.apply(start, share: Self.share).isEmpty)
      let pid = try spawn("sleep 30 & wait", in: group, start)
      defer { try? group.kill(); _ = waitFor(pid) }
      try await eventually("both run") { try group.processes.count == 2 }
      var next = start
      next.cpuset = "0"
      try group.change(to: next, share: Self.share, former: start)
      #expect(broken(group, next).isEmpty)
      for process in try group.processes {
        let status = try File.text("/proc/\(process)/status")
        #expect(status.contains("Cpus_allowed_list:\t0\n"))
      }
      // As if the daemon had been killed on the way.
      try group.reassert(start, share: Self.share)
      let status = try File.text("/proc/\(pid)/status")
      let own = try File.text("/proc/self/status")
      func cores(_ text: String) -> Substring? {
        text.split(separator: "\n").first { $0.hasPrefix("Cpus_allowed_list") }
      }
      #expect(cores(status) == cores(own))
    }
  }

  @Test("of memory and swap, the one that grows goes first")
  func order() {
    #expect(LimitOrder.bothFirst(now: 10, wanted: 20))
    #expect(LimitOrder.bothFirst(now: 10, wanted: 10))
    #expect(!LimitOrder.bothFirst(now: 20, wanted: 10))
  }

  @Test("what a parent needs while its child still has the old limits")
  func wide() {
    var old = limits(64, cpus: 1)
    old.cpuset = "0"
    var new = limits(32, cpus: 0.5)
    new.cpuset = "1"
    let wide = new.wide(enoughFor: old)
    #expect(wide.cpus == 1)
    #expect(wide.cpuset == "0-1")
    #expect(wide.memory == .mebibytes(32))
    old.cpus = nil
    old.cpuset = nil
    #expect(new.wide(enoughFor: old).cpus == nil)
    #expect(new.wide(enoughFor: old).cpuset == nil)
  }
}
