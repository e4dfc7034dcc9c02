internal import Model

/// What an app is called, and what it runs.
let identityFields: [Field] = [
  Field("schema", "Version of this format", .whole(1...1), .inPlace, read: { _, _ in }, show: { _ in 1 }),
  Field(
    "id", "The app's name, unique in the instance", .appID, .recreate,
    read: { node, draft in if let id = node.text.flatMap({ AppID($0) }) { draft.policy.id = id } },
    show: { .string($0.id.name) }),
  Field(
    "template", "Never started by up; run makes instances of it", .boolean, .inPlace,
    read: { $1.policy.template = $0.text == "true" }, show: { $0.template ? true : nil }),
  Field(
    "instances", "How many runs of a template, or of an app whose schedule lets them overlap, may go on at once",
    .object([.init("max", .whole(1...1000), "At most; default: 20")]), .inPlace,
    read: { $1.policy.maximumInstances = $0["max"]?.text.flatMap { UInt32($0) } ?? 20 },
    show: { $0.maximumInstances == 20 ? nil : .object(["max": .count($0.maximumInstances)]) }),
  Field(
    "stack", "Groups apps; default: the name of the folder that was loaded", .appID, .inPlace,
    read: { $1.policy.stack = $0.text ?? "" }, show: { .string($0.stack) }),
  Field(
    "name", "What people call the app; default: its id", .text(most: 128), .inPlace,
    read: { $1.policy.name = $0.text ?? "" }, show: { .string($0.name) }),
  Field(
    "description", "What the app is for", .text(), .inPlace, read: { $1.policy.about.description = $0.text ?? "" },
    show: { about($0.about.description) }),
  Field(
    "publisher", "Who made the app", .text(most: 256), .inPlace, read: { $1.policy.about.publisher = $0.text ?? "" },
    show: { about($0.about.publisher) }),
  Field(
    "version", "The app's version", .text(most: 128), .inPlace, read: { $1.policy.about.version = $0.text ?? "" },
    show: { about($0.about.version) }),
  Field(
    "category", "Where a desktop lists the app", .text(most: 128), .inPlace,
    read: { $1.policy.about.category = $0.text ?? "" }, show: { about($0.about.category) }),
  Field(
    "runtime", "container, native, wasm or auto: a container if there is an image or build, else native",
    .word(["container", "native", "wasm", "auto", "dotnet"]), .recreate, read: readRuntime,
    show: { .string($0.runtime.rawValue) }),
  Field(
    "image", "The image of a container",
    .checked(said: "an image reference", pattern: "^[A-Za-z0-9][^ ]*$", isImageReference),
    .recreate, read: readImage, show: { $0.image.map { .string($0.reference) } }),
  Field("build", "Builds the image: a folder, or its parts", buildForm, .recreate, read: readBuild, show: showBuild),
  Field(
    "pull_policy", "When the image is fetched", .word(["always", "never", "missing", "if_not_present"]), .inPlace,
    read: readPullPolicy,
    show: { policy in
      guard case .reference(_, let rule)? = policy.image else { return nil }
      return .string(rule.rawValue)
    }),
  Field(
    "rootfs", "A native app's root file system: a folder", .path, .recreate,
    read: { node, draft in
      let path = absolutePath(node.text ?? "", in: draft.policy.baseFolder)
      checkSource(path, node, &draft)
      draft.policy.rootfs = path
    },
    show: { $0.rootfs.map { .string($0) } }),
  Field(
    "entrypoint", "Replaces the image's entrypoint", .command,
    read: { node, draft in draft.policy.entrypoint = readCommand(node, &draft) },
    show: { $0.entrypoint.map { .strings($0) } }),
  Field(
    "entry", "The program and its arguments; of a container, what replaces the image's command", .command,
    read: { node, draft in draft.policy.entry = readCommand(node, &draft) },
    show: { $0.entry.isEmpty ? nil : .strings($0.entry) }),
  Field(
    "fallback", "What a container becomes where no engine answers", .word(["none", "native"]), .inPlace,
    read: { $1.policy.fallback = $0.text.flatMap { Policy.Fallback(rawValue: $0) } ?? .none },
    show: { .string($0.fallback.rawValue) }),
]

private func about(_ text: String) -> JSONValue? { text.isEmpty ? nil : .string(text) }

private let buildForm = Form.either(
  [
    .path,
    .object([
      .init("context", .path, "The folder the build sees", required: true),
      .init("dockerfile", .path, "Relative to the context; default: Dockerfile"),
      .init("args", .pairs, "Build arguments"),
      .init("target", .text(), "The stage to build", later: "building one stage"),
    ]),
  ], said: "a folder, or a map with context, dockerfile and args")

/// Whether the Engine could take `text` for an image: `[HOST[:PORT]/]NAME[:TAG][@DIGEST]`.
@Sendable func isImageReference(_ text: String) -> Bool {
  guard let first = text.utf8.first, text.utf8.count <= 512 else { return false }
  func isAlphanumeric(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
  }
  return isAlphanumeric(first) && text.utf8.allSatisfy { isAlphanumeric($0) || "._-/:@".utf8.contains($0) }
    && !text.hasSuffix(":") && !text.hasSuffix("/") && !text.hasSuffix("@")
}

@Sendable private func readRuntime(_ node: Written, _ draft: inout Draft) {
  switch node.text {
  case "container": draft.runtime = .container
  case "native": draft.runtime = .native
  case "dotnet":
    draft.runtime = .native
    draft.isDotnet = true
  case "wasm": draft.findings.error(node, "runtime wasm is not supported yet", hint: "WebAssembly modules come later")
  default: draft.runtime = nil
  }
}

@Sendable private func readImage(_ node: Written, _ draft: inout Draft) {
  draft.policy.image = .reference(node.text ?? "", .missing)
}

@Sendable private func readPullPolicy(_ node: Written, _ draft: inout Draft) {
  let rule = ImageSource.PullRule(rawValue: node.text ?? "") ?? .missing
  switch draft.policy.image {
  case .reference(let name, _)?: draft.policy.image = .reference(name, rule)
  case .build?: draft.findings.error(node, "pull_policy does not go with build", hint: "remove one of the two")
  case nil: draft.findings.error(node, "pull_policy needs an image")
  }
}

@Sendable private func readBuild(_ node: Written, _ draft: inout Draft) {
  let context = absolutePath(node.text ?? node["context"]?.text ?? ".", in: draft.policy.baseFolder)
  checkSource(context, node["context"] ?? node, &draft)
  let dockerfile = node["dockerfile"]?.text ?? "Dockerfile"
  if absolutePath(dockerfile, in: context).hasPrefix(context == "/" ? "/" : context + "/") == false {
    draft.findings.error(node["dockerfile"] ?? node, "the dockerfile must lie in the context")
  }
  var arguments: [String: String] = [:]
  if let args = node["args"] {
    for entry in readPairs(args, &draft) { arguments[entry.name] = entry.value }
  }
  var tag = "appsupervisor/\(draft.policy.id.name):built"
  if case .reference(let name, _)? = draft.policy.image { tag = name }
  draft.policy.image = .build(context: context, dockerfile: dockerfile, arguments: arguments, tag: tag)
}

@Sendable private func showBuild(_ policy: Policy) -> JSONValue? {
  guard case .build(let context, let dockerfile, let arguments, _)? = policy.image else { return nil }
  let args = arguments.isEmpty ? nil : JSONValue.map(arguments.map { ($0.key, .string($0.value)) })
  return .object(["context": .string(context), "dockerfile": .string(dockerfile), "args": args])
}

/// A command as a list; a text is split as a shell would split it.
func readCommand(_ node: Written, _ draft: inout Draft) -> [String] {
  if let items = node.list { return items.compactMap(\.text) }
  guard let words = words(of: node.text ?? "") else {
    draft.findings.error(node, "a quote is left open in this command", hint: "or write a list: [PROGRAM, ARGUMENT]")
    return [node.text ?? ""]
  }
  return words
}

/// `{A: b}` and `["A=b", "A"]`; a name without a value takes the caller's variable, and is left out where there is none.
///
/// `taking` is false where a name alone stands for an empty value, as with labels.
func readPairs(_ node: Written, taking: Bool = true, _ draft: inout Draft) -> [Policy.EnvironmentEntry] {
  var entries: [Policy.EnvironmentEntry] = []
  var seen: Set<String> = []
  func add(_ name: String, _ value: String?, _ place: Written, _ draft: inout Draft) {
    guard !name.isEmpty, !name.contains("="), isPath(name) else {
      draft.findings.error(place, "\(name.quoted) cannot be a name here")
      return
    }
    guard seen.insert(name).inserted else {
      draft.findings.error(place, "\(name.quoted) is given twice")
      return
    }
    guard let value = value ?? (taking ? draft.environment[name] : "") else {
      draft.findings.warning(
        place, "\(name.quoted) has no value and is not set where the file is loaded: it is left out",
        hint: "write \(name)= for an empty one")
      return
    }
    entries.append(Policy.EnvironmentEntry(name: name, value: value))
  }
  for member in node.members ?? [] { add(member.key, member.value.text, member.keyNode, &draft) }
  for item in node.list ?? [] {
    let text = item.text ?? ""
    guard let equals = text.firstIndex(of: "=") else {
      add(text, nil, item, &draft)
      continue
    }
    add(String(text[..<equals]), String(text[text.index(after: equals)...]), item, &draft)
  }
  return entries
}
