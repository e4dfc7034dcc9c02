import Foundation
import Model
import Testing

/// Where an attacker runs.
enum Ground: String, CaseIterable, CustomTestStringConvertible {
  case native, docker, podman

  var testDescription: String { rawValue }
  var rig: Rig? { Rig(rawValue: rawValue) }

  static let available: [Ground] = allCases.filter { ground in
    guard let rig = ground.rig else { return geteuid() == 0 }
    return Rig.available.contains(rig)
  }
}

/// Layers that a knock-out run takes away.
enum Layer: String, CaseIterable, CustomTestStringConvertible {
  case seccomp, landlock, userns
  var testDescription: String { rawValue }
}

/// What an attacker's policy asks for: the table is for the first, and says where the others differ from it.
enum Variant: String, CaseIterable, CustomTestStringConvertible {
  case standard, minimal
  /// What images off the shelf need: their own user, which is root, a root that can be written, capabilities to change users.
  case shelf
  case privileged
  var testDescription: String { rawValue }

  /// In a policy.
  func yaml(_ ground: Ground) -> String {
    switch self {
    case .standard: ""
    case .minimal: "sandbox: minimal\n"
    case .shelf:
      "read_only: false\nuser: \(ground == .native ? "'0:0'" : "image")\n"
        + "cap_add: [CHOWN, DAC_OVERRIDE, FOWNER, KILL, NET_BIND_SERVICE, SETGID, SETUID]\n"
    case .privileged: "sandbox: privileged\nuser: \(ground == .native ? "auto" : "image")\n"
    }
  }
}

/// What must come of one step of an attack.
struct Row {
  enum Cell {
    /// Refused with one of these errors, by this layer.
    case blocked(Set<String>, by: String)
    /// It works, or may: why that is known and let be.
    case known(String)
    /// It cannot be tried there.
    case absent(String)
  }

  /// What becomes of it natively with a layer taken away.
  enum Change: Equatable {
    case open
    /// Only on some hosts; where is said at the layer itself.
    case mayOpen
    case blocked(String)
  }

  var variant = Variant.standard
  var attack: String
  /// A trailing `*` stands for anything.
  var step: String
  var cells: [Ground: Cell]
  var without: [Layer: Change]

  func matches(_ name: String) -> Bool {
    let parts = step.split(separator: "*", maxSplits: 1, omittingEmptySubsequences: false)
    guard parts.count == 2 else { return name == step }
    return name.hasPrefix(parts[0]) && name.hasSuffix(parts[1]) && name.count >= step.count - 1
  }
}

/// `Tests/adversarial/attacks.txt`: every attack, what must come of it where, and what is left out.
struct Table {
  struct Family {
    var title: String
    var attacks: [String]
  }

  static let path = "\(Instance.sources)/Tests/adversarial/attacks.txt"
  static let shared = Table(try? String(contentsOfFile: path, encoding: .utf8))

  private(set) var families: [Family] = []
  private(set) var rows: [Row] = []
  /// Attacks without a program here, and which tests try them: `File.function`.
  private(set) var elsewhere: [(attack: String, tests: [String])] = []
  private(set) var leftOut: [(attack: String, reason: String)] = []
  /// Lines that are none of these.
  private(set) var malformed: [String] = []

  private init(_ text: String?) {
    for line in (text ?? "").split(separator: "\n").map(String.init) where !line.hasPrefix("#") {
      if !read(line) { malformed.append(line) }
    }
  }

  private mutating func read(_ line: String) -> Bool {
    if let rest = Self.rest(line, "family "), let colon = rest.firstIndex(of: ":") {
      let attacks = rest[rest.index(after: colon)...].split(separator: " ").map(String.init)
      families.append(Family(title: String(rest[..<colon]), attacks: attacks))
      return true
    }
    for word in ["elsewhere ", "left out "] {
      guard let rest = Self.rest(line, word), let colon = rest.firstIndex(of: ":") else { continue }
      let what = rest[rest.index(after: colon)...].trimmingCharacters(in: .whitespaces)
      if word == "elsewhere " {
        elsewhere.append((String(rest[..<colon]), what.split(separator: " ").map(String.init)))
      } else {
        leftOut.append((String(rest[..<colon]), what))
      }
      return true
    }
    let fields = line.components(separatedBy: "|").map { $0.trimmingCharacters(in: .whitespaces) }
    let names = fields[0].split(separator: " ").map(String.init)
    let variant = names.count == 2 ? Variant(rawValue: names[0]) : .standard
    guard let variant, let attack = names.last, fields.count == (variant == .standard ? 6 : 5) else { return false }
    var row = Row(variant: variant, attack: attack, step: fields[1], cells: [:], without: [:])
    var last = ""
    for (ground, text) in zip(Ground.allCases, fields[2...4]) {
      if text != "=" { last = text }
      if last == "-", variant != .standard { continue }
      guard let cell = Self.cell(last) else { return false }
      row.cells[ground] = cell
    }
    for change in (fields.count > 5 ? fields[5] : "").split(separator: " ") {
      let parts = change.split(separator: ":").map(String.init)
      guard parts.count == 2, let layer = Layer(rawValue: parts[0]) else { return false }
      row.without[layer] = ["open": .open, "open?": .mayOpen][parts[1]] ?? .blocked(parts[1])
    }
    rows.append(row)
    return true
  }

  private static func rest(_ line: String, _ word: String) -> Substring? {
    line.hasPrefix(word) ? line.dropFirst(word.count) : nil
  }

  private static func cell(_ text: String) -> Row.Cell? {
    if let reason = rest(text, "absent: ") { return .absent(String(reason)) }
    if let reason = rest(text, "known: ") { return .known(String(reason)) }
    guard let space = text.firstIndex(of: " ") else { return nil }
    let errors = text[..<space].split(separator: ",").map(String.init)
    return .blocked(Set(errors), by: text[text.index(after: space)...].trimmingCharacters(in: .whitespaces))
  }

  /// Of the standard preset.
  func rows(_ attack: String) -> [Row] { rows(attack, .standard) }

  /// Those that are for this variant alone.
  func rows(_ attack: String, _ variant: Variant) -> [Row] {
    rows.filter { $0.attack == attack && $0.variant == variant }
  }

  // MARK: Comparing

  /// Everything about `answer` that is not as the table says.
  func differences(_ answer: Answer, _ ground: Ground, _ variant: Variant = .standard) -> [String] {
    guard ["blocked", "succeeded"].contains(answer.verdict) else { return ["its verdict is \(answer.verdict)"] }
    let rows = rows(answer.attack)
    let own = variant == .standard ? [] : self.rows(answer.attack, variant)
    var differences: [String] = rows.isEmpty ? ["the table does not know it"] : []
    for step in answer.steps {
      // A variant's own row is for only some runtimes, where it does not say `-` of the others.
      let special = own.filter { $0.matches(step.call) && $0.cells[ground] != nil }
      let found = special.isEmpty ? rows.filter { $0.matches(step.call) } : special
      guard found.count == 1, let cell = found.first?.cells[ground] else {
        differences.append("\(found.count) rows of the table are for `\(step.call)`")
        continue
      }
      switch (cell, step.result) {
      case (.known, "succeeded"), (.known, "blocked"), (.absent, "absent"): break
      case (.blocked(let errors, _), "blocked") where errors.contains(step.detail): break
      default: differences.append("`\(step.call)` \(step.result) \(step.detail)")
      }
    }
    for row in rows + own where row.cells[ground] != nil && !answer.steps.contains(where: { row.matches($0.call) }) {
      differences.append("`\(row.step)` was not tried")
    }
    return differences
  }

  /// The same natively with a layer taken away: what the table says must open does, and nothing else.
  func differences(_ answer: Answer, without layer: Layer) -> [String] {
    guard ["blocked", "succeeded"].contains(answer.verdict) else { return ["its verdict is \(answer.verdict)"] }
    return answer.steps.compactMap { step in
      let row = rows(answer.attack).first { $0.matches(step.call) }
      switch (row?.without[layer], step.result) {
      case (.open, "succeeded"), (nil, "blocked"), (nil, "absent"): return nil
      case (.mayOpen, "succeeded"), (.mayOpen, "blocked"): return nil
      case (.blocked(let error), "blocked") where error == step.detail: return nil
      default: return "`\(step.call)` \(step.result) \(step.detail)"
      }
    }
  }

  // MARK: For people

  /// The table of the README: a family each, what came of it in each runtime, and what stopped it.
  var summary: String {
    var lines = ["| What a hostile app tries | native | docker | podman | Stopped by |", "|---|---|---|---|---|"]
    for family in families {
      let rows = family.attacks.flatMap(rows)
      let results = Ground.allCases.map { ground in Self.result(rows.compactMap { $0.cells[ground] }) }
      lines.append("| \(family.title) | \(results.joined(separator: " | ")) | \(Self.layers(rows)) |")
    }
    return lines.joined(separator: "\n")
  }

  /// The README's other table: what other presets let through, runtime by runtime, and what is let be.
  var variantSummary: String {
    var lines = ["| Preset | runtime | What else gets through, and why it is let be |", "|---|---|---|"]
    for variant in Variant.allCases where variant != .standard {
      var texts: [(text: String, grounds: [String])] = []
      for ground in Ground.allCases {
        let text = beyond(variant, ground)
        if let place = texts.firstIndex(where: { $0.text == text }) {
          texts[place].grounds.append("\(ground)")
        } else {
          texts.append((text, ["\(ground)"]))
        }
      }
      lines += texts.map { "| \(variant) | \($0.grounds.joined(separator: ", ")) | \($0.text) |" }
    }
    return lines.joined(separator: "\n")
  }

  private func beyond(_ variant: Variant, _ ground: Ground) -> String {
    var calls: [(reason: String, steps: [String])] = []
    for row in rows where row.variant == variant {
      guard case .known(let reason)? = row.cells[ground] else { continue }
      if let place = calls.firstIndex(where: { $0.reason == reason }) {
        calls[place].steps.append(row.step)
      } else {
        calls.append((reason, [row.step]))
      }
    }
    let words = calls.map { "\($0.reason) (\($0.steps.joined(separator: ", ")))" }
    return words.isEmpty ? "nothing" : words.joined(separator: "; ")
  }

  private static func result(_ cells: [Row.Cell]) -> String {
    let known = cells.compactMap { if case .known(let reason) = $0 { reason } else { nil } }
    let reasons = known.reduce(into: [String]()) { if !$0.contains($1) { $0.append($1) } }
    return reasons.isEmpty ? "blocked" : "blocked, but: \(reasons.joined(separator: "; "))"
  }

  private static func layers(_ rows: [Row]) -> String {
    let layers = rows.flatMap { $0.cells.values }.compactMap {
      if case .blocked(_, let layer) = $0 { layer } else { nil }
    }
    return Set(layers).sorted().joined(separator: ", ")
  }
}

/// What the probe says of one attack.
struct Answer {
  struct Step: Equatable {
    var call: String
    var result: String
    var detail: String
  }
  var attack: String
  var verdict: String
  var steps: [Step]
}

extension Answer {
  /// One line of the probe's; nil for any other.
  init?(_ line: some StringProtocol) {
    guard let value = try? JSONValue(parsing: Array(line.utf8), limits: .engine),
      let attack = value["attack"]?.stringValue, let verdict = value["verdict"]?.stringValue,
      let steps = value["steps"]?.arrayValue
    else { return nil }
    self.attack = attack
    self.verdict = verdict
    self.steps = steps.compactMap { step in
      guard let words = step.arrayValue?.compactMap(\.stringValue), words.count == 3 else { return nil }
      return Step(call: words[0], result: words[1], detail: words[2])
    }
    guard self.steps.count == steps.count else { return nil }
  }

  /// Those among lines of a log.
  static func all(in text: String) -> [Answer] { text.split(separator: "\n").compactMap { Answer($0) } }
}
