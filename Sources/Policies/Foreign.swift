internal import Model

/// A YAML document of another format, read with a policy's bounds and checks: places kept, scalars as text.
package struct ForeignDocument: Sendable {
  /// Nil if the bytes are not one document.
  package var root: Written?
  /// In the order of the file.
  package var problems: [Problem]
  /// Variables whose value stands in the document now.
  package var replaced: [String]
  /// Variables that were not set and had no default: empty, as Compose has it.
  package var unset: [String]
}

/// Reads a document whose variables are Compose's: `$VAR` and `${VAR}`, empty where they are not set.
package func readForeign(_ bytes: [UInt8], environment: [String: String]) -> ForeignDocument {
  var findings = Findings()
  var interpolation = Interpolation(environment: environment, isLenient: true)
  let root = YAMLReading.read(bytes, &interpolation, findings: &findings)
  let text = String(decoding: bytes.prefix(FileLimits.bytes), as: UTF8.self)
  return ForeignDocument(
    root: root, problems: findings.listed(in: text), replaced: interpolation.replacedNames.sorted(),
    unset: interpolation.unsetNames.sorted())
}

/// Judges a policy that was put together from another document; problems carry the places its values came from. Nothing is
/// interpolated any more. Env files count as readable and empty.
package func check(_ document: Written, _ source: PolicySource, rules: HostRules = .unknown) -> Reading {
  guard var draft = Draft(source: source, rules: rules, findings: Findings()) else {
    return Reading(
      path: source.path, policy: nil, canonical: nil,
      problems: [Problem("the folder \(source.folder.quoted) is not absolute")])
  }
  draft.read(document)
  return draft.finished(path: source.path, text: String(decoding: source.bytes.prefix(FileLimits.bytes), as: UTF8.self))
}

/// The files an `env_file` value names, as written.
package func envFilePaths(_ node: Written) -> [String] { envFiles(node).map(\.path) }

/// The assignments of an env file, in order; nil if a line is none.
package func assignments(in bytes: [UInt8]) -> [(String, String)]? {
  guard let text = String(validating: bytes, as: UTF8.self) else { return nil }
  var pairs: [(String, String)] = []
  for line in text.split(whereSeparator: \.isNewline) {
    switch assignment(line) {
    case .nothing: break
    case .wrong: return nil
    case .value(let name, let value): pairs.append((name, value))
    }
  }
  return pairs
}
