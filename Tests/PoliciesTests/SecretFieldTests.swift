import Model
import Testing

@testable import Policies

@Suite("Secrets of a policy") struct SecretFieldTests {
  @Test("the short form, the long one, and a variable; shown again as they are, and never a value")
  func forms() throws {
    let policy = try container(
      """
      environment: {PLAIN: x, PASSWORD: {secret: db}}
      secrets:
        - db
        - {source: key, target: /run/secrets/tls.key, uid: "7", gid: 8, mode: 440, file: ./key.pem}
        - {source: token, credential: api-token}
      """)
    #expect(
      policy.secrets == [
        Secret(name: "db", origin: .instance, target: "db"),
        Secret(name: "key", origin: .file("/srv/shop/key.pem"), target: "tls.key", uid: 7, gid: 8, mode: 0o440),
        Secret(name: "token", origin: .credential("api-token"), target: "token"),
      ])
    #expect(policy.environment.first { $0.name == "PASSWORD" } == .init(name: "PASSWORD", value: "", secret: "db"))
    let again = readApplied(effectiveDocument(policy))
    #expect(again.policy?.secrets == policy.secrets && again.policy?.environment == policy.environment)
    #expect(effectiveDocument(policy)["environment"]?["PASSWORD"]?["secret"]?.stringValue == "db")
  }

  @Test(
    "targets are names in /run/secrets and nothing else",
    arguments: ["../x", "/run/secrets/../../etc/x", "a/b", "/etc/x", "..", ".", "/run/secrets/", "\"a\\nb\""])
  func targets(_ target: String) {
    #expect(!complaints("secrets: [{source: a, target: \(target)}]").isEmpty, "\(target)")
  }

  @Test(
    "what cannot be is refused",
    arguments: [
      "secrets: [\"a\\nb\"]", "secrets: [../a]", "secrets: [{source: a, content: x}]",
      "secrets: [{source: a, environment: HOME}]", "secrets: [{source: a, file: /x, credential: y}]",
      "secrets: [a, a]", "secrets: [{source: a, target: t}, {source: b, target: t}]",
      "secrets: [{source: a, mode: 0755}]", "secrets: [{source: a, mode: 4400}]", "secrets: [{source: a, uid: root}]",
      "environment: {A: {secret: ../x}}", "environment: {A: {secret: x, value: y}}",
    ])
  func refused(_ line: String) { #expect(!complaints(line).isEmpty, "\(line)") }

  @Test("a value that is given by mistake is in no message")
  func silent() {
    let reading = reading("id: a\nimage: i\nsecrets: [{source: a, content: hunter2}]\n")
    #expect(!reading.errors.isEmpty && !reading.rendered().contains("hunter2: "))
    #expect(reading.errors.allSatisfy { !$0.message.contains("hunter2") && $0.hint?.contains("hunter2") != true })
  }

  @Test("a renamed or moved secret is a change that needs a new process or container")
  func changes() throws {
    let old = try container("secrets: [a]")
    let new = try container("secrets: [{source: a, target: b}]")
    #expect(plan(old: old, new: new).kind == .recreate)
  }
}
