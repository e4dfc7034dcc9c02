internal import CLinux
internal import Glibc
internal import Linux
package import Model
package import RPC

/// Why the daemon could not be reached; what to do is in the text.
package struct Unreachable: Error, CustomStringConvertible {
  package var message: String
  package var hint: String
  /// As a program exits with it: 69; 4 where it is not permitted; 78 where the daemon's configuration is the reason.
  package var code: Int32 = 69
  package var description: String { "\(message). \(hint)" }
}

/// One instance's daemon, as a client sees it.
package struct Daemon: Sendable {
  package let place: InstancePlace
  package let folders: InstancePlace.Folders
  /// The folder of this program; its siblings are found from it.
  private let programs: String

  package init(place: InstancePlace, folders: InstancePlace.Folders, programs: String) {
    self.place = place
    self.folders = folders
    self.programs = programs
  }

  /// Connects to a daemon that runs.
  package func connect() throws(Unreachable) -> RPCClient {
    do throws(SystemFault) { return try RPCClient(path: folders.socket) } catch {
      switch error.code {
      case ENOENT, ECONNREFUSED:
        throw Unreachable(
          message: "no daemon runs for this instance (\(folders.socket))",
          hint: "`supervisor up` starts one, and so does `supervisor daemon`")
      case EACCES, EPERM:
        throw Unreachable(
          message: "you may not use \(folders.socket)", hint: "run as root, or as the user the daemon runs as",
          code: 4)
      default:
        throw Unreachable(
          message: "the daemon cannot be reached: \(error)", hint: "`supervisor doctor` checks this host")
      }
    }
  }

  /// Connects, and starts a daemon of its own session first where none answers; its socket is awaited for 10 s.
  package func connectStarting(engine: String?) throws(Unreachable) -> RPCClient {
    do throws(Unreachable) { _ = try connect() } catch {
      // None runs; any other reason shows when one is started.
      if error.code == 4 { throw error }
    }
    if let client = answering() { return client }
    let log = "\(folders.log)/daemon.log"
    do {
      var child: Child?
      let deadline = Clock.monotonic() + 10_000_000_000
      while Clock.monotonic() < deadline {
        let started = try child ?? start(engine: engine, log: log)
        child = started
        if let client = answering() { return client }
        guard try started.hasEnded(within: 10) else { continue }
        let failure = said(try started.exitCode(), log)
        // Another one was started at the same time, and its socket is on its way; or one that was killed is not gone yet.
        guard failure.message.contains("another daemon") else { throw failure }
        child = nil
        _ = poll(nil, 0, 100)
      }
    } catch let ended as Unreachable {
      throw ended
    } catch {
      throw Unreachable(message: "the daemon did not start: \(error)", hint: "its log is \(log)")
    }
    throw Unreachable(message: "the daemon did not answer within 10 s", hint: "its log is \(log)")
  }

  /// A connection that is served: the socket of a daemon that was just killed may still take one.
  private func answering() -> RPCClient? {
    // best effort: not there yet, or not any more.
    guard let client = try? RPCClient(path: folders.socket) else { return nil }
    do { _ = try client.call("api.list") } catch RPCClient.Stop.answered { return client } catch { return nil }
    return client
  }

  /// What a daemon that ended before it served said last: `error: …`, `hint: …`.
  private func said(_ code: Int32, _ log: String) -> Unreachable {
    // best effort: it only adds to a message.
    let lines = ((try? File.tail(log, 16_384)) ?? "").split(separator: "\n")
    let last = lines.lastIndex { $0.hasPrefix("error: ") }.map { lines[$0...] } ?? []
    let message = last.prefix { !$0.hasPrefix("hint: ") }.joined(separator: "\n").dropFirst("error: ".count)
    let hint = last.first { $0.hasPrefix("hint: ") }.map { "\($0.dropFirst("hint: ".count)); " } ?? ""
    return Unreachable(
      message: "the daemon did not start: \(message.isEmpty ? "it ended with \(code)" : message)",
      hint: "\(hint)its log is \(log)", code: code == 78 ? 78 : 69)
  }

  /// The program `name` beside this one, or in `../libexec/appsupervisor`.
  package func program(_ name: String) -> String? {
    ["\(programs)/\(name)", "\(programs)/../libexec/appsupervisor/\(name)"].first { access($0, X_OK) == 0 }
  }

  /// A started daemon, until it is known to have its socket or to have ended.
  private struct Child {
    var pid: pid_t

    /// Waits up to so many milliseconds for its end.
    func hasEnded(within milliseconds: Int32) throws(SystemFault) -> Bool {
      let handle = Descriptor(owning: try checkShim("pidfd_open", "\(pid)") { cl_pidfd_open(pid, 0) })
      return try handle.withRaw { (raw) throws(SystemFault) in
        var wait = pollfd(fd: raw, events: Int16(POLLIN), revents: 0)
        return try check("poll") { poll(&wait, 1, milliseconds) } > 0
      }
    }

    /// Its exit code once it has ended; 128 + the signal that ended it.
    func exitCode() throws(SystemFault) -> Int32 {
      switch try Children.wait(pid, block: true)?.end {
      case .code(let code)?: code
      case .signal(let number)?: 128 + number
      case nil: -1
      }
    }
  }

  private func start(engine: String?, log: String) throws(SystemFault) -> Child {
    guard let program = program("supervisor-daemon") else {
      throw SystemFault(call: "supervisor-daemon", subject: "\(programs)/supervisor-daemon", code: ENOENT)
    }
    let folder = try Folder(making: folders.log, mode: 0o750)
    let output = try folder.open("daemon.log", O_WRONLY | O_CREAT | O_APPEND, mode: 0o640)
    let null = Descriptor(owning: try check("open", "/dev/null") { open("/dev/null", O_RDONLY | O_CLOEXEC) })
    var arguments = [program] + place.arguments
    if let engine { arguments += ["--engine", engine] }
    var pid: pid_t = 0
    let map = output.withRaw { output in null.withRaw { [$0, output, output] } }
    try CStrings.with(arguments) { (vector) throws(SystemFault) in
      _ = try checkShim("posix_spawn", program) { cl_spawn(program, vector, environ, map, 3, &pid) }
    }
    return Child(pid: pid)
  }
}
