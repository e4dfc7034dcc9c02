import Model
import Testing

@testable import Policies

@Suite("Hostile bytes") struct HostileTests {
  @Test("aliases that double ten times over are refused while composing")
  func aliasBomb() {
    var yaml = "id: a\nimage: i\nx-0: &b0 [x, x]\n"
    for level in 1...40 { yaml += "x-\(level): &b\(level) [*b\(level - 1), *b\(level - 1)]\n" }
    let reading = reading(yaml)
    #expect(reading.policy == nil)
    #expect(reading.errors.map(\.message).contains("aliases expand to more than 1000 values"))
    #expect(reading.errors.allSatisfy { $0.line > 3 && $0.column > 0 })
  }

  @Test(
    "an alias bomb in a key, or merged, is refused as well",
    arguments: ["? *b30\n: x", "<<: *b30", "<<: [*b30, *b30]", "{*b30: 1}"])
  func bombElsewhere(_ line: String) {
    var yaml = "x-0: &b0 {k: v}\n"
    for level in 1...30 { yaml += "x-\(level): &b\(level) {l: *b\(level - 1), r: *b\(level - 1)}\n" }
    #expect(reading(yaml + line + "\n").policy == nil)
  }

  @Test("aliases may expand to 1000 values, not to 1001")
  func aliasLimit() {
    func yaml(_ items: Int) -> String {
      "id: a\nimage: i\nx-a: &a [\(Array(repeating: "v", count: items - 1).joined(separator: ", "))]\nx-b: *a\n"
    }
    #expect(reading(yaml(1000)).errors.isEmpty)
    #expect(reading(yaml(1001)).errors.map(\.message) == ["aliases expand to more than 1000 values"])
  }

  @Test("nesting 5000 deep is an error with a line, in every notation")
  func deep() {
    let dashes = String(repeating: "- ", count: 5000)
    let lists = String(repeating: "[", count: 5000)
    let maps = String(repeating: "{a: ", count: 5000)
    let keys = String(repeating: "? ", count: 5000)
    let lines = (0..<1200).map { String(repeating: " ", count: $0) + "a:" }.joined(separator: "\n")
    let closed = lists + String(repeating: "]", count: 5000)
    for text in [dashes, lists, maps, keys, lines, closed] {
      let reading = reading("x-a: 1\nx-b:\n" + text)
      #expect(reading.policy == nil)
      #expect(reading.errors.contains { $0.line > 0 }, "\(text.prefix(20))")
    }
  }

  @Test("64 levels are taken, 65 are not")
  func depthLimit() {
    func yaml(_ depth: Int) -> String {
      "id: a\nimage: i\nx-a: \(String(repeating: "[", count: depth - 2))v\(String(repeating: "]", count: depth - 2))\n"
    }
    #expect(reading(yaml(64)).errors.isEmpty)
    #expect(reading(yaml(65)).errors.map(\.message) == ["it is nested deeper than 64"])
  }

  @Test("1 MiB is taken, one byte more is not, 10 MiB neither")
  func size() {
    let start = "id: a\nimage: i\n#"
    let full = start + String(repeating: "x", count: (1 << 20) - start.utf8.count)
    #expect(reading(full).errors.isEmpty)
    #expect(reading(full + "x").errors.map(\.message) == ["the file is over 1 MiB"])
    #expect(reading(String(repeating: "a: b\n", count: 2 << 20)).policy == nil)
  }

  @Test("a megabyte of tiny values is refused before it is composed")
  func manyValues() {
    let reading = reading("id: a\nimage: i\nx-a: [" + String(repeating: "a,", count: 500_000) + "a]\n")
    #expect(reading.errors.map(\.message) == ["the file holds more than 20000 values"])
    #expect(reading.errors.first?.line == 3)
  }

  @Test(
    "tags are errors with a line",
    arguments: [
      "!custom x", "!!int 3", "!!python/object:os.system x", "!!str x", "! x", "!!map {}", "!!seq []", "!!int \"3\"",
    ])
  func tags(_ value: String) {
    let errors = reading("id: a\nimage: i\nx-a: \(value)\n").errors
    #expect(errors.first?.line == 3)
    #expect(errors.first?.message.hasPrefix("tags are not taken") == true)
  }

  @Test("a second document is an error where it starts")
  func documents() {
    let errors = reading("id: a\nimage: i\n---\nid: b\n").errors
    #expect(errors.map(\.message) == ["a second document starts here"])
    #expect(errors.first?.line == 3)
    #expect(reading("---\nid: a\nimage: i\n...\n").errors.isEmpty)
  }

  @Test("a tab in the indentation is named")
  func tabs() {
    let error = reading("id: a\nimage: i\nulimits:\n\tnofile: 3\n").errors.first
    #expect(error?.line == 4)
    #expect(error?.hint?.contains("tabs") == true)
  }

  @Test(
    "a duplicate key is an error at its second place",
    arguments: ["mem_limit: 2m", "\"mem_limit\": 2m", "'mem_limit' : 2m"])
  func duplicates(_ second: String) {
    let error = reading("id: a\nmem_limit: 64m\nimage: i\n\(second)\n").errors.first
    #expect(error?.message == "the key 'mem_limit' is given twice")
    #expect(error?.line == 4)
    #expect(error?.hint?.contains("line 2") == true)
  }

  @Test(
    "keys that are maps, lists or aliases are errors",
    arguments: ["? {a: b}\n: c", "[a]: c", "? [a, b]\n: c", "x-a: &k v\n*k : c"])
  func complexKeys(_ lines: String) {
    #expect(reading("id: a\nimage: i\n\(lines)\n").errors.contains { $0.message == "a key must be a plain word" })
  }

  @Test(
    "bytes that are not UTF-8, and characters YAML forbids, are errors",
    arguments: [[0xFF, 0xFE], [0x00], [0x01], [0xC3], [0xEE, 0x80, 0x80]])
  func bytes(_ bad: [UInt8]) {
    let bytes = Array("id: a\nname: ".utf8) + bad + Array("\nimage: i\n".utf8)
    let reading = read(PolicySource(path: "p", folder: "/", bytes: bytes))
    #expect(reading.policy == nil)
    #expect(reading.errors.first?.line ?? 0 >= 1)
  }

  @Test("a byte order mark and Windows line ends are fine")
  func mark() {
    let bytes = [0xEF, 0xBB, 0xBF] + Array("id: a\r\nimage: i\r\n".utf8)
    #expect(read(PolicySource(path: "p", folder: "/", bytes: bytes)).errors.isEmpty)
  }

  @Test("merge keys inherit, and what the map writes itself wins")
  func merge() throws {
    let policy = try #require(
      reading(
        "x-a: &a {mem_limit: 64m, pids_limit: 8}\nx-b: &b {mem_limit: 32m, cpus: 1}\n<<: [*a, *b]\npids_limit: 9\nid: a\nimage: i\n"
      ).policy)
    #expect(policy.limits.memory == .mebibytes(64))
    #expect(policy.limits.pids == 9)
    #expect(policy.limits.cpus == 1)
    #expect(reading("<<: text\nid: a\nimage: i\n").errors.map(\.message) == ["'<<' takes a map, or a list of maps"])
  }

  @Test("an alias to nothing is an error with a suggestion")
  func unknownAlias() {
    let error = reading("id: a\nimage: i\nx-l: &limits {a: b}\nx-m: *limit\n").errors.first
    #expect(error?.line == 4)
    #expect(error?.hint == "did you mean 'limits'?")
  }

  @Test("a star in ordinary text stays a star")
  func stars() throws {
    let policy = try container("description: '*a * b*'\nentry: [ls, \"*.txt\", a*b]")
    #expect(policy.about.description == "*a * b*")
    #expect(policy.entry == ["ls", "*.txt", "a*b"])
  }

  @Test("a valid policy cut off at any byte never crashes, and what is left is whole or refused")
  func truncated() throws {
    for name in ["limits.yaml", "network.yaml", "files.yaml", "anchors.yaml"] {
      let bytes = try repositoryFile("policies/examples/\(name)")
      for end in bytes.indices {
        let reading = read(PolicySource(path: name, folder: "/srv", bytes: Array(bytes[..<end])))
        #expect((reading.policy == nil) == !reading.errors.isEmpty)
      }
    }
  }

  @Test("a file with any one byte changed never crashes")
  func mutated() throws {
    let bytes = try repositoryFile("policies/examples/files.yaml")
    for index in bytes.indices {
      for byte in [
        UInt8(ascii: "*"), UInt8(ascii: "&"), UInt8(ascii: "{"), UInt8(ascii: "\""), UInt8(ascii: ":"), 0x0A, 0x80,
      ] {
        var changed = bytes
        changed[index] = byte
        let reading = read(PolicySource(path: "p", folder: "/srv", bytes: changed))
        #expect((reading.policy == nil) == !reading.errors.isEmpty)
      }
    }
  }

  @Test("a message shows no control character, and at most 100 problems are listed")
  func messages() {
    let reading = reading("id: a\nimage: i\n\"k\\u001B[31m\\u202E\": 1\n" + (0..<300).map { "k\($0): 1\n" }.joined())
    #expect(!reading.rendered().unicodeScalars.contains { $0.value < 0x20 && $0 != "\n" || $0.value == 0x202E })
    #expect(reading.errors.count == 101)
  }

  @Test("variables cannot make a small file large")
  func interpolationBomb() {
    let big = String(repeating: "x", count: 1 << 16)
    let yaml = "id: a\nimage: i\nx-a: [" + Array(repeating: "\"${BIG}\"", count: 100).joined(separator: ", ") + "]\n"
    #expect(
      reading(yaml, environment: ["BIG": big]).errors.first?.message
        == "the replaced variables of this file are over 1 MiB")
    #expect(
      reading("id: a\nimage: i\nname: \(String(repeating: "${A:-", count: 50))\(String(repeating: "}", count: 50))\n")
        .policy == nil)
  }
}
