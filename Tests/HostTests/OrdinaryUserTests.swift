import Linux
import Model
import Testing

@testable import Cgroups
@testable import Linux
@testable import ProcessHosting
import Sandboxing

@Suite("native apps of an ordinary user") struct OrdinaryUserTests {
  private func launch(_ slot: UInt32, count: UInt32) throws -> Launch {
    var policy = Policy(id: try #require(AppID("notes")), stack: "notes", runtime: .native, baseFolder: "/")
    policy.entry = ["/bin/sleep", "1"]
    return Launch(
      policy: policy, generation: 1, nonce: "ab", uidBase: 200_000 + slot * count, uidCount: count, artifact: "")
  }

  @Test("root gives an app a block of ids, an ordinary user two that no other app has") func ids() throws {
    let block = try launch(1, count: 65_536)
    #expect(block.hostID(0) == 265_536 && block.hostID(1000) == 266_536)
    var seen: Set<UInt32> = []
    for slot in [0, 1, 2, 999, 1000, 1001, Launch.mostWithoutRoot - 1] {
      let launch = try launch(slot, count: 1)
      #expect(launch.hostID(0) < 265_536 && launch.hostID(0) >= 200_000)
      #expect(seen.insert(launch.hostID(0)).inserted && seen.insert(launch.hostID(1000)).inserted, "\(slot)")
      let identity = try LaunchPlan.identity(of: launch)
      #expect(identity.uidMap.map(\.outside) == [launch.hostID(0), launch.hostID(1000)])
      #expect(identity.uidMap == identity.gidMap)
    }
  }

  @Test("what would need the host's root is refused, with what to do instead") func refusals() throws {
    func refusal(_ change: (inout Policy) -> Void) throws -> OrdinaryUser.Lack? {
      var policy = try launch(0, count: 1).policy
      change(&policy)
      return OrdinaryUser.refusal(policy)
    }
    #expect(try refusal { _ in } == nil)
    #expect(try refusal { $0.preset = .privileged }?.what.contains("privileged") == true)
    #expect(try refusal { $0.supplementaryGroups = [5] }?.what.contains("group_add") == true)
    #expect(try refusal { $0.healthcheck.test = .tcp(port: 80) }?.fix.contains("command") == true)
    #expect(
      try refusal {
        $0.mounts = [Mount(target: "/things", kind: .volume(name: "things", external: false))]
      }?.what.contains("things") == true)
    #expect(try refusal { $0.mounts = [Mount(target: "/srv", kind: .bind(source: "/srv"), readOnly: true)] } == nil)
    if OrdinaryUser.outOfMemoryFloor > -1000 {
      #expect(try refusal { $0.limits.oomScoreAdjustment = -1000 }?.what.contains("oom_score_adj") == true)
    }
  }

  @Test("a user's range is read by name or number, and a torn line gives none") func ranges() {
    let text = "root:100000:65536\nann:200000:65536\n1001:300000:1000\nbob:x:1\nann:500000:1\ncut:7\nnone:5:0\n"
    let ann = SubordinateIDs.range(of: ["1000", "ann"], in: text)
    #expect(ann?.first == 200_000 && ann?.count == 65_536)
    #expect(SubordinateIDs.range(of: ["1001", "eve"], in: text)?.first == 300_000)
    for name in ["bob", "cut", "none", "an", "ann:200000"] {
      #expect(SubordinateIDs.range(of: [name], in: text) == nil, "\(name)")
    }
  }
}
