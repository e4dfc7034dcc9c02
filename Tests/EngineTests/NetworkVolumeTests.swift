import EngineAPI
import Glibc
import Linux
import Model
import Testing

@Suite("networks and volumes on a real engine", .serialized)
struct NetworkVolumeTests {
  @Test("a network is made, joined, left and removed", arguments: Rig.present)
  func network(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let name = "appsup-test-net-\(rig.rawValue)"
    try? await engine.removeNetwork(name)  // best effort: from an earlier run
    var wanted = NetworkSpec(name: name)
    wanted.isInternal = true
    wanted.subnet = rig == .docker ? "10.213.77.0/24" : "10.213.78.0/24"
    wanted.labels = Rig.labels
    let network = try await engine.createNetwork(wanted)
    let details = try await engine.inspectNetwork(network)
    #expect(details.name == name && details.isInternal && details.labels == Rig.labels)
    #expect(details.subnets == [wanted.subnet ?? ""])
    #expect(try await engine.listNetworks(.label(Rig.label)).map(\.name) == [name])
    let again = await failure { _ = try await engine.createNetwork(wanted) }
    #expect(again != nil && "\(String(describing: again))".contains("exist"))
    var spec = Rig.spec("sleep 600")
    spec.networkDisabled = nil
    spec.host.networkMode = name
    spec.networks = [name: NetworkEndpoint(aliases: ["me"])]
    try await engine.withContainer(spec) { id in
      let attached = try await engine.inspectContainer(id).networks
      let address = try #require(attached[name]?.ipv4)
      #expect(address.hasPrefix("10.213.7"))
      if rig == .docker {
        let listed = try await engine.inspectNetwork(network).containers[id]
        #expect(listed?.hasPrefix(address) == true)
        let used = await failure { try await engine.removeNetwork(network) }
        #expect(used != nil)
      }
      try await engine.disconnectNetwork(network, container: id)
      #expect(try await engine.inspectContainer(id).networks[name] == nil)
      try await engine.connectNetwork(network, container: id, NetworkEndpoint(aliases: ["again"]))
      #expect(try await engine.inspectContainer(id).networks[name] != nil)
    }
    try await engine.removeNetwork(network)
    let gone = await failure { _ = try await engine.inspectNetwork(network) }
    guard case .notFound = gone else {
      Issue.record("\(String(describing: gone))")
      return
    }
  }

  @Test("unused networks are pruned by label", arguments: Rig.present)
  func pruneNetworks(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    var spec = NetworkSpec(name: "appsup-test-prune-\(rig.rawValue)")
    spec.labels = ["prune-net": rig.rawValue]
    _ = try await engine.createNetwork(spec)
    let pruned = try await engine.pruneNetworks(.label("prune-net=\(rig.rawValue)"))
    #expect(pruned.contains(spec.name) || rig == .podman)
    #expect(try await engine.listNetworks(.label("prune-net=\(rig.rawValue)")).isEmpty)
  }

  @Test("a volume keeps what a container wrote, for the next one", arguments: Rig.present)
  func volume(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let name = "appsup-test-volume-\(rig.rawValue)"
    let made = try await engine.createVolume(name, labels: Rig.labels)
    #expect(made.name == name && made.labels == Rig.labels && !made.mountpoint.isEmpty)
    #expect(try await engine.listVolumes(.label(Rig.label)).map(\.name) == [name])
    var writer = Rig.spec("echo kept >/data/file")
    writer.host.mounts = [MountSpec(.volume, name, at: "/data", readOnly: false)]
    try await engine.withContainer(writer) { id in
      #expect(try await engine.exitCode(of: id) == 0)
      let mounts = try await engine.inspectContainer(id).mounts
      #expect(mounts.contains { $0.target == "/data" && $0.name == name && $0.writable })
      let used = await failure { try await engine.removeVolume(name) }
      guard case .conflict = used else {
        Issue.record("\(String(describing: used))")
        return
      }
    }
    var reader = Rig.spec("cat /data/file; echo x >/data/file || exit 8")
    reader.host.mounts = [MountSpec(.volume, name, at: "/data", readOnly: true)]
    try await engine.withContainer(reader) { id in
      #expect(try await engine.exitCode(of: id) == 8)
      let (output, _) = try await read(engine.containerLogs(id))
      #expect(output == "kept\n")
    }
    #expect(try await engine.pruneVolumes(.label(Rig.label)) == [name])
    let gone = await failure { _ = try await engine.inspectVolume(name) }
    guard case .notFound = gone else {
      Issue.record("\(String(describing: gone))")
      return
    }
  }

  @Test("a folder of the host is bound read-only, and a port is published", arguments: Rig.present)
  func bindAndPort(_ rig: Rig) async throws {
    let engine = try await rig.connect()
    let folder = "/tmp/appsup-test-bind-\(rig.rawValue)"
    let opened = try Folder(making: folder)
    try opened.replace("said", with: Array("from the host\n".utf8))
    var spec = Rig.spec("cat /in/said; touch /in/x 2>/dev/null && exit 9; sleep 600")
    spec.networkDisabled = nil
    spec.host.networkMode = "bridge"
    spec.host.mounts = [MountSpec(.bind, folder, at: "/in", readOnly: true, propagation: "rprivate")]
    spec.host.ports = [PortBinding(container: 80, address: "127.0.0.1")]
    try await engine.withContainer(spec) { id in
      let details = try await engine.inspectContainer(id)
      #expect(details.state.isRunning)
      let port = try #require(details.ports.first)
      #expect(port.container == 80 && port.kind == "tcp" && port.address == "127.0.0.1" && port.host > 0)
      let mount = try #require(details.mounts.first { $0.target == "/in" })
      #expect(mount.kind == "bind" && mount.source == folder && !mount.writable)
    }
    try opened.remove("said")
    rmdir(folder)
  }
}
