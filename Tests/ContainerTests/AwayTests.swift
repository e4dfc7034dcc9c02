import EngineAPI
import Glibc
import Linux
import Model
import Testing

@testable import ContainerHosting

/// The rig's script and folder, where its engines may be killed: `SUPERVISOR_TEST_ENGINES`, `SUPERVISOR_TEST_RIG`.
private func engines(_ verb: String, _ rig: Rig) throws {
  let script = try #require(environment("SUPERVISOR_TEST_ENGINES"))
  let folder = try #require(environment("SUPERVISOR_TEST_RIG"))
  #expect(system("'\(script)' \(verb) '\(folder)' \(rig) >/dev/null 2>&1") == 0, "\(verb) \(rig)")
}

private let rigs: [Rig] = environment("SUPERVISOR_TEST_RIG") == nil ? [] : Rig.available

@Suite(
  "an engine that goes away and comes back", .serialized,
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct AwayTests {
  @Test(
    "is told, apps can still be killed, and what happened meanwhile is known afterwards",
    .enabled(if: !rigs.isEmpty, "no rig whose engines may be killed: SUPERVISOR_TEST_RIG is not set"),
    arguments: rigs)
  func away(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let killed = try await host.run(place.policy("killed", "exec sleep 1000"))
      let stays = try await host.run(place.policy("stays", "exec sleep 1000"))
      let gone = try await host.run(place.policy("gone", "exec sleep 1000"))
      try engines("kill", rig)
      let why = try await host.told.wait { if case .unavailable(let why) = $0 { why } else { nil } }
      #expect(!why.isEmpty)
      await expectFailure(.unavailable) { _ = try await host.host.prepare(killed.launch.policy) { _ in } }
      await expectFailure(.unavailable) { try await host.host.setPaused(stays.instance, true) }
      // The engine cannot do it; the kernel can.
      try await host.host.kill(killed.instance)
      try await soon("it is dead") { kill(killed.facts.pid, 0) != 0 }
      #expect(kill(stays.facts.pid, 0) == 0, "the others go on")
      #expect(try await host.host.usage(stays.instance).pids > 0)
      try engines("start", rig)
      try await host.told.wait { if case .available = $0 { true } else { nil } }
      #expect(try await host.end(killed).exitCode == 137)
      switch rig {
      case .docker:
        // Without live-restore a new dockerd stops what an old one left; that is an end like any other.
        _ = try await host.end(stays)
        _ = try await host.end(gone)
      case .podman:
        #expect(kill(stays.facts.pid, 0) == 0)
        try await host.host.signal(stays.instance, 9)
        #expect(try await host.end(stays).exitCode == 137)
        try await host.host.kill(gone.instance)
        _ = try await host.end(gone)
      }
      for trial in [killed, stays, gone] { try await host.host.remove(trial.instance) }
      let again = try await host.complete(place.policy("again", "echo works"))
      #expect(again.output == "works\n")
    }
  }

  @Test(
    "that hangs is told too, and is found again when it goes on",
    .enabled(if: !rigs.isEmpty, "no rig whose engines may be killed: SUPERVISOR_TEST_RIG is not set"),
    arguments: rigs)
  func hangs(_ rig: Rig) async throws {
    try await Place.with(rig, change: { $0.heartbeat = .milliseconds(500) }) { place in
      let host = try place.host()
      let running = try await host.run(place.policy("hangs", "exec sleep 1000"))
      let folder = try #require(environment("SUPERVISOR_TEST_RIG"))
      let name = rig == .docker ? "dockerd" : "podman"
      let pid = try #require(Int32(try File.text("\(folder)/pids/\(name)").prefix { $0 != "\n" }))
      kill(pid, SIGSTOP)
      defer { kill(pid, SIGCONT) }
      let why = try await host.told.wait { if case .unavailable(let why) = $0 { why } else { nil } }
      #expect(why.contains("no longer answers"))
      kill(pid, SIGCONT)
      try await host.told.wait { if case .available = $0 { true } else { nil } }
      try await host.host.kill(running.instance)
      #expect(try await host.end(running).exitCode == 137)
    }
  }

  @Test("an engine that is not there from the start is told once, without a busy loop")
  func never() async throws {
    guard let rig = Rig.available.first else { return }
    try await Place.with(rig, change: { $0.endpoint = EngineEndpoint(socket: "/nowhere/engine.sock") }) { place in
      let before = clock()
      let host = try place.host()
      let why = try await host.told.wait { if case .unavailable(let why) = $0 { why } else { nil } }
      #expect(why.contains("/nowhere/engine.sock"))
      try await Task.sleep(for: .milliseconds(700))
      #expect(Double(clock() - before) / Double(CLOCKS_PER_SEC) < 0.2)
      #expect(await host.told.events.count == 1)
      host.drop()
    }
  }
}
