internal import Model
internal import Storage

/// One generation's place at its app. Most apps have one; during an update there are two, each with a life of its own.
struct Seat: Hashable, Sendable {
  var app: AppID
  var number: UInt64
}

extension AppRecord {
  var seat: Seat { Seat(app: stored.id, number: number) }
}

extension Supervisor {
  /// The record that has this seat, be it what the app is by now, or beside it.
  subscript(seat: Seat) -> AppRecord? {
    get {
      if let present = apps[seat.app], present.number == seat.number { return present }
      return beside[seat]
    }
    set {
      if apps[seat.app]?.number == seat.number { apps[seat.app] = newValue } else { beside[seat] = newValue }
    }
  }

  /// Every record: what each app is, and what is beside it.
  var everyone: [AppRecord] { beside.isEmpty ? Array(apps.values) : Array(apps.values) + Array(beside.values) }

  /// What is beside the present generation of an app.
  func others(_ id: AppID) -> [AppRecord] { beside.isEmpty ? [] : beside.values.filter { $0.stored.id == id } }

  /// The generation that is to become the app.
  func next(_ id: AppID) -> AppRecord? { others(id).first { $0.role == .next } }

  func seat(of instance: Instance) -> Seat? {
    func isIt(_ record: AppRecord) -> Bool {
      guard let own = record.life.stage.instance else { return false }
      return own.generation == instance.generation && own.nonce == instance.nonce
    }
    if let present = apps[instance.app], isIt(present) { return present.seat }
    return others(instance.app).first(where: isIt)?.seat
  }

  /// The next number that no generation of this app has had.
  func newGeneration(_ seat: Seat) -> UInt64 {
    let known = ([apps[seat.app]].compactMap { $0 } + others(seat.app)).map(\.stored.generation).max() ?? 0
    let generation = max(known, lastRuns[seat.app] ?? 0) + 1
    lastRuns[seat.app] = generation
    return generation
  }
}
