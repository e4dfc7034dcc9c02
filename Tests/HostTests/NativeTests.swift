import Model
import Testing

@Suite("native apps keep the contract of every runtime", .enabled(if: canRunNative, "needs root and writable cgroups"))
struct NativeContractTests {
  @Test("an app's exit code and both its streams arrive") func exitCode() async throws {
    try await HostContract.exitCode(NativeRig())
  }

  @Test("a signal ends an app, and the report says which") func signalled() async throws {
    try await HostContract.signalled(NativeRig())
  }

  @Test("an app that ignores SIGTERM is killed") func stubborn() async throws {
    try await HostContract.stubborn(NativeRig())
  }

  @Test("environment, arguments and working folder arrive") func environment() async throws {
    try await HostContract.environment(NativeRig())
  }

  @Test("a program that is not there is refused by name") func missingProgram() async throws {
    try await HostContract.missingProgram(NativeRig())
  }

  @Test("a paused app stands still, goes on, and can be killed while paused") func paused() async throws {
    try await HostContract.paused(NativeRig())
  }

  @Test("an app beyond its memory ends as out of memory") func outOfMemory() async throws {
    try await HostContract.outOfMemory(NativeRig())
  }

  @Test("a fork bomb stays within its tasks and is killed whole") func tasksAreLimited() async throws {
    try await HostContract.tasksAreLimited(NativeRig())
  }

  @Test("limits are in force, by the kernel's own files") func limitsInForce() async throws {
    try await HostContract.limitsInForce(NativeRig())
  }

  @Test("a second start is refused, a second remove is fine") func secondStart() async throws {
    try await HostContract.secondStart(NativeRig())
  }

  @Test("a new daemon takes over what runs") func adoptRunning() async throws {
    try await HostContract.adoptRunning(NativeRig())
  }

  @Test("a new daemon learns how what ended meanwhile ended") func adoptEnded() async throws {
    try await HostContract.adoptEnded(NativeRig())
  }

  @Test("what runs and nobody knows is ended at adoption") func adoptSweeps() async throws {
    try await HostContract.adoptSweeps(NativeRig())
  }

  @Test("the last lines of a log, and those of a time") func tail() async throws {
    try await HostContract.tail(NativeRig())
  }

  @Test("a followed log arrives as it is written and ends with its app") func follow() async throws {
    try await HostContract.follow(NativeRig())
  }

  @Test("two generations of an app run beside each other, each with limits and output of its own") func beside()
    async throws
  {
    try await HostContract.beside(NativeRig())
  }

  @Test("what was created when its daemon died can be started by the next") func adoptCreated() async throws {
    try await HostContract.adoptCreated(NativeRig())
  }

  @Test("what was created and never started is removed, and never ran") func createdIsRemoved() async throws {
    try await HostContract.createdIsRemoved(NativeRig())
  }
}
