import Foundation
import Model
import Testing

@Suite(
  "Order and health of containers", .serialized,
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct ContainerHealthTests {
  /// busybox's web server on port 8080 of the app; it goes away when /tmp/sick appears.
  private static let server =
    "entry: [/bin/sh, -c, 'mkdir -p /tmp/www; echo ok > /tmp/www/index.html; httpd -p 127.0.0.1:8080 -h /tmp/www; while [ ! -e /tmp/sick ]; do sleep 0.1; done; killall httpd; exec sleep 1000']\nstop_grace_period: 1s\n"

  private static func makeSick(_ instance: Instance, _ app: String) {
    let touch = Shell.run([
      "\(Instance.programs)/supervisor", "exec", "--root", instance.root, app, "touch", "/tmp/sick",
    ])
    #expect(touch.code == 0, "\(touch.err)")
  }

  @Test(
    "checks reach a container inside its own network, also without any; a sick one is restarted",
    arguments: Rig.available)
  func network(_ rig: Rig) throws {
    try rig.with { instance in
      for (name, mode) in [("alone", "none"), ("bridged", "bridge")] {
        try instance.write(
          name,
          "id: \(name)\nimage: \(Rig.image)\nnetwork_mode: \(mode)\n\(Self.server)restart: always\nready: healthy\nhealthcheck: {http: {port: 8080, path: /index.html}, interval: 500ms, timeout: 2s, retries: 1, start_period: 20s}\n"
        )
      }
      try instance.write(
        "web", "id: web\n\(ContainerTests.sleep)depends_on: {alone: {condition: service_healthy}}\n")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      #expect(instance.cursor("alone", "app.ready") < instance.cursor("web", "app.created"))
      for name in ["alone", "bridged"] { #expect(instance.app(name)?["health"] == "healthy") }
      let id = instance.app("alone")?["container_id"]?.stringValue ?? ""
      Self.makeSick(instance, "alone")
      instance.wait("alone", seconds: 30) {
        $0["health"] == "healthy" && $0["container_id"]?.stringValue != id
      }
      #expect(instance.event("alone", "app.exited")?["reason"]?.stringValue?.contains("unhealthy") == true)
    }
  }

  @Test("an image's own check is made by us and not by the engine; disable switches it off", arguments: Rig.available)
  func imageCheck(_ rig: Rig) throws {
    try rig.with { instance in
      let context = "\(instance.policies)/checked"
      try FileManager.default.createDirectory(atPath: context, withIntermediateDirectories: true)
      try "FROM \(Rig.image)\nHEALTHCHECK --interval=1s --timeout=3s --retries=2 CMD test ! -e /tmp/sick\n".write(
        toFile: "\(context)/Dockerfile", atomically: true, encoding: .utf8)
      let body = "build: {context: ./checked}\nentry: [/bin/sleep, '1000']\nstop_grace_period: 1s\n"
      try instance.write("own", "id: own\n\(body)ready: healthy\nhealthcheck: {on_failure: none, start_period: 0s}\n")
      try instance.write("off", "id: off\n\(body)healthcheck: {disable: true}\n")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      #expect(instance.app("own")?["health"] == "healthy")
      #expect(instance.app("off")?["health"]?.isNull == true)
      for name in ["own", "off"] {
        let id = instance.app(name)?["container_id"]?.stringValue ?? ""
        let state = rig.ask("/containers/\(id)/json")?["State"]
        let health = state?["Health"]?["Status"]?.stringValue ?? "none"
        #expect(["none", ""].contains(health), "the engine checks it too: \(health)")
      }
      Self.makeSick(instance, "own")
      let row = instance.wait("own") { $0["health"] == "unhealthy" }
      #expect(row?["reason"]?.stringValue?.contains("exit code 1 (2 times in a row)") == true, "\(row?.text ?? "")")
      #expect(instance.run("status", "own").out.contains("test ! -e /tmp/sick every 1s"))
    }
  }

  @Test("a check by a command that hangs or floods ends with its timeout", arguments: Rig.available)
  func hostileCommands(_ rig: Rig) throws {
    try rig.with { instance in
      for (name, command) in [("hangs", "sleep 100"), ("floods", "yes")] {
        try instance.write(
          name,
          "id: \(name)\n\(ContainerTests.sleep)healthcheck: {test: [CMD-SHELL, \"\(command)\"], interval: 2s, timeout: 1s, retries: 1, start_period: 0s}\n"
        )
      }
      _ = instance.up("--wait-timeout", "2s")
      for name in ["hangs", "floods"] {
        let row = instance.wait(name) { $0["health"] == "unhealthy" }
        #expect(row?["reason"]?.stringValue?.contains("no end within 1s") == true, "\(row?.text ?? "")")
      }
      eventually("what was hung up on is gone") { (instance.app("hangs")?["pids"]?.integerValue ?? 9) <= 3 }
    }
  }

  @Test("pre_start, a log line and a schedule work as for native apps", arguments: Rig.available)
  func others(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write(
        "app",
        """
        id: app
        image: \(Rig.image)
        entry: [/bin/sh, -c, 'cat /data/log; echo; sleep 0.3; echo now listening; exec sleep 1000']
        volumes: ["d:/data"]
        ready: {log_line: now listening}
        stop_grace_period: 1s
        pre_start:
        - command: [/bin/sh, -c, 'echo one > /data/log']
        - command: [/bin/sh, -c, 'echo two >> /data/log']

        """)
      try instance.write(
        "api", "id: api\n\(ContainerTests.sleep)depends_on: {app: {condition: service_healthy}}\n")
      try instance.write(
        "job", "id: job\nimage: \(Rig.image)\nentry: [/bin/sh, -c, 'echo done']\nschedule: {cron: '0 0 1 1 *'}\n")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      #expect(instance.run("logs", "app").out.hasPrefix("one\ntwo\n"))
      #expect(instance.cursor("app", "app.ready", "by", "log line") < instance.cursor("api", "app.created"))
      #expect(instance.app("job")?["state"] == "scheduled")
      #expect(instance.run("start", "job").code == 0)
      eventually("the job ran") { instance.run("logs", "job").out == "done\n" }
      instance.wait("job") { $0["state"] == "scheduled" }
      try instance.write(
        "bad", "id: bad\n\(ContainerTests.sleep)pre_start: [{command: [/bin/sh, -c, 'exit 4']}]\n")
      let failed = instance.up()
      #expect(failed.code == 1 && failed.err.contains("exit code 4"), "\(failed.err)")
    }
  }

  @Test("a daemon that is killed while containers start and are sick goes on from there", arguments: Rig.available)
  func killed(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write(
        "web",
        "id: web\nimage: \(Rig.image)\n\(Self.server)restart: always\nready: healthy\nhealthcheck: {tcp: {port: 8080}, interval: 500ms, timeout: 2s, retries: 1, start_period: 20s}\n"
      )
      #expect(instance.up().code == 0)
      let id = instance.app("web")?["container_id"]?.stringValue ?? ""
      Self.makeSick(instance, "web")
      instance.killDaemon()
      instance.startDaemon()
      instance.wait("web", seconds: 40) {
        $0["health"] == "healthy" && $0["container_id"]?.stringValue != id
      }
    }
  }
}
