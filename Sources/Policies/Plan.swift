package import Model

/// What has to happen for one app to be as its file says.
package struct Change: Sendable, Equatable {
  /// In the order of how much they disturb.
  package enum Kind: String, Sendable, CaseIterable, Comparable {
    case none
    /// Nothing differs, but it does not run.
    case start
    case inPlace = "in-place"
    case restart, recreate, create, remove

    private var place: Int { Self.allCases.firstIndex(of: self) ?? 0 }
    package static func < (left: Kind, right: Kind) -> Bool { left.place < right.place }
  }

  /// One field that differs, both sides in canonical form; nil: not set.
  package struct Difference: Sendable, Equatable {
    package var key: String
    package var old: JSONValue?
    package var new: JSONValue?
    /// What this field alone would need.
    package var kind: Kind

    package init(key: String, old: JSONValue?, new: JSONValue?, kind: Kind) {
      self.key = key
      self.old = old
      self.new = new
      self.kind = kind
    }
  }

  package var kind: Kind
  package var fields: [Difference]

  package init(kind: Kind, fields: [Difference]) {
    self.kind = kind
    self.fields = fields
  }

  /// `mem_limit 64m → 128m, cpus none → 0.5`; values of the environment are not told.
  package var words: String {
    fields.map { field in
      field.key == "environment"
        ? "environment" : "\(field.key) \(Self.text(field.old)) → \(Self.text(field.new))"
    }.joined(separator: ", ")
  }

  /// A value on one line, cut where it is long.
  package static func text(_ value: JSONValue?) -> String {
    guard let value, !value.isNull else { return "none" }
    let text = value.stringValue ?? value.text
    return text.count <= 60 ? text : text.prefix(59) + "…"
  }
}

/// Compares what is applied with what a file says; effective values, so that a changed preset counts as well.
///
/// Nil stands for an app that is not there.
package func plan(old: Policy?, new: Policy?) -> Change {
  switch (old, new) {
  case (nil, nil): return Change(kind: .none, fields: [])
  case (nil, _?): return Change(kind: .create, fields: [])
  case (_?, nil): return Change(kind: .remove, fields: [])
  case (let old?, let new?):
    var fields: [Change.Difference] = []
    for field in fieldTable where field.status == .supported {
      let before = field.show(old)
      let after = field.show(new)
      if before != after {
        fields.append(.init(key: field.key, old: before, new: after, kind: field.change.kind(old, new)))
      }
    }
    return Change(kind: fields.map(\.kind).max() ?? .none, fields: fields)
  }
}

extension Field.Reaction {
  fileprivate func kind(_ old: Policy, _ new: Policy) -> Change.Kind {
    switch self {
    case .inPlace: .inPlace
    case .renew: old.runtime == .native && new.runtime == .native ? .restart : .recreate
    case .recreate: .recreate
    }
  }
}
