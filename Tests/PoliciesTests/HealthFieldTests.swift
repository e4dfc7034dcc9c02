import Model
import Testing

@testable import Policies

@Suite("Health, readiness and schedules in a policy") struct HealthFieldTests {
  @Test("a check is a command, a request or a connection, as Compose writes it and in our own forms")
  func tests() throws {
    func test(_ text: String) throws -> Healthcheck.Test { try container("healthcheck: \(text)").healthcheck.test }
    #expect(try test("{test: [CMD, /hc, -q]}") == .command(["/hc", "-q"]))
    #expect(try test("{test: [CMD-SHELL, 'a || b']}") == .command(["/bin/sh", "-c", "a || b"]))
    #expect(try test("{test: 'a || b'}") == .command(["/bin/sh", "-c", "a || b"]))
    #expect(try test("{test: [NONE]}") == .none)
    #expect(try test("{disable: true}") == .none)
    #expect(try test("{http: {port: 80}}") == .http(port: 80, path: "/"))
    #expect(try test("{http: {port: 80, path: /healthz?a=b}}") == .http(port: 80, path: "/healthz?a=b"))
    #expect(try test("{tcp: {port: 5432}}") == .tcp(port: 5432))
    #expect(try test("{interval: 5s}") == .image)
  }

  @Test("what the policy leaves open is the image's, then the default")
  func settled() throws {
    var image = Healthcheck(.command(["hc"]))
    image.interval = .seconds(7)
    let policy = try container("healthcheck: {retries: 5, on_failure: stop}")
    let check = try #require(policy.healthcheck.settled(image: image, restart: .no))
    #expect(check.test == .command(["hc"]) && check.interval == .seconds(7) && check.timeout == .seconds(30))
    #expect(check.retries == 5 && check.onFailure == .stop && check.startPeriod == .seconds(7))
    #expect(policy.healthcheck.settled(image: nil, restart: .no) == nil)
    #expect(try container("").healthcheck.settled(image: image, restart: .always)?.onFailure == .restart)
  }

  @Test(
    "what contradicts itself or means nothing is refused",
    arguments: [
      ("healthcheck: {test: [CMD, a], tcp: {port: 1}}", "takes one of"),
      ("healthcheck: {disable: true, tcp: {port: 1}}", "disabled and has a test"),
      ("healthcheck: {test: [curl, localhost]}", "begins with CMD"), ("healthcheck: {test: [CMD]}", "begins with CMD"),
      ("healthcheck: {test: []}", "begins with CMD"), ("healthcheck: {test: ' '}", "names no command"),
      ("healthcheck: {tcp: {port: 0}}", "port"), ("healthcheck: {tcp: {port: 65536}}", "port"),
      ("healthcheck: {http: {port: 80, path: \"a b\"}}", "path"),
      ("healthcheck: {http: {port: 80, path: \"/a\\r\\nHost: x\"}}", "path"),
      ("healthcheck: {tcp: {port: 1}, interval: 1ms}", "interval is at least"),
      ("healthcheck: {tcp: {port: 1}, timeout: 0}", "timeout is at least"),
      ("healthcheck: {tcp: {port: 1}, interval: 400d}", "at most 24h"),
      ("healthcheck: {tcp: {port: 1}, retries: 0}", "retries"),
      ("healthcheck: {disable: true}\nready: healthy", "needs a healthcheck"),
      ("ready: {log_line: \"a\\nb\"}", "one line"), ("ready: {log_line: ''}", "one line"), ("ready: soon", "ready"),
      ("pre_start: [{command: []}]", "names no program"), ("pre_start: [{command: ''}]", "names no program"),
      ("pre_start: [{command: [a], user: root}]", "not supported yet"),
      ("schedule: {cron: '61 * * * *'}", "minute"), ("schedule: {cron: '* * *'}", "5 fields"),
      ("schedule: {timezone: UTC}", "cron is missing"),
      ("schedule: {cron: '@daily', timezone: ../../etc/passwd}", "name of a time zone"),
      ("schedule: {cron: '@daily', timezone: Mars/Olympus}", "not on this host"),
      ("schedule: {cron: '@daily', timezone: /etc/localtime}", "name of a time zone"),
      ("schedule: {cron: '@daily', concurrency: sometimes}", "concurrency"),
      ("schedule: {cron: '@daily', missed: twice}", "missed"),
      ("schedule: {cron: '@daily'}\nrestart: always", "begins again when it is due"),
    ])
  func refused(_ lines: String, _ words: String) {
    let found = reading("id: a\nimage: i\n\(lines)\n").errors
    #expect(found.contains { $0.rendered(file: "f").contains(words) && $0.line > 0 }, "\(lines): \(found)")
  }

  @Test("a native app has no image to ask")
  func native() {
    func errors(_ lines: String) -> [String] { reading("id: a\nentry: /bin/true\n\(lines)\n").errors.map(\.message) }
    #expect(errors("healthcheck: {interval: 5s}") == ["healthcheck has no test"])
    #expect(errors("ready: healthy") == ["ready: healthy needs a healthcheck"])
    #expect(errors("healthcheck: {tcp: {port: 1}}\nready: healthy").isEmpty)
  }

  @Test(
    "the applied copy reads back to the same policy",
    arguments: [
      "healthcheck: {test: 'a b', interval: 1m, timeout: 3s, retries: 2, start_period: 0s, start_interval: 50ms, on_failure: notify}",
      "healthcheck: {http: {port: 8080, path: /x}}", "healthcheck: {disable: true}",
      "ready: {log_line: 'now: \"up\"'}", "pre_start: [{command: /a b}, {command: [c, 'd e']}]",
      "schedule: {cron: '*/5  3 * * mon', timezone: UTC, concurrency: replace}", "max_cpu_time: 90s",
      "depends_on: {b: {condition: service_completed_successfully, restart: true, required: false}}",
    ])
  func roundTrip(_ line: String) throws {
    let first = reading("id: a\nimage: i\n\(line)\n")
    let policy = try #require(first.policy, "\(first.rendered())")
    #expect(readApplied(try #require(first.canonical)).policy == policy)
  }

  @Test("explain says it in sentences")
  func explained() throws {
    let lines = explain(
      try container(
        "healthcheck: {tcp: {port: 80}, interval: 5s, on_failure: stop}\nready: healthy\nschedule: {cron: '0 3 * * *'}\npre_start: [{command: [/m, x]}]\ndepends_on: {db: {condition: service_healthy, restart: true}}"
      )
    ).joined(separator: "\n")
    for part in [
      "every 5s; after 3 failures in a row it is stopped", "first successful check", "A run begins at 0 3 * * * (UTC)",
      "Before each start /m x must succeed", "once db is ready and healthy", "restarted when db is",
    ] { #expect(lines.contains(part), "\(lines)") }
  }
}

@Suite("Updates in a policy") struct UpdateFieldTests {
  @Test("what is left open follows from the order, and 5 seconds are the time to stay up")
  func defaults() throws {
    #expect(try container("").update == UpdateRule())
    let first = try container("update_config: {order: start-first}").update
    #expect(first.order == .startFirst && first.failureAction == .rollback && first.monitor == .seconds(5))
    let stop = try container("update_config: {failure_action: pause, monitor: 30s}").update
    #expect(stop.order == .stopFirst && stop.failureAction == .pause && stop.monitor == .seconds(30))
  }

  @Test("it changes while the app runs, and reading it back gives the same")
  func canonical() throws {
    let text = "update_config: {order: start-first, failure_action: continue, monitor: 2s}"
    let policy = try container(text)
    #expect(plan(old: try container(""), new: policy).kind == .inPlace)
    let document = try #require(reading("id: a\nimage: i\n\(text)\n").canonical)
    #expect(readApplied(document).policy?.update == policy.update)
  }

  @Test(
    "what two generations cannot share is refused with its field and the reason, for now",
    arguments: [
      ("ports: ['80:80']", "ports"), ("volumes: ['data:/data']", "the writable volume data"),
      ("volumes: ['/srv/x:/x']", "the writable bind /srv/x"), ("networks: [front]", "networks"),
      ("schedule: {cron: '@daily'}", "schedule"),
    ])
  func obstacles(_ lines: String, _ place: String) throws {
    let messages = complaints("update_config: {order: start-first}\n\(lines)")
    #expect(messages.count == 1 && messages[0].hasPrefix("order: start-first does not go with \(place) for now: "))
    #expect(complaints("update_config: {failure_action: rollback}\n\(lines)").isEmpty)
  }

  @Test("what is only read, or each has for itself, is no obstacle")
  func harmless() throws {
    let shared = "volumes: ['data:/data:ro', '/srv/x:/x:ro']\ntmpfs: ['/scratch:size=1m']\nnetwork_mode: bridge\n"
    #expect(try container("update_config: {order: start-first}\n\(shared)").update.order == .startFirst)
  }

  @Test("pause and start-first contradict each other; a time over an hour is none")
  func contradictions() {
    #expect(
      complaints("update_config: {order: start-first, failure_action: pause}").first?.contains("still runs") == true)
    #expect(complaints("update_config: {monitor: 2h}") == ["monitor is at most 1h"])
    #expect(complaints("update_config: {order: both}").count == 1)
  }
}
