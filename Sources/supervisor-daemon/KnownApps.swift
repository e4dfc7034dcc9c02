internal import Calls
internal import Cgroups
internal import Control
internal import Linux
internal import Model
internal import RPC
internal import Supervision

/// What apps ask about apps, from the supervision and the kernel.
struct KnownApps: AppKeeper {
  let supervisor: Supervisor
  let reclaiming: Reclaiming

  init(_ supervisor: Supervisor) throws(SystemFault) {
    self.supervisor = supervisor
    reclaiming = try Reclaiming()
  }

  func tell(_ name: String, _ app: AppID, _ fields: [String: JSONValue]) async {
    await supervisor.note(name, app, fields)
  }

  func apps(_ ids: [AppID]?) async -> [KnownApp] {
    await supervisor.reports(ids).map { report in
      KnownApp(
        id: report.id, stack: report.stack, runtime: report.runtime, state: report.word, status: report.status,
        health: report.health?.word, isReady: report.isReady, restarts: report.restarts,
        startedAt: report.facts?.startedAt, exitCode: report.exit?.exitCode)
    }
  }

  func launch(_ app: AppID) async throws(RPCFailure) {
    guard let known = await apps([app]).first else { throw RPCFailure(.notFound, "no app is named '\(app)'") }
    switch known.state {
    case .created, .exited, .failed, .completed, .scheduled: break
    case .running, .paused, .restarting, .dead, .pending, .pulling, .starting, .stopping, .backoff:
      throw RPCFailure(
        .conflict, "\(app) is \(known.state.rawValue) already", hint: "app.stop ends it; app.exited tells when it has")
    }
    do throws(OperationFailure) { try await supervisor.want(.running, [app]) } catch { throw RPCFailure(error) }
  }

  func stop(_ app: AppID) async throws(RPCFailure) {
    do throws(OperationFailure) { try await supervisor.want(.stopped, [app]) } catch { throw RPCFailure(error) }
  }

  func end(_ instance: Instance, code: Int32) async throws(RPCFailure) {
    await begun(instance.app)
    do throws(OperationFailure) { try await supervisor.end(instance, code: code) } catch { throw RPCFailure(error) }
  }

  /// An app that asks runs, though its start may not be over: what is known of it then comes in a moment.
  private func begun(_ app: AppID) async {
    for _ in 0..<100 where await supervisor.isStarting(app) {
      // Cancelled: the caller is gone, and hears no answer.
      do { try await Task.sleep(for: .milliseconds(50)) } catch { return }
    }
  }

  func usage(_ app: AppID) async -> Usage? {
    await begun(app)
    var series = StatisticsSeries()
    return await supervisor.statistics([app], &series).first?.usage
  }

  func limits(_ app: AppID) async throws(RPCFailure) -> [LayerReport] {
    await begun(app)
    do throws(HostFailure) { return try await supervisor.layers(app) } catch {
      throw RPCFailure(.fault, error.message, hint: error.hint)
    }
  }

  func reclaim(_ cgroup: String, _ bytes: UInt64?) async throws(RPCFailure) {
    let isDone: Bool
    do throws(SystemFault) {
      let group = AppCgroup(try CgroupHierarchy.detect(), path: cgroup, kind: .native)
      isDone = try await reclaiming.reclaim(group, bytes)
    } catch { throw RPCFailure(.fault, "the kernel did not take memory back: \(error)") }
    guard isDone else {
      throw RPCFailure(
        .unsupported, "this kernel does not take back a part of an app's memory",
        hint: "without bytes it may take all it finds; a part can be asked for since Linux 5.19 with cgroup v2")
    }
  }
}

/// A thread for what the kernel does before it returns.
actor Reclaiming {
  private nonisolated let loop: EventLoop
  nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  init() throws(SystemFault) { loop = try EventLoop(name: "reclaim") }

  deinit { loop.stop() }

  func reclaim(_ group: AppCgroup, _ bytes: UInt64?) throws(SystemFault) -> Bool { try group.reclaim(bytes) }
}
