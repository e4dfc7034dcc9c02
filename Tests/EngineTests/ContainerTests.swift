import EngineAPI
import Model
import Testing

@Suite("containers on a real engine")
struct ContainerTests {
  @Test("ping negotiates the version and recognises the engine", arguments: Rig.allCases)
  func ping(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    #expect(engine.apiVersion >= .oldest)
    #expect(engine.flavour.rawValue == rig.rawValue)
    let clock = ContinuousClock()
    var times: [Duration] = []
    for _ in 0..<200 { times.append(try await clock.measure { _ = try await engine.ping() }) }
    print("\(rig.rawValue): a kept-alive ping takes \(times.sorted()[100])")
    let version = try await engine.version()
    #expect(!version.components.isEmpty)
    let info = try await engine.info()
    #expect(info.cpus > 0 && info.memory > 0 && !info.storageDriver.isEmpty)
    await engine.close()
  }

  @Test("a container is created, started, waited for, read and removed", arguments: Rig.allCases)
  func life(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let name = "appsup-test-life-\(rig.rawValue)"
    try? await engine.removeContainer(name, force: true)  // best effort: one that an earlier run left
    let created = try await engine.createContainer(Rig.spec("echo out; echo err >&2; exit 7"), named: name)
    #expect(created.warnings == [])
    #expect(try await engine.inspectContainer(name).state.isRunning == false)
    #expect(try await engine.startContainer(created.id))
    let exit = try await within { try await engine.waitContainer(created.id) }
    #expect(exit.code == 7 && exit.error == nil)
    let details = try await engine.inspectContainer(created.id)
    #expect(details.name == name && details.state.status == .exited && details.state.exitCode == 7)
    #expect(details.state.startedAt != nil && details.state.finishedAt != nil)
    var output = ""
    var errors = ""
    for try await chunk in try await engine.containerLogs(created.id) {
      if chunk.stream == .output { output += chunk.text } else { errors += chunk.text }
    }
    #expect(output == "out\n" && errors == "err\n")
    try await engine.removeContainer(created.id)
    await #expect(throws: EngineFailure.self) { try await engine.inspectContainer(created.id) }
  }
}
