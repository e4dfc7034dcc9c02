internal import CLinux
internal import Glibc

/// epoll(7) without a thread or handlers: for programs with one thread and many descriptors.
package struct Readiness: ~Copyable {
  private let epoll: Descriptor
  private var events = [epoll_event](repeating: epoll_event(), count: 64)

  package init() throws(SystemFault) {
    epoll = Descriptor(owning: try check("epoll_create1") { epoll_create1(Int32(EPOLL_CLOEXEC)) })
  }

  /// Reports `raw` as long as it can be read.
  package func add(_ raw: Int32) throws(SystemFault) { try set(raw, EPOLL_CTL_ADD, UInt32(EPOLLIN.rawValue)) }

  /// Reports `raw` once each time more can be read from it or written to it.
  package func addEdges(_ raw: Int32) throws(SystemFault) {
    let events = EPOLLIN.rawValue | EPOLLOUT.rawValue | EPOLLRDHUP.rawValue | EPOLLET.rawValue
    try set(raw, EPOLL_CTL_ADD, UInt32(events))
  }

  /// Stops or continues to report what `add` added.
  package func setReported(_ raw: Int32, _ reported: Bool) throws(SystemFault) {
    try set(raw, EPOLL_CTL_MOD, reported ? UInt32(EPOLLIN.rawValue) : 0)
  }

  private func set(_ raw: Int32, _ operation: Int32, _ interest: UInt32) throws(SystemFault) {
    var event = epoll_event(events: interest, data: epoll_data_t(fd: raw))
    try epoll.withRaw { (epoll) throws(SystemFault) in
      _ = try check("epoll_ctl", "\(raw)") { epoll_ctl(epoll, operation, raw, &event) }
    }
  }

  /// Waits for at least one that is ready; without `block` there may be none.
  package mutating func wait(block: Bool) throws(SystemFault) -> [Int32] {
    let raw = epoll.withRaw { $0 }
    let count = try check("epoll_wait") { epoll_wait(raw, &events, Int32(events.count), block ? -1 : 0) }
    return events.prefix(Int(count)).map(\.data.fd)
  }
}
