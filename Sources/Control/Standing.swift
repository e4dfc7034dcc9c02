package import Policies
internal import Synchronization

/// What config.yaml says that a reload can replace while calls are served.
package final class Standing: Sendable {
  // Guards: both of them, so that no call sees the one of before and the other of after.
  private let state: Mutex<(rules: HostRules, authority: Authority)>

  package init(rules: HostRules, authority: Authority) { state = Mutex((rules, authority)) }

  /// What policies may ask for here.
  package var rules: HostRules { state.withLock { $0.rules } }
  /// Who may do what.
  package var authority: Authority { state.withLock { $0.authority } }

  /// Holds for every call that begins from now on.
  package func replace(rules: HostRules, authority: Authority) { state.withLock { $0 = (rules, authority) } }
}
