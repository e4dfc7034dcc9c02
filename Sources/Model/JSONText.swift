/// Bounds checked while reading, before anything is allocated for what exceeds them.
package struct JSONLimits: Sendable {
  package var depth: Int
  package var keys: Int
  /// Of all lists together.
  package var elements: Int
  /// The app and control protocols' bounds (app-api.md).
  package static let frame = JSONLimits(depth: 64, keys: 10_000, elements: 100_000)
  /// For an Engine's answers, which are trusted more and can be long lists.
  package static let engine = JSONLimits(depth: 128, keys: 2_000_000, elements: 10_000_000)

  package init(depth: Int, keys: Int, elements: Int) {
    self.elements = elements
    self.depth = depth
    self.keys = keys
  }
}

/// Where and why a text is not JSON.
package struct JSONSyntaxError: Error, Equatable, CustomStringConvertible {
  package var offset: Int
  package var problem: String
  package var description: String { "not valid JSON at byte \(offset): \(problem)" }
}

extension JSONValue {
  /// Parses exactly one RFC 8259 document with nothing but white space around it.
  ///
  /// Duplicate keys, invalid UTF-8, lone surrogates, numbers beyond a Double and anything over `limits` are errors.
  package init(parsing bytes: some Collection<UInt8>, limits: JSONLimits = .frame) throws(JSONSyntaxError) {
    let parsed: Result<JSONValue, JSONSyntaxError>? = bytes.withContiguousStorageIfAvailable { Self.parse($0, limits) }
    let result = parsed ?? Array(bytes).withUnsafeBufferPointer { Self.parse($0, limits) }
    self = try result.get()
  }

  private static func parse(_ buffer: UnsafeBufferPointer<UInt8>, _ limits: JSONLimits) -> Result<
    JSONValue, JSONSyntaxError
  > {
    var scanner = JSONScanner(input: buffer, limits: limits)
    do throws(JSONSyntaxError) { return .success(try scanner.document()) } catch { return .failure(error) }
  }

  /// Appends this document as one line of UTF-8, without spaces.
  package func write(to output: inout [UInt8]) {
    switch self {
    case .null: output += "null".utf8
    case .bool(let value): output += (value ? "true" : "false").utf8
    case .integer(let value): output += String(value).utf8
    case .number(let value): output += (value.isFinite ? String(value) : "null").utf8
    case .string(let value): Self.write(value, to: &output)
    case .array(let elements):
      output.append(UInt8(ascii: "["))
      for (position, element) in elements.enumerated() {
        if position > 0 { output.append(UInt8(ascii: ",")) }
        element.write(to: &output)
      }
      output.append(UInt8(ascii: "]"))
    case .object(let object):
      output.append(UInt8(ascii: "{"))
      var first = true
      for (key, value) in object {
        if !first { output.append(UInt8(ascii: ",")) }
        first = false
        Self.write(key, to: &output)
        output.append(UInt8(ascii: ":"))
        value.write(to: &output)
      }
      output.append(UInt8(ascii: "}"))
    }
  }

  /// This document as one line.
  package var text: String {
    var output: [UInt8] = []
    write(to: &output)
    return String(decoding: output, as: UTF8.self)
  }

  /// This document over several lines, two spaces a level.
  package var prettyText: String {
    var lines = ""
    writePretty(to: &lines, indent: "")
    return lines
  }

  private func writePretty(to text: inout String, indent: String) {
    let inner = indent + "  "
    switch self {
    case .array(let elements) where !elements.isEmpty:
      text += "[\n"
      for (position, element) in elements.enumerated() {
        text += position > 0 ? ",\n\(inner)" : inner
        element.writePretty(to: &text, indent: inner)
      }
      text += "\n\(indent)]"
    case .object(let object) where !object.isEmpty:
      text += "{\n"
      var first = true
      for (key, value) in object {
        text += first ? inner : ",\n\(inner)"
        first = false
        text += JSONValue.string(key).text + ": "
        value.writePretty(to: &text, indent: inner)
      }
      text += "\n\(indent)}"
    case .null, .bool, .integer, .number, .string, .array, .object: text += self.text
    }
  }

  private static func write(_ string: String, to output: inout [UInt8]) {
    let hex = Array("0123456789abcdef".utf8)
    output.append(UInt8(ascii: "\""))
    for byte in string.utf8 {
      switch byte {
      case UInt8(ascii: "\""), UInt8(ascii: "\\"): output += [UInt8(ascii: "\\"), byte]
      case 0x0A: output += "\\n".utf8
      case 0x0D: output += "\\r".utf8
      case 0x09: output += "\\t".utf8
      case 0..<0x20, 0x7F: output += "\\u00".utf8 + [hex[Int(byte >> 4)], hex[Int(byte & 15)]]
      default: output.append(byte)
      }
    }
    output.append(UInt8(ascii: "\""))
  }
}

/// One pass over the bytes. Reads only inside `input`, which outlives it.
private struct JSONScanner {
  let input: UnsafeBufferPointer<UInt8>
  let limits: JSONLimits
  var position = 0
  var keys = 0
  var elements = 0

  init(input: UnsafeBufferPointer<UInt8>, limits: JSONLimits) {
    self.input = input
    self.limits = limits
  }

  func failure(_ problem: String) -> JSONSyntaxError { JSONSyntaxError(offset: position, problem: problem) }

  var current: UInt8? { position < input.count ? input[position] : nil }

  mutating func skipSpace() {
    while position < input.count, [0x20, 0x0A, 0x0D, 0x09].contains(input[position]) { position += 1 }
  }

  mutating func document() throws(JSONSyntaxError) -> JSONValue {
    skipSpace()
    let value = try self.value(depth: 0)
    skipSpace()
    guard position == input.count else { throw failure("something follows the document") }
    return value
  }

  mutating func value(depth: Int) throws(JSONSyntaxError) -> JSONValue {
    guard let byte = current else { throw failure("it ends too early") }
    switch byte {
    case UInt8(ascii: "{"): return try object(depth: depth + 1)
    case UInt8(ascii: "["): return try array(depth: depth + 1)
    case UInt8(ascii: "\""): return .string(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    case UInt8(ascii: "-"), UInt8(ascii: "0")...UInt8(ascii: "9"): return try number()
    default: throw failure("a value cannot start here")
    }
  }

  mutating func word(_ text: StaticString, _ value: JSONValue) throws(JSONSyntaxError) -> JSONValue {
    let length = text.utf8CodeUnitCount
    guard input.count - position >= length, (0..<length).allSatisfy({ input[position + $0] == text.utf8Start[$0] })
    else {
      throw failure("unknown word")
    }
    position += length
    return value
  }

  mutating func object(depth: Int) throws(JSONSyntaxError) -> JSONValue {
    guard depth <= limits.depth else { throw failure("nested deeper than \(limits.depth)") }
    position += 1
    var object = JSONObject()
    skipSpace()
    if current == UInt8(ascii: "}") {
      position += 1
      return .object(object)
    }
    while true {
      skipSpace()
      guard current == UInt8(ascii: "\"") else { throw failure("a key is expected") }
      keys += 1
      guard keys <= limits.keys else { throw failure("more than \(limits.keys) keys") }
      let key = try string()
      skipSpace()
      guard current == UInt8(ascii: ":") else { throw failure("':' is expected") }
      position += 1
      skipSpace()
      let value = try self.value(depth: depth)
      guard object.insertNew(key, value) else { throw failure("a key is given twice") }
      skipSpace()
      guard try more(close: UInt8(ascii: "}")) else { return .object(object) }
    }
  }

  mutating func array(depth: Int) throws(JSONSyntaxError) -> JSONValue {
    guard depth <= limits.depth else { throw failure("nested deeper than \(limits.depth)") }
    position += 1
    var elements: [JSONValue] = []
    skipSpace()
    if current == UInt8(ascii: "]") {
      position += 1
      return .array(elements)
    }
    while true {
      skipSpace()
      self.elements += 1
      guard self.elements <= limits.elements else { throw failure("more than \(limits.elements) elements") }
      elements.append(try value(depth: depth))
      skipSpace()
      guard try more(close: UInt8(ascii: "]")) else { return .array(elements) }
    }
  }

  /// After an element: true past a comma, false past the closing byte.
  mutating func more(close: UInt8) throws(JSONSyntaxError) -> Bool {
    switch current {
    case UInt8(ascii: ","): position += 1; return true
    case close: position += 1; return false
    case nil: throw failure("it ends too early")
    default: throw failure("',' or the end is expected")
    }
  }

  mutating func number() throws(JSONSyntaxError) -> JSONValue {
    let start = position
    var whole = true
    if current == UInt8(ascii: "-") { position += 1 }
    let first = current
    let integerDigits = digits()
    guard integerDigits > 0, integerDigits == 1 || first != UInt8(ascii: "0") else { throw failure("not a number") }
    if current == UInt8(ascii: ".") {
      whole = false
      position += 1
      guard digits() > 0 else { throw failure("digits are expected") }
    }
    if current == UInt8(ascii: "e") || current == UInt8(ascii: "E") {
      whole = false
      position += 1
      if current == UInt8(ascii: "+") || current == UInt8(ascii: "-") { position += 1 }
      guard digits() > 0 else { throw failure("digits are expected") }
    }
    let text = String(decoding: input[start..<position], as: UTF8.self)
    if whole, let value = Int64(text) { return .integer(value) }
    guard let value = Double(text), value.isFinite else { throw failure("a number out of range") }
    return .number(value)
  }

  mutating func digits() -> Int {
    let start = position
    while let byte = current, (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte) { position += 1 }
    return position - start
  }

  mutating func string() throws(JSONSyntaxError) -> String {
    position += 1
    let start = position
    while position < input.count {
      let byte = input[position]
      if byte == UInt8(ascii: "\"") {
        let text = try utf8(start..<position)
        position += 1
        return text
      }
      if byte == UInt8(ascii: "\\") { return try escapedString(from: start) }
      guard byte >= 0x20 else { throw failure("a control character in a string") }
      position += 1
    }
    throw failure("a string without an end")
  }

  func utf8(_ range: Range<Int>) throws(JSONSyntaxError) -> String {
    guard let text = String(validating: input[range], as: UTF8.self) else { throw failure("not UTF-8") }
    return text
  }

  mutating func escapedString(from start: Int) throws(JSONSyntaxError) -> String {
    var bytes = Array(input[start..<position])
    while let byte = current {
      position += 1
      switch byte {
      case UInt8(ascii: "\""):
        guard let text = String(validating: bytes, as: UTF8.self) else { throw failure("not UTF-8") }
        return text
      case UInt8(ascii: "\\"): bytes += String(try escape()).utf8
      case 0..<0x20: throw failure("a control character in a string")
      default: bytes.append(byte)
      }
    }
    throw failure("a string without an end")
  }

  mutating func escape() throws(JSONSyntaxError) -> Unicode.Scalar {
    guard let byte = current else { throw failure("it ends too early") }
    position += 1
    switch byte {
    case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
    case UInt8(ascii: "b"): return "\u{8}"
    case UInt8(ascii: "f"): return "\u{C}"
    case UInt8(ascii: "n"): return "\n"
    case UInt8(ascii: "r"): return "\r"
    case UInt8(ascii: "t"): return "\t"
    case UInt8(ascii: "u"):
      let unit = try hexUnit()
      if let scalar = Unicode.Scalar(unit) { return scalar }
      guard (0xD800..<0xDC00).contains(unit), current == UInt8(ascii: "\\") else { throw failure("a lone surrogate") }
      position += 1
      guard current == UInt8(ascii: "u") else { throw failure("a lone surrogate") }
      position += 1
      let low = try hexUnit()
      guard (0xDC00..<0xE000).contains(low),
        let scalar = Unicode.Scalar(0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00))
      else {
        throw failure("a lone surrogate")
      }
      return scalar
    default: throw failure("an unknown escape")
    }
  }

  mutating func hexUnit() throws(JSONSyntaxError) -> UInt32 {
    var value: UInt32 = 0
    for _ in 0..<4 {
      guard let byte = current, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
        throw failure("four hex digits are expected")
      }
      value = value << 4 | UInt32(digit)
      position += 1
    }
    return value
  }
}
