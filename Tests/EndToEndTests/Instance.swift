import Foundation
import Model
import Testing

/// What one run of the CLI came to.
struct Outcome {
  var code: Int32
  var out: String
  var err: String
  /// JSON Lines of standard output.
  var lines: [JSONValue] {
    out.split(separator: "\n").compactMap { try? JSONValue(parsing: Array($0.utf8), limits: .engine) }
  }
}

/// One instance under a root of its own, driven through the built `supervisor` as a user would.
final class Instance {
  let root: String
  let policies: String
  let engine: String
  private let environment: [String: String]

  /// Where the programs under test are: APPSUPERVISOR_BIN, else this package's debug build.
  static let programs: String =
    ProcessInfo.processInfo.environment["APPSUPERVISOR_BIN"]
    ?? URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()
    .appendingPathComponent(".build/debug").path

  /// `engine` is `none` or a socket.
  init(engine: String = "none", _ variables: [String: String] = [:]) throws {
    self.engine = engine
    let scratch = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/tmp"
    root = "\(scratch)/appsup-e2e-\(UInt32.random(in: 0 ... .max))"
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
    let down = run("down", "--all", "-y", "--daemon", "--progress", "quiet")
    if down.code != 0, !down.err.contains("no daemon runs") { Issue.record("down: \(down.err)") }
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

  func run(_ arguments: [String], within seconds: Double = 90) -> Outcome {
    let process = Process()
    process.executableURL = URL(fileURLWithPath: "\(Self.programs)/supervisor")
    process.arguments = arguments + ["--root", root]
    process.environment = environment
    process.currentDirectoryURL = URL(fileURLWithPath: policies)
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent("appsup-run-\(UUID().uuidString)")
    try? FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    // Files, not pipes: a daemon that is started must not keep them open for a reader.
    let out = folder.appendingPathComponent("out")
    let err = folder.appendingPathComponent("err")
    _ = FileManager.default.createFile(atPath: out.path, contents: nil)
    _ = FileManager.default.createFile(atPath: err.path, contents: nil)
    do {
      process.standardOutput = try FileHandle(forWritingTo: out)
      process.standardError = try FileHandle(forWritingTo: err)
      process.standardInput = FileHandle.nullDevice
      try process.run()
    } catch { return Outcome(code: -1, out: "", err: "\(error)") }
    let deadline = Date().addingTimeInterval(seconds)
    while process.isRunning, Date() < deadline { usleep(2000) }
    if process.isRunning {
      process.terminate()
      return Outcome(code: -2, out: "", err: "timed out: \(arguments)")
    }
    return Outcome(
      code: process.terminationStatus, out: (try? String(contentsOf: out, encoding: .utf8)) ?? "",
      err: (try? String(contentsOf: err, encoding: .utf8)) ?? "")
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

/// The engines a test can run over; a test without them is skipped, or fails where REQUIRE names it.
enum Rig {
  static var docker: String? { ProcessInfo.processInfo.environment["SUPERVISOR_TEST_DOCKER_SOCK"] }
  static var podman: String? { ProcessInfo.processInfo.environment["SUPERVISOR_TEST_PODMAN_SOCK"] }
  static var sockets: [String] { [docker, podman].compactMap { $0 } }
  static let image = "appsup-test/busybox:1"
}
