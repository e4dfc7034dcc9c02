import EngineAPI
import Linux
import Model
import Testing

@Suite("containers on a real engine")
struct ContainerTests {
  @Test("ping negotiates the version and recognises the engine", arguments: Rig.present)
  func ping(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    #expect(engine.apiVersion >= .oldest)
    #expect(engine.flavour.rawValue == rig.rawValue)
    let clock = ContinuousClock()
    var times: [Duration] = []
    for _ in 0..<200 { times.append(try await clock.measure { _ = try await engine.ping() }) }
    print("\(rig.rawValue): a kept-alive ping takes \(times.sorted()[100])")
    let version = try await engine.version()
    #expect(!version.components.isEmpty && !version.version.isEmpty)
    let info = try await engine.info()
    #expect(info.cpus > 0 && info.memory > 0 && !info.storageDriver.isEmpty)
    await engine.close()
    #expect(await failure { _ = try await engine.ping() } == .cancelled)
  }

  @Test("many calls at a time are answered", arguments: Rig.present)
  func parallel(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let answers = try await within {
      try await withThrowingTaskGroup(of: Bool.self) { group in
        for index in 0..<100 {
          group.addTask {
            if index % 2 == 0 { return try await engine.ping().apiVersion >= .oldest }
            return try await engine.listContainers().count >= 0
          }
        }
        return try await group.reduce(into: 0) { count, good in count += good ? 1 : 0 }
      }
    }
    #expect(answers == 100)
  }

  @Test("a container is created, started, waited for, read and removed", arguments: Rig.present)
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
    #expect(details.name == name && details.state.exitCode == 7)
    #expect(details.state.status == .exited || details.state.status == .stopped)
    #expect(details.state.startedAt != nil && details.state.finishedAt != nil)
    let (output, errors) = try await read(engine.containerLogs(created.id))
    #expect(output == "out\n" && errors == "err\n")
    try await engine.removeContainer(created.id)
    let gone = await failure { _ = try await engine.inspectContainer(created.id) }
    guard case .notFound(_, let message) = gone else {
      Issue.record("\(String(describing: gone))")
      return
    }
    #expect(message.lowercased().contains("no such container") && message.contains(created.id))
  }

  @Test(
    "a running container is paused, renamed, listed, looked into, stopped and started again", arguments: Rig.present)
  func verbs(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("trap 'exit 5' TERM; sleep 600 & wait")) { id in
      #expect(try await engine.startContainer(id) == false)
      try await engine.pauseContainer(id)
      #expect(try await engine.inspectContainer(id).state.status == .paused)
      try await engine.unpauseContainer(id)
      let name = "appsup-test-renamed-\(rig.rawValue)-\(id.prefix(6))"
      try await engine.renameContainer(id, to: name)
      let listed = try await engine.listContainers(all: false, .label(Rig.label).adding("name", name))
      #expect(listed.map(\.id) == [id] && listed[0].names == [name] && listed[0].status == .running)
      let (titles, processes) = try await engine.topContainer(id)
      #expect(titles == ["PID", "USER", "COMMAND"])
      #expect(processes.contains { $0.contains { $0.contains("sleep 600") } })
      let usage = try await engine.containerUsage(id)
      #expect(usage.memory > 0 && usage.pids >= 2)
      #expect(try await engine.stopContainer(id, grace: .seconds(10)))
      #expect(try await engine.inspectContainer(id).state.exitCode == 5)
      #expect(try await engine.stopContainer(id) == false)
      try await engine.startContainer(id)
      try await engine.killContainer(id)
      #expect(try await engine.exitCode(of: id) == 137)
    }
  }

  @Test("verbs a state forbids are conflicts", arguments: Rig.present)
  func conflicts(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("true"), start: false) { id in
      for call in [
        { try await engine.killContainer(id) }, { try await engine.pauseContainer(id) },
        { _ = try await engine.createExec(in: id, ExecSpec(["true"])) },
      ] as [() async throws -> Void] {
        let failed = await failure(call)
        guard case .conflict = failed else {
          // Podman says 500 to some.
          if rig == .podman, case .refused = failed { continue }
          Issue.record("\(String(describing: failed))")
          continue
        }
      }
    }
  }

  @Test("prune removes what carries our label and nothing else", arguments: Rig.present)
  func prune(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var mine = Rig.spec("true")
    mine.labels["prune"] = "mine-\(rig.rawValue)"
    let id = try await engine.createContainer(mine, named: nil).id
    try await engine.withContainer(Rig.spec("true"), start: false) { other in
      let pruned = try await engine.pruneContainers(.label("prune=mine-\(rig.rawValue)"))
      #expect(pruned == [id])
      #expect(try await engine.inspectContainer(other).id == other)
    }
  }

  @Test(
    "waiting for the next exit tells the code of the run it was asked in",
    arguments: Rig.present.filter { $0 == .docker })
  func nextExit(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("exit 4"), start: false) { id in
      let code = try await within {
        async let exit = engine.waitContainer(id, for: .nextExit)
        // Started once the engine has answered another call behind it; the head of the wait comes at once.
        _ = try await engine.ping()
        try await engine.startContainer(id)
        return try await exit.code
      }
      #expect(code == 4)
    }
  }

  @Test("an image that is not here is named in the error", arguments: Rig.present)
  func unknownImage(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = Rig.spec("true")
    spec.image = "appsup-test/nothing:9"
    spec.environment = [("SECRET", "hunter2-hunter2")]
    let failed = await failure { try await engine.withContainer(spec) { _ in } }
    guard case .notFound(_, let message) = failed else {
      Issue.record("\(String(describing: failed))")
      return
    }
    #expect(message.contains("appsup-test/nothing:9"))
    #expect(!message.contains("hunter2"))
  }
}

/// All output and all errors of a stream.
func read(_ stream: ContainerOutput) async throws -> (output: String, errors: String) {
  var output: [UInt8] = []
  var errors: [UInt8] = []
  for try await chunk in stream {
    if chunk.stream == .error { errors += chunk.bytes } else { output += chunk.bytes }
  }
  return (String(decoding: output, as: UTF8.self), String(decoding: errors, as: UTF8.self))
}
