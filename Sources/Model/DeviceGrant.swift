/// A device of the host that an app may use.
package struct DeviceGrant: Sendable, Equatable {
  /// Below `/dev`, as the daemon's configuration lists it; links in it are the system's own.
  package var source: String
  /// Below `/dev` in the app.
  package var target: String
  /// `r`, `w` or `rw`.
  package var access: String

  package init(source: String, target: String, access: String) {
    self.source = source
    self.target = target
    self.access = access
  }
}
