internal import CLinux
internal import Glibc

/// A process by a descriptor, which never comes to mean another process (pidfd_open(2)). Readable once it has ended.
package struct Pidfd: ~Copyable, Sendable {
  private let descriptor: Descriptor

  package init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

  /// The process that has this number now; ESRCH if none has. The caller knows by other means that it is the one it wants.
  package init(of pid: Int32) throws(SystemFault) {
    descriptor = Descriptor(owning: try checkShim("pidfd_open", "\(pid)") { cl_pidfd_open(pid, 0) })
  }

  /// The process that has this number now, if it lies in the cgroup `path` or below it, in any hierarchy; ESRCH if not. `path` is as in
  /// /proc/PID/cgroup.
  package init(of pid: Int32, in path: String) throws(SystemFault) {
    let process = try Pidfd(of: pid)
    let text: String
    do throws(SystemFault) { text = try File.text("/proc/\(pid)/cgroup") } catch {
      throw SystemFault(call: "pidfd_open", subject: "\(pid)", code: ESRCH)
    }
    let isInside = text.split(separator: "\n").contains { line in
      let place = line.split(separator: ":", maxSplits: 2, omittingEmptySubsequences: false).last ?? ""
      return place == path[...] || place.hasPrefix(path + "/")
    }
    // What was read was about this very process only if it is not over yet: until then the number is its own.
    guard isInside, process.isAlive else { throw SystemFault(call: "pidfd_open", subject: "\(pid)", code: ESRCH) }
    self = process
  }

  /// Whether it has not ended.
  package var isAlive: Bool {
    descriptor.withRaw { raw in
      var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
      return poll(&wait, 1, 0) == 0
    }
  }

  package borrowing func withRaw<Result: ~Copyable, Failure: Error>(_ body: (Int32) throws(Failure) -> Result)
    throws(Failure)
    -> Result
  {
    try descriptor.withRaw(body)
  }

  /// Gives the descriptor away.
  package consuming func release() -> Descriptor { descriptor }

  /// ESRCH once it has ended and was waited for.
  package borrowing func send(_ signal: Int32) throws(SystemFault) {
    try descriptor.withRaw { (raw) throws(SystemFault) in
      _ = try checkShim("pidfd_send_signal", "\(signal)") { cl_pidfd_send_signal(raw, signal) }
    }
  }

  /// To every process of the group it leads; to it alone on kernels that cannot (before 6.9).
  package borrowing func sendToGroup(_ signal: Int32) throws(SystemFault) {
    try descriptor.withRaw { (raw) throws(SystemFault) in
      do throws(SystemFault) {
        _ = try checkShim("pidfd_send_signal", "\(signal)") { cl_pidfd_signal_group(raw, signal) }
      } catch  where error.code == EINVAL {
        _ = try checkShim("pidfd_send_signal", "\(signal)") { cl_pidfd_send_signal(raw, signal) }
      }
    }
  }
}

/// A child's end, as wait(2) tells it.
package enum ChildEnd: Sendable, Equatable {
  case code(Int32)
  case signal(Int32)
}

/// Waiting for children, and ending oneself.
package enum Children {
  /// Waits for a child (-1: any) and takes its end; nil with `block: false` when none has ended. ECHILD when there is none.
  package static func wait(_ pid: Int32, block: Bool) throws(SystemFault) -> (pid: Int32, end: ChildEnd)? {
    var status: Int32 = 0
    let ended = try checkShim("waitpid", "\(pid)") { cl_wait(pid, block ? 0 : Int32(CL_NO_WAIT), &status) }
    guard ended > 0 else { return nil }
    var code: Int32 = 0
    var signal: Int32 = 0
    cl_wait_status(status, &code, &signal)
    return (ended, signal == 0 ? .code(code) : .signal(signal))
  }

  /// Waits for ended children that are not among `known`, as far as they come before one that is; how many there were.
  package static func reapStrangers(besides known: Set<Int32>) -> Int {
    var count = 0
    while true {
      let pid = cl_peek_ended()
      guard pid > 0, !known.contains(pid), (try? wait(pid, block: true)) != nil else { return count }
      count += 1
    }
  }

  /// _exit(2).
  package static func exitNow(_ code: Int32) -> Never { cl_exit_now(code) }

  /// Starts a program with the given descriptors as 0, 1, 2 … and no other, in a session of its own, with default signals and an
  /// empty environment. Returns its pid; the caller waits for it.
  package static func spawn(_ path: String, _ arguments: [String], descriptors: [Int32]) throws(SystemFault) -> Int32 {
    var pid: pid_t = 0
    try CStrings.with(arguments) { (vector) throws(SystemFault) in
      try CStrings.with([]) { (empty) throws(SystemFault) in
        _ = try checkShim("posix_spawn", path) {
          cl_spawn(path, vector, empty, descriptors, Int32(descriptors.count), &pid)
        }
      }
    }
    return pid
  }
}

/// Argument, environment and option vectors as C wants them.
package enum CStrings {
  /// Lends `strings` as a NULL-terminated array for the length of one call.
  package static func with<Result, Failure: Error>(
    _ strings: [String], _ body: (UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    let pointers = UnsafeMutablePointer<UnsafeMutablePointer<CChar>?>.allocate(capacity: strings.count + 1)
    for (index, string) in strings.enumerated() { pointers[index] = strdup(string) }
    pointers[strings.count] = nil
    defer {
      for index in strings.indices { free(pointers[index]) }
      pointers.deallocate()
    }
    return try body(pointers)
  }
}
