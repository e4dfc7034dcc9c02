internal import Cgroups
internal import Health
package import Model
internal import Sandboxing

extension NativeHost {
  package func probe(_ instance: Instance, _ test: Healthcheck.Test, timeout: Duration) async -> ProbeOutcome {
    guard let run = runs[instance], case .running(let facts) = run.state else { return .unknown("it does not run") }
    switch test {
    case .http, .tcp: return await prober.probe(test, of: facts.init1, in: run.group.path, timeout: timeout)
    case .command, .image, .none: return .unknown("it is no check over the network")
    }
  }
}
