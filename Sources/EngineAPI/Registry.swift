internal import Model

/// A login to a registry. It never shows itself in a text or a mirror.
package struct RegistryCredentials: Sendable, Equatable, CustomStringConvertible, CustomReflectable {
  /// `registry.example.org:5000`.
  package var server: String
  package var username: String
  package var password: String
  /// A token from an earlier login, in place of the password.
  package var identityToken: String?

  package init(server: String, username: String, password: String, identityToken: String? = nil) {
    self.server = server
    self.username = username
    self.password = password
    self.identityToken = identityToken
  }

  package var description: String { "credentials for \(server)" }
  package var customMirror: Mirror { Mirror(self, children: []) }

  var json: JSONValue {
    .object([
      "username": .string(username), "password": identityToken == nil ? .string(password) : nil,
      "serveraddress": .string(server), "identitytoken": identityToken.map { .string($0) },
    ])
  }

  /// The X-Registry-Auth header's value: the document in base64url, padded (RFC 4648).
  var header: String { Self.base64(Array(json.text.utf8)) }

  /// What must not be seen in errors.
  var secrets: [String] { [password, identityToken ?? "", header].filter { !$0.isEmpty } }

  static func base64(_ bytes: [UInt8]) -> String {
    let alphabet = Array("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".utf8)
    var result: [UInt8] = []
    for start in stride(from: 0, to: bytes.count, by: 3) {
      let group = bytes[start..<min(start + 3, bytes.count)]
      let value = group.reduce(0) { $0 << 8 | Int($1) } << (8 * (3 - group.count))
      for position in 0..<4 {
        let digit = alphabet[value >> (18 - 6 * position) & 63]
        result.append(position <= group.count ? digit : UInt8(ascii: "="))
      }
    }
    return String(decoding: result, as: UTF8.self)
  }
}

extension Engine {
  /// `POST /auth`: has the Engine try a login at its registry. Returns a token to use in place of the password, if the registry gave
  /// one. `unauthorized`: the registry does not know them; `refused`: it cannot be reached. Nothing is kept by the Engine.
  package func login(_ credentials: RegistryCredentials) async throws(EngineFailure) -> String? {
    var request = request(.post, "/auth", "log in to \(credentials.server)")
    request.body = .json(credentials.json)
    request.secrets = credentials.secrets
    do throws(EngineFailure) {
      let token = try await document(request).text("IdentityToken")
      return token.isEmpty ? nil : token
    } catch .refused(let operation, 500, let message) where message.contains("401 Unauthorized") {
      // Both engines pass the registry's 401 on inside a 500.
      throw .unauthorized(operation: operation, message: message)
    }
  }
}

extension Request {
  /// Adds a registry login, and hides it in errors.
  mutating func authorize(_ credentials: RegistryCredentials?) {
    guard let credentials else { return }
    headers.append(("X-Registry-Auth", credentials.header))
    secrets += credentials.secrets
  }
}
