import Model
import Scheduling
import Testing

@Suite("weights")
struct WeightTests {
  @Test("priorities 0, 3, 5, 8, 10 weigh 10, 39, 100, 410, 1049")
  func priorities() {
    let weights = Priority.names.map { CPUShare($0.value).weight }
    #expect(weights == [10, 39, 100, 410, 1049])
  }

  @Test("v1 shares keep the proportions, 1024 in the middle")
  func shares() {
    #expect(CPUShare(.normal).shares == 1024)
    #expect(CPUShare(.idle).shares == 102)
    #expect(CPUShare(.critical).shares == 10742)
  }

  @Test(
    "Docker's shares become v2 weights as current runtimes do it",
    arguments: [(2, 1), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000), (0, 1), (999_999, 10_000)]
      as [(UInt64, UInt64)])
  func conversion(shares: UInt64, weight: UInt64) {
    #expect(CPUShare(shares: shares).weight == weight)
  }

  @Test("explicit shares win over the priority, verbatim on v1")
  func explicit() throws {
    var policy = Policy(id: try #require(AppID("a")), stack: "s", runtime: .native, baseFolder: "/")
    policy.priority = .critical
    policy.limits.cpuShares = 512
    #expect(CPUShare(policy).shares == 512)
  }
}

@Suite("admission")
struct AdmissionTests {
  let admission = Admission(capacity: .mebibytes(1024), reserve: .mebibytes(256))

  func demand(_ name: String, _ mebibytes: UInt64, _ priority: Priority = .normal) throws -> Demand {
    Demand(app: try #require(AppID(name)), priority: priority, memory: .mebibytes(mebibytes))
  }

  @Test("an app that does not fit waits, and the text says what is missing")
  func pending() throws {
    let running = [try demand("a", 568)]
    #expect(
      admission.decide(try demand("b", 512), running: running) == .pending("memory: needs 512 MiB, 200 MiB free"))
    #expect(admission.decide(try demand("b", 200), running: running) == .admit)
    #expect(admission.decide(try demand("b", 0), running: [try demand("a", 4096)]) == .admit)
  }

  @Test("an app this machine can never hold is told so")
  func never() throws {
    #expect(
      admission.decide(try demand("b", 900), running: [])
        == .pending("memory: needs 900 MiB, this host has 768 MiB for apps in all"))
  }

  @Test("highest priority first, then as asked; a smaller one may pass one that does not fit")
  func order() throws {
    let waiting = [
      try demand("one", 300), try demand("two", 600, .low), try demand("three", 400, .high),
      try demand("four", 50, .idle),
    ]
    let decided = admission.decide(waiting, running: [])
    #expect(decided.map(\.demand.app.name) == ["three", "one", "two", "four"])
    #expect(decided.map { $0.verdict == .admit } == [true, true, false, true])
  }

  @Test("the reservation counts where there is one, else the limit")
  func demands() throws {
    var policy = Policy(id: try #require(AppID("a")), stack: "s", runtime: .native, baseFolder: "/")
    #expect(Demand(policy).memory == Bytes(0))
    policy.limits.memory = .mebibytes(512)
    #expect(Demand(policy).memory == .mebibytes(512))
    policy.limits.memoryReservation = .mebibytes(64)
    #expect(Demand(policy).memory == .mebibytes(64))
  }
}
