import Foundation
import Glibc
import Testing

/// Talks to a `probe serve` through two FIFOs that lie in a folder of its own.
final class Control {
  let folder: String
  private let asking: Int32
  private let answering: Int32

  init(_ folder: String) throws {
    self.folder = folder
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    for name in ["ask", "answer"] {
      try #require(mkfifo("\(folder)/\(name)", 0o666) == 0)
      chmod("\(folder)/\(name)", 0o666)
    }
    // Both ways, so that neither waits for the probe.
    asking = open("\(folder)/ask", O_RDWR | O_CLOEXEC)
    answering = open("\(folder)/answer", O_RDWR | O_CLOEXEC | O_NONBLOCK)
  }

  func end() {
    close(asking)
    close(answering)
    try? FileManager.default.removeItem(atPath: folder)
  }

  /// One attack's answer; throws when none comes within two minutes.
  func ask(_ name: String) throws -> Answer {
    let words = Array("\(name)\n".utf8)
    try #require(write(asking, words, words.count) == words.count)
    var bytes: [UInt8] = []
    var part = [UInt8](repeating: 0, count: 65_536)
    let deadline = Date().addingTimeInterval(120)
    while bytes.last != UInt8(ascii: "\n") {
      var wait = pollfd(fd: answering, events: Int16(POLLIN), revents: 0)
      _ = poll(&wait, 1, 1000)
      let got = read(answering, &part, part.count)
      if got > 0 { bytes += part.prefix(got) }
      try #require(Date() < deadline, "\(name) was not answered")
    }
    let answer = Answer(String(decoding: bytes, as: UTF8.self).dropLast())
    return try #require(answer, "\(String(decoding: bytes, as: UTF8.self))")
  }
}

/// What nobody in an app may reach: a TCP port of the host, one at the metadata address, an abstract socket.
final class Honeypots {
  let name = "appsup-honeypot-\(getpid())-\(UInt32.random(in: 0 ... .max))"
  private(set) var port: UInt16 = 0
  private var listeners: [Int32] = []
  private let link = "appsup-honey"
  private var hasLink = false

  init() throws {
    let everywhere = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    port = try Self.listen(everywhere, &address)
    listeners.append(everywhere)
    // Only in a network namespace of the tests' own: a person's host is not to get another address.
    if Rig.isInside {
      hasLink = Shell.run(["ip", "link", "add", link, "type", "dummy"]).code == 0
      if hasLink {
        Shell.run(["ip", "addr", "add", "169.254.169.254/32", "dev", link])
        Shell.run(["ip", "link", "set", link, "up"])
        let metadata = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        address.sin_addr.s_addr = inet_addr("169.254.169.254")
        address.sin_port = in_port_t(80).bigEndian
        _ = try Self.listen(metadata, &address)
        listeners.append(metadata)
      }
    }
    listeners.append(try abstract())
    for listener in listeners { _ = fcntl(listener, F_SETFL, O_NONBLOCK) }
  }

  /// A TCP port of 127.0.0.1 that is free.
  static func freePort() throws -> UInt16 {
    let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(raw) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    return try listen(raw, &address)
  }

  private static func listen(_ raw: Int32, _ address: inout sockaddr_in) throws -> UInt16 {
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let bound = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { place in
        bind(raw, place, length) == 0 && Glibc.listen(raw, 16) == 0 && getsockname(raw, place, &length) == 0
      }
    }
    try #require(bound)
    return UInt16(bigEndian: address.sin_port)
  }

  private func abstract() throws -> Int32 {
    let raw = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_un()
    address.sun_family = sa_family_t(AF_UNIX)
    withUnsafeMutableBytes(of: &address.sun_path) { path in
      for (index, byte) in name.utf8.enumerated() { path[index + 1] = byte }
    }
    let length = socklen_t(MemoryLayout<sa_family_t>.size + 1 + name.utf8.count)
    let bound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(raw, $0, length) }
    }
    try #require(bound == 0 && Glibc.listen(raw, 16) == 0)
    return raw
  }

  /// The host's own addresses, loopback apart.
  var addresses: [String] {
    let found = Shell.run(["ip", "-4", "-o", "addr", "show", "scope", "global"]).out.split(separator: "\n").compactMap {
      $0.split(separator: " ").drop { $0 != "inet" }.dropFirst().first?.split(separator: "/").first.map(String.init)
    }
    return found.isEmpty ? ["192.0.2.1"] : Array(found.prefix(4))
  }

  /// How many have connected since the last look.
  var visits: Int {
    var visits = 0
    for listener in listeners {
      while true {
        let visitor = accept(listener, nil, nil)
        guard visitor >= 0 else { break }
        close(visitor)
        visits += 1
      }
    }
    return visits
  }

  func end() {
    for listener in listeners { close(listener) }
    if hasLink { Shell.run(["ip", "link", "delete", link]) }
  }
}
