internal import Glibc
internal import Linux

/// v2 protects an app's memory only as far as every group above it protects as much (cgroup-v2.rst, memory.low): those of the
/// instance protect what their apps ask together.
extension AppCgroup {
  /// The instance's groups above this one, nearest first; empty where there is nothing to pass up.
  private var above: [String] {
    guard kind != .shims, let unified = hierarchy.unified, hierarchy.home(of: .memory)?.version == .v2 else {
      return []
    }
    var steps = path.dropFirst(hierarchy.base.count).split(separator: "/").dropLast()
    var folders: [String] = []
    while !steps.isEmpty {
      folders.append(unified + hierarchy.base + steps.map { "/\($0)" }.joined())
      steps = steps.dropLast()
    }
    return folders
  }

  /// Whether this group itself asks for protection.
  package var isProtecting: Bool {
    guard let memory = folder(.memory), memory.version == .v2 else { return false }
    return number(memory.path, "memory.low") ?? 0 > 0
  }

  /// Writes into each group above what those below it ask.
  func passProtectionUp() {
    for folder in above {
      // Best effort: what is not there shows when the limit is read back.
      let sum = ((try? Self.children(folder)) ?? []).reduce(UInt64(0)) { $0 &+ (number($1, "memory.low") ?? 0) }
      guard number(folder, "memory.low") != sum else { continue }
      try? File.write("\(folder)/memory.low", String(sum))
    }
  }

  /// The least that a group above protects; nil: all of them everything.
  var protectionAbove: UInt64? { above.compactMap { number($0, "memory.low") }.min() }

  /// Tells systemd what its slices above protect.
  package func tellProtection() throws(SystemdFault) {
    guard slice != nil else { return }
    passProtectionUp()
    for folder in above {
      guard let bytes = number(folder, "memory.low"), let slash = folder.lastIndex(of: "/") else { continue }
      try SystemdSlice(String(folder[folder.index(after: slash)...])).protect(bytes)
    }
  }
}
