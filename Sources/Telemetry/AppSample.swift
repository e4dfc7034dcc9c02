internal import Glibc
internal import Linux

/// What is told of one app.
package struct AppSample: Sendable {
  package var app: String
  package var stack: String
  package var runtime: String
  package var state: String
  package var isRunning = false
  /// Nil: nothing checks it.
  package var isHealthy: Bool?
  package var restarts: UInt64 = 0
  package var cpuSeconds: Double?
  package var throttledSeconds: Double?
  package var memory: UInt64?
  package var memoryPeak: UInt64?
  package var memoryLimit: UInt64?
  package var tasks: UInt64?
  package var tasksLimit: UInt64?
  package var cpuLimit: Double?

  package init(app: String, stack: String, runtime: String, state: String) {
    self.app = app
    self.stack = stack
    self.runtime = runtime
    self.state = state
  }
}

extension PrometheusRegistry {
  private typealias Row = (name: String, help: String, value: (AppSample) -> Double?)

  private static var rows: [Row] {
    [
      ("appsupervisor_app_running", "Whether the app runs.", { $0.isRunning ? 1 : 0 }),
      ("appsupervisor_app_healthy", "What its healthcheck says.", { $0.isHealthy.map { $0 ? 1 : 0 } }),
      ("appsupervisor_app_restarts_total", "Restarts since it was loaded.", { Double($0.restarts) }),
      ("appsupervisor_app_cpu_seconds_total", "CPU time of all its tasks, this run.", { $0.cpuSeconds }),
      (
        "appsupervisor_app_cpu_throttled_seconds_total", "Time it was held back by cpus, this run.",
        { $0.throttledSeconds }
      ),
      ("appsupervisor_app_cpu_limit_cores", "Its ceiling in cores.", { $0.cpuLimit }),
      ("appsupervisor_app_memory_bytes", "Memory it uses.", { $0.memory.map { Double($0) } }),
      ("appsupervisor_app_memory_peak_bytes", "The most it used, this run.", { $0.memoryPeak.map { Double($0) } }),
      (
        "appsupervisor_app_memory_limit_bytes", "Its limit, as the kernel has it.",
        { $0.memoryLimit.map { Double($0) } }
      ),
      ("appsupervisor_app_tasks", "Processes and threads.", { $0.tasks.map { Double($0) } }),
      ("appsupervisor_app_tasks_limit", "How many it may have.", { $0.tasksLimit.map { Double($0) } }),
    ]
  }
  private static let stateName = "appsupervisor_app_state"

  /// Replaces what is told of apps: those that are gone leave no series behind.
  package func update(_ samples: [AppSample]) {
    let rows = Self.rows
    forget(Set(rows.map(\.name) + [Self.stateName]))
    describe(Self.stateName, "1 for the state it is in.")
    for row in rows { describe(row.name, row.help) }
    for sample in samples {
      let labels = [("app", sample.app), ("stack", sample.stack)]
      set(Self.stateName, labels + [("runtime", sample.runtime), ("state", sample.state)], 1)
      for row in rows { if let value = row.value(sample) { set(row.name, labels, value) } }
    }
  }

  /// What is told of this process.
  package func updateProcess(version: String) {
    set("appsupervisor_build_info", [("version", version)], 1)
    var usage = rusage()
    if getrusage(__rusage_who_t(RUSAGE_SELF.rawValue), &usage) == 0 {
      func seconds(_ time: timeval) -> Double { Double(time.tv_sec) + Double(time.tv_usec) / 1e6 }
      set("process_cpu_seconds_total", [], seconds(usage.ru_utime) + seconds(usage.ru_stime))
    }
    // best effort: a number less.
    if let fields = try? File.text("/proc/self/statm").split(separator: " "), fields.count > 1,
      let pages = Double(fields[1])
    {
      set("process_resident_memory_bytes", [], pages * Double(sysconf(Int32(_SC_PAGESIZE))))
    }
    // best effort: as above.
    if let names = try? Folder(opening: "/proc/self/fd").names() { set("process_open_fds", [], Double(names.count)) }
  }
}
