// supervisor: the command line. One file per group of verbs in Verbs/; each asks the daemon through Client and prints.
//
// Owns:   arguments, tables, colours, progress, exit codes (cli.md).
// Never:  touches an app, the engine's containers or the state itself.
// Note:   every verb's configuration says `commandName:`. Made from the type's name it would cost each start of the program four searches
//         through all conformances of all libraries, for each verb: 3 ms in all, more than the rest of the start.
// Next:   Session.swift (what every verb needs), Verbs/Up.swift.

import ArgumentParser
internal import Glibc
internal import Model

@main
struct Supervisor: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "supervisor",
    abstract: "Run apps on this host as containers or sandboxed processes, each held to its policy.",
    discussion: """
      Start with `supervisor up policies/demo`, look with `supervisor ps`, stop with `supervisor down policies/demo`.

      Exit codes: 0 done, 1 failed, 2 bad usage or invalid policy, 3 not running (status), 4 no such app or not permitted, \
      7 the app is not running, 69 the daemon cannot be reached, 78 configuration invalid, 124 timed out.
      """,
    version: Build.version,
    groupedSubcommands: [
      CommandGroup(
        name: "Apps",
        subcommands: [
          Up.self, Down.self, Run.self, Start.self, Stop.self, Restart.self, Kill.self, Remove.self, Pause.self,
          Unpause.self,
          Wait.self, SetVerb.self, Unset.self,
        ]),
      CommandGroup(
        name: "Looking",
        subcommands: [
          List.self, Status.self, Explain.self, Logs.self, Events.self, Stats.self, Top.self, Port.self, Inspect.self,
          Exec.self, Debug.self, Attach.self,
        ]),
      CommandGroup(
        name: "Policies", subcommands: [Plan.self, PolicyGroup.self, Config.self, ImportVerb.self, ExportVerb.self]),
      CommandGroup(name: "Rights", subcommands: [PermissionGroup.self, CallsVerb.self]),
      CommandGroup(
        name: "Images", subcommands: [Images.self, Pull.self, Load.self, Build_.self, RemoveImage.self, Prune.self]),
      CommandGroup(
        name: "Host",
        subcommands: [
          Doctor.self, DaemonVerb.self, Enable.self, Disable.self, API.self, VersionVerb.self, Completion.self,
        ]),
    ])

  static func main() {
    do {
      var command = try parseAsRoot(commonOptionsLast(Array(CommandLine.arguments.dropFirst())))
      try command.run()
    } catch let failure as Failure {
      failure.report()
      Glibc.exit(failure.code)
    } catch {
      let code = exitCode(for: error)
      let text = fullMessage(for: error)
      guard code != .success else {
        print(text)
        Glibc.exit(0)
      }
      // A verb that ends with somebody else's exit code has nothing to say.
      if !text.isEmpty { Output.error(text) }
      // 64 is the library's word for bad usage; ours is 2.
      Glibc.exit(code == .validationFailure ? 2 : code.rawValue)
    }
  }

  /// `supervisor --root DIR ps` means `supervisor ps --root DIR`: what every verb takes may also stand in front of it.
  static func commonOptionsLast(_ arguments: [String]) -> [String] {
    var rest = arguments[...]
    var moved: [String] = []
    while let first = rest.first {
      let name = first.split(separator: "=", maxSplits: 1).first.map(String.init) ?? first
      if ["--root", "--format", "--ansi"].contains(name) {
        moved.append(rest.removeFirst())
        if name == first, let value = rest.popFirst() { moved.append(value) }
      } else if ["--system", "--user"].contains(first) {
        moved.append(rest.removeFirst())
      } else {
        break
      }
    }
    guard let verb = rest.popFirst() else { return moved }
    let inner = ["policy", "perm"].contains(verb) ? rest.popFirst() : nil
    return [verb] + (inner.map { [$0] } ?? []) + moved + rest
  }
}
