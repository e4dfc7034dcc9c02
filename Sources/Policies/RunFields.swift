internal import Model

/// Under what conditions an app runs.
let runFields: [Field] = [
  Field(
    "env_file", "Files of NAME=VALUE lines, read by whoever loads the policy", envFileForm, read: readEnvFiles,
    show: { _ in nil }),
  Field(
    "environment", "The app's environment", environmentForm, read: readEnvironment,
    show: { policy in
      .map(
        policy.environment.map { entry in
          (key: entry.name, value: value(of: entry))
        })
    }),
  Field(
    "working_dir", "Where the program starts", .target,
    read: { $1.policy.workingDirectory = $0.text.map { absolutePath($0, in: "/") } },
    show: { $0.workingDirectory.map { .string($0) } }),
  Field(
    "user", "auto (ids of the app's own), image, or UID[:GID]",
    .checked(said: "auto, image or numbers UID[:GID]", pattern: "^(auto|image|[0-9]+(:[0-9]+)?)$") { user($0) != nil },
    .recreate,
    read: { $1.policy.user = user($0.text ?? "") ?? .auto }, show: { .string(text(of: $0.user)) }),
  Field(
    "sandbox", "minimal, standard or privileged", .word(["minimal", "standard", "privileged"]), .recreate,
    read: { $1.policy.preset = $0.text.flatMap { Policy.Preset(rawValue: $0) } ?? .standard },
    show: { .string($0.preset.rawValue) }),
  Field(
    "enforcement", "strict refuses to start where a required limit or layer is missing; degrade starts and says so",
    .word(["strict", "degrade"]), .inPlace,
    read: { $1.policy.enforcement = $0.text.flatMap { Policy.Enforcement(rawValue: $0) } ?? .strict },
    show: { .string($0.enforcement.rawValue) }),
  Field(
    "stdin_open", "Its standard input can be written to, by attach", .boolean,
    read: { $1.policy.opensInput = $0.text == "true" }, show: { $0.opensInput ? true : nil }),
  Field(
    "tty", "Its standard streams are a terminal", .boolean,
    read: { $1.policy.terminal = $0.text == "true" }, show: { $0.terminal ? true : nil }),
  Field("logging", "How much of the app's output is kept", loggingForm, read: readLogging, show: showLogging),
  Field(
    "labels", "Free notes on the app", .pairs,
    read: { node, draft in
      for entry in readPairs(node, taking: false, &draft) {
        if entry.name.hasPrefix("io.appsupervisor.") {
          draft.findings.error(
            node, "labels below io.appsupervisor. are ours", hint: "choose another prefix than \(entry.name.quoted) has"
          )
        }
        draft.policy.labels[entry.name] = entry.value
      }
    }, show: { .map($0.labels.map { ($0.key, .string($0.value)) }) }),
  Field(
    "profiles", "The app is started only where one of these is chosen", .list(.objectName), .inPlace,
    read: { $1.policy.profiles = $0.texts }, show: { .strings($0.profiles) }),
]

private func value(of entry: Policy.EnvironmentEntry) -> JSONValue {
  entry.secret.map { .object(["secret": .string($0)]) } ?? .string(entry.value)
}

private let environmentForm = Form.either(
  [
    .map(
      .orNothing(
        .either(
          [
            .text(most: 131_072),
            .object([
              .init("secret", .objectName, "A secret's name, whose content is the value", required: true)
            ]),
          ], said: "text"))),
    .list(.text(most: 131_072)),
  ], said: "a map, or a list of NAME=VALUE")

private let envFileForm = Form.either(
  [
    .path,
    .list(
      .either(
        [
          .path,
          .object([
            .init("path", .path, "Relative to the policy file", required: true),
            .init("required", .boolean, "false: a missing file is fine"),
          ]),
        ], said: "a path, or {path, required}")),
  ], said: "a path, or a list")

/// The files an `env_file` value names, as written.
func envFiles(_ node: Written) -> [(node: Written, path: String, required: Bool)] {
  node.items.compactMap { item in
    guard let path = item.text ?? item["path"]?.text else { return nil }
    return (item, path, item["required"]?.text != "false")
  }
}

/// Of one env file.
private let mostEnvironmentLines = 4096

@Sendable private func readEnvFiles(_ node: Written, _ draft: inout Draft) {
  for (item, path, required) in envFiles(node) {
    guard let bytes = draft.envFiles[path] else {
      if required {
        draft.findings.error(item, "there is no file \(path.quoted) that can be read", hint: "or say required: false")
      }
      continue
    }
    guard bytes.count <= FileLimits.bytes, let text = String(validating: bytes, as: UTF8.self) else {
      draft.findings.error(item, "\(path.quoted) is not UTF-8 text of at most 1 MiB")
      continue
    }
    let lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
    guard lines.count <= mostEnvironmentLines else {
      draft.findings.error(item, "\(path.quoted) has more than \(mostEnvironmentLines) lines")
      continue
    }
    var number = 0
    for line in lines {
      number += 1
      switch assignment(line) {
      case .nothing: break
      case .wrong: draft.findings.error(item, "line \(number) of \(path.quoted) is not NAME=VALUE")
      case .value(let name, let value): setEnvironment(name, value, &draft)
      }
    }
  }
}

enum Assignment {
  case nothing, wrong
  case value(String, String)
}

/// One line as Compose reads it: comments, `export`, single and double quotes; nothing is expanded.
func assignment(_ line: Substring) -> Assignment {
  func trimmed(_ text: Substring) -> Substring {
    var text = text.drop { $0 == " " || $0 == "\t" }
    while let last = text.last, last == " " || last == "\t" { text = text.dropLast() }
    return text
  }
  var line = trimmed(line)
  guard let first = line.first, first != "#" else { return .nothing }
  if line.hasPrefix("export ") { line = trimmed(line.dropFirst(7)) }
  guard let equals = line.firstIndex(of: "="), equals > line.startIndex else { return .wrong }
  let name = trimmed(line[..<equals])
  var value = trimmed(line[line.index(after: equals)...])
  guard !name.contains(where: { $0 == " " || $0 == "\t" }), isPath(String(name)) else { return .wrong }
  if let quote = value.first, quote == "'" || quote == "\"" {
    guard let end = value.dropFirst().firstIndex(of: quote) else { return .wrong }
    value = value[value.index(after: value.startIndex)..<end]
  } else if let comment = value.indices.first(where: {
    value[$0] == "#" && $0 > value.startIndex && value[value.index(before: $0)] == " "
  }) {
    value = trimmed(value[..<comment])
  }
  return .value(String(name), String(value))
}

private func setEnvironment(_ name: String, _ value: String, secret: String? = nil, _ draft: inout Draft) {
  if let position = draft.policy.environment.firstIndex(where: { $0.name == name }) {
    draft.policy.environment[position].value = value
    draft.policy.environment[position].secret = secret
  } else {
    let position = draft.policy.environment.firstIndex { $0.name > name } ?? draft.policy.environment.endIndex
    draft.policy.environment.insert(Policy.EnvironmentEntry(name: name, value: value, secret: secret), at: position)
  }
}

@Sendable private func readEnvironment(_ node: Written, _ draft: inout Draft) {
  let plain = node.members.map { members in
    node.with(.map(members.filter { $0.value["secret"] == nil }))
  }
  for entry in readPairs(plain ?? node, &draft) { setEnvironment(entry.name, entry.value, &draft) }
  for member in node.members ?? [] {
    guard let secret = member.value["secret"]?.text else { continue }
    guard !member.key.isEmpty, !member.key.contains("="), isPath(member.key) else {
      draft.findings.error(member.keyNode, "\(member.key.quoted) cannot be a name here")
      continue
    }
    setEnvironment(member.key, "", secret: secret, &draft)
  }
}

/// Nil: not a form of `user`. A gid left out is the uid's number.
private func user(_ text: String) -> Policy.User? {
  switch text {
  case "auto": return .auto
  case "image": return .image
  default:
    let ids = text.split(separator: ":", omittingEmptySubsequences: false).map { Form.whole(String($0)) }
    guard ids.count <= 2, let uid = ids.first ?? nil, let gid = ids.last ?? nil, (0..<0xFFFF_FFFF).contains(uid),
      (0..<0xFFFF_FFFF).contains(gid)
    else { return nil }
    return .given(uid: UInt32(uid), gid: UInt32(gid))
  }
}

func text(of user: Policy.User) -> String {
  switch user {
  case .auto: "auto"
  case .image: "image"
  case .given(let uid, let gid): "\(uid):\(gid)"
  }
}

private let loggingForm = Form.object([
  .init("driver", .word(["local", "json-file"]), "Accepted from Compose; where the log is kept is ours to choose"),
  .init(
    "options",
    .object([
      .init("max-size", .size, "Of one file"),
      .init("max-file", .whole(1...1000), "How many files"),
    ]), "max-size and max-file"),
])

@Sendable private func readLogging(_ node: Written, _ draft: inout Draft) {
  let options = node["options"]
  if let size = options?["max-size"], let bytes = size.text.flatMap({ Bytes(parsing: $0) }) {
    if bytes < Bytes(65536) { draft.findings.error(size, "max-size is at least 64k") }
    draft.policy.logging.maximumSize = bytes
  }
  if let files = options?["max-file"]?.text.flatMap({ Int($0) }) { draft.policy.logging.maximumFiles = files }
}

@Sendable private func showLogging(_ policy: Policy) -> JSONValue? {
  .object([
    "options": .object([
      "max-size": .string(policy.logging.maximumSize.description), "max-file": .count(policy.logging.maximumFiles),
    ])
  ])
}
