import Foundation
import Model
import Testing

@Suite("import and export, as a person uses them") struct ConvertTests {
  private static let sample = "\(Instance.sources)/policies/compose/blog/compose.yaml"

  private func with(_ body: (Instance) throws -> Void) throws {
    let instance = try Instance(["DB_PASSWORD": "pa$$word", "HOME": "/root"])
    defer {
      try? FileManager.default.removeItem(atPath: instance.policies)
      try? FileManager.default.removeItem(atPath: instance.root)
    }
    try body(instance)
  }

  @Test("a Compose file from real life becomes policies that check, with every loss on a line of its own")
  func real() throws {
    try with { instance in
      let out = "\(instance.policies)/out"
      let run = instance.run("import", "-o", out, Self.sample)
      #expect(run.code == 0, "\(run.err)")
      let names = try FileManager.default.contentsOfDirectory(atPath: out).sorted()
      #expect(
        names == [
          "app.yaml", "backup.yaml", "cache.yaml", "db.yaml", "files", "mail.yaml", "proxy.yaml", "worker.yaml",
        ])
      for loss in ["networks.back.internal", "cache: sysctls", "proxy: extra_hosts[0]"] {
        #expect(run.err.contains("dropped: \(loss)"), "\(loss)\n\(run.err)")
      }
      #expect(!run.err.contains("pa$$word"), "a variable's value is nobody's to read in a report")
      let mode = try FileManager.default.attributesOfItem(atPath: "\(out)/db.yaml")[.posixPermissions] as? Int
      #expect(mode == 0o600)
      let check = instance.run("policy", "check", out)
      #expect(check.code == 0, "\(check.err)")
      let again = instance.run("import", "-o", out, Self.sample)
      #expect(again.code == 1 && again.err.contains("--force"), "\(again.err)")
    }
  }

  @Test("--strict writes nothing where anything is lost; --format json is one object a loss")
  func strict() throws {
    try with { instance in
      let run = instance.run("import", "--strict", "--format", "json", "-o", "\(instance.policies)/out", Self.sample)
      #expect(run.code == 1)
      #expect(!FileManager.default.fileExists(atPath: "\(instance.policies)/out"))
      let losses = run.err.split(separator: "\n").compactMap { try? JSONValue(parsing: Array($0.utf8)) }
      #expect(
        losses.contains {
          $0["app"] == "cache" && $0["key"] == "sysctls" && $0["kind"] == "dropped" && $0["line"] == 72
        })
      #expect(losses.last?["error"]?["code"] == "loss")
    }
  }

  @Test("a file that is no Compose file ends with 2 and its place; one that is not there with 2")
  func broken() throws {
    try with { instance in
      try "services:\n  a: {image: i, image: j}\n".write(
        toFile: "\(instance.policies)/c.yaml", atomically: true, encoding: .utf8)
      let run = instance.run("import", "c.yaml")
      #expect(run.code == 2 && run.err.contains("c.yaml:2:"), "\(run.err)")
      #expect(instance.run("import", "none.yaml").code == 2)
    }
  }

  @Test(
    "policies are exported in each format, losses on standard error alone",
    arguments: ["compose", "quadlet", "kubernetes"])
  func export(_ format: String) throws {
    try with { instance in
      try instance.write("web", "id: web\nimage: nginx:1\nports: ['8080:80']\npriority: high\n")
      try instance.write("tool", "id: tool\nentry: [/bin/true]\n")
      let run = instance.run("export", "--to", format, instance.policies)
      #expect(run.code == 0, "\(run.err)")
      #expect(run.out.contains("nginx:1") && !run.out.contains("tool"))
      #expect(run.err.contains("tool: the app is left out"), "\(run.err)")
      #expect(run.err.contains("priority"))
      #expect(instance.run("export", "--to", format, "--strict", instance.policies).code == 1)
      let files = instance.run("export", "--to", format, "-o", "\(instance.policies)/out", instance.policies)
      #expect(files.code == 0 && files.out.contains("/out/"), "\(files.err)")
    }
  }
}
