package import Model

/// Why a policy's text is not edited. The text is for the user.
package struct EditRefusal: Error, Sendable, Equatable {
  package var message: String
  package var hint: String?
}

/// `bytes` with one top-level key set to a value, every other byte as it was: a value on one line is replaced where it stands, a key
/// that is not there is added at the end. `text` is the value as the user wrote it, `value` what it means.
///
/// The result is read again, and refused unless it differs from the original in this key alone.
package func edited(_ bytes: [UInt8], setting key: String, to value: JSONValue, written text: String)
  throws(EditRefusal)
  -> [UInt8]
{
  var findings = Findings()
  guard let before = asWritten(bytes, &findings),
    let members = before.members
  else { throw EditRefusal(message: "the file is not a policy that can be read", hint: nil) }
  let lines = TextLines(bytes)
  var candidates: [[UInt8]] = []
  if let member = members.first(where: { $0.key == key }) {
    if case .scalar(let old) = member.value.content, old.contains("${") || old.contains("$$") {
      throw EditRefusal(message: "\(key) takes its value from a variable, \(old.quoted)", hint: nil)
    }
    if let replaced = lines.replacing(valueAt: member.value.place, by: text) { candidates.append(replaced) }
    // It may come from `<<`: then a line of its own goes before that.
    if !lines.holds(key, at: member.keyNode.place) || candidates.isEmpty {
      candidates.append(lines.appending("\(key): \(text)"))
    }
  } else {
    candidates.append(lines.appending("\(key): \(text)"))
  }
  for candidate in candidates where isOnly(key, value, candidate, members) { return candidate }
  let isThere = members.contains { $0.key == key }
  throw EditRefusal(
    message: isThere
      ? "the value of \(key) cannot be replaced without touching more than it"
      : "\(key) cannot be added without touching more than it",
    hint: nil)
}

/// The document with its variables as they stand.
private func asWritten(_ bytes: [UInt8], _ findings: inout Findings) -> Written? {
  var interpolation = Interpolation(environment: [:], isOff: true)
  return YAMLReading.read(bytes, &interpolation, findings: &findings)
}

/// Whether `bytes` is a document with the same members but `key`, which is `value`.
private func isOnly(_ key: String, _ value: JSONValue, _ bytes: [UInt8], _ before: [Written.Member]) -> Bool {
  var findings = Findings()
  guard let after = asWritten(bytes, &findings)?.members,
    findings.errors == 0
  else { return false }
  func others(_ members: [Written.Member]) -> [(String, JSONValue)] {
    members.filter { $0.key != key }.map { ($0.key, $0.value.json) }.sorted { $0.0 < $1.0 }
  }
  let left = others(before)
  let right = others(after)
  return left.count == right.count && zip(left, right).allSatisfy { $0.0 == $1.0 && $0.1 == $1.1 }
    && after.filter { $0.key == key }.map(\.value.json) == [value]
}

/// A text as lines with their own ends.
private struct TextLines {
  private var lines: [String]
  private let end: String

  init(_ bytes: [UInt8]) {
    let text = String(decoding: bytes, as: UTF8.self)
    var lines: [String] = []
    var line = String.UnicodeScalarView()
    for scalar in text.unicodeScalars {
      line.append(scalar)
      if scalar == "\n" {
        lines.append(String(line))
        line = String.UnicodeScalarView()
      }
    }
    if !line.isEmpty { lines.append(String(line)) }
    self.lines = lines
    end = lines.first?.unicodeScalars.suffix(2).elementsEqual("\r\n".unicodeScalars) == true ? "\r\n" : "\n"
  }

  private var bytes: [UInt8] { lines.flatMap { Array($0.utf8) } }

  /// Whether the key stands at the beginning of this line, quoted or not.
  func holds(_ key: String, at place: Place) -> Bool {
    guard lines.indices.contains(place.line - 1) else { return false }
    let line = lines[place.line - 1]
    return ["\(key)", "\"\(key)\"", "'\(key)'"].contains { line.hasPrefix($0) }
  }

  /// The value that begins there and ends on the same line replaced; nil where it does not end there.
  func replacing(valueAt place: Place, by text: String) -> [UInt8]? {
    guard lines.indices.contains(place.line - 1), place.column > 0 else { return nil }
    let scalars = Array(lines[place.line - 1].unicodeScalars)
    // A mark that the file begins with is no column.
    let start = place.column - 1 + (place.line == 1 && scalars.first == "\u{FEFF}" ? 1 : 0)
    guard start < scalars.count, let stop = Self.end(of: scalars, from: start) else { return nil }
    var copy = self
    var line = String.UnicodeScalarView(scalars[..<start])
    line.append(contentsOf: text.unicodeScalars)
    line.append(contentsOf: scalars[stop...])
    copy.lines[place.line - 1] = String(line)
    return copy.bytes
  }

  func appending(_ line: String) -> [UInt8] {
    var copy = self
    if let last = copy.lines.last, !last.unicodeScalars.contains("\n") { copy.lines[copy.lines.count - 1] = last + end }
    copy.lines.append(line + end)
    return copy.bytes
  }

  /// One past the last character of the value: a quoted text to its quote, a list or map in brackets to its bracket, else to a
  /// comment or the line's end.
  private static func end(of line: [Unicode.Scalar], from start: Int) -> Int? {
    switch line[start] {
    case "\"", "'": return endOfQuote(line, start)
    case "[", "{": return endOfBrackets(line, start)
    case "|", ">", "&", "!", "\n", "\r", "#": return nil
    default: break
    }
    var stop = start
    while stop < line.count, line[stop] != "\n", line[stop] != "\r" {
      if line[stop] == "#", stop > start, line[stop - 1] == " " || line[stop - 1] == "\t" { break }
      stop += 1
    }
    while stop > start, line[stop - 1] == " " || line[stop - 1] == "\t" { stop -= 1 }
    return stop
  }

  private static func endOfQuote(_ line: [Unicode.Scalar], _ start: Int) -> Int? {
    let quote = line[start]
    var index = start + 1
    while index < line.count {
      if line[index] == "\\", quote == "\"" {
        index += 2
        continue
      }
      if line[index] == quote {
        guard quote == "'", index + 1 < line.count, line[index + 1] == "'" else { return index + 1 }
        index += 1
      }
      index += 1
    }
    return nil
  }

  private static func endOfBrackets(_ line: [Unicode.Scalar], _ start: Int) -> Int? {
    var depth = 0
    var index = start
    while index < line.count {
      switch line[index] {
      case "[", "{": depth += 1
      case "]", "}":
        depth -= 1
        if depth == 0 { return index + 1 }
      case "\"", "'":
        guard let after = endOfQuote(line, index) else { return nil }
        index = after
        continue
      case "#" where line[index - 1] == " ": return nil
      default: break
      }
      index += 1
    }
    return nil
  }
}
