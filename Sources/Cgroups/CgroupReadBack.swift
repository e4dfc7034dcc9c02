internal import Linux
package import Model
package import Scheduling

extension AppCgroup {
  /// Every limit of the policy as asked and as the kernel has it in this group: what `status`, `doctor` and attestation show.
  package func readBack(_ limits: Limits, share: CPUShare) -> [LayerReport] {
    let missing = Dictionary(unsupported(limits).map { ($0.limit, $0.reason) }) { first, _ in first }
    var reports: [LayerReport] = []
    var files: [String: [LimitFile]] = [:]
    for file in self.files(limits, share) { files[file.limit, default: []].append(file) }
    let isLegacy = hierarchy.home(of: .cpu)?.version == .v1
    for (name, asked) in Self.asked(limits, isLegacy ? "shares \(share.shares)" : "weight \(share.weight)") {
      guard let asked else {
        reports.append(LayerReport(name: name, asked: nil, effective: nil, status: .notAsked))
        continue
      }
      if let reason = missing[name] {
        reports.append(LayerReport(name: name, asked: asked, effective: nil, status: .missing, note: reason))
        continue
      }
      var report = read(name, asked, files[name] ?? [])
      if name == "mem_reservation", let above = protectionAbove, above < limits.memoryReservation?.count ?? 0 {
        report.status = .missing
        report.note = "the groups above it protect only \(Bytes(above))"
      }
      reports.append(report)
    }
    return reports
  }

  /// The policy's keys, with what it asks in the policy's own words.
  private static func asked(_ limits: Limits, _ share: String) -> [(String, String?)] {
    var rows: [(String, String?)] = [
      ("mem_limit", limits.memory?.description),
      ("memswap_limit", limits.memoryAndSwap?.description),
      ("mem_high", limits.memoryHigh?.description),
      ("mem_reservation", limits.memoryReservation?.description),
      ("pids_limit", limits.pids.map { String($0) }),
      ("cpus", limits.cpus.map { number($0) }),
      ("cpu_shares", limits.cpuShares.map { String($0) } ?? share),
      ("cpuset", limits.cpuset),
    ]
    if let weight = limits.block.weight { rows.append(("blkio_config.weight", String(weight))) }
    for (key, rates, _) in rates(limits.block) where !rates.isEmpty {
      rows.append((key, rates.map { "\($0.path) \($0.rate)" }.joined(separator: ", ")))
    }
    return rows
  }

  /// `0.5`, `2`: no decimals that say nothing.
  private static func number(_ value: Double) -> String {
    value == value.rounded() ? Bytes.fixed(value, 0) : String(value)
  }

  private func read(_ name: String, _ asked: String, _ files: [LimitFile]) -> LayerReport {
    var effective: [String] = []
    var problem: String?
    for file in files where file.asked {
      guard let place = folder(file.controller) else { continue }
      let path = "\(place.path)/\(file.file)"
      guard let text = try? File.text(path) else {
        problem = problem ?? "\(file.file) cannot be read"
        continue
      }
      let (shown, matches) = Self.compare(text, file)
      effective.append(shown)
      if !matches { problem = problem ?? "\(file.file) is \(shown), not \(file.text)" }
    }
    if effective.isEmpty, problem == nil {
      // A swap limit on a host without swap: nothing to write, and nothing to exceed.
      return LayerReport(name: name, asked: asked, effective: "no swap on this host", status: .enforced)
    }
    return LayerReport(
      name: name, asked: asked, effective: effective.joined(separator: " "),
      status: problem == nil ? .enforced : .missing,
      note: problem)
  }

  static func compare(_ text: String, _ file: LimitFile) -> (shown: String, matches: Bool) {
    let value = String(text.reversed().drop { $0 == "\n" }.reversed())
    switch file.expected {
    case .anything: return (value, true)
    case .exactly(let wanted): return (value, value == wanted)
    case .bytes(let wanted):
      guard let number = UInt64(value) else { return (value, false) }
      // The kernel keeps whole pages.
      return (Bytes(number).description, number <= wanted && wanted - number < 65_536)
    case .line(let wanted):
      let words = wanted.split(separator: " ")
      let lines = value.split(separator: "\n").map { $0.split(separator: " ") }
      let line = lines.first { $0.first == words.first }
      // v2 has all four rates of a device in one line.
      return (
        line?.joined(separator: " ") ?? value, line.map { line in words.allSatisfy { line.contains($0) } } ?? false
      )
    }
  }
}
