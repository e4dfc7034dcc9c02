internal import CLinux
internal import Glibc
package import Model

/// The caller's ends of a command's streams. With a terminal, `input` and `output` are the same one and there are no `errors`.
package final class DescriptorEnds: StreamEnds {
  package let input: SharedDescriptor?
  package let output: SharedDescriptor
  package let errors: SharedDescriptor?

  package init(input: SharedDescriptor?, output: SharedDescriptor, errors: SharedDescriptor?) {
    self.input = input
    self.output = output
    self.errors = errors
  }
}

/// A pseudo-terminal (pty(7)) of the host.
package struct PseudoTerminal: Sendable {
  /// The side that shows and types; non-blocking.
  package let master: SharedDescriptor
  /// The side a program sits at.
  package let slave: SharedDescriptor

  /// The slave belongs to `owner`, so that a program can open it again by its descriptor's name; nil: to the caller.
  package init(_ size: TerminalSize, owner: (uid: UInt32, gid: UInt32)?) throws(SystemFault) {
    var ends: [Int32] = [0, 0]
    try checkShim("openpty") { cl_open_terminal(&ends) }
    master = SharedDescriptor(Descriptor(owning: ends[0]))
    slave = SharedDescriptor(Descriptor(owning: ends[1]))
    try slave.withRaw { (raw) throws(SystemFault) in
      if let owner { try check("fchown", "terminal") { fchown(raw, owner.uid, owner.gid) } }
    }
    try Self.setSize(master, size)
  }

  /// Programs at the terminal are told (SIGWINCH).
  package static func setSize(_ terminal: SharedDescriptor, _ size: TerminalSize) throws(SystemFault) {
    try terminal.withRaw { (raw) throws(SystemFault) in
      _ = try checkShim("ioctl", "TIOCSWINSZ") { cl_set_terminal_size(raw, size.columns, size.rows) }
    }
  }

  /// The size of the terminal behind a descriptor; nil if it is none.
  package static func size(_ raw: Int32) -> TerminalSize? {
    var columns: UInt16 = 0
    var rows: UInt16 = 0
    guard cl_terminal_size(raw, &columns, &rows) == 0 else { return nil }
    return TerminalSize(columns: columns, rows: rows)
  }

  /// Makes the terminal behind `raw` the calling session's own (TIOCSCTTY): Ctrl-C and a hang-up reach it.
  package static func makeControlling(_ raw: Int32) throws(SystemFault) {
    try checkShim("ioctl", "TIOCSCTTY") { cl_control_terminal(raw) }
  }
}
