/// How one run ended, kept for people: the newest few of each app.
package struct ExitRecord: Sendable, Equatable {
  /// How many are kept of an app.
  package static let kept = 10
  package var app: AppID
  package var run: UInt64
  /// What is known of it: reason, limits, peaks, counters.
  package var facts: JSONObject
  /// The policy and image it ran by.
  package var canonical: String
  package var artifact: String
  /// The last lines it wrote, bounded by who stores it.
  package var output: String

  package init(
    app: AppID, run: UInt64, facts: JSONObject, canonical: String, artifact: String, output: String = ""
  ) {
    self.app = app
    self.run = run
    self.facts = facts
    self.canonical = canonical
    self.artifact = artifact
    self.output = output
  }
}
