internal import Glibc
internal import Model

/// The daemon's own few flags; people meet them as `supervisor daemon`.
struct Flags {
  var place: InstancePlace
  var engine: String?

  /// Reads the command line; on bad usage says so and ends with 2.
  static func read(_ arguments: [String], uid: UInt32) -> Flags {
    var flags = Flags(place: uid == 0 ? .system : .user)
    var rest = arguments.dropFirst()
    func value(of flag: String) -> String {
      guard let value = rest.popFirst() else { usage("\(flag) needs a value") }
      return value
    }
    while let flag = rest.popFirst() {
      switch flag {
      case "--root":
        let root = value(of: flag)
        guard root.hasPrefix("/") else { usage("--root takes an absolute path") }
        flags.place = .root(root)
      case "--system": flags.place = .system
      case "--user": flags.place = .user
      case "--engine": flags.engine = value(of: flag)
      case "--version":
        print(Build.version)
        exit(0)
      case "--help", "-h":
        print("usage: supervisor-daemon [--root DIR | --system | --user] [--engine docker|podman|none|SOCKET]")
        exit(0)
      default: usage("unknown argument '\(flag)'")
      }
    }
    return flags
  }

  private static func usage(_ problem: String) -> Never {
    fail(2, problem, "`supervisor-daemon --help` shows the usage")
  }
}

/// Ends the daemon before it served anything: what, and what to do.
func fail(_ code: Int32, _ message: String, _ hint: String) -> Never {
  let text = "error: \(message)\nhint: \(hint)\n"
  _ = text.utf8.withContiguousStorageIfAvailable { write(2, $0.baseAddress, $0.count) }
  exit(code)
}
