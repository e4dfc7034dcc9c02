import Glibc
import Linux
import Model
import Synchronization
import Testing

/// What every runtime must do with a command inside a running app.
enum ExecContract {
  private static func withApp(
    _ rig: any HostRig, _ script: String = "while :; do sleep 1; done", _ change: (inout Policy) -> Void = { _ in },
    _ body: @Sendable (Stage, Running) async throws -> Void
  ) async throws {
    try await HostContract.withStage(rig) { stage in
      var policy = try rig.policy("host-of-it", script)
      change(&policy)
      let running = try await stage.run(policy)
      try await body(stage, running)
      try? await stage.host.kill(running.instance)
      _ = try await stage.end(running)
      try await stage.host.remove(running.instance)
    }
  }

  private static func request(_ script: String, keep: Int = 1 << 16) -> ExecRequest {
    var request = ExecRequest(["sh", "-c", script])
    request.streams = .keep(keep)
    request.timeout = .seconds(30)
    return request
  }

  private static func text(_ end: ExecEnd) -> String { String(decoding: end.output, as: UTF8.self) }

  static func exitCode(_ rig: any HostRig) async throws {
    try await withApp(rig, "exec sleep 1000", { $0.environment = [.init(name: "OWN", value: "app")] }) {
      (stage, running) in
      var asked = request("echo $OWN $GIVEN in $(pwd); echo oops >&2; exit 9")
      asked.environment = [("GIVEN", "a word")]
      asked.workingFolder = "/tmp"
      let end = try await stage.host.exec(running.instance, running.launch, asked)
      #expect(end.cause == .code(9) && end.exitCode == 9)
      #expect(text(end).contains("app a word in /tmp\n") && text(end).contains("oops\n"))
      let killed = try await stage.host.exec(running.instance, running.launch, request("kill -9 $$"))
      #expect(killed.exitCode == 137)
      // What reads gets nothing, and the end at once.
      let reader = try await stage.host.exec(running.instance, running.launch, request("cat; echo done"))
      #expect(text(reader) == "done\n")
    }
  }

  static func refusals(_ rig: any HostRig) async throws {
    try await withApp(rig) { stage, running in
      func failure(_ change: (inout ExecRequest) -> Void) async -> HostFailure? {
        var asked = request("true")
        change(&asked)
        return await #expect(throws: HostFailure.self) {
          try await stage.host.exec(running.instance, running.launch, asked)
        }
      }
      #expect(await failure { $0.command = ["/no/such/program"] }?.kind == .missing)
      #expect(await failure { $0.command = ["nothing-of-that-name"] }?.kind == .missing)
      #expect(await failure { $0.command = ["/etc"] }?.kind == .refused)
      #expect(await failure { $0.workingFolder = "/no/such/folder" }?.kind == .refused)
      #expect(await failure { $0.user = ExecUser(uid: 12, gid: 12) }?.kind == .refused)
      #expect(await failure { $0.command = [] }?.kind == .refused)
      #expect(
        await failure { $0.environment = [("BIG", String(repeating: "x", count: ExecRequest.maximumBytes))] }?.kind
          == .refused)
      try await stage.host.setPaused(running.instance, true)
      #expect(await failure { _ in }?.kind == .conflict)
      try await stage.host.setPaused(running.instance, false)
      #expect(try await stage.host.exec(running.instance, running.launch, request("true")).exitCode == 0)
    }
  }

  /// Status, limits, groups and namespaces of the command, as the kernel shows them to itself, are those of the app.
  static func sameSandbox(_ rig: any HostRig) async throws {
    let show = """
      grep -E '^(Uid|Gid|Cap|NoNewPrivs|Seccomp:)' /proc/self/status; id -G | tr ' ' '\\n' | grep -v "^$(id -g)$"; ulimit -n; ulimit -c; \
      for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done; cat /proc/self/oom_score_adj; \
      cat /proc/self/cgroup; umask; cat /proc/self/attr/current 2>/dev/null; hostname; ls /proc/self/fd
      """
    try await withApp(rig, "(\(show)) ; exec sleep 1000") { stage, running in
      var own = ""
      try await eventually("it has shown all") {
        own = try await stage.output(running)
        return own.hasSuffix("2\n3\n") || own.contains("\n3\n")
      }
      let end = try await stage.host.exec(running.instance, running.launch, request("(\(show))"))
      #expect(text(end) == own)
      #expect(text(end).contains("NoNewPrivs:\t1"))
    }
  }

  static func lateCommand(_ rig: any HostRig) async throws {
    try await withApp(rig) { stage, running in
      var asked = request("echo begun; trap '' TERM HUP INT; sleep 600 & wait; sleep 600")
      asked.timeout = .milliseconds(700)
      let before = try await stage.host.usage(running.instance).pids
      let began = Clock.monotonic()
      let end = try await stage.host.exec(running.instance, running.launch, asked)
      #expect(end.cause == .timedOut && end.exitCode == 124)
      #expect(text(end) == "begun\n")
      #expect(Clock.monotonic() - began < 5_000_000_000)
      try await onlyTheApp(stage, running, before)
    }
  }

  static func cancelled(_ rig: any HostRig) async throws {
    try await withApp(rig) { stage, running in
      let asked = request("trap '' HUP; sleep 600 & sleep 600 & sleep 600 & while :; do sleep 1; done")
      let before = try await stage.host.usage(running.instance).pids
      let work = Task { try await stage.host.exec(running.instance, running.launch, asked) }
      try await eventually("it runs") { try await stage.host.usage(running.instance).pids >= 6 }
      work.cancel()
      await #expect(throws: HostFailure.self) { try await work.value }
      try await onlyTheApp(stage, running, before)
    }
  }

  private static func onlyTheApp(_ stage: Stage, _ running: Running, _ before: UInt64) async throws {
    try await eventually("nothing of the command is left") {
      try await stage.host.usage(running.instance).pids <= before + 1
    }
  }

  static func flood(_ rig: any HostRig) async throws {
    try await withApp(rig) { stage, running in
      let asked = request(
        "i=0; while [ $i -lt 200 ]; do echo $i; head -c 65536 /dev/zero; i=$((i+1)); done; echo last", keep: 4096)
      let end = try await stage.host.exec(running.instance, running.launch, asked)
      #expect(end.exitCode == 0 && end.output.count == 4096)
      #expect(end.dropped > 200 * 65536 - 4096)
      #expect(text(end).hasSuffix("last\n"))
    }
  }

  static func endsWithApp(_ rig: any HostRig) async throws {
    try await withApp(rig) { stage, running in
      let work = Task {
        try await stage.host.exec(
          running.instance, running.launch, request("sleep 600 & sleep 600 & sleep 600 & while :; do sleep 1; done"))
      }
      try await eventually("it runs") { try await stage.host.usage(running.instance).pids >= 6 }
      // An engine's runtime counts too while it starts the command.
      try await Task.sleep(for: .milliseconds(700))
      try await stage.host.signal(running.instance, 9)
      _ = try await stage.end(running)
      let end = try await work.value
      #expect(end.exitCode == 137, "\(end)")
    }
  }

  // MARK: Streams

  /// The caller's ends once they were handed over.
  private final class Ends: Sendable {
    private let stream: AsyncStream<DescriptorEnds>
    private let feed: AsyncStream<DescriptorEnds>.Continuation
    init() { (stream, feed) = AsyncStream.makeStream(of: DescriptorEnds.self) }
    var streams: @Sendable (any StreamEnds) -> Void {
      { ends in if let ends = ends as? DescriptorEnds { self.feed.yield(ends) } }
    }
    func arrived() async throws -> DescriptorEnds {
      for await ends in stream { return ends }
      throw TooLate(what: "streams")
    }
  }

  private static let loop: EventLoop? = try? EventLoop(name: "exec-tests")

  private static func connect(_ ends: Ends, input: Bool, terminal: TerminalSize? = nil) -> ExecStreams {
    .connect(input: input, terminal: terminal) { given in ends.streams(given) }
  }

  static func input(_ rig: any HostRig) async throws {
    try await withApp(rig) { stage, running in
      let ends = Ends()
      var asked = ExecRequest(["sh", "-c", "cat; echo end >&2; exit 4"])
      asked.streams = connect(ends, input: true)
      let work = Task { [asked] in try await stage.host.exec(running.instance, running.launch, asked) }
      let given = try await ends.arrived()
      let loop = try #require(loop)
      let output = try LoopStream(given.output, on: loop)
      let errors = try LoopStream(#require(given.errors), on: loop)
      let size = 3 << 20
      let writer = Task {
        let input = try LoopStream(#require(given.input), on: loop)
        for piece in 0..<(size >> 16) {
          try await input.write([UInt8](repeating: UInt8(truncatingIfNeeded: piece), count: 1 << 16))
        }
        await input.close()
      }
      var got: [UInt8] = []
      while got.count < size, let more = try await output.read() { got += more }
      try await writer.value
      #expect(got.count == size && got[size - 1] == UInt8(truncatingIfNeeded: size >> 16 - 1))
      // Our copy of the writing end is the last but the test's own.
      withExtendedLifetime(given) {}
      _ = errors
      #expect(got.first == 0)
      work.cancel()
      _ = try? await work.value
    }
  }

  static func terminal(_ rig: any HostRig) async throws {
    try await withApp(rig) { stage, running in
      let ends = Ends()
      let (orders, order) = AsyncStream.makeStream(of: ExecOrder.self)
      var asked = ExecRequest([
        "sh", "-c",
        "test -t 0 && test -t 1 && echo terminal; until stty size 2>/dev/null | grep 31; do :; done; read go; stty size; read stop; exit 3",
      ])
      asked.streams = connect(ends, input: true, terminal: TerminalSize(columns: 91, rows: 31))
      asked.orders = orders
      let work = Task { [asked] in try await stage.host.exec(running.instance, running.launch, asked) }
      let given = try await ends.arrived()
      let stream = try LoopStream(given.output, on: #require(loop))
      var said = ""
      func expect(_ words: String) async throws {
        let late = Task {
          try await Task.sleep(for: .seconds(15))
          await stream.close()
        }
        defer { late.cancel() }
        while !said.contains(words) {
          guard let more = try await stream.read() else { throw TooLate(what: "\(words), after \(said)") }
          said += String(decoding: more, as: UTF8.self)
        }
      }
      try await expect("terminal\r\n")
      try await expect("31 91")
      order.yield(.resize(TerminalSize(columns: 120, rows: 40)))
      try await Task.sleep(for: .milliseconds(100))
      try await stream.write(Array("go\n".utf8))
      try await expect("40 120")
      // Ctrl-C reaches what runs there.
      try await stream.write([3])
      let end = try await work.value
      #expect(end.exitCode == 130, "\(end)")
      await stream.close()
    }
  }
}
