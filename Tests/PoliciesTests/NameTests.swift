import Foundation
import Model
import Policies
import Testing

@Suite("names that are more than names") struct NameTests {
  /// As a path, a line, a look-alike, an order of reading, an end of text; in YAML's double quotes.
  static let evil = [
    "..", "../x", "a/b", "/etc", "a\\nb", "a\\r", "\\u0430pp", "a\\u202eb", "a\\0b", " a", "a b", "caf\\u00e9",
    "cafe\\u0301", "\\u200ba",
    "-a", ".a", "a\\u001b[2J", "a:b", "a\\\\b", "%2e%2e", "$$(id)",
  ]

  /// Where a name stands that becomes a file, a group, a network or a host: the key that is told of, and a policy around it.
  static let places: [(key: String, yaml: @Sendable (String) -> String)] = [
    ("id", { "id: \"\($0)\"\nimage: i\n" }),
    ("stack", { "id: a\nstack: \"\($0)\"\nimage: i\n" }),
    ("depends_on", { "id: a\nimage: i\ndepends_on: [\"\($0)\"]\n" }),
    ("networks", { "id: a\nimage: i\nnetworks: [\"\($0)\"]\n" }),
    ("networks", { "id: a\nimage: i\nnetworks: {n: {aliases: [\"\($0)\"]}}\n" }),
    ("hostname", { "id: a\nimage: i\nhostname: \"\($0)\"\n" }),
    ("volumes", { "id: a\nimage: i\nvolumes: [{type: volume, source: \"\($0)\", target: /x}]\n" }),
  ]

  @Test("a path, a line end, a look-alike or a control in a name is refused, and the key is told", arguments: evil)
  func refused(_ name: String) {
    for place in Self.places {
      // A dot is no path in a host's name, nor a colon in what is read as a network's address.
      let reading = Policies.read(
        PolicySource(path: "p", folder: "/srv", bytes: Array(place.yaml(name).utf8)))
      #expect(reading.policy == nil, "\(place.key) took \(name)")
      let told = reading.errors.contains { "\($0.path) \($0.message)".contains(place.key) }
      #expect(told, "\(place.key) \(name): \(reading.rendered())")
      // Whoever reads of it is not acted upon.
      let shown = reading.rendered().unicodeScalars
      #expect(!shown.contains { $0.value == 0x1B || $0.value == 0x202E || $0.value == 0 }, "\(name)")
    }
  }

  @Test(
    "what asks for the host is refused by name: namespaces, devices, engines' sockets, capabilities nobody knows",
    arguments: [
      ("network_mode", "network_mode: host"), ("pid", "pid: host"), ("ipc", "ipc: host"),
      ("userns_mode", "userns_mode: host"),
      ("cgroup_parent", "cgroup_parent: /"), ("privileged", "privileged: true"),
      ("volumes", "volumes: ['/:/x']"), ("volumes", "volumes: ['/proc:/x']"), ("volumes", "volumes: ['/dev:/x']"),
      ("volumes", "volumes: ['/run/docker.sock:/x']"), ("volumes", "volumes: ['/var/run/docker.sock:/x']"),
      ("volumes", "volumes: ['/run/podman/podman.sock:/x']"), ("volumes", "volumes: ['/run/containerd:/x']"),
      ("cap_add", "cap_add: [EVERYTHING]"), ("security_opt", "security_opt: [seccomp=/etc/passwd]"),
      ("sysctls", "sysctls: {kernel.core_pattern: x}"), ("runtime", "runtime: runc"),
      ("volumes_from", "volumes_from: [b]"),
      ("oom_score_adj", "oom_score_adj: -1000"), ("working_dir", "working_dir: ../x"),
    ])
  func wishes(_ key: String, _ line: String) {
    let reading = Policies.read(
      PolicySource(path: "p", folder: "/srv", bytes: Array("id: a\nimage: i\n\(line)\n".utf8)))
    let told = reading.errors.contains { "\($0.path) \($0.message)".contains(key) || reading.rendered().contains(line) }
    #expect(reading.policy == nil && told, "\(line): \(reading.rendered())")
  }
}
