internal import Glibc
internal import Linux
internal import Logging
internal import Model
internal import Policies
internal import Supervision
internal import Telemetry

/// The page of metrics: made when somebody asks for it, from what `ps` would say.
struct Metrics: Sendable {
  private let registry: PrometheusRegistry
  private let server: MetricsServer
  private let supervisor: Supervisor

  /// Nil where config.yaml says `metrics: {listen: off}`. A port that is taken is told of, and the daemon runs without metrics.
  static func make(
    _ configuration: Configuration, _ folders: InstancePlace.Folders, _ supervisor: Supervisor, on loop: EventLoop,
    _ log: Logger
  ) -> Metrics? {
    let listener: Descriptor
    let isPort: Bool
    do throws(SystemFault) {
      switch configuration.metrics {
      case .off: return nil
      case .unix:
        listener = try Operators.listen(folders.run, "metrics.sock", configuration, log)
        isPort = false
      case .port(let address, let port):
        listener = try MetricsServer.listen(address, port)
        isPort = true
      }
    } catch {
      log.error("metrics.not_served", metadata: ["reason": "\(error)", "hint": "change metrics in config.yaml"])
      return nil
    }
    let registry = PrometheusRegistry()
    registry.bootstrap()
    let server = MetricsServer(listener, isPort: isPort, on: loop) { await page(registry, supervisor) }
    return Metrics(registry: registry, server: server, supervisor: supervisor)
  }

  /// Serves, and counts events, until cancelled.
  func run(_ log: Logger) async {
    do throws(SystemFault) { try await server.start() } catch {
      log.error("metrics.not_served", metadata: ["reason": "\(error)"])
      return
    }
    for await event in await supervisor.observe() {
      Counted.event(event.name)
      guard let app = event.app, event.name == "app.oom" || event.name == "app.oom_kill" else { continue }
      registry.add(Self.outOfMemory, [("app", app.name)])
    }
  }

  /// Kept beside the page's own series, which are made anew each time.
  private static let outOfMemory = "appsupervisor_out_of_memory_events_total"

  private static func page(_ registry: PrometheusRegistry, _ supervisor: Supervisor) async -> String {
    let began = Clock.monotonic()
    registry.update(await supervisor.reports(nil).map(sample))
    registry.updateProcess(version: Build.version)
    Counted.scrape(Clock.monotonic() - began)
    return registry.text
  }

  private static func sample(_ report: AppReport) -> AppSample {
    var sample = AppSample(
      app: report.id.name, stack: report.stack, runtime: report.runtime.rawValue, state: report.word.rawValue)
    sample.isRunning = report.facts != nil
    sample.isHealthy = report.health.map { $0.word == .healthy }
    sample.restarts = UInt64(report.restarts)
    sample.cpuLimit = report.policy.limits.cpus
    sample.tasksLimit = report.policy.limits.pids
    sample.memoryLimit = (report.usage?.memoryLimit ?? report.policy.limits.memory)?.count
    if let usage = report.usage {
      sample.cpuSeconds = Double(usage.cpuNanoseconds) / 1e9
      sample.throttledSeconds = Double(usage.throttledNanoseconds) / 1e9
      sample.memory = usage.memory.count
      sample.memoryPeak = usage.memoryPeak?.count
      sample.tasks = usage.pids
    }
    return sample
  }
}
