import Model
import Testing

@testable import Policies

/// Reads `yaml` as a file of `/srv/shop`.
func reading(
  _ yaml: String, environment: [String: String] = [:], envFiles: [String: String] = [:], rules: HostRules = .unknown
) -> Reading {
  read(
    PolicySource(
      path: "app.yaml", folder: "/srv/shop", bytes: Array(yaml.utf8), environment: environment,
      envFiles: envFiles.mapValues { Array($0.utf8) }, defaultStack: "shop"),
    rules: rules)
}

/// The policy of `id: a`, `image: i` and the lines given; fails the test if there are errors.
func container(_ lines: String, rules: HostRules = .unknown, sourceLocation: SourceLocation = #_sourceLocation) throws
  -> Policy
{
  let reading = reading("id: a\nimage: i\n\(lines)\n", rules: rules)
  #expect(reading.errors.isEmpty, "\(reading.rendered())", sourceLocation: sourceLocation)
  return try #require(reading.policy, sourceLocation: sourceLocation)
}

/// The errors of `id: a`, `image: i` and the lines given.
func complaints(_ lines: String, rules: HostRules = .unknown) -> [String] {
  reading("id: a\nimage: i\n\(lines)\n", rules: rules).errors.map(\.message)
}

@Suite("A policy file") struct FileTests {
  @Test("two lines are a whole policy")
  func smallest() throws {
    let policy = try container("")
    #expect(policy.runtime == .container)
    #expect(policy.stack == "shop")
    #expect(policy.limits.memory == .mebibytes(512))
  }
}
