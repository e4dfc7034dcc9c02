internal import Glibc
package import Model

/// The kernel's clocks.
package enum Clock {
  /// The wall clock now.
  package static func wall() -> WallTime { WallTime(nanoseconds: read(CLOCK_REALTIME)) }

  /// Nanoseconds since boot, suspend included; the same in every process, never set back.
  package static func boot() -> Int64 { read(CLOCK_BOOTTIME) }

  /// Nanoseconds of the monotonic clock.
  package static func monotonic() -> Int64 { read(CLOCK_MONOTONIC) }

  private static func read(_ clock: clockid_t) -> Int64 {
    var time = timespec()
    // clock_gettime(2) cannot fail for these clocks and a valid pointer.
    clock_gettime(clock, &time)
    return Int64(time.tv_sec) * 1_000_000_000 + Int64(time.tv_nsec)
  }
}

/// How much this host can do at once.
package enum ProcessorCount {
  /// Processors that are online now (sysconf(3)); at least 1.
  package static var online: Int { max(1, sysconf(Int32(_SC_NPROCESSORS_ONLN))) }
}
