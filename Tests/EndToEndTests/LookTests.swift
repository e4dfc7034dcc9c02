import Foundation
import Model
import Testing

extension Instance {
  /// Runs a verb whose arguments end with a command of its own, through a shell that may pipe into it.
  func shell(_ script: String, within seconds: Double = 60) -> Outcome {
    let cli = "\(Self.programs)/supervisor --root \(root)"
    do {
      return try Started(
        ["/bin/bash", "-c", "supervisor() { \(cli) \"$@\"; }; export -f supervisor; \(script)"],
        ProcessInfo.processInfo.environment.merging(["NO_COLOR": "1", "TERM": "xterm"]) { $1 }
      ).finish(within: seconds)
    } catch { return Outcome(code: -1, out: "", err: "\(error)") }
  }
}

@Suite("looking into native apps and touching them", .serialized) struct LookTests {
  private func with(_ apps: [String: String], _ body: (Instance) throws -> Void) throws {
    let instance = try Instance()
    defer { instance.end() }
    for (name, yaml) in apps { try instance.write(name, "id: \(name)\n\(yaml)") }
    let up = instance.up()
    #expect(up.code == 0, "\(up.err)")
    try body(instance)
  }

  private let sleeper = "entry: [/bin/sleep, '1000']\n"

  @Test("exec: streams, variables, folder, user and every exit code")
  func exec() throws {
    try with(["a": sleeper]) { instance in
      let plain = instance.shell(
        "supervisor exec -e WORD=said -w /tmp a sh -c 'echo $WORD in $(pwd); echo err >&2; exit 9'")
      #expect(plain.code == 9 && plain.out == "said in /tmp\n" && plain.err == "err\n", "\(plain)")
      #expect(instance.shell("supervisor exec -u 0 a id -u").out == "0\n")
      #expect(instance.shell("supervisor exec a sh -c 'kill -9 $$'").code == 137)
      #expect(instance.shell("supervisor exec --timeout 300ms a sleep 60").code == 124)
      let missing = instance.shell("supervisor exec a no-such-program")
      #expect(missing.code == 127 && missing.err.contains("no-such-program is not in a"), "\(missing)")
      #expect(instance.shell("supervisor exec a /etc").code == 126)
      #expect(instance.shell("supervisor exec -u 77 a true").code == 126)
      #expect(instance.shell("supervisor exec nobody true").code == 4)
      #expect(instance.shell("supervisor exec a").code == 2)
      #expect(instance.run("stop", "a").code == 0)
      #expect(instance.shell("supervisor exec a true").code == 7)
    }
  }

  @Test("exec carries megabytes both ways, waits for a reader that stands still, and ends when one leaves")
  func bytes() throws {
    try with(["a": sleeper]) { instance in
      let both = instance.shell(
        "head -c 20000000 /dev/urandom | tee >(md5sum >&2) | supervisor exec -i a cat | md5sum; sleep 0.2")
      #expect(both.code == 0 && both.out.prefix(32) == both.err.prefix(32), "\(both)")
      let slow = instance.shell("supervisor exec a head -c 5000000 /dev/zero | (sleep 1; wc -c)")
      #expect(slow.out.trimmingCharacters(in: .whitespacesAndNewlines) == "5000000")
      #expect(instance.shell("supervisor exec a yes | head -1").out == "y\n")
      instance.wait("a") { ($0["pids"]?.integerValue ?? 9) <= 2 }
    }
  }

  @Test("two callers at once have each their own command; one that is killed takes its command along")
  func two() throws {
    try with(["a": sleeper]) { instance in
      let both = instance.shell(
        "supervisor exec a sh -c 'sleep 0.5; echo one; exit 3' & supervisor exec a sh -c 'echo two; exit 4'; echo $?; wait %1; echo $?"
      )
      #expect(both.out == "two\n4\none\n3\n", "\(both)")
      // The program itself, not the shell around it.
      _ = instance.shell(
        "\(Instance.programs)/supervisor --root \(instance.root) exec a sh -c 'trap \"\" HUP; while :; do sleep 1; done' & P=$!; sleep 0.7; kill -9 $P; wait"
      )
      instance.wait("a") { ($0["pids"]?.integerValue ?? 9) <= 2 }
    }
  }

  @Test("a terminal is the command's: its size, its signals, its end; when it vanishes, so does the command")
  func terminal() throws {
    try with(["a": sleeper]) { instance in
      let cli = "\(Instance.programs)/supervisor --root \(instance.root)"
      let size = instance.shell("script -qec 'stty cols 97 rows 33; \(cli) exec -t a stty size' /dev/null </dev/null")
      #expect(size.out.contains("33 97"), "\(size)")
      let code = instance.shell("script -qec '\(cli) exec -it a sh -c \"exit 5\"' /dev/null; echo code $?")
      #expect(code.out.contains("code 5"), "\(code)")
      let typed = instance.shell(
        "(sleep 1; echo 'echo $((6*7)); exit 6'; sleep 1) | script -qec '\(cli) exec -it a sh' /dev/null; echo code $?")
      #expect(typed.out.contains("42") && typed.out.contains("code 6"), "\(typed)")
      let refused = instance.shell("echo | supervisor exec -it a sh")
      #expect(refused.code == 2 && refused.err.contains("terminal"), "\(refused)")
      _ = instance.shell(
        "script -qec '\(cli) exec -it a sh -c \"trap : HUP; while true; do sleep 1; done\"' /dev/null </dev/zero >/dev/null & P=$!; sleep 1; kill -9 $P; wait"
      )
      instance.wait("a") { ($0["pids"]?.integerValue ?? 9) <= 2 }
    }
  }

  @Test("a daemon that is killed takes no command along: it says all it has to")
  func daemonKilled() throws {
    try with(["a": sleeper]) { instance in
      let pid = try #require(instance.daemon)
      let said = instance.shell(
        "(sleep 0.5; kill -9 \(pid)) & supervisor exec a sh -c 'sleep 1.5; echo all said'; echo code $?")
      #expect(said.out == "all said\ncode 125\n", "\(said)")
      #expect(said.err.contains("daemon went away"))
      #expect(instance.up().code == 0)
      #expect(instance.shell("supervisor exec a echo again").out == "again\n")
    }
  }

  @Test("stats, top and inspect say what the kernel counts")
  func numbers() throws {
    try with([
      "busy": "pids_limit: 20\nentry: [/bin/sh, -c, 'while :; do :; done']\n", "calm": sleeper,
    ]) { instance in
      let rows = instance.run("stats", "--no-stream", "--format", "json").lines
      let busy = try #require(rows.first { $0["name"] == "busy" })
      let calm = try #require(rows.first { $0["name"] == "calm" })
      #expect((busy["cpu_percent"]?.numberValue ?? 0) > 20 && (calm["cpu_percent"]?.numberValue ?? 99) < 5)
      #expect(busy["pids_limit"] == 20 && (calm["memory"]?.integerValue ?? 0) > 0)
      let table = instance.run("stats", "--no-stream", "calm")
      #expect(table.out.contains("MEM/LIMIT") && table.out.contains("calm") && !table.out.contains("busy"))
      // A stream goes on until its reader leaves.
      let stream = instance.shell("supervisor stats --interval 200ms --format json calm | head -3 | wc -l")
      #expect(stream.out.trimmingCharacters(in: .whitespacesAndNewlines) == "3", "\(stream)")
      let top = instance.run("top", "calm", "--format", "json").lines
      #expect(top.contains { $0["command"]?.stringValue?.contains("sleep 1000") == true })
      let all = try #require(instance.run("inspect", "calm").lines.first)
      #expect(all["policy"]?["id"] == "calm" && all["usage"]?["memory"] != nil && all["layers"] != nil, "\(all.text)")
      #expect(instance.run("top", "nobody").code == 4)
    }
  }

  @Test("followed logs of several apps go on over a daemon's death, nothing lost or twice; events go on from a cursor")
  func following() throws {
    let writer = "entry: [/bin/sh, -c, 'i=0; while :; do i=$$((i+1)); echo line $$i; sleep 0.1; done']\n"
    try with(["a": writer, "b": writer]) { instance in
      let logs = try Started(
        [
          "/usr/bin/env", "timeout", "-s", "INT", "9", "\(Instance.programs)/supervisor", "--root", instance.root,
          "logs", "-f", "a", "b",
        ],
        ProcessInfo.processInfo.environment)
      usleep(1_500_000)
      let cursor = instance.run("events", "--format", "json").lines.compactMap { $0["cursor"]?.integerValue }.max() ?? 0
      instance.killDaemon()
      usleep(1_000_000)
      instance.startDaemon()
      let said = logs.finish(within: 30)
      for app in ["a", "b"] {
        let numbers = said.out.split(separator: "\n").filter { $0.hasPrefix("\(app) |") }
          .compactMap { $0.split(separator: " ").last.flatMap { Int($0) } }
        let first = try #require(numbers.first)
        #expect(numbers.count > 50, "\(said)")
        #expect(numbers == Array(first..<first + numbers.count), "\(app): \(numbers)")
      }
      let later = instance.run("events", "--since", "\(cursor)", "--format", "json").lines
      #expect(
        later.contains { $0["event"] == "app.adopted" }
          && later.allSatisfy { ($0["cursor"]?.integerValue ?? 0) > cursor })
    }
  }

  @Test("run: a policy file, a template or another instance of an app, once, with its exit code and its bill")
  func runOnce() throws {
    try with(["a": "environment: {WORD: '$$own'}\n\(sleeper)"]) { instance in
      let file = try instance.write(
        "job", "id: job\ntemplate: true\nenvironment: {DAYS: '30'}\nentry: [/bin/sh, -c, 'echo $$DAYS; exit 4']\n")
      let job = instance.shell("supervisor run --rm \(file)")
      #expect(job.code == 4 && job.out == "30\n", "\(job)")
      #expect(job.err.contains("memory at most") && job.err.contains("CPU"))
      #expect(instance.shell("supervisor run --rm --quiet -e DAYS=7 \(file)").out == "7\n")
      let other = instance.shell("supervisor run --rm --quiet a sh -c 'echo $WORD \"$0\"'")
      #expect(other.code == 0 && other.out.hasPrefix("$own"), "\(other)")
      #expect(instance.shell("supervisor run --rm --quiet --timeout 500ms a sleep 60").code == 124)
      #expect(instance.shell("supervisor run --rm a /no/such/program").code == 127)
      let image = instance.shell("supervisor run no-such-image:1 true")
      #expect(image.code == 125 && image.err.contains("no container engine"), "\(image)")
      #expect(instance.run("ps", "-a", "-q").out == "a\n", "nothing is left of them")
      // `up` leaves a template alone.
      #expect(instance.up().code == 0)
      #expect(instance.app("job") == nil)
    }
  }

  @Test("every end is kept: why, how near the limits, what it wrote last, and what changed since the last good run")
  func blackBox() throws {
    try with(["a": "restart: 'no'\nentry: [/bin/sh, -c, 'echo good; exit 0']\n"]) { instance in
      instance.wait("a") { $0["state"] == "completed" }
      try instance.write(
        "a",
        "id: a\nrestart: 'no'\nmem_limit: 16m\nentry: [/bin/sh, -c, 'echo hungry; x=0123456789abcdef; while :; do x=$$x$$x; done']\n"
      )
      instance.up()
      instance.wait("a") { $0["exit_code"] == 137 }
      let exit = try #require(instance.run("explain", "a", "--exit", "-1", "--format", "json").lines.first)
      #expect(exit["oom"] == true && exit["good"] == false, "\(exit.text)")
      #expect((exit["memory_peak"]?.integerValue ?? 0) > 12 << 20)
      #expect(exit["changed_since"]?.arrayValue?.contains("mem_limit") == true)
      let words = instance.run("explain", "a", "--exit", "-1").out
      #expect(words.contains("mem_limit: 32m") && words.contains("hungry"), "\(words)")
      #expect(instance.run("explain", "a").out.contains("mem_limit: 32m"))
      #expect(instance.run("logs", "a", "--run", "-1").out == "hungry\n")
      #expect(instance.run("logs", "a", "--run", "-2").out == "good\n")
      #expect(instance.run("logs", "a", "--run", "-9").code == 4)
      // As before, after the daemon's death.
      instance.killDaemon()
      instance.startDaemon()
      #expect(instance.run("explain", "a", "--exit", "-2").out.contains("good"))
      // Bounded: a loop leaves the newest.
      try instance.write(
        "a",
        "id: a\nrestart: always\nrestart_policy: {delay: 1ms, max_attempts: 14, max_delay: 2ms}\nentry: [/bin/false]\n")
      instance.up()
      instance.wait("a") { $0["state"] == "failed" }
      let all = instance.run("api", "app.exits", "{\"app\": \"a\"}").out
      let count = (try? JSONValue(parsing: Array(all.utf8)))?["exits"]?.arrayValue?.count
      #expect(count == 10, "\(all)")
    }
  }
}
