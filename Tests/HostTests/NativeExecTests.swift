import Testing

@Suite("commands inside native apps", .enabled(if: canRunNative, "needs root and writable cgroups"))
struct NativeExecTests {
  @Test("a command's exit code, output, variables and folder") func exitCode() async throws {
    try await ExecContract.exitCode(NativeRig())
  }

  @Test("what cannot be run is refused with the reason, and the app goes on") func refusals() async throws {
    try await ExecContract.refusals(NativeRig())
  }

  @Test("a command has exactly the app's ids, rights, limits, groups and namespaces") func sameSandbox() async throws {
    try await ExecContract.sameSandbox(NativeRig())
  }

  @Test("a command that takes too long is killed with what it started") func lateCommand() async throws {
    try await ExecContract.lateCommand(NativeRig())
  }

  @Test("a command whose caller leaves is hung up on, then killed") func cancelled() async throws {
    try await ExecContract.cancelled(NativeRig())
  }

  @Test("of megabytes the last bytes are kept") func flood() async throws { try await ExecContract.flood(NativeRig()) }

  @Test("a command ends with its app") func endsWithApp() async throws {
    try await ExecContract.endsWithApp(NativeRig())
  }

  @Test("megabytes go in and come out") func input() async throws { try await ExecContract.input(NativeRig()) }

  @Test("a terminal has a size that can be changed, and Ctrl-C") func terminal() async throws {
    try await ExecContract.terminal(NativeRig())
  }
}
