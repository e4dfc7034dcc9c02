package import Model

/// The names of our groups.
package enum CgroupName {
  /// The group all shims of an instance live in, beside the apps' ones.
  static let shims = "shims"
  /// The group of what engines leave behind of commands (podman's monitors), outside of the apps' limits.
  static let monitors = "monitors"

  /// The component for an app. An app whose name the kernel (v1 keeps `tasks`, `release_agent`, `notify_on_release` in every
  /// folder) or we use gets a `_` in front, which no AppID starts with.
  ///
  /// The group of a `generation` that was made beside another has a `+` and its number after that, which no AppID has.
  static func component(_ app: AppID, _ generation: UInt64? = nil) -> String {
    if let generation { return "\(component(app))+\(generation)" }
    let taken = ["tasks", "release_agent", "notify_on_release", shims, monitors]
    return taken.contains(app.name) ? "_\(app)" : app.name
  }

  /// The cgroupfs driver's `CgroupParent`: `/appsupervisor-default/notes`, relative to each hierarchy's root.
  package static func path(parent: String, app: AppID, generation: UInt64? = nil) -> String {
    "\(parent)/\(component(app, generation))"
  }

  /// The systemd driver's `CgroupParent` for the same app: `appsupervisor-default-notes.slice`. A `-` separates levels there,
  /// so one inside a name is written `\x2d` (systemd.slice(5), systemd-escape(1)).
  package static func slice(base: String, instance: String, app: AppID, generation: UInt64? = nil) -> String {
    let own = generation.map { "\(app)+\($0)" } ?? app.name
    let levels = [base.split(separator: "/").joined(separator: "_"), instance, own]
    return levels.map(escaped).joined(separator: "-") + ".slice"
  }

  /// Where systemd keeps that slice: every level is a folder named by all levels above it.
  package static func slicePath(_ slice: String) -> String {
    let levels = slice.dropLast(".slice".count).split(separator: "-")
    return (1...max(1, levels.count)).map { "/\(levels.prefix($0).joined(separator: "-")).slice" }.joined()
  }

  private static func escaped(_ name: String) -> String {
    var result = ""
    for byte in name.utf8 {
      switch byte {
      case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
        UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "_"), UInt8(ascii: "."):
        result.unicodeScalars.append(Unicode.Scalar(byte))
      default:
        let digits = String(byte, radix: 16)
        result += "\\x" + (digits.count == 1 ? "0" : "") + digits
      }
    }
    return result
  }
}
