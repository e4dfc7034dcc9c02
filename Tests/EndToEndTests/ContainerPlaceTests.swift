import Foundation
import Model
import Testing

/// Networks, volumes and images, and what moves between engines.
@Suite(
  "container apps among others", .serialized,
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct ContainerPlaceTests {
  @Test("no network is loopback alone; a port answers on 127.0.0.1; a port in use is told", arguments: Rig.available)
  func network(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write("alone", ContainerTests.app("alone", "ls /sys/class/net; exec sleep 1000"))
      let serve = "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 8080; done"
      try instance.write("web", ContainerTests.app("web", serve, "ports: [\"18099:8080\"]\n"))
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      eventually("only loopback") { instance.run("logs", "alone").out == "lo\n" }
      #expect(instance.app("web")?["ports"]?.arrayValue == ["127.0.0.1:18099->8080/tcp"])
      if Rig.isInside {
        eventually("it answers") {
          Shell.run(["curl", "-s", "--max-time", "2", "http://127.0.0.1:18099/"]).out == "hello"
        }
      }
      let other = try instance.write(
        "other", ContainerTests.app("other", "exec sleep 1000", "ports: [\"18099:1\"]\n"))
      let refused = instance.run("up", "-d", "--wait", other)
      #expect(refused.code != 0 && refused.err.contains("18099"), "\(refused.err)")
      #expect(instance.app("web")?["state"] == "running")
      try FileManager.default.removeItem(atPath: other)
    }
  }

  @Test("apps on one named network find each other by name and alias; others do not", arguments: Rig.available)
  func named(_ rig: Rig) throws {
    try rig.with { instance in
      try instance.write(
        "db",
        ContainerTests.app(
          "db", "while :; do echo hello | nc -l -p 5432; done", "networks: {back: {aliases: [store]}}\n"))
      func ask(_ host: String) -> String {
        "for i in 1 2 3 4 5 6 7 8 9; do nc -w 2 \(host) 5432 </dev/null && exec sleep 1000; sleep 0.2; done; echo nobody; exec sleep 1000"
      }
      try instance.write("byname", ContainerTests.app("byname", ask("db"), "networks: [back]\ndepends_on: [db]\n"))
      try instance.write("byalias", ContainerTests.app("byalias", ask("store"), "networks: [back]\ndepends_on: [db]\n"))
      try instance.write(
        "stranger",
        ContainerTests.app(
          "stranger", "nc -w 1 db 5432 </dev/null || echo nobody; exec sleep 1000",
          "networks: [front]\ndepends_on: [db]\n"))
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      for (app, expected) in [("byname", "hello\n"), ("byalias", "hello\n"), ("stranger", "nobody\n")] {
        eventually("\(app) says \(expected)") { instance.run("logs", app).out.contains(expected) }
      }
    }
  }

  @Test("a volume written under docker is read under podman and then natively by the same app")
  func volume() throws {
    guard let docker = Rig.docker.socket, let podman = Rig.podman.socket else { return }
    let instance = try Instance(engine: docker)
    defer { instance.end() }
    let script = "cat /data/f; echo $$ENGINE >>/data/f; id -u; exec sleep 1000"
    func write(_ engine: String) throws {
      try instance.write(
        "notes",
        """
        id: notes
        image: \(Rig.image)
        fallback: native
        environment: {ENGINE: \(engine)}
        entry: [/bin/sh, -c, '\(script)']
        volumes: [{type: volume, source: notes-data, target: /data}]
        stop_grace_period: 1s

        """)
    }
    for (place, engine) in [("docker", docker), ("podman", podman), ("native", "none")] {
      if place != "docker" {
        #expect(instance.run("stop", "notes").code == 0)
        instance.changeEngine(engine)
      }
      try write(place)
      let up = instance.up()
      #expect(up.code == 0, "\(place): \(up.err)")
      #expect(instance.app("notes")?["runtime"]?.stringValue == (place == "native" ? "native" : "container"))
      let file = "\(instance.root)/state/volumes/notes-data/f"
      eventually("\(place) has written") {
        ((try? String(contentsOfFile: file, encoding: .utf8)) ?? "").hasSuffix("\(place)\n")
      }
    }
    let kept = instance.run("logs", "notes").out
    #expect(kept.contains("docker\npodman\n"), "\(kept)")
    let uids = Set(kept.split(separator: "\n").filter { Int($0) ?? 0 > 100_000 })
    #expect(uids.count == 1, "containers keep the app's own uid: \(kept)")
  }

  @Test("an app that runs under one engine is not started a second time by a daemon that uses another")
  func otherEngine() throws {
    guard let docker = Rig.docker.socket, let podman = Rig.podman.socket else { return }
    let instance = try Instance(engine: docker)
    defer { instance.end() }
    try instance.write("a", "id: a\n\(ContainerTests.sleep)fallback: native\nrestart: always\n")
    #expect(instance.up().code == 0)
    let before = try #require(instance.app("a"))
    let id = try #require(instance.id)
    // Asked for by name it is refused, with the reason.
    #expect(instance.run("up", "-d", "--engine", podman, instance.policies).err.contains("daemon that runs"))
    for engine in [podman, "none"] {
      #expect(instance.run("daemon", "--stop").code == 0)
      eventually("the daemon is gone") { instance.run("ps").code == 69 }
      let refused = instance.run("up", "-d", "--engine", engine, instance.policies)
      #expect(refused.code != 0 && refused.err.contains("while containers run"), "\(refused.err)")
      #expect(Rig.podman.containers(of: id).isEmpty)
      instance.startDaemon()
    }
    do {
      // Found because theirs is not: they wait.
      #expect(instance.run("daemon", "--stop").code == 0)
      eventually("the daemon is gone") { instance.run("ps").code == 69 }
      let none = "\(instance.root)-none"
      try FileManager.default.createDirectory(atPath: none, withIntermediateDirectories: true)
      defer { try? FileManager.default.removeItem(atPath: none) }
      let other = instance.run(
        ["up", "-d", "--progress", "quiet", none], prefix: ["/usr/bin/env", "DOCKER_HOST=unix://\(podman)"])
      #expect(other.code == 0, "\(other.err)")
      let row = try #require(instance.app("a"))
      #expect(row["state"] == "dead" && row["pid"]?.isNull == true, "\(row.text)")
      #expect(Rig.podman.containers(of: id).isEmpty)
      #expect(row["reason"]?.stringValue?.isEmpty == false)
    }
    #expect(instance.app("a")?["reason"]?.stringValue?.contains("engine") == true)
    instance.changeEngine(docker)
    let after = instance.wait("a") { $0["state"] == "running" }
    #expect(after?["pid"] == before["pid"] && after?["generation"] == before["generation"])
    #expect(Rig.docker.containers(of: id).count == 1)
  }

  @Test("where no engine answers, an app with a fallback runs natively and one without waits and says why")
  func fallback() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("can", "id: can\n\(ContainerTests.sleep)fallback: native\n")
    try instance.write("cannot", "id: cannot\n\(ContainerTests.sleep)")
    let up = instance.up("--wait-timeout", "2s")
    #expect(up.code == 124)
    #expect(instance.app("can")?["state"] == "running" && instance.app("can")?["runtime"] == "native")
    let held = try #require(instance.app("cannot"))
    #expect(held["state"] == "pending" && held["reason"]?.stringValue?.contains("no container engine") == true)
    let images = instance.run("images")
    #expect(images.code == 0 && !images.out.contains("busybox"), "the own store is empty: \(images)")
    #expect(instance.run("explain", "cannot").out.contains("engine"))
  }

  @Test("`build:` makes the image that the app then runs", arguments: Rig.available)
  func build(_ rig: Rig) throws {
    try rig.with { instance in
      let context = "\(instance.policies)/context"
      try FileManager.default.createDirectory(atPath: context, withIntermediateDirectories: true)
      try "FROM \(Rig.image)\nARG WORD\nRUN echo built with $WORD >/built\nCMD [\"cat\", \"/built\"]\n"
        .write(toFile: "\(context)/Dockerfile", atomically: true, encoding: .utf8)
      try instance.write(
        "made", "id: made\nbuild: {context: ./context, args: {WORD: care}}\nentry: [/bin/cat, /built]\n")
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      #expect(instance.wait("made") { $0["state"] == "completed" }?["exit_code"] == 0)
      #expect(instance.run("logs", "made").out == "built with care\n")
      let tag = "appsup-e2e/by-verb:\(UInt32.random(in: 0 ... .max))"
      let verb = instance.run("build", "-t", tag, "--build-arg", "WORD=hand", context)
      #expect(verb.code == 0 && verb.out.contains("built \(tag)"), "\(verb.err)")
      let list = instance.run("images", "--format", "json").lines
      #expect(list.contains { $0["tags"]?.arrayValue?.contains { $0.stringValue?.hasSuffix(tag) == true } == true })
      #expect(instance.run("build", "-t", tag, "/no/such/folder").code == 1)
    }
  }

  @Test("`pull` fetches, `load` reads an archive, and what is not there is told", arguments: Rig.available)
  func images(_ rig: Rig) throws {
    try rig.with { instance in
      instance.startDaemon()
      let archive = "\(instance.root)/image.tar"
      let name = Rig.image.addingPercentEncoding(withAllowedCharacters: .urlPathAllowed) ?? Rig.image
      #expect(
        Shell.run([
          "curl", "-sf", "--unix-socket", rig.socket ?? "", "-o", archive, "http://engine/v1.41/images/\(name)/get",
        ]).code == 0)
      let load = instance.run("load", archive)
      #expect(load.code == 0, "\(load.err)")
      #expect(instance.run("load", "/no/such.tar").code == 1)
      guard let registry = Rig.registry, Rig.isInside || rig == .podman else { return }
      let pull = instance.run("pull", "\(registry)/appsup-test/layers:1")
      #expect(pull.code == 0 && pull.out.contains("sha256") || pull.out.contains("pulled"), "\(pull.err)")
      let missing = instance.run("pull", "\(registry)/no/such:1")
      #expect(missing.code != 0 && missing.err.contains("no/such"), "\(missing.err)")
    }
  }
}
