internal import Model

/// What a list, prune or event stream is narrowed to: several values of a key are alternatives, several keys must all hold.
package struct Filters: Sendable, Equatable {
  private var values: [String: [String]] = [:]

  package init() {}

  /// `.label("a=b")`: the usual one.
  package static func label(_ label: String) -> Filters { Filters().adding("label", label) }

  /// A filter more: `label`, `status`, `type`, `name`, … of the API's own.
  package func adding(_ key: String, _ value: String) -> Filters {
    var copy = self
    copy.values[key, default: []].append(value)
    return copy
  }

  /// The `filters` parameter; none when there is nothing to narrow to.
  var query: [(String, String)] {
    guard !values.isEmpty else { return [] }
    var object = JSONObject()
    for (key, list) in values.sorted(by: { $0.key < $1.key }) { object[key] = .texts(list) }
    return [("filters", JSONValue.object(object).text)]
  }
}
