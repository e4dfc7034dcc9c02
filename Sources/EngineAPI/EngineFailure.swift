internal import Model

/// Why a call to an Engine failed. The description is for the user: what failed, why, and what to do next.
///
/// It never holds a password, an environment value or a header: what was sent as a secret is cut out of the Engine's words.
package enum EngineFailure: Error, Sendable, Hashable, CustomStringConvertible {
  /// No Engine answers at `socket`.
  case unreachable(socket: String, reason: String)
  /// No complete answer, or nothing on a stream, within the time allowed.
  case timedOut(operation: String, after: Duration)
  /// The Engine went away in the middle of an answer; whether it did what was asked is not known.
  case interrupted(operation: String)
  /// The Engine answered with an error `status`, in its own words.
  case refused(operation: String, status: Int, message: String)
  /// A registry does not know the login.
  case unauthorized(operation: String, message: String)
  /// 404: what the operation is about is not there.
  case notFound(operation: String, message: String)
  /// 409: the thing is in a state, or under a name, that forbids it.
  case conflict(operation: String, message: String)
  /// The answer is torn, too large, or not what the API promises.
  case malformed(operation: String, what: String)
  /// This Engine cannot do it, or not in a version we know.
  case unsupported(String)
  /// The bytes to send could not be had.
  case sourceFailed(operation: String, reason: String)
  /// The caller's task was cancelled, or the transport closed.
  case cancelled

  package var description: String {
    switch self {
    case .unreachable(let socket, let reason):
      "no container engine answers at \(socket): \(reason). Check that it runs and that you may open its socket"
    case .timedOut(let operation, let time):
      "the engine did not \(operation) within \(time.compact). It may be overloaded or hung; look at its log"
    case .interrupted(let operation):
      "the engine closed the connection before it had answered (\(operation)). It may have been restarted; look again at"
        + " the state of what this was about"
    case .refused(let operation, let status, let message):
      "the engine refused to \(operation): \(message) (status \(status))"
    case .unauthorized(let operation, let message):
      "could not \(operation): \(message). Check the name and the password"
    case .notFound(let operation, let message): "the engine could not \(operation): \(message)"
    case .conflict(let operation, let message): "the engine could not \(operation) now: \(message)"
    case .malformed(let operation, let what):
      "the engine's answer to \(operation) cannot be used: \(what). Check that the socket is a Docker or Podman Engine's"
    case .unsupported(let what): what
    case .sourceFailed(let operation, let reason): "could not \(operation): \(reason)"
    case .cancelled: "the call was cancelled"
    }
  }

  /// Whether trying the same again later can help.
  package var isTransient: Bool {
    switch self {
    case .unreachable, .timedOut, .interrupted: true
    case .refused(_, let status, _): status == 503 || status == 429
    case .unauthorized, .notFound, .conflict, .malformed, .unsupported, .sourceFailed, .cancelled: false
    }
  }

  /// The failure that an error answer stands for: its JSON `message` (Docker) or `cause` (Podman), else its text.
  static func answer(_ status: Int, _ body: [UInt8], to request: Request) -> EngineFailure {
    // Best effort: a text that is not JSON is shown as it is.
    let document = try? JSONValue(parsing: body, limits: .engine)
    let said = document?["message"]?.stringValue ?? document?["cause"]?.stringValue
    let words = said ?? String(decoding: body.prefix(512), as: UTF8.self)
    let message = Self.clean(words.isEmpty ? "it gave no reason" : words, hiding: request.secrets)
    return switch status {
    case 401: .unauthorized(operation: request.operation, message: message)
    case 404: .notFound(operation: request.operation, message: message)
    case 409: .conflict(operation: request.operation, message: message)
    default: .refused(operation: request.operation, status: status, message: message)
    }
  }

  /// One line of at most 2000 characters without control characters and without anything that was sent as a secret.
  static func clean(_ text: String, hiding secrets: [String]) -> String {
    var text = text
    for secret in secrets where !secret.isEmpty { text = replacing(secret, in: text) }
    var line = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(2000) {
      line.append(scalar.value < 32 || scalar.value == 127 ? " " : scalar)
    }
    while let last = line.last, last == " " { line.removeLast() }
    return String(line)
  }

  private static func replacing(_ secret: String, in text: String) -> String {
    let pattern = Array(secret.utf8)
    let bytes = Array(text.utf8)
    var result: [UInt8] = []
    var position = 0
    while position < bytes.count {
      if bytes[position...].starts(with: pattern) {
        result += "[hidden]".utf8
        position += pattern.count
      } else {
        result.append(bytes[position])
        position += 1
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}
