import Model
import Testing

@testable import Policies

@Suite("config.yaml") struct ConfigurationTests {
  private func read(_ yaml: String) -> ConfigurationReading { readConfiguration(Array(yaml.utf8)) }

  @Test("an empty file is all defaults, and the example says them")
  func defaults() throws {
    #expect(read("").configuration == Configuration())
    #expect(read("# nothing\n").configuration == Configuration())
    #expect(readConfiguration(try repositoryFile("policies/examples/config.yaml")).configuration == Configuration())
  }

  @Test("every key in force is stored")
  func keys() throws {
    let configuration = try #require(
      read(
        """
        instance: lab
        engine: unix:///run/user/1000/podman.sock
        engine_gate: {refuse: ["runc 1.1"], accept_degraded: false}
        cgroup_parent: /apps/lab
        reserve: {memory: 1g, cpus: 0.5}
        uid_range: {base: 0x300000, size: 65536}
        privileged_apps: [probe]
        external_volumes: [old]
        external_networks: [lan]
        unsafe_host_uids: [cache]
        operators:
          - {group: appsupervisor, role: operator, stacks: ["*"]}
          - {user: alice, role: owner, stacks: ["alice-*"]}
        logs: {max_size: 1m, max_file: 2, total: 1g}
        """
      ).configuration)
    #expect(configuration.engine == .socket("/run/user/1000/podman.sock"))
    #expect(configuration.engineGate.acceptDegraded == false)
    #expect(configuration.uidRange.base == 0x300000)
    #expect(configuration.operators.map(\.role) == [.operator, .owner])
    #expect(configuration.rules.privilegedApps == ["probe"])
    #expect(configuration.rules.uidBase == 0x300000)
    #expect(configuration.reserve.memory == .mebibytes(1024))
    #expect(configuration.logs.maximumFiles == 2)
  }

  @Test("numbers are served on loopback of either kind, and nowhere else")
  func metrics() {
    #expect(read("metrics: {listen: \"[::1]:9700\"}\n").configuration?.metrics == .port(address: "::1", 9700))
    #expect(read("metrics: {listen: 127.0.0.2:9700}\n").configuration?.metrics == .port(address: "127.0.0.2", 9700))
    for wrong in ["\"[::]:9700\"", "\"::1:9700\"", "10.0.0.1:9700", "\"[::1]:0\"", "\"[::1]\""] {
      #expect(read("metrics: {listen: \(wrong)}\n").problems.contains { $0.severity == .error }, "\(wrong)")
    }
  }

  @Test("an unknown key is an error with line and suggestion")
  func unknown() {
    let error = read("instance: a\nprivileged_app: [x]\n").problems.first
    #expect(error?.line == 2)
    #expect(error?.hint == "did you mean 'privileged_apps'?")
  }

  @Test("keys whose feature comes later say so, and an empty one is fine")
  func later() {
    for line in [
      "desktop: {listen: 127.0.0.1:7700}",
      "desktop: {listen: \"127.0.0.1:1\"}", "packages: {require_signature: true}", "scheduler: {policy: fair}",
    ] {
      #expect(read(line).problems.first?.message.hasSuffix("is not supported yet") == true, "\(line)")
    }
    #expect(read("desktop: {}").configuration != nil)
    #expect(read("devices_allowed: {a: [/dev/x]}").configuration?.devicesAllowed == ["a": ["/dev/x"]])
    #expect(read("devices_allowed: {a: [/etc/x]}").configuration == nil)
  }

  @Test(
    "wrong values are errors",
    arguments: [
      "engine: dokcer", "engine: unix://relative", "cgroup_parent: relative", "cgroup_parent: /",
      "cgroup_parent: /a/../b", "uid_range: {base: 1000}",
      "uid_range: {base: 65537}", "uid_range: {size: 1000}", "operators: [{role: admin}]",
      "operators: [{user: a, group: b, role: admin}]",
      "operators: [{user: a, role: king}]", "operators: [{user: a, role: admin, stacks: [\"*x\"]}]",
      "privileged_apps: [A]", "instance: ${X}", "logs: {max_size: 1}",
      "[]", "text", "instance: a\n---\ninstance: b",
    ])
  func wrong(_ yaml: String) {
    #expect(read(yaml).configuration == nil)
    #expect(!read(yaml).problems.isEmpty)
  }

  @Test("a file is known by its name")
  func name() {
    #expect(isConfigurationFile("/etc/appsupervisor/config.yaml"))
    #expect(!isConfigurationFile("policies/config-app.yaml"))
  }
}
