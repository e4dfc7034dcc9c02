internal import Glibc

/// A system call that failed: which, on what, and the errno.
package struct SystemFault: Error, Hashable, Sendable, CustomStringConvertible {
  /// The call's name, `openat2`.
  package let call: String
  /// What it was made on, for the reader: a path, a socket's name. May be empty.
  package let subject: String
  /// The errno.
  package let code: Int32

  package init(call: String, subject: String, code: Int32) {
    self.call = call
    self.subject = subject
    self.code = code
  }

  /// `open(/apps/clock): No such file or directory`
  package var description: String { "\(call)(\(subject)): \(SystemFault.text(of: code))" }

  /// The reason alone: `No such file or directory`
  package var reason: String { SystemFault.text(of: code) }

  /// The C library's words for an errno (strerror(3)).
  package static func text(of code: Int32) -> String { strerror(code).map { String(cString: $0) } ?? "error \(code)" }
}

/// Makes a call that reports failure by -1 and errno; retries EINTR. The only place that reads errno.
@discardableResult
package func check<Result: BinaryInteger>(
  _ call: StaticString, _ subject: @autoclosure () -> String = "", _ body: () -> Result
) throws(SystemFault) -> Result {
  while true {
    let result = body()
    if result != -1 { return result }
    let code = errno
    if code == EINTR { continue }
    throw SystemFault(call: "\(call)", subject: subject(), code: code)
  }
}

/// Makes a call of CLinux, which reports failure by -errno; retries EINTR.
@discardableResult
package func checkShim<Result: BinaryInteger>(
  _ call: StaticString, _ subject: @autoclosure () -> String = "", _ body: () -> Result
) throws(SystemFault) -> Result {
  while true {
    let result = body()
    if result >= 0 { return result }
    let code = Int32(truncatingIfNeeded: -Int64(result))
    if code == EINTR { continue }
    throw SystemFault(call: "\(call)", subject: subject(), code: code)
  }
}

/// Whether the call before, made without `check`, failed only for now (EAGAIN, EINTR): for loops over non-blocking descriptors.
package func lastErrorIsTemporary() -> Bool { errno == EAGAIN || errno == EINTR }
