import EngineAPI
import Glibc
import Linux
import Model
import Testing

@testable import ContainerHosting

@Suite(
  "the life of an app as a container",
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct LifeTests {
  @Test("code, times and both streams of a run that ends by itself", arguments: Rig.available)
  func life(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let (report, output) = try await host.complete(place.policy("life", "echo out; echo err >&2; exit 7"))
      #expect(report.cause == .code(7))
      #expect(!report.outOfMemory)
      #expect(output.contains("out\n") && output.contains("err\n"))
      #expect(try #require(report.startedAt) <= report.endedAt)
    }
  }

  @Test("a signal ends an app, and the report names it", arguments: Rig.available)
  func signal(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let running = try await host.run(place.policy("signal", "exec sleep 1000"))
      #expect(running.facts.pid > 0)
      #expect(running.facts.missing == [])
      try await host.host.signal(running.instance, 15)
      #expect(try await host.end(running).cause == .signal(15))
      try await host.host.signal(running.instance, 15)
      try await host.host.kill(running.instance)
      try await host.host.remove(running.instance)
      try await host.host.remove(running.instance)
    }
  }

  @Test("a memory limit that kills is told as such", arguments: Rig.available)
  func outOfMemory(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy("memory", "dd if=/dev/zero of=/dev/null bs=200M count=2; exit $?")
      policy.limits.memory = .mebibytes(24)
      policy.limits.memoryAndSwap = .mebibytes(24)
      policy.entry = ["/bin/busybox", "dd", "if=/dev/zero", "of=/dev/null", "bs=200M", "count=2"]
      let running = try await host.run(policy)
      let report = try await host.end(running)
      #expect(report.outOfMemory)
      #expect(report.reason == "out of memory")
    }
  }

  @Test(
    "a program that is not there fails the start with its name, and nothing is told afterwards",
    arguments: Rig.available)
  func noProgram(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy("missing", "")
      policy.entry = ["/no/such/program"]
      let (instance, launch) = try await host.create(policy)
      await expectFailure(.missing, saying: "/no/such/program") { _ = try await host.host.start(instance, launch) }
      #expect(await host.told.events.isEmpty)
      try await host.host.remove(instance)
    }
  }

  @Test("pausing freezes, resuming continues, and neither is taken for someone else's doing", arguments: Rig.available)
  func pause(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let running = try await host.run(place.policy("pause", "while :; do :; done"))
      try await host.host.setPaused(running.instance, true)
      try await host.host.setPaused(running.instance, true)
      let before = try await host.host.usage(running.instance).cpuNanoseconds
      try await Task.sleep(for: .milliseconds(200))
      let after = try await host.host.usage(running.instance).cpuNanoseconds
      #expect(after - before < 20_000_000)
      try await host.host.setPaused(running.instance, false)
      try await soon("it runs again") {
        try await host.host.usage(running.instance).cpuNanoseconds > after + 20_000_000
      }
      #expect(await host.told.events.isEmpty)
      try await host.host.setPaused(running.instance, true)
      try await host.host.kill(running.instance)
      #expect(try await host.end(running).exitCode == 137)
    }
  }

  @Test("someone else's pause, resume and removal are told", arguments: Rig.available)
  func outside(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let running = try await host.run(place.policy("outside", "exec sleep 1000"))
      try await place.engine.pauseContainer(running.instance.handle)
      try await host.told.wait { if case .changedOutside(_, .paused) = $0 { true } else { nil } }
      try await place.engine.unpauseContainer(running.instance.handle)
      try await host.told.wait { if case .changedOutside(_, .running) = $0 { true } else { nil } }
      try await place.engine.removeContainer(running.instance.handle, force: true)
      let report = try await host.end(running)
      // Podman asks first.
      #expect([137, 143].contains(report.exitCode), "\(report)")
      #expect(report.startedAt == running.facts.startedAt)
      try await host.told.wait { if case .changedOutside(_, .dead) = $0 { true } else { nil } }
      try await host.host.remove(running.instance)
    }
  }

  @Test(
    "a new daemon takes over what runs, learns how others ended, and removes what it does not know",
    arguments: Rig.available)
  func adopt(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let old = try place.host()
      let runs = try await old.run(place.policy("runs", "exec sleep 1000"))
      let ends = try await old.run(place.policy("ends", "read x < /dev/null; sleep 0.3; exit 5"))
      let made = try await old.create(place.policy("made", "exit 0"))
      let stray = try await old.run(place.policy("stray", "exec sleep 1000"))
      var lost = runs
      lost.instance.handle = String(repeating: "a", count: 64)
      lost.instance.generation = 9
      var forged = stray
      forged.instance.nonce = "0"
      old.drop()
      try await soon("one has ended meanwhile") {
        try await !place.engine.inspectContainer(ends.instance.handle).state.isRunning
      }
      let new = try place.host()
      let (found, removed) = try await new.host.adopt([
        (runs.instance, runs.launch), (ends.instance, ends.launch), made, (lost.instance, lost.launch),
        (forged.instance, forged.launch),
      ])
      guard case .running(let facts, paused: false)? = found[runs.instance] else {
        Issue.record("\(String(describing: found[runs.instance]))")
        return
      }
      #expect(facts.pid == runs.facts.pid)
      #expect(facts.startedAt == runs.facts.startedAt)
      guard case .ended(let report)? = found[ends.instance] else {
        Issue.record("\(String(describing: found[ends.instance]))")
        return
      }
      #expect(report.cause == .code(5))
      #expect(found[made.0] == .created)
      #expect(found[lost.instance] == .gone)
      #expect(found[forged.instance] == .gone)
      #expect(removed == ["appsup-\(place.settings.layout.id.prefix(8))-stray-1"])
      try await new.host.kill(runs.instance)
      #expect(try await new.end(runs).exitCode == 137)
    }
  }

  @Test("an image that is not here, and a name nobody has, are told in words that help", arguments: Rig.available)
  func images(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy("image", "")
      policy.image = .reference("appsup-test/none:9", .never)
      await expectFailure(.missing, saying: "appsup-test/none:9", "pull_policy") {
        _ = try await host.host.prepare(policy) { _ in }
      }
      policy.image = .reference("127.0.0.1:1/none:9", .missing)
      await expectFailure(.missing, saying: "127.0.0.1:1/none:9", "could not be pulled") {
        _ = try await host.host.prepare(policy) { _ in }
      }
      policy.image = nil
      await expectFailure(.refused, saying: "has no image") { _ = try await host.host.prepare(policy) { _ in } }
    }
  }

  @Test(
    "several generations' output is one log, the last lines of it too, and a followed one ends with its app",
    arguments: Rig.available)
  func logs(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      for generation in [1, 2] as [UInt64] {
        let running = try await host.run(
          place.policy("log", "echo first of \(generation); echo last of \(generation)"), generation: generation)
        _ = try await host.end(running)
        try await host.host.remove(running.instance)
      }
      let running = try await host.run(
        place.policy("log", "echo first of 3; sleep 0.5; echo last of 3"), generation: 3)
      let followed = try await host.output(running, LogQuery(follow: true))
      let all = (1...3).map { "first of \($0)\nlast of \($0)\n" }.joined()
      #expect(followed == all)
      #expect(try await host.output(running) == all)
      #expect(try await host.output(running, LogQuery(tail: 3)) == "last of 2\nfirst of 3\nlast of 3\n")
      var ended = ""
      for try await chunk in host.host.logs(running.instance.app, nil, LogQuery(tail: 1)) {
        ended += String(decoding: chunk.bytes, as: UTF8.self)
      }
      #expect(ended == "last of 2\n")
      try await host.host.remove(running.instance)
    }
  }
}
