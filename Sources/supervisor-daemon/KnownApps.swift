internal import Calls
internal import Model
internal import Supervision

/// What apps ask about apps, from the supervision.
struct KnownApps: AppKeeper {
  let supervisor: Supervisor

  func tell(_ name: String, _ app: AppID, _ fields: [String: JSONValue]) async {
    await supervisor.note(name, app, fields)
  }
}
