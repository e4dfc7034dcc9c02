/// How an app comes to a new policy or image that needs a new generation of it.
package struct UpdateRule: Sendable, Equatable {
  package enum Order: String, Sendable, CaseIterable {
    /// The old generation ends before the new one is made.
    case stopFirst = "stop-first"
    /// The new generation proves itself beside the old one, which is stopped then.
    case startFirst = "start-first"
  }

  /// What becomes of a new generation that does not prove itself.
  package enum FailureAction: String, Sendable, CaseIterable {
    /// The policy before it is in force again.
    case rollback
    /// It stays as it is: one that has ended is not started again.
    case pause
    /// Its own rules decide, as for any run.
    case `continue`
  }

  package var order = Order.stopFirst
  package var failureAction = FailureAction.continue
  /// How long a new generation must stay up that nothing else is known by: no healthcheck and no `ready`.
  package var monitor = UpdateRule.defaultMonitor

  /// Docker's own default for `monitor`.
  package static let defaultMonitor = Duration.seconds(5)

  package init() {}
}
