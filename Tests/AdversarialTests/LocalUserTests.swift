import Foundation
import Glibc
import Model
import Testing

extension Attacks {
  /// By a local user whom `operators` lets look, and no more.
  @Suite("on the control socket", .serialized, .enabled(if: getuid() == 0, "needs root")) struct LocalUsers {
    private static let uid = 4242
    private static let gid = getgrnam("appsupervisor").map { Int($0.pointee.gr_gid) } ?? 54321

    /// An instance with one app, and its daemon as it is at rest.
    private func with(_ body: (Instance, Int32) throws -> Void) throws {
      let instance = try Instance()
      defer { instance.end() }
      try FileManager.default.createDirectory(atPath: "\(instance.root)/config", withIntermediateDirectories: true)
      try "operators:\n  - {user: '\(Self.uid)', role: viewer, stacks: ['*']}\n".write(
        toFile: "\(instance.root)/config/config.yaml", atomically: true, encoding: .utf8)
      let group = "\(instance.root)/group"
      let known = try String(contentsOfFile: "/etc/group", encoding: .utf8)
      try known.write(toFile: group, atomically: true, encoding: .utf8)
      if !known.contains("\nappsupervisor:") {
        try "\(known)appsupervisor:x:\(Self.gid):\n".write(toFile: group, atomically: true, encoding: .utf8)
      }
      try instance.write("quiet", "id: quiet\nentry: [/bin/sleep, '1000']\nstop_grace_period: 1s\n")
      let up = instance.run(
        ["up", "-d", "--wait", "--progress", "quiet", "--engine", "none", instance.policies],
        prefix: [
          "unshare", "-m", "--propagation", "slave", "sh", "-c",
          "mount --bind \(group) /etc/group && exec \"$0\" \"$@\"",
        ])
      #expect(up.code == 0, "\(up.err)")
      try body(instance, try #require(instance.daemon))
    }

    private func run(_ instance: Instance, _ name: String) throws -> Started {
      try Started(
        [
          "/usr/bin/setpriv", "--reuid", "\(Self.uid)", "--regid", "\(Self.uid)", "--groups", "\(Self.gid)",
          try #require(Probe.path), name,
        ],
        ["PROBE_CONTROL": "\(instance.root)/run/supervisor.sock", "PROBE_HOLD": "1.5"])
    }

    private struct Size {
      var files: Int
      var threads: Int
      var resident: Int
    }

    private func size(_ daemon: Int32) -> Size {
      let status = (try? String(contentsOfFile: "/proc/\(daemon)/status", encoding: .utf8)) ?? ""
      func number(_ name: String) -> Int {
        status.split(separator: "\n").first { $0.hasPrefix(name) }.flatMap { Int($0.filter(\.isNumber)) } ?? -1
      }
      return Size(files: Process.files(daemon).count, threads: number("Threads:"), resident: number("VmRSS:"))
    }

    @Test(
      "A35 A36 A42 A47: a user who asks, connects, sends descriptors or reads nothing without end holds up herself alone"
    )
    func floods() throws {
      try with { instance, daemon in
        _ = instance.run("ps", "-q")
        for name in ["A35", "A36", "A42", "A47", "A48"] {
          let before = size(daemon)
          let attack = try run(instance, name)
          let pulse = Pulse(port: nil) { [instance = Unchecked(instance)] in
            instance.value.run("ps", "-q", within: 10).code == 0
          }
          // Looked at while it goes on.
          var most = before
          let end = Date().addingTimeInterval(60)
          while waitid(P_PID, id_t(attack.pid)) == false, Date() < end {
            let now = size(daemon)
            most = Size(
              files: max(most.files, now.files), threads: max(most.threads, now.threads),
              resident: max(most.resident, now.resident))
            usleep(20_000)
          }
          let outcome = attack.finish(within: 30)
          pulse.end(
            "\(name) by a local user",
            "; the daemon's files \(before.files) → \(most.files), memory \(before.resident >> 10) → \(most.resident >> 10) MiB"
          )
          let answers = Answer.all(in: outcome.out)
          #expect(answers.first?.verdict == "blocked", "\(name): \(outcome.out)\(outcome.err)")
          // 64 connections, 64 descriptors, as many as one message can bring, and what others need meanwhile.
          #expect(most.files <= before.files + 64 + 64 + 253 + 32, "\(name)")
          #expect(most.resident <= before.resident + 96 * 1024, "\(name)")
          #expect(instance.daemon == daemon)
          eventually("\(name): what it took is given back") { size(daemon).files <= before.files + 8 }
        }
        #expect(instance.app("quiet")?["state"] == "running")
      }
    }

    @Test("A58: one who is not let in reaches neither the control socket nor a shim's, and an app neither of them")
    func strangers() throws {
      try with { instance, _ in
        let shims = try FileManager.default.contentsOfDirectory(atPath: "\(instance.root)/run/shims").filter {
          $0.hasSuffix(".sock")
        }
        let shim = try #require(shims.first)
        for (path, groups) in [
          ("supervisor.sock", "54329"), ("shims/\(shim)", "\(Self.gid)"), ("shims/\(shim)", "54329"),
        ] {
          let outcome = try Started(
            [
              "/usr/bin/setpriv", "--reuid", "\(Self.uid)", "--regid", "\(Self.uid)", "--groups", groups,
              try #require(Probe.path), "A58",
            ],
            ["PROBE_SOCKETS": "\(instance.root)/run/\(path)"]
          ).finish(within: 60)
          let steps = Answer.all(in: outcome.out).first?.steps ?? []
          let step = try #require(steps.last { $0.call == "connect to socket 1" }, "\(outcome.out)\(outcome.err)")
          #expect(step.result == "blocked" && step.detail == "EACCES", "\(path) \(step)")
        }
      }
    }

    /// Whether a child has ended, which is left to be waited for.
    private func waitid(_ kind: idtype_t, _ pid: id_t) -> Bool {
      var info = siginfo_t()
      return Glibc.waitid(kind, pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info._sifields._sigchld.si_pid != 0
    }
  }
}

/// SAFETY: an Instance starts programs, and keeps nothing that two threads would change.
struct Unchecked<Value>: @unchecked Sendable {
  let value: Value
  init(_ value: Value) { self.value = value }
}
