internal import Linux
internal import Sandboxing

/// A step of the launch that did not work, in words for the user.
struct StepFailure: Error {
  var step: String
  var reason: String
  var code: Int32

  init(_ step: String, _ fault: SystemFault) {
    self.step = step
    reason = fault.description
    code = fault.code
  }

  init(_ step: String, reason: String, code: Int32 = 0) {
    self.step = step
    self.reason = reason
    self.code = code
  }

  var cause: RunOutcome.Cause { .neverStarted(step: step, reason: reason, code: code) }
}

/// Runs a step; a fault in it is named after it.
func step<Result: ~Copyable>(_ name: String, _ body: () throws(SystemFault) -> Result) throws(StepFailure) -> Result {
  do throws(SystemFault) { return try body() } catch { throw StepFailure(name, error) }
}

/// Packets between the shim and the child it builds the sandbox in.
enum ChildPacket {
  static let release: UInt8 = 1
  static let go: UInt8 = 2

  /// The app waits for `go`; sent by the app itself, so that the kernel says which process it is.
  static let ready: UInt8 = 3
  /// The next thing is exec: if nothing follows but the end, it worked.
  static let hot: UInt8 = 4
  static let failed: UInt8 = 5
  /// The child is in all of its groups, says the child; the shim looks.
  static let joined: UInt8 = 6

  /// The first process of a command made the second: its number on the host.
  static let forked: UInt8 = 7

  static func bytes(forked pid: Int32) -> [UInt8] {
    [forked] + (0..<4).map { UInt8(truncatingIfNeeded: pid >> (8 * $0)) }
  }

  static func number(_ bytes: [UInt8]) -> Int32 {
    Int32(bitPattern: bytes.dropFirst().prefix(4).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) })
  }

  static func bytes(_ failure: StepFailure) -> [UInt8] {
    let code = UInt32(bitPattern: failure.code)
    let head = [failed] + (0..<4).map { UInt8(truncatingIfNeeded: code >> (8 * $0)) }
    return head + Array("\(failure.step)\n\(failure.reason)".utf8.prefix(400))
  }

  static func failure(_ bytes: [UInt8]) -> StepFailure {
    let code = bytes.dropFirst().prefix(4).reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) }
    let text = String(decoding: bytes.dropFirst(5), as: UTF8.self)
    let parts = text.split(separator: "\n", maxSplits: 1)
    return StepFailure(
      parts.first.map { String($0) } ?? "sandbox", reason: parts.count > 1 ? String(parts[1]) : "failed",
      code: Int32(bitPattern: code))
  }
}
