import EngineAPI
import Linux
import Model
import Testing

@testable import ContainerHosting

@Suite(
  "how fast containers come and go", .serialized,
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct PaceTests {
  @Test("twenty apps start and stop beside each other, and each is right", arguments: Rig.available)
  func twenty(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let clock = ContinuousClock()
      let began = clock.now
      let trials = try await withThrowingTaskGroup(of: Trial.self) { group in
        for number in 0..<20 {
          let policy = try place.policy("app\(number)", "echo I am \(number); exec sleep 1000")
          group.addTask { try await host.run(policy, uidBase: 0x20_0000 + UInt32(number) * 65_536) }
        }
        return try await group.reduce(into: []) { $0.append($1) }
      }
      let up = clock.now - began
      #expect(Set(trials.map(\.facts.pid)).count == 20)
      for trial in trials { #expect(trial.facts.missing == []) }
      let stopping = clock.now
      try await withThrowingTaskGroup(of: Void.self) { group in
        for trial in trials {
          group.addTask {
            try await host.host.kill(trial.instance)
            #expect(try await host.end(trial).exitCode == 137)
            try await host.host.remove(trial.instance)
          }
        }
        try await group.waitForAll()
      }
      print("\(rig): 20 containers up in \(up), down and removed in \(clock.now - stopping)")
    }
  }
}
