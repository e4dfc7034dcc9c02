internal import Model

/// The shape a value may have: what the checker accepts, and what the JSON Schema says.
indirect enum Form: Sendable {
  /// Text without control characters but tab and newline, at most `most` characters.
  case text(most: Int = 4096)
  /// Text that a function accepts, described by `said`; `pattern` is for the schema only.
  case checked(said: String, pattern: String? = nil, @Sendable (String) -> Bool)
  case word([String])
  case boolean
  case whole(ClosedRange<Int64>)
  case decimal(ClosedRange<Double>)
  /// `256m`; `-1` is left to the field.
  case size
  case duration
  /// A file mode, always octal.
  case mode
  case list(Form, most: Int = 1000)
  /// Free keys, all of one form.
  case map(Form, most: Int = 1000)
  case object([Part])
  /// The first whose kind of node fits; for several scalars, the first that accepts.
  case either([Form], said: String)
  /// Null as well as the form.
  case orNothing(Form)
  case anything

  /// A key of an object.
  struct Part: Sendable {
    var key: String
    var form: Form
    var doc: String
    var required = false
    /// What is missing for it, if a file may not set it yet.
    var later: String?

    init(_ key: String, _ form: Form, _ doc: String, required: Bool = false, later: String? = nil) {
      self.key = key
      self.form = form
      self.doc = doc
      self.required = required
      self.later = later
    }
  }

  /// A list of `form`, or one of it alone.
  static func oneOrMore(_ form: Form, said: String) -> Form { .either([form, .list(form)], said: said) }

  /// `{A: b}` or `["A=b"]`.
  static let pairs = Form.either(
    [.map(.orNothing(.text(most: 65536))), .list(.text(most: 65536))], said: "a map, or a list of NAME=VALUE")
}

extension Form {
  /// What the form is, for messages: `expected …`.
  var said: String {
    switch self {
    case .text: "text"
    case .checked(let said, _, _): said
    case .word(let words): "one of \(words.joined(separator: ", "))"
    case .boolean: "true or false"
    case .whole(let range):
      range.upperBound == .max
        ? "a whole number, \(range.lowerBound) or more" : "a whole number, \(range.lowerBound) to \(range.upperBound)"
    case .decimal(let range): "a number, \(short(range.lowerBound)) to \(short(range.upperBound))"
    case .size: "a size such as 256m"
    case .duration: "a duration such as 1m30s"
    case .mode: "an octal file mode such as 0640"
    case .list: "a list"
    case .map, .object: "a map"
    case .either(_, let said): said
    case .orNothing(let form): form.said
    case .anything: "anything"
    }
  }

  /// Whether a node of this kind can be of this form at all.
  private func fits(_ node: Written) -> Bool {
    switch (self, node.content) {
    case (.anything, _), (.orNothing, .null): true
    case (.orNothing(let form), _): form.fits(node)
    case (.either(let forms, _), _): forms.contains { $0.fits(node) }
    case (.list, .list), (.map, .map), (.object, .map): true
    case (.list, _), (.map, _), (.object, _): false
    case (_, .scalar): true
    default: false
    }
  }

  /// Adds every way in which `node` is not of this form; true if there is none.
  func check(_ node: Written, _ findings: inout Findings) -> Bool {
    guard fits(node) else {
      findings.error(
        node, "expected \(said), not \(node.kind)", hint: node.isNull ? "remove the key, or give it a value" : nil)
      return false
    }
    let before = findings.errors
    switch (self, node.content) {
    case (.orNothing, .null), (.anything, _): break
    case (.orNothing(let form), _): _ = form.check(node, &findings)
    case (.either(let forms, let said), _): Self.checkEither(forms, said, node, &findings)
    case (.list(let form, let most), .list(let items)):
      if items.count > most { findings.error(node, "more than \(most) entries") }
      for item in items.prefix(most) { _ = form.check(item, &findings) }
    case (.map(let form, let most), .map(let members)):
      if members.count > most { findings.error(node, "more than \(most) entries") }
      for member in members.prefix(most) { _ = form.check(member.value, &findings) }
    case (.object(let parts), .map(let members)): Self.checkObject(parts, members, node, &findings)
    case (_, .scalar(let text)):
      if let complaint = complaint(about: text) { findings.error(node, complaint.message, hint: complaint.hint) }
    default: break
    }
    return findings.errors == before
  }

  private static func checkEither(_ forms: [Form], _ said: String, _ node: Written, _ findings: inout Findings) {
    let fitting = forms.filter { $0.fits(node) }
    if fitting.count == 1 {
      _ = fitting[0].check(node, &findings)
      return
    }
    let accepted = fitting.contains { form in
      var trial = Findings()
      return form.check(node, &trial)
    }
    if !accepted { findings.error(node, "\(node.text.map { $0.quoted } ?? node.kind) is not \(said)") }
  }

  private static func checkObject(
    _ parts: [Part], _ members: [Written.Member], _ node: Written, _ findings: inout Findings
  ) {
    for member in members {
      guard let part = parts.first(where: { $0.key == member.key }) else {
        if member.key.hasPrefix("x-") { continue }
        findings.error(
          member.keyNode, "unknown key \(member.key.quoted)",
          hint: findings.isFull
            ? nil
            : didYouMean(member.key, parts.map(\.key)) ?? "known here: \(parts.map(\.key).joined(separator: ", "))")
        continue
      }
      guard part.form.check(member.value, &findings) else { continue }
      if let later = part.later {
        findings.error(member.keyNode, "\(part.key) is not supported yet", hint: "not built yet: \(later)")
      }
    }
    for part in parts where part.required && !members.contains(where: { $0.key == part.key }) {
      findings.error(node, "\(part.key) is missing here")
    }
  }

  private func complaint(about text: String) -> (message: String, hint: String?)? {
    func no(_ hint: String? = nil) -> (message: String, hint: String?) { ("\(text.quoted) is not \(said)", hint) }
    switch self {
    case .text(let most):
      if text.unicodeScalars.contains(where: { $0.value < 0x20 && $0 != "\t" && $0 != "\n" || $0.value == 0x7F }) {
        return ("control characters are not taken here", nil)
      }
      return text.unicodeScalars.count > most ? ("the text is over \(most) characters", nil) : nil
    case .checked(_, _, let accepts): return accepts(text) ? nil : no()
    case .word(let words): return words.contains(text) ? nil : no(didYouMean(text, words))
    case .boolean: return ["true", "false"].contains(text) ? nil : no(Self.booleanHint(text))
    case .whole(let range): return Self.whole(text).map(range.contains) == true ? nil : no(Self.numberHint(text))
    case .decimal(let range): return Self.decimal(text).map(range.contains) == true ? nil : no(Self.numberHint(text))
    case .size: return Bytes(parsing: text) == nil ? no("units are b, k, m, g and t, 1024-based") : nil
    case .duration:
      if Duration(parsing: text) != nil { return nil }
      return no(Self.whole(text) == nil ? "units are d, h, m, s, ms, us and ns" : "add a unit: \(text)s or \(text)ms")
    case .mode: return Self.mode(text) == nil ? no("digits are 0 to 7") : nil
    case .list, .map, .object, .either, .orNothing, .anything: return nil
    }
  }

  private static func booleanHint(_ text: String) -> String? {
    switch text.lowercased() {
    case "yes", "on", "y", "1", "true": "write true"
    case "no", "off", "n", "0", "false": "write false"
    default: nil
    }
  }

  private static func numberHint(_ text: String) -> String? {
    if let value = Double(text), let whole = Int64(exactly: value), text.contains(where: { "eE.xX+".contains($0) }) {
      return "write \(whole)"
    }
    if text.hasPrefix("0"), text.count > 1, !text.contains(".") {
      return "numbers are decimal: write it without the leading 0"
    }
    return nil
  }

  /// A decimal whole number as YAML 1.2 writes one, without leading zeros, so that no reader takes it for octal.
  static func whole(_ text: String) -> Int64? {
    let digits = text.hasPrefix("-") ? text.dropFirst() : text[...]
    guard let first = digits.utf8.first, digits.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
      first != 0x30 || digits.utf8.count == 1
    else { return nil }
    return Int64(text)
  }

  /// `2`, `0.5`; no exponent, no `.5`, no `inf`.
  static func decimal(_ text: String) -> Double? {
    let parts = (text.hasPrefix("-") ? text.dropFirst() : text[...]).split(
      separator: ".", omittingEmptySubsequences: false)
    guard parts.count <= 2, text.utf8.count <= 40, whole(String(parts[0])) != nil, !parts[0].hasPrefix("-"),
      parts.count == 1 || !parts[1].isEmpty && parts[1].utf8.allSatisfy({ (0x30...0x39).contains($0) })
    else { return nil }
    return Double(text)
  }

  /// `0640`, `640` and `0o640`, all octal.
  static func mode(_ text: String) -> UInt32? {
    let digits = text.hasPrefix("0o") ? text.dropFirst(2) : text[...]
    guard (1...5).contains(digits.utf8.count), let value = UInt32(digits, radix: 8), value <= 0o7777,
      !digits.hasPrefix("+")
    else { return nil }
    return value
  }
}

/// A number as people write it: without `.0`.
func short(_ value: Double) -> String { Int64(exactly: value).map(String.init) ?? String(value) }
