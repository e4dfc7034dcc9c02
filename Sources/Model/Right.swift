/// One kind of thing an app may ask of the supervisor, `area.verb`; all there are (app-api.md).
package enum Right: String, Sendable, CaseIterable {
  case log
  case time
  case systemInfo = "sys.info"
  case events
  case fileRead = "fs.read"
  case fileWrite = "fs.write"
  case fileCreate = "fs.create"
  case fileDelete = "fs.delete"
  case fileList = "fs.list"
  case spawn = "proc.spawn"
  case killProcess = "proc.kill"
  case inspectProcess = "proc.inspect"
  case launchApp = "app.launch"
  case stopApp = "app.stop"
  case inspectApp = "app.inspect"
  case sendSignal = "signal.send"
  case pipe = "ipc.pipe"
  case sharedMemory = "ipc.shm"
  case send = "ipc.send"
  case receive = "ipc.receive"
  case ownSchedule = "sched.self"
  case allSchedules = "sched.admin"
  case connect = "net.connect"
  case listen = "net.listen"
  case clipboard
  case notify = "ui.notify"
  case dialog = "ui.dialog"
  case window = "ui.window"

  /// What a right can be narrowed to.
  package enum ScopeKind: Sendable, Equatable {
    /// Nothing: it is held or not.
    case whole
    /// A path as the app sees it: `*` and `?` within a name, `**` at any depth.
    case path
    /// An app's id, with `*`.
    case app
    /// `queue/NAME`, with `*`.
    case name
    /// `HOST[:PORT]` or a CIDR.
    case address
    case port
  }

  package var scope: ScopeKind {
    switch self {
    case .log, .time, .systemInfo, .events, .spawn, .killProcess, .inspectProcess, .ownSchedule, .allSchedules,
      .clipboard, .notify, .dialog, .window:
      .whole
    case .fileRead, .fileWrite, .fileCreate, .fileDelete, .fileList: .path
    case .launchApp, .stopApp, .inspectApp, .sendSignal, .pipe, .sharedMemory: .app
    case .send, .receive: .name
    case .connect: .address
    case .listen: .port
    }
  }

  /// Whether there are calls that it opens.
  package var isBuilt: Bool {
    switch self {
    case .log, .time, .systemInfo, .events, .launchApp, .stopApp, .inspectApp, .fileRead, .fileWrite, .fileCreate,
      .fileDelete, .fileList:
      true
    default: false
    }
  }

  /// Names of the older format.
  package static let aliases: [String: Right] = [
    "FileRead": .fileRead, "FileWrite": .fileWrite, "FileCreate": .fileCreate, "FileDelete": .fileDelete,
    "FileList": .fileList, "SpawnProcess": .spawn, "ProcessSpawn": .spawn, "KillProcess": .killProcess,
    "ProcessKill": .killProcess, "LaunchApp": .launchApp, "NetworkAccess": .connect, "NetworkListen": .listen,
    "IpcSend": .send, "IpcReceive": .receive, "SignalSend": .sendSignal, "SystemInfo": .systemInfo, "Time": .time,
    "Log": .log, "Clipboard": .clipboard, "Notification": .notify, "ShowNotification": .notify,
    "ShowDialog": .dialog,
  ]
}

/// A right with what it is narrowed to, as policies and people write it: `log`, `fs.read:/data/**`, `ipc.send:queue/orders`.
package struct Permission: Sendable, Hashable, CustomStringConvertible {
  package let right: Right
  /// Nil: on anything.
  package let scope: String?

  package init(_ right: Right, _ scope: String? = nil) {
    self.right = right
    self.scope = scope
  }

  /// Why a text is no permission, for people.
  package struct Problem: Error, Sendable, Equatable {
    package var message: String
    package var hint: String?
  }

  /// Reads one; older names are taken for today's.
  package init(parsing text: String) throws(Problem) {
    let parts = text.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map { String($0) }
    guard let right = Right(rawValue: parts[0]) ?? Right.aliases[parts[0]] else {
      throw Problem(
        message: "there is no permission '\(parts[0])'",
        hint: "there are: \(Right.allCases.map(\.rawValue).joined(separator: ", "))")
    }
    self.right = right
    guard parts.count == 2 else {
      scope = nil
      return
    }
    scope = parts[1]
    guard Self.isScope(parts[1], right.scope) else {
      throw Problem(
        message: "'\(parts[1])' is nothing that \(right.rawValue) can be narrowed to", hint: right.scope.hint)
    }
  }

  package var description: String { scope.map { "\(right.rawValue):\($0)" } ?? right.rawValue }

  /// Nothing that could make one question to a person look like another.
  private static func isVisible(_ scalar: Unicode.Scalar) -> Bool {
    switch scalar.properties.generalCategory {
    case .control, .format, .surrogate, .privateUse, .unassigned, .lineSeparator, .paragraphSeparator, .spaceSeparator:
      false
    default: true
    }
  }

  private static func isScope(_ text: String, _ kind: Right.ScopeKind) -> Bool {
    let isPlain =
      (1...1024).contains(text.utf8.count) && text.unicodeScalars.allSatisfy { isVisible($0) }
    guard isPlain else { return false }
    switch kind {
    case .whole: return false
    case .path:
      let names = text.split(separator: "/", omittingEmptySubsequences: false).dropFirst()
      return text == "/" || (text.hasPrefix("/") && names.allSatisfy { !["", ".", ".."].contains($0) })
    case .app: return text.utf8.allSatisfy { isNameByte($0) || $0 == UInt8(ascii: "*") }
    case .name:
      let parts = text.split(separator: "/", omittingEmptySubsequences: false)
      return parts.count == 2 && parts[0] == "queue"
        && parts[1].utf8.allSatisfy { isNameByte($0) || $0 == UInt8(ascii: "*") } && !parts[1].isEmpty
    case .address: return text.utf8.allSatisfy { isNameByte($0) || [0x2F, 0x3A, 0x5B, 0x5D, 0x2A].contains($0) }
    case .port: return UInt16(text).map { $0 > 0 } ?? false
    }
  }

  private static func isNameByte(_ byte: UInt8) -> Bool {
    (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte)
      || [0x2D, 0x2E, 0x5F].contains(byte)
  }
}

extension Right.ScopeKind {
  fileprivate var hint: String {
    switch self {
    case .whole: "it is held or not: leave the colon and what follows out"
    case .path: "an absolute path as the app sees it, with * and ** for any: /data/**"
    case .app: "an app's id, with * for any rest"
    case .name: "queue/NAME, with * for any rest"
    case .address: "HOST, HOST:PORT, or addresses as 10.0.0.0/8:5432"
    case .port: "a port"
    }
  }
}

/// The permissions of an app, and what it must not do whatever else says it may.
package struct Permissions: Sendable, Equatable {
  package var granted: [Permission] = []
  package var denied: [Permission] = []
  package init() {}
}
