package import Model
package import RPC

/// Who runs the apps, as far as calls need it. What is handed over here was judged before; each text of a failure is for the app.
package protocol AppKeeper: Sendable {
  /// Tells the world that something happened to an app, and keeps it in the history of events.
  func tell(_ name: String, _ app: AppID, _ fields: [String: JSONValue]) async

  /// What is known of these apps, of all with nil; sorted by name.
  func apps(_ ids: [AppID]?) async -> [KnownApp]

  /// Wants it running; returns once that is stored, before it runs. Throws `notFound`, and `conflict` where it runs already.
  func launch(_ app: AppID) async throws(RPCFailure)

  /// Wants it stopped; returns once that is stored, before it has ended. Throws `notFound`.
  func stop(_ app: AppID) async throws(RPCFailure)

  /// Kills every process of a running instance; its run counts as ended with `code`.
  func end(_ instance: Instance, code: Int32) async throws(RPCFailure)

  /// What an app uses now, from the kernel; nil: it does not run.
  func usage(_ app: AppID) async -> Usage?

  /// Each limit and layer of a running app, as asked and as in force. May wait for the engine.
  func limits(_ app: AppID) async throws(RPCFailure) -> [LayerReport]

  /// Has the kernel take back memory of the group at `cgroup`, at most `bytes` of it; it returns when the kernel is done, within
  /// seconds. Throws `unsupported` where this kernel cannot.
  func reclaim(_ cgroup: String, _ bytes: UInt64?) async throws(RPCFailure)
}

/// An app as another app may see it.
package struct KnownApp: Sendable {
  package var id: AppID
  package var stack: String
  package var runtime: Runtime
  package var state: StateWord
  /// As `ps` says it.
  package var status: String
  package var health: HealthWord?
  /// Nil: it does not run.
  package var isReady: Bool?
  package var restarts: UInt32
  package var startedAt: WallTime?
  /// Of its last run.
  package var exitCode: Int32?

  package init(
    id: AppID, stack: String, runtime: Runtime, state: StateWord, status: String, health: HealthWord?, isReady: Bool?,
    restarts: UInt32, startedAt: WallTime?, exitCode: Int32?
  ) {
    self.id = id
    self.stack = stack
    self.runtime = runtime
    self.state = state
    self.status = status
    self.health = health
    self.isReady = isReady
    self.restarts = restarts
    self.startedAt = startedAt
    self.exitCode = exitCode
  }
}
