import Foundation
import Testing

/// Where an app runs: natively, or on one of the engines that are there.
enum StreamPlace: CaseIterable, CustomTestStringConvertible {
  case native, docker, podman

  static var available: [StreamPlace] { [.native] + Rig.available.map { $0 == .docker ? .docker : .podman } }

  var testDescription: String { "\(self)" }

  var rig: Rig? {
    switch self {
    case .native: nil
    case .docker: .docker
    case .podman: .podman
    }
  }

  /// A policy whose app is a shell script; `$` in it is doubled here.
  func app(_ id: String, _ script: String, _ more: String = "") -> String {
    let escaped = script.replacingOccurrences(of: "$", with: "$$").replacingOccurrences(of: "'", with: "''")
    let image = rig == nil ? "" : "image: \(Rig.image)\npull_policy: never\n"
    return "id: \(id)\n\(image)entry: [/bin/sh, -c, '\(escaped)']\n\(more)"
  }

  /// Runs `body` with an instance and these apps up.
  func with(_ apps: [String: String], _ body: (Instance) throws -> Void) throws {
    func go(_ instance: Instance) throws {
      for (name, yaml) in apps { try instance.write(name, yaml) }
      let up = instance.run("up", "-d", "--progress", "quiet", "--engine", instance.engine, instance.policies)
      #expect(up.code == 0, "\(up.err)")
      try body(instance)
    }
    if let rig { return try rig.with(go) }
    let instance = try Instance()
    defer { instance.end() }
    try go(instance)
  }
}
