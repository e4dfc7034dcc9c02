import EngineAPI
import Model
import Testing

@Suite("exec and attach on a real engine")
struct ExecTests {
  @Test("a command's output, errors and exit code come back", arguments: Rig.present)
  func exitCode(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("sleep 600")) { id in
      var spec = ExecSpec(["/bin/sh", "-c", "echo $WORD; pwd; id -u; echo err >&2; exit 9"])
      spec.environment = [("WORD", "said")]
      spec.workingDirectory = "/etc"
      spec.user = "65534:65534"
      let exec = try await engine.createExec(in: id, spec)
      let conversation = try await engine.startExec(exec, terminal: false)
      let (output, errors) = try await within { try await read(conversation.output) }
      #expect(output == "said\n/etc\n65534\n" && errors == "err\n")
      let details = try await ended(engine, exec)
      #expect(details.exitCode == 9)
    }
  }

  @Test("input reaches a command, ends by a half close, and megabytes come back in order", arguments: Rig.present)
  func input(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("sleep 600")) { id in
      var spec = ExecSpec(["cat"])
      spec.input = true
      let exec = try await engine.createExec(in: id, spec)
      let conversation = try await engine.startExec(exec, terminal: false)
      let pieces = 128
      let size = 32768
      let received = try await within(.seconds(60)) {
        try await withThrowingTaskGroup(of: [UInt8].self) { group in
          group.addTask {
            for piece in 0..<pieces { try await conversation.write([UInt8](repeating: UInt8(piece), count: size)) }
            await conversation.endInput()
            return []
          }
          group.addTask {
            var bytes: [UInt8] = []
            for try await chunk in conversation.output { bytes += chunk.bytes }
            return bytes
          }
          return try await group.reduce([]) { $0 + $1 }
        }
      }
      #expect(received.count == pieces * size)
      #expect(
        (0..<pieces).allSatisfy { received[$0 * size] == UInt8($0) && received[$0 * size + size - 1] == UInt8($0) })
      #expect(try await ended(engine, exec).exitCode == 0)
    }
  }

  @Test("a terminal has a size that can be changed, and talks both ways", arguments: Rig.present)
  func terminal(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("sleep 600")) { id in
      var spec = ExecSpec(["/bin/sh", "-c", "test -t 0 && echo terminal; read go; stty size; exit 3"])
      spec.terminal = true
      spec.input = true
      let exec = try await engine.createExec(in: id, spec)
      let conversation = try await engine.startExec(exec, terminal: true)
      let text = try await within {
        var text = ""
        var resized = false
        for try await chunk in conversation.output {
          text += chunk.text
          if text.contains("terminal"), !resized {
            resized = true
            try await engine.resizeExec(exec, columns: 101, rows: 37)
            try await conversation.write(Array("go\n".utf8))
          }
        }
        return text
      }
      #expect(text.contains("37 101"))
      #expect(try await ended(engine, exec).exitCode == 3)
    }
  }

  @Test("a command that does not exist is an error or exit code 126 or 127", arguments: Rig.present)
  func missing(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    try await engine.withContainer(Rig.spec("sleep 600")) { id in
      let exec = try await engine.createExec(in: id, ExecSpec(["/no/such/program"]))
      do throws(EngineFailure) {
        let conversation = try await engine.startExec(exec, terminal: false)
        for try await _ in conversation.output {}
        let code = try await engine.inspectExec(exec).exitCode ?? 0
        #expect(code == 126 || code == 127)
      } catch {
        #expect("\(error)".contains("no such file"), "\(error)")
      }
    }
  }

  @Test(
    "starting an unknown exec is not found, on the connection that would have been taken over", arguments: Rig.present)
  func unknown(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let failed = await failure { _ = try await engine.startExec(String(repeating: "ab", count: 32), terminal: false) }
    guard case .notFound = failed else {
      Issue.record("\(String(describing: failed))")
      return
    }
  }

  @Test("attached before the start, nothing is missed; input ends by a half close", arguments: Rig.present)
  func attach(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = Rig.spec("echo first; cat; echo last >&2; exit 2")
    spec.openInput = true
    spec.inputOnce = true
    try await engine.withContainer(spec, start: false) { id in
      let attached = try await engine.attachContainer(id, input: true)
      try await engine.startContainer(id)
      try await attached.write(Array("between\n".utf8))
      await attached.endInput()
      let (output, errors) = try await within { try await read(attached.output) }
      #expect(output == "first\nbetween\n" && errors == "last\n")
      #expect(try await engine.exitCode(of: id) == 2)
    }
  }

  @Test("an attached terminal is raw and can be resized", arguments: Rig.present)
  func attachTerminal(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = Rig.spec("read go; stty size")
    spec.openInput = true
    spec.terminal = true
    try await engine.withContainer(spec, start: false) { id in
      let attached = try await engine.attachContainer(id, input: true)
      try await engine.startContainer(id)
      try await engine.resizeContainer(id, columns: 90, rows: 33)
      try await attached.write(Array("go\n".utf8))
      let (output, _) = try await within { try await read(attached.output) }
      #expect(output.contains("33 90"))
    }
  }

  /// The exec once the engine has noticed its end, which can be a moment after its output has ended.
  private func ended(_ engine: Engine, _ exec: String) async throws -> ExecDetails {
    try await within {
      while true {
        let details = try await engine.inspectExec(exec)
        if !details.running { return details }
        await Task.yield()
      }
    }
  }
}
