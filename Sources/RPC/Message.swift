package import Model

/// A request's id, returned with its answer.
package enum RPCID: Hashable, Sendable {
  case number(Int64)
  case text(String)

  package var json: JSONValue {
    switch self {
    case .number(let value): .integer(value)
    case .text(let value): .string(value)
    }
  }

  package init?(_ value: JSONValue) {
    switch value {
    case .integer(let number): self = .number(number)
    case .string(let text) where text.utf8.count <= 128: self = .text(text)
    default: return nil
    }
  }
}

/// What a call answers when it does not succeed; the codes are those of app-api.md.
package struct RPCFailure: Error, Sendable, Equatable {
  package enum Code: Int64, Sendable {
    case parse = -32700
    case invalidRequest = -32600
    case unknownMethod = -32601
    case invalidParameters = -32602
    case fault = -32603
    case denied = -32001
    case notFound = -32002
    case quota = -32003
    case tooLarge = -32004
    case rate = -32005
    case conflict = -32006
    case timedOut = -32007
    case revoked = -32008
    case closed = -32009
    case unsupported = -32010
  }
  package var code: Int64
  package var message: String
  package var data: JSONValue?

  package init(_ code: Code, _ message: String, hint: String? = nil, data: JSONValue? = nil) {
    self.init(code: code.rawValue, message: message, data: data ?? hint.map { ["hint": .string($0)].json })
  }

  package init(code: Int64, message: String, data: JSONValue? = nil) {
    self.code = code
    self.message = message
    self.data = data
  }

  /// What to do about it, if the answer says so.
  package var hint: String? { data?["hint"]?.stringValue }

  package var json: JSONValue { .object(["code": .integer(code), "message": .string(message), "data": data]) }
}

extension Dictionary where Key == String, Value == JSONValue {
  fileprivate var json: JSONValue {
    var object = JSONObject()
    for (key, value) in self { object[key] = value }
    return .object(object)
  }
}

/// One request or notification as it was sent.
struct IncomingCall {
  var id: RPCID?
  var method: String
  var parameters: JSONValue

  /// Reads one element of a frame; the failure carries the id to answer, if there was one.
  static func read(_ value: JSONValue) -> Result<IncomingCall, RejectedCall> {
    guard let object = value.objectValue else {
      return .failure(RejectedCall(nil, .invalidRequest, "a request is an object"))
    }
    var id: RPCID?
    if let given = object["id"], !given.isNull {
      id = RPCID(given)
      guard id != nil else {
        return .failure(RejectedCall(nil, .invalidRequest, "an id is a whole number or a short string"))
      }
    }
    guard object["jsonrpc"] == "2.0" else {
      return .failure(RejectedCall(id, .invalidRequest, "jsonrpc must be \"2.0\""))
    }
    guard let method = object["method"]?.stringValue else {
      return .failure(RejectedCall(id, .invalidRequest, "method is missing"))
    }
    let parameters = object["params"] ?? .object([:])
    switch parameters {
    case .object, .array: return .success(IncomingCall(id: id, method: method, parameters: parameters))
    default: return .failure(RejectedCall(id, .invalidRequest, "params must be an object or a list"))
    }
  }
}

struct RejectedCall: Error {
  var id: RPCID?
  var failure: RPCFailure
  init(_ id: RPCID?, _ code: RPCFailure.Code, _ message: String) {
    self.id = id
    failure = RPCFailure(code, message)
  }
}

/// Messages as they are written.
enum Outgoing {
  static func result(_ id: RPCID, _ value: JSONValue) -> JSONValue {
    .object(["jsonrpc": "2.0", "id": id.json, "result": value])
  }

  static func failure(_ id: RPCID?, _ failure: RPCFailure) -> JSONValue {
    .object(["jsonrpc": "2.0", "id": id?.json ?? .null, "error": failure.json])
  }

  /// One item of the stream that the request `id` opened.
  static func item(_ id: RPCID, _ value: JSONValue) -> JSONValue {
    .object(["jsonrpc": "2.0", "method": "$/item", "params": .object(["id": id.json, "item": value])])
  }

  static func notice(_ method: String, _ parameters: JSONValue) -> JSONValue {
    .object(["jsonrpc": "2.0", "method": .string(method), "params": parameters])
  }

  static func request(_ id: Int64, _ method: String, _ parameters: JSONValue) -> JSONValue {
    .object(["jsonrpc": "2.0", "id": .integer(id), "method": .string(method), "params": parameters])
  }

  static func cancel(_ id: Int64) -> JSONValue {
    .object(["jsonrpc": "2.0", "method": "$/cancel", "params": .object(["id": .integer(id)])])
  }
}
