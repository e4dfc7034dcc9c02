internal import Client
internal import Glibc
internal import Linux
internal import Model
internal import Policies
internal import RPC

/// The policy files a command names, read with the caller's own rights, with the env files they name.
struct PolicyFiles {
  struct Entry {
    var source: PolicySource
  }
  private(set) var entries: [Entry] = []
  /// What the daemon remembers these files by: the absolute PATHs, joined.
  private(set) var origin = ""
  /// The absolute PATHs.
  private(set) var roots: [String] = []

  /// Files above this are not sent: the checker's own bound, and a byte more so that it says so.
  private static let limit = 1 << 20 + 1

  /// `paths` empty: ./policies if it exists, else the instance's config folder.
  init(_ paths: [String], _ session: Session) throws {
    roots = paths.map { Environment.absolute($0, in: session.currentFolder) }
    if roots.isEmpty {
      let local = Environment.absolute("policies", in: session.currentFolder)
      roots = [File.exists(local) ? local : "\(session.daemon.folders.config)/policies"]
    }
    origin = roots.joined(separator: ":")
    for root in roots { try add(root, session) }
  }

  /// Whether a file of this name in a folder of policies is one.
  static func isPolicy(_ name: String) -> Bool {
    (name.hasSuffix(".yaml") || name.hasSuffix(".yml")) && !name.hasPrefix(".") && name != "config.yaml"
  }

  private mutating func add(_ path: String, _ session: Session) throws {
    var facts = stat()
    guard stat(path, &facts) == 0 else {
      throw Failure(2, "there is no policy at \(path)", hint: "name a policy file or a folder of them")
    }
    if facts.st_mode & S_IFMT == S_IFDIR {
      let names = try Self.faults(path) { () throws(SystemFault) in try Folder(opening: path).names() }
      let stack = path.split(separator: "/").last.map(String.init) ?? "default"
      for name in names where Self.isPolicy(name) {
        try read("\(path)/\(name)", folder: path, stack: stack, session)
      }
    } else {
      let folder = "/" + path.split(separator: "/").dropLast().joined(separator: "/")
      try read(path, folder: folder, stack: "default", session)
    }
  }

  private mutating func read(_ path: String, folder: String, stack: String, _ session: Session) throws {
    let bytes: [UInt8]
    do throws(SystemFault) { bytes = try File.read(path, limit: Self.limit, orOwnPipe: true) } catch
      where error.code == EFBIG
    {
      throw Failure(2, "\(path) is larger than 1 MiB", hint: "a policy file may have at most 1 MiB")
    } catch  where error.code == EINVAL {
      throw Failure(2, "the policy cannot be read: \(error)", hint: "name a file: what it holds is to be there already")
    } catch { throw Failure(1, "the policy cannot be read: \(error)", hint: "check the file's permissions") }
    var source = PolicySource(
      path: path, folder: folder, bytes: bytes, environment: session.environment, defaultStack: stack)
    for (named, required) in envFilesNamed(in: bytes, environment: session.environment) {
      let place = Environment.absolute(named, in: folder)
      do throws(SystemFault) { source.envFiles[named] = try File.read(place, limit: Self.limit) } catch {
        if required {
          throw Failure(
            2, "\(path): the env_file cannot be read: \(error)",
            hint: "write `required: false` beside it if it may be absent")
        }
      }
    }
    entries.append(Entry(source: source))
  }

  private static func faults<Result>(_ path: String, _ body: () throws(SystemFault) -> Result) throws -> Result {
    do throws(SystemFault) { return try body() } catch {
      throw Failure(1, "the folder cannot be read: \(error)", hint: "check the folder's permissions")
    }
  }

  /// One file alone, of the stack it was loaded as.
  init(file path: String, stack: String, _ session: Session) throws {
    origin = path
    roots = [path]
    let folder = "/" + path.split(separator: "/").dropLast().joined(separator: "/")
    try read(path, folder: folder, stack: stack, session)
  }

  /// The path and content of the first file.
  var path: String { entries.first?.source.path ?? "" }
  var bytes: [UInt8] {
    get { entries.first?.source.bytes ?? [] }
    set { if !entries.isEmpty { entries[0].source.bytes = newValue } }
  }

  /// As `app.up` takes them.
  var json: JSONValue {
    .array(
      entries.map { entry in
        .object([
          "path": .string(entry.source.path), "folder": .string(entry.source.folder),
          "stack": .string(entry.source.defaultStack),
          "base64": .string(Base64.encode(entry.source.bytes)),
          "env_files": .object(entry.source.envFiles.mapJSON { .string(Base64.encode($0)) }),
        ])
      })
  }
}

/// Problems of policies, as the daemon or this program found them.
enum PolicyProblems {
  /// Prints what the daemon found and ends the verb with 2; other failures are passed on.
  static func report(_ failure: RPCFailure) throws -> Never {
    guard let problems = failure.data?["problems"]?.arrayValue else { throw Failure(failure) }
    for problem in problems {
      if Output.json { Output.errorLine(problem.text) } else { Output.error(problem["rendered"]?.stringValue ?? "") }
    }
    throw Failure(2, failure.message, hint: failure.hint, name: "invalid_policy")
  }
}
