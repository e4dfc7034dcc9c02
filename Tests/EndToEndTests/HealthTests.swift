import Foundation
import Model
import Testing

/// What an app with a check, a readiness or an order of its own is written with.
extension Instance {
  /// A server on port 8080 of its own network, which does by its name what a good or a hostile one would; `after` seconds pass before
  /// it listens. On SIGUSR1 it stops to listen, and goes on.
  func server(_ kind: String = "web", after: Double = 0) throws {
    let script = """
      #!/usr/bin/perl
      use IO::Socket::INET;
      $| = 1;
      select(undef, undef, undef, \(after));
      my $s = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 8080, Listen => 64, ReuseAddr => 1) or die;
      my $on = 1;
      $SIG{USR1} = sub { close $s; $on = 0; };
      $SIG{TERM} = sub { exit 0 };
      print "now listening\\n";
      my $kind = "\(kind)";
      my @held;
      while ($on) {
        my $c = $s->accept or next;
        if ($kind eq "hang") { push @held, $c; next; }
        sysread $c, my $request, 4096;
        if ($kind eq "endless") { syswrite $c, "HTTP/1.1 200 OK\\r\\n"; local $SIG{PIPE} = "IGNORE"; 1 while syswrite $c, "X" x 65536; next; }
        my $status = $kind eq "sick" ? "503 Sick" : "200 OK";
        syswrite $c, "HTTP/1.1 $status\\r\\nContent-Length: 2\\r\\nConnection: close\\r\\n\\r\\nok";
        close $c;
      }
      sleep 1000;

      """
    let path = "\(policies)/\(kind)-\(after).pl"
    try script.write(toFile: path, atomically: true, encoding: .utf8)
    try FileManager.default.setAttributes([.posixPermissions: 0o755], ofItemAtPath: path)
  }

  /// Stored events of an app, oldest first.
  func history(_ app: String) -> [JSONValue] { run("events", app, "--format", "json").lines }

  /// The first event of this name with this field, or any value of it.
  func event(_ app: String, _ name: String, _ field: String? = nil, _ value: String? = nil) -> JSONValue? {
    history(app).first { event in
      event["event"]?.stringValue == name && (field.map { event[$0]?.stringValue == value } ?? true)
    }
  }

  /// The place of an event in history; fails the test without it.
  func cursor(_ app: String, _ name: String, _ field: String? = nil, _ value: String? = nil) -> Int64 {
    let cursor = event(app, name, field, value)?["cursor"]?.integerValue
    if cursor == nil { Issue.record("\(app) has no \(name) \(value ?? ""): \(events(app))") }
    return cursor ?? -1
  }
}

private let check = "healthcheck: {tcp: {port: 8080}, interval: 200ms, timeout: 1s, retries: 1, start_period: 20s}\n"

@Suite("Order and health", .serialized) struct HealthTests {
  private func with(_ body: (Instance) throws -> Void) throws {
    let instance = try Instance()
    defer { instance.end() }
    try body(instance)
  }

  @Test("an app that needs another healthy starts once it is; up --wait returns once all are; they stop in reverse")
  func healthyFirst() throws {
    try with { instance in
      try instance.server(after: 0.4)
      try instance.write("db", "id: db\nentry: [./web-0.4.pl]\nready: healthy\n\(check)")
      try instance.write(
        "api", "id: api\nentry: [/bin/sleep, '1000']\ndepends_on: {db: {condition: service_healthy}}\n")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      #expect(instance.cursor("db", "app.started") < instance.cursor("db", "app.ready"))
      #expect(instance.cursor("db", "app.ready") < instance.cursor("api", "app.created"))
      let row = try #require(instance.app("db"))
      #expect(row["health"] == "healthy" && row["ready"] == true)
      #expect(row["status"]?.stringValue?.contains("(healthy)") == true)
      #expect(instance.run("ps").out.contains("healthy"))
      #expect(instance.run("ps", "--filter", "health=healthy", "-q").out == "db\n")
      #expect(instance.run("status", "db").out.contains("tcp port 8080 every 200ms"))
      #expect(instance.run("stop", "db", "api").code == 0)
      #expect(instance.cursor("api", "app.exited") < instance.cursor("db", "app.stopping"))
    }
  }

  @Test("a chain of ten is ready in order, without waiting for anybody's interval")
  func chain() throws {
    try with { instance in
      try instance.server()
      for place in 0..<10 {
        let needs = place == 0 ? "" : "depends_on: {c\(place - 1): {condition: service_healthy}}\n"
        try instance.write(
          "c\(place)", "id: c\(place)\nentry: [./web-0.0.pl]\nhealthcheck: {tcp: {port: 8080}, interval: 30s}\n\(needs)"
        )
      }
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      let begun = try #require(instance.event("c0", "app.waiting")?["time"]?.integerValue)
      let ended = try #require(instance.event("c9", "app.health")?["time"]?.integerValue)
      for place in 1..<10 {
        #expect(instance.cursor("c\(place - 1)", "app.health") < instance.cursor("c\(place)", "app.created"))
      }
      let milliseconds = (ended - begun) / 1_000_000
      print("a chain of ten native apps was healthy after \(milliseconds) ms")
      #expect(milliseconds < 5000)
    }
  }

  @Test(
    "an app that needs another's work done starts after its good end, also at a later crash; a bad end is told at once")
  func completed() throws {
    try with { instance in
      try instance.write("migrate", "id: migrate\nentry: [/bin/sh, -c, 'sleep 0.3; exit 0']\n")
      try instance.write(
        "api",
        "id: api\nentry: [/bin/sleep, '1000']\nrestart: always\nrestart_policy: {delay: 10ms}\ndepends_on: {migrate: {condition: service_completed_successfully}}\n"
      )
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      #expect(instance.cursor("migrate", "app.exited") < instance.cursor("api", "app.created"))
      let pid = try #require(instance.pid("api"))
      kill(pid, SIGKILL)
      instance.wait("api") { $0["state"] == "running" && $0["pid"]?.integerValue != Int64(pid) }
      let bad = try instance.write("bad", "id: bad\nentry: [/bin/sh, -c, 'exit 3']\n")
      let late = try instance.write(
        "late",
        "id: late\nentry: [/bin/sleep, '1000']\ndepends_on: {bad: {condition: service_completed_successfully}}\n")
      let failed = instance.run("up", "-d", "--wait", "--progress", "quiet", bad, late)
      #expect(failed.code == 1 && failed.err.contains("needs bad, which ended: exit code 3"), "\(failed)")
      #expect(instance.app("late")?["status"]?.stringValue?.contains("needs bad") == true)
    }
  }

  @Test("what depends on an app with restart: true is restarted with it, by whatever that was; others are not")
  func carriedRestart() throws {
    try with { instance in
      try instance.write("db", "id: db\nentry: [/bin/sleep, '1000']\nrestart: always\nrestart_policy: {delay: 50ms}\n")
      try instance.write(
        "api", "id: api\nentry: [/bin/sleep, '1000']\ndepends_on: {db: {condition: service_started, restart: true}}\n")
      try instance.write(
        "web", "id: web\nentry: [/bin/sleep, '1000']\ndepends_on: {api: {condition: service_started, restart: true}}\n")
      try instance.write("other", "id: other\nentry: [/bin/sleep, '1000']\ndepends_on: [db]\n")
      #expect(instance.up().code == 0)
      func pids() -> [Int32?] { ["db", "api", "web", "other"].map { instance.pid($0) } }
      let first = pids()
      kill(try #require(first[0]), SIGKILL)
      eventually("the crash carries on") { zip(pids(), first).prefix(3).allSatisfy { $0 != nil && $0 != $1 } }
      #expect(instance.pid("other") == first[3])
      let second = pids()
      #expect(instance.run("restart", "db").code == 0)
      eventually("an operator's restart carries on") {
        zip(pids(), second).prefix(3).allSatisfy { $0 != nil && $0 != $1 }
      }
      #expect(instance.pid("other") == first[3])
      let stops = instance.history("db").last { $0["event"] == "app.stopping" }?["cursor"]?.integerValue ?? 0
      let ends = instance.history("api").last { $0["event"] == "app.exited" }?["cursor"]?.integerValue ?? 0
      #expect(ends < stops, "it was stopped before what it depends on")
      #expect(instance.run("stop", "db").code == 0)
      let third = pids()
      #expect(instance.run("start", "db").code == 0)
      eventually("a start after a stop carries on") { instance.pid("api").map { $0 != third[1] } ?? false }
    }
  }

  @Test("an app that no longer answers is restarted within an interval, and is healthy again")
  func unhealthyRestart() throws {
    try with { instance in
      try instance.server()
      try instance.write("web", "id: web\nentry: [./web-0.0.pl]\nrestart: always\n\(check)")
      #expect(instance.up().code == 0)
      let pid = try #require(instance.pid("web"))
      let sick = Int64(Date().timeIntervalSince1970 * 1e9)
      kill(pid, SIGUSR1)
      instance.wait("web") { $0["health"] == "healthy" && $0["pid"]?.integerValue != Int64(pid) }
      let stopping = try #require(instance.event("web", "app.stopping")?["time"]?.integerValue)
      print(
        "an unhealthy app was being restarted after \((stopping - sick) / 1_000_000) ms, with an interval of 200 ms")
      #expect(stopping - sick < 2_000_000_000)
      let exited = try #require(instance.event("web", "app.exited"))
      #expect(exited["reason"]?.stringValue?.hasPrefix("unhealthy: port 8080: Connection refused") == true)
      #expect(instance.event("web", "app.backoff") == nil, "the first restart is at once")
      #expect(instance.app("web")?["restarts"] == 1)
      #expect(instance.event("web", "app.health", "health", "unhealthy")?["reason"] != nil)
    }
  }

  @Test(
    "a server that hangs, is sick or never ends costs its check no more than its timeout",
    arguments: [
      ("hang", "unhealthy", "no answer within 300ms"), ("sick", "unhealthy", "HTTP status 503"),
      ("endless", "healthy", ""),
    ])
  func hostileServers(_ kind: String, _ health: String, _ reason: String) throws {
    try with { instance in
      try instance.server(kind)
      try instance.write(
        "web",
        "id: web\nentry: [./\(kind)-0.0.pl]\nhealthcheck: {http: {port: 8080}, interval: 400ms, timeout: 300ms, retries: 1, start_period: 0s}\n"
      )
      #expect(instance.up("--wait-timeout", "2s").code == (health == "healthy" ? 0 : 124))
      let row = instance.wait("web") { $0["health"]?.stringValue == health }
      #expect(row?["state"] == "running", "restart is no, so nothing follows")
      guard !reason.isEmpty else { return }
      #expect(row?["reason"]?.stringValue?.contains(reason) == true)
      #expect(instance.run("explain", "web").out.contains(reason))
    }
  }

  @Test(
    "a check by a command costs the app a command and us nothing more, whatever it does",
    arguments: [
      ("test -e /data/well", "unhealthy", "exit code 1"),
      ("echo not well >&2; exit 7", "unhealthy", "exit code 7: not well"),
      ("sleep 100", "unhealthy", "no end within 900ms"),
      ("trap '' TERM HUP; while :; do :; done", "unhealthy", "no end within 900ms"),
      ("head -c 4000000 /dev/zero | tr '\\0' x; exit 1", "unhealthy", "exit code 1: xxx"), ("exit 0", "healthy", ""),
      ("/no/such/program", "unhealthy", "exit code 127"),
    ])
  func commands(_ command: String, _ health: String, _ reason: String) throws {
    try with { instance in
      try instance.write(
        "app",
        """
        id: app
        entry: [/bin/sleep, '1000']
        healthcheck:
          test: [CMD-SHELL, "\(command.replacingOccurrences(of: "\\", with: "\\\\").replacingOccurrences(of: "\"", with: "\\\""))"]
          interval: 1s
          timeout: 900ms
          retries: 2
          start_period: 0s

        """)
      _ = instance.up("--wait-timeout", "1s")
      let row = instance.wait("app") { $0["health"]?.stringValue == health }
      if !reason.isEmpty { #expect(row?["reason"]?.stringValue?.contains(reason) == true, "\(row?.text ?? "")") }
      #expect(row?["state"] == "running")
    }
  }

  @Test("ready by a line of its log: up --wait and dependents wait for it, and a daemon that comes later knows")
  func logLine() throws {
    try with { instance in
      try instance.write(
        "slow",
        "id: slow\nentry: [/bin/sh, -c, 'echo starting; sleep 0.5; echo now listening on 80; exec sleep 1000']\nready: {log_line: listening on}\n"
      )
      try instance.write(
        "api", "id: api\nentry: [/bin/sleep, '1000']\ndepends_on: {slow: {condition: service_healthy}}\n")
      #expect(instance.up().code == 0)
      #expect(instance.cursor("slow", "app.ready", "by", "log line") < instance.cursor("api", "app.created"))
      instance.killDaemon()
      instance.startDaemon()
      #expect(instance.app("slow")?["ready"] == true)
      #expect(instance.history("slow").filter { $0["event"] == "app.ready" }.count == 1)
      try instance.write("never", "id: never\nentry: [/bin/sleep, '1000']\nready: {log_line: up}\n")
      let waited = instance.up("--wait-timeout", "1s")
      #expect(waited.code == 124)
      #expect(instance.app("never")?["reason"]?.stringValue?.contains("has not written 'up'") == true)
    }
  }

  @Test("the daemon is killed while an app starts and while it is unhealthy: the next one goes on from there")
  func killed() throws {
    try with { instance in
      try instance.server(after: 2)
      try instance.write("slow", "id: slow\nentry: [./web-2.0.pl]\nready: healthy\nrestart: always\n\(check)")
      try instance.write(
        "api", "id: api\nentry: [/bin/sleep, '1000']\ndepends_on: {slow: {condition: service_healthy}}\n")
      #expect(instance.run("up", "-d", "--engine", "none", "--progress", "quiet", instance.policies).code == 0)
      let before = try #require(instance.wait("slow") { $0["state"] == "running" }?["pid"])
      instance.killDaemon()
      instance.startDaemon()
      instance.wait("api") { $0["state"] == "running" }
      #expect(instance.app("slow")?["pid"] == before && instance.app("slow")?["health"] == "healthy")
      let pid = try #require(instance.pid("slow"))
      instance.killDaemon()
      kill(pid, SIGUSR1)
      instance.startDaemon()
      instance.wait("slow", seconds: 30) { $0["pid"]?.integerValue != Int64(pid) && $0["health"] == "healthy" }
    }
  }

  @Test("pre_start runs each command as the app, in order; one that fails fails the start with the reason")
  func preStart() throws {
    try with { instance in
      let path = try instance.write(
        "app",
        """
        id: app
        entry: [/bin/sh, -c, 'cat /data/log; exec sleep 1000']
        pre_start:
        - command: [/bin/sh, -c, 'echo one $$(id -u) > /data/log']
        - command: [/bin/sh, -c, 'echo two >> /data/log']

        """)
      #expect(instance.up().code == 0)
      eventually("its log shows both") { instance.run("logs", "app").out == "one 1000\ntwo\n" }
      #expect(instance.history("app").filter { $0["event"] == "app.pre_start" }.count == 2)
      #expect(instance.history("app").filter { $0["event"] == "app.started" }.count == 1)
      try "id: app\nentry: [/bin/sleep, '1000']\npre_start: [{command: [/bin/sh, -c, 'exit 4']}]\n".write(
        toFile: path, atomically: true, encoding: .utf8)
      let up = instance.up()
      #expect(up.code == 1 && up.err.contains("pre_start 1 of 1, /bin/sh: exit code 4"), "\(up.err)")
      #expect(instance.app("app")?["state"] == "failed")
    }
  }

  @Test("a stop ends a command of pre_start that hangs, and a daemon that is killed meanwhile goes on with it")
  func preStartHangs() throws {
    try with { instance in
      try instance.write(
        "app",
        "id: app\nentry: [/bin/sleep, '1000']\npre_start: [{command: [/bin/sh, -c, 'while [ ! -e /data/go ]; do sleep 0.1; done']}]\nstop_grace_period: 500ms\n"
      )
      #expect(instance.run("up", "-d", "--engine", "none", "--progress", "quiet", instance.policies).code == 0)
      let row = instance.wait("app") {
        $0["status"]?.stringValue?.contains("pre_start 1 of 1") == true && !($0["pid"]?.isNull ?? true)
      }
      instance.killDaemon()
      instance.startDaemon()
      #expect(instance.app("app")?["pid"] == row?["pid"])
      #expect(instance.app("app")?["state"] == "starting")
      #expect(instance.run("stop", "app").code == 0)
      #expect(instance.app("app")?["state"] == "exited")
      let start = try instance.begin(["start", "app"])
      instance.wait("app") { $0["status"]?.stringValue?.contains("pre_start") == true && !($0["pid"]?.isNull ?? true) }
      try "".write(toFile: "\(instance.root)/state/apps/app/data/go", atomically: false, encoding: .utf8)
      #expect(start.finish(within: 20).code == 0)
      instance.wait("app") { $0["state"] == "running" }
    }
  }

  @Test("max_cpu_time ends a run once all of its tasks together have used it")
  func cpuTime() throws {
    try with { instance in
      try instance.write(
        "busy",
        "id: busy\nentry: [/bin/sh, -c, '(while :; do :; done) & while :; do :; done']\nmax_cpu_time: 500ms\nstop_grace_period: 200ms\n"
      )
      try instance.write("idle", "id: idle\nentry: [/bin/sleep, '1000']\nmax_cpu_time: 500ms\n")
      #expect(instance.up().code == 0)
      let row = instance.wait("busy") { $0["state"] == "exited" }
      #expect(row?["reason"] == "max_cpu_time 500ms")
      #expect(instance.app("idle")?["state"] == "running")
    }
  }

  @Test("an app with a schedule waits for its time; start begins a run now; a failing run is not the end")
  func schedule() throws {
    try with { instance in
      try instance.write("job", "id: job\nentry: [/bin/sh, -c, 'echo done; exit 3']\nschedule: {cron: '0 0 1 1 *'}\n")
      #expect(instance.up().code == 0)
      let row = try #require(instance.app("job"))
      #expect(row["state"] == "scheduled" && row["next_run"]?.integerValue ?? 0 > 0)
      #expect(row["status"]?.stringValue?.hasPrefix("Scheduled (in ") == true)
      #expect(instance.events("job").contains("app.started") == false)
      #expect(instance.run("start", "job").code == 0)
      eventually("it ran once") { instance.run("logs", "job").out == "done\n" }
      let after = instance.wait("job") { $0["state"] == "scheduled" }
      #expect(after?["status"]?.stringValue?.contains("last run: exit code 3") == true)
      instance.killDaemon()
      instance.startDaemon()
      #expect(instance.app("job")?["state"] == "scheduled")
      #expect(instance.up().code == 0)
      #expect(instance.run("logs", "job").out == "done\n", "neither a new daemon nor up begins a run")
      #expect(instance.run("stop", "job").code == 0)
      #expect(instance.app("job")?["state"] == "exited")
    }
  }

  @Test("a run begins by itself when it is due")
  func due() throws {
    try with { instance in
      try instance.write(
        "tick", "id: tick\nentry: [/bin/sh, -c, 'date +%S']\nschedule: {cron: '* * * * *', timezone: Europe/Berlin}\n")
      #expect(instance.up().code == 0)
      eventually("it ran", seconds: 75) { instance.events("tick").contains("app.exited") }
      #expect(["00\n", "01\n"].contains(instance.run("logs", "tick").out))
      instance.wait("tick") { $0["state"] == "scheduled" }
    }
  }

  @Test("at boot too: what is needed is healthy first, and work that was done is not done again")
  func boot() throws {
    try with { instance in
      try instance.server(after: 0.3)
      try instance.write("migrate", "id: migrate\nentry: [/bin/sh, -c, 'echo migrated']\n")
      try instance.write("db", "id: db\nentry: [./web-0.3.pl]\nrestart: always\nready: healthy\n\(check)")
      try instance.write(
        "api",
        "id: api\nentry: [/bin/sleep, '1000']\nrestart: always\ndepends_on: {db: {condition: service_healthy}, migrate: {condition: service_completed_successfully}}\n"
      )
      #expect(instance.up().code == 0)
      let before = instance.cursor("api", "app.created")
      // All at once, as when the power goes.
      let programs = instance.shims + ["db", "api"].compactMap { instance.pid($0) }
      instance.killDaemon()
      for pid in programs { kill(pid, SIGKILL) }
      instance.startDaemon()
      instance.wait("api") { $0["state"] == "running" }
      func last(_ app: String, _ name: String) -> Int64 {
        instance.history(app).last { $0["event"]?.stringValue == name }?["cursor"]?.integerValue ?? -1
      }
      #expect(before < last("db", "app.ready") && last("db", "app.ready") < last("api", "app.created"))
      #expect(instance.run("logs", "migrate").out == "migrated\n")
    }
  }

  @Test("an app that flaps is no flood of events, and one that is paused is not sick")
  func flapping() throws {
    try with { instance in
      try instance.server()
      try instance.write(
        "flaps",
        "id: flaps\nentry: [/bin/sleep, '1000']\nhealthcheck: {test: [CMD-SHELL, '[ -e /tmp/x ] && rm /tmp/x || { touch /tmp/x; exit 1; }'], interval: 100ms, retries: 1, start_period: 0s}\n"
      )
      try instance.write("web", "id: web\nentry: [./web-0.0.pl]\nrestart: always\n\(check)")
      _ = instance.up("--wait-timeout", "2s")
      instance.wait("web") { $0["health"] == "healthy" }
      let pid = instance.pid("web")
      #expect(instance.run("pause", "web").code == 0)
      sleep(3)
      #expect(instance.pid("web") == pid && instance.app("web")?["state"] == "paused")
      #expect(instance.run("unpause", "web").code == 0)
      eventually("it is checked again") { instance.status("web")?["healthcheck"]?["last"] == "success" }
      #expect(instance.pid("web") == pid && instance.app("web")?["restarts"] == 0)
      let changes = instance.history("flaps").filter { $0["event"] == "app.health" }
      #expect(changes.count >= 5 && changes.count <= 20, "\(changes.count)")
    }
  }

  @Test("circles and what is missing are refused before anything starts")
  func circles() throws {
    try with { instance in
      try instance.write("a", "id: a\nentry: [/bin/sleep, '1']\ndepends_on: {b: {condition: service_healthy}}\n")
      try instance.write(
        "b",
        "id: b\nentry: [/bin/sleep, '1']\nhealthcheck: {tcp: {port: 1}}\ndepends_on: {a: {condition: service_completed_successfully}}\n"
      )
      let circle = instance.up()
      #expect(circle.code == 2 && circle.err.contains("wait for each other"), "\(circle.err)")
      try instance.write("b", "id: b\nentry: [/bin/sleep, '1']\n")
      let unchecked = instance.up()
      #expect(unchecked.code == 2 && unchecked.err.contains("has no healthcheck"), "\(unchecked.err)")
      try FileManager.default.removeItem(atPath: "\(instance.policies)/b.yaml")
      let missing = instance.up()
      #expect(missing.code == 2 && missing.err.contains("neither loaded nor applied"), "\(missing.err)")
      #expect(instance.run("ps", "-aq").out.isEmpty)
    }
  }
}
