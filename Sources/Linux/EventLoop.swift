internal import CLinux
internal import Glibc
internal import Synchronization

/// One thread waiting in epoll(7): descriptors, timers and jobs, all run there one after the other.
///
/// It is also a serial executor: an actor whose `unownedExecutor` is this loop may touch what its handlers touch, and reaches its
/// own state from a handler with `assumeIsolated`. Nothing that blocks may run on it.
package final class EventLoop: SerialExecutor, @unchecked Sendable {
  // SAFETY: `watches`, `timers` and `nextTimer` are touched only on the loop's thread (checked by `precondition`); `inbox` is a Mutex.

  /// What a descriptor is waited for, and what it is ready for.
  package struct Interest: OptionSet, Sendable {
    package let rawValue: UInt32
    package init(rawValue: UInt32) { self.rawValue = rawValue }
    package static let read = Interest(rawValue: UInt32(EPOLLIN.rawValue))
    package static let write = Interest(rawValue: UInt32(EPOLLOUT.rawValue))
    /// The other end is gone, or an error waits; always reported.
    package static let hangUp = Interest(rawValue: UInt32(EPOLLHUP.rawValue) | UInt32(EPOLLERR.rawValue))
  }

  package typealias Handler = (Interest) -> Void

  /// A timer that can be taken back.
  package struct TimerID: Hashable, Sendable { fileprivate let number: UInt64 }

  private enum Work {
    case job(UnownedJob)
    case block(@Sendable () -> Void)
  }

  private struct Watch {
    var generation: UInt64
    var handler: Handler
  }

  private struct Timer {
    var deadline: Int64
    var id: TimerID
    var body: () -> Void
  }

  private let name: String
  private let epoll: Descriptor
  private let wake: Descriptor
  // Guards: work handed over from other threads, and whether the loop is to end.
  private let inbox = Mutex<(work: [Work], stopped: Bool)>(([], false))
  private var watches: [Int32: Watch] = [:]
  /// Sorted by deadline, the next one last.
  private var timers: [Timer] = []
  private var nextTimer: UInt64 = 1
  private var generation: UInt64 = 1
  private let thread: Mutex<pthread_t?> = Mutex(nil)

  /// Starts the thread. `name` (at most 15 bytes) shows in /proc.
  package init(name: String) throws(SystemFault) {
    self.name = name
    epoll = Descriptor(owning: try check("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
    wake = Descriptor(owning: try check("eventfd") { eventfd(0, Int32(EFD_CLOEXEC | EFD_NONBLOCK)) })
    var event = epoll_event(events: UInt32(EPOLLIN.rawValue), data: epoll_data_t(u64: UInt64(UInt32.max)))
    _ = try check("epoll_ctl") {
      epoll.withRaw { epoll in wake.withRaw { epoll_ctl(epoll, EPOLL_CTL_ADD, $0, &event) } }
    }
    let box = Unmanaged.passRetained(self)
    var identity = pthread_t()
    let failure = pthread_create(
      &identity, nil,
      { pointer in
        guard let pointer else { return nil }
        Unmanaged<EventLoop>.fromOpaque(pointer).takeRetainedValue().run()
        return nil
      }, box.toOpaque())
    guard failure == 0 else {
      box.release()
      throw SystemFault(call: "pthread_create", subject: name, code: failure)
    }
    thread.withLock { $0 = identity }
    _ = pthread_detach(identity)
  }

  // MARK: From any thread

  package func enqueue(_ job: consuming ExecutorJob) { hand(.job(UnownedJob(job))) }

  package func checkIsolated() { precondition(isCurrent, "not on the event loop") }

  /// Whether the caller is on this loop's thread.
  package var isCurrent: Bool {
    thread.withLock { identity in identity.map { pthread_equal($0, pthread_self()) != 0 } ?? false }
  }

  /// Runs `body` on the loop, after what was handed over before.
  package func submit(_ body: @escaping @Sendable () -> Void) { hand(.block(body)) }

  /// Ends the loop once what was handed over before has run. Nothing handed over later runs.
  package func stop() {
    inbox.withLock { $0.stopped = true }
    ring()
  }

  private func hand(_ work: Work) {
    let first = inbox.withLock { inbox in
      inbox.work.append(work)
      return inbox.work.count == 1
    }
    if first { ring() }
  }

  private func ring() {
    var one: UInt64 = 1
    // Best effort: it fails only when the counter is full, and then the loop is awake anyway.
    _ = wake.withRaw { write($0, &one, 8) }
  }

  // MARK: On the loop's thread

  /// Calls `handler` whenever `raw` is ready (level-triggered). The caller keeps the descriptor and calls `unwatch` before closing it.
  package func watch(_ raw: Int32, _ interest: Interest, _ handler: @escaping Handler) throws(SystemFault) {
    checkIsolated()
    generation += 1
    var event = epoll_event(
      events: interest.rawValue, data: epoll_data_t(u64: UInt64(UInt32(bitPattern: raw)) | generation << 32))
    try epoll.withRaw { (epoll) throws(SystemFault) in
      _ = try check("epoll_ctl", "add \(raw)") { epoll_ctl(epoll, EPOLL_CTL_ADD, raw, &event) }
    }
    watches[raw] = Watch(generation: generation, handler: handler)
  }

  /// Changes what a watched descriptor is waited for; an empty interest still reports hang-ups.
  package func setInterest(_ raw: Int32, _ interest: Interest) {
    checkIsolated()
    guard let watch = watches[raw] else { return }
    var event = epoll_event(
      events: interest.rawValue, data: epoll_data_t(u64: UInt64(UInt32(bitPattern: raw)) | watch.generation << 32))
    // It can only fail for a descriptor that was closed while watched, which is a fault of ours.
    let result = epoll.withRaw { epoll_ctl($0, EPOLL_CTL_MOD, raw, &event) }
    assert(result == 0, "a watched descriptor was closed")
  }

  package func unwatch(_ raw: Int32) {
    checkIsolated()
    guard watches.removeValue(forKey: raw) != nil else { return }
    var event = epoll_event()
    _ = epoll.withRaw { epoll_ctl($0, EPOLL_CTL_DEL, raw, &event) }
  }

  /// Runs `body` once after `delay`.
  @discardableResult
  package func schedule(after delay: Duration, _ body: @escaping () -> Void) -> TimerID {
    checkIsolated()
    let id = TimerID(number: nextTimer)
    nextTimer += 1
    let (seconds, attoseconds) = delay.components
    let nanoseconds = min(max(0, seconds), 1 << 32) * 1_000_000_000 + attoseconds / 1_000_000_000
    let timer = Timer(deadline: Self.now() + max(0, nanoseconds), id: id, body: body)
    let place = timers.firstIndex { $0.deadline <= timer.deadline } ?? timers.endIndex
    timers.insert(timer, at: place)
    return id
  }

  /// Takes a timer back; one that has fired is fine.
  package func cancel(_ id: TimerID) {
    checkIsolated()
    timers.removeAll { $0.id == id }
  }

  private static func now() -> Int64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }

  private func run() {
    thread.withLock { $0 = pthread_self() }
    // Best effort: the name is for people only.
    _ = cl_name_thread(String(name.prefix(15)))
    var events = [epoll_event](repeating: epoll_event(), count: 128)
    while true {
      let count = epoll.withRaw { epoll_wait($0, &events, Int32(events.count), timeout()) }
      for index in 0..<max(0, Int(count)) { dispatch(events[index]) }
      runTimers()
      guard drain() else { return }
    }
  }

  /// Milliseconds to the next timer, rounded up so that it is due when the wait ends; -1: none.
  private func timeout() -> Int32 {
    guard let next = timers.last else { return -1 }
    let rest = next.deadline - Self.now()
    return rest <= 0 ? 0 : Int32(clamping: (rest + 999_999) / 1_000_000)
  }

  private func dispatch(_ event: epoll_event) {
    let raw = Int32(bitPattern: UInt32(truncatingIfNeeded: event.data.u64))
    guard event.data.u64 != UInt64(UInt32.max) else {
      var count: UInt64 = 0
      _ = wake.withRaw { read($0, &count, 8) }
      return
    }
    // A stale event of a descriptor unwatched, or closed and reused, earlier in this same batch is for nobody.
    guard let watch = watches[raw], watch.generation & 0xFFFF_FFFF == event.data.u64 >> 32 else { return }
    watch.handler(Interest(rawValue: event.events))
  }

  private func runTimers() {
    let now = Self.now()
    while let next = timers.last, next.deadline <= now {
      timers.removeLast()
      next.body()
    }
  }

  /// Runs what other threads handed over; false when the loop is to end.
  private func drain() -> Bool {
    let (work, stopped) = inbox.withLock { inbox in
      defer { inbox.work.removeAll() }
      return (inbox.work, inbox.stopped)
    }
    for item in work {
      switch item {
      case .job(let job): job.runSynchronously(on: asUnownedSerialExecutor())
      case .block(let body): body()
      }
    }
    return !stopped
  }
}
