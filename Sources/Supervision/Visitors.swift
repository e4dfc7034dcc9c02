package import Model
internal import Synchronization

/// Somebody who is to be at an app's streams from its first instruction on.
final class Visitor: Sendable {
  let request: AttachRequest
  private let orders: AsyncStream<ExecOrder>
  private let feed: AsyncStream<ExecOrder>.Continuation
  private struct State {
    var result: Result<Void, HostFailure>?
    /// Wait for the end, or for being there.
    var waiting: [CheckedContinuation<Void, Never>] = []
    var isThere = false
    var work: [Task<Void, Never>] = []
  }
  // Guards: all of it.
  private let state = Mutex(State())

  init(_ request: AttachRequest) {
    (orders, feed) = AsyncStream.makeStream(bufferingPolicy: .bufferingNewest(64))
    self.request = request
  }

  /// The terminal's size, if it has one.
  var size: TerminalSize? { if case .connect(_, let size, _) = request.streams { size } else { nil } }

  /// Returns once the streams are joined, or cannot be.
  func enter(_ instance: Instance, _ launch: Launch, _ host: any AppHost) async {
    guard case .connect(let input, let size, let connect) = request.streams else { return }
    var joined = request
    joined.orders = orders
    joined.streams = .connect(input: input, terminal: size) { (ends) throws(HostFailure) in
      try await connect(ends)
      self.change { $0.isThere = true }
    }
    let given = request.orders
    let request = joined
    let work = [
      Task {
        do throws(HostFailure) {
          try await host.attach(instance, launch, request)
          self.finish(.success(()))
        } catch { self.finish(.failure(error)) }
      },
      Task { if let given { for await order in given { self.feed.yield(order) } } },
    ]
    change { $0.work = work }
    await wait { $0.isThere || $0.result != nil }
  }

  /// The program runs: now its terminal can be given a size.
  func began() { if let size { feed.yield(.resize(size)) } }

  func finish(_ result: Result<Void, HostFailure>) { change { $0.result = $0.result ?? result } }

  /// The caller is gone.
  func leave() {
    let work = state.withLock { $0.work }
    for task in work { task.cancel() }
    if work.isEmpty { finish(.success(())) }
  }

  /// How it ended, once it has.
  func end() async -> Result<Void, HostFailure> {
    await wait { $0.result != nil }
    feed.finish()
    return state.withLock { $0.result } ?? .success(())
  }

  private func change(_ body: @Sendable (inout State) -> Void) {
    let waiting = state.withLock { state in
      body(&state)
      defer { state.waiting = [] }
      return state.waiting
    }
    for continuation in waiting { continuation.resume() }
  }

  private func wait(until isOver: @Sendable (borrowing State) -> Bool) async {
    while !state.withLock({ isOver($0) }) {
      await withCheckedContinuation { continuation in
        let isLate = state.withLock { state in
          guard !isOver(state) else { return true }
          state.waiting.append(continuation)
          return false
        }
        if isLate { continuation.resume() }
      }
    }
  }
}

extension Supervisor {
  /// Joins the caller to an app's streams until the run has ended; a caller that is cancelled leaves the app as it is. With
  /// `starting`, one that rests is started, and the caller misses nothing.
  package func attach(_ id: AppID, _ request: AttachRequest, starting: Bool) async throws(OperationFailure) {
    guard let record = apps[id] else { throw .noSuchApp(id) }
    guard starting else {
      guard case .running(let instance, _, _) = record.life.stage, let launch = record.launch,
        let host = setup.hosts[record.runtime]
      else { throw .notRunning(id) }
      do throws(HostFailure) { try await host.attach(instance, launch, request) } catch { throw .host(error) }
      return
    }
    guard record.life.isAtRest else {
      throw .host(HostFailure(.conflict, "\(id) runs already", hint: "`supervisor attach \(id)` joins it"))
    }
    let visitor = Visitor(request)
    apps[id]?.visitors.append(visitor)
    do throws(OperationFailure) { try await want(.running, [id]) } catch {
      apps[id]?.visitors.removeAll { $0 === visitor }
      throw error
    }
    let result = await withTaskCancellationHandler {
      await visitor.end()
    } onCancel: {
      visitor.leave()
    }
    apps[id]?.visitors.removeAll { $0 === visitor }
    do throws(HostFailure) { try result.get() } catch { throw .host(error) }
  }

  /// What the next run needs to know of who will be there.
  func expect(_ visitors: [Visitor], _ launch: inout Launch) {
    launch.terminalSize = visitors.lazy.compactMap(\.size).first
    launch.inputOnce = visitors.contains { $0.request.endsInput }
  }

  /// Who waits for the run that is about to start.
  func welcome(_ id: AppID) -> [Visitor] {
    guard let record = apps[id], record.life.preStart == nil else { return [] }
    if record.life.debug != nil { return record.debugger.map { [$0.visitor] } ?? [] }
    apps[id]?.visitors = []
    return record.visitors
  }

  /// There will be no run for them.
  func dismiss(_ id: AppID, _ why: String) {
    let visitors = apps[id]?.visitors ?? []
    apps[id]?.visitors = []
    for visitor in visitors { visitor.finish(.failure(HostFailure(.failed, "\(id) was not started: \(why)"))) }
  }
}
