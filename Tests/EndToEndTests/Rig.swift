import Foundation
import Model
import Testing

/// The engines a test can run over; a test without them is skipped, or fails where REQUIRE names it.
enum Rig: String, CaseIterable, CustomTestStringConvertible {
  case docker, podman

  static let image = "appsup-test/busybox:1"
  var testDescription: String { rawValue }

  /// Those that are there or must be.
  static var available: [Rig] { allCases.filter { $0.socket != nil || $0.isRequired } }

  var socket: String? { Self.variable("SUPERVISOR_TEST_\(rawValue.uppercased())_SOCK") }
  var isRequired: Bool { (Self.variable("REQUIRE") ?? "").split(separator: ",").contains { $0 == rawValue } }

  static var registry: String? { variable("SUPERVISOR_TEST_REGISTRY") }
  /// The folder of the private engines, and the program that kills and starts them.
  static var folder: String? { variable("SUPERVISOR_TEST_RIG") }
  static var engines: String? { variable("SUPERVISOR_TEST_ENGINES") }

  /// Whether these tests run where the engines' published ports and the registry are.
  static var isInside: Bool {
    guard let name = variable("SUPERVISOR_TEST_NETNS") else { return false }
    var here = stat()
    var there = stat()
    return stat("/proc/self/ns/net", &here) == 0 && stat("/run/netns/\(name)", &there) == 0
      && here.st_ino == there.st_ino
  }

  static func variable(_ name: String) -> String? {
    ProcessInfo.processInfo.environment[name].flatMap { $0.isEmpty ? nil : $0 }
  }

  /// Runs `body` with an instance on this engine, and takes everything away.
  func with(_ body: (Instance) throws -> Void) throws {
    let instance = try Instance(
      engine: try #require(socket, "SUPERVISOR_TEST_\(rawValue.uppercased())_SOCK is not set"))
    defer { instance.end() }
    try body(instance)
  }

  /// `GET` at the engine itself, beside the supervisor.
  func ask(_ path: String) -> JSONValue? {
    guard let socket else { return nil }
    let answer = Shell.run(["curl", "-s", "--max-time", "20", "--unix-socket", socket, "http://engine/v1.41\(path)"])
    return try? JSONValue(parsing: Array(answer.out.utf8), limits: .engine)
  }

  /// `POST` of a document at the engine itself, or, without one, `DELETE`; what it answers.
  @discardableResult
  func send(_ path: String, _ document: String?) -> String {
    guard let socket else { return "" }
    let what = document.map { ["-H", "Content-Type: application/json", "-d", $0] } ?? ["-X", "DELETE"]
    return Shell.run(
      ["curl", "-s", "--max-time", "20", "--unix-socket", socket] + what + ["http://engine/v1.41\(path)"]
    ).out
  }

  /// Containers of an instance, ended ones included.
  func containers(of instance: String) -> [JSONValue] {
    let filter = #"{"label":["io.appsupervisor.instance=\#(instance)"]}"#
    let encoded = filter.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
    return ask("/containers/json?all=1&filters=\(encoded)")?.arrayValue ?? []
  }

  /// Networks of an instance.
  func networks(of instance: String) -> [String] {
    let filter = #"{"label":["io.appsupervisor.instance=\#(instance)"]}"#
    let encoded = filter.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? ""
    return (ask("/networks?filters=\(encoded)")?.arrayValue ?? []).compactMap { $0["Name"]?.stringValue }
  }
}

/// Waits until `condition` holds; records `what` and returns false after `seconds`.
@discardableResult
func eventually(_ what: String, seconds: Double = 20, _ condition: () -> Bool) -> Bool {
  let deadline = Date().addingTimeInterval(seconds)
  while Date() < deadline {
    if condition() { return true }
    usleep(20000)
  }
  Issue.record("it did not come to this: \(what)")
  return false
}
