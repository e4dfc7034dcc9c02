/// Replaces `${VAR}`, `${VAR:-x}`, `${VAR-x}`, `${VAR:?err}`, `${VAR?err}`, `${VAR:+x}`, `${VAR+x}` and `$$` in a file's values.
///
/// The result of a whole file is bounded, whatever the variables hold.
struct Interpolation: Sendable {
  /// What one file's replaced values may add up to, in bytes.
  static let mostBytes = 1 << 20
  /// How deep `${A:-${B:-…}}` may go.
  static let deepest = 8

  struct Failure: Error {
    var message: String
    var hint: String?
  }

  let environment: [String: String]
  /// As Compose does it: `$VAR` counts as `${VAR}`, and what is not set is empty.
  let isLenient: Bool
  /// Names that were replaced, and names that were not set and had no default; kept where lenient.
  private(set) var replacedNames: Set<String> = []
  private(set) var unsetNames: Set<String> = []
  private var written = 0

  /// Nothing is replaced: the text as it stands.
  let isOff: Bool

  init(environment: [String: String], isLenient: Bool = false, isOff: Bool = false) {
    self.environment = environment
    self.isLenient = isLenient
    self.isOff = isOff
  }

  /// `text` with its variables replaced; unchanged and free of charge if it holds no `$`.
  mutating func replace(_ text: String) throws(Failure) -> String {
    guard !isOff, text.utf8.contains(UInt8(ascii: "$")) else { return text }
    let result = try replaced(Array(text.utf8)[...], depth: 0)
    return String(decoding: result, as: UTF8.self)
  }

  private mutating func replaced(_ text: ArraySlice<UInt8>, depth: Int) throws(Failure) -> [UInt8] {
    guard depth <= Self.deepest else { throw Failure(message: "variables are nested deeper than \(Self.deepest)") }
    var output: [UInt8] = []
    var rest = text
    while let byte = rest.popFirst() {
      guard byte == UInt8(ascii: "$") else {
        output.append(byte)
        continue
      }
      switch rest.first {
      case UInt8(ascii: "$"):
        rest.removeFirst()
        output.append(byte)
      case UInt8(ascii: "{"):
        rest.removeFirst()
        let value = try variable(takeBraces(&rest), depth: depth)
        written += value.count
        guard written <= Self.mostBytes else { throw Self.tooMuch }
        output += value
      case let next? where isNameStart(next):
        let nameBytes = rest.prefix { isNamePart($0) }
        let name = String(decoding: nameBytes, as: UTF8.self)
        if isLenient {
          rest = rest[nameBytes.endIndex...]
          let value = try variable(nameBytes, depth: depth)
          written += value.count
          guard written <= Self.mostBytes else { throw Self.tooMuch }
          output += value
          continue
        }
        throw Failure(
          message: "'$\(name)' is neither a variable nor plain text",
          hint: "write ${\(name)} for the variable's value, or $$\(name) for the text '$\(name)'")
      default: output.append(byte)
      }
    }
    return output
  }

  private static var tooMuch: Failure {
    Failure(message: "the replaced variables of this file are over \(mostBytes >> 20) MiB")
  }

  /// Removes everything up to the brace that closes the one already taken.
  private func takeBraces(_ rest: inout ArraySlice<UInt8>) throws(Failure) -> ArraySlice<UInt8> {
    var open = 1
    var index = rest.startIndex
    while index < rest.endIndex {
      if rest[index] == UInt8(ascii: "{"), index > rest.startIndex, rest[index - 1] == UInt8(ascii: "$") { open += 1 }
      if rest[index] == UInt8(ascii: "}") { open -= 1 }
      if open == 0 {
        defer { rest = rest[(index + 1)...] }
        return rest[..<index]
      }
      index += 1
    }
    throw Failure(message: "'${' has no '}'", hint: "write $$ for a plain '$'")
  }

  private mutating func variable(_ inside: ArraySlice<UInt8>, depth: Int) throws(Failure) -> [UInt8] {
    let nameBytes = inside.prefix { isNamePart($0) }
    let name = String(decoding: nameBytes, as: UTF8.self)
    guard let first = nameBytes.first, isNameStart(first) else {
      throw Failure(
        message: "'${\(String(decoding: inside.prefix(40), as: UTF8.self))}' names no variable",
        hint: "write $$ for a plain '$'")
    }
    var rest = inside[nameBytes.endIndex...]
    let value = environment[name]
    if value != nil, isLenient { replacedNames.insert(name) }
    guard let first = rest.popFirst() else {
      guard let value else {
        if isLenient {
          unsetNames.insert(name)
          return []
        }
        throw Failure(message: "the variable \(name) is not set", hint: "set it, or write ${\(name):-DEFAULT}")
      }
      return Array(value.utf8)
    }
    var emptyIsUnset = false
    var operation = first
    if first == UInt8(ascii: ":"), let second = rest.popFirst() {
      emptyIsUnset = true
      operation = second
    }
    let present = value.flatMap { emptyIsUnset && $0.isEmpty ? nil : $0 }
    switch operation {
    case UInt8(ascii: "-"):
      if let present { return Array(present.utf8) }
      return try replaced(rest, depth: depth + 1)
    case UInt8(ascii: "+"): return present == nil ? [] : try replaced(rest, depth: depth + 1)
    case UInt8(ascii: "?"):
      if let present { return Array(present.utf8) }
      let said = String(decoding: try replaced(rest, depth: depth + 1), as: UTF8.self)
      throw Failure(
        message: "the variable \(name) is not set\(said.isEmpty ? "" : ": \(said)")",
        hint: "set it before loading the file")
    default:
      throw Failure(
        message: "'${\(String(decoding: inside.prefix(40), as: UTF8.self))}' is not a form that is known",
        hint: "write ${\(name)}, ${\(name):-DEFAULT} or ${\(name):?MESSAGE}")
    }
  }

  private func isNameStart(_ byte: UInt8) -> Bool { isNamePart(byte) && !(0x30...0x39).contains(byte) }

  private func isNamePart(_ byte: UInt8) -> Bool {
    switch byte {
    case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "_"), 0x30...0x39:
      true
    default: false
    }
  }
}
