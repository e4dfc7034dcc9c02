import Glibc
import Linux
import Model
import ProcessHosting
import Testing

/// By hand: `MEASURE=1`, in a release build. Figures are printed, not asserted: they say as much of the machine as of us.
@Suite("native figures", .serialized, .enabled(if: getenv("MEASURE") != nil && canRunNative, "asked for by MEASURE=1"))
struct NativeMeasures {
  /// A static program whose first instruction takes the time and whose second writes it.
  static let probe = """
    #include <sys/syscall.h>
    static long call(long n, long a, long b, long c) {
      long r; __asm__ volatile("syscall" : "=a"(r) : "a"(n), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory"); return r;
    }
    void _start(void) {
      long t[2]; call(SYS_clock_gettime, 1, (long)t, 0);
      call(SYS_write, 1, (long)t, 16); call(SYS_exit, 0, 0, 0);
    }
    """

  private func median(_ values: [Double]) -> Double { values.sorted()[values.count / 2] }

  private func buildProbe(_ rig: NativeRig) throws -> String {
    let folder = try Folder(opening: rig.folder)
    try folder.replace("probe.c", with: Array(Self.probe.utf8))
    let program = "\(rig.folder)/probe"
    #expect(system("cc -O1 -static -nostdlib -fno-stack-protector -o \(program) \(rig.folder)/probe.c") == 0)
    return program
  }

  @Test("request to first instruction") func start() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig else { return }
      var policy = try rig.policy("probe", "")
      policy.entry = [try buildProbe(rig)]
      var total: [Double] = []
      var created: [Double] = []
      var startOnly: [Double] = []
      for generation in 1...200 {
        let launch = Launch(
          policy: policy, generation: UInt64(generation), nonce: "n\(generation)", uidBase: 0x20_0000, artifact: "")
        let begin = Clock.monotonic()
        let instance = try await stage.host.create(launch)
        let middle = Clock.monotonic()
        let facts = try await stage.host.start(instance, launch)
        let running = Running(instance: instance, launch: launch, facts: facts)
        _ = try await stage.end(running)
        var bytes: [UInt8] = []
        for try await chunk in stage.host.logs(policy.id, instance, LogQuery()) { bytes += chunk.bytes }
        let time = bytes.withUnsafeBytes { $0.load(as: (Int64, Int64).self) }
        let first = time.0 * 1_000_000_000 + time.1
        total.append(Double(first - begin) / 1e6)
        created.append(Double(middle - begin) / 1e6)
        try await stage.host.remove(instance)
      }
      // As with a daemon that records the instance in between: the sandbox is built meanwhile.
      for generation in 201...300 {
        let launch = Launch(
          policy: policy, generation: UInt64(generation), nonce: "n\(generation)", uidBase: 0x20_0000, artifact: "")
        let instance = try await stage.host.create(launch)
        try await Task.sleep(for: .milliseconds(20))
        let begin = Clock.monotonic()
        let facts = try await stage.host.start(instance, launch)
        _ = try await stage.end(Running(instance: instance, launch: launch, facts: facts))
        var bytes: [UInt8] = []
        for try await chunk in stage.host.logs(policy.id, instance, LogQuery()) { bytes += chunk.bytes }
        let time = bytes.withUnsafeBytes { $0.load(as: (Int64, Int64).self) }
        startOnly.append(Double(time.0 * 1_000_000_000 + time.1 - begin) / 1e6)
        try await stage.host.remove(instance)
      }
      print("create + start to first instruction: median \(median(total)) ms, best \(total.min() ?? 0)")
      print("of which create: median \(median(created)) ms; start of a prepared one: median \(median(startOnly)) ms")
    }
  }

  @Test("what a shim holds") func shimMemory() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      var apps: [Running] = []
      for number in 0..<20 { apps.append(try await stage.run(stage.rig.policy("idle\(number)", "exec sleep 1000"))) }
      var shims: [Double] = []
      var reapers: [Double] = []
      for app in apps {
        let reaper = try parent(of: app.facts.pid)
        reapers.append(try pss(reaper))
        shims.append(try pss(parent(of: reaper)))
      }
      print("PSS with 20 apps: a shim \(median(shims)) kB, a reaper \(median(reapers)) kB")
      for app in apps {
        try await stage.host.kill(app.instance)
        _ = try await stage.end(app)
        try await stage.host.remove(app.instance)
      }
    }
  }

  @Test("log drain") func drain() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig else { return }
      for (block, count) in [(65_536, 16_384), (100, 2_000_000)] {
        var policy = try rig.policy("drain\(block)", "dd if=/dev/zero bs=\(block) count=\(count) 2>/dev/null")
        policy.logging.maximumSize = .mebibytes(100)
        policy.logging.maximumFiles = 2
        let running = try await stage.run(policy)
        let report = try await stage.end(running, within: 120)
        let seconds = report.endedAt.since(try #require(report.startedAt)).seconds
        print("\(block)-byte writes: \(Double(block * count) / seconds / 1e6) MB/s")
        try await stage.host.remove(running.instance)
      }
    }
  }

  private func parent(of pid: Int32) throws -> Int32 {
    let line = try File.text("/proc/\(pid)/status").split(separator: "\n").first { $0.hasPrefix("PPid:") }
    return try #require(line.flatMap { Int32($0.dropFirst(6)) })
  }

  private func pss(_ pid: Int32) throws -> Double {
    let line = try File.text("/proc/\(pid)/smaps_rollup").split(separator: "\n").first { $0.hasPrefix("Pss:") }
    return try #require(line.flatMap { $0.split(separator: " ").dropFirst().first }.flatMap { Double($0) })
  }
}
