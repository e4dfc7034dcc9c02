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

  func demand(_ name: String, _ mebibytes: UInt64) throws -> Demand {
    Demand(app: try #require(AppID(name)), memory: .mebibytes(mebibytes))
  }

  @Test("an app that does not fit waits, and the text says what is missing")
  func pending() throws {
    var room = admission.room(beside: [try demand("a", 568)])
    #expect(room.admit(try demand("b", 512)) == .pending("memory: needs 512 MiB, 200 MiB free"))
    #expect(room.admit(try demand("b", 200)) == .admit)
    #expect(room.admit(try demand("c", 1)) == .pending("memory: needs 1.00 MiB, 0 B free"))
    var none = admission.room(beside: [try demand("a", 4096)])
    #expect(none.admit(try demand("b", 0)) == .admit)
  }

  @Test("an app this machine can never hold is told so")
  func never() throws {
    var room = admission.room(beside: [])
    #expect(
      room.admit(try demand("b", 900)) == .pending("memory: needs 900 MiB, this host has 768 MiB for apps in all"))
  }

  @Test("a smaller one may pass one that does not fit")
  func passing() throws {
    var room = admission.room(beside: [])
    let verdicts = try [("a", 400), ("b", 300), ("c", 600), ("d", 50)].map { room.admit(try demand($0.0, $0.1)) }
    #expect(verdicts.map { $0 == .admit } == [true, true, false, true])
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
