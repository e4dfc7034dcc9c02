internal import Model
internal import RPC

extension Arguments {
  /// The apps and stacks that the call names, of the right type or not: for the audit, and to see who may.
  var appNames: [String] {
    (object["apps"]?.arrayValue ?? []).compactMap(\.stringValue) + (object["app"]?.stringValue.map { [$0] } ?? [])
  }
}
