import Cgroups
import Glibc
import Linux
import Model
import ProcessHosting
import Testing

@Suite("native apps' output, ports and traces", .enabled(if: canRunNative, "needs root and writable cgroups"))
struct NativeOutputTests {
  @Test("a flood is kept within its files, and the end of it is there") func rotation() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig else { return }
      var policy = try rig.policy("flood", "seq 1 2000000; echo the end")
      policy.logging.maximumSize = .mebibytes(1)
      policy.logging.maximumFiles = 2
      let running = try await stage.run(policy)
      #expect(try await stage.end(running, within: 60).cause == .code(0))
      let folder = try Folder(opening: rig.layout.appLog(policy.id))
      var total = 0
      for name in try folder.names() where name.hasSuffix(".log") {
        let size = try folder.read(name, limit: 1 << 30).count
        #expect(size <= 1 << 20)
        total += size
      }
      #expect(total > 1 << 20 && total <= 2 << 20)
      #expect(try await stage.output(running, LogQuery(tail: 3)) == "1999999\n2000000\nthe end\n")
      // What is kept is one piece of what was written.
      let numbers = try await stage.output(running).split(separator: "\n").dropFirst().dropLast().compactMap { Int($0) }
      #expect(numbers == Array((numbers.first ?? 0)...2_000_000))
      try await stage.host.remove(running.instance)
    }
  }

  @Test("the next run's output follows in the same files") func runs() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      let policy = try stage.rig.policy("again", "echo run")
      let first = try await stage.run(policy, generation: 1)
      _ = try await stage.end(first)
      try await stage.host.remove(first.instance)
      let second = try await stage.run(policy, generation: 2)
      _ = try await stage.end(second)
      #expect(try await stage.output(first) == "run\nrun\n")
      try await stage.host.remove(second.instance)
      var all = ""
      for try await chunk in stage.host.logs(policy.id, nil, LogQuery()) {
        all += String(decoding: chunk.bytes, as: UTF8.self)
      }
      #expect(all == "run\nrun\n")
    }
  }

  @Test("a full log disk drops output, and the app goes on") func fullDisk() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig else { return }
      let policy = try rig.policy("full", "head -c 3000000 /dev/zero; echo done > /data/done; exit 4")
      let log = rig.layout.appLog(policy.id)
      _ = try Folder(making: log)
      try #require(mount("tmpfs", log, "tmpfs", 0, "size=256k") == 0)
      defer { umount2(log, 2) }
      let running = try await stage.run(policy)
      #expect(try await stage.end(running).cause == .code(4))
      #expect(try File.text("\(rig.layout.appData(policy.id))/data/done") == "done\n")
      try await stage.host.remove(running.instance)
    }
  }

  @Test("a published port leads to the app; one in use fails the start and says which") func ports() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig, File.exists("/usr/bin/perl") else { return }
      var policy = try rig.policy("web", "")
      let server =
        "$s = IO::Socket::INET->new(Listen => 9, LocalPort => 80) or die $!; "
        + "while ($c = $s->accept) { if (!fork) { while (sysread($c, $b, 65536)) { syswrite($c, $b) } exit } close $c }"
      policy.entry = ["/usr/bin/perl", "-MIO::Socket", "-e", server]
      policy.network.mode = .bridge
      policy.network.ports = [PublishedPort(hostPort: 0, appPort: 80)]
      policy.user = .given(uid: 0, gid: 0)
      policy.capabilities.add = ["NET_BIND_SERVICE"]
      let running = try await stage.run(policy)
      let port = try #require(running.facts.ports.first?.hostPort)
      #expect(port != 0)
      try await eventually("it echoes") { echo("hello through the wall", port) == "hello through the wall" }
      let big = String(repeating: "0123456789", count: 100_000)
      #expect(echo(big, port)?.utf8.count == big.utf8.count)

      // The forwarder is the shim's other child: one that was killed is replaced, and nobody need know.
      let init1 = try parent(of: running.facts.pid)
      let shim = try parent(of: init1)
      for _ in 0..<2 {
        let forwarder = try #require(children(of: shim).first { $0 != init1 })
        #expect(kill(forwarder, SIGKILL) == 0)
        try await eventually("it is replaced") { children(of: shim).contains { $0 != init1 && $0 != forwarder } }
        #expect(echo("again", port) == "again")
      }

      var second = try rig.policy("web2", "exec sleep 1000")
      second.network.mode = .bridge
      second.network.ports = [PublishedPort(hostPort: port, appPort: 80)]
      let failure = await #expect(throws: HostFailure.self) { try await stage.run(second) }
      #expect(failure?.kind == .conflict)
      #expect(failure?.description.contains("\(port)") == true)

      try await stage.host.kill(running.instance)
      _ = try await stage.end(running)
      try await stage.host.remove(running.instance)
      #expect(echo("x", port) == nil)
    }
  }

  @Test("nothing is left of a removed app but its data and its log") func leftovers() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      guard let rig = stage.rig as? NativeRig else { return }
      let running = try await stage.run(rig.policy("traces", "sleep 1000 & exec sleep 1000"))
      #expect(try Folder(opening: "\(rig.layout.run)/shims").names() == ["traces.1.sock"])
      try await stage.host.kill(running.instance)
      #expect(try await stage.end(running).cause == .signal(9))
      try await stage.host.remove(running.instance)
      try await eventually("its shim is gone") { try Folder(opening: "\(rig.layout.run)/shims").names() == [] }
      #expect(try Folder(opening: "\(rig.layout.state)/runs").names() == [])
      for root in rig.hierarchy.roots { #expect(!File.exists("\(root)\(rig.layout.cgroupParent)/traces")) }
      #expect(!(try File.text("/proc/self/mountinfo").contains(rig.folder)))
      #expect(File.exists("\(rig.layout.log)/traces/000001.log"))
    }
  }

  @Test("a killed shim ends its app, and the report says so") func shimKilled() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      let running = try await stage.run(stage.rig.policy("orphan", "exec sleep 1000"))
      let parent = try parent(of: try parent(of: running.facts.pid))
      #expect(kill(parent, SIGKILL) == 0)
      guard case .unknown(let why) = try await stage.end(running).cause else {
        Issue.record("ended otherwise")
        return
      }
      #expect(why.contains("shim"))
      try await eventually("the app is gone") { kill(running.facts.pid, 0) != 0 }
      try await stage.host.remove(running.instance)
    }
  }

  @Test("a connection to a shim that breaks is made again, and the app goes on") func brokenConnection() async throws {
    try await HostContract.withStage(NativeRig()) { stage in
      let running = try await stage.run(stage.rig.policy("cut", "trap 'exit 3' TERM; while :; do sleep 0.05; done"))
      let shim = try parent(of: try parent(of: running.facts.pid))
      // pidfd_open(2) and pidfd_getfd(2): a copy of its end of the connection is the connection itself.
      let cut =
        "$p = syscall(434, \(shim), 0); for (3..12) { $f = syscall(438, $p, $_ + 0, 0); next if $f < 0; "
        + "open($s, '+<&=', $f) or next; if (getpeername($s)) { shutdown($s, 2); last } }"
      for _ in 0..<2 {
        #expect(system("perl -e '\(cut.replacing("'", with: "'\\''"))'") == 0)
        try await Task.sleep(for: .milliseconds(100))
      }
      #expect(kill(running.facts.pid, 0) == 0)
      // It hears us again, and we it.
      try await stage.host.signal(running.instance, SIGTERM)
      #expect(try await stage.end(running).cause == .code(3))
      try await stage.host.remove(running.instance)
    }
  }

  private func children(of pid: Int32) -> [Int32] {
    let text = (try? File.text("/proc/\(pid)/task/\(pid)/children")) ?? ""
    return text.split(separator: " ").compactMap { Int32($0) }
  }

  private func parent(of pid: Int32) throws -> Int32 {
    let line = try File.text("/proc/\(pid)/status").split(separator: "\n").first { $0.hasPrefix("PPid:") }
    return try #require(line.flatMap { Int32($0.dropFirst(6)) })
  }

  /// Sends `text`, finishes writing, and returns all that comes back; nil if nobody accepts.
  private func echo(_ text: String, _ port: UInt16) -> String? {
    let raw = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    defer { close(raw) }
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    let connected = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(raw, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
      }
    }
    guard connected == 0 else { return nil }
    var timeout = timeval(tv_sec: 5, tv_usec: 0)
    setsockopt(raw, SOL_SOCKET, SO_RCVTIMEO, &timeout, socklen_t(MemoryLayout<timeval>.size))
    let bytes = Array(text.utf8)
    var sent = 0
    var got: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while got.count < bytes.count {
      if sent < bytes.count {
        let count = bytes[sent...].prefix(16_384).withUnsafeBytes {
          send(raw, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
        }
        guard count > 0 else { break }
        sent += count
        if sent == bytes.count { shutdown(raw, Int32(SHUT_WR)) }
      }
      let flags = sent < bytes.count ? Int32(MSG_DONTWAIT) : 0
      let count = recv(raw, &chunk, chunk.count, flags)
      if count > 0 { got += chunk[..<count] } else if sent == bytes.count { break }
    }
    return String(decoding: got, as: UTF8.self)
  }
}
