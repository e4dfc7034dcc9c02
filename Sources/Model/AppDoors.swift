/// How apps reach the supervisor: what hosts ask for as they make instances and remove them.
package protocol AppDoors: Sendable {
  /// Makes `folder` with the instance's socket in it, where processes of `cgroup` are heard as this instance of the app and nobody
  /// else is. The folder's parents are root's alone. Replaces what an earlier daemon left there.
  func open(_ instance: Instance, _ policy: Policy, folder: String, cgroup: String) async throws(HostFailure)

  /// From now on the instance has the permissions of `policy`.
  func change(_ instance: Instance, _ policy: Policy) async

  /// The app was removed: what was decided about its permissions means nothing any more.
  func forget(_ app: AppID) async

  /// Ends its connections; the folder is gone when this returns.
  func close(_ instance: Instance) async
}

/// Where an app finds its folder of sockets, the socket in it, and the variable that says so.
package enum AppDoor {
  package static let folder = "/run/supervisor"
  package static let socket = "app.sock"
  package static let path = "\(folder)/\(socket)"
  package static let variable = "SUPERVISOR_SOCKET"
}
