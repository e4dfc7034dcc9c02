internal import Model

/// What an app may know and nobody else.
let secretFields: [Field] = [
  Field(
    "secrets", "Secrets as files below /run/secrets, in memory and read-only",
    .list(.either([.objectName, secretForm], said: "a name, or {source, target}"), most: 64), .renew, read: readSecrets,
    show: { $0.secrets.isEmpty ? nil : .array($0.secrets.map(showSecret)) })
]

private let secretForm = Form.object([
  .init("source", .objectName, "Its name", required: true),
  .init("target", .text(most: 255), "Its file's name in /run/secrets; default: its name"),
  .init("uid", .text(most: 16), "Owner, as the app counts; default: the app itself"),
  .init("gid", .text(most: 16), "Group, as the app counts; default: the app's own"),
  .init("mode", .mode, "Always octal, without execution; default: 0400"),
  .init("file", .path, "The host's file that holds it; default: secrets/NAME beside the daemon's config.yaml"),
  .init("credential", .objectName, "A credential that systemd gives the daemon, instead of a file"),
  .init("environment", .text(), "Of Compose; refused: a policy's variables are stored"),
  .init("content", .text(), "Of Compose; refused: a policy is stored"),
])

@Sendable private func readSecrets(_ node: Written, _ draft: inout Draft) {
  for item in node.list ?? [] {
    guard let secret = secret(item, &draft) else { continue }
    if draft.policy.secrets.contains(where: { $0.name == secret.name }) {
      draft.findings.error(item, "the secret \(secret.name.quoted) is given twice")
    } else if draft.policy.secrets.contains(where: { $0.target == secret.target }) {
      draft.findings.error(item, "two secrets have the target \((secret.target ?? "").quoted)")
    } else {
      draft.policy.secrets.append(secret)
    }
  }
}

private func secret(_ node: Written, _ draft: inout Draft) -> Secret? {
  if let name = node.text { return Secret(name: name, origin: .instance, target: name) }
  guard let name = node["source"]?.text else { return nil }
  for key in ["environment", "content"] {
    guard let value = node[key] else { continue }
    draft.findings.error(
      value, "\(key) would put the secret into the policy, which is stored and shown",
      hint: "put it into a file that only its owner can read, and name that: file: PATH")
    return nil
  }
  guard let target = target(node["target"], name, &draft) else { return nil }
  var secret = Secret(name: name, origin: .instance, target: target)
  if let file = node["file"]?.text {
    if let credential = node["credential"] {
      draft.findings.error(credential, "file and credential exclude each other")
    }
    secret.origin = .file(absolutePath(file, in: draft.policy.baseFolder))
    if file.hasPrefix("~") {
      draft.findings.error(node["file"] ?? node, "\(file.quoted) starts with '~'", hint: "write the whole path")
    }
  } else if let credential = node["credential"]?.text {
    secret.origin = .credential(credential)
  }
  secret.uid = id(node["uid"], &draft)
  secret.gid = id(node["gid"], &draft)
  if let mode = node["mode"], let bits = mode.text.flatMap({ Form.mode($0) }) {
    if bits & ~0o666 != 0 {
      draft.findings.error(mode, "\(octal(bits)) is more than reading and writing", hint: "0400 and 0440 are usual")
    }
    secret.mode = bits
  }
  return secret
}

/// One name below /run/secrets; nil: an error was added.
private func target(_ node: Written?, _ name: String, _ draft: inout Draft) -> String? {
  guard let node, let text = node.text else { return name }
  let prefix = Secret.folder + "/"
  let file = text.hasPrefix(prefix) ? String(text.dropFirst(prefix.utf8.count)) : text
  guard isPath(file), !file.contains("/"), file != ".", file != "..", file.utf8.count <= 255 else {
    draft.findings.error(
      node, "\(text.quoted) is not a file's name in \(Secret.folder)",
      hint: "write the name alone; a program that wants it elsewhere is told so, or a link in its image leads there")
    return nil
  }
  return file
}

private func id(_ node: Written?, _ draft: inout Draft) -> UInt32? {
  guard let node, let text = node.text else { return nil }
  guard let number = Form.whole(text), (0..<0xFFFF_FFFF).contains(number) else {
    draft.findings.error(node, "\(text.quoted) is not a number of a user or group")
    return nil
  }
  return UInt32(number)
}

private func showSecret(_ secret: Secret) -> JSONValue {
  var object = JSONObject()
  object["source"] = .string(secret.name)
  if let target = secret.target { object["target"] = .string(target) }
  if let uid = secret.uid { object["uid"] = .string(String(uid)) }
  if let gid = secret.gid { object["gid"] = .string(String(gid)) }
  if let mode = secret.mode { object["mode"] = .string(octal(mode)) }
  switch secret.origin {
  case .instance: break
  case .file(let path): object["file"] = .string(path)
  case .credential(let name): object["credential"] = .string(name)
  }
  return .object(object)
}
