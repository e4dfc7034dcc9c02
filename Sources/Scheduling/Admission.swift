package import Model

/// What one app needs to be let in, and who goes first.
package struct Demand: Sendable, Equatable {
  package var app: AppID
  package var priority: Priority
  /// Its `mem_reservation`, else its `mem_limit`; nothing for an app without either.
  package var memory: Bytes

  package init(app: AppID, priority: Priority, memory: Bytes) {
    self.app = app
    self.priority = priority
    self.memory = memory
  }

  package init(_ policy: Policy) {
    self.init(
      app: policy.id, priority: policy.priority,
      memory: policy.limits.memoryReservation ?? policy.limits.memory ?? Bytes(0))
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

  /// Decides about one app beside those that hold memory already.
  package func decide(_ candidate: Demand, running: [Demand]) -> Verdict {
    verdict(candidate, free: free(beside: running))
  }

  /// Decides about all that wait: highest priority first, among equals in the order given. One that does not fit does not
  /// hold up a smaller one behind it.
  package func decide(_ waiting: [Demand], running: [Demand]) -> [(demand: Demand, verdict: Verdict)] {
    var free = free(beside: running)
    let ordered = waiting.enumerated().sorted {
      ($1.element.priority, $0.offset) < ($0.element.priority, $1.offset)
    }
    return ordered.map { _, demand in
      let verdict = verdict(demand, free: free)
      if verdict == .admit { free = Bytes(free.count - demand.memory.count) }
      return (demand, verdict)
    }
  }

  private var usable: UInt64 { capacity.count - min(reserve.count, capacity.count) }

  private func free(beside running: [Demand]) -> Bytes {
    var rest = usable
    for demand in running { rest -= min(rest, demand.memory.count) }
    return Bytes(rest)
  }

  private func verdict(_ demand: Demand, free: Bytes) -> Verdict {
    guard demand.memory > free else { return .admit }
    let needs = "memory: needs \(demand.memory.readable)"
    guard demand.memory.count <= usable else {
      return .pending("\(needs), this host has \(Bytes(usable).readable) for apps in all")
    }
    return .pending("\(needs), \(free.readable) free")
  }
}
