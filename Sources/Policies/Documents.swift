package import Model

/// Every supported field of `policy`, presets included, in the table's order: what `policy show` prints.
package func effectiveDocument(_ policy: Policy) -> JSONValue {
  var object = JSONObject()
  for field in fieldTable where field.status == .supported { object[field.key] = field.show(policy) }
  return .object(object)
}

/// 32 hex digits that are equal for equal canonical documents, wherever their file lies (FNV-1a, 128 bits).
///
/// An identity of content, not a security boundary: whoever can write policies can make two that collide.
package func policyHash(_ canonical: JSONValue) -> String {
  var document = canonical
  if case .object(var object) = canonical {
    object[folderKey] = nil
    document = .object(object)
  }
  var bytes: [UInt8] = []
  document.write(to: &bytes)
  let prime = UInt128(0x0000_0000_0100_0000) << 64 | 0x13B
  var hash = UInt128(0x6C62_272E_07BB_0142) << 64 | 0x62B8_2175_6295_C58D
  for byte in bytes { hash = (hash ^ UInt128(byte)) &* prime }
  let digits = String(hash, radix: 16)
  return String(repeating: "0", count: 32 - digits.count) + digits
}

/// `document` as YAML that `read` takes back: every text quoted where it could be taken for something else, `$` doubled.
package func yamlText(_ document: JSONValue) -> String {
  var text = ""
  writeYAML(document, indent: 0, to: &text)
  return text
}

private func writeYAML(_ value: JSONValue, indent: Int, to text: inout String) {
  let margin = String(repeating: " ", count: indent)
  switch value {
  case .object(let object) where !object.isEmpty:
    for (key, member) in object {
      text += "\(margin)\(yamlScalar(key, isKey: true)):"
      writeMember(member, indent: indent + 2, to: &text)
    }
  case .array(let items) where !items.isEmpty:
    for item in items {
      text += "\(margin)-"
      if case .object(let object) = item, !object.isEmpty {
        // The first key stands beside the dash, the others below it.
        var block = ""
        writeYAML(item, indent: indent + 2, to: &block)
        text += " " + block.dropFirst(indent + 2)
      } else {
        writeMember(item, indent: indent + 2, to: &text)
      }
    }
  case .null, .bool, .integer, .number, .string, .array, .object: text += "\(margin)\(flow(value))\n"
  }
}

private func writeMember(_ value: JSONValue, indent: Int, to text: inout String) {
  switch value {
  case .object(let object) where !object.isEmpty:
    text += "\n"
    writeYAML(value, indent: indent, to: &text)
  case .array(let items) where !items.isEmpty:
    let isShort = items.allSatisfy { $0.objectValue == nil && $0.arrayValue == nil }
    let line = isShort ? "[\(items.map(flow).joined(separator: ", "))]" : ""
    if isShort, line.count <= 80 {
      text += " \(line)\n"
    } else {
      text += "\n"
      writeYAML(value, indent: indent, to: &text)
    }
  case .null, .bool, .integer, .number, .string, .array, .object: text += " \(flow(value))\n"
  }
}

/// A value on one line; empty lists and maps are the only ones that get here.
private func flow(_ value: JSONValue) -> String {
  switch value {
  case .string(let text): yamlScalar(text, isKey: false)
  case .array: "[]"
  case .object: "{}"
  case .null, .bool, .integer, .number: value.text
  }
}

/// Plain where no reader could take it for anything but this text, else in double quotes as JSON writes it.
private func yamlScalar(_ text: String, isKey: Bool) -> String {
  let text = isKey ? text : String(text.flatMap { $0 == "$" ? "$$" : String($0) })
  let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
  let startsPlain = text.utf8.first.map { isLetter($0) || $0 == UInt8(ascii: "/") } == true
  let isPlain = text.utf8.allSatisfy { isLetter($0) || (0x30...0x39).contains($0) || "_-./+".utf8.contains($0) }
  if startsPlain, isPlain, !words.contains(text.lowercased()) { return text }
  // A size such as 256m cannot be taken for a number.
  if let last = text.utf8.last, isLetter(last), isPlain, Bytes(parsing: text) != nil || Duration(parsing: text) != nil {
    return text
  }
  return quotedYAML(text)
}

private func isLetter(_ byte: UInt8) -> Bool { (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) }

private func quotedYAML(_ text: String) -> String {
  var output = "\""
  for scalar in text.unicodeScalars {
    switch scalar {
    case "\"": output += "\\\""
    case "\\": output += "\\\\"
    case "\n": output += "\\n"
    case "\t": output += "\\t"
    default:
      if scalar.isShowable || scalar == " " {
        output.unicodeScalars.append(scalar)
      } else {
        let digits = String(scalar.value, radix: 16)
        output += "\\U" + String(repeating: "0", count: 8 - digits.count) + digits
      }
    }
  }
  return output + "\""
}
