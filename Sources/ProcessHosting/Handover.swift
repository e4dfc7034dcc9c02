internal import FileSystems
package import Model
internal import Sandboxing

/// What is made visible for a shim just as long as it takes to be bound: secrets, devices, folders whose owner is shown as the app.
extension NativeHost {
  package func changedSecrets(_ policy: Policy) async -> [String] { SecretMemory(layout).changed(policy) }

  package func forget(_ app: AppID) async { SecretMemory(layout).forget(app) }

  private static func run(_ launch: Launch) -> String { "\(launch.policy.id).\(launch.generation)" }

  func secrets(_ launch: Launch) -> SecretDelivery {
    SecretDelivery(layout, launch.policy, .native, run: Self.run(launch), uidBase: launch.uidBase)
  }

  func devices(_ launch: Launch) -> DeviceDelivery {
    DeviceDelivery(layout, launch.policy, .native, run: Self.run(launch), uidBase: launch.uidBase)
  }

  /// Where folders are shown with another owner.
  func pins(_ launch: Launch) -> String { Self.pins(layout, Self.run(launch)) }

  private static func pins(_ layout: InstanceLayout, _ run: String) -> String { "\(layout.run)/owners/\(run)" }

  /// Files for the shim to bind, and variables.
  static func deliver(_ secrets: SecretDelivery, to plan: inout LaunchPlan) throws(SecretProblem) {
    let variables = try secrets.deliver()
    let names = variables.map { "\($0.name)=" }
    plan.program.environment.removeAll { entry in names.contains { entry.hasPrefix($0) } }
    plan.program.environment += variables.map { "\($0.name)=\($0.value)" }
  }

  /// The shim has bound all by now, or never will.
  func takeBack(_ launch: Launch) {
    if launch.policy.hasSecretFiles { secrets(launch).takeBack() }
    if !launch.policy.devices.isEmpty { devices(launch).takeBack() }
    if launch.policy.mounts.contains(where: \.mapsOwner) { MountTable.unpinAll(pins(launch)) }
  }

  /// The same of a run that is removed.
  func takeBack(run: String) {
    SecretDelivery.takeBack(layout, .native, run: run)
    DeviceDelivery.takeBack(layout, .native, run: run)
    MountTable.unpinAll(Self.pins(layout, run))
  }

  /// The same of all that earlier daemons left, but for runs that wait to be started.
  func takeBackOthers(than waiting: Set<String>) {
    SecretDelivery.sweep(layout, .native, keeping: waiting)
    DeviceDelivery.sweep(layout, .native, keeping: waiting)
    MountTable.unpinAll(in: "\(layout.run)/owners", keeping: Set(waiting.map { Self.pins(layout, $0) }))
  }
}
