internal import Glibc
package import Linux

/// What the kernel accounts or limits by group. Raw values are v2's names.
package enum Controller: String, Sendable, CaseIterable {
  case memory, pids, cpu, cpuset, io, cpuacct, devices, freezer

  /// v1's name.
  var legacyName: String { self == .io ? "blkio" : rawValue }
}

/// Where each controller lives on this host.
package struct CgroupHierarchy: Sendable, Equatable {
  package enum Layout: String, Sendable {
    /// Everything in v2.
    case unified
    /// Membership, kill and freeze in v2, some or all limits in v1.
    case hybrid
    /// v1 only.
    case legacy
  }

  /// Mount point of the v2 hierarchy.
  package let unified: String?
  /// Controllers available in v2.
  package let unifiedControllers: Set<Controller>
  /// Mount points of v1 hierarchies; `cpu` and `cpuacct` may share one.
  package let legacy: [Controller: String]
  /// Hierarchies without a controller of ours (`name=systemd`): OCI runtimes make groups there too, and leave them.
  package let others: [String]
  /// Where in v2 this process may make groups: empty for the root of it, which is root's; for an ordinary user the folder of the
  /// user's own systemd, which has been given it.
  package let base: String

  package var layout: Layout {
    guard unified != nil else { return .legacy }
    return legacy.isEmpty ? .unified : .hybrid
  }

  package init(
    unified: String?, unifiedControllers: Set<Controller>, legacy: [Controller: String], others: [String] = [],
    base: String = ""
  ) {
    self.unified = unified
    self.unifiedControllers = unifiedControllers
    self.legacy = legacy
    self.others = others
    self.base = base
  }

  /// Reads /proc/self/mountinfo and the `cgroup.controllers` of where groups will be made.
  package static func detect() throws(SystemFault) -> CgroupHierarchy {
    let found = parse(mountInfo: try File.text("/proc/self/mountinfo"))
    guard let unified = found.unified else {
      return CgroupHierarchy(unified: nil, unifiedControllers: [], legacy: found.legacy, others: found.others)
    }
    let base = found.legacy.isEmpty ? userBase(unified) : ""
    let names = try File.text("\(unified)\(base)/cgroup.controllers").split { $0 == " " || $0 == "\n" }
    return CgroupHierarchy(
      unified: unified, unifiedControllers: Set(names.compactMap { Controller(rawValue: String($0)) }),
      legacy: found.legacy, others: found.others, base: base)
  }

  /// The folder of the user's own systemd: the one this process runs under, else where systemd keeps it; empty for root, and where
  /// there is none.
  private static func userBase(_ unified: String) -> String {
    let uid = getuid()
    guard uid != 0 else { return "" }
    let manager = "user@\(uid).service"
    // best effort: without it, the usual place.
    let own = (try? File.text("/proc/self/cgroup"))?.split(separator: "\n").first { $0.hasPrefix("0::") } ?? ""
    let steps = own.dropFirst(3).split(separator: "/")
    if let last = steps.firstIndex(of: manager[...]) { return steps[...last].map { "/\($0)" }.joined() }
    let usual = "/user.slice/user-\(uid).slice/\(manager)"
    return File.exists(unified + usual) ? usual : ""
  }

  /// Why there is no such controller, in words for the user.
  package func missing(_ controller: Controller) -> String {
    base.isEmpty
      ? "this kernel has no \(controller.rawValue) controller"
      : "the \(controller.rawValue) controller is not delegated to your user's systemd"
  }

  /// The cgroup mounts of a mountinfo text (proc(5)). A mount of only part of a hierarchy does not count; of several whole
  /// ones the first does.
  static func parse(mountInfo: String) -> (
    unified: String?, legacy: [Controller: String], others: [String]
  ) {
    var others: [String] = []
    var unified: String?
    var legacy: [Controller: String] = [:]
    for line in mountInfo.split(separator: "\n") {
      let fields = line.split(separator: " ")
      guard let dash = fields.firstIndex(of: "-"), dash >= 6, fields.count > dash + 3, fields[3] == "/" else {
        continue
      }
      let place = unescaped(fields[4])
      switch fields[dash + 1] {
      case "cgroup2": unified = unified ?? place
      case "cgroup":
        let options = fields[dash + 3].split(separator: ",")
        let controllers = Controller.allCases.filter { options.contains(Substring($0.legacyName)) }
        for controller in controllers { legacy[controller] = legacy[controller] ?? place }
        if controllers.isEmpty { others.append(place) }
      default: continue
      }
    }
    return (unified, legacy, others)
  }

  /// mountinfo writes space, tab, newline and backslash in octal.
  private static func unescaped(_ text: Substring) -> String {
    var result = ""
    var rest = text
    while let slash = rest.firstIndex(of: "\\") {
      result += rest[..<slash]
      let digits = rest[rest.index(after: slash)...].prefix(3)
      guard let code = UInt8(digits, radix: 8) else { return String(text) }
      result.unicodeScalars.append(Unicode.Scalar(code))
      rest = rest[digits.endIndex...]
    }
    return result + rest
  }

  /// The hierarchy a controller's files are in; nil: this kernel has it in none.
  package func home(of controller: Controller) -> Home? {
    if let unified, unifiedControllers.contains(controller) { return Home(root: unified, version: .v2) }
    return legacy[controller].map { Home(root: $0, version: .v1) }
  }

  /// One hierarchy, by its mount point.
  package struct Home: Sendable, Hashable {
    package enum Version: Sendable { case v1, v2 }
    package let root: String
    package let version: Version
  }

  /// All mount points, v2 first.
  package var roots: [String] {
    var roots = unified.map { [$0] } ?? []
    for root in legacy.values.sorted() + others where !roots.contains(root) { roots.append(root) }
    return roots
  }

  /// For `doctor`: `memory`, `v1 /sys/fs/cgroup/memory`.
  package var facts: [(controller: Controller, place: String?)] {
    Controller.allCases.map { controller in
      // v2 has freezing and CPU accounting without a controller, and does devices by BPF.
      let place = home(of: controller).map { "\($0.version == .v2 ? "v2" : "v1") \($0.root)" }
      switch controller {
      case .freezer, .cpuacct: return (controller, place ?? unified.map { "v2 \($0)" })
      case .memory, .pids, .cpu, .cpuset, .io, .devices: return (controller, place)
      }
    }
  }
}
