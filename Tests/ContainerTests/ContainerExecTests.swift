import Testing

@Suite(
  "commands inside containers",
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct ContainerExecTests {
  @Test("a command's exit code, output, variables and folder", arguments: Rig.available)
  func exitCode(_ rig: Rig) async throws { try await ExecContract.exitCode(ContainerRig(rig)) }

  @Test("what cannot be run is refused with the reason, and the app goes on", arguments: Rig.available)
  func refusals(_ rig: Rig) async throws { try await ExecContract.refusals(ContainerRig(rig)) }

  @Test("a command has exactly the app's ids, rights, limits, groups and namespaces", arguments: Rig.available)
  func sameSandbox(_ rig: Rig) async throws { try await ExecContract.sameSandbox(ContainerRig(rig)) }

  @Test("a command that takes too long is killed with what it started", arguments: Rig.available)
  func lateCommand(_ rig: Rig) async throws { try await ExecContract.lateCommand(ContainerRig(rig)) }

  @Test("a command whose caller leaves is hung up on, then killed", arguments: Rig.available)
  func cancelled(_ rig: Rig) async throws { try await ExecContract.cancelled(ContainerRig(rig)) }

  @Test("of megabytes the last bytes are kept", arguments: Rig.available)
  func flood(_ rig: Rig) async throws { try await ExecContract.flood(ContainerRig(rig)) }

  @Test("a command ends with its app", arguments: Rig.available)
  func endsWithApp(_ rig: Rig) async throws { try await ExecContract.endsWithApp(ContainerRig(rig)) }

  @Test("megabytes go in and come out", arguments: Rig.available)
  func input(_ rig: Rig) async throws { try await ExecContract.input(ContainerRig(rig)) }

  @Test("a terminal has a size that can be changed, and Ctrl-C", arguments: Rig.available)
  func terminal(_ rig: Rig) async throws { try await ExecContract.terminal(ContainerRig(rig)) }
}
