internal import Cgroups
internal import FileSystems
package import Model

extension ContainerHost {
  /// The app's secrets as this start of it gets them.
  func secrets(_ launch: Launch, _ facts: EngineFacts?) -> SecretDelivery {
    SecretDelivery(
      settings.layout, launch.policy, .container, run: "\(launch.policy.id).\(launch.generation)",
      uidBase: seen(launch.uidBase, facts))
  }

  /// An engine keeps a container's variables in files of its own and shows them to whoever may ask it.
  func refuseSecretVariables(_ policy: Policy) throws(HostFailure) {
    guard policy.enforcement == .strict, let entry = policy.environment.first(where: { $0.secret != nil }) else {
      return
    }
    throw HostFailure(
      .refused,
      "the secret in \(entry.name) would lie in the engine's files and show in its `inspect`, as all of a container's variables do",
      hint:
        "Name it under secrets and let the program read \(Secret.folder)/\(entry.secret ?? "") (many images take \(entry.name)_FILE), or set enforcement: degrade"
    )
  }

  /// What of the policy's secrets this runtime cannot keep to itself.
  static func exposedSecrets(_ policy: Policy) -> [String] {
    policy.environment.filter { $0.secret != nil }.map {
      "secret variable \($0.name): the engine keeps it in its files and shows it in `inspect`"
    }
  }

  /// A container that an earlier daemon made is started by this one: what was in memory may have gone with a reboot.
  func redeliver(_ launch: Launch, _ facts: EngineFacts) async throws(HostFailure) {
    let secrets = secrets(launch, facts)
    if launch.policy.hasSecretFiles, !secrets.isVisible { _ = try await files.deliver(secrets) }
    let devices = devices(launch, facts)
    if !launch.policy.devices.isEmpty, !devices.isVisible { try await files.deliver(devices) }
  }

  func devices(_ launch: Launch, _ facts: EngineFacts?) -> DeviceDelivery {
    DeviceDelivery(
      settings.layout, launch.policy, .container, run: "\(launch.policy.id).\(launch.generation)",
      uidBase: seen(launch.uidBase, facts))
  }

  /// The engine has taken all by now, or never will.
  func takeBack(_ launch: Launch) async {
    guard launch.policy.hasSecretFiles || !launch.policy.devices.isEmpty else { return }
    await files.takeBack(run: "\(launch.policy.id).\(launch.generation)", settings.layout)
  }

  package func changedSecrets(_ policy: Policy) async -> [String] {
    await files.changedSecrets(policy, settings.layout)
  }

  package func forget(_ app: AppID) async { SecretMemory(settings.layout).forget(app) }
}

extension Policy {
  /// Whether the engine may open its sources by itself: root named them, and they are shown as they are.
  var mayLackPins: Bool { loader == nil && !hasSecretFiles && !mounts.contains(where: \.mapsOwner) }
}
