/// Which instance a command means, and where its folders are (cli.md, "Files").
package enum InstancePlace: Sendable, Equatable {
  /// `--root DIR`: everything under one folder.
  case root(String)
  case system
  /// A user's own, by the XDG base directory specification.
  case user

  /// The folders of this instance.
  package struct Folders: Sendable, Equatable {
    package var config: String
    package var state: String
    package var run: String
    package var log: String

    /// The control socket.
    package var socket: String { "\(run)/supervisor.sock" }
  }

  /// `environment` gives HOME and the XDG variables; without a HOME a user has no place.
  package func folders(_ environment: [String: String], uid: UInt32) -> Folders? {
    switch self {
    case .root(let root):
      return Folders(config: "\(root)/config", state: "\(root)/state", run: "\(root)/run", log: "\(root)/log")
    case .system:
      return Folders(
        config: "/etc/appsupervisor", state: "/var/lib/appsupervisor", run: "/run/appsupervisor",
        log: "/var/log/appsupervisor")
    case .user:
      guard let home = environment["HOME"], home.hasPrefix("/") else { return nil }
      func place(_ variable: String, _ fallback: String) -> String {
        let given = environment[variable].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? fallback
        return "\(given)/appsupervisor"
      }
      let state = place("XDG_STATE_HOME", "\(home)/.local/state")
      return Folders(
        config: place("XDG_CONFIG_HOME", "\(home)/.config"), state: state,
        run: place("XDG_RUNTIME_DIR", "/run/user/\(uid)"), log: "\(state)/log")
    }
  }

  /// The flags that name this instance to another program of ours.
  package var arguments: [String] {
    switch self {
    case .root(let root): ["--root", root]
    case .system: ["--system"]
    case .user: ["--user"]
    }
  }
}

/// This build.
package enum Build {
  package static let version = "0.1.0"
}
