import Foundation
import Model
import Testing

/// Daemons that come and go, and what they leave behind.
extension Instance {
  /// Starts a daemon without changing anything.
  @discardableResult
  func startDaemon() -> Outcome {
    let none = "\(root)-none"
    try? FileManager.default.createDirectory(atPath: none, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(atPath: none) }
    let up = run("up", "-d", "--engine", engine, "--progress", "quiet", none)
    if up.code != 0 {
      let log = (try? String(contentsOfFile: "\(root)/log/daemon.log", encoding: .utf8)) ?? ""
      Issue.record("no daemon: \(up.err)\n\(log.suffix(4000))")
    }
    return up
  }

  /// Ends the daemon at once, as a crash would.
  func killDaemon() {
    guard let pid = daemon else {
      Issue.record("no daemon runs")
      return
    }
    kill(pid, SIGKILL)
    eventually("the daemon is gone") { kill(pid, 0) != 0 || Process.isZombie(pid) }
  }

  /// Ends the daemon in good order; the next one uses `engine`.
  func changeEngine(_ engine: String) {
    let stop = run("daemon", "--stop")
    if stop.code != 0 { Issue.record("daemon --stop: \(stop.err)") }
    eventually("the daemon is gone") { run("ps").code == 69 }
    self.engine = engine
    startDaemon()
  }

  /// This instance's random id.
  var id: String? { version?["instance"]?.stringValue }

  /// What `version` says of the daemon.
  var version: JSONValue? { run("version", "--format", "json").lines.first?["daemon"] }

  /// `status APP` whole.
  func status(_ app: String) -> JSONValue? { run("status", app, "--format", "json").lines.first }

  /// The pid of a running app.
  func pid(_ app: String) -> Int32? { self.app(app)?["pid"]?.integerValue.map { Int32($0) } }

  /// Names of events, oldest first.
  func events(_ app: String) -> [String] {
    run("events", app, "--format", "json").lines.compactMap { $0["event"]?.stringValue }
  }

  /// Programs of this instance that run: shims, apps in its cgroups; and its cgroups and containers.
  var leftovers: [String] {
    var found: [String] = []
    let deadline = Date().addingTimeInterval(5)
    repeat {
      found = shims.map { "shim \($0)" } + cgroups.map { "cgroup \($0)" } + strayContainers
      if found.isEmpty { return [] }
      usleep(50000)
    } while Date() < deadline
    return found
  }

  private var strayContainers: [String] {
    guard let known = knownID, let rig = Rig.allCases.first(where: { $0.socket == engine }) else { return [] }
    return rig.containers(of: known).map { "container \($0["Names"]?.arrayValue?.first?.stringValue ?? "?")" }
      + rig.networks(of: known).map { "network \($0)" }
  }

  /// Shims that keep apps of this root.
  var shims: [Int32] {
    Process.all.filter { pid in
      Process.command(pid).first?.hasSuffix("supervisor-shim") == true
        && Process.files(pid).contains { $0.hasPrefix("\(root)/") }
    }
  }

  /// Cgroups of this instance's apps that exist, in any hierarchy.
  var cgroups: [String] {
    guard let id = knownID else { return [] }
    let name = "appsupervisor-\(id.prefix(8))"
    return ["", "memory", "pids", "cpu", "freezer", "blkio", "cpuset", "unified"].flatMap { base -> [String] in
      let folder = "/sys/fs/cgroup/\(base)/\(name)"
      let names = (try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []
      return names.filter { child in
        var facts = stat()
        return child != "shims" && stat("\(folder)/\(child)", &facts) == 0 && facts.st_mode & S_IFMT == S_IFDIR
      }.map { "\(base)/\(name)/\($0)" }
    }
  }
}

extension Process {
  /// Pids of every process.
  static var all: [Int32] {
    ((try? FileManager.default.contentsOfDirectory(atPath: "/proc")) ?? []).compactMap { Int32($0) }
  }

  static func command(_ pid: Int32) -> [String] {
    ((try? String(contentsOfFile: "/proc/\(pid)/cmdline", encoding: .utf8)) ?? "").split(separator: "\0").map(
      String.init)
  }

  /// Paths of what it has open.
  static func files(_ pid: Int32) -> [String] {
    let folder = "/proc/\(pid)/fd"
    return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).compactMap {
      try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)")
    }
  }

  /// Whether it has ended with all of its threads; those of a killed process may outlast its first one.
  static func isZombie(_ pid: Int32) -> Bool {
    guard let status = try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8) else { return true }
    let threads = (try? FileManager.default.contentsOfDirectory(atPath: "/proc/\(pid)/task"))?.count ?? 0
    return status.contains("State:\tZ") && threads <= 1
  }

  static func isAlive(_ pid: Int32) -> Bool { kill(pid, 0) == 0 && !isZombie(pid) }

  static func parent(_ pid: Int32) -> Int32? {
    let text = (try? String(contentsOfFile: "/proc/\(pid)/status", encoding: .utf8)) ?? ""
    return text.split(separator: "\n").first { $0.hasPrefix("PPid:") }?.split(separator: "\t").last.flatMap {
      Int32($0)
    }
  }
}
