import ArgumentParser
internal import CLinux
internal import Client
internal import Glibc
internal import Linux
internal import Model

/// `supervisor enable`
struct Enable: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "enable", abstract: "Start the daemon at boot, through systemd.",
    discussion: """
      Writes appsupervisor.service (as root the system's, else your own) and enables it. Where there is no systemd nothing is \
      written, and you are told what to start at boot instead. A unit that was changed by hand is not replaced without --force.
      """)
  @OptionGroup var common: Common
  @Flag(help: "Start it now, too.") var now = false
  @Flag(help: "Replace a unit that was changed.") var force = false
  @Flag(help: "Print the unit, and do nothing.") var dryRun = false

  func run() throws {
    let unit = try ServiceUnit(Session(common))
    if dryRun {
      Output.raw(unit.text)
      return
    }
    try unit.requireSystemd()
    // best effort: none is there yet.
    let there = try? File.text(unit.path)
    guard there == nil || there == unit.text || force else {
      throw Failure(
        1, "\(unit.path) is there and is not what this program would write",
        hint: "`enable --dry-run` prints that; --force replaces it")
    }
    do throws(SystemFault) {
      let folder = try Folder(making: unit.folder, mode: 0o755)
      try folder.replace(unit.name, with: Array(unit.text.utf8), mode: 0o644)
    } catch {
      throw Failure(
        error.code == EACCES ? 4 : 1, "the unit cannot be written: \(error)",
        hint: "run as root, or with --user for an instance of your own")
    }
    try unit.systemctl(["daemon-reload"])
    try unit.systemctl(["enable", unit.name] + (now ? ["--now"] : []))
    say(["enabled": .string(unit.path), "started": .bool(now)], "enabled \(unit.path)\(now ? ", started" : "")")
    if case .system = unit.place, getgrnam("appsupervisor") == nil, common.format != .json {
      Output.error("For others than root to use it: groupadd --system appsupervisor, and `operators` in config.yaml.")
    }
  }

  private func say(_ object: KeyValuePairs<String, JSONValue?>, _ text: String) {
    Output.line(common.format == .json ? JSONValue.object(object).text : text)
  }
}

/// `supervisor disable`
struct Disable: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "disable", abstract: "No longer start the daemon at boot.",
    discussion: "The daemon that runs goes on, unless --now ends it; apps run on in either case.")
  @OptionGroup var common: Common
  @Flag(help: "End the daemon, too; apps run on.") var now = false

  func run() throws {
    let unit = try ServiceUnit(Session(common))
    try unit.requireSystemd()
    guard File.exists(unit.path) else {
      throw Failure(
        1, "\(unit.path) is not there: it is not enabled", hint: "`systemctl status \(unit.name)` says what is")
    }
    try unit.systemctl(["disable", unit.name] + (now ? ["--now"] : []))
    do throws(SystemFault) { try Folder(opening: unit.folder).remove(unit.name) } catch {
      throw Failure(error.code == EACCES ? 4 : 1, "the unit cannot be removed: \(error)", hint: "run as root")
    }
    try unit.systemctl(["daemon-reload"])
    Output.line(
      common.format == .json
        ? JSONValue.object(["disabled": .string(unit.path), "stopped": .bool(now)]).text : "disabled \(unit.path)")
  }
}

/// The unit of an instance: the text of deploy/appsupervisor.service with this installation's paths.
struct ServiceUnit {
  let place: InstancePlace
  let folder: String
  let name = "appsupervisor.service"
  let text: String
  private let daemon: String
  var path: String { "\(folder)/\(name)" }

  init(_ session: Session) throws {
    place = session.daemon.place
    guard let program = session.daemon.program("supervisor-daemon") else {
      throw Failure(1, "supervisor-daemon is not beside this program", hint: "install both from the same build")
    }
    // Where it is, not how this program found it.
    daemon = (try? Place.resolve(program)) ?? program
    switch place {
    case .system: folder = "/etc/systemd/system"
    case .user:
      guard let home = session.environment["HOME"] else { throw Failure(78, "HOME is not set", hint: "set HOME") }
      let base = session.environment["XDG_CONFIG_HOME"].flatMap { $0.hasPrefix("/") ? $0 : nil } ?? "\(home)/.config"
      folder = "\(base)/systemd/user"
    case .root(let root):
      throw Failure(
        2, "an instance under a folder (\(root)) is not started at boot",
        hint: "use --system or --user, or start `\(daemon) --root \(root)` yourself")
    }
    text = Self.text(daemon, isUser: place == .user)
  }

  /// A user's manager has neither the system's targets nor its folders, and cannot give what stands in the last block.
  private static func text(_ daemon: String, isUser: Bool) -> String {
    let escaped = daemon.map { $0 == "%" || $0 == "$" ? "\($0)\($0)" : "\($0)" }.joined()
    let command = escaped.contains(" ") ? "\"\(escaped)\"" : escaped
    guard isUser else { return template.replacing("/usr/libexec/appsupervisor/supervisor-daemon", with: command) }
    return """
      # Your own instance of appsupervisor, by `supervisor enable --user`.
      [Unit]
      Description=appsupervisor, which runs apps within their limits

      [Service]
      Type=notify
      NotifyAccess=main
      ExecStart=\(command) --user
      ExecReload=/bin/kill -HUP $MAINPID
      Restart=always
      RestartSec=1
      WatchdogSec=30
      TimeoutStartSec=120
      KillMode=process
      SendSIGKILL=no
      Delegate=yes

      [Install]
      WantedBy=default.target

      """
  }

  /// Refuses where systemd does not run (sd_booted(3)), with what to do there.
  func requireSystemd() throws {
    guard !File.exists("/run/systemd/system") else { return }
    throw Failure(
      1, "systemd does not run here, so there is nothing to enable",
      hint:
        "let your init start `\(daemon) \(place.arguments.joined(separator: " "))` at boot, in the foreground, and again if it ends; "
        + "it needs no pid file, ends on SIGTERM, and leaves apps running",
      name: "no_systemd")
  }

  func systemctl(_ arguments: [String]) throws {
    guard let program = ["/usr/bin/systemctl", "/bin/systemctl"].first(where: { File.exists($0) }) else {
      throw Failure(1, "there is no systemctl on this host")
    }
    let all = [program] + (place == .user ? ["--user"] : []) + ["--quiet"] + arguments
    var end: ChildEnd?
    do throws(SystemFault) {
      var pid: pid_t = 0
      try CStrings.with(all) { (vector) throws(SystemFault) in
        _ = try checkShim("posix_spawn", program) { cl_spawn(program, vector, environ, [0, 1, 2], 3, &pid) }
      }
      end = try Children.wait(pid, block: true)?.end
    } catch { throw Failure(1, "\(error)") }
    guard case .code(0)? = end else {
      throw Failure(1, "`\(all.joined(separator: " "))` failed", hint: "its own words are above")
    }
  }
}
