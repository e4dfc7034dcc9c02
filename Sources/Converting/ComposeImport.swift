internal import Model
package import Policies

/// A Compose file as whoever imports it has read it.
package struct ComposeSource: Sendable {
  /// For messages.
  package var path: String
  /// Absolute: what relative paths in the file are relative to.
  package var folder: String
  /// Absolute: where the policies will be written.
  package var outFolder: String
  package var bytes: [UInt8]
  /// With what a `.env` beside the file says.
  package var environment: [String: String]
  /// Nil: as the file, else its folder, says.
  package var project: String?
  /// Put before every id.
  package var prefix = ""
  /// What the engine says of each image that it has.
  package var images: [String: ImageFacts] = [:]

  package init(path: String, folder: String, outFolder: String, bytes: [UInt8], environment: [String: String]) {
    self.path = path
    self.folder = folder
    self.outFolder = outFolder
    self.bytes = bytes
    self.environment = environment
  }
}

/// What an image's own configuration says, as far as an import needs it.
package struct ImageFacts: Sendable, Equatable {
  /// As `USER` has it; empty: root.
  package var user: String
  /// Folders it declares as volumes.
  package var volumes: [String]
  /// As `STOPSIGNAL` has it; empty: SIGTERM.
  package var stopSignal: String

  package init(user: String, volumes: [String] = [], stopSignal: String = "") {
    self.user = user
    self.volumes = volumes
    self.stopSignal = stopSignal
  }

  var runsAsRoot: Bool { ["", "0", "root"].contains(String(user.prefix { $0 != ":" })) }
}

/// What came of a Compose file.
package struct Import: Sendable {
  package struct File: Sendable, Equatable {
    /// Relative to the folder that the policies go to.
    package var name: String
    package var text: String
    /// Whether a variable's value may stand in it.
    package var isPrivate: Bool
  }
  /// Policies, and files whose content the Compose file held. Empty if there are problems.
  package var files: [File] = []
  package var remarks: [Remark] = []
  /// Errors: the file could not be imported.
  package var problems: [Problem] = []
}

/// The images a Compose file names, each once.
package func imagesNamed(in bytes: [UInt8], environment: [String: String]) -> [String] {
  var seen: Set<String> = []
  let services = readForeign(bytes, environment: environment).root?["services"]?.members ?? []
  return services.compactMap { $0.value["image"]?.text }.filter { seen.insert($0).inserted }
}

/// Turns a Compose file into one policy for each service.
package func importCompose(_ source: ComposeSource) -> Import {
  var result = Import()
  let document = readForeign(source.bytes, environment: source.environment)
  guard document.problems.allSatisfy({ $0.severity == .warning }), let root = document.root else {
    result.problems = document.problems.isEmpty ? [Problem("the file is empty")] : document.problems
    return result
  }
  guard let services = root["services"]?.members, !services.isEmpty else {
    result.problems = [
      Problem("there are no services in it", hint: "a Compose file has services: with one map for each")
    ]
    return result
  }
  var project = ComposeProject(source, root, services)
  project.checkTop()
  for name in document.replaced {
    project.remark(.note, root, "", "", "the variable \(name) is replaced by its value, as it is now")
  }
  for name in document.unset {
    project.remark(.changed, root, "", "", "the variable \(name) is not set: empty, as Compose has it")
  }
  var imports: [ServiceImport] = []
  for service in services where !service.key.hasPrefix("x-") {
    var one = ServiceImport(project, service)
    one.translate()
    imports.append(one)
  }
  shareNetworks(&imports, project)
  let isPrivate = !document.replaced.isEmpty
  for place in imports.indices {
    guard let file = imports[place].finish(isPrivate) else {
      result.problems += imports[place].problems
      continue
    }
    result.files.append(file)
    result.files += imports[place].contents
    result.remarks += imports[place].remarks
  }
  result.remarks = project.remarks + result.remarks
  if !result.problems.isEmpty { result.files = [] }
  return result
}

/// A network that one service alone is on is a network of its own, which a policy says in one word.
private func shareNetworks(_ imports: inout [ServiceImport], _ project: ComposeProject) {
  var users: [String: Int] = [:]
  for service in imports { for network in service.networks { users[network.name, default: 0] += 1 } }
  for place in imports.indices {
    let networks = imports[place].networks
    guard !networks.isEmpty else { continue }
    let node = imports[place].node
    if networks.count == 1, let only = networks.first, users[only.name] == 1, !only.isExternal {
      imports[place].set("network_mode", node.made("bridge"))
      continue
    }
    imports[place].set(
      "networks",
      node.made(
        map: networks.map { network in
          var seen: Set<String> = [imports[place].id]
          let aliases = network.aliases.filter { seen.insert($0).inserted }.map { node.made($0) }
          return (
            network.name, aliases.isEmpty ? node.with(.null) : node.made(map: [("aliases", node.made(list: aliases))])
          )
        }))
  }
}

/// What services share: names, networks, volumes, secrets.
struct ComposeProject {
  let source: ComposeSource
  let root: Written
  /// Also the policies' stack.
  let name: String
  /// Ids by service.
  let ids: [String: String]
  private(set) var remarks: [Remark] = []

  init(_ source: ComposeSource, _ root: Written, _ services: [Written.Member]) {
    self.source = source
    self.root = root
    let folder = source.folder.split(separator: "/").last.map(String.init) ?? "default"
    name = stackName(source.project ?? root["name"]?.text ?? folder)
    var ids: [String: String] = [:]
    for service in services {
      let base = stackName(source.prefix + service.key)
      var id = base
      var count = 2
      while ids.values.contains(id) {
        id = "\(base.prefix(58))-\(count)"
        count += 1
      }
      ids[service.key] = id
    }
    self.ids = ids
  }

  mutating func remark(_ kind: Remark.Kind, _ node: Written, _ app: String, _ key: String, _ reason: String) {
    remarks.append(
      Remark(
        kind, file: source.path, line: key.isEmpty ? 0 : node.place.line, column: key.isEmpty ? 0 : node.place.column,
        app: app, key: key, reason))
  }

  /// The keys beside the services.
  mutating func checkTop() {
    for member in root.members ?? [] where !member.key.hasPrefix("x-") {
      switch member.key {
      case "services", "name", "networks", "volumes", "secrets", "configs", "version": break
      case "include": remark(.dropped, member.keyNode, "", "include", "import each of its files by itself")
      default: remark(.dropped, member.keyNode, "", member.key, "it is no key of Compose that is known")
      }
    }
    checkObjects("networks", ["driver", "name", "external", "labels"])
    checkObjects("volumes", ["driver", "name", "external", "labels", "driver_opts"])
    remark(
      .note, root, "", "",
      "where Compose sets no limit, the preset's hold: 512 MiB of memory, 256 tasks, 1024 open files, a /tmp of 64 MiB; and a process never gains privileges. Write mem_limit, pids_limit, ulimits, tmpfs for others"
    )
  }

  private mutating func checkObjects(_ kind: String, _ known: [String]) {
    for member in root[kind]?.members ?? [] {
      for option in member.value.members ?? [] where !option.key.hasPrefix("x-") && !option.value.isFalse {
        let key = "\(kind).\(member.key).\(option.key)"
        switch option.key {
        case "driver" where ["local", "bridge", "default", "null"].contains(option.value.text ?? ""): break
        case "driver": remark(.dropped, option.keyNode, "", key, "volumes and networks are of this host")
        case "labels": remark(.dropped, option.keyNode, "", key, "only apps carry labels of their own")
        case "internal":
          remark(
            .dropped, option.keyNode, "", key,
            "a network that leads nowhere else is not supported yet: apps on it reach out")
        case "driver_opts" where bindDevice(member.value) != nil: break
        case _ where known.contains(option.key) && option.key != "driver_opts": break
        default: remark(.dropped, option.keyNode, "", key, "the supervisor makes it with its own settings")
        }
      }
    }
  }

  /// The folder behind a volume that is a bind by its driver's options.
  private func bindDevice(_ volume: Written) -> String? {
    guard let options = volume["driver_opts"], let device = options["device"]?.text, !device.isEmpty,
      (options["o"]?.text ?? "").split(separator: ",").contains("bind")
    else { return nil }
    return device
  }

  enum Volume {
    case ours(String)
    case external(String)
    case folder(String)
  }

  /// What the volume `key` of a service stands for.
  func volume(_ key: String) -> Volume {
    guard let volume = root["volumes"]?[key], !volume.isNull else { return .ours("\(name)_\(key)") }
    if let device = bindDevice(volume) { return .folder(device) }
    let given = volume["name"]?.text ?? volume["external"]?["name"]?.text
    if let external = volume["external"], !external.isFalse { return .external(given ?? key) }
    return .ours(given ?? "\(name)_\(key)")
  }

  func network(_ key: String) -> (name: String, isExternal: Bool) {
    guard let network = root["networks"]?[key], !network.isNull else { return ("\(name)_\(key)", false) }
    let given = network["name"]?.text ?? network["external"]?["name"]?.text
    if let external = network["external"], !external.isFalse { return (given ?? key, true) }
    return (given ?? "\(name)_\(key)", false)
  }

  /// A path of the file as the policies' folder sees it.
  func place(_ path: String) -> String {
    if path == "~" || path.hasPrefix("~/"), let home = source.environment["HOME"] { return home + path.dropFirst() }
    if path.hasPrefix("/") { return path }
    return relative(absolutePath(path, in: source.folder), to: source.outFolder)
  }
}

/// `path` seen from `folder`, both absolute; absolute where it would climb far.
func relative(_ path: String, to folder: String) -> String {
  let target = path.split(separator: "/")
  let base = folder.split(separator: "/")
  let common = zip(target, base).prefix { $0 == $1 }.count
  let climb = base.count - common
  guard climb <= 2 else { return path }
  let rest = target[common...].joined(separator: "/")
  let up = climb == 0 ? "." : Array(repeating: "..", count: climb).joined(separator: "/")
  return rest.isEmpty ? up : "\(up)/\(rest)"
}
