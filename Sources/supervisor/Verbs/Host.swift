import ArgumentParser
internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// `supervisor daemon`
struct DaemonVerb: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "daemon", abstract: "Run the daemon in the foreground, or end the one that runs.",
    discussion: "Apps outlive the daemon: ending it leaves them running, and the next one takes them over.")
  @OptionGroup var common: Common
  @Flag(help: "End the running daemon; apps run on.")
  var stop = false
  @Flag(help: "Have the running daemon read config.yaml and the policies of its config folder again, as SIGHUP does.")
  var reload = false
  @Option(help: ArgumentHelp("docker, podman, none or a socket.", valueName: "engine"))
  var engine: String?

  func run() throws {
    let session = try Session(common)
    if stop {
      _ = try session.connect().ask("daemon.stop")
      return
    }
    if reload { return try ReloadView.show(try session.connect().ask("daemon.reload"), json: common.format == .json) }
    guard let program = session.daemon.program("supervisor-daemon") else {
      throw Failure(1, "supervisor-daemon is not beside this program", hint: "install both from the same build")
    }
    var arguments = [program] + session.daemon.place.arguments
    if let engine { arguments += ["--engine", engine] }
    CStrings.with(arguments) { _ = execv(program, $0) }
    throw Failure(1, "\(program) cannot be executed", hint: "check the file's permissions")
  }
}

/// What a reload came to.
enum ReloadView {
  static func show(_ answer: JSONValue, json: Bool) throws {
    let problems = answer["problems"]?.arrayValue ?? []
    if json {
      Output.line(answer.text)
    } else {
      for (name, change) in answer["apps"]?.objectValue ?? JSONObject() where change != "unchanged" {
        Output.line("\(name)  \(change.stringValue ?? "")")
      }
      for key in answer["applied"]?.arrayValue ?? [] {
        Output.line("config.yaml: \(key.stringValue ?? "") is in force")
      }
      for key in answer["needs_restart"]?.arrayValue ?? [] {
        Output.line(
          "config.yaml: \(key.stringValue ?? "") needs a restart of the daemon, which apps do not notice: `supervisor daemon --stop`, then `supervisor up -d`"
        )
      }
      for orphan in answer["orphans"]?.arrayValue ?? [] {
        Output.error(
          "\(orphan.stringValue ?? ""): its file is gone; `supervisor down \(orphan.stringValue ?? "")` takes it down")
      }
      for problem in problems { Output.error(problem.stringValue ?? "") }
    }
    if !problems.isEmpty { throw ExitCode(1) }
  }
}

/// `supervisor version`
struct VersionVerb: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "version", abstract: "Print the versions of this program and of the daemon that runs.")
  @OptionGroup var common: Common

  func run() throws {
    var answer: JSONValue?
    // best effort: without a daemon there is only one version to print.
    if let client = try? Session(common).daemon.connect() { answer = try? client.call("version") }
    if common.format == .json {
      let daemon = answer.map {
        JSONValue.object([
          "version": $0["version"], "pid": $0["pid"], "root": $0["root"], "engine": $0["engine"],
          "instance": $0["instance"],
          "cgroup_parent": $0["cgroup_parent"],
        ])
      }
      Output.line(JSONValue.object(["client": .string(Build.version), "daemon": daemon ?? .null]).text)
      return
    }
    Output.line("supervisor \(Build.version)")
    guard let answer else {
      Output.line("daemon     not running")
      return
    }
    Output.line(
      "daemon     \(answer["version"]?.stringValue ?? "?"), pid \(answer["pid"]?.integerValue ?? 0), root \(answer["root"]?.stringValue ?? "?")"
    )
    let engine = answer["engine"]
    if let name = engine?["name"]?.stringValue {
      Output.line(
        "engine     \(name) \(engine?["version"]?.stringValue ?? ""), API \(engine?["api"]?.stringValue ?? "")")
    } else {
      Output.line("engine     none: \(engine?["reason"]?.stringValue ?? "not asked for")")
    }
  }
}

/// `supervisor api`
struct API: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "api", abstract: "Call any method of the daemon, or list them.")
  @OptionGroup var common: Common
  @Flag(help: "Print every method with its role and arguments.")
  var list = false
  @Argument(help: "The method.")
  var method: String?
  @Argument(help: "Its arguments as a JSON object.")
  var arguments = "{}"

  func run() throws {
    let client = try Session(common).connect()
    guard let method, !list else {
      let methods = try client.ask("api.list").arrayValue ?? []
      if common.format == .json {
        for entry in methods { Output.line(entry.text) }
        return
      }
      var table = Table(["METHOD", "ROLE", "STREAM", "ARGUMENTS", "WHAT IT DOES"])
      for entry in methods {
        table.add([
          .init(entry["method"]?.stringValue ?? ""), .init(entry["role"]?.stringValue ?? ""),
          .init(entry["streams"]?.boolValue == true ? "yes" : ""),
          .init((entry["arguments"]?.arrayValue ?? []).compactMap(\.stringValue).joined(separator: " ")),
          .init(entry["summary"]?.stringValue ?? ""),
        ])
      }
      table.print()
      return
    }
    let value: JSONValue
    do throws(JSONSyntaxError) { value = try JSONValue(parsing: Array(arguments.utf8)) } catch {
      throw Failure(2, "the arguments are \(error)", hint: "write one JSON object, for example '{\"app\":\"web\"}'")
    }
    let interrupt = try Interrupt()
    do {
      let answer = try client.ask(method, value, interrupt: interrupt.raw) { Output.line($0.text) }
      Output.line(common.format == .json ? answer.text : answer.prettyText)
    } catch is Interrupt.Caught {}
  }
}

/// `supervisor completion`
struct Completion: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "completion", abstract: "Print the completion script of a shell.",
    discussion: "For example: `supervisor completion bash > /etc/bash_completion.d/supervisor`.")
  @Argument(help: "bash, zsh or fish.")
  var shell: String

  func run() throws {
    guard let shell = CompletionShell(rawValue: shell), CompletionShell.allCases.contains(shell) else {
      throw ValidationError("'\(shell)' is not a shell this program knows: bash, zsh or fish")
    }
    Output.line(Supervisor.completionScript(for: shell))
  }
}
