package import Model

/// What one app needs to be let in.
package struct Demand: Sendable, Equatable {
  package var app: AppID
  /// Its `mem_reservation`, else its `mem_limit`; nothing for an app without either.
  package var memory: Bytes

  package init(app: AppID, memory: Bytes) {
    self.app = app
    self.memory = memory
  }

  package init(_ policy: Policy) {
    self.init(app: policy.id, memory: policy.limits.memoryReservation ?? policy.limits.memory ?? Bytes(0))
  }
}

/// Who may start on a machine of this size.
package struct Admission: Sendable, Equatable {
  /// The machine's memory.
  package var capacity: Bytes
  /// What is never given to apps.
  package var reserve: Bytes

  package init(capacity: Bytes, reserve: Bytes) {
    self.capacity = capacity
    self.reserve = reserve
  }

  package enum Verdict: Sendable, Equatable {
    case admit
    /// It waits; the text says for what.
    case pending(String)
  }

  /// What is left for apps beside those that hold memory already.
  package func room(beside running: some Sequence<Demand>) -> Room {
    let usable = capacity.count - min(reserve.count, capacity.count)
    return Room(usable: usable, free: running.reduce(usable) { $0 - min($0, $1.memory.count) })
  }

  /// Memory that is still to be promised. Asked in order of priority; one that does not fit does not hold up a smaller one.
  package struct Room: Sendable, Equatable {
    let usable: UInt64
    var free: UInt64

    /// Takes what `demand` needs out of the room, if it is there.
    package mutating func admit(_ demand: Demand) -> Verdict {
      guard demand.memory.count > free else {
        free -= demand.memory.count
        return .admit
      }
      let needs = "memory: needs \(demand.memory.readable)"
      guard demand.memory.count <= usable else {
        return .pending("\(needs), this host has \(Bytes(usable).readable) for apps in all")
      }
      return .pending("\(needs), \(Bytes(free).readable) free")
    }
  }
}
