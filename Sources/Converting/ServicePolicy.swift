internal import Model
internal import Policies

/// The end of a service's way: what Policies' reader takes of it, as a file.
extension ServiceImport {
  /// The policy's file; nil if what is left cannot be one. What its reader refuses is dropped, with the reader's reason.
  mutating func finish(_ isPrivate: Bool) -> Import.File? {
    let order = policyKeys.map(\.key)
    members.sort { (order.firstIndex(of: $0.key) ?? .max) < (order.firstIndex(of: $1.key) ?? .max) }
    var document = node.made(map: members.filter { !$0.value.isEmpty }).repathed()
    var source = PolicySource(path: project.source.path, folder: project.source.outFolder, bytes: project.source.bytes)
    for path in value("env_file").map(envFilePaths) ?? [] { source.envFiles[path] = [] }
    for _ in 0..<50 {
      let reading = check(document, source)
      guard !reading.errors.isEmpty else {
        for warning in reading.problems { remark(.note, at: warning) }
        return file(document, isPrivate)
      }
      var smaller = document
      for error in reading.errors {
        guard !["", "id", "image", "build", "runtime"].contains(error.path), let rest = smaller.removing(error.path)
        else {
          continue
        }
        smaller = rest
        remark(.dropped, at: error)
      }
      let isStuck = smaller.size == document.size
      document = smaller.repathed()
      guard !isStuck else {
        problems = reading.errors.map {
          var problem = $0
          problem.message = "\(service.key): \(problem.message)"
          return problem
        }
        return nil
      }
    }
    return nil
  }

  private mutating func remark(_ kind: Remark.Kind, at problem: Problem) {
    remarks.append(
      Remark(
        kind, file: project.source.path, line: problem.line, column: problem.column, app: service.key,
        key: problem.path,
        problem.message + (problem.hint.map { " (\($0))" } ?? "")))
  }

  private func file(_ document: Written, _ isPrivate: Bool) -> Import.File {
    let name = project.source.path.split(separator: "/").last ?? "compose.yaml"
    var text = "# \(service.key) of \(name), by `supervisor import`.\n"
    for remark in remarks where remark.isLoss {
      text += "# \(remark.kind.rawValue): \(oneLine("\(remark.key): \(remark.reason)"))\n"
    }
    text += yamlText(document.json())
    return Import.File(name: "\(id).yaml", text: text, isPrivate: isPrivate)
  }

  private func oneLine(_ text: String) -> String {
    String(String.UnicodeScalarView(text.unicodeScalars.map { $0.isShowable ? $0 : " " }))
  }
}

extension Written {
  /// How many values it holds.
  fileprivate var size: Int {
    switch content {
    case .null, .scalar: 1
    case .list(let items): items.reduce(1) { $0 + $1.size }
    case .map(let members): members.reduce(1) { $0 + $1.value.size }
    }
  }

  /// As a document to print: what can only be a number or a truth is one. Values that programs get stay text.
  func json(_ isText: Bool = false) -> JSONValue {
    switch content {
    case .null: return .null
    case .list(let items): return .array(items.map { $0.json(isText) })
    case .map(let members):
      var object = JSONObject()
      for member in members {
        let texts = ["environment", "labels", "entry", "entrypoint", "args", "test", "options"].contains(member.key)
        object[member.key] = member.value.json(isText || texts)
      }
      return .object(object)
    case .scalar(let text):
      if isText { return .string(text) }
      if text == "true" || text == "false" { return .bool(text == "true") }
      let isNumber = !text.isEmpty && text.count < 16 && text.utf8.allSatisfy { (0x30...0x39).contains($0) }
      if isNumber, text == "0" || text.first != "0" { return Int64(text).map { .integer($0) } ?? .string(text) }
      return .string(text)
    }
  }
}
