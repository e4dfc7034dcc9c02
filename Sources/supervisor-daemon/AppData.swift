internal import Glibc
internal import Linux
internal import Model

/// Removing what an app kept, when its operator says so.
struct AppData: Sendable {
  let layout: InstanceLayout
  /// The names of our volumes that the policies of apps still loaded mention.
  let volumesInUse: @Sendable () async -> Set<String>

  /// Removes the app's own folders and those of its volumes that no other app names. Returns the paths removed.
  func remove(of app: Policy) async throws(SystemFault) -> [String] {
    var removed: [String] = []
    let inUse = await volumesInUse()
    if try Tree.remove("apps", "\(app.id)", in: layout.state) { removed.append(layout.appData(app.id)) }
    for mount in app.mounts {
      guard case .volume(let name, false) = mount.kind, !inUse.contains(name) else { continue }
      if try Tree.remove("volumes", name, in: layout.state) { removed.append(layout.volume(name)) }
    }
    return removed
  }
}
