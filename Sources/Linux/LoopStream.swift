internal import Glibc

/// A pipe, socket or terminal that tasks read and write: one reader and one writer at a time, neither of which holds a thread while
/// it waits. Its work is done on the event loop.
package actor LoopStream {
  package nonisolated var unownedExecutor: UnownedSerialExecutor { loop.asUnownedSerialExecutor() }

  private let loop: EventLoop
  private var descriptor: SharedDescriptor?
  private var isWatched = false
  private var reader: CheckedContinuation<Void, Never>?
  private var writer: CheckedContinuation<Void, Never>?

  /// The descriptor is made non-blocking, which all who share its open file see.
  package init(_ descriptor: SharedDescriptor, on loop: EventLoop) throws(SystemFault) {
    self.loop = loop
    self.descriptor = descriptor
    try descriptor.withRaw { (raw) throws(SystemFault) in
      let flags = try check("fcntl", "F_GETFL") { fcntl(raw, F_GETFL) }
      _ = try check("fcntl", "F_SETFL") { fcntl(raw, F_SETFL, flags | O_NONBLOCK) }
    }
  }

  /// Some bytes; nil at the end, after `close`, and when the task is cancelled.
  package func read(most: Int = 65536) async throws(SystemFault) -> [UInt8]? {
    while !Task.isCancelled, let descriptor {
      var failed = false
      let bytes = [UInt8](unsafeUninitializedCapacity: most) { room, count in
        let got = descriptor.withRaw { Glibc.read($0, room.baseAddress, room.count) }
        failed = got < 0 && !lastErrorIsTemporary()
        count = max(0, got)
        if got < 0, !failed { count = 0 }
        waitsForMore = got < 0 && !failed
      }
      if !waitsForMore {
        // A terminal whose programs are gone says EIO; any other error ends the stream as well.
        return bytes.isEmpty || failed ? nil : bytes
      }
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          if Task.isCancelled { return continuation.resume() }
          reader = continuation
          adjust()
        }
      } onCancel: {
        Task { await self.wakeReader() }
      }
    }
    return nil
  }
  private var waitsForMore = false

  /// Writes all of it; EPIPE when nobody reads any more, or after `close` or cancellation.
  package func write(_ bytes: [UInt8]) async throws(SystemFault) {
    var offset = 0
    while offset < bytes.count {
      guard !Task.isCancelled, let descriptor else { throw SystemFault(call: "write", subject: "stream", code: EPIPE) }
      let wrote = bytes.withUnsafeBytes { bytes in
        descriptor.withRaw { Glibc.write($0, bytes.baseAddress?.advanced(by: offset), bytes.count - offset) }
      }
      if wrote >= 0 {
        offset += wrote
        continue
      }
      guard lastErrorIsTemporary() else { throw SystemFault(call: "write", subject: "stream", code: EPIPE) }
      await withTaskCancellationHandler {
        await withCheckedContinuation { continuation in
          if Task.isCancelled { return continuation.resume() }
          writer = continuation
          adjust()
        }
      } onCancel: {
        Task { await self.wakeWriter() }
      }
    }
  }

  /// Lets go of the descriptor; whoever waits is woken.
  package func close() {
    if isWatched { descriptor?.withRaw { loop.unwatch($0) } }
    isWatched = false
    descriptor = nil
    wakeReader()
    wakeWriter()
  }

  deinit {
    guard isWatched, let descriptor else { return }
    loop.submit { [loop] in descriptor.withRaw { loop.unwatch($0) } }
  }

  private func wakeReader() {
    reader?.resume()
    reader = nil
  }

  private func wakeWriter() {
    writer?.resume()
    writer = nil
  }

  private func ready(_ interest: EventLoop.Interest) {
    if interest.contains(.read) || !interest.isDisjoint(with: .hangUp) { wakeReader() }
    if interest.contains(.write) || !interest.isDisjoint(with: .hangUp) { wakeWriter() }
    adjust()
  }

  /// Nobody waits: not watched at all, since a hang-up would be reported again and again.
  private func adjust() {
    guard let descriptor else { return }
    var interest: EventLoop.Interest = []
    if reader != nil { interest.insert(.read) }
    if writer != nil { interest.insert(.write) }
    descriptor.withRaw { raw in
      if interest.isEmpty {
        if isWatched { loop.unwatch(raw) }
        isWatched = false
      } else if isWatched {
        loop.setInterest(raw, interest)
      } else {
        isWatched = (try? loop.watch(raw, interest) { [weak self] in self?.wakened($0) }) != nil
        // What cannot be waited for is always ready.
        if !isWatched {
          wakeReader()
          wakeWriter()
        }
      }
    }
  }

  private nonisolated func wakened(_ interest: EventLoop.Interest) { assumeIsolated { $0.ready(interest) } }
}
