import Model
import Testing

@testable import Policies

@Suite("Editing a policy's text") struct TextEditTests {
  private func edit(_ text: String, _ key: String, _ value: String) throws -> String {
    let (name, json) = try readOverride("\(key)=\(value)")
    return String(decoding: try edited(Array(text.utf8), setting: name, to: json, written: value), as: UTF8.self)
  }

  struct Case: Sendable, CustomTestStringConvertible {
    var before: String
    var after: String
    var key = "mem_limit"
    var value = "128m"
    var testDescription: String { before }
  }

  static let cases: [Case] = [
    Case(before: "id: a\nmem_limit: 64m\n", after: "id: a\nmem_limit: 128m\n"),
    Case(
      before: "id: a\nmem_limit:   64m   # half of it\ncpus: 1\n",
      after: "id: a\nmem_limit:   128m   # half of it\ncpus: 1\n"),
    Case(before: "# top\n\nid: a\nmem_limit: \"64m\" # why\n", after: "# top\n\nid: a\nmem_limit: 128m # why\n"),
    Case(before: "id: a\nmem_limit: '64m'\n", after: "id: a\nmem_limit: 128m\n"),
    Case(before: "id: a\r\nmem_limit: 64m\r\ncpus: 1\r\n", after: "id: a\r\nmem_limit: 128m\r\ncpus: 1\r\n"),
    Case(before: "id: a\r\ncpus: 1\r\n", after: "id: a\r\ncpus: 1\r\nmem_limit: 128m\r\n"),
    Case(before: "id: a", after: "id: a\nmem_limit: 128m\n"),
    Case(before: "id: a\nmem_limit: 64m", after: "id: a\nmem_limit: 128m"),
    Case(before: "\"mem_limit\": 64m\nid: a\n", after: "\"mem_limit\": 128m\nid: a\n"),
    Case(before: "description: größe 日本\nmem_limit: 64m # ü\n", after: "description: größe 日本\nmem_limit: 128m # ü\n"),
    Case(
      before: "id: a\nrestart_policy: {delay: 1s, jitter: 0.1} # soon\n",
      after: "id: a\nrestart_policy: {delay: 2s} # soon\n", key: "restart_policy", value: "{delay: 2s}"),
    Case(
      before: "id: a\nulimits: {nofile: {soft: 10, hard: 20}}\nx-y: [1]\n",
      after: "id: a\nulimits: {core: 0}\nx-y: [1]\n",
      key: "ulimits", value: "{core: 0}"),
    Case(
      before: "id: a\nrestart: \"no\"\n", after: "id: a\nrestart: on-failure:3\n", key: "restart", value: "on-failure:3"
    ),
    Case(
      before: "x-base: &base\n  mem_limit: 64m\n<<: *base\nid: a\n",
      after: "x-base: &base\n  mem_limit: 64m\n<<: *base\nid: a\nmem_limit: 128m\n"),
    Case(before: "id: a\nmem_limit:\n  64m\n...\n", after: "id: a\nmem_limit:\n  128m\n...\n"),
    Case(
      before: "id: a\nenvironment: {A: \"${B:-c} # d\"}\n",
      after: "id: a\nenvironment: {A: \"${B:-c} # d\"}\nmem_limit: 128m\n"),
    Case(before: "---\nid: a\nmem_limit: 64m\n", after: "---\nid: a\nmem_limit: 128m\n"),
    Case(before: "\u{FEFF}mem_limit: 64m\nid: a\n", after: "\u{FEFF}mem_limit: 128m\nid: a\n"),
    Case(before: "id: a\ncpuset: 0-1 # two\n", after: "id: a\ncpuset: \"0\" # two\n", key: "cpuset", value: "\"0\""),
    Case(before: "id: a\n# mem_limit: 64m\n\n\n", after: "id: a\n# mem_limit: 64m\n\n\nmem_limit: 128m\n"),
  ]

  @Test("only the key's value changes; comments, layout and line ends stay", arguments: cases)
  func corpus(_ sample: Case) throws { #expect(try edit(sample.before, sample.key, sample.value) == sample.after) }

  @Test(
    "what cannot be done without touching more is refused",
    arguments: [
      "{id: a, cpus: 1}\n", "id: a\nmem_limit: ${MEM:-64m}\n", "id: a\nmem_limit: &m 64m\nx-b: *m\n",
      "x-m: &m 64m\nid: a\nmem_limit: *m\ncpus: 1\n",
      "id: a\nmem_limit: >-\n  64m\ncpus: 1\n", "id: a\ncpus: 1\n...\n",
      "id: a\nmem_limit: 64m\nmem_limit: 65m\n", "- id: a\n", "id: [\n", "",
    ])
  func refused(_ text: String) { #expect(throws: EditRefusal.self) { try edit(text, "mem_limit", "128m") } }

  @Test("every sample can be edited and means the same but for that")
  func samples() throws {
    for sample in try examples() where sample.name != "config.yaml" {
      let source = PolicySource(path: sample.name, folder: "/srv", bytes: sample.bytes)
      guard let before = read(source).policy, before.limits.pids != 77 else { continue }
      let (key, value) = try readOverride("pids_limit=77")
      // An older manifest says it in other words.
      guard let bytes = try? edited(sample.bytes, setting: key, to: value, written: "77") else { continue }
      var after = source
      after.bytes = bytes
      guard let policy = read(after).policy else {
        #expect(String(decoding: sample.bytes, as: UTF8.self).contains("maxProcesses"), "\(sample.name)")
        continue
      }
      #expect(plan(old: before, new: policy).fields.map(\.key) == ["pids_limit"], "\(sample.name)")
      let lines = String(decoding: bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
      let old = String(decoding: sample.bytes, as: UTF8.self).split(separator: "\n", omittingEmptySubsequences: false)
      #expect(zip(lines, old).count(where: { $0 != $1 }) <= 1, "\(sample.name)")
    }
  }
}

@Suite("What is set beside a policy's file") struct OverrideTests {
  @Test("a value is read as a policy's")
  func read() throws {
    #expect(try readOverride("mem_limit=512m").value == "512m")
    #expect(try readOverride("restart=no").value == "no")
    #expect(try readOverride("restart_policy={delay: 2s}").value == .object(["delay": "2s"]))
    #expect(try readOverride("cpuset=0-1").value == "0-1")
  }

  @Test(
    "what is no limit, no key or no value is refused",
    arguments: [
      "mem_limit", "=1", "mem_limit=", "mem_limt=1m", "memoryLimitMb=5", "volumes=[a:/b]", "id=b", "runtime=native",
      "cpus=1\nuser: 0", "mem_limit=1m\n", "cpus=[1", "image=evil", "environment={A: b}", "cpus=1, user: 0, x: {",
      "depends_on=[b]", "user=0", "cap_add=[SYS_ADMIN]", "privileged=true",
    ])
  func refused(_ text: String) { #expect(throws: OverrideRefusal.self) { try readOverride(text) } }

  @Test("an applied copy with other values is judged like a policy")
  func judged() throws {
    let canonical = try #require(reading("id: a\nentry: /bin/true\nmem_limit: 64m\nmem_high: 32m\n").canonical)
    let good = readApplied(overridden(canonical, by: [("mem_limit", "128m")]))
    #expect(good.policy?.limits.memory == .mebibytes(128))
    #expect(good.policy?.limits.memoryHigh == .mebibytes(32))
    #expect(readApplied(overridden(canonical, by: [("mem_limit", "16m")])).policy == nil)
    #expect(readApplied(overridden(canonical, by: [("cpus", "many")])).policy == nil)
    #expect(readApplied(overridden(canonical, by: [("mem_limit", "0")])).policy == nil)
  }
}
