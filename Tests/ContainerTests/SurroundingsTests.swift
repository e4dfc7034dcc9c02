import EngineAPI
import Glibc
import Linux
import Model
import Testing

@testable import ContainerHosting

@Suite(
  "files, networks and ports of a container",
  .enabled(if: !Rig.available.isEmpty, "no engine: SUPERVISOR_TEST_DOCKER_SOCK and _PODMAN_SOCK are not set"))
struct SurroundingsTests {
  @Test(
    "environment, working directory, host name, own entry and groups are as the policy says", arguments: Rig.available)
  func surroundings(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy("around", "echo $A-$B; pwd; hostname; id -G; cat /etc/hosts | grep sibling")
      policy.environment = [.init(name: "A", value: "one two"), .init(name: "B", value: "ü=\"$x\"")]
      policy.workingDirectory = "/tmp"
      policy.network.mode = .bridge
      policy.network.hostname = "notes"
      policy.network.extraHosts = [(name: "sibling", address: "10.1.2.3")]
      policy.supplementaryGroups = [4242]
      let (_, output) = try await host.complete(policy)
      let lines = output.split(separator: "\n").map(String.init)
      try #require(lines.count == 5, "\(output)")
      #expect(lines[0] == "one two-ü=\"$x\"")
      #expect(lines[1] == "/tmp" && lines[2] == "notes")
      #expect(lines[3].split(separator: " ").contains("4242"))
      #expect(lines[4].contains("10.1.2.3"))
    }
  }

  @Test(
    "a volume keeps its files from run to run; a bind is read-only when it says so; memory ends at its size",
    arguments: Rig.available)
  func mounts(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      _ = try Folder(making: "\(place.root)/conf")
      try Folder(opening: "\(place.root)/conf").replace("key", with: Array("value\n".utf8))
      func policy(_ script: String) throws -> Policy {
        var policy = try place.policy("files", script)
        policy.mounts = [
          Mount(target: "/var/lib/notes", kind: .volume(name: "notes-data", external: false)),
          Mount(target: "/conf", kind: .bind(source: "\(place.root)/conf"), readOnly: true),
          Mount(target: "/scratch", kind: .memory(size: .mebibytes(2), mode: nil)),
        ]
        return policy
      }
      let first = try await host.complete(
        policy(
          """
          exec 2>&1; cat /conf/key; echo x > /conf/key; echo kept > /var/lib/notes/file && echo written
          dd if=/dev/zero of=/scratch/big bs=1M count=4 2>&1 | grep -c 'No space'; ls -l /scratch/big | wc -l
          """))
      #expect(first.output.contains("value\n") && first.output.contains("Read-only file system"))
      #expect(first.output.contains("written\n1\n1\n"), "\(first.output)")
      let second = try await host.complete(policy("cat /var/lib/notes/file; ls /scratch | wc -l"))
      #expect(second.output.hasSuffix("kept\n0\n"), "\(second.output)")
      var status = stat()
      #expect(stat("\(place.settings.layout.state)/volumes/notes-data/file", &status) == 0)
      #expect(status.st_uid == UInt32(0x20_0000 + 1000))
    }
  }

  @Test("a volume that docker wrote is read under podman")
  func moved() async throws {
    guard Rig.available.count == 2 else { return }
    try await Place.with(.docker) { place in
      func policy(_ script: String) throws -> Policy {
        var policy = try place.policy("moves", script)
        policy.mounts = [Mount(target: "/data", kind: .volume(name: "v", external: false))]
        return policy
      }
      _ = try await place.host().complete(policy("echo from docker > /data/x"))
      try await Place.with(.podman, change: { $0.layout.state = place.settings.layout.state }) { other in
        let (report, output) = try await other.host().complete(policy("cat /data/x; echo more >> /data/x"))
        #expect(output == "from docker\n")
        #expect(report.succeeded)
      }
    }
  }

  @Test(
    "without a network there is only loopback; every app's bridge is its own; named ones have names in them",
    arguments: Rig.available)
  func networks(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      let none = try await host.complete(place.policy("none", "ls /sys/class/net | tr '\\n' ' '"))
      #expect(none.output == "lo ")
      func member(_ name: String, _ script: String, _ networks: [Network.Attachment]) throws -> Policy {
        var policy = try place.policy(name, script)
        policy.network.mode = networks.isEmpty ? .bridge : .named
        policy.network.attachments = networks
        return policy
      }
      let server = try await host.run(
        member(
          "db", "while :; do echo hello | nc -l -p 5432; done",
          [.init(network: "back", aliases: ["store"]), .init(network: "front", aliases: [])]))
      let ask = "for i in 1 2 3 4 5; do nc -w 2 $HOST 5432 </dev/null && break; sleep 0.2; done"
      for name in ["db", "store"] {
        var client = try member("client", ask, [.init(network: "back", aliases: [])])
        client.environment = [.init(name: "HOST", value: name)]
        #expect(try await host.complete(client).output.hasPrefix("hello\n"), "by \(name)")
      }
      var stranger = try member("stranger", "nc -w 1 $HOST 5432 </dev/null || echo nothing", [])
      stranger.environment = [.init(name: "HOST", value: "db")]
      #expect(try await host.complete(stranger).output.contains("nothing"))
      let label = Filters.label("io.appsupervisor.instance=\(place.settings.layout.id)")
      let names = try await place.engine.listNetworks(label).map(\.name).sorted()
      #expect(names == ["appsup_\(place.settings.layout.name)_back", "appsup_\(place.settings.layout.name)_front"])
      try await host.host.kill(server.instance)
      _ = try await host.end(server)
      try await host.host.remove(server.instance)
      #expect(try await place.engine.listNetworks(label).isEmpty)
    }
  }

  @Test("a network of somebody else's is refused", arguments: Rig.available)
  func foreign(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let name = "appsup_\(place.settings.layout.name)_theirs"
      _ = try await place.engine.createNetwork(NetworkSpec(name: name))
      let host = try place.host()
      var policy = try place.policy("foreign", "true")
      policy.network.mode = .named
      policy.network.attachments = [.init(network: "theirs", aliases: [])]
      await expectFailure(.refused, saying: name, "not ours") { _ = try await host.create(policy) }
      try await place.engine.removeNetwork(name)
    }
  }

  @Test(
    "published ports answer on 127.0.0.1, a free one is found when asked, and one in use is told as such",
    arguments: Rig.available)
  func ports(_ rig: Rig) async throws {
    try await Place.with(rig) { place in
      let host = try place.host()
      var policy = try place.policy(
        "web", "while :; do printf 'HTTP/1.0 200 OK\\r\\n\\r\\nhello' | nc -l -p 8080; done")
      policy.network.mode = .bridge
      policy.network.ports = [PublishedPort(hostPort: 0, appPort: 8080)]
      let running = try await host.run(policy)
      let port = try #require(running.facts.ports.first)
      #expect(port.hostAddress == "127.0.0.1" && port.hostPort > 0 && port.appPort == 8080)
      try await soon("it answers") {
        system("curl -s --max-time 2 http://127.0.0.1:\(port.hostPort)/ | grep -q hello") == 0
      }
      var other = try place.policy("other", "sleep 1000")
      other.network.mode = .bridge
      other.network.ports = [PublishedPort(hostPort: port.hostPort, appPort: 1)]
      await expectFailure(.conflict, saying: "\(port.hostPort)") { _ = try await host.run(other) }
    }
  }
}
