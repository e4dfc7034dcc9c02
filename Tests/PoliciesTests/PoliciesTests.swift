import Foundation
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

/// One file of the repository, found from this one.
func repositoryFile(_ path: String) throws -> [UInt8] {
  let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
  return Array(try Data(contentsOf: root.appending(path: path)))
}

/// The names of the files in a folder of the repository, sorted.
func repositoryFolder(_ path: String) throws -> [String] {
  let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
  return try FileManager.default.contentsOfDirectory(atPath: root.appending(path: path).path()).sorted()
}
