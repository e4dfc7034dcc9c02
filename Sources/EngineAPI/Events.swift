internal import Linux
package import Model

/// What happens at an Engine, as it happens.
package typealias EventStream = EngineStream<JSONLines<EngineEvent>>

/// One thing that happened: `container` `die` of an id.
package struct EngineEvent: Sendable, Equatable {
  /// What makes two reports the same event.
  package struct Identity: Sendable, Hashable {
    package var time: WallTime
    package var kind: String
    package var action: String
    package var id: String
  }

  /// `container`, `image`, `network`, `volume`, `daemon`.
  package var kind: String
  /// `create`, `start`, `die`, `oom`, `destroy`, `health_status: healthy`, … in docker's words.
  package var action: String
  /// The id (for volumes the name) of what it happened to.
  package var id: String
  package var time: WallTime
  /// Labels and details, `exitCode` among them.
  package var attributes: [String: String]

  package var identity: Identity { Identity(time: time, kind: kind, action: action, id: id) }

  /// With `die`: the exit code.
  package var exitCode: Int64? { (attributes["exitCode"] ?? attributes["containerExitCode"]).flatMap { Int64($0) } }

  init?(_ json: JSONValue) {
    guard let kind = json["Type"]?.stringValue, let action = json["Action"]?.stringValue else { return nil }
    self.kind = kind
    // Podman has its own words for a few.
    self.action = ["died": "die", "remove": kind == "container" ? "destroy" : "remove"][action] ?? action
    id = json["Actor"]?.text("ID") ?? ""
    let nanoseconds = json.whole("timeNano")
    time = WallTime(nanoseconds: nanoseconds != 0 ? nanoseconds : json.whole("time") &* 1_000_000_000)
    attributes = json["Actor"]?.textMap("Attributes") ?? [:]
  }
}

/// How far events have been seen, to go on after a lost connection without a gap and without seeing one twice.
///
/// An Engine may report events slightly out of order, and one that was restarted knows only its last (docker: 256); after a long gap
/// the caller lists everything again.
package struct EventCursor: Sendable, Equatable {
  private var newest: WallTime
  private var recent: [EngineEvent.Identity] = []
  private var known: Set<EngineEvent.Identity> = []
  /// How far back is asked for again.
  static let overlap = Duration.seconds(1)
  static let kept = 4096

  /// Starts at a moment: take it before listing, then nothing falls between the list and the stream.
  package init(from start: WallTime) { newest = start }

  /// Whether the event is new; it is seen from now on.
  package mutating func admit(_ event: EngineEvent) -> Bool {
    let identity = event.identity
    guard known.insert(identity).inserted else { return false }
    recent.append(identity)
    newest = max(newest, event.time)
    if recent.count > Self.kept {
      for old in recent.prefix(Self.kept / 2) { known.remove(old) }
      recent.removeFirst(Self.kept / 2)
    }
    return true
  }

  /// From when to ask.
  var since: WallTime { WallTime(nanoseconds: newest.nanoseconds - Self.overlap.wholeNanoseconds) }
}

extension Engine {
  /// `GET /events`: from the cursor on (nil: from now), for ever or until a moment.
  ///
  /// Events from the cursor's overlap come again: pass each through `EventCursor.admit`. The stream ends when the Engine does
  /// (`interrupted`, or just the end); reconnecting is the caller's.
  package func events(from cursor: EventCursor? = nil, until: WallTime? = nil, _ filters: Filters = Filters())
    async throws(EngineFailure) -> EventStream
  {
    var request = request(.get, "/events", "follow events")
    if let cursor { request.query.append(("since", cursor.since.engineText)) }
    if let until, differences.ignoresUntil {
      guard until <= Clock.wall() else {
        throw .unsupported("podman tells events until a moment only once it has passed")
      }
      request.query.append(("stream", "false"))
    } else if let until {
      request.query.append(("until", until.engineText))
    }
    request.query += filters.query
    let (_, bytes) = try await transport.open(request)
    return EventStream(
      bytes,
      JSONLines(operation: request.operation, lineLimit: transport.limits.line) { (json) throws(EngineFailure) in
        guard let event = EngineEvent(json) else { return nil }
        return until.map { event.time <= $0 } ?? true ? event : nil
      })
  }
}
