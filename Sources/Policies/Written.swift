package import Model

/// A value as the file writes it: text that no reader has interpreted yet, with its place.
///
/// Scalars stay text, because only the field they belong to knows their type.
package struct Written: Sendable {
  package var place: Place
  /// As `volumes[0].target`.
  package var path: String
  package var content: Content

  package indirect enum Content: Sendable {
    /// Nothing, `~` or `null`, unquoted.
    case null
    case scalar(String)
    case list([Written])
    case map([Member])
  }

  package struct Member: Sendable {
    package var key: String
    /// Where the key stands; its path is that of the value.
    package var keyNode: Written
    package var value: Written

    package init(key: String, keyNode: Written, value: Written) {
      self.key = key
      self.keyNode = keyNode
      self.value = value
    }
  }

  package var text: String? { if case .scalar(let text) = content { text } else { nil } }
  package var list: [Written]? { if case .list(let items) = content { items } else { nil } }
  package var members: [Member]? { if case .map(let members) = content { members } else { nil } }
  package var isNull: Bool { if case .null = content { true } else { false } }
  package subscript(key: String) -> Written? { members?.first { $0.key == key }?.value }

  /// What a person would call it.
  package var kind: String {
    switch content {
    case .null: "nothing"
    case .scalar: "a single value"
    case .list: "a list"
    case .map: "a map"
    }
  }

  /// The same place with other content.
  package func with(_ content: Content) -> Written { Written(place: place, path: path, content: content) }
  package func with(text: String) -> Written { with(.scalar(text)) }

  /// A document of ours, read back: no place, and every scalar as the text it was written with.
  package init(_ value: JSONValue, path: String = "") {
    place = Place(line: 0, column: 0)
    self.path = path
    switch value {
    case .null: content = .null
    case .bool(let value): content = .scalar(value ? "true" : "false")
    case .integer(let value): content = .scalar(String(value))
    case .number(let value): content = .scalar(String(value))
    case .string(let value): content = .scalar(value)
    case .array(let items):
      content = .list(items.enumerated().map { Written($0.element, path: "\(path)[\($0.offset)]") })
    case .object(let object):
      content = .map(
        object.map { key, value in
          let path = path.isEmpty ? key : "\(path).\(key)"
          let node = Written(value, path: path)
          return Member(key: key, keyNode: node.with(text: key), value: node)
        })
    }
  }

  package init(place: Place, path: String, content: Content) {
    self.place = place
    self.path = path
    self.content = content
  }
}
