internal import CLinux
internal import Glibc
internal import Linux
internal import RPC

/// Ctrl-C as a readable descriptor: SIGINT and SIGTERM are blocked and read from a signalfd.
final class Interrupt {
  typealias Caught = RPCClient.Interrupted
  private let descriptor: Descriptor

  /// Lent to `poll`; valid as long as this object is.
  var raw: Int32 { descriptor.withRaw { $0 } }

  init() throws(SystemFault) {
    descriptor = Descriptor(owning: try checkShim("signalfd") { cl_interrupt_descriptor() })
  }

  /// Takes one waiting signal away, so that the next one is news.
  func consume() {
    var room = [UInt8](repeating: 0, count: 128)
    _ = descriptor.withRaw { read($0, &room, room.count) }
  }
}
