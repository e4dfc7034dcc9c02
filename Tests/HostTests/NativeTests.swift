import Model
import Testing

@Suite("native apps on this kernel", .enabled(if: canRunNative, "needs root and writable cgroups"))
struct NativeTests {
  @Test("an app's exit code and both its streams arrive") func exitCode() async throws {
    try await HostContract.exitCode(NativeRig())
  }

  @Test("a signal ends an app, and the report says which") func signalled() async throws {
    try await HostContract.signalled(NativeRig())
  }

  @Test("an app that ignores SIGTERM is killed") func stubborn() async throws {
    try await HostContract.stubborn(NativeRig())
  }
}
