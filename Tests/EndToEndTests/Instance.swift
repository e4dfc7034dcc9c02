import Foundation
import Model
import Testing

extension Outcome {
  /// JSON Lines of standard output.
  var lines: [JSONValue] {
    out.split(separator: "\n").compactMap { try? JSONValue(parsing: Array($0.utf8), limits: .engine) }
  }
}

/// One instance under a root of its own, driven through the built `supervisor` as a user would.
final class Instance {
  let root: String
  let policies: String
  /// What the next daemon is started with.
  var engine: String
  /// The instance's random id, once it was asked for.
  var knownID: String?
  private let environment: [String: String]

  /// This package.
  static let sources = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path

  /// Where the programs under test are: APPSUPERVISOR_BIN, else this package's debug build.
  static let programs: String =
    ProcessInfo.processInfo.environment["APPSUPERVISOR_BIN"]
    ?? URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
    .appendingPathComponent(".build/debug").path

  /// `engine` is `none` or a socket. `root` may be given; it must not exist, or be empty.
  init(engine: String = "none", root given: String? = nil, _ variables: [String: String] = [:]) throws {
    self.engine = engine
    let scratch = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    root = given ?? "\(scratch)/appsup-e2e-\(UInt32.random(in: 0 ... .max))"
    policies = "\(root)-policies"
    for folder in [root, policies] {
      try FileManager.default.createDirectory(
        atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    }
    var values = ProcessInfo.processInfo.environment
    for name in ["DOCKER_HOST", "CONTAINER_HOST", "SUPERVISOR_ROOT"] { values[name] = nil }
    values["NO_COLOR"] = "1"
    environment = values.merging(variables) { $1 }
  }

  /// Stops everything of this instance; what is left over is a failure.
  func end() {
    if run("ps", "-q").code == 69 { startDaemon() }
    knownID = id
    let down = run("down", "--all", "-y", "--daemon", "--progress", "quiet")
    if down.code != 0 { Issue.record("down: \(down.err)") }
    let left = leftovers
    if !left.isEmpty { Issue.record("left over: \(left.joined(separator: ", "))") }
    try? FileManager.default.removeItem(atPath: policies)
    try? FileManager.default.removeItem(atPath: root)
  }

  @discardableResult
  func write(_ name: String, _ yaml: String) throws -> String {
    let path = "\(policies)/\(name).yaml"
    try yaml.write(toFile: path, atomically: true, encoding: .utf8)
    return path
  }

  @discardableResult
  func run(_ arguments: String..., within seconds: Double = 90) -> Outcome { run(arguments, within: seconds) }

  /// `prefix`: a program that runs the CLI, with its arguments.
  func run(_ arguments: [String], prefix: [String] = [], within seconds: Double = 90) -> Outcome {
    do { return try begin(arguments, prefix: prefix).finish(within: seconds) } catch {
      return Outcome(code: -1, out: "", err: "\(error)")
    }
  }

  /// Starts the CLI and returns.
  func begin(_ arguments: [String], prefix: [String] = []) throws -> Started {
    try Started(
      ["/usr/bin/env", "-C", policies] + prefix + ["\(Self.programs)/supervisor"] + arguments + ["--root", root],
      environment)
  }

  /// `up -d --wait` of the policies' folder.
  @discardableResult
  func up(_ more: String...) -> Outcome {
    run(["up", "-d", "--wait", "--progress", "quiet", "--engine", engine, policies] + more)
  }

  /// The row of an app in `ps -a`.
  func app(_ name: String) -> JSONValue? {
    run("ps", "-a", "--format", "json").lines.first { $0["name"]?.stringValue == name }
  }

  /// Waits until the app's row satisfies; nil after `seconds`.
  @discardableResult
  func wait(_ name: String, seconds: Double = 20, _ until: (JSONValue) -> Bool) -> JSONValue? {
    let deadline = Date().addingTimeInterval(seconds)
    while Date() < deadline {
      if let row = app(name), until(row) { return row }
      usleep(20000)
    }
    Issue.record("\(name) did not get there: \(app(name)?.text ?? "unknown")")
    return nil
  }

  /// What a cgroup file of an app says, wherever its controller is.
  func cgroup(_ app: String, _ names: [String]) -> String? {
    guard let parent = run("version", "--format", "json").lines.first?["daemon"]?["cgroup_parent"]?.stringValue else {
      return nil
    }
    for base in ["memory", "cpu", "pids", "cpuset", "freezer", "blkio", "unified", ""] {
      for name in names {
        let path = "/sys/fs/cgroup/\(base)\(parent)/\(app)/\(name)"
        if let text = try? String(contentsOfFile: path, encoding: .utf8) {
          return text.trimmingCharacters(in: .whitespacesAndNewlines)
        }
      }
    }
    return nil
  }

  /// The daemon's pid.
  var daemon: Int32? {
    run("version", "--format", "json").lines.first?["daemon"]?["pid"]?.integerValue.map { Int32($0) }
  }
}
