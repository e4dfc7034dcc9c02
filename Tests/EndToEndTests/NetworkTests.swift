import Foundation
import Model
import Testing

/// Where an app is tried: by each engine, and without one.
enum Runner: String, CaseIterable, CustomTestStringConvertible {
  case docker, podman, native
  var testDescription: String { rawValue }
  var rig: Rig? { Rig(rawValue: rawValue) }
  static var available: [Runner] {
    allCases.filter { runner in runner.rig.map { Rig.available.contains($0) && Rig.isInside } ?? true }
  }

  /// A policy whose program is a shell's, with busybox at hand.
  func app(_ id: String, _ script: String, _ more: String) -> String {
    let image = rig == nil ? "" : "image: \(Rig.image)\n"
    return "id: \(id)\n\(image)entry: [/bin/sh, -c, '\(script)']\nstop_grace_period: 1s\nmem_limit: 64m\n\(more)"
  }
}

/// Where apps' networks lead, by what arrives at the other end.
@Suite(.serialized, .enabled(if: getuid() == 0, "networks are made by root")) struct NetworkTests {
  private func with(_ runner: Runner, _ body: (Instance, World) throws -> Void) throws {
    let world = try World(apart: runner == .native)
    defer { world.end() }
    let instance = try Instance(engine: runner.rig?.socket ?? "none")
    defer { instance.end() }
    try body(instance, world)
    try expectNothingLeft(instance, world)
  }

  private func up(_ instance: Instance, _ world: World) {
    let up = instance.run(
      ["up", "-d", "--wait", "--progress", "quiet", "--engine", instance.engine, instance.policies],
      prefix: world.prefix)
    #expect(up.code == 0, "\(up.err)")
  }

  private func expectNothingLeft(_ instance: Instance, _ world: World) throws {
    let down = instance.run("down", "--all", "-y")
    #expect(down.code == 0, "\(down.err)")
    let tables = Shell.run(world.prefix + ["nft", "list", "tables"]).out
    let name = "appsupervisor_\(instance.id?.prefix(8) ?? "?")"
    eventually("the packet filter's tables are gone", seconds: 5) {
      !Shell.run(world.prefix + ["nft", "list", "tables"]).out.contains(name)
    }
    #expect(!tables.isEmpty || world.home != nil)
  }

  /// What follows the app is the command's, so the instance is named before it.
  private func inside(_ instance: Instance, _ app: String, _ command: String...) -> Outcome {
    Shell.run(["\(Instance.programs)/supervisor", "exec", "--root", instance.root, app] + command, within: 60)
  }

  /// Asks whoever is at a place, twice a second at most.
  private static func ask(_ place: String, _ port: Int) -> String {
    "busybox nc -w 1 \(place) \(port) </dev/null 2>/dev/null"
  }

  @Test(
    "an app reaches what its list names from its first instruction on and nothing else: no metadata, no host, no name server; neither the end of the daemon nor its next start changes that",
    arguments: Runner.available)
  func lists(_ runner: Runner) throws {
    try with(runner) { instance, world in
      let host = try HostListener(world)
      defer { host.end() }
      let tries = [(World.address, 81), (World.other, 80), (World.metadata, 80), ("192.0.2.1", 9099)]
        .map { Self.ask($0.0, $0.1) }.joined(separator: "; ")
      let loop =
        "\(Self.ask(World.address, 81)); while :; do \(Self.ask(World.address, 80)); \(tries); timeout 2 busybox nslookup a.example \(World.address) >/dev/null 2>&1; echo round; done"
      try instance.write("held", runner.app("held", loop, "egress: {allow: [\"\(World.address):80\"]}\n"))
      try instance.write(
        "free",
        runner.app(
          "free",
          "\(Self.ask(World.address, 81)); \(Self.ask(World.metadata, 80)); \(Self.ask("192.0.2.1", 9099)); timeout 2 busybox nslookup a.example \(World.other) >/dev/null 2>&1; echo done; exec sleep 1000",
          "network_mode: bridge\n"))
      up(instance, world)
      eventually("both have tried everything") {
        instance.run("logs", "held").out.contains("round") && instance.run("logs", "free").out.contains("done")
      }
      // What the free one did shows that the servers see who comes.
      #expect(world.hits(81).count == 1, "\(world.hits(81))")
      eventually("a datagram of the free one arrives") { !world.hits(53).isEmpty }
      #expect(world.hits(53).allSatisfy { $0 == World.other }, "\(world.hits(53))")
      #expect(instance.run("logs", "held").out.contains("from 192.0.2.1"))
      let layer = instance.status("held")?["layers"]?.arrayValue?.first { $0["name"] == "packet filter" }
      #expect(layer?["status"] == "enforced", "\(instance.status("held")?.text.prefix(2000) ?? "")")
      // Nobody looks after it, and it goes on as before.
      instance.killDaemon()
      let before = world.hits(80).count
      eventually("it goes on") { world.hits(80).count > before + 1 }
      let restart = instance.run(
        ["up", "-d", "--progress", "quiet", "--engine", instance.engine, instance.policies], prefix: world.prefix)
      #expect(restart.code == 0, "\(restart.err)")
      let after = world.hits(80).count
      eventually("it still goes on") { world.hits(80).count > after + 1 }
      #expect(world.hits(81).count == 1 && world.hits(53).allSatisfy { $0 == World.other })
      #expect(world.hits(80).allSatisfy { $0.hasPrefix("\(World.address) ") }, "\(world.hits(80))")
      #expect(host.hits == 0)
    }
  }

  @Test(
    "on a network that both name apps find each other by name and alias; another's app is out of reach, by address too",
    arguments: Runner.available)
  func names(_ runner: Runner) throws {
    try with(runner) { instance, world in
      try instance.write(
        "db",
        runner.app(
          "db", "while :; do echo hello | busybox nc -l -p 5432; done", "networks: {back: {aliases: [store]}}\n"))
      let native = Runner.native
      func client(_ id: String, _ runner: Runner, _ host: String) throws {
        try instance.write(
          id,
          runner.app(
            id,
            "for i in 1 2 3 4 5 6 7 8 9; do busybox nc -w 2 \(host) 5432 </dev/null && exec sleep 1000; sleep 0.3; done; exec sleep 1000",
            "networks: [back]\negress: {allow: []}\ndepends_on: [db]\n"))
      }
      try client("byname", runner, "db")
      try client("byalias", native, "store")
      try instance.write("stranger", runner.app("stranger", "exec sleep 1000", "network_mode: bridge\n"))
      up(instance, world)
      for app in ["byname", "byalias"] {
        eventually("\(app) is answered") { instance.run("logs", app).out.contains("hello") }
      }
      let hosts = inside(instance, "byname", "busybox", "cat", "/etc/hosts").out
      let line = hosts.split(separator: "\n").first { $0.hasSuffix(" db store") }
      let address = try #require(line?.split(separator: " ").first.map(String.init), "\(hosts)")
      #expect(inside(instance, "stranger", "busybox", "nc", "-w", "2", address, "5432").out == "")
      #expect(!inside(instance, "stranger", "busybox", "cat", "/etc/hosts").out.contains("db"))
      // A name goes with its app, and comes back with it, at the same address.
      #expect(instance.run("stop", "db").code == 0)
      eventually("it is forgotten") {
        !inside(instance, "byalias", "busybox", "cat", "/etc/hosts").out.contains("store")
      }
      #expect(instance.run("start", "db").code == 0)
      eventually("it is known again") {
        inside(instance, "byalias", "busybox", "cat", "/etc/hosts").out.contains("\(address) db store")
      }
    }
  }

  @Test(
    "an app that may change its own network takes neither its neighbour's address nor its rights, nor speaks IPv6",
    arguments: Runner.available.filter { $0 != .native })
  func spoofing(_ runner: Runner) throws {
    try with(runner) { instance, world in
      let config = "\(instance.root)/config"
      try FileManager.default.createDirectory(atPath: config, withIntermediateDirectories: true)
      try "privileged_apps: [thief]\n".write(toFile: "\(config)/config.yaml", atomically: true, encoding: .utf8)
      try instance.write(
        "victim",
        runner.app("victim", "\(Self.ask(World.address, 82)); exec sleep 1000", "networks: [shared]\n"))
      try instance.write(
        "thief",
        runner.app(
          "thief", "exec sleep 1000",
          "networks: [shared]\negress: {allow: []}\nsandbox: privileged\nuser: image\ncap_add: [NET_ADMIN, NET_RAW]\ndepends_on: [victim]\n"
        )
      )
      up(instance, world)
      eventually("the victim has been out") { world.hits(82).count == 1 }
      func thief(_ script: String) -> Outcome { inside(instance, "thief", "/bin/sh", "-c", script) }
      let hosts = thief("cat /etc/hosts").out
      let address = try #require(
        hosts.split(separator: "\n").first { $0.hasSuffix(" victim") }?.split(separator: " ").first.map(String.init),
        "\(hosts)")
      let theft =
        "ip addr flush dev eth0 && ip addr add \(address)/26 dev eth0 && ip route add default via \(address.split(separator: ".").dropLast().joined(separator: ".")).\((Int(address.split(separator: ".").last ?? "0") ?? 0) & 0xC0 | 1) && ip addr show eth0; "
        + Self.ask(World.address, 82) + "; ping -c 1 -W 1 \(World.address)"
      var taken = thief(theft)
      if taken.code == -2 {
        // One of podman 4.3.1 has hung, now and then, for a cause not found: what is looked at here is the network.
        Issue.record("an exec hung: \(taken.err)", severity: .warning)
        taken = thief(theft)
      }
      #expect(taken.out.contains(address), "it could not even try: \(taken.out) \(taken.err)")
      #expect(world.hits(82).count == 1 && !taken.out.contains("1 packets received"), "\(taken.out)")
      // The victim is not cut off.
      #expect(inside(instance, "victim", "/bin/sh", "-c", Self.ask(World.address, 82)).out.contains("from"))
      let six = thief(
        "echo 0 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; ip link set eth0 down; ip link set eth0 up; ping -6 -c 1 -W 1 ff02::1%eth0"
      )
      #expect(!six.out.contains("1 packets received"), "\(six.out)")
    }
  }

  @Test("connections and rates are held to what the policy says", arguments: Runner.available)
  func rates(_ runner: Runner) throws {
    try with(runner) { instance, world in
      let many =
        "for i in 1 2 3 4 5 6 7; do busybox nc \(World.address) 83 </dev/zero >/dev/null 2>&1 & sleep 0.1; done; sleep 1; echo done; exec sleep 1000"
      try instance.write("many", runner.app("many", many, "egress: {max_connections: 3}\n"))
      let moved =
        "sleep 1.5; busybox dd if=/dev/zero bs=65536 count=32 2>/dev/null | busybox nc -w 5 \(World.address) 85; busybox date +%s.%N >/dev/null; exec sleep 1000"
      try instance.write(
        "slow", runner.app("slow", moved, "network_mode: bridge\nbandwidth: {egress: 8mbit, ingress: 8mbit}\n"))
      up(instance, world)
      eventually("it has tried") { instance.run("logs", "many").out.contains("done") }
      #expect(world.hits(83).count == 3, "\(world.hits(83))")
      eventually("it has sent") { !world.hits(85).isEmpty }
      let words = try #require(world.hits(85).first?.split(separator: " "))
      let sent = try #require(words.count == 4 ? (Double(words[2]), Double(words[3])) : nil)
      let rate = (sent.0 ?? 0) * 8 / max(sent.1 ?? 0, 0.001)
      #expect((6_800_000...9_200_000).contains(rate), "it sent at \(rate) bits a second")
      let begun = Date()
      let got = inside(
        instance, "slow", "/bin/sh", "-c", "busybox nc -w 5 \(World.address) 84 </dev/null | busybox wc -c")
      let seconds = Date().timeIntervalSince(begun)
      #expect(got.out.trimmingCharacters(in: .whitespacesAndNewlines) == "2097152", "\(got.out) \(got.err)")
      let received = 2_097_152 * 8 / seconds
      #expect((6_500_000...9_200_000).contains(received), "it received at \(received) bits a second")
    }
  }

  @Test("addresses that another network of the engine's has are given up for others", arguments: Rig.available)
  func overlap(_ rig: Rig) throws {
    let instance = try Instance(engine: try #require(rig.socket))
    defer { instance.end() }
    try instance.write(
      "app", "id: app\nimage: \(Rig.image)\nentry: [sleep, '1000']\nstop_grace_period: 1s\nnetworks: [shared]\n")
    #expect(instance.up().code == 0)
    func block() -> String {
      let book = try? JSONValue(
        parsing: [UInt8](Data(contentsOf: URL(fileURLWithPath: "\(instance.root)/state/networks.json"))))
      return book?["networks"]?.objectValue?.first(where: { _ in true })?.value["block"]?.stringValue ?? ""
    }
    let first = block()
    #expect(instance.run("stop", "app").code == 0)
    eventually("its network is gone") { rig.networks(of: instance.id ?? "").isEmpty }
    let name = "appsup-foreign-\(UInt32.random(in: 0 ... .max))"
    let made = rig.send("/networks/create", #"{"Name":"\#(name)","IPAM":{"Config":[{"Subnet":"\#(first)"}]}}"#)
    defer { rig.send("/networks/\(name)", nil) }
    #expect(made.contains("Id") || made.contains("id"), "\(made)")
    let refused = instance.run("start", "app")
    let again = refused.code == 0 ? refused : instance.run("start", "app")
    #expect(again.code == 0, "\(refused.err) \(again.err)")
    #expect(refused.code == 0 || refused.err.contains("are another network's"), "\(refused.err)")
    #expect(instance.app("app")?["state"] == "running" && block() != first)
  }

  @Test("doctor names another firewall that drops what native apps send, and how to let it through")
  func otherFirewall() throws {
    let world = try World(apart: true)
    defer { world.end() }
    let instance = try Instance()
    defer { instance.end() }
    let rules = "add table ip guard; add chain ip guard outward { type filter hook forward priority 0; policy drop; }"
    let before = instance.run(["doctor"], prefix: world.prefix).out
    #expect(!before.contains("packet filter of others"), "\(before)")
    #expect(Shell.run(world.prefix + ["nft", rules]).code == 0)
    let after = instance.run(["doctor"], prefix: world.prefix).out
    #expect(after.contains("ip guard outward drops what it does not know"), "\(after)")
    #expect(after.contains("nft insert rule ip guard outward iifname"), "\(after)")
  }

  @Test("an exact host name is resolved by the supervisor, and the app finds it without asking anybody")
  func hostNames() throws {
    let world = try World(apart: true)
    defer { world.end() }
    let instance = try Instance()
    defer { instance.end() }
    let hosts = "\(instance.root)-hosts"
    try "127.0.0.1 localhost\n\(World.address) api.example.test\n".write(
      toFile: hosts, atomically: true, encoding: .utf8)
    defer { try? FileManager.default.removeItem(atPath: hosts) }
    try instance.write(
      "byname",
      Runner.native.app(
        "byname",
        "\(Self.ask("api.example.test", 80)); \(Self.ask("api.example.test", 81)); \(Self.ask(World.other, 80)); cat /etc/resolv.conf; echo done; exec sleep 1000",
        "egress: {allow: [\"api.example.test:80\", \"nowhere.example.invalid:80\"]}\n"))
    let prefix =
      world.prefix + ["unshare", "-m", "/bin/sh", "-c", "mount --bind \(hosts) /etc/hosts && exec \"$@\"", "sh"]
    let up = instance.run(
      ["up", "-d", "--wait", "--progress", "quiet", "--engine", "none", instance.policies], prefix: prefix)
    #expect(up.code == 0, "\(up.err)")
    eventually("it has tried") { instance.run("logs", "byname").out.contains("done") }
    #expect(world.hits(80).map { $0.split(separator: " ").first } == [Substring(World.address)])
    #expect(world.hits(81).isEmpty)
    #expect(!instance.run("logs", "byname").out.contains("nameserver"))
  }
}

/// A server of the host itself.
private final class HostListener {
  private let program: Started
  private let file: String

  init(_ world: World) throws {
    file = "/var/tmp/appsup-host-\(UInt32.random(in: 0 ... .max))"
    program = try Started(
      world.prefix + [
        "perl", "-e",
        "use IO::Socket::INET; $s = IO::Socket::INET->new(Listen => 9, LocalPort => 9099, ReuseAddr => 1) or die; while ($c = $s->accept) { open $f, '>>', '\(file)'; syswrite $f, 'x'; syswrite $c, \"host\\n\"; close $c }",
      ], ProcessInfo.processInfo.environment)
    usleep(200_000)
  }

  var hits: Int { (try? Data(contentsOf: URL(fileURLWithPath: file)).count) ?? 0 }

  func end() {
    program.kill()
    _ = program.finish(within: 5)
    try? FileManager.default.removeItem(atPath: file)
  }
}
