internal import Model

/// One datagram of sd_notify(3): lines of NAME=VALUE. What is not known is passed over, as its definition says.
package struct NotifyMessage: Sendable, Equatable {
  /// Longer datagrams are cut by who receives them.
  package static let maximumBytes = 4096

  package var ready = false
  /// Cut and cleaned.
  package var status: String?

  package init(_ bytes: [UInt8]) {
    for line in bytes.prefix(Self.maximumBytes).split(separator: UInt8(ascii: "\n")) {
      if line.elementsEqual("READY=1".utf8) { ready = true }
      if line.starts(with: "STATUS=".utf8) { status = PlainText.make(line.dropFirst("STATUS=".utf8.count)) }
    }
  }
}
