package import Model
internal import RPC

/// One call of the table.
struct Call: Sendable {
  var name: String
  /// Names of the older format.
  var aliases: [String] = []
  var arguments: [Argument] = []
  /// What the caller needs; nil: nothing.
  var right: Right?
  /// The argument that says on what the right is needed; nil: on all of it.
  var subject: String?
  /// It goes on telling after it was answered.
  var streams = false
  /// What it is about is known only by its arguments, and its body asks for the right.
  var judgesItself = false
  var summary: String
  var body: @Sendable (AppInterface, Caller, Arguments) throws(RPCFailure) -> RPCAnswer

  struct Argument: Sendable {
    enum Kind: String, Sendable {
      case text = "string"
      case number = "integer"
      case object
      case flag = "boolean"
      /// Of texts, not empty.
      case list = "array"
      /// A text or a whole number that is given back.
      case mark = "string|integer"
    }
    var name: String
    var kind: Kind
    var isRequired: Bool

    init(_ name: String, _ kind: Kind, required: Bool = true) {
      self.name = name
      self.kind = kind
      isRequired = required
    }

    func check(_ arguments: Arguments) throws(RPCFailure) {
      guard let value = arguments.object[name], !value.isNull else {
        if isRequired { throw RPCFailure(.invalidParameters, "\(name) is missing") }
        return
      }
      let isRight =
        switch kind {
        case .text: value.stringValue != nil
        case .number: value.integerValue != nil
        case .object: value.objectValue != nil
        case .flag: value.boolValue != nil
        case .mark: value.integerValue != nil || value.stringValue.map { $0.utf8.count <= 128 } ?? false
        case .list: value.arrayValue.map { !$0.isEmpty && $0.allSatisfy { $0.stringValue != nil } } ?? false
        }
      guard isRight else { throw RPCFailure(.invalidParameters, "\(name) must be of type \(kind.rawValue)") }
    }
  }
}

/// Every call there is; what is dispatched and what `supervisor calls` prints.
package enum CallTable {
  static let all: [Call] =
    basicCalls + permissionCalls + storeCalls + eventCalls + appCalls + memoryCalls + olderCalls + fileCalls
    + folderCalls + handleCalls + watchCalls

  static let named: [String: Call] = {
    var calls: [String: Call] = [:]
    for call in all { for name in [call.name] + call.aliases { calls[name] = call } }
    return calls
  }()

  /// The table for people and programs.
  package static var listing: [JSONValue] {
    all.map { call in
      .object([
        "call": .string(call.name), "aliases": .array(call.aliases.map { .string($0) }),
        "arguments": .array(
          call.arguments.map {
            .object(["name": .string($0.name), "type": .string($0.kind.rawValue), "required": .bool($0.isRequired)])
          }),
        "capability": call.right.map { .string($0.rawValue) } ?? .null, "summary": .string(call.summary),
      ])
    }
  }
}
