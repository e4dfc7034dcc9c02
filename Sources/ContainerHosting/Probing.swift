internal import Cgroups
internal import EngineAPI
internal import Health
internal import Linux
package import Model

extension ContainerHost {
  package func probe(_ instance: Instance, _ test: Healthcheck.Test, timeout: Duration) async -> ProbeOutcome {
    guard let entry = await register.entry(instance.handle), entry.pid > 0 else {
      return .unknown("it does not run")
    }
    switch test {
    case .http, .tcp:
      // The engine is not asked: what runs can be tried also while that is away.
      return await prober.probe(test, of: entry.pid, in: entry.group, timeout: timeout)
    case .command, .image, .none: return .unknown("it is no check over the network")
    }
  }

  /// An app that waits for a check that nobody makes would never be ready.
  func refuseNeverReady(_ policy: Policy, _ image: ImageDetails) throws(HostFailure) {
    guard policy.readiness == .healthy, policy.healthcheck.settled(image: image.healthcheck, restart: .no) == nil
    else { return }
    throw HostFailure(
      .refused, "\(policy.id) is ready when it is healthy, but neither its policy nor its image has a healthcheck",
      hint: "Add healthcheck with test, http or tcp")
  }

  // MARK: What containers say of themselves

  /// The instance's way to the supervisor, and its notify socket; also of one that an earlier daemon made.
  func open(_ instance: Instance, _ launch: Launch) async throws(HostFailure) {
    try await listen(launch, to: instance)
    try await settings.doors?.open(
      instance, launch.policy, folder: settings.layout.appSockets(instance.app, instance.generation),
      cgroup: cgroup(instance, try? await link.facts()).path)
  }

  /// Hears an instance by its notify socket, if its policy asks for one; also one that an earlier daemon listened to.
  private func listen(_ launch: Launch, to instance: Instance) async throws(HostFailure) {
    let policy = launch.policy
    guard policy.readiness == .notify else { return }
    // The kernel tells the uid as it is outside, which an engine without root has chosen: there its group says enough.
    let isOutside = (try? await link.facts())?.isRootless == true
    let uid: UInt32? =
      switch policy.user {
      case _ where isOutside: nil
      case .auto: launch.uidBase + 1000
      case .given(let uid, _): uid
      case .image: nil
      }
    let told = told
    do throws(SystemFault) {
      // The parents are root's alone: the way to the socket is the app's own mount.
      _ = try Folder(making: "\(settings.layout.run)/apps", mode: 0o700)
      let group = cgroup(instance, try? await link.facts()).path
      try await notifySockets.open(
        Self.socketName(instance), in: settings.layout.appSockets(policy.id, launch.generation), uid: uid, cgroup: group
      ) { message in told.yield(.told(instance, ready: message.ready, status: message.status)) }
    } catch { throw HostFailure(.failed, "the notify socket of \(policy.id) could not be made: \(error)") }
  }

  func stopListening(_ instance: Instance) async {
    notifySockets.close(Self.socketName(instance))
    await files.removeSockets(settings.layout.run, Self.socketName(instance))
  }

  private static func socketName(_ instance: Instance) -> String { "\(instance.app).\(instance.generation)" }
}
