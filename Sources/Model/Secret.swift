/// Something an app may know and nobody else: a policy holds its name and where it lies, never its content.
package struct Secret: Sendable, Equatable {
  /// Where its content is read from, at each start.
  package enum Origin: Sendable, Equatable {
    /// `secrets/NAME` in the instance's configuration folder.
    case instance
    /// An absolute path of the host.
    case file(String)
    /// A credential that systemd gave the daemon (systemd.exec(5), `LoadCredential=`).
    case credential(String)
  }

  /// Its name, unique in the policy.
  package var name: String
  package var origin: Origin
  /// The file's name in `Secret.folder`; nil: it is only taken by `environment`.
  package var target: String?
  /// As the app counts them: of its own block where it has one. Nil: the app's own.
  package var uid: UInt32?
  package var gid: UInt32?
  /// Permission bits, none of them to execute. Nil: read-only for its owner, or for all of the app where the image says who it is.
  package var mode: UInt32?

  package init(
    name: String, origin: Origin, target: String?, uid: UInt32? = nil, gid: UInt32? = nil, mode: UInt32? = nil
  ) {
    self.name = name
    self.origin = origin
    self.target = target
    self.uid = uid
    self.gid = gid
    self.mode = mode
  }

  /// Where an app finds its secrets.
  package static let folder = "/run/secrets"
}

extension Policy {
  /// The secrets that `environment` names and `secrets` does not, beside those it does.
  package var allSecrets: [Secret] {
    var all = secrets
    for entry in environment {
      guard let name = entry.secret, !all.contains(where: { $0.name == name }) else { continue }
      all.append(Secret(name: name, origin: .instance, target: nil))
    }
    return all
  }

  /// Whether any of its secrets is a file.
  package var hasSecretFiles: Bool { secrets.contains { $0.target != nil } }
}
