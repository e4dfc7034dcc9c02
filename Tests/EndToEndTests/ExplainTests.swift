import Foundation
import Model
import Testing

/// What `images/public/build` has made.
enum PublicImages {
  static let folder = "\(Instance.sources)/.build/images/public"
  static let areThere = ["postgres", "redis", "nginx"].allSatisfy {
    FileManager.default.fileExists(atPath: "\(folder)/\($0).tar")
  }
}

/// Images off the shelf, each without one line that it needs: what is said names the line.
@Suite(
  "the missing line is named", .serialized, .enabled(if: !Rig.available.isEmpty, "no SUPERVISOR_TEST_*_SOCK is set"),
  .enabled(if: PublicImages.areThere, "images/public/build has made no images")) struct ExplainTests
{
  /// A policy's lines that are taken away in turn: the key or the item, and what is to be said then.
  private struct Kind {
    var name: String
    var lines: [String: String]
    var missing: [(line: String, said: String)]
  }

  private static let kinds = [
    Kind(
      name: "postgres",
      lines: [
        "image": "appsup/postgres:15", "user": "image", "cap_add": "[CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID]",
        "environment": "{POSTGRES_PASSWORD: s}", "volumes": "['VOLUME:/var/lib/postgresql/data']",
        "tmpfs": "['/var/run/postgresql:size=1m,mode=3777']",
      ],
      missing: [
        ("user", "`user: image`"), ("CHOWN", "CHOWN"), ("FOWNER", "FOWNER"), ("SETGID", "SETGID"),
        ("SETUID", "SETUID"), ("volumes", "`volumes: [\"NAME:/var/lib/postgresql/data\"]`"),
        ("tmpfs", "`tmpfs: [\"/var/run/postgresql:size="), ("environment", "POSTGRES_PASSWORD"),
      ]),
    Kind(
      name: "redis",
      lines: [
        "image": "appsup/redis:7", "user": "image", "cap_add": "[CHOWN, DAC_OVERRIDE, FOWNER, SETGID, SETUID]",
        "volumes": "['VOLUME:/data']",
      ],
      missing: [
        ("CHOWN", "CHOWN"), ("SETGID", "SETGID"), ("SETUID", "SETUID"),
        ("volumes", "`volumes: [\"NAME:/data\"]`"),
      ]),
    Kind(
      name: "nginx",
      lines: [
        "image": "appsup/nginx:1", "user": "image", "cap_add": "[CHOWN, SETGID, SETUID]",
        "tmpfs": "['/var/lib/nginx:size=16m', '/var/log/nginx:size=4m', '/run:size=1m']",
        "volumes": "['\(Instance.sources)/policies/examples/shop/nginx.conf:/etc/nginx/nginx.conf:ro']",
        "network_mode": "bridge",
        "healthcheck": "{tcp: {port: 81}, interval: 500ms, start_period: 1s, on_failure: none}",
      ],
      missing: [
        ("CHOWN", "CHOWN"), ("SETGID", "SETGID"), ("SETUID", "SETUID"), ("'/var/lib/nginx:size=16m'", "/var/lib/nginx"),
        ("'/run:size=1m'", "`tmpfs: [\"/run:size="),
      ]),
  ]

  private static func policy(_ kind: Kind, _ id: String, without line: String) -> String {
    var lines = kind.lines
    lines[line] = nil
    for (key, value) in lines {
      // An item of a list, with the comma before or after it.
      lines[key] = value.replacingOccurrences(of: "\(line), ", with: "").replacingOccurrences(of: ", \(line)", with: "")
        .replacingOccurrences(of: "VOLUME", with: "of-\(id)")
    }
    return "id: \(id)\nrestart: 'no'\npull_policy: never\nstop_grace_period: 2s\n"
      + lines.map { "\($0.key): \($0.value)\n" }.sorted().joined()
  }

  @Test("PostgreSQL, Redis and nginx without each line they need", arguments: Rig.available)
  func missingLines(_ rig: Rig) throws {
    try rig.with { instance in
      instance.startDaemon()
      for kind in Self.kinds {
        #expect(instance.run("load", "\(PublicImages.folder)/\(kind.name).tar").code == 0)
      }
      for kind in Self.kinds {
        var expected: [(id: String, said: String)] = []
        // Podman gives a new volume to whoever the app is, so PostgreSQL does without root there.
        let missing = kind.missing.filter { rig == .docker || kind.name != "postgres" || $0.line != "user" }
        for (place, entry) in missing.enumerated() {
          let id = "\(kind.name)-\(place)"
          try instance.write(id, Self.policy(kind, id, without: entry.line))
          expected.append((id, entry.said))
        }
        _ = instance.run("up", "-d", "--progress", "quiet", instance.policies)
        for (id, said) in expected {
          let isSaid = eventually("\(id) says \(said)", seconds: 60) { instance.run("explain", id).out.contains(said) }
          if !isSaid {
            Issue.record("\(instance.run("explain", id).out)\n\(instance.run("logs", id).out.suffix(2000))")
          }
        }
        for (id, _) in expected { try FileManager.default.removeItem(atPath: "\(instance.policies)/\(id).yaml") }
        #expect(instance.run(["down", "-y", "--data"] + expected.map(\.id)).code == 0)
      }
    }
  }

  @Test("root without DAC_OVERRIDE finds its own data closed at the second start", arguments: Rig.available)
  func secondStart(_ rig: Rig) throws {
    try rig.with { instance in
      instance.startDaemon()
      let kind = Self.kinds[0]
      #expect(instance.run("load", "\(PublicImages.folder)/\(kind.name).tar").code == 0)
      let check = "healthcheck: {test: [CMD, pg_isready, -q, -h, 127.0.0.1], interval: 500ms, start_period: 1m}\n"
      try instance.write("db", Self.policy(kind, "db", without: "-") + check)
      #expect(instance.up().code == 0)
      // It is stopped by its own signal, although its init may not send it any.
      #expect(instance.run("stop", "-t", "30s", "db").code == 0)
      let stopped = instance.wait("db") { $0["state"] == "exited" }
      #expect(stopped?["exit_code"] == 0, "\(stopped?.text ?? "")")
      try instance.write("db", Self.policy(kind, "db", without: "DAC_OVERRIDE") + check)
      _ = instance.run("up", "-d", "--progress", "quiet", instance.policies)
      eventually("it says DAC_OVERRIDE", seconds: 60) { instance.run("explain", "db").out.contains("DAC_OVERRIDE") }
    }
  }
}
