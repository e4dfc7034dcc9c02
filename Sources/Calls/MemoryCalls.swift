internal import Linux
internal import Model
internal import RPC

/// mem, and sys.limits: what the app and the host have, by the kernel's own numbers.
let memoryCalls: [Call] = [
  Call(
    name: "mem.self", aliases: ["GetProcessMemoryStats"],
    summary: "the app's own memory, its peak and its limit, in bytes; null: this kernel does not say"
  ) { (interface, caller, _) throws(RPCFailure) in
    .later { () throws(RPCFailure) in
      guard let usage = try await interface.ask(caller).usage(caller.instance.app) else {
        throw RPCFailure(.conflict, "\(caller.instance.app) is not running")
      }
      let details = usage.details ?? UsageDetails()
      return .object([
        "memory": .count(usage.memory.count), "peak": .optional(usage.memoryPeak?.count),
        "limit": .optional(usage.memoryLimit?.count), "swap": .optional(details.swap?.count),
        "at_limit": .optional(details.memoryAtLimit), "oom_kills": .optional(details.outOfMemoryKills),
        "pressure_percent": details.memoryPressure.map { .number($0) } ?? .null,
      ])
    }
  },
  Call(
    name: "mem.stats", aliases: ["GetMemoryStats"], right: .systemInfo, summary: "the host's memory, in bytes"
  ) { (_, _, _) throws(RPCFailure) in .now(try hostMemory()) },
  Call(
    name: "mem.reclaim", aliases: ["TriggerGC"], arguments: [.init("bytes", .number, required: false)],
    summary: "have the kernel take back what the app does not need, at most so many bytes; how much it used and uses"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let bytes = try arguments.integer("bytes")
    guard bytes.map({ $0 > 0 }) ?? true else { throw RPCFailure(.invalidParameters, "bytes is more than 0") }
    return .later { () throws(RPCFailure) in
      let keeper = try await interface.ask(caller)
      let app = caller.instance.app
      guard await interface.mayReclaim(caller) else {
        throw RPCFailure(.rate, "memory is taken back at most once a second", hint: "there is nothing more to be had")
      }
      let before = await keeper.usage(app)?.memory.count
      try await keeper.reclaim(caller.cgroup, bytes.map { UInt64($0) })
      return .object(["before": .optional(before), "after": .optional(await keeper.usage(app)?.memory.count)])
    }
  },
  Call(
    name: "sys.limits", right: .systemInfo, summary: "each limit and layer of the app, as asked and as in force"
  ) { (interface, caller, _) throws(RPCFailure) in
    .later { () throws(RPCFailure) in
      let limits = try await interface.ask(caller).limits(caller.instance.app)
      return .object([
        "limits": .array(
          limits.map {
            .object([
              "name": .string($0.name), "asked": .optional($0.asked), "effective": .optional($0.effective),
              "status": .string($0.status.rawValue), "note": .optional($0.note),
            ])
          })
      ])
    }
  },
]

/// proc(5), /proc/meminfo.
private func hostMemory() throws(RPCFailure) -> JSONValue {
  let text: String
  do throws(SystemFault) { text = try File.text("/proc/meminfo") } catch {
    throw RPCFailure(.fault, "the host's memory cannot be read: \(error)")
  }
  var object = JSONObject()
  for (key, line) in [
    ("total", "MemTotal:"), ("free", "MemFree:"), ("available", "MemAvailable:"), ("cached", "Cached:"),
    ("swap_total", "SwapTotal:"), ("swap_free", "SwapFree:"),
  ] {
    let fields = text.split(separator: "\n").first { $0.hasPrefix(line) }?.split(separator: " ")
    object[key] = .optional(fields?.dropFirst().first.flatMap { UInt64($0) }.map { $0 << 10 })
  }
  return .object(object)
}
