package import Model

/// Why an override cannot be taken. The texts are for the user.
package struct OverrideRefusal: Error, Sendable, Equatable {
  package var message: String
  package var hint: String?
}

/// Keys that can be set beside the file: limits, and how a run ends and begins again. What an app is, sees and reaches is its file's
/// alone, because a file is judged with its loader's rights and together with others.
private let settableKeys: Set<String> = Set((limitFields + lifecycleFields).map(\.key)).subtracting(["depends_on"])

/// Reads `KEY=VALUE` as `supervisor set` takes it: a key of a policy, and its value as a policy would write it on one line.
package func readOverride(_ text: String) throws(OverrideRefusal) -> (key: String, value: JSONValue) {
  guard let equals = text.firstIndex(of: "=") else {
    throw OverrideRefusal(message: "\(text.quoted) is not KEY=VALUE", hint: "for example mem_limit=512m")
  }
  let key = String(text[..<equals])
  let value = String(text[text.index(after: equals)...])
  try checkOverrideKey(key)
  guard !value.contains("\n"), !value.contains("\r") else {
    throw OverrideRefusal(
      message: "the value of \(key) is more than one line", hint: "write lists as [a, b] and maps as {a: b}")
  }
  var findings = Findings()
  let document = YAMLReading.read(Array("\(key): \(value)".utf8), environment: [:], findings: &findings)
  guard findings.errors == 0, let node = document?[key], document?.members?.count == 1, !node.isNull else {
    let why = findings.problems.first { $0.severity == .error }?.message
    throw OverrideRefusal(
      message: "\(value.quoted) is not a value for \(key)" + (why.map { ": \($0)" } ?? ""),
      hint: "a value is written as in a policy")
  }
  return (key, node.json)
}

/// Whether a key can be set beside the file.
package func checkOverrideKey(_ key: String) throws(OverrideRefusal) {
  guard let field = fieldTable.first(where: { $0.key == key }) else {
    if let alias = aliases.first(where: { $0.key == key }) {
      throw OverrideRefusal(message: "\(key) is another word for \(alias.canonical)", hint: "set \(alias.canonical)")
    }
    throw OverrideRefusal(message: "no policy has the key \(key.quoted)", hint: didYouMean(key, fieldTable.map(\.key)))
  }
  guard field.status == .supported else { throw OverrideRefusal(message: "\(key) is not supported yet", hint: nil) }
  guard settableKeys.contains(key) else {
    throw OverrideRefusal(
      message: "\(key) is no limit and cannot be set beside the policy file",
      hint: "change the file, and `supervisor up` it")
  }
}

/// A canonical document with some of its keys replaced; `readApplied` judges the result.
package func overridden(_ canonical: JSONValue, by overrides: [(key: String, value: JSONValue)]) -> JSONValue {
  guard case .object(var object) = canonical else { return canonical }
  for (key, value) in overrides { object[key] = value }
  return .object(object)
}

extension Written {
  /// The same without places; every scalar is text.
  var json: JSONValue {
    switch content {
    case .null: return .null
    case .scalar(let text): return .string(text)
    case .list(let items): return .array(items.map(\.json))
    case .map(let members):
      var object = JSONObject()
      for member in members { object[member.key] = member.value.json }
      return .object(object)
    }
  }
}
