import Foundation
import Glibc
import Model
import Testing

/// Attacks from inside apps, under the default policy, in every runtime; `Tests/adversarial/attacks.txt` says what must come of each
/// call, `Tests/adversarial/*.c` is what tries them.
@Suite("attacks", .serialized, Arenas()) struct Attacks {}

extension Attacks {
  @Suite("out of the sandbox", .serialized) struct Escapes {
    /// Those that the probe tries when asked, one after another in one app.
    static let names = Table.shared.families.flatMap(\.attacks).filter { name in
      !Table.shared.rows(name).isEmpty && !Resources.names.contains(name)
    }

    @Test("each call of an attack is stopped, and by the layer that is to", arguments: Ground.available, names)
    func attack(_ ground: Ground, _ name: String) throws {
      let arena = try Arena.on(ground)
      let answer = try arena.attack(name)
      let differences = Table.shared.differences(answer, ground)
      #expect(differences.isEmpty, "\(name) on \(ground): \(differences.joined(separator: ", "))")
      if name == "A23" { try compareCalls(answer) }
      try arena.check(name)
    }

    /// A23: what can be reached at all is what somebody looked at, and not much less: an engine's older libseccomp may not know
    /// the newest names.
    private func compareCalls(_ answer: Answer) throws {
      let path = "\(Instance.sources)/Tests/adversarial/calls.txt"
      let golden = Set(
        try String(contentsOfFile: path, encoding: .utf8).split(separator: "\n").filter { !$0.hasPrefix("#") }
          .flatMap { $0.split(separator: " ") }.compactMap { Int($0) })
      let reached = Set(
        answer.steps.filter { $0.call.hasPrefix("reached") }.flatMap { $0.detail.split(separator: " ") }
          .compactMap { Int($0) })
      #expect(reached.subtracting(golden).isEmpty, "calls that nobody looked at can be reached")
      let missing = golden.subtracting(reached).filter { Self.isKnown($0) }
      #expect(missing.count <= 10, "\(missing.sorted())")
    }

    /// Whether this kernel has such a call: those after cachestat(2), and those for probes, came with Linux 6.5 and later.
    private static func isKnown(_ call: Int) -> Bool {
      var names = utsname()
      uname(&names)
      let release = withUnsafeBytes(of: &names.release) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
      let numbers = release.split { !$0.isNumber }.prefix(2).compactMap { Int($0) }
      return !numbers.lexicographicallyPrecedes([6, 18]) || (call < 451 && ![335, 336].contains(call))
    }

    @Test(
      "an engine is asked for nothing but what the recipe for containers allows",
      arguments: Ground.available.filter { $0 != .native })
    func engineCalls(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      let recorder = try #require(arena.recorder)
      _ = try arena.launch("A65", ["A11"])
      arena.remove("A65")
      #expect(recorder.requests.contains { $0.hasPrefix("POST ") && $0.contains("/containers/create") })
      for never in ["/archive", "/commit", "/plugins", "/swarm", "/exec", "/secrets", "/services", "/session"] {
        #expect(!recorder.requests.contains { $0.contains(never) }, "\(never)")
      }
      for never in ["\"Privileged\":true", "\"UsernsMode\":\"host\"", "\"PidMode\":\"host\"", "\"IpcMode\":\"host\""] {
        #expect(!recorder.text.contains(never), "\(never)")
      }
      let mounts = recorder.text.components(separatedBy: "\"Source\":\"").dropFirst().map { $0.prefix { $0 != "\"" } }
      #expect(!mounts.isEmpty)
      for source in mounts {
        #expect(!source.hasSuffix(".sock") && !source.hasSuffix("/run"), "\(source)")
      }
    }
  }
}
