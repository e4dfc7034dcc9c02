import Model
import Testing

@testable import Policies

@Suite("Exposure scores") struct ScoreTests {
  private func native(_ lines: String = "") throws -> Policy {
    try #require(reading("id: a\nentry: [/bin/true]\n\(lines)\n").policy)
  }

  @Test("the presets score as documented: 0 is tight, 10 is exposed")
  func presets() throws {
    #expect(Score(try container("sandbox: minimal")).value == 0.2)
    #expect(Score(try container("")).value == 0.3)
    #expect(Score(try container("sandbox: privileged")).value == 5.0)
    #expect(Score(try native("sandbox: minimal")).value == 0)
    #expect(Score(try native()).value == 0)
    #expect(Score(try native("sandbox: privileged")).value == 5.0)
  }

  @Test(
    "each field that weakens costs",
    arguments: [
      "user: image", "user: '0:0'", "user: '1000'", "cap_add: [CHOWN]", "cap_add: [NET_RAW]", "network_mode: bridge",
      "networks: [back]", "ports: ['80:80']", "read_only: false", "volumes: [{type: bind, source: /srv, target: /srv}]",
      "volumes: ['/srv:/srv:ro']", "volumes: [{type: volume, source: v, target: /v, external: true}]",
      "group_add: [20]", "devices: [/dev/x]", "enforcement: degrade", "memswap_limit: 1g", "pids_limit: 4096",
      "environment: {A: {secret: s}}", "sandbox: privileged",
    ])
  func weaker(_ line: String) throws {
    #expect(open(try container(line)) > open(try container("")), "\(line)")
  }

  @Test(
    "and each that weakens further under privileged costs more",
    arguments: [
      "network_mode: host", "cap_add: [SYS_ADMIN]", "security_opt: ['seccomp=unconfined']",
      "security_opt: ['apparmor=unconfined']", "security_opt: ['no-new-privileges:false']", "mem_limit: 0",
      "pids_limit: 0", "oom_score_adj: 0",
    ])
  func weakest(_ line: String) throws {
    #expect(
      open(try container("sandbox: privileged\n\(line)")) > open(try container("sandbox: privileged")), "\(line)")
  }

  @Test("a port on all addresses costs more than one on loopback")
  func addresses() throws {
    let near = try container("ports: ['80:80']")
    let wide = try container("ports: ['0.0.0.0:80:80']")
    #expect(open(wide) > open(near))
  }

  @Test("what is missing while it runs costs, and is named; all open is nearly 10")
  func extremes() throws {
    let tight = Score(try native())
    #expect(tight.degraded(by: []) == tight)
    let less = tight.degraded(by: ["landlock: this kernel has none"])
    #expect(less.value > tight.value)
    #expect(less.layers.last?.why.contains("landlock") == true)
    let all = try container(
      """
      sandbox: privileged
      user: "0:0"
      network_mode: host
      cap_add: [ALL]
      security_opt: ["seccomp=unconfined", "apparmor=unconfined", "no-new-privileges:false"]
      volumes: ["/srv:/a", "/home:/b", "/opt:/c"]
      mem_limit: 0
      pids_limit: 0
      oom_score_adj: 0
      group_add: [1, 2]
      enforcement: degrade
      environment: {A: {secret: s}}
      """)
    #expect(Score(all).value > 9)
    #expect(Score(all).value <= 10)
  }

  private func open(_ policy: Policy) -> Double { Score(policy).layers.reduce(0) { $0 + $1.weight * $1.exposure } }
}
