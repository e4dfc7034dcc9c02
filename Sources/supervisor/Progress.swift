import ArgumentParser
internal import Linux
internal import Model

enum ProgressMode: String, ExpressibleByArgument, CaseIterable { case auto, tty, plain, json, quiet }

/// How several apps get along: on a terminal a line each, redrawn in place; elsewhere a line for each step.
final class ProgressView {
  private struct Row {
    var text: String
    var style: Style?
    var began: Int64
    var ended: Int64?
    /// Parts of a pull with bytes done and in all.
    var parts: [String: (done: UInt64, total: UInt64)] = [:]
  }

  private let mode: ProgressMode
  private var rows: [(name: String, row: Row)] = []
  private var drawn = 0

  init(_ mode: ProgressMode, json: Bool) {
    self.mode = mode == .auto ? (json ? .json : Output.errorIsTerminal && Output.errorStyle ? .tty : .plain) : mode
  }

  /// What `up -d` says of an app it does not wait for.
  func note(_ name: String, _ change: String) {
    switch mode {
    case .quiet: break
    case .json: Output.line(JSONValue.object(["name": .string(name), "change": .string(change)]).text)
    case .auto, .tty, .plain: Output.line("\(name)  \(change)")
    }
  }

  func begin(_ name: String, _ text: String) {
    rows.append((name, Row(text: text, style: nil, began: Clock.monotonic())))
    draw()
  }

  /// Takes one event of `app.await` or `app.down`.
  func take(_ event: JSONValue) {
    guard let name = event["app"]?.stringValue, let what = event["event"]?.stringValue else { return }
    if mode == .json {
      Output.line(event.text)
      return
    }
    guard let place = rows.firstIndex(where: { $0.name == name }) else { return }
    if what == "app.progress" {
      progress(event, place)
    } else if let (text, style, ends) = Self.words(of: what, event) {
      rows[place].row.text = text
      rows[place].row.style = style
      rows[place].row.ended = ends ? Clock.monotonic() : nil
      rows[place].row.parts = [:]
      if mode == .plain { Output.error("\(name)  \(Output.escaped(text))") }
    }
    draw()
  }

  private func progress(_ event: JSONValue, _ place: Int) {
    let item = event["item"]?.stringValue ?? ""
    let status = event["status"]?.stringValue ?? ""
    if let done = event["done"]?.integerValue, let total = event["total"]?.integerValue, total > 0 {
      rows[place].row.parts[item] = (UInt64(done), UInt64(total))
    } else {
      rows[place].row.text = item.isEmpty ? status : "\(status) \(item)"
      if mode == .plain { Output.error("\(rows[place].name)  \(Output.escaped(rows[place].row.text))") }
    }
  }

  /// Of a generation beside what the app is: the new one's steps are on the way, the old one's end is nothing to wait for.
  private static func words(of event: String, _ fields: JSONValue) -> (String, Style?, Bool)? {
    guard !event.hasPrefix("app.update"), let which = fields["which"]?.stringValue else { return words(event, fields) }
    guard which == "new", let (text, style, _) = words(event, fields) else { return nil }
    return ("the new one: \(text)", style, false)
  }

  private static func words(_ event: String, _ fields: JSONValue) -> (String, Style?, Bool)? {
    let reason = fields["reason"]?.stringValue ?? ""
    switch event {
    case "app.waiting", "app.restarting": return ("waiting", nil, false)
    case "app.pending": return ("pending: \(reason)", .warning, false)
    case "app.created": return ("created", nil, false)
    case "app.started", "app.adopted": return ("started", .good, true)
    case "app.ready": return ("ready", .good, true)
    case "app.health":
      let health = fields["health"]?.stringValue ?? ""
      return (
        health + (reason.isEmpty ? "" : ": \(reason)"), health == "healthy" ? .good : .warning, health == "healthy"
      )
    case "app.not_ready": return ("not ready: \(reason)", .error, false)
    case "app.pre_start": return ("pre_start \(fields["command"]?.stringValue ?? "")", nil, false)
    case "app.scheduled": return ("scheduled", .good, true)
    case "app.schedule_failed": return ("not scheduled: \(reason)", .error, true)
    case "app.degraded": return ("degraded: \(fields["missing"]?.stringValue ?? "")", .warning, false)
    case "app.stopping": return ("stopping", nil, false)
    case "app.killing": return ("killing", .warning, false)
    case "app.exited": return ("exited: \(reason)", nil, true)
    case "app.oom": return ("out of memory", .error, true)
    case "app.start_failed": return ("did not start: \(reason)", .error, false)
    case "app.failed": return ("failed: \(reason)", .error, true)
    case "app.backoff": return ("restarting in \(fields["delay_ms"]?.integerValue ?? 0) ms: \(reason)", .warning, false)
    case "app.resting": return ("stopped", nil, true)
    case "app.update_started": return ("updating, \(fields["order"]?.stringValue ?? "")", nil, false)
    case "app.updated": return ("updated", .good, true)
    case "app.update_rolled_back": return ("rolled back: \(reason)", .error, true)
    case "app.update_paused": return ("update stopped: \(reason)", .error, true)
    case "app.update_failed": return ("update failed: \(reason)", .error, false)
    case "app.removed": return ("removed", .good, true)
    default: return nil
    }
  }

  /// What became of those that were there before anybody looked.
  func settle(_ outcome: JSONValue) {
    let failed = outcome["failed"]?.objectValue ?? JSONObject()
    let waiting = (outcome["waiting"]?.arrayValue ?? []).compactMap(\.stringValue)
    for place in rows.indices where rows[place].row.ended == nil {
      let name = rows[place].name
      if let why = failed[name]?.stringValue {
        rows[place].row.text = "failed: \(why)"
        rows[place].row.style = .error
      } else if !waiting.contains(name), rows[place].row.style == nil {
        rows[place].row.text = rows[place].row.text == "unchanged" ? "running" : rows[place].row.text
        rows[place].row.style = .good
      }
      rows[place].row.ended = Clock.monotonic()
    }
    draw()
  }

  func end() { drawn = 0 }

  private func draw() {
    guard mode == .tty else { return }
    var text = drawn > 0 ? "\u{1B}[\(drawn)A" : ""
    let width = max(20, Output.columns(2))
    let column = rows.map(\.name.count).max() ?? 0
    for (name, row) in rows {
      let mark = row.ended == nil ? "◌" : row.style == .error ? "✘" : "✔"
      let seconds = Bytes.fixed(Double((row.ended ?? Clock.monotonic()) - row.began) / 1e9, 1) + "s"
      let body = row.parts.isEmpty ? Output.escaped(row.text) : Self.bar(row.parts)
      let line = " \(mark) \(name)\(String(repeating: " ", count: column - name.count))  "
      let room = max(8, width - line.count - seconds.count - 3)
      let shown = body.count > room ? String(body.prefix(room - 1)) + "…" : body
      let gap = String(repeating: " ", count: max(1, room - shown.count))
      text +=
        "\u{1B}[2K\(row.ended != nil ? (row.style ?? .good).on(line, true) : line)\(row.style?.on(shown, true) ?? shown)\(gap) \(Style.dim.on(seconds, true))\n"
    }
    drawn = rows.count
    Output.rawError(text)
  }

  static func bar(_ parts: [String: (done: UInt64, total: UInt64)]) -> String {
    let done = parts.values.reduce(0.0) { $0 + Double(min($1.done, $1.total)) }
    let total = parts.values.reduce(0.0) { $0 + Double($1.total) }
    let filled = Int((done / max(1, total) * 20).rounded(.down))
    return
      "[\(String(repeating: "█", count: filled))\(String(repeating: "░", count: 20 - filled))] \(Bytes(UInt64(done)).readable) of \(Bytes(UInt64(total)).readable)"
  }
}
