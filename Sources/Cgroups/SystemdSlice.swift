internal import Glibc
internal import Linux
package import Model
package import Scheduling

/// An app's group where it is a unit of systemd's, because the engine's containers are.
///
/// What lies below a slice is systemd's: at each reload it writes its own values over what it finds there, which without its being
/// told means no limit at all, and it takes away controllers that no unit of its asks for. So it gets the limits as properties of
/// the unit before anything is in it, and puts them in force itself (systemd.resource-control(5)). It is told by busctl(1), through
/// org.freedesktop.systemd1.Manager; those calls block for some milliseconds, ten seconds at most.
package struct SystemdSlice: Sendable {
  /// `appsupervisor-default-notes.slice`
  package let unit: String
  /// Where the manager listens; nil: the system's.
  private let bus: String?

  /// The unit in the system's manager, or in that of the user this process runs as.
  package init(_ unit: String) {
    self.unit = unit
    bus = getuid() == 0 ? nil : "unix:path=/run/user/\(getuid())/bus"
  }

  /// Makes the unit with these limits, or gives it them if it is there. Limits that this host has no controller for are left out.
  package func hold(_ limits: Limits, share: CPUShare, _ hierarchy: CgroupHierarchy) throws(SystemdFault) {
    let set = Self.properties(limits, share, hierarchy, resetting: false)
    let words = ["ssa(sv)a(sa(sv))", unit, "fail"] + Self.array(set) + ["0"]
    do throws(SystemdFault) { try call("StartTransientUnit", words) } catch  where error.text.contains("already") {
      let all = Self.properties(limits, share, hierarchy, resetting: true)
      try call("SetUnitProperties", ["sba(sv)", unit, "true"] + Self.array(all))
      // One that is on its way out stays.
      try call("StartUnit", ["ss", unit, "replace"])
    }
  }

  /// How much memory of all below it is protected.
  func protect(_ bytes: UInt64) throws(SystemdFault) {
    try call("SetUnitProperties", ["sba(sv)", unit, "true", "1", "MemoryLow", "t", String(bytes)])
  }

  /// Takes the unit away. One that is not there is fine.
  package func release() throws(SystemdFault) {
    do throws(SystemdFault) { try call("StopUnit", ["ss", unit, "fail"]) } catch
      where error.text.contains("not loaded")
    {}
  }

  // MARK: Properties

  /// Each a name, its type and its value, as busctl takes them. `resetting`: those not asked for too, as "no limit".
  static func properties(_ limits: Limits, _ share: CPUShare, _ hierarchy: CgroupHierarchy, resetting: Bool)
    -> [[String]]
  {
    var all: [[String]] = []
    func number(_ name: String, _ controller: Controller, _ value: UInt64?, none: UInt64 = .max) {
      guard hierarchy.home(of: controller) != nil, value != nil || resetting else { return }
      all.append([name, "t", String(value ?? none)])
    }
    number("MemoryMax", .memory, limits.memory?.count)
    number("MemoryHigh", .memory, limits.memoryHigh?.count)
    number("MemoryLow", .memory, limits.memoryReservation?.count, none: 0)
    number("MemorySwapMax", .memory, limits.memoryAndSwap.map { $0.count - min($0.count, limits.memory?.count ?? 0) })
    number("TasksMax", .pids, limits.pids)
    number("CPUWeight", .cpu, share.weight)
    // Of a second; the file says it of a tenth.
    number("CPUQuotaPerSecUSec", .cpu, limits.cpus.map { max(1000, UInt64(($0 * 100_000).rounded())) * 10 })
    if hierarchy.home(of: .cpuset) != nil, limits.cpuset != nil || resetting {
      let mask = CPUList(limits.cpuset ?? "")?.mask ?? []
      all.append(["AllowedCPUs", "ay", String(mask.count)] + mask.map { String($0) })
    }
    guard hierarchy.home(of: .io) != nil else { return all }
    if let weight = limits.block.weight { number("IOWeight", .io, UInt64(weight)) }
    let names = ["IOReadBandwidthMax", "IOWriteBandwidthMax", "IOReadIOPSMax", "IOWriteIOPSMax"]
    for (name, (_, rates, _)) in zip(names, AppCgroup.rates(limits.block)) {
      let known = rates.filter { BlockDevice($0.path) != nil }
      // What is given adds to what is there; an empty list takes all of it away.
      if resetting { all.append([name, "a(st)", "0"]) }
      guard !known.isEmpty else { continue }
      all.append([name, "a(st)", String(known.count)] + known.flatMap { [$0.path, String($0.rate)] })
    }
    return all
  }

  private static func array(_ properties: [[String]]) -> [String] {
    [String(properties.count)] + properties.flatMap { $0 }
  }

  // MARK: Calls

  private func call(_ method: String, _ words: [String]) throws(SystemdFault) {
    let manager = ["org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager"]
    let program = "/usr/bin/busctl"
    let target = bus.map { ["--address=\($0)"] } ?? []
    // Values may begin with a dash.
    let arguments = ["busctl", "--quiet", "--timeout=10"] + target + ["--", "call"] + manager + [method] + words
    let said: (text: String, end: ChildEnd?)
    do throws(SystemFault) { said = try run(program, arguments) } catch { throw SystemdFault("\(error)") }
    guard case .code(0)? = said.end else {
      throw SystemdFault(said.text.isEmpty ? "\(program) ended without a word" : said.text)
    }
  }

  /// Its first line on standard error, and how it ended.
  private func run(_ program: String, _ arguments: [String]) throws(SystemFault) -> (String, ChildEnd?) {
    let null = try Place.null()
    var pipe = try Pipe(nonBlockingRead: false)
    let pid = try null.withRaw { (null) throws(SystemFault) in
      guard let writing = pipe.writing.take() else { throw SystemFault(call: "pipe", subject: program, code: EBADF) }
      return try writing.withRaw { (writing) throws(SystemFault) in
        try Children.spawn(program, arguments, descriptors: [null, null, writing])
      }
    }
    // To its end, of which little is kept.
    var said: [UInt8] = []
    var room = [UInt8](repeating: 0, count: 1024)
    if let reading = pipe.reading.take() {
      try reading.withRaw { (raw) throws(SystemFault) in
        while true {
          let got = try check("read", program) { read(raw, &room, room.count) }
          guard got > 0 else { return }
          if said.count < 4096 { said += room[..<Int(got)] }
        }
      }
    }
    let text = String(decoding: said, as: UTF8.self)
    return (String(text.prefix { $0 != "\n" }), try Children.wait(pid, block: true)?.end)
  }
}

/// What systemd says against it. The text is for the user.
package struct SystemdFault: Error, Sendable, CustomStringConvertible {
  package let text: String
  init(_ text: String) { self.text = text }
  package var description: String { text }
}

extension CPUList {
  /// One bit for each CPU, the lowest byte first.
  var mask: [UInt8] {
    var bytes = [UInt8](repeating: 0, count: (cpus.last.map { $0 / 8 + 1 }) ?? 0)
    for cpu in cpus { bytes[cpu / 8] |= 1 << UInt8(cpu % 8) }
    return bytes
  }
}
