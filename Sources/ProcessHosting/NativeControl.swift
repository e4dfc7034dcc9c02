internal import Cgroups
internal import Glibc
internal import Linux
package import Model
internal import Networking
internal import Sandboxing
internal import Scheduling

extension NativeHost {
  // MARK: Signals, kill, pause

  package func signal(_ instance: Instance, _ number: Int32) async throws(HostFailure) {
    let code = await withCheckedContinuation { answer in
      guard let connection = runs[instance]?.connection else { return answer.resume(returning: Int32?.none) }
      connection.signal(number, answer)
    }
    guard let code else { throw HostFailure(.missing, "\(instance.app) is not running") }
    switch code {
    case 0: return
    case ESRCH: throw HostFailure(.missing, "\(instance.app) is not running")
    default: throw HostFailure(.failed, "signal \(number): \(SystemFault.text(of: code))")
    }
  }

  package func kill(_ instance: Instance) async throws(HostFailure) {
    do throws(SystemFault) { try group(instance.app, instance.ownGroup).kill() } catch  where error.code == ENOENT {
      return
    } catch { throw HostFailure(.failed, "\(instance.app) could not be killed: \(error)") }
  }

  package func setPaused(_ instance: Instance, _ paused: Bool) async throws(HostFailure) {
    runs[instance]?.isPaused = paused
    do throws(SystemFault) { try group(instance.app, instance.ownGroup).setFrozen(paused) } catch {
      throw HostFailure(.failed, "\(instance.app) could not be \(paused ? "paused" : "unpaused"): \(error)")
    }
  }

  // MARK: Remove

  package func remove(_ instance: Instance) async throws(HostFailure) {
    let group = group(instance.app, instance.ownGroup)
    if let run = runs[instance] {
      _ = run.connection?.send(.acknowledge)
      run.isEndKnown = true
      endReaders(run)
      run.connection?.close()
    }
    // A group can be a later generation's by now, which must not be touched.
    if !runs.contains(where: { $0.value.group.path == group.path && $0.key != instance }) {
      try await clear(group, instance.app)
    }
    runs[instance] = nil
    await doors?.close(instance)
    await fabric?.release(instance)
    let name = Self.runName(instance)
    takeBack(run: name)
    do throws(SystemFault) {
      try Folder(opening: Self.sockets(layout)).remove("\(name).sock")
      try Folder(opening: Self.outcomes(layout)).remove(name)
    } catch { throw HostFailure(.failed, "what \(instance.app) left could not be removed: \(error)") }
  }

  private func clear(_ group: AppCgroup, _ app: AppID) async throws(HostFailure) {
    for attempt in 0..<200 {
      do throws(SystemFault) {
        if try group.isPopulated { try group.kill() } else if try group.remove() { return }
      } catch { throw HostFailure(.failed, "the cgroup of \(app) could not be removed: \(error)") }
      // A killed process leaves its group a moment after its end. Cancelled: the caller repeats.
      try? await Task.sleep(for: .milliseconds(attempt < 20 ? 1 : 10))
    }
    throw HostFailure(.failed, "processes of \(app) are still there after they were killed")
  }

  // MARK: Usage and layers

  package func usage(_ instance: Instance) async throws(HostFailure) -> Usage {
    let group = group(instance.app, instance.ownGroup)
    guard group.exists else { throw HostFailure(.missing, "\(instance.app) is not there") }
    return group.usage()
  }

  package func enforcement(_ instance: Instance, _ launch: Launch) async throws(HostFailure) -> [LayerReport] {
    guard let run = runs[instance] else { throw HostFailure(.missing, "\(instance.app) is not there") }
    guard case .running(let facts) = run.state else {
      return run.group.readBack(launch.policy.limits, share: CPUShare(launch.policy))
    }
    return Attestation.check(facts, try resolved(launch), run.group) + [await networkReport(launch)].compactMap { $0 }
  }
}
