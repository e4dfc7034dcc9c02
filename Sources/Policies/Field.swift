internal import Model

/// One key of a policy file: everything that parsing, messages, the schema, the canonical document and the plan know of it.
struct Field: Sendable {
  var key: String
  /// One line, without a full stop.
  var doc: String
  var form: Form
  /// What a running app needs before a new value is in force.
  var change: Reaction = .renew
  var status: Status = .supported
  /// Stores a value whose shape has been checked; what it adds to `findings` is about meaning.
  var read: @Sendable (Written, inout Draft) -> Void
  /// The value in canonical form; nil where there is none. Reading it again gives the same policy.
  var show: @Sendable (Policy) -> JSONValue?

  enum Reaction: Sendable {
    /// Takes effect on the running app.
    case inPlace
    /// A new process (native) or container.
    case renew
    /// Everything is made anew, whatever the runtime.
    case recreate
  }

  enum Status: Sendable, Equatable {
    case supported
    /// Known by shape only. `harmless`: scalars that may be set, since they ask for what happens anyway.
    case notYet(String, harmless: [String] = [])
  }

  init(
    _ key: String, _ doc: String, _ form: Form, _ change: Reaction = .renew,
    read: @escaping @Sendable (Written, inout Draft) -> Void, show: @escaping @Sendable (Policy) -> JSONValue?
  ) {
    self.key = key
    self.doc = doc
    self.form = form
    self.change = change
    self.read = read
    self.show = show
  }

  /// A key whose feature is not built; `feature` begins the hint.
  init(later key: String, _ doc: String, _ form: Form, _ feature: String, harmless: [String] = []) {
    self.key = key
    self.doc = doc
    self.form = form
    status = .notYet(feature, harmless: harmless)
    read = { _, _ in }
    show = { _ in nil }
  }
}

/// A policy while its file is read.
struct Draft: Sendable {
  var policy: Policy
  /// Canonical keys that the file sets, aliases included.
  var set: Set<String> = []
  var findings = Findings()
  /// Where each canonical key was set, for what is found out later.
  var places: [String: Written] = [:]
  /// `runtime: dotnet` and the older manifests' `compat: seed`.
  var isDotnet = false
  var isSeedCompatible = false
  /// Keys set to `0`, meaning unlimited; judged once the sandbox is known.
  var unlimited: [String] = []
  /// Reading back what was checked before: an applied copy.
  var isStored = false
  /// As `runtime` says; nil: by what there is to run.
  var runtime: Runtime?
  /// The variables of whoever loads the file.
  let environment: [String: String]
  let envFiles: [String: [UInt8]]
  let rules: HostRules

  /// Adds an error at the key that was set, or to the file.
  mutating func error(at key: String, _ message: String, hint: String? = nil) {
    if let node = places[key] { findings.error(node, message, hint: hint) } else { findings.error(message, hint: hint) }
  }

  mutating func warning(at key: String, _ message: String, hint: String? = nil) {
    guard let node = places[key] else {
      findings.add(Problem(message, hint: hint, severity: .warning, path: key))
      return
    }
    findings.warning(node, message, hint: hint)
  }
}

/// What the daemon's configuration allows. Nil: not known here, so not judged.
package struct HostRules: Sendable, Equatable {
  /// Ids that may use `sandbox: privileged` and `network_mode: host`.
  package var privilegedApps: Set<String>?
  /// Volumes of the Engine's own that apps may name as `external`.
  package var externalVolumes: Set<String>?
  package var externalNetworks: Set<String>?
  /// Ids whose containers may run as a host uid below `uidBase`.
  package var unsafeHostUIDs: Set<String>?
  /// First uid of the range that apps get theirs from.
  package var uidBase: UInt32 = 0x200000
  /// By app: the devices it may name.
  package var devices: [String: Set<String>]?
  /// Whether the Engine maps a container's uids to others of the host.
  package var engineRemapsUsers: Bool?

  /// For checks without a daemon: what only the host can know is not judged.
  package static let unknown = HostRules()

  package init(
    privilegedApps: Set<String>? = nil, externalVolumes: Set<String>? = nil, externalNetworks: Set<String>? = nil,
    unsafeHostUIDs: Set<String>? = nil, engineRemapsUsers: Bool? = nil
  ) {
    self.privilegedApps = privilegedApps
    self.externalVolumes = externalVolumes
    self.externalNetworks = externalNetworks
    self.unsafeHostUIDs = unsafeHostUIDs
    self.engineRemapsUsers = engineRemapsUsers
  }
}

// MARK: values that several fields take

/// `path` without `.`, `..` and doubled slashes, relative ones below `folder`. Absolute.
package func absolutePath(_ path: String, in folder: String) -> String {
  var parts: [Substring] = []
  let whole = path.hasPrefix("/") ? path : "\(folder)/\(path)"
  for part in whole.split(separator: "/") where part != "." {
    if part == ".." { _ = parts.popLast() } else { parts.append(part) }
  }
  return "/" + parts.joined(separator: "/")
}

/// A path that can be handed to the kernel: not empty, no NUL, at most `PATH_MAX`.
func isPath(_ text: String) -> Bool {
  !text.isEmpty && text.utf8.count < 4096 && !text.unicodeScalars.contains { $0.value < 0x20 || $0.value == 0x7F }
}

/// Where something may appear in an app: absolute and without `..`.
func isTarget(_ text: String) -> Bool {
  isPath(text) && text.hasPrefix("/") && !text.split(separator: "/").contains("..")
}

/// The name of a volume, network or stack: as an app's id, with capitals and dots.
package func isObjectName(_ text: String) -> Bool {
  guard let first = text.utf8.first, (1...63).contains(text.utf8.count) else { return false }
  func isAlphanumeric(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
  }
  return isAlphanumeric(first) && text.utf8.allSatisfy { isAlphanumeric($0) || [0x2D, 0x2E, 0x5F].contains($0) }
}

extension Form {
  static let path = Form.checked(said: "a path") { isPath($0) }
  static let target = Form.checked(said: "an absolute path without '..'", pattern: "^/") { isTarget($0) }
  static let objectName = Form.checked(
    said: "a name of letters, digits, '.', '_' and '-'", pattern: "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
  ) {
    isObjectName($0)
  }
  static let appID = Form.checked(
    said: "a name of a-z, 0-9, '_' and '-', at most 63 long", pattern: "^[a-z0-9][a-z0-9_-]{0,62}$"
  ) {
    AppID($0) != nil
  }
  /// A program with its arguments.
  static let command = Form.either([.text(), .list(.text(most: 131_072), most: 4096)], said: "a command or a list")
}

extension JSONValue {
  static func strings(_ items: some Sequence<String>) -> JSONValue { .array(items.map { .string($0) }) }
  /// A number without a fraction where there is none.
  static func decimal(_ value: Double) -> JSONValue { Int64(exactly: value).map { .integer($0) } ?? .number(value) }
  /// In the order of the keys.
  static func map(_ members: some Sequence<(key: String, value: JSONValue)>) -> JSONValue {
    var object = JSONObject()
    for (key, value) in members.sorted(by: { $0.key < $1.key }) { object[key] = value }
    return .object(object)
  }
}

extension Written {
  /// The texts of a list, or the one text this is.
  var texts: [String] { list?.compactMap(\.text) ?? text.map { [$0] } ?? [] }
  /// A list's items, or this alone.
  var items: [Written] { list ?? [self] }
}

/// Splits a command as a shell would, without expanding anything: quotes and backslashes. Nil: a quote is left open.
func words(of command: String) -> [String]? {
  var words: [String] = []
  var word: String?
  var quote: Character?
  var escaped = false
  for character in command {
    if escaped {
      word = (word ?? "") + String(character)
      escaped = false
    } else if character == "\\", quote != "'" {
      escaped = true
    } else if let open = quote {
      if character == open { quote = nil } else { word = (word ?? "") + String(character) }
    } else if character == "\"" || character == "'" {
      quote = character
      word = word ?? ""
    } else if character == " " || character == "\t" || character == "\n" {
      if let done = word { words.append(done) }
      word = nil
    } else {
      word = (word ?? "") + String(character)
    }
  }
  guard quote == nil, !escaped else { return nil }
  if let word { words.append(word) }
  return words
}
