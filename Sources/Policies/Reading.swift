package import Model

/// A policy file as whoever loads it has read it, with its own rights.
package struct PolicySource: Sendable {
  /// For messages only.
  package var path: String
  /// Absolute: what relative paths in the file are relative to.
  package var folder: String
  package var bytes: [UInt8]
  /// For `${VAR}` and names without a value.
  package var environment: [String: String]
  /// Contents by path as written; one that is missing could not be read.
  package var envFiles: [String: [UInt8]]
  /// Made into a valid name if it is none.
  package var defaultStack: String
  /// Who loads it, if neither root nor the daemon's own user.
  package var loader: Policy.Loader?

  package init(
    path: String, folder: String, bytes: [UInt8], environment: [String: String] = [:],
    envFiles: [String: [UInt8]] = [:],
    defaultStack: String = "default"
  ) {
    self.path = path
    self.folder = folder
    self.bytes = bytes
    self.environment = environment
    self.envFiles = envFiles
    self.defaultStack = defaultStack
  }
}

/// What came of one file.
package struct Reading: Sendable, Equatable {
  /// For messages only.
  package var path: String
  /// Effective; nil if there are errors.
  package var policy: Policy?
  /// What the file set, normalised, variables and env files resolved: the applied copy. Nil if there are errors.
  package var canonical: JSONValue?
  /// In the order of the file; errors and warnings.
  package var problems: [Problem]

  package var errors: [Problem] { problems.filter { $0.severity == .error } }

  /// All problems as text, compiler style; empty if there are none.
  package func rendered(file: String? = nil) -> String { problems.map { $0.rendered(file: file ?? path) }.joined() }
}

/// Reads one policy file. Never fails otherwise than through `problems`, whatever the bytes.
package func read(_ source: PolicySource, rules: HostRules = .unknown) -> Reading {
  let text = String(decoding: source.bytes.prefix(FileLimits.bytes), as: UTF8.self)
  var findings = Findings()
  let document = YAMLReading.read(source.bytes, environment: source.environment, findings: &findings)
  guard let document else {
    if findings.errors == 0 {
      findings.error("the file is empty", hint: "a policy needs at least id, and image or entry")
    }
    return Reading(path: source.path, policy: nil, canonical: nil, problems: findings.listed(in: text))
  }
  guard var draft = Draft(source: source, rules: rules, findings: findings) else {
    return Reading(
      path: source.path, policy: nil, canonical: nil,
      problems: [Problem("the folder \(source.folder.quoted) is not absolute")])
  }
  draft.read(document)
  return draft.finished(path: source.path, text: text)
}

/// Reads an applied copy back: a document that `read` made. Nothing is interpolated, and what the daemon's rules have
/// come to forbid since is an error again.
package func readApplied(_ canonical: JSONValue, rules: HostRules = .unknown) -> Reading {
  let folder = canonical[folderKey]?.stringValue ?? "/"
  var source = PolicySource(path: "applied copy", folder: folder, bytes: [])
  if let loader = canonical[loaderKey] {
    source.loader = loader.stringValue.flatMap { Policy.Loader($0) }
    guard source.loader != nil else {
      return Reading(
        path: source.path, policy: nil, canonical: nil,
        problems: [Problem("the applied copy does not say who loaded it")])
    }
  }
  guard var draft = Draft(source: source, rules: rules, findings: Findings()) else {
    return Reading(
      path: source.path, policy: nil, canonical: nil, problems: [Problem("the applied copy names no folder")])
  }
  draft.isStored = true
  draft.read(Written(canonical))
  return draft.finished(path: source.path, text: "")
}

/// The env files a document names, as written; empty if the document cannot be read.
package func envFilesNamed(in bytes: [UInt8], environment: [String: String] = [:]) -> [(path: String, required: Bool)] {
  var findings = Findings()
  guard let node = YAMLReading.read(bytes, environment: environment, findings: &findings)?["env_file"] else {
    return []
  }
  return envFiles(node).map { ($0.path, $0.required) }
}

/// Where the canonical document keeps the policy's folder; `x-` keys are nobody else's.
let folderKey = "x-folder"
/// And who loaded it. A file's own key of this name is not read.
let loaderKey = "x-loader"

extension Draft {
  init?(source: PolicySource, rules: HostRules, findings: Findings) {
    guard source.folder.hasPrefix("/"), let unnamed = AppID("unnamed") else { return nil }
    policy = Policy(
      id: unnamed, stack: stackName(source.defaultStack), runtime: .native,
      baseFolder: absolutePath(".", in: source.folder))
    policy.loader = source.loader
    environment = source.environment
    envFiles = source.envFiles
    self.rules = rules
    self.findings = findings
  }

  /// Reads every key of a document, fields in the order of the table.
  mutating func read(_ document: Written) {
    guard let members = document.members else {
      findings.error(document, "a policy is a map of keys, not \(document.kind)")
      return
    }
    refuseUnknown(members)
    readManifest(document)
    for field in fieldTable {
      if let member = members.first(where: { $0.key == field.key }) { read(field, member) }
      for alias in aliases where alias.canonical == field.key {
        if let member = members.first(where: { $0.key == alias.key }) { read(alias, member, field) }
      }
    }
    if set.contains("id") == false, document["id"] == nil {
      findings.error("id is missing", hint: "every policy needs one, such as id: notes")
    }
    settle()
  }

  private mutating func refuseUnknown(_ members: [Written.Member]) {
    let names = knownKeys
    let known = Set(names)
    for member in members where !member.key.hasPrefix("x-") && !known.contains(member.key) {
      if let reason = refusedKeys[member.key] {
        findings.error(member.keyNode, "\(member.key) is not taken", hint: reason)
      } else {
        findings.error(
          member.keyNode, "unknown key \(member.key.quoted)",
          hint: findings.isFull ? nil : didYouMean(member.key, names) ?? "keys that start with x- are ignored")
      }
    }
  }

  private mutating func read(_ field: Field, _ member: Written.Member) {
    places[field.key] = member.value.isNull ? member.keyNode : member.value
    if case .notYet(let feature, let harmless) = field.status {
      guard field.form.check(member.value, &findings) else { return }
      let isEmpty = member.value.list?.isEmpty == true || member.value.members?.isEmpty == true
      if isEmpty || member.value.text.map(harmless.contains) == true { return }
      findings.error(
        member.keyNode, "\(field.key) is not supported yet",
        hint: "not built yet: \(feature)")
      return
    }
    guard field.form.check(member.value, &findings) else { return }
    field.read(member.value, &self)
    set.insert(field.key)
  }

  private mutating func read(_ alias: Alias, _ member: Written.Member, _ field: Field) {
    guard alias.form.check(member.value, &findings), let value = alias.translate(member.value, &self) else { return }
    guard set.contains(field.key) else {
      guard field.form.check(value, &findings) else { return }
      places[field.key] = value
      field.read(value, &self)
      set.insert(field.key)
      return
    }
    // Both are set: the other value is read into a copy, and only compared.
    var other = self
    field.read(value, &other)
    if field.show(other.policy) != field.show(policy) {
      findings.error(
        member.keyNode, "\(alias.key) and \(field.key) are the same thing and differ", hint: "keep \(field.key)")
    }
  }

  mutating func finished(path: String, text: String) -> Reading {
    let canonical = self.canonical()
    fillPreset()
    let problems = findings.listed(in: text)
    let isGood = findings.errors == 0
    return Reading(path: path, policy: isGood ? policy : nil, canonical: isGood ? canonical : nil, problems: problems)
  }

  /// What the file set, in the table's order, before presets are filled in.
  private func canonical() -> JSONValue {
    var object = JSONObject()
    let kept = set.union(["schema", "id", "stack", "runtime"])
    for field in fieldTable where kept.contains(field.key) { object[field.key] = field.show(policy) }
    if !set.isDisjoint(with: ["env_file"]), !policy.environment.isEmpty {
      object["environment"] = showField("environment", policy)
    }
    if isSeedCompatible { object["compat"] = "seed" }
    object[folderKey] = .string(policy.baseFolder)
    object[loaderKey] = policy.loader.map { .string($0.text) }
    return .object(object)
  }
}

/// One field of a policy in canonical form.
func showField(_ key: String, _ policy: Policy) -> JSONValue? { fieldTable.first { $0.key == key }?.show(policy) }

/// `folder` as a stack's name: lower case, other characters as `-`; `default` if nothing is left.
package func stackName(_ folder: String) -> String {
  let letters = folder.lowercased().utf8.prefix(AppID.maximumLength).map { byte in
    (0x61...0x7A).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x5F ? byte : UInt8(ascii: "-")
  }
  let name = String(decoding: letters.drop { $0 == UInt8(ascii: "-") || $0 == UInt8(ascii: "_") }, as: UTF8.self)
  return AppID(name)?.name ?? "default"
}
