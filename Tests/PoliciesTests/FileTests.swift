import Model
import Testing

@testable import Policies

@Suite("A policy file") struct FileTests {
  @Test("two lines are a whole policy")
  func smallest() throws {
    let policy = try container("")
    #expect(policy.runtime == .container)
    #expect(policy.stack == "shop")
    #expect(policy.name == "a")
    #expect(policy.baseFolder == "/srv/shop")
  }

  @Test("an empty file, a list and a text are errors", arguments: ["", "# nothing\n", "[]", "text", "~"])
  func notAMap(_ yaml: String) {
    #expect(reading(yaml).policy == nil)
    #expect(!reading(yaml).errors.isEmpty)
  }

  @Test("every error is listed at once, in the order of the file, with line and column")
  func allAtOnce() {
    let errors = reading("id: a\nmem_limt: 3\nimage: i\npids_limit: x\nports:\n  - 80:x\nrestart: sometimes\n").errors
    #expect(errors.map(\.line) == [2, 4, 6, 7])
    #expect(errors.map(\.column) == [1, 13, 5, 10])
    #expect(errors.map(\.path) == ["mem_limt", "pids_limit", "ports[0]", "restart"])
  }

  @Test(
    "an unknown key is an error with a suggestion",
    arguments: [
      ("mem_limt", "mem_limit"), ("memLimit", "mem_limit"), ("enviroment", "environment"), ("port", "ports"),
      ("Image", "image"), ("memoryLimitMB", "memoryLimitMb"), ("volume", "volumes"),
    ])
  func didYouMean(_ wrong: String, _ right: String) {
    let error = reading("id: a\nimage: i\n\(wrong): 1\n").errors.first
    #expect(error?.message == "unknown key '\(wrong)'")
    #expect(error?.hint == "did you mean '\(right)'?")
  }

  @Test("an unknown key inside a value is an error with a suggestion")
  func innerKeys() {
    let error = reading("id: a\nimage: i\nrestart_policy: {dealy: 1s}\n").errors.first
    #expect(error?.path == "restart_policy.dealy")
    #expect(error?.hint == "did you mean 'delay'?")
    #expect(complaints("ulimits: {nofiles: 3}") == ["unknown key 'nofiles'"])
  }

  @Test("a problem is printed as compilers print one")
  func rendered() {
    #expect(
      reading("id: a\nimage: i\nmem_limt: 64m\n").rendered(file: "a.yaml") == """
        a.yaml:3:1: error: unknown key 'mem_limt'
          mem_limt: 64m
          ^
          hint: did you mean 'mem_limit'?

        """)
  }

  @Test("x- keys are ignored")
  func ignored() throws { _ = try container("x-anything: {a: [b]}") }

  @Test("permissions are those of the preset and the file; what is none, or opens no call yet, is an error")
  func permissions() throws {
    #expect(try container("").permissions.granted.map(\.description) == ["log", "time", "sys.info"])
    let policy = try container("permissions: [time, \"deny:sys.info\"]")
    #expect(policy.permissions.granted.map(\.description) == ["time", "log", "sys.info"])
    #expect(policy.permissions.denied.map(\.description) == ["sys.info"])
    #expect(complaints("permissions: [\"net.connect:a.example\"]") == ["net.connect is not supported yet"])
    #expect(complaints("permissions: [logs]") == ["there is no permission 'logs'"])
    #expect(complaints("permissions: [\"deny:fs.read:data\"]").first?.contains("narrowed") == true)
  }

  @Test("a key whose feature comes later is an error that says so, whatever its value")
  func later() {
    let lines = [
      "disk": "{data: 2g}", "configs": "[db]", "provides": "[queue/q]",
      "uses": "[queue/q]",
      "pipes": "{p: {from: a, to: b}}", "queues": "{q: {kind: fifo}}", "shm": "{s: {size: 1m}}",
      "stdio": "{stdin: pipe/p}",
      "desktop": "{title: A}", "hosted": "true",
    ]
    for (key, value) in lines { #expect(complaints("\(key): \(value)") == ["\(key) is not supported yet"]) }
    let known = fieldTable.filter { $0.status != .supported }.map(\.key)
    #expect(Set(lines.keys) == Set(known))
    #expect(complaints("scheduling: round-robin") == ["scheduling round-robin is not supported yet"])
    #expect(complaints("runtime: wasm") == ["runtime wasm is not supported yet"])
    #expect(
      complaints("volumes: [{type: overlay, source: ./b, target: /b}]") == ["volume type overlay is not supported yet"])
  }

  @Test(
    "such a key may say what happens anyway",
    arguments: ["template: false", "hosted: false", "provides: []", "queues: {}"])
  func harmless(_ line: String) throws { _ = try container(line) }

  @Test("such a key is checked for its shape")
  func laterShapes() {
    #expect(complaints("pipes: {p: {form: a}}").contains("unknown key 'form'"))
    #expect(complaints("disk: 5") == ["expected a map, not a single value"])
  }

  @Test("keys of Compose that are refused say what to write instead")
  func refused() {
    #expect(reading("id: a\nimage: i\ncpu_quota: 50000\n").errors.first?.hint?.contains("write cpus") == true)
    for key in ["privileged", "pid", "ipc", "userns_mode", "cgroup_parent", "volumes_from", "deploy", "sysctls"] {
      #expect(complaints("\(key): host") == ["\(key) is not taken"])
    }
  }

  @Test("every key of a Compose service is taken, translated or refused with a reason")
  func coverage() {
    #expect(Set(composeCoverage().map(\.key)) == composeKeys)
    #expect(Set(refusedKeys.keys).isDisjoint(with: fieldTable.map(\.key)))
  }

  @Test("variables come from whoever loads the file")
  func variables() throws {
    func name(_ text: String, _ environment: [String: String] = [:]) -> String? {
      reading("id: a\nimage: i\nname: '\(text)'\n", environment: environment).policy?.name
    }
    #expect(name("${A}", ["A": "x"]) == "x")
    #expect(name("${A:-y}") == "y")
    #expect(name("${A:-y}", ["A": ""]) == "y")
    #expect(name("z${A-y}", ["A": ""]) == "z")
    #expect(name("${A:-${B:-deep}}") == "deep")
    #expect(name("${A:+set}", ["A": "1"]) == "set")
    #expect(name("a$$b") == "a$b")
    #expect(name("5$ and $5") == "5$ and $5")
    #expect(name("${A}", ["A": "$B ${C}"]) == "$B ${C}")
    for bad in ["${A}", "${A:?}", "${", "${}", "${1}", "${A!b}", "$HOME"] { #expect(name(bad) == nil, "\(bad)") }
    let error = reading("id: a\nimage: i\nname: ${A:?say who}\n").errors.first
    #expect(error?.message == "the variable A is not set: say who")
    #expect(error?.line == 3)
  }

  @Test("warnings do not refuse a file")
  func warnings() {
    let reading = reading("id: a\nimage: i\nenvironment: [MISSING]\n")
    #expect(reading.policy != nil)
    #expect(reading.problems.map(\.severity) == [.warning])
  }
}
