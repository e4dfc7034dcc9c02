import Model
import Testing

@testable import Policies

/// The policies in a folder of the repository, each with its bytes.
func examples() throws -> [(name: String, bytes: [UInt8])] {
  var files: [(String, [UInt8])] = []
  for folder in ["policies/examples", "policies/examples/shop", "policies/demo"] {
    for name in try repositoryFolder(folder) where name.hasSuffix(".yaml") && !isConfigurationFile(name) {
      files.append((name, try repositoryFile("\(folder)/\(name)")))
    }
  }
  return files
}

@Suite("Documents") struct DocumentTests {
  @Test("every example is a policy, without warnings about anything but host users")
  func examplesLoad() throws {
    #expect(try examples().count >= 20)
    for (name, bytes) in try examples() {
      let reading = read(PolicySource(path: name, folder: "/srv/shop", bytes: bytes))
      #expect(reading.policy != nil, "\(reading.rendered())")
      #expect(reading.problems.allSatisfy { $0.path == "user" }, "\(reading.rendered())")
      let line = String(decoding: bytes.prefix { $0 != 0x0A }, as: UTF8.self)
      #expect(
        line.hasPrefix("# yaml-language-server: $schema=../") && line.hasSuffix("../policy.schema.json"), "\(name)")
    }
  }

  @Test("the canonical document, its JSON text and its YAML text read back as the same policy")
  func roundTrip() throws {
    for (name, bytes) in try examples() {
      let reading = read(PolicySource(path: name, folder: "/srv/shop", bytes: bytes, defaultStack: "shop"))
      let canonical = try #require(reading.canonical)
      let stored = try JSONValue(parsing: Array(canonical.text.utf8))
      let back = readApplied(stored)
      #expect(back.policy == reading.policy, "\(name) \(back.rendered())")
      #expect(back.canonical == canonical, "\(name)")
      let printed = read(PolicySource(path: name, folder: "/srv/shop", bytes: Array(yamlText(canonical).utf8)))
      #expect(printed.policy == reading.policy, "\(name) \(printed.rendered())\n\(yamlText(canonical))")
      #expect(policyHash(stored) == policyHash(canonical))
    }
  }

  @Test("a whole policy with every preset value written out is the same policy")
  func effective() throws {
    for (name, bytes) in try examples() {
      let reading = read(PolicySource(path: name, folder: "/srv/shop", bytes: bytes))
      let policy = try #require(reading.policy)
      var document = try #require(effectiveDocument(policy).objectValue)
      document[folderKey] = .string(policy.baseFolder)
      let back = readApplied(.object(document))
      #expect(back.policy == policy, "\(name) \(back.rendered())\n\(effectiveDocument(policy).prettyText)")
    }
  }

  @Test("only what the file set is in the canonical document, aliases under their own key")
  func onlySet() {
    let canonical = reading("image: i\nid: a\nmemoryLimitMb: 64\nx-note: n\n").canonical
    #expect(canonical?.objectValue?.keys == ["schema", "id", "stack", "runtime", "image", "mem_limit", "x-folder"])
    #expect(canonical?["mem_limit"] == "64m")
  }

  @Test("resolved variables and env files are part of the applied copy")
  func resolved() {
    let reading = reading("id: a\nimage: ${I:-i}\nenv_file: e\nentry: [echo, '$$x']\n", envFiles: ["e": "A=$b\n"])
    #expect(reading.canonical?["environment"] == .object(["A": "$b"]))
    #expect(reading.canonical?["entry"] == ["echo", "$x"])
    #expect(reading.canonical.flatMap { readApplied($0).policy } == reading.policy)
  }

  @Test("equal content has one hash wherever it lies; other content another")
  func hashes() throws {
    func hash(_ yaml: String, folder: String) throws -> String {
      policyHash(try #require(read(PolicySource(path: "p", folder: folder, bytes: Array(yaml.utf8))).canonical))
    }
    let first = try hash("id: a\nimage: i\nmem_limit: 64m\n", folder: "/one")
    #expect(try first == hash("mem_limit: 65536k\nimage: 'i'\nid: a # note\n", folder: "/two"))
    #expect(try first != hash("id: a\nimage: i\nmem_limit: 65m\n", folder: "/one"))
    #expect(first.utf8.count == 32)
    #expect(policyHash(.object([:])) == policyHash(.object(["x-folder": "/"])))
  }

  @Test("texts that look like something else are printed so that they stay texts")
  func printed() throws {
    let values = [
      "true", "no", "1e3", "0640", "~", "", "a: b", "- a", "#x", "'", "\"", "\\", "\n", "\t", "*a", "&a", "!t", "${X}",
      "$", "é", " a ", "\u{1}", "22:22", "256m", "-1", "?", "<<",
    ]
    for value in values {
      let text = yamlText(.object(["k": .string(value), "l": [.string(value)]]))
      var findings = Findings()
      let node = YAMLReading.read(Array(text.utf8), environment: [:], findings: &findings)
      #expect(node?["k"]?.text == value, "\(text)")
      #expect(node?["l"]?.texts == [value], "\(text)")
      #expect(findings.errors == 0)
    }
    #expect(
      yamlText(.object(["a": .object([:]), "b": [], "c": [.object(["d": 1, "e": [2]])]]))
        == "a: {}\nb: []\nc:\n  - d: 1\n    e: [2]\n")
  }

  @Test("the schema in the repository is the one this code prints")
  func schema() throws {
    #expect(
      try String(decoding: repositoryFile("policies/policy.schema.json"), as: UTF8.self) == schemaDocument().prettyText
        + "\n")
    #expect(
      try String(decoding: repositoryFile("policies/config.schema.json"), as: UTF8.self)
        == configurationSchemaDocument().prettyText + "\n")
    for key in knownKeys { #expect(schemaDocument()["properties"]?[key] != nil, "\(key)") }
  }

  @Test("no key stands in the table twice, and each has a line of text")
  func tableIsSound() {
    #expect(Set(knownKeys).count == knownKeys.count)
    #expect(fieldTable.allSatisfy { !$0.doc.isEmpty && !$0.doc.hasSuffix(".") })
    #expect(aliases.allSatisfy { alias in fieldTable.contains { $0.key == alias.canonical } })
  }

  @Test("a policy is said in sentences")
  func explained() throws {
    for (_, bytes) in try examples() {
      let policy = try #require(read(PolicySource(path: "p", folder: "/srv", bytes: bytes)).policy)
      #expect(explain(policy).allSatisfy { $0.hasSuffix(".") && !$0.contains("  ") })
    }
    let lines = explain(try container("ports: [\"8080:80\"]\nmem_limit: 64m\nrestart: always\nvolumes: [\"d:/data\"]"))
    #expect(lines.contains("It may have 64.0 MiB of memory and no swap. At the limit it is ended."))
    #expect(lines.contains("Port 8080 of the host leads to its port 80/tcp, for this host only."))
    #expect(lines.contains("/data is the volume d; it lasts."))
  }
}
