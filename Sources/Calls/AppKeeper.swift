package import Model

/// Who runs the apps, as far as calls need it. What is handed over here was judged before.
package protocol AppKeeper: Sendable {
  /// Tells the world that something happened to an app, and keeps it in the history of events.
  func tell(_ name: String, _ app: AppID, _ fields: [String: JSONValue]) async
}
