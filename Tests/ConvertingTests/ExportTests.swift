import Model
import Policies
import Testing

@testable import Converting

/// A checked policy as an export takes it.
func exported(_ yaml: String, stack: String = "shop") throws -> ExportSource {
  let reading = read(
    PolicySource(path: "a.yaml", folder: "/srv/shop", bytes: Array(yaml.utf8), defaultStack: stack))
  #expect(reading.errors.isEmpty, "\(reading.rendered())\n\(yaml)")
  return ExportSource(
    policy: try #require(reading.policy), canonical: try #require(reading.canonical), file: "a.yaml")
}

/// Numbers that are the same in every run.
struct Dice {
  var state: UInt64
  mutating func roll(_ sides: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int((state >> 33) % UInt64(sides))
  }
  mutating func pick<Item>(_ items: [Item]) -> Item { items[roll(items.count)] }
  mutating func maybe(_ text: String) -> String { roll(2) == 0 ? text : "" }
}

@Suite("Policies in other formats") struct ExportTests {
  /// A policy of what both can say, in every combination.
  static func random(_ dice: inout Dice, _ id: String) -> String {
    var text = "id: \(id)\nstack: shop\nuser: \(dice.pick(["image", "\"1000:1000\"", "\"2097152:2097152\""]))\n"
    text += dice.pick(["image: registry.example/a/b:1.2\n", "build: {context: ./app, dockerfile: D, args: {V: '1'}}\n"])
    text += dice.maybe("entrypoint: [/bin/run, \"a b\", '$$X']\n")
    text += dice.maybe("entry: [serve, '--port', '80', 'x\"y', '']\n")
    text += dice.maybe("environment: {A: '1', B: 'true', C: 'a$$b ${NOPE:-x}', D: \"line\\nbreak\", E: 'null'}\n")
    text += dice.maybe("working_dir: /srv\n")
    text += dice.maybe("mem_limit: \(dice.pick(["64m", "300m", "1g"]))\n")
    text += dice.maybe("memswap_limit: 2g\n")
    text += dice.maybe("mem_reservation: 32m\n")
    text += dice.maybe("cpus: \(dice.pick(["0.5", "1", "1.25"]))\n")
    text += dice.maybe("cpu_shares: 512\n")
    text += dice.maybe("cpuset: 0-1\n")
    text += dice.maybe("pids_limit: 40\n")
    text += dice.maybe("ulimits: {nofile: {soft: 100, hard: 200}, core: 0}\n")
    text += dice.maybe("blkio_config: {weight: 300, device_write_bps: [{path: /dev/vda, rate: 10mb}]}\n")
    text += dice.maybe("oom_score_adj: 700\n")
    text += dice.maybe("shm_size: 32m\n")
    text += dice.maybe("restart: \(dice.pick(["always", "unless-stopped", "on-failure", "on-failure:3", "no"]))\n")
    text += dice.maybe("stop_signal: SIGQUIT\n")
    text += dice.maybe("stop_grace_period: 1m30s\n")
    switch dice.roll(4) {
    case 0: text += "networks: {front: {aliases: [www, site]}, back: {}}\n"
    case 1: text += "network_mode: bridge\n"
    case 2: text += "ports: ['8080-8081:80-81', '0.0.0.0:9000:90/udp', '[::1]:70:70', '443']\n"
    default: text += "network_mode: none\n"
    }
    text += dice.maybe("extra_hosts: {db: 10.0.0.5}\n")
    text += dice.maybe("dns: [10.0.0.1, 10.0.0.2]\n")
    text += dice.maybe("hostname: box\n")
    text += dice.maybe(
      "volumes: ['data:/data', './conf:/conf:ro', {type: volume, source: ext, target: /e, external: true}]\n")
    text += dice.maybe("tmpfs: ['/run:size=1m,mode=0755', '/tmp:size=8m']\n")
    text += dice.maybe("read_only: \(dice.pick(["true", "false"]))\n")
    text += dice.maybe("cap_add: [CHOWN, SETUID]\n")
    text += dice.maybe("group_add: [5, 6]\n")
    text += dice.maybe("labels: {a: b, 'c.d': '1'}\n")
    text += dice.maybe("profiles: [dev]\n")
    text += dice.maybe("logging: {options: {max-size: 5m, max-file: 2}}\n")
    return text
  }

  @Test("a Compose file that was exported is read back as the same policies", arguments: 0..<300)
  func roundTrip(_ seed: Int) throws {
    var dice = Dice(state: UInt64(seed) &* 977 &+ 12345)
    var sources = [try exported(Self.random(&dice, "one")), try exported(Self.random(&dice, "two"))]
    sources.append(
      try exported(
        "id: three\nstack: shop\nimage: i\nuser: image\nnetworks: [front]\ndepends_on: {one: {restart: true}, two: {required: false}}\n"
      ))
    // The engine's own volumes and shared networks exist for several apps.
    sources.append(try exported("id: four\nstack: shop\nimage: i\nuser: image\nnetworks: [front, back]\n"))
    let export = export(sources, to: .compose)
    let text = try #require(export.files.first?.text)
    let result = imported(text)
    #expect(result.problems.isEmpty, "\(result.problems)\n\(text)")
    #expect(losses(result).isEmpty, "\(result.remarks.filter(\.isLoss))\n\(text)")
    let back = policies(of: result)
    for source in sources {
      var expected = source.policy
      var found = try #require(back[source.policy.id.name])
      // Where it came from, and what every policy has anyway.
      expected.baseFolder = ""
      found.baseFolder = ""
      found.securityOptions.removeAll { $0 == "no-new-privileges=true" }
      expected.mounts.sort { $0.target < $1.target }
      found.mounts.sort { $0.target < $1.target }
      // A list of addresses has no order of its own where none is shared.
      guard found != expected else { continue }
      let (left, right) = (effectiveDocument(found), effectiveDocument(expected))
      let keys = left.objectValue?.keys.filter { left[$0] != right[$0] } ?? []
      let said = keys.map { "\($0): \(left[$0]?.text ?? "") instead of \(right[$0]?.text ?? "")" }
      Issue.record("\(source.policy.id): \(said.joined(separator: "; "))")
    }
  }

  @Test("what Compose cannot say is reported by key: an own uid, priority, a native app, egress of restarts")
  func composeLosses() throws {
    let source = try exported(
      "id: a\nimage: i\npriority: high\nmax_runtime: 1h\nmem_high: 100m\nrestart_policy: {delay: 5s}\ndepends_on: [gone]\n"
    )
    let native = try exported("id: n\nentry: [/bin/true]\n")
    let export = export([source, native], to: .compose)
    let keys = export.remarks.filter(\.isLoss).map { "\($0.app) \($0.key)" }
    for key in ["a user", "a priority", "a max_runtime", "a mem_high", "a restart_policy", "a depends_on", "n "] {
      #expect(keys.contains(key), "\(key) in \(keys)")
    }
    #expect(export.files[0].text.contains("cpu_shares: 4194"))
  }

  @Test("words of a unit are what systemd reads back: quotes, percent, dollar, spaces")
  func unitWords() {
    #expect(QuadletExport.word("plain/path:1") == "plain/path:1")
    #expect(QuadletExport.word("a b") == "\"a b\"")
    #expect(QuadletExport.word("100%$X") == "100%%$$X")
    #expect(QuadletExport.word("q\"\\\n") == "\"q\\\"\\\\\\n\"")
    #expect(QuadletExport.word("") == "\"\"")
    #expect(QuadletExport.word("a#b;c") == "\"a#b;c\"")
  }

  @Test("a Quadlet unit holds the limits, rights and order of the policy")
  func quadlet() throws {
    let export = export(
      [
        try exported(
          """
          id: web
          image: nginx:1
          user: image
          cap_add: [CHOWN]
          mem_limit: 256m
          cpus: 0.5
          networks: {front: {aliases: [www]}}
          volumes: ["site:/srv:ro"]
          depends_on: [db]
          restart: unless-stopped
          environment: {A: "x %y"}
          """),
        try exported("id: db\nimage: pg\nnetworks: [front]\n"),
      ], to: .quadlet)
    let unit = try #require(export.files.first { $0.name == "web.container" }?.text)
    for line in [
      "Image=nginx:1", "DropCapability=all", "AddCapability=chown", "NoNewPrivileges=true", "ReadOnly=true",
      "Network=front.network", "Volume=site.volume:/srv:ro", "After=db.service", "Requires=db.service",
      "Restart=always", "Environment=\"A=x %%y\"", "PidsLimit=256", "WantedBy=multi-user.target default.target",
    ] { #expect(unit.split(separator: "\n").contains(Substring(line)), "\(line)\n\(unit)") }
    #expect(unit.contains("--memory 268435456 --memory-swap 268435456 --cpus 0.5"))
    #expect(export.files.map(\.name) == ["web.container", "db.container", "site.volume", "front.network"])
  }

  @Test("a Kubernetes manifest is a Deployment, or a Job where nothing restarts it, with what its cluster can hold")
  func kubernetes() throws {
    let export = export(
      [
        try exported(
          "id: my_web\nimage: nginx:1\nports: ['8080:80']\nmem_limit: 64m\ncpus: 0.25\nrestart: always\nvolumes: ['d_x:/d']\nenvironment: {A: 'a$$b$$(X)'}\n"
        ),
        try exported("id: once\nimage: i\nrestart: on-failure:3\nmax_runtime: 90s\n"),
      ], to: .kubernetes)
    let web = try #require(export.files.first { $0.name == "my-web.yaml" }?.text)
    for part in [
      "kind: Deployment", "kind: Service", "kind: PersistentVolumeClaim", "claimName: d-x", "cpu: 250m",
      "readOnlyRootFilesystem: true", "hostPort: 8080", "automountServiceAccountToken: false", "a$b$$(X)",
    ] { #expect(web.contains(part), "\(part)\n\(web)") }
    let once = try #require(export.files.first { $0.name == "once.yaml" }?.text)
    for part in ["kind: Job", "backoffLimit: 3", "activeDeadlineSeconds: 90", "kind: NetworkPolicy"] {
      #expect(once.contains(part), "\(part)\n\(once)")
    }
    #expect(export.remarks.contains { $0.app == "my_web" && $0.key == "id" && $0.kind == .changed })
  }
}
