internal import Linux
package import Model

/// What one app uses now, and used since the look before.
package struct AppStatistics: Sendable {
  package var id: AppID
  package var runtime: Runtime
  package var usage: Usage
  /// Since the look before; since the start at the first.
  package var cpuPercent: Double
  /// Share of the time in which it was held back at its CPU limit.
  package var throttledPercent: Double?
}

/// Where a series of looks is; each reader has its own.
package struct StatisticsSeries: Sendable {
  fileprivate var last: [Instance: (at: Int64, usage: Usage)] = [:]
  package init() {}
}

extension Supervisor {
  /// Usage of those of the apps that run, in one pass over each runtime.
  func usages(of ids: [AppID], details: Bool) async -> [Instance: Usage] {
    var asked: [Runtime: [(instance: Instance, pid: Int32)]] = [:]
    for id in ids {
      guard let record = apps[id], let instance = record.life.stage.instance, let facts = record.life.stage.facts
      else { continue }
      // In the host's network the counters are the host's.
      let pid = record.current.network.mode == .host ? 0 : facts.pid
      asked[record.runtime, default: []].append((instance, pid))
    }
    var usages: [Instance: Usage] = [:]
    for (runtime, instances) in asked {
      guard let host = setup.hosts[runtime] else { continue }
      usages.merge(await host.usages(instances, details: details)) { $1 }
    }
    return usages
  }

  /// What the running ones of these apps use, sorted by name.
  package func statistics(_ ids: [AppID]?, _ series: inout StatisticsSeries) async -> [AppStatistics] {
    let all = (ids ?? Array(apps.keys)).sorted()
    let usages = await usages(of: all, details: true)
    let now = Clock.monotonic()
    var next = StatisticsSeries()
    let rows = all.compactMap { id -> AppStatistics? in
      guard let record = apps[id], let instance = record.life.stage.instance, let usage = usages[instance] else {
        return nil
      }
      let before = series.last[instance]
      let started = record.life.stage.facts?.startedAt ?? Clock.wall()
      let elapsed = max(1, before.map { now - $0.at } ?? Clock.wall().since(started).wholeNanoseconds)
      let used = usage.cpuNanoseconds &- min(before?.usage.cpuNanoseconds ?? 0, usage.cpuNanoseconds)
      let throttled: Double? = usage.details?.periods.flatMap { periods in
        let all = periods &- min(before?.usage.details?.periods ?? 0, periods)
        let held = usage.details?.throttledPeriods ?? 0
        return all == 0
          ? 0 : Double(held &- min(before?.usage.details?.throttledPeriods ?? 0, held)) / Double(all) * 100
      }
      next.last[instance] = (now, usage)
      return AppStatistics(
        id: id, runtime: record.runtime, usage: usage, cpuPercent: Double(used) / Double(elapsed) * 100,
        throttledPercent: throttled)
    }
    series = next
    return rows
  }
}

extension Supervisor {
  /// The host's numbers of an app's processes, first its own first.
  package func processes(of id: AppID) async throws(OperationFailure) -> [Int32] {
    guard let record = apps[id] else { throw .noSuchApp(id) }
    guard let instance = record.life.stage.instance, record.life.stage.facts != nil,
      let host = setup.hosts[record.runtime]
    else { throw .notRunning(id) }
    return await host.processes(instance)
  }
}
