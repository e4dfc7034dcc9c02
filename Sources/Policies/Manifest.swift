internal import Model

/// Keys of older manifests that are more than another name of one of ours.
extension Draft {
  /// Reads `exePath` with `arguments`, `compat` and the keys kept as labels; before the table's fields.
  mutating func readManifest(_ document: Written) {
    readProgram(document)
    if let compat = document["compat"] {
      if compat.text == "seed" { isSeedCompatible = true } else { findings.error(compat, "compat can only be seed") }
    }
    for key in labelKeys {
      guard let node = document[key] else { continue }
      guard let value = node.text else {
        findings.error(node, "expected a single value, not \(node.kind)")
        continue
      }
      policy.labels[key] = value
      set.insert("labels")
    }
  }

  private mutating func readProgram(_ document: Written) {
    let arguments = document["arguments"]
    guard let program = document["exePath"] else {
      if let arguments {
        findings.error(arguments, "arguments needs exePath", hint: "or write entry: [PROGRAM, ARGUMENT]")
      }
      return
    }
    guard let path = program.text, !path.isEmpty else {
      findings.error(program, "exePath is the path of a program")
      return
    }
    var words = [program]
    if let arguments {
      guard Form.command.check(arguments, &findings) else { return }
      words += readCommand(arguments, &self).map { arguments.with(text: $0) }
    }
    guard let entry = document["entry"] ?? document["command"] else {
      policy.entry = words.compactMap(\.text)
      places["entry"] = program
      set.insert("entry")
      return
    }
    if Form.command.check(entry, &findings), readCommand(entry, &self) != words.compactMap(\.text) {
      findings.error(program, "exePath and entry are the same thing and differ", hint: "keep entry")
    }
  }
}
