internal import Model

/// Something wrong, or doubtful, in a file: where it is, what it is, and what to write instead.
package struct Problem: Sendable, Equatable {
  package enum Severity: String, Sendable { case error, warning }
  package var severity: Severity
  /// Counted from 1; 0 where a problem belongs to the file as a whole.
  package var line: Int
  /// In characters, counted from 1; 0 where a problem belongs to the file as a whole.
  package var column: Int
  /// The key it is about, as `volumes[0].target`; empty for the file as a whole.
  package var path: String
  package var message: String
  package var hint: String?
  /// The source line, without control characters and at most `longestExcerpt` long.
  package var excerpt: String

  package static let longestExcerpt = 160

  package init(
    _ message: String, hint: String? = nil, severity: Severity = .error, line: Int = 0, column: Int = 0,
    path: String = "", excerpt: String = ""
  ) {
    self.severity = severity
    self.line = line
    self.column = column
    self.path = path
    self.message = message
    self.hint = hint
    self.excerpt = excerpt
  }

  /// The problem as compilers print one: `file:line:column: error: …`, the line, a caret, the hint.
  package func rendered(file: String) -> String {
    let place = line > 0 ? "\(file):\(line):\(column)" : file
    var text = "\(place): \(severity.rawValue): \(message)\n"
    if !excerpt.isEmpty {
      text += "  \(excerpt)\n"
      if column > 0, column <= excerpt.count + 1 { text += "  \(String(repeating: " ", count: column - 1))^\n" }
    }
    if let hint { text += "  hint: \(hint)\n" }
    return text
  }
}

/// A position in a source text, both counted from 1.
package struct Place: Sendable, Equatable {
  package var line: Int
  package var column: Int
}

/// The problems found so far in one file.
struct Findings: Sendable {
  /// More than this are counted, not listed.
  static let most = 100

  private(set) var problems: [Problem] = []
  private var unlisted = 0
  private(set) var errors = 0
  /// Whether further problems are only counted, so that nobody looks for hints in vain.
  var isFull: Bool { problems.count >= Self.most }

  mutating func error(_ node: Written, _ message: String, hint: String? = nil) {
    add(Problem(message, hint: hint, line: node.place.line, column: node.place.column, path: node.path))
  }

  mutating func warning(_ node: Written, _ message: String, hint: String? = nil) {
    add(
      Problem(
        message, hint: hint, severity: .warning, line: node.place.line, column: node.place.column, path: node.path))
  }

  /// One that belongs to the file as a whole.
  mutating func error(_ message: String, hint: String? = nil) { add(Problem(message, hint: hint)) }

  mutating func add(_ problem: Problem) {
    if problem.severity == .error { errors += 1 }
    if problems.count < Self.most { problems.append(problem) } else { unlisted += 1 }
  }

  /// The problems in the order of the file, each once, with its source line.
  func listed(in text: String) -> [Problem] {
    let lines = Self.excerpts(of: Set(problems.map(\.line)), in: text)
    var result: [Problem] = []
    for var problem in problems {
      problem.excerpt = lines[problem.line] ?? ""
      if !result.contains(problem) { result.append(problem) }
    }
    let order = result.indices.sorted {
      (result[$0].line, result[$0].column, $0) < (result[$1].line, result[$1].column, $1)
    }
    result = order.map { result[$0] }
    if unlisted > 0 { result.append(Problem("\(unlisted) more problems are not listed")) }
    return result
  }

  /// The lines of `text` with these numbers, found without splitting the rest.
  private static func excerpts(of numbers: Set<Int>, in text: String) -> [Int: String] {
    guard let last = numbers.max() else { return [:] }
    var lines: [Int: String] = [:]
    for (number, line) in Lines(of: text) {
      if numbers.contains(number) { lines[number] = excerpt(line.utf8) }
      if number >= last { break }
    }
    return lines
  }

  private static func excerpt(_ line: Substring.UTF8View) -> String {
    // A code point is at most four bytes: what is cut here is never shown.
    let start = String(decoding: line.prefix(Problem.longestExcerpt * 4), as: UTF8.self)
    var text = String.UnicodeScalarView()
    for scalar in start.unicodeScalars.prefix(Problem.longestExcerpt) where scalar != "\r" {
      text.append(scalar.isShowable ? scalar : " ")
    }
    return String(text)
  }
}

/// The lines of a text with their numbers from 1, one after the other: a file of nothing but line ends is no array.
struct Lines: Sequence, IteratorProtocol {
  private var rest: Substring?
  private var number = 0

  init(of text: String) { rest = text[...] }

  mutating func next() -> (number: Int, line: Substring)? {
    guard let text = rest else { return nil }
    number += 1
    let end = text.utf8.firstIndex(of: UInt8(ascii: "\n"))
    rest = end.map { text[text.utf8.index(after: $0)...] }
    return (number, text[..<(end ?? text.endIndex)])
  }
}

extension Unicode.Scalar {
  /// False for what can move a terminal's cursor, reorder the line or hide in it.
  package var isShowable: Bool {
    switch properties.generalCategory {
    case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned: false
    default: true
    }
  }
}

extension String {
  /// This text between quotes for a message: control characters replaced, at most 60 characters.
  package var quoted: String {
    var text = String.UnicodeScalarView()
    for scalar in unicodeScalars.prefix(60) { text.append(scalar.isShowable ? scalar : "?") }
    return "'\(String(text))\(unicodeScalars.count > 60 ? "…" : "")'"
  }
}
