import EngineAPI
import Linux
import Model
import Synchronization
import Testing

@testable import ContainerHosting

/// Containers of one engine under the contract that every runtime keeps.
final class ContainerRig: HostRig {
  private let place: Place
  // Guards: hosts made and not dropped yet.
  private let hosts = Mutex<[(host: ContainerHost, run: Task<Void, Never>)]>([])

  init(_ rig: Rig) async throws { place = try await Place(rig) }

  func makeHost() async throws -> any AppHost {
    let host = try ContainerHost(place.settings, on: Rig.loop)
    hosts.withLock { $0.append((host, Task { await host.run() })) }
    return host
  }

  func drop(_ host: any AppHost) async {
    hosts.withLock { hosts in
      for made in hosts where made.host === host as? ContainerHost { made.run.cancel() }
    }
  }

  func policy(_ name: String, _ script: String) throws -> Policy { try place.policy(name, script) }

  func tearDown() async { await place.tearDown() }
}

@Suite(
  "containers keep the contract of every runtime",
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct ContractTests {
  @Test(
    "two generations of an app run beside each other, each with limits and output of its own", arguments: Rig.available)
  func beside(_ rig: Rig) async throws { try await HostContract.beside(ContainerRig(rig)) }

  @Test("an app's exit code and both its streams arrive", arguments: Rig.available)
  func exitCode(_ rig: Rig) async throws { try await HostContract.exitCode(ContainerRig(rig)) }

  @Test("a signal ends an app, and the report says which", arguments: Rig.available)
  func signalled(_ rig: Rig) async throws { try await HostContract.signalled(ContainerRig(rig)) }

  @Test("an app that ignores SIGTERM is killed", arguments: Rig.available)
  func stubborn(_ rig: Rig) async throws { try await HostContract.stubborn(ContainerRig(rig)) }

  @Test("environment, folder and arguments are the policy's", arguments: Rig.available)
  func surroundings(_ rig: Rig) async throws { try await HostContract.environment(ContainerRig(rig)) }

  @Test("a program that is not there is missing, by name", arguments: Rig.available)
  func missingProgram(_ rig: Rig) async throws { try await HostContract.missingProgram(ContainerRig(rig)) }

  @Test("a paused app stands still, goes on, and can be killed", arguments: Rig.available)
  func paused(_ rig: Rig) async throws { try await HostContract.paused(ContainerRig(rig)) }

  @Test("memory that runs out is the reason told", arguments: Rig.available)
  func outOfMemory(_ rig: Rig) async throws { try await HostContract.outOfMemory(ContainerRig(rig)) }

  @Test("a fork bomb ends at its limit", arguments: Rig.available)
  func tasksAreLimited(_ rig: Rig) async throws { try await HostContract.tasksAreLimited(ContainerRig(rig)) }

  @Test("limits are in force, and nothing is missing", arguments: Rig.available)
  func limitsInForce(_ rig: Rig) async throws { try await HostContract.limitsInForce(ContainerRig(rig)) }

  @Test("a second start is a conflict and hurts nobody", arguments: Rig.available)
  func secondStart(_ rig: Rig) async throws { try await HostContract.secondStart(ContainerRig(rig)) }

  @Test("a running app is taken over", arguments: Rig.available)
  func adoptRunning(_ rig: Rig) async throws { try await HostContract.adoptRunning(ContainerRig(rig)) }

  @Test("an end that nobody saw is known", arguments: Rig.available)
  func adoptEnded(_ rig: Rig) async throws { try await HostContract.adoptEnded(ContainerRig(rig)) }

  @Test("what is not known is removed", arguments: Rig.available)
  func adoptSweeps(_ rig: Rig) async throws { try await HostContract.adoptSweeps(ContainerRig(rig)) }

  @Test("the last lines, and lines of a time", arguments: Rig.available)
  func tail(_ rig: Rig) async throws { try await HostContract.tail(ContainerRig(rig)) }

  @Test("a followed log ends with its app", arguments: Rig.available)
  func follow(_ rig: Rig) async throws { try await HostContract.follow(ContainerRig(rig)) }
}
