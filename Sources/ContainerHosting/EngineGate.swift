package import Model

/// How far an engine and the programs behind it are trusted, by their versions.
///
/// Versions are upstream's: a distribution that mends a hole without a new number is judged as if it had not, and what is said
/// tells so.
package struct EngineGate: Sendable, Equatable {
  package enum Verdict: Sendable, Equatable {
    case trusted
    /// Used, with these known holes.
    case degraded([String])
    /// No container is started; those that run are left alone.
    case refused([String])

    package var name: String {
      switch self {
      case .trusted: "trusted"
      case .degraded: "degraded"
      case .refused: "refused"
      }
    }
    package var reasons: [String] {
      switch self {
      case .trusted: []
      case .degraded(let reasons), .refused(let reasons): reasons
      }
    }
  }

  /// `runc 1.1`: a program, and a version or the beginning of one; a program alone means all of its versions.
  package var refused: [String]
  package var acceptsDegraded: Bool

  package init(refused: [String] = [], acceptsDegraded: Bool = true) {
    self.refused = refused
    self.acceptsDegraded = acceptsDegraded
  }

  package func verdict(_ facts: EngineFacts) -> Verdict {
    let programs = Self.programs(facts)
    let banned = refused.filter { rule in
      let words = rule.split(separator: " ").map(String.init)
      return programs.contains { $0.name == words.first && Self.begins($0.version, words.dropFirst().first ?? "") }
    }
    guard banned.isEmpty else { return .refused(banned.map { "\($0) is refused by engine_gate" }) }
    let holes = programs.flatMap { program in
      Self.holes.filter { $0.program == program.name && !$0.isMended(in: program.version) }.map {
        "\(program.name) \(program.version) has \($0.what), mended in \($0.mended.map(Self.text).joined(separator: ", ")); "
          + "your distribution may have mended it without a new version"
      }
    }
    if holes.isEmpty { return .trusted }
    return acceptsDegraded ? .degraded(holes) : .refused(holes)
  }

  // MARK: Versions

  private struct Hole {
    var program: String
    var what: String
    /// The first good version of each branch that has one; all newer branches are good.
    var mended: [[Int]]

    func isMended(in version: String) -> Bool {
      let version = EngineGate.numbers(version)
      let newest = mended.map { Array($0.prefix(2)) }.max(by: EngineGate.isOlder) ?? []
      if EngineGate.isOlder(newest, Array(version.prefix(2))) { return true }
      return mended.contains { $0.prefix(2).elementsEqual(version.prefix(2)) && !EngineGate.isOlder(version, $0) }
    }
  }

  /// Of runtimes that act on files of an image or a container; from their advisories.
  private static let holes: [Hole] = [
    Hole(
      program: "runc", what: "CVE-2024-21626 (an image's working directory reaches the host)", mended: [[1, 1, 12]]),
    Hole(
      program: "runc",
      what: "CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881 (an image turns masks of /proc into ways out)",
      mended: [[1, 2, 8], [1, 3, 3], [1, 4, 0]]),
    Hole(
      program: "runc", what: "CVE-2026-41579 (an image's links under /dev are followed)",
      mended: [[1, 3, 6], [1, 4, 3], [1, 5, 0]]),
  ]

  /// The engine and its components as `name version`: Docker says `runc` and `1.1.5+ds1`, Podman `OCI Runtime (runc)` and
  /// `runc version 1.1.5+ds1` and more lines.
  private static func programs(_ facts: EngineFacts) -> [(name: String, version: String)] {
    [(facts.flavour, facts.version)]
      + facts.components.compactMap { component in
        let line = component.prefix { $0 != "\n" }
        let name = line.split(separator: "(").dropFirst().first?.prefix { $0 != ")" } ?? line.prefix { $0 != " " }
        let version = line.split(separator: " ").last { $0.first?.isNumber == true }
        return version.map { (name.lowercased(), String($0)) }
      }
  }

  private static func numbers(_ version: String) -> [Int] {
    version.prefix { $0.isNumber || $0 == "." }.split(separator: ".").map { Int($0) ?? 0 }
  }

  private static func isOlder(_ left: [Int], _ right: [Int]) -> Bool { left.lexicographicallyPrecedes(right) }

  private static func text(_ version: [Int]) -> String { version.map(String.init).joined(separator: ".") }

  /// `1.1` begins 1.1.5, not 1.10.
  private static func begins(_ version: String, _ beginning: String) -> Bool {
    guard version.hasPrefix(beginning) else { return false }
    let next = version.dropFirst(beginning.count).first
    return beginning.isEmpty || next == nil || next?.isNumber == false
  }
}

extension ContainerHost {
  /// What the engine's versions are worth by the gate.
  package func verdict() async throws(HostFailure) -> EngineGate.Verdict {
    settings.gate.verdict(try await link.facts())
  }

  func refuseGated() async throws(HostFailure) {
    guard case .refused(let reasons) = try await verdict() else { return }
    throw HostFailure(
      .refused, "no container is started by this engine: \(reasons.joined(separator: "; "))",
      hint: "Upgrade it, or change engine_gate in config.yaml and restart the daemon")
  }
}
