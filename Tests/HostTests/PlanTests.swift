import Linux
import Model
import Testing

import Sandboxing

@Suite("what daemon and shim tell each other")
struct PlanTests {
  private func plan() -> LaunchPlan {
    var plan = LaunchPlan(app: "notes", generation: 7, nonce: "ab12")
    plan.membership.files = ["/sys/fs/cgroup/pids/x/notes/tasks"]
    plan.membership.path = "/x/notes"
    plan.identity.uidMap = [.init(inside: 0, outside: 2_097_152), .init(inside: 1000, outside: 2_098_152)]
    plan.identity.capabilities = 1 << 40
    plan.walls.readsProcesses = true
    plan.root = [
      .init("usr", .bind(source: "/usr", rules: [.readOnly, .noSetuid], folder: true, follow: true)),
      .init("etc", .folder(mode: 0o755)), .init("etc/hosts", .file(mode: 0o644, bytes: Array("x\n".utf8))),
      .init("bin", .link(to: "usr/bin")), .init("proc", .processes),
      .init("tmp", .memory(size: 1 << 20, mode: 0o1777, owner: 1000, rules: [.noExecution])),
    ]
    plan.program.arguments = ["/bin/sh", "-c", "echo ü"]
    plan.program.limits = [.init(7, soft: 64, hard: .max)]
    plan.ports = [.init(address: "127.0.0.1", outside: 0, inside: 80)]
    return plan
  }

  @Test("a plan comes back as it was") func roundTrip() throws {
    #expect(try LaunchPlan(bytes: plan().bytes) == plan())
  }

  @Test("a plan cut at any byte, or longer by one, is refused") func cut() throws {
    let bytes = plan().bytes
    for length in 0..<bytes.count {
      #expect(throws: MalformedBytes.self, "\(length)") { try LaunchPlan(bytes: Array(bytes[..<length])) }
    }
    #expect(throws: MalformedBytes.self) { try LaunchPlan(bytes: bytes + [0]) }
  }

  @Test("a plan cannot name a path outside its root") func escape() throws {
    for path in ["../etc", "/etc", "a/../../b", ""] {
      var plan = plan()
      plan.root[1].path = path
      #expect(throws: MalformedBytes.self, "\(path)") { try LaunchPlan(bytes: plan.bytes) }
    }
  }

  @Test("packets and outcomes come back as they were") func packets() throws {
    for request in [ShimRequest.go, .status, .signal(15), .acknowledge] {
      #expect(try ShimRequest(bytes: request.bytes) == request)
    }
    var outcome = RunOutcome(nonce: "n", cause: .code(3), startedAt: 5, endedAt: 9)
    outcome.outOfMemory = true
    outcome.outputLost = 12
    var never = RunOutcome(
      nonce: "n", cause: .neverStarted(step: "exec", reason: "no such file", code: 2), startedAt: nil, endedAt: 9)
    never.outputLost = 0
    let running = RunningFacts(pid: 4, init1: 3, startedAt: 8, ports: [80, 81])
    for state in [RunState.preparing, .running(running), .ended(outcome), .ended(never)] {
      let reply = ShimReply.state(nonce: "n", state)
      #expect(try ShimReply(bytes: reply.bytes) == reply)
    }
    #expect(throws: MalformedBytes.self) { try RunOutcome(text: "appsupervisor-run 2\nnonce n\n") }
  }

  @Test("a log record is 32 bytes and comes back; other bytes are none") func record() {
    let record = LogRecord(time: -5, offset: 1 << 40, run: 9, length: 77, stream: .error)
    #expect(record.bytes.count == LogRecord.size)
    #expect(LogRecord(bytes: record.bytes[...]) == record)
    #expect(LogRecord(bytes: [UInt8](repeating: 0xFF, count: 32)[...]) == nil)
  }

  @Test("capabilities by name") func capabilities() {
    #expect(Capability.bits("CAP_CHOWN") == 1)
    #expect(Capability.bits("CHECKPOINT_RESTORE") == 1 << 40)
    #expect(Capability.bits("ALL") == (1 << 41) - 1)
    #expect(Capability.bits("NOPE") == nil)
    // What the Engines give: 00000000a80425fb.
    #expect(Capability.engineDefault == 0xA804_25FB)
  }
}
