import Foundation
import Model
import Testing

/// Apps that say themselves when they are ready.
enum Saying {
  /// A Perl program that says each of `messages` to its notify socket, with `pause` seconds before each, and stays. In YAML.
  static func entry(_ messages: [String], pause: Double = 0.3) -> String {
    let texts = messages.map { "\"\($0)\"" }.joined(separator: ", ")
    let script = """
      use Socket; socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; $| = 1;
      for my $m (\(texts)) { select(undef, undef, undef, \(pause)); send($s, $m, 0, sockaddr_un($ENV{NOTIFY_SOCKET})) or print "failed: $!\\n"; }
      sleep 1000;
      """
    let line = script.replacingOccurrences(of: "\n", with: " ").replacingOccurrences(of: "$", with: "$$")
      .replacingOccurrences(of: "'", with: "''")
    return "entry: [/usr/bin/perl, -e, '\(line)']\nready: notify\nstop_grace_period: 300ms\n"
  }

  /// What the program needs of the host where an image has no Perl.
  static let host = "volumes: [\"/usr:/usr:ro\", \"/usr/lib:/lib:ro\", \"/usr/lib64:/lib64:ro\"]\n"

  /// Says it, is heard, is seen, and is known by the next daemon.
  static func check(_ instance: Instance, _ place: String) throws {
    try instance.write("app", "id: app\n\(place)\(entry(["STATUS=warming up", "READY=1\\nSTATUS=serving \\e[31mred"]))")
    try instance.write(
      "api", "id: api\nentry: [/bin/sleep, '1000']\ndepends_on: {app: {condition: service_healthy}}\n")
    let up = instance.up()
    #expect(up.code == 0, "\(up.err) \(instance.run("logs", "app").out)")
    #expect(instance.cursor("app", "app.ready", "by", "notify") < instance.cursor("api", "app.created"))
    #expect(instance.app("app")?["ready"] == true)
    eventually("its words are shown, cleaned") {
      instance.run("status", "app").out.contains("serving  [31mred")
    }
    let pid = instance.pid("app")
    instance.killDaemon()
    instance.startDaemon()
    #expect(instance.app("app")?["ready"] == true && instance.pid("app") == pid)
    #expect(instance.history("app").filter { $0["event"] == "app.ready" }.count == 1)
  }

  /// A program that never says it, one that says it without end and one that says nonsense.
  static func hostile(_ instance: Instance, _ place: String) throws {
    try instance.write(
      "mute", "id: mute\n\(place)\(entry(["STATUS=never", "READY=0", "READY=10\\nX", "\\0\\xFF\\n=\\n"], pause: 0))")
    let flood =
      "use Socket; socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die; my $n = 0; while (1) { send($s, \"STATUS=\" . $n++ . \"x\" x 100000, 0, sockaddr_un($ENV{NOTIFY_SOCKET})) }"
      .replacingOccurrences(of: "$", with: "$$")
    try instance.write(
      "flood",
      "id: flood\n\(place)entry: [/usr/bin/perl, -e, '\(flood)']\nready: notify\ncpus: 0.2\nstop_grace_period: 300ms\n")
    #expect(instance.up("--wait-timeout", "2s").code == 124)
    #expect(instance.app("mute")?["reason"]?.stringValue?.contains("has not said READY=1") == true)
    #expect(instance.app("mute")?["ready"] == false && instance.app("flood")?["ready"] == false)
    #expect(instance.run("ps", within: 5).code == 0, "nobody else waits for it")
    #expect(instance.events("flood").count < 20, "what it says is no history")
  }
}

@Suite("Apps that say that they are ready", .serialized) struct NotifyTests {
  @Test("a native app says it, is heard, is seen, and is known by the next daemon")
  func native() throws {
    let instance = try Instance()
    defer { instance.end() }
    try Saying.check(instance, "")
  }

  @Test("what a native app says while no daemon runs is not lost")
  func meanwhile() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("app", "id: app\n\(Saying.entry(["READY=1"], pause: 1))")
    #expect(instance.run("up", "-d", "--engine", "none", "--progress", "quiet", instance.policies).code == 0)
    instance.wait("app") { $0["state"] == "running" }
    instance.killDaemon()
    sleep(2)
    instance.startDaemon()
    #expect(instance.wait("app") { $0["ready"] == true } != nil)
  }

  @Test("a native app with a root file system of its own finds its socket too")
  func rootfs() throws {
    let instance = try Instance()
    defer { instance.end() }
    let root = "\(instance.root)-fs"
    defer { try? FileManager.default.removeItem(atPath: root) }
    let copy = Shell.run([
      "/bin/sh", "-ec",
      """
      mkdir -p '\(root)/usr/bin' '\(root)/run' && cd '\(root)'
      cp /usr/bin/perl usr/bin/
      for file in $(ldd /usr/bin/perl | grep -o '/[^ ]*'); do mkdir -p ".$(dirname $file)" && cp -L $file ".$file"; done
      for folder in $(perl -e 'print "@INC"'); do case $folder in *perl-base) mkdir -p ".$folder" && cp -a $folder/. ".$folder";; esac; done
      """,
    ])
    #expect(copy.code == 0, "\(copy.err)")
    try Saying.check(instance, "rootfs: \(root)\n")
  }

  @Test("what a hostile native app says makes nobody wait")
  func hostile() throws {
    let instance = try Instance()
    defer { instance.end() }
    try Saying.hostile(instance, "")
  }

  @Test("another app cannot say it for one, and the socket is not where another could find it")
  func others() throws {
    let instance = try Instance()
    defer { instance.end() }
    try instance.write("quiet", "id: quiet\n\(Saying.entry(["STATUS=quiet"]))")
    try instance.write("liar", "id: liar\n\(Saying.entry(["READY=1"], pause: 0))")
    #expect(instance.up("--wait-timeout", "2s").code == 124)
    #expect(instance.app("liar")?["ready"] == true && instance.app("quiet")?["ready"] == false)
  }

  @Test(
    "a container says it, with and without a network, is heard, is seen, and is known by the next daemon",
    .enabled(if: !Rig.available.isEmpty), arguments: Rig.available)
  func container(_ rig: Rig) throws {
    try rig.with { instance in
      try Saying.check(instance, "image: \(Rig.image)\n\(Saying.host)")
    }
  }

  @Test(
    "what a hostile container says makes nobody wait", .enabled(if: !Rig.available.isEmpty), arguments: Rig.available)
  func hostileContainer(_ rig: Rig) throws {
    try rig.with { instance in
      try Saying.hostile(instance, "image: \(Rig.image)\n\(Saying.host)")
    }
  }
}
