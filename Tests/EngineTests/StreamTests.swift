import EngineAPI
import Linux
import Model
import Testing

@Suite("streams on a real engine", .serialized)
struct StreamTests {
  @Test("followed logs come as they are written and end with the container", arguments: Rig.present)
  func follow(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let script = "echo one; read go; echo two; echo three >&2"
    var spec = Rig.spec(script)
    spec.openInput = true
    spec.inputOnce = true
    try await engine.withContainer(spec, start: false) { id in
      let attached = try await engine.attachContainer(id, input: true)
      try await engine.startContainer(id)
      let text = try await within {
        var text = ""
        for try await chunk in try await engine.containerLogs(id, LogsQuery(follow: true, timestamps: true)) {
          #expect(chunk.time != nil)
          text += "\(chunk.stream.rawValue)\(chunk.text)"
          // The next lines exist only because the first was delivered.
          if chunk.text == "one\n" { try await attached.write(Array("go\n".utf8)) }
        }
        return text
      }
      #expect(text == "1one\n1two\n2three\n" || text == "1one\n2three\n1two\n")
    }
  }

  @Test("tail and since narrow the logs", arguments: Rig.present)
  func narrowed(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("for i in 1 2 3 4 5; do echo $i; sleep 0.05; done")) { id in
      _ = try await within { try await engine.waitContainer(id) }
      let (last, _) = try await read(engine.containerLogs(id, LogsQuery(tail: 2)))
      #expect(last == "4\n5\n")
      var times: [WallTime] = []
      for try await chunk in try await engine.containerLogs(id, LogsQuery(timestamps: true)) {
        if let time = chunk.time { times.append(time) }
      }
      try #require(times.count == 5)
      let (later, _) = try await read(engine.containerLogs(id, LogsQuery(since: times[3])))
      // Podman's `since` is to the second or so; the caller compares times.
      #expect(later.hasSuffix("4\n5\n") && (rig == .podman || later == "4\n5\n"))
    }
  }

  @Test("a terminal's output is raw", arguments: Rig.present)
  func terminal(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = Rig.spec("echo out; echo err >&2")
    spec.terminal = true
    try await engine.withContainer(spec) { id in
      _ = try await within { try await engine.waitContainer(id) }
      let (output, errors) = try await read(engine.containerLogs(id))
      #expect(output.filter { $0 != "\r" && $0 != "\r\n" && $0 != "\n" } == "outerr" && errors.isEmpty)
    }
  }

  @Test("a flood of logs read by nobody costs bounded memory, and is cancelled cleanly", arguments: Rig.present)
  func flood(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = Rig.spec("yes appsupervisor-flood-appsupervisor-flood-appsupervisor-flood | head -c 32m")
    spec.host.log = LogSpec(driver: "json-file", options: ["max-size": "256m"])
    try await engine.withContainer(spec) { id in
      _ = try await within(.seconds(120)) { try await engine.waitContainer(id) }
      let before = try residentBytes()
      var streams: [ContainerOutput] = []
      var iterators: [ContainerOutput.Iterator] = []
      for number in 0..<4 {
        // One does not follow: podman ends a followed log a while after the container, read or not.
        let stream = try await engine.containerLogs(id, LogsQuery(follow: number != 1))
        var iterator = stream.makeAsyncIterator()
        #expect(try await iterator.next() != nil)
        streams.append(stream)
        iterators.append(iterator)
      }
      // Other calls go on beside the stalled streams, and give the engine time to push all it can.
      for _ in 0..<500 { _ = try await engine.ping() }
      let growth = try residentBytes() - before
      #expect(growth < 16 << 20, "\(growth) bytes for 4 stalled streams of 32 MiB")
      streams[0].cancel()
      var cancelled = iterators[0]
      let failed = await failure { while try await cancelled.next() != nil {} }
      #expect(failed == .cancelled)
      // One that is read to its end has every byte.
      let rest = iterators[1]
      let bytes = try await within(.seconds(60)) { [rest] in
        var rest = rest
        var bytes = 0
        while let chunk = try await rest.next() { bytes += chunk.bytes.count }
        return bytes
      }
      #expect(bytes > 31 << 20)
    }
  }

  @Test("each kind of stream ends when its task is cancelled, and the engine goes on", arguments: Rig.present)
  func cancellation(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("echo ready; sleep 600")) { id in
      let exec = try await engine.createExec(in: id, ExecSpec(["/bin/sh", "-c", "echo ready; sleep 600"]))
      let kinds: [(String, @Sendable (Signal) async throws -> Void)] = [
        (
          "logs",
          { begun in
            for try await _ in try await engine.containerLogs(id, LogsQuery(follow: true)) { await begun.fire() }
          }
        ),
        ("stats", { begun in for try await _ in try await engine.containerStats(id) { await begun.fire() } }),
        (
          "events",
          { begun in
            let cursor = EventCursor(from: WallTime(nanoseconds: Clock.wall().nanoseconds - 60_000_000_000))
            for try await _ in try await engine.events(from: cursor) { await begun.fire() }
          }
        ),
        (
          "exec",
          { begun in
            for try await _ in try await engine.startExec(exec, terminal: false).output { await begun.fire() }
          }
        ),
        (
          "attach",
          { begun in
            let attached = try await engine.attachContainer(id, replay: true)
            for try await _ in attached.output { await begun.fire() }
          }
        ),
        (
          "wait",
          { begun in
            await begun.fire()
            _ = try await engine.waitContainer(id)
          }
        ),
      ]
      for (name, body) in kinds {
        let begun = Signal()
        let task = Task { try await body(begun) }
        try await within { await begun.wait() }
        task.cancel()
        let result = try await within { await task.result }
        #expect(throws: EngineFailure.cancelled, "\(name)") { try result.get() }
      }
      #expect(try await engine.inspectContainer(id).state.isRunning)
    }
  }

  @Test("statistics come again and again", arguments: Rig.present)
  func stats(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("while :; do :; done")) { id in
      let readings = try await within {
        var readings: [ContainerStats] = []
        for try await reading in try await engine.containerStats(id) {
          readings.append(reading)
          if readings.count == 3 { break }
        }
        return readings
      }
      #expect(readings[2].cpuNanoseconds > readings[0].cpuNanoseconds)
      #expect(readings[2].memory > 0 && readings[2].memoryLimit > 0 && readings[2].pids >= 1)
    }
  }
}

/// Something that happens once and can be waited for.
actor Signal {
  private var fired = false
  private var waiters: [CheckedContinuation<Void, Never>] = []

  func fire() {
    fired = true
    for waiter in waiters { waiter.resume() }
    waiters = []
  }

  func wait() async {
    if fired { return }
    await withCheckedContinuation { waiters.append($0) }
  }
}
