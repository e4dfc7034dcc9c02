import Foundation
import Glibc
import Synchronization
import Testing

/// Stands between a daemon and its engine: keeps what is asked, and can change it on the way.
final class Recorder: Sendable {
  let path: String
  private let engine: String
  private let listener: Int32
  private let heard = Mutex(Heard())

  private struct Heard {
    /// Heads and bodies of requests, as far as they are text; bounded.
    var text = ""
    var requests: [String] = []
    /// What to put in the place of what, of the same length; how often it was done.
    var change: (from: [UInt8], to: [UInt8])?
    var changes = 0
    /// Told of each request before it is passed on.
    var watch: (@Sendable (String) -> Void)?
  }

  /// Listens at a socket of its own.
  init(to engine: String) throws {
    self.engine = engine
    let scratch = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/var/tmp"
    path = "\(scratch)/appsup-rec-\(UInt32.random(in: 0 ... .max)).sock"
    listener = try Self.withAddress(path) { raw, address, length in
      bind(raw, address, length) == 0 && listen(raw, 64) == 0
    }
    let listener = listener
    Thread.detachNewThread { [weak self] in
      while true {
        let client = accept(listener, nil, nil)
        guard client >= 0, let self else { return }
        self.serve(client)
      }
    }
  }

  private static func withAddress(
    _ path: String, _ body: (Int32, UnsafePointer<sockaddr>, socklen_t) -> Bool
  ) throws -> Int32 {
    let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    try #require(path.utf8.count < 108)
    withUnsafeMutableBytes(of: &address.sun_path) { place in
      for (index, byte) in path.utf8.enumerated() { place[index] = byte }
    }
    let worked = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        body(raw, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
      }
    }
    try #require(worked, "\(path): \(errno)")
    return raw
  }

  func end() {
    shutdown(listener, Int32(SHUT_RDWR))
    close(listener)
    unlink(path)
  }

  // MARK: What was asked

  /// `POST /v1.41/containers/create?name=…`
  var requests: [String] { heard.withLock { $0.requests } }
  /// Everything that was sent to the engine.
  var text: String { heard.withLock { $0.text } }
  var changes: Int { heard.withLock { $0.changes } }

  /// Replaces `from` by as many bytes of `to` in what is asked from now on; nil: no longer.
  func change(_ from: String?, to: String = "") {
    heard.withLock { heard in
      heard.change = from.map { (Array($0.utf8), Array(to.utf8)) }
      heard.changes = 0
    }
  }

  /// Has `body` told of each request, `POST /v1.41/…`, before the engine hears of it.
  func watch(_ body: (@Sendable (String) -> Void)?) { heard.withLock { $0.watch = body } }

  // MARK: Passing on

  private func serve(_ client: Int32) {
    guard let server = try? Self.withAddress(engine, { raw, address, length in connect(raw, address, length) == 0 })
    else {
      close(client)
      return
    }
    let ends = Ends(client: client, server: server)
    func pump(_ from: Int32, _ to: Int32, _ isRequest: Bool) {
      Thread.detachNewThread { [self] in
        var part = [UInt8](repeating: 0, count: 1 << 18)
        while true {
          let got = read(from, &part, part.count)
          guard got > 0 else { break }
          var bytes = Array(part.prefix(got))
          if isRequest { keep(&bytes) }
          guard Self.writeAll(to, bytes) else { break }
        }
        shutdown(to, Int32(SHUT_WR))
        ends.finish()
      }
    }
    pump(client, server, true)
    pump(server, client, false)
  }

  /// Closes both sockets when both directions have ended.
  private final class Ends: Sendable {
    private let client: Int32
    private let server: Int32
    private let left = Mutex(2)
    init(client: Int32, server: Int32) {
      self.client = client
      self.server = server
    }
    func finish() {
      guard
        left.withLock({
          $0 -= 1; return $0
        }) == 0
      else { return }
      close(client)
      close(server)
    }
  }

  private func keep(_ bytes: inout [UInt8]) {
    // What the daemon asked, before it is changed.
    let text = String(decoding: bytes, as: UTF8.self)
    let change = heard.withLock { $0.change }
    var count = 0
    if let change, change.from.count == change.to.count, let first = change.from.first {
      var index = 0
      while index + change.from.count <= bytes.count {
        if bytes[index] == first, bytes[index..<index + change.from.count].elementsEqual(change.from) {
          bytes.replaceSubrange(index..<index + change.from.count, with: change.to)
          count += 1
          index += change.from.count
        } else {
          index += 1
        }
      }
    }
    let first = text.prefix { $0 != "\r" && $0 != "\n" && $0 != "\r\n" }
    if first.hasSuffix(" HTTP/1.1"), let watch = heard.withLock({ $0.watch }) { watch(String(first)) }
    heard.withLock { heard in
      heard.changes += count
      let line = text.prefix { $0 != "\r" && $0 != "\n" && $0 != "\r\n" }
      if line.hasSuffix(" HTTP/1.1") { heard.requests.append(String(line.dropLast(" HTTP/1.1".count))) }
      if heard.text.utf8.count < 64 << 20 { heard.text += text }
    }
  }

  private static func writeAll(_ to: Int32, _ bytes: [UInt8]) -> Bool {
    var sent = 0
    while sent < bytes.count {
      let wrote = bytes[sent...].withUnsafeBytes { send(to, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
      guard wrote > 0 else { return false }
      sent += wrote
    }
    return true
  }
}
