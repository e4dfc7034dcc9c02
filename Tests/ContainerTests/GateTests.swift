import Testing

@testable import ContainerHosting

@Suite("the gate for engines") struct GateTests {
  private func facts(_ components: [String], flavour: String = "docker", version: String = "27.1.0") -> EngineFacts {
    EngineFacts(
      endpoint: "unix:///x", flavour: flavour, version: version, apiVersion: "1.41", cgroupDriver: "cgroupfs",
      cgroupVersion: "2", storageDriver: "overlay2", runtime: "runc", components: components, remapsUsers: false,
      isRootless: false, liveRestore: false, hasInit: true)
  }

  private func holes(_ version: String) -> Int {
    EngineGate().verdict(facts(["Engine 27.1.0", "runc \(version)"])).reasons.count
  }

  @Test("each hole is known up to the version of its branch that mended it") func branches() {
    #expect(holes("1.1.5+ds1") == 3 && holes("1.1.12") == 2 && holes("1.1.15") == 2)
    #expect(holes("1.2.7") == 2 && holes("1.2.8") == 1 && holes("1.2.10") == 1)
    #expect(holes("1.3.2") == 2 && holes("1.3.5") == 1 && holes("1.3.6") == 0)
    #expect(
      holes("1.4.2") == 1 && holes("1.4.3") == 0 && holes("1.5.0") == 0 && holes("1.6.0-rc.1") == 0
        && holes("2.0.0") == 0)
  }

  @Test("podman's way of saying it is understood") func podman() {
    let facts = facts(
      [
        "Podman Engine 4.3.1", "Conmon conmon version 2.1.6, commit: unknown",
        "OCI Runtime (runc) runc version 1.1.5+ds1\ncommit: x",
      ],
      flavour: "podman", version: "4.3.1")
    #expect(EngineGate().verdict(facts).reasons.count == 3)
    #expect(EngineGate(refused: ["podman 4.3"]).verdict(facts).name == "refused")
    #expect(EngineGate(refused: ["conmon 2.1"]).verdict(facts).name == "refused")
    #expect(EngineGate(refused: ["runc"]).verdict(facts).name == "refused")
  }

  @Test("crun has no hole that is known here; what is refused is refused by whole numbers") func rules() {
    let crun = facts(["Engine 27.1.0", "crun 1.10"])
    #expect(EngineGate(acceptsDegraded: false).verdict(crun) == .trusted)
    #expect(EngineGate(refused: ["crun 1.1"]).verdict(crun) == .trusted)
    #expect(EngineGate(refused: ["crun 1.10"]).verdict(crun).name == "refused")
    #expect(EngineGate(refused: ["docker 27"]).verdict(crun).name == "refused")
    #expect(EngineGate(acceptsDegraded: false).verdict(facts(["runc 1.1.5"])).name == "refused")
  }
}
