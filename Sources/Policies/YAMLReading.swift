internal import Yams

/// What a file may be before anything is built from it.
enum FileLimits {
  /// Bytes of one file.
  static let bytes = 1 << 20
  /// Levels of lists and maps.
  static let depth = 64
  /// Nodes that aliases and `<<` may expand to, all together.
  static let aliasNodes = 1000
  /// Characters that can begin a node (`,` `[` `{` `:`, and `-` or `?` before a space): bounds the nodes of a file.
  static let separators = 20_000
  /// Square and curly brackets open at once, quoted ones included: bounds the parser's recursion before it starts.
  static let openBrackets = 512
}

/// Turns bytes into `Written`, one document exactly.
///
/// The parser below never sees an alias: `*` is replaced by a character that no file may hold, so an alias arrives as
/// a plain scalar, is resolved here, and what it expands to is counted before it is copied.
struct YAMLReading {
  private static let star: Unicode.Scalar = "\u{E000}"

  private var findings: Findings
  private(set) var interpolation: Interpolation
  private var anchors: [String: Anchored] = [:]
  private var expanded = 0
  private var stopped = false

  private struct Anchored {
    var node: Written
    var count: Int
    var depth: Int
  }

  /// A node with what it costs to copy it.
  private struct Measured {
    var node: Written
    var count = 1
    var depth = 1

    /// Adds what a child costs and hands its node on.
    mutating func add(_ child: Measured, _ take: (Written) -> Void) {
      count += child.count
      depth = max(depth, child.depth + 1)
      take(child.node)
    }
  }

  /// Nil if the bytes are not one document within `FileLimits`; why is then in `findings`. A document can come back
  /// together with errors.
  static func read(_ bytes: [UInt8], environment: [String: String], findings: inout Findings) -> Written? {
    var interpolation = Interpolation(environment: environment)
    return read(bytes, &interpolation, findings: &findings)
  }

  /// As above; `interpolation` says afterwards which variables it met.
  static func read(_ bytes: [UInt8], _ interpolation: inout Interpolation, findings: inout Findings) -> Written? {
    guard let text = checkedText(bytes, &findings) else { return nil }
    var reading = YAMLReading(findings: findings, interpolation: interpolation)
    defer {
      findings = reading.findings
      interpolation = reading.interpolation
    }
    do {
      // The parser owns the anchors of the nodes it returns, so it lives until they have been walked.
      let parser = try Parser(yaml: text, resolver: .basic, constructor: .default, encoding: .utf8)
      guard let root = try parser.singleRoot() else { return nil }
      let document = withExtendedLifetime(parser) { reading.convert(root, path: "", depth: 1).node }
      return reading.stopped ? nil : document
    } catch {
      reading.findings.add(Self.problem(of: error, in: text))
      return nil
    }
  }

  // MARK: before parsing

  private static func checkedText(_ bytes: [UInt8], _ findings: inout Findings) -> String? {
    guard bytes.count <= FileLimits.bytes else {
      findings.error(
        "the file is over \(FileLimits.bytes >> 20) MiB",
        hint: "a policy holds no data: put it in a file of its own and mount it")
      return nil
    }
    var body = bytes[...]
    if body.starts(with: [0xEF, 0xBB, 0xBF]) { body.removeFirst(3) }
    guard let text = String(validating: body, as: UTF8.self) else {
      findings.add(misencoded(body))
      return nil
    }
    var place = Place(line: 1, column: 1)
    var separators = 0
    var open = 0
    var previous: Unicode.Scalar = "\n"
    var output = String.UnicodeScalarView()
    func refuse(_ message: String) { findings.add(Problem(message, line: place.line, column: place.column)) }
    for scalar in text.unicodeScalars {
      switch scalar {
      case "\n":
        place = Place(line: place.line + 1, column: 0)
      case "[", "{":
        open += 1
        separators += 1
      case "]", "}": open -= 1
      case ",", ":": separators += 1
      case " ", "\t": if previous == "-" || previous == "?" { separators += 1 }
      case star, "\0":
        refuse("the character U+\(String(scalar.value, radix: 16, uppercase: true)) is not allowed")
        return nil
      default: break
      }
      if previous == "-", scalar == "\n" { separators += 1 }
      guard open <= FileLimits.openBrackets else {
        refuse("it is nested deeper than \(FileLimits.depth)")
        return nil
      }
      guard separators <= FileLimits.separators else {
        refuse("the file holds more than \(FileLimits.separators) values")
        return nil
      }
      output.append(scalar == "*" ? star : scalar)
      previous = scalar
      place.column += 1
    }
    return String(output)
  }

  private static func misencoded(_ body: ArraySlice<UInt8>) -> Problem {
    var line = 1
    for part in body.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false) {
      if String(validating: part, as: UTF8.self) == nil { break }
      line += 1
    }
    return Problem("the file is not UTF-8", line: line, column: 1)
  }

  private static func problem(of error: any Error, in text: String) -> Problem {
    guard let error = error as? YamlError else { return Problem("the file cannot be read as YAML") }
    switch error {
    case .scanner(_, let said, let mark, _), .parser(_, let said, let mark, _):
      return syntaxProblem(said, Place(line: mark.line, column: mark.column), text)
    case .composer(_, let said, let mark, _):
      if said.contains("another document") {
        return Problem(
          "a second document starts here", hint: "one file describes one app: use a file for each", line: mark.line,
          column: mark.column)
      }
      return syntaxProblem(said, Place(line: mark.line, column: mark.column), text)
    case .reader(let said, let offset, _, _):
      let before = offset.map { text.prefix($0) } ?? ""
      let line = before.unicodeScalars.count { $0 == "\n" } + 1
      return Problem("it holds characters that YAML does not allow (\(said))", line: line, column: 1)
    case .duplicatedKeysInMapping(let keys, let context):
      let key = keys.first ?? ""
      let first = Place(line: context.mark.line, column: context.mark.column)
      let second = secondPlace(of: key, first, text) ?? first
      return Problem(
        "the key \(key.quoted) is given twice", hint: "it stands on line \(first.line) already: keep one of the two",
        line: second.line, column: second.column, path: key)
    case .no, .memory, .writer, .emitter, .representer, .dataCouldNotBeDecoded:
      return Problem("the file cannot be read as YAML")
    }
  }

  private static func syntaxProblem(_ said: String, _ place: Place, _ text: String) -> Problem {
    let line = Lines(of: text).first { $0.number == place.line }?.line ?? ""
    var hint: String?
    if line.contains("\t") {
      hint = "indent with spaces: YAML does not take tabs"
    } else if said.contains("nesting") || said.contains("depth") {
      hint = "lists and maps may be nested \(FileLimits.depth) deep"
    } else if said.contains("mapping values are not allowed") {
      hint = "quote a value that holds ': '"
    }
    return Problem("this is not valid YAML: \(said)", hint: hint, line: place.line, column: place.column)
  }

  /// Where a key that was found at `first` stands again in the same block map.
  private static func secondPlace(of key: String, _ first: Place, _ text: String) -> Place? {
    for (number, line) in Lines(of: text) where number > first.line {
      let indent = line.prefix { $0 == " " }.count
      let rest = line.dropFirst(indent)
      if indent + 1 == first.column, rest.hasPrefix(key) || rest.dropFirst().hasPrefix(key) {
        let after = rest.drop { $0 == "\"" || $0 == "'" }.dropFirst(key.count).drop {
          $0 == "\"" || $0 == "'" || $0 == " "
        }
        if after.first == ":" { return Place(line: number, column: indent + 1) }
      }
    }
    return nil
  }

  // MARK: after parsing

  private mutating func convert(_ node: Node, path: String, depth: Int) -> Measured {
    let place = node.mark.map { Place(line: $0.line, column: $0.column) } ?? Place(line: 0, column: 0)
    var result = Measured(node: Written(place: place, path: path, content: .null))
    guard !stopped else { return result }
    guard depth <= FileLimits.depth else {
      stop(result.node, "it is nested deeper than \(FileLimits.depth)")
      return result
    }
    switch node {
    case .scalar(let scalar):
      if let alias = aliasName(scalar) { return resolve(alias, at: result.node, depth: depth) }
      refuseTag(scalar.tag, scalar.style == .plain ? "" : "tag:yaml.org,2002:str", result.node)
      result.node.content = content(of: scalar, result.node)
    case .sequence(let sequence):
      refuseTag(sequence.tag, "", result.node)
      var items: [Written] = []
      for (position, item) in sequence.enumerated() {
        result.add(convert(item, path: "\(path)[\(position)]", depth: depth + 1)) { items.append($0) }
      }
      result.node.content = .list(items)
    case .mapping(let mapping):
      refuseTag(mapping.tag, "", result.node)
      convert(mapping, into: &result, depth: depth)
    case .alias: stop(result.node, "an alias that cannot be resolved")
    }
    if let anchor = node.anchor {
      anchors[anchor.rawValue] = Anchored(node: result.node, count: result.count, depth: result.depth)
    }
    return result
  }

  private mutating func convert(_ mapping: Node.Mapping, into result: inout Measured, depth: Int) {
    var members: [Written.Member] = []
    var inherited: [Written.Member] = []
    for (keyNode, valueNode) in mapping {
      let mark = keyNode.mark
      var key = result.node.with(.null)
      if let mark { key.place = Place(line: mark.line, column: mark.column) }
      guard case .scalar(let scalar) = keyNode, aliasName(scalar) == nil else {
        findings.error(key, "a key must be a plain word", hint: "keys that are lists, maps or aliases are not taken")
        continue
      }
      let name = restored(scalar.string)
      key.path = result.node.path.isEmpty ? name : "\(result.node.path).\(name)"
      key.content = .scalar(name)
      // Looking for duplicate keys has given every key without a tag this one.
      refuseTag(scalar.tag, "tag:yaml.org,2002:str", key)
      let isMerge = scalar.style == .plain && name == "<<"
      let value = convert(valueNode, path: isMerge ? result.node.path : key.path, depth: depth + 1)
      guard !stopped else { return }
      result.add(value) { node in
        if isMerge { return }
        members.append(Written.Member(key: name, keyNode: key, value: node))
      }
      if isMerge { merge(value.node, at: key, into: &inherited) }
    }
    // What the map writes itself wins over what it inherits, an earlier source over a later one.
    let own = Set(members.map(\.key))
    members += inherited.filter { !own.contains($0.key) }
    result.node.content = .map(members)
  }

  private mutating func merge(_ value: Written, at key: Written, into inherited: inout [Written.Member]) {
    var known = Set(inherited.map(\.key))
    for source in value.list ?? [value] {
      guard let members = source.members else {
        findings.error(key, "'<<' takes a map, or a list of maps")
        continue
      }
      // Nodes under an alias were charged when it was resolved; a map written in place was counted as itself.
      for member in members where known.insert(member.key).inserted { inherited.append(member) }
    }
  }

  private mutating func resolve(_ name: String, at node: Written, depth: Int) -> Measured {
    guard let anchored = anchors[name] else {
      findings.error(node, "there is no anchor \(name.quoted) before this alias", hint: didYouMean(name, anchors.keys))
      return Measured(node: node)
    }
    expanded += anchored.count
    guard expanded <= FileLimits.aliasNodes else {
      stop(node, "aliases expand to more than \(FileLimits.aliasNodes) values")
      return Measured(node: node)
    }
    guard depth + anchored.depth - 1 <= FileLimits.depth else {
      stop(node, "it is nested deeper than \(FileLimits.depth)")
      return Measured(node: node)
    }
    return Measured(node: anchored.node, count: anchored.count, depth: anchored.depth)
  }

  private mutating func stop(_ node: Written, _ message: String) {
    guard !stopped else { return }
    stopped = true
    findings.error(node, message)
  }

  private mutating func refuseTag(_ tag: Tag, _ usual: String, _ node: Written) {
    let name = tag.description
    guard name != usual, !name.isEmpty else { return }
    findings.error(
      node, "tags are not taken (\(name.quoted))", hint: "a value has the type of its field; quote it if it is text")
  }

  private mutating func content(of scalar: Node.Scalar, _ node: Written) -> Written.Content {
    let text = restored(scalar.string)
    if scalar.style == .plain, ["", "~", "null", "Null", "NULL"].contains(text) { return .null }
    do throws(Interpolation.Failure) {
      return .scalar(try interpolation.replace(text))
    } catch {
      findings.error(node, error.message, hint: error.hint)
      return .scalar(text)
    }
  }

  private func aliasName(_ scalar: Node.Scalar) -> String? {
    guard scalar.style == .plain, scalar.string.unicodeScalars.first == Self.star else { return nil }
    return String(scalar.string.unicodeScalars.dropFirst())
  }

  private func restored(_ text: String) -> String {
    guard text.unicodeScalars.contains(Self.star) else { return text }
    return String(String.UnicodeScalarView(text.unicodeScalars.map { $0 == Self.star ? "*" : $0 }))
  }
}
