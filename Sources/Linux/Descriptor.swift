internal import Glibc

/// A file descriptor with one owner, closed when the owner lets go of it.
package struct Descriptor: ~Copyable, Sendable {
  private let raw: Int32

  /// Takes ownership of an open descriptor.
  package init(owning raw: Int32) { self.raw = raw }

  deinit { Glibc.close(raw) }

  /// Lends the number for the length of one call; it must not be kept or closed.
  @discardableResult
  package borrowing func withRaw<Result: ~Copyable, Failure: Error>(_ body: (Int32) throws(Failure) -> Result)
    throws(Failure)
    -> Result
  {
    try body(raw)
  }

  /// Gives the descriptor away: the caller closes it from now on.
  package consuming func release() -> Int32 {
    let raw = self.raw
    discard self
    return raw
  }

  /// A second descriptor for the same open file (F_DUPFD_CLOEXEC).
  package borrowing func duplicate() throws(SystemFault) -> Descriptor {
    let raw = self.raw
    return Descriptor(owning: try check("fcntl", "F_DUPFD_CLOEXEC") { fcntl(raw, F_DUPFD_CLOEXEC, 3) })
  }
}

/// A descriptor that several parts share; closed when the last lets go of it.
package final class SharedDescriptor: Sendable {
  private let descriptor: Descriptor

  package init(_ descriptor: consuming Descriptor) { self.descriptor = descriptor }

  /// Lends the number for the length of one call.
  @discardableResult
  package func withRaw<Result: ~Copyable, Failure: Error>(_ body: (Int32) throws(Failure) -> Result) throws(Failure)
    -> Result
  {
    try descriptor.withRaw(body)
  }
}
