internal import Linux
package import Model
internal import Synchronization

/// An operator's command in the place of an app's program.
package struct DebugRequest: Sendable {
  /// The program and its arguments.
  package var command: [String]
  /// Besides the app's own; the same names win.
  package var environment: [(name: String, value: String)] = []
  package var attach: AttachRequest

  package init(_ command: [String], _ attach: AttachRequest) {
    self.command = command
    self.attach = attach
  }
}

/// Who debugs an app, until it is known how that ended.
final class Debugger: Sendable {
  let visitor: Visitor
  private let request: DebugRequest
  private struct State {
    var end: DebugEnd?
    var waiting: CheckedContinuation<DebugEnd, Never>?
  }
  // Guards: both.
  private let state = Mutex(State())

  init(_ request: DebugRequest) {
    self.request = request
    visitor = Visitor(request.attach)
  }

  /// The app's own run with another program, at the operator's streams, for as long as it takes, and checked by nobody.
  func dress(_ launch: inout Launch) {
    launch.instead = request.command
    launch.terminalSize = visitor.size
    launch.inputOnce = true
    var policy = launch.policy
    policy.opensInput = if case .connect(let input, _, _) = request.attach.streams { input } else { false }
    policy.terminal = visitor.size != nil
    policy.healthcheck = Healthcheck(.none)
    policy.readiness = .started
    policy.limits.maximumRuntime = nil
    for entry in request.environment {
      policy.environment.removeAll { $0.name == entry.name }
      policy.environment.append(Policy.EnvironmentEntry(name: entry.name, value: entry.value))
    }
    launch.policy = policy
  }

  /// A native app's policy with the command as its program.
  func instead(of policy: Policy) -> Policy? {
    guard policy.runtime == .native else { return nil }
    var policy = policy
    policy.entry = request.command
    return policy
  }

  func finish(_ end: DebugEnd) {
    let waiting = state.withLock { state in
      guard state.end == nil else { return nil as CheckedContinuation<DebugEnd, Never>? }
      state.end = end
      return state.waiting.take()
    }
    waiting?.resume(returning: end)
    if case .failed(let failure) = end { visitor.finish(.failure(failure)) }
  }

  func end() async -> DebugEnd {
    await withCheckedContinuation { continuation in
      let end = state.withLock { state in
        if state.end == nil { state.waiting = continuation }
        return state.end
      }
      if let end { continuation.resume(returning: end) }
    }
  }
}

extension Supervisor {
  /// Runs a command in the place of an app's program: its mounts, user, network and limits are the app's. What runs of the app ends
  /// first, and what it is wanted to be is held until the command has ended or the caller is cancelled.
  package func debug(_ id: AppID, _ request: DebugRequest) async throws(OperationFailure) -> ExecEnd {
    guard let record = apps[id] else { throw .noSuchApp(id) }
    guard record.debugger == nil, record.life.debug == nil else {
      throw .host(
        HostFailure(.conflict, "\(id) is being debugged already", hint: "one at a time: `supervisor exec` joins it"))
    }
    guard !isUpdating(record) else {
      throw .host(
        HostFailure(.conflict, "\(id) is being updated", hint: "try again when `supervisor ps` no longer says so"))
    }
    guard record.life.want != .removed else { throw .host(HostFailure(.conflict, "\(id) is being removed")) }
    if let closed = hindrance(record, debugs: true), closed.isFinal || setup.hosts[record.runtime] == nil {
      throw .host(HostFailure(.failed, "\(id) cannot be run: \(closed.reason)"))
    }
    let debugger = Debugger(request)
    apps[id]?.debugger = debugger
    send(.debug(true), to: id)
    let end = await withTaskCancellationHandler {
      await debugger.end()
    } onCancel: {
      Task { await self.stopDebugging(id, debugger) }
    }
    if apps[id]?.debugger === debugger { apps[id]?.debugger = nil }
    switch end {
    case .failed(let failure): throw .host(failure)
    case .exited(let report):
      // What it wrote arrives first; a caller who is gone waits for nothing.
      if Task.isCancelled { debugger.visitor.leave() }
      _ = await debugger.visitor.end()
      switch report.cause {
      case .code(let code): return ExecEnd(.code(code))
      case .signal(let number): return ExecEnd(.signal(number))
      case .neverStarted(_, let reason), .unknown(let reason): return ExecEnd(.lost(reason))
      }
    }
  }

  private func stopDebugging(_ id: AppID, _ debugger: Debugger) {
    guard apps[id]?.debugger === debugger else { return }
    debugger.visitor.leave()
    send(.debug(false), to: id)
    // One that never came to run has nothing to wait for.
    if apps[id]?.life.debug == nil { debugger.finish(.failed(HostFailure(.failed, "nobody debugs \(id) any more"))) }
  }
}
