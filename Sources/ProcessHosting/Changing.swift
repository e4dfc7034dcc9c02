internal import Cgroups
internal import Linux
package import Model
internal import Scheduling

extension NativeHost {
  package func change(_ instance: Instance, from old: Launch, to new: Launch) async throws(HostFailure) {
    guard let run = runs[instance], !run.isEndKnown else {
      throw HostFailure(.missing, "\(instance.app) is not running")
    }
    await doors?.change(instance, new.policy)
    let limits = new.policy.limits
    let share = CPUShare(new.policy)
    guard limits != old.policy.limits || share != CPUShare(old.policy) else { return }
    let group = run.group
    // Reclaiming memory takes the kernel a while: not on the loop that starts and stops apps.
    let outcome: Result<Void, ChangeRefusal> = await withCheckedContinuation { answer in
      readerLoop.submit {
        do throws(ChangeRefusal) {
          try group.change(to: limits, share: share, former: old.policy.limits)
          answer.resume(returning: .success(()))
        } catch { answer.resume(returning: .failure(error)) }
      }
    }
    do throws(ChangeRefusal) { try outcome.get() } catch {
      throw HostFailure(.refused, "the limits of \(instance.app) stay as they were: \(error)")
    }
    run.limits = limits
  }

  /// A daemon that was killed while it changed limits has left some of each: what was applied is put in force again.
  func reassert(_ run: Run, _ policy: Policy) async {
    let group = run.group
    let limits = policy.limits
    let share = CPUShare(policy)
    let problem: String? = await withCheckedContinuation { answer in
      readerLoop.submit {
        do throws(ChangeRefusal) {
          try group.reassert(limits, share: share)
          answer.resume(returning: nil)
        } catch { answer.resume(returning: error.description) }
      }
    }
    if let problem { run.missing.append(problem) }
  }
}
