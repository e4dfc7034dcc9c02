internal import Policies

/// One thing that did not pass from one format into another as it was.
package struct Remark: Sendable, Equatable {
  package enum Kind: String, Sendable {
    /// It is not in the result.
    case dropped
    /// It is in the result and means something else.
    case changed
    /// Nothing is lost; something is to be known or done.
    case note
  }
  package var kind: Kind
  package var file: String
  /// Counted from 1; 0 where it belongs to no line.
  package var line: Int
  package var column: Int
  /// The service or app it is about; empty for the file as a whole.
  package var app: String
  /// The key, as the source writes it.
  package var key: String
  package var reason: String

  package init(
    _ kind: Kind, file: String, line: Int = 0, column: Int = 0, app: String = "", key: String = "", _ reason: String
  ) {
    self.kind = kind
    self.file = file
    self.line = line
    self.column = column
    self.app = app
    self.key = key
    self.reason = reason
  }

  /// Whether the result does less, or other, than the source says.
  package var isLoss: Bool { kind != .note }

  /// `compose.yaml:12:5: dropped: web: sysctls: why`.
  package var rendered: String {
    let place = line > 0 ? "\(file):\(line):\(column)" : file
    return "\(([place, kind.rawValue] + [app, key].filter { !$0.isEmpty } + [reason]).joined(separator: ": "))\n"
  }
}

extension Written {
  /// Text at this place.
  func made(_ text: String) -> Written { with(.scalar(text)) }

  func made(list items: [Written]) -> Written { with(.list(items)) }

  func made(map pairs: [(String, Written)]) -> Written {
    with(.map(pairs.map { Member(key: $0.0, keyNode: $0.1.made($0.0), value: $0.1) }))
  }

  /// The same values with the paths that follow from where they stand now.
  func repathed(_ path: String = "") -> Written {
    var node = self
    node.path = path
    switch content {
    case .null, .scalar: break
    case .list(let items):
      node.content = .list(items.enumerated().map { $0.element.repathed("\(path)[\($0.offset)]") })
    case .map(let members):
      node.content = .map(
        members.map { member in
          let inner = path.isEmpty ? member.key : "\(path).\(member.key)"
          var key = member.keyNode
          key.path = inner
          return Member(key: member.key, keyNode: key, value: member.value.repathed(inner))
        })
    }
    return node
  }

  /// Without the value at `path`, and without what is empty because of that; nil if there is none.
  func removing(_ path: String) -> Written? {
    switch content {
    case .null, .scalar: return nil
    case .list(let items):
      for (place, item) in items.enumerated() {
        if item.path == path { return with(.list(Array(items[..<place] + items[(place + 1)...]))) }
        guard let smaller = item.removing(path) else { continue }
        var rest = items
        if smaller.isEmpty { rest.remove(at: place) } else { rest[place] = smaller }
        return with(.list(rest))
      }
    case .map(let members):
      for (place, member) in members.enumerated() {
        if member.keyNode.path == path || member.value.path == path {
          return with(.map(Array(members[..<place] + members[(place + 1)...])))
        }
        guard let smaller = member.value.removing(path) else { continue }
        var rest = members
        if smaller.isEmpty { rest.remove(at: place) } else { rest[place].value = smaller }
        return with(.map(rest))
      }
    }
    return nil
  }

  var isEmpty: Bool { list?.isEmpty ?? members?.isEmpty ?? false }
  var isFalse: Bool { isNull || text == "false" || text == "" || isEmpty }
}
