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
    guard launch.policy.hasSecretFiles, !secrets.isVisible else { return }
    _ = try await files.deliver(secrets)
  }

  package func changedSecrets(_ policy: Policy) async -> [String] {
    await files.changedSecrets(policy, settings.layout)
  }

  package func forget(_ app: AppID) async { SecretMemory(settings.layout).forget(app) }
}
