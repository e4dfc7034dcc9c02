package import Linux
package import Model

/// A call's named arguments; every one must be known, present if needed, and of its type.
package struct Arguments: Sendable {
  package let object: JSONObject
  /// Of this one.
  package let call: RPCCall
  /// Who asks, as the kernel says.
  package var peer: PeerCredentials { call.peer }

  package init(_ call: RPCCall, _ known: [String]) throws(RPCFailure) {
    self.call = call
    switch call.parameters {
    case .object(let object): self.object = object
    default: throw RPCFailure(.invalidParameters, "arguments are given by name")
    }
    for key in object.keys where !known.contains(key) {
      throw RPCFailure(
        .invalidParameters, "\(call.method) has no argument '\(key)'",
        hint: "it takes: \(known.joined(separator: ", "))")
    }
  }

  package func text(_ key: String) throws(RPCFailure) -> String? {
    guard let value = object[key], !value.isNull else { return nil }
    guard let text = value.stringValue else { throw wrong(key, "a string") }
    return text
  }

  package func flag(_ key: String) throws(RPCFailure) -> Bool {
    guard let value = object[key], !value.isNull else { return false }
    guard let flag = value.boolValue else { throw wrong(key, "true or false") }
    return flag
  }

  package func integer(_ key: String) throws(RPCFailure) -> Int64? {
    guard let value = object[key], !value.isNull else { return nil }
    guard let number = value.integerValue else { throw wrong(key, "a whole number") }
    return number
  }

  /// Milliseconds, at most a year of them.
  package func duration(_ key: String) throws(RPCFailure) -> Duration? {
    guard let number = try integer(key) else { return nil }
    guard 0...31_536_000_000 ~= number else { throw wrong(key, "milliseconds, at most a year") }
    return .milliseconds(number)
  }

  package func texts(_ key: String) throws(RPCFailure) -> [String]? {
    guard let value = object[key], !value.isNull else { return nil }
    guard let list = value.arrayValue else { throw wrong(key, "a list of strings") }
    var texts: [String] = []
    for item in list {
      guard let text = item.stringValue else { throw wrong(key, "a list of strings") }
      texts.append(text)
    }
    return texts
  }

  package func map(_ key: String) throws(RPCFailure) -> [String: String] {
    guard let value = object[key], !value.isNull else { return [:] }
    return try Self.map(value, key)
  }

  package static func map(_ value: JSONValue, _ key: String) throws(RPCFailure) -> [String: String] {
    guard let object = value.objectValue else {
      throw RPCFailure(.invalidParameters, "\(key) must be an object of strings")
    }
    var map: [String: String] = [:]
    for (name, member) in object {
      guard let text = member.stringValue else {
        throw RPCFailure(.invalidParameters, "\(key) must be an object of strings")
      }
      map[name] = text
    }
    return map
  }

  package func objects(_ key: String) throws(RPCFailure) -> [JSONObject] {
    guard let list = object[key]?.arrayValue else { throw wrong(key, "a list of objects") }
    var objects: [JSONObject] = []
    for item in list {
      guard let object = item.objectValue else { throw wrong(key, "a list of objects") }
      objects.append(object)
    }
    return objects
  }

  private func wrong(_ key: String, _ expected: String) -> RPCFailure {
    RPCFailure(.invalidParameters, "\(key) must be \(expected)")
  }
}
