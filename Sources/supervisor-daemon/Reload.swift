internal import Control
internal import Glibc
internal import Linux
internal import Logging
internal import Model
internal import Policies
internal import RPC
internal import Scheduling
internal import Supervision

/// Reads config.yaml and the policies of the config folder again: SIGHUP, and `daemon.reload`. What is wrong is told, and then the old
/// stays in force: of the configuration all of it, of the policies all of them.
actor Reload {
  private let folders: InstancePlace.Folders
  private let environment: [String: String]
  private let supervisor: Supervisor
  private let standing: Standing
  private let log: Logger
  /// As it is in force.
  private var configuration: Configuration

  init(
    _ configuration: Configuration, _ folders: InstancePlace.Folders, _ environment: [String: String],
    _ supervisor: Supervisor, _ standing: Standing, _ log: Logger
  ) {
    self.configuration = configuration
    self.folders = folders
    self.environment = environment
    self.supervisor = supervisor
    self.standing = standing
    self.log = log
  }

  /// What was taken over, what needs another daemon, and what is wrong.
  func run() async -> JSONValue {
    // systemd shows the unit as reloading until it is ready again (sd_notify(3)).
    Notify.send("RELOADING=1\nMONOTONIC_USEC=\(Clock.monotonic() / 1000)")
    defer { Notify.send("READY=1") }
    var report = JSONObject()
    var problems: [String] = []
    await readConfiguration(&report, &problems)
    await readPolicies(&report, &problems)
    report["problems"] = .array(problems.map { .string($0) })
    var fields: [String: JSONValue] = [:]
    for (key, value) in report { fields[key] = value }
    await supervisor.note("daemon.reloaded", fields)
    return .object(report)
  }

  private func readConfiguration(_ report: inout JSONObject, _ problems: inout [String]) async {
    let path = "\(folders.config)/config.yaml"
    let reading: ConfigurationReading
    do throws(SystemFault) { reading = Policies.readConfiguration(try File.read(path, limit: 1 << 20 + 1)) } catch
      where error.code == ENOENT
    {
      reading = Policies.readConfiguration([])
    } catch {
      problems.append("config.yaml cannot be read: \(error)")
      return
    }
    problems += reading.problems.map { $0.rendered(file: path) }
    guard let read = reading.configuration else { return }
    let change = ConfigurationChange(from: configuration, to: read)
    configuration = configuration.takingOver(read)
    let rules = configuration.rules
    standing.replace(rules: rules, authority: Operators.authority(configuration, log))
    await supervisor.reconfigure(
      rules: rules, admission: Admission(capacity: HostMemory.capacity(), reserve: configuration.reserve.memory))
    report["applied"] = .array(change.live.map { .string($0) })
    report["needs_restart"] = .array(change.atRestart.map { .string($0) })
  }

  private func readPolicies(_ report: inout JSONObject, _ problems: inout [String]) async {
    let folder = "\(folders.config)/policies"
    let found: [PolicySource]
    do throws(SystemFault) { found = try sources(folder) } catch  where error.code == ENOENT {
      return
    } catch {
      problems.append("the policies of \(folder) cannot be read: \(error)")
      return
    }
    let rules = standing.rules
    let readings = found.map { Policies.read($0, rules: rules) }
    problems += readings.flatMap { reading in reading.problems.map { $0.rendered(file: reading.path) } }
    let wanted = readings.filter { $0.policy?.profiles.isEmpty ?? true }
    let ids = Set(wanted.compactMap(\.policy?.id))
    let others = await supervisor.reports(nil).filter { !ids.contains($0.id) }.map(\.policy)
    let together = checkTogether(wanted, alreadyApplied: others)
    problems += together.map { $0.rendered(file: folder) }
    guard readings.allSatisfy({ $0.policy != nil }), together.allSatisfy({ $0.severity != .error }) else {
      problems.append("no policy was applied: all stay as they were")
      return
    }
    let checked = wanted.compactMap { reading -> CheckedApp? in
      guard let policy = reading.policy, let canonical = reading.canonical, !policy.template else { return nil }
      return CheckedApp(policy: policy, canonical: canonical.text, file: reading.path)
    }
    do throws(OperationFailure) {
      let changes = try await supervisor.apply(checked, origin: folder, keepWants: true)
      var apps = JSONObject()
      for (id, change) in changes.sorted(by: { $0.key < $1.key }) { apps[id.name] = .string(change.rawValue) }
      report["apps"] = .object(apps)
      let all = Set(readings.compactMap(\.policy?.id))
      report["orphans"] = .array(await supervisor.orphans(of: folder, keeping: all).map { .string($0.name) })
    } catch { problems.append("no policy was applied: \(RPCFailure(error).message)") }
  }

  /// As `up` reads a folder, but with the daemon's own variables.
  private func sources(_ path: String) throws(SystemFault) -> [PolicySource] {
    let folder = try Folder(opening: path)
    var sources: [PolicySource] = []
    for name in try folder.names()
    where (name.hasSuffix(".yaml") || name.hasSuffix(".yml")) && !name.hasPrefix(".") && name != "config.yaml" {
      var source = PolicySource(
        path: "\(path)/\(name)", folder: path, bytes: try folder.read(name, limit: 1 << 20 + 1),
        environment: environment,
        defaultStack: "policies")
      for (named, required) in envFilesNamed(in: source.bytes, environment: environment) {
        let place = absolutePath(named, in: path)
        do throws(SystemFault) { source.envFiles[named] = try File.read(place, limit: 1 << 20) } catch  where !required
        {}
      }
      sources.append(source)
    }
    return sources
  }
}
