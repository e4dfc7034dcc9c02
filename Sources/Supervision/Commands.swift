package import Model

extension Supervisor {
  /// Runs a command inside a running app, and returns when it has ended.
  package func exec(_ id: AppID, _ request: ExecRequest) async throws(OperationFailure) -> ExecEnd {
    guard let record = apps[id] else { throw .noSuchApp(id) }
    guard case .running(let instance, _, let paused) = record.life.stage, let launch = record.launch,
      let host = setup.hosts[record.runtime]
    else { throw .notRunning(id) }
    guard !paused else {
      throw .host(HostFailure(.conflict, "\(id) is paused", hint: "`supervisor unpause \(id)` lets it go on"))
    }
    do throws(HostFailure) { return try await host.exec(instance, launch, request) } catch { throw .host(error) }
  }

  /// Tells that an operator looked into an app; not what the command was given, which can be a secret.
  package func noteExec(_ id: AppID, program: String, uid: UInt32) {
    save([tell("app.exec", id, ["program": .string(program), "uid": .integer(Int64(uid))])])
  }
}
