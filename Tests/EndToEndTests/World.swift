import Foundation
import Testing

/// What lies beyond a host: a network namespace linked to it by a pair of interfaces, in which servers count who comes.
///
/// 80 to 83 say who asks (83 keeps the connection), 84 sends 2 MB, 85 takes what comes, 53 counts datagrams, by where they were sent to.
final class World {
  static let address = "192.0.2.2"
  static let other = "192.0.2.3"
  static let metadata = "169.254.169.254"
  private let name: String
  private let folder: String
  private var servers: Started?
  /// The host's own namespace, if it was made for this.
  let home: String?

  /// `apart`: the host is a namespace of its own too, in which no engine has set a firewall.
  init(apart: Bool) throws {
    name = "appsup-w\(UInt32.random(in: 0..<1_000_000))"
    home = apart ? "\(name)h" : nil
    folder = "/var/tmp/\(name)"
    try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    try FileManager.default.createDirectory(atPath: "\(folder)/hits", withIntermediateDirectories: true)
    try #require(Shell.run(["ip", "netns", "add", name]).code == 0)
    if let home { try #require(Shell.run(["ip", "netns", "add", home]).code == 0) }
    ip(["link", "add", "wout", "type", "veth", "peer", "name", "win", "netns", name], inside: home)
    for command in [
      ["addr", "add", "192.0.2.1/24", "dev", "wout"], ["link", "set", "wout", "up"], ["link", "set", "lo", "up"],
      ["route", "add", "169.254.0.0/16", "dev", "wout"],
    ] { ip(command, inside: home) }
    for command in [
      ["addr", "add", "\(Self.address)/24", "dev", "win"], ["addr", "add", "\(Self.other)/24", "dev", "win"],
      ["addr", "add", "\(Self.metadata)/16", "dev", "win"], ["link", "set", "win", "up"], ["link", "set", "lo", "up"],
    ] { ip(command, inside: name) }
    try Self.program.write(toFile: "\(folder)/servers.pl", atomically: true, encoding: .utf8)
    servers = try Started(
      ["nsenter", "--net=/run/netns/\(name)", "perl", "\(folder)/servers.pl", folder],
      ProcessInfo.processInfo.environment)
    eventually("the servers listen") { FileManager.default.fileExists(atPath: "\(folder)/ready") }
  }

  func end() {
    if let servers {
      kill(servers.pid, SIGTERM)
      _ = servers.finish(within: 5)
    }
    // All of them, also those that serve somebody still.
    Shell.run(["sh", "-c", "ip netns pids \(name) | xargs -r kill -9"])
    if home == nil { ip(["link", "del", "wout"], inside: nil) }
    for namespace in [name, home].compactMap({ $0 }) { Shell.run(["ip", "netns", "del", namespace]) }
    try? FileManager.default.removeItem(atPath: folder)
  }

  private func ip(_ arguments: [String], inside namespace: String?) {
    let outcome = Shell.run((namespace.map { ["ip", "-n", $0] } ?? ["ip"]) + arguments)
    if outcome.code != 0 { Issue.record("ip \(arguments): \(outcome.err)") }
  }

  /// What runs a program where this world's host is.
  var prefix: [String] { home.map { ["nsenter", "--net=/run/netns/\($0)"] } ?? [] }

  /// A line for each that came to a port: `TO FROM`, and for 84 and 85 bytes and seconds.
  func hits(_ port: Int) -> [String] {
    ((try? String(contentsOfFile: "\(folder)/hits/\(port)", encoding: .utf8)) ?? "").split(separator: "\n").map(
      String.init)
  }

  private static let program = #"""
    use strict; use IO::Socket::INET; use Time::HiRes 'time';
    $SIG{CHLD} = 'IGNORE'; my $folder = $ARGV[0]; my $parent = $$; my @all;
    sub note { my ($port, $line) = @_; open my $f, '>>', "$folder/hits/$port"; syswrite $f, "$line\n"; }
    for my $port (80 .. 85) {
      my $s = IO::Socket::INET->new(Listen => 64, LocalPort => $port, ReuseAddr => 1) or die "$port: $!";
      my $pid = fork; if ($pid) { push @all, $pid; next }
      while (my $c = $s->accept) {
        next if fork;
        my $who = $c->sockhost . ' ' . $c->peerhost;
        my $begun = time; my $bytes = 0;
        if ($port == 84) { my $b = 'x' x 65536; for (1 .. 32) { my $at = 0; while ($at < 65536) { my $n = syswrite $c, $b, 65536 - $at, $at; exit unless $n; $at += $n } } shutdown $c, 1; sysread $c, my $x, 1; exit }
        if ($port == 85) { while (my $n = sysread $c, my $b, 65536) { $bytes += $n } note($port, sprintf '%s %d %.3f', $who, $bytes, time - $begun); exit }
        note($port, $who); syswrite $c, 'from ' . $c->peerhost . "\n";
        sleep 60 if $port == 83;
        exit;
      }
    }
    for my $here ('192.0.2.2', '192.0.2.3') {
      my $pid = fork; if ($pid) { push @all, $pid; next }
      my $s = IO::Socket::INET->new(Proto => 'udp', LocalAddr => $here, LocalPort => 53) or die;
      while (defined $s->recv(my $b, 4096)) { note(53, $here) }
    }
    $SIG{TERM} = sub { kill 'KILL', @all; exit };
    open my $f, '>', "$folder/ready"; close $f;
    sleep 1 while 1;
    """#
}
