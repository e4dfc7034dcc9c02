internal import CLinux
internal import Glibc

/// A few threads for work that may wait for a disk. What is given under one key runs one after the other, so whoever has much to do, or
/// waits for a disk that does not answer, holds one thread and leaves the others to others.
///
/// These threads may be somebody else, or see other mounts, than the process they are of. A thread that one of them makes would be so
/// too, and whoever wakes a task may make one for it: so outcomes are handed over to an event loop, whose thread wakes the task.
package final class Workers: @unchecked Sendable {
  // SAFETY: everything below `lock` is touched only while holding it.

  private typealias Job = () -> Void

  private let name: String
  private let loop: EventLoop
  private let most: Int
  private let prepare: @Sendable () throws(SystemFault) -> Void
  private let lock = UnsafeMutablePointer<pthread_mutex_t>.allocate(capacity: 1)
  private let signal = UnsafeMutablePointer<pthread_cond_t>.allocate(capacity: 1)
  private var waiting: [UInt64: [Job]] = [:]
  /// Keys with work of which none runs, in the order they came.
  private var ready: [UInt64] = []
  private var threads = 0
  private var idle = 0
  private var isStopped = false

  /// At most `most` threads, made as they are needed; each runs `prepare` first, and no work if that fails. `name` (at most 15 bytes)
  /// shows in /proc. Outcomes come by way of `loop`, which must live as long.
  package init(name: String, most: Int, on loop: EventLoop, prepare: @escaping @Sendable () throws(SystemFault) -> Void)
  {
    self.name = name
    self.loop = loop
    self.most = most
    self.prepare = prepare
    pthread_mutex_init(lock, nil)
    pthread_cond_init(signal, nil)
  }

  deinit {
    pthread_cond_destroy(signal)
    pthread_mutex_destroy(lock)
    signal.deallocate()
    lock.deallocate()
  }

  /// Runs `body` on one of the threads, after what was given under `key` before. Throws if no thread can be had.
  package func run<Result: Sendable>(_ key: UInt64, _ body: @escaping @Sendable () -> Result) async throws(SystemFault)
    -> Result
  {
    let made: Swift.Result<Result, SystemFault> = await withCheckedContinuation { continuation in
      let fault = give(key) { [loop] in
        let result = body()
        loop.submit { continuation.resume(returning: .success(result)) }
      }
      if let fault { continuation.resume(returning: .failure(fault)) }
    }
    return try made.get()
  }

  /// The threads end once nothing waits. What is given later is refused.
  package func stop() {
    pthread_mutex_lock(lock)
    isStopped = true
    pthread_cond_broadcast(signal)
    pthread_mutex_unlock(lock)
  }

  private func give(_ key: UInt64, _ job: @escaping Job) -> SystemFault? {
    pthread_mutex_lock(lock)
    defer { pthread_mutex_unlock(lock) }
    guard !isStopped else { return SystemFault(call: "pthread_create", subject: name, code: ESHUTDOWN) }
    // Those that wait may be meant for what stands there already; so may the new one, by the time it has begun.
    while idle <= ready.count, threads < most {
      guard let fault = begin() else { continue }
      guard threads > 0 else { return fault }
      break
    }
    if waiting[key] == nil {
      waiting[key] = [job]
      ready.append(key)
      // Of all who wait, also for a thread to begin, one can take it.
      pthread_cond_broadcast(signal)
    } else {
      waiting[key]?.append(job)
    }
    return nil
  }

  /// Makes a thread, which has been prepared when this returns.
  private func begin() -> SystemFault? {
    let start = Start(self)
    var identity = pthread_t()
    let failure = pthread_create(
      &identity, nil,
      { pointer in
        guard let pointer else { return nil }
        let start = Unmanaged<Start>.fromOpaque(pointer).takeRetainedValue()
        start.workers.serve(start)
        return nil
      }, Unmanaged.passRetained(start).toOpaque())
    guard failure == 0 else {
      Unmanaged.passUnretained(start).release()
      return SystemFault(call: "pthread_create", subject: name, code: failure)
    }
    pthread_detach(identity)
    while !start.isOver { pthread_cond_wait(signal, lock) }
    return start.fault
  }

  private final class Start {
    let workers: Workers
    var isOver = false
    var fault: SystemFault?
    init(_ workers: Workers) { self.workers = workers }
  }

  private func serve(_ start: Start) {
    _ = cl_name_thread(String(name.prefix(15)))
    var fault: SystemFault?
    do throws(SystemFault) { try prepare() } catch { fault = error }
    pthread_mutex_lock(lock)
    start.isOver = true
    start.fault = fault
    if fault == nil { threads += 1 }
    pthread_cond_broadcast(signal)
    while fault == nil {
      if ready.isEmpty {
        if isStopped { break }
        idle += 1
        pthread_cond_wait(signal, lock)
        idle -= 1
        continue
      }
      let key = ready.removeFirst()
      guard let job = waiting[key]?.removeFirst() else { continue }
      pthread_mutex_unlock(lock)
      job()
      pthread_mutex_lock(lock)
      if waiting[key]?.isEmpty == false { ready.append(key) } else { waiting[key] = nil }
    }
    if fault == nil { threads -= 1 }
    pthread_mutex_unlock(lock)
  }
}
