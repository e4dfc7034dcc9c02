internal import CLinux
internal import Glibc
package import Model

/// Waiting for a time of the wall clock, which may be set meanwhile (timerfd_create(2), CLOCK_REALTIME).
package final class Alarms: Sendable {
  private let loop: EventLoop

  /// The waits are `loop`'s.
  package init(on loop: EventLoop) { self.loop = loop }

  /// Returns at `time`, or earlier if the clock is set or the caller is cancelled: look at it again.
  package func wait(until time: WallTime) async throws(SystemFault) {
    let timer = SharedDescriptor(
      Descriptor(owning: try checkShim("timerfd_create") { cl_wall_timer(time.nanoseconds) }))
    let wait = Wait(timer, loop)
    let failure: SystemFault? = await withTaskCancellationHandler {
      await withCheckedContinuation { continuation in
        loop.submit { wait.begin { continuation.resume(returning: $0) } }
      }
    } onCancel: {
      loop.submit { wait.end(nil) }
    }
    if let failure { throw failure }
  }

  private final class Wait: @unchecked Sendable {
    // SAFETY: every member is touched on the loop's thread only.
    private let timer: SharedDescriptor
    private let loop: EventLoop
    private var told: ((SystemFault?) -> Void)?
    private var isOver = false

    init(_ timer: SharedDescriptor, _ loop: EventLoop) {
      self.timer = timer
      self.loop = loop
    }

    func begin(_ told: @escaping (SystemFault?) -> Void) {
      guard !isOver else { return told(nil) }
      self.told = told
      do throws(SystemFault) {
        try timer.withRaw { (raw) throws(SystemFault) in try loop.watch(raw, .read) { [self] _ in end(nil) } }
      } catch { end(error) }
    }

    func end(_ failure: SystemFault?) {
      guard !isOver else { return }
      isOver = true
      timer.withRaw { loop.unwatch($0) }
      told?(failure)
      told = nil
    }
  }
}
