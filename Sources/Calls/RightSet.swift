internal import FileSystems
package import Model

/// What an instance may do, for checking: a denial wins over any grant, and what nobody granted is denied.
package struct RightSet: Sendable {
  /// Where a rule comes from.
  package enum Source: String, Sendable {
    /// Its policy, the preset's part included.
    case policy
    /// Its operator, beside the policy.
    case `operator`
    /// It gave the right up itself.
    case dropped
    /// Its operator, when it asked, for this run.
    case session
    /// Its operator, when it asked, for one use.
    case once
  }

  package struct Rule: Sendable, Equatable {
    package var permission: Permission
    package var source: Source
    fileprivate var pattern: Pattern

    fileprivate init(_ permission: Permission, _ source: Source) {
      self.permission = permission
      self.source = source
      pattern = permission.scope.map { Pattern($0, permission.right.scope) } ?? .everything
    }

    /// For the audit and for messages: `policy fs.read:/data/**`.
    package var text: String { "\(source.rawValue) \(permission)" }
  }

  package enum Decision: Sendable, Equatable {
    case allowed(Rule)
    /// By this rule; nil: nothing grants it.
    case denied(Rule?)
  }

  /// By right, in the order of `Right.allCases`.
  private var grants: [[Rule]]
  private var denials: [[Rule]]

  package init() {
    grants = Array(repeating: [], count: Right.allCases.count)
    denials = grants
  }

  package mutating func grant(_ permission: Permission, _ source: Source) {
    grants[permission.right.index].append(Rule(permission, source))
  }

  package mutating func deny(_ permission: Permission, _ source: Source) {
    denials[permission.right.index].append(Rule(permission, source))
  }

  /// `object`: what the call is about, in the form of the right's scopes; nil: of a right without scopes, or all of it.
  package func decide(_ right: Right, _ object: String? = nil) -> Decision {
    let index = right.index
    for rule in denials[index] where object == nil ? rule.pattern == .everything : rule.pattern.matches(object ?? "") {
      return .denied(rule)
    }
    for rule in grants[index] where object == nil ? rule.pattern == .everything : rule.pattern.matches(object ?? "") {
      return .allowed(rule)
    }
    return .denied(nil)
  }

  /// A grant for one use was used.
  package mutating func spend(_ rule: Rule) {
    let index = rule.permission.right.index
    if let place = grants[index].firstIndex(of: rule) { grants[index].remove(at: place) }
  }

  /// Whether it holds for a folder and for whatever may lie below it. A denial that could mean anything there is enough against it.
  package func holdsAll(_ right: Right, below folder: String) -> Bool {
    let index = right.index
    return grants[index].contains { $0.pattern.coversAll(below: folder) }
      && !denials[index].contains { $0.pattern.mayReach(below: folder) }
  }

  /// All rules, for people.
  package var granted: [Rule] { grants.flatMap { $0 } }
  package var denied: [Rule] { denials.flatMap { $0 } }
}

extension Right {
  private static let indexes = Dictionary(uniqueKeysWithValues: allCases.enumerated().map { ($1, $0) })
  fileprivate var index: Int { Self.indexes[self] ?? 0 }
}

/// A scope, made ready to be compared.
enum Pattern: Sendable, Equatable {
  case everything
  case exactly(String)
  /// A folder and all below it: `/data/**`.
  case below(String)
  /// With `*` and `?` within a name, `**` at any depth.
  case glob([UInt8])

  init(_ scope: String, _ kind: Right.ScopeKind) {
    let hasStars = scope.utf8.contains { $0 == UInt8(ascii: "*") || (kind == .path && $0 == UInt8(ascii: "?")) }
    if !hasStars {
      self = .exactly(scope)
    } else if kind == .path, scope.hasSuffix("/**"),
      !scope.dropLast(3).utf8.contains(where: { $0 == 0x2A || $0 == 0x3F })
    {
      self = .below(String(scope.dropLast(3)))
    } else {
      self = .glob(Array(scope.utf8))
    }
  }

  func matches(_ object: String) -> Bool {
    switch self {
    case .everything: return true
    case .exactly(let text): return object.utf8.elementsEqual(text.utf8)
    case .below(let folder):
      guard object.utf8.starts(with: folder.utf8) else { return false }
      let rest = object.utf8.dropFirst(folder.utf8.count)
      return rest.isEmpty || rest.first == UInt8(ascii: "/")
    case .glob(let pattern): return Self.glob(pattern[...], Array(object.utf8)[...])
    }
  }

  /// Whether it matches a folder and all that may lie below it.
  func coversAll(below folder: String) -> Bool {
    switch self {
    case .everything: true
    case .below: matches(folder)
    case .exactly, .glob: false
    }
  }

  /// Whether it could match a folder or something below it.
  func mayReach(below folder: String) -> Bool {
    switch self {
    case .everything, .glob: true
    case .exactly(let text): Pattern.below(folder == "/" ? "" : folder).matches(text)
    case .below(let other):
      matches(folder) || Pattern.below(folder == "/" ? "" : folder).matches(other)
    }
  }

  /// In time that grows with the product of both lengths at most: a star remembers only its last place.
  private static func glob(_ pattern: ArraySlice<UInt8>, _ text: ArraySlice<UInt8>) -> Bool {
    var at = text.startIndex
    var place = pattern.startIndex
    /// After the last `*` and `**`, and where in the text each was tried last.
    var star: (after: Int, tried: Int)?
    var deep: (after: Int, tried: Int)?
    while at < text.endIndex {
      if place < pattern.endIndex, pattern[place] == UInt8(ascii: "*") {
        let isDeep = place + 1 < pattern.endIndex && pattern[place + 1] == UInt8(ascii: "*")
        if isDeep {
          place += 2
          deep = (place, at)
          star = nil
        } else {
          place += 1
          star = (place, at)
        }
      } else if place < pattern.endIndex,
        pattern[place] == text[at] || (pattern[place] == UInt8(ascii: "?") && text[at] != 0x2F)
      {
        place += 1
        at += 1
      } else if let last = star, text[last.tried] != 0x2F {
        star = (last.after, last.tried + 1)
        place = last.after
        at = last.tried + 1
      } else if let last = deep {
        star = nil
        deep = (last.after, last.tried + 1)
        place = last.after
        at = last.tried + 1
      } else {
        return false
      }
    }
    while place < pattern.endIndex, pattern[place] == UInt8(ascii: "*") { place += 1 }
    return place == pattern.endIndex
  }
}

extension RightSet: FileRules {
  func allows(_ right: Right, _ path: String) -> Bool {
    if case .allowed = decide(right, path) { true } else { false }
  }

  func allowsAll(_ right: Right, below folder: String) -> Bool { holdsAll(right, below: folder) }
}
