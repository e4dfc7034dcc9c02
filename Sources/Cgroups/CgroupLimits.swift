internal import Glibc
package import Linux
package import Model
package import Scheduling

/// A limit that cannot be had, and why. `strict` refuses to start for it, `degrade` lists it.
package struct Shortfall: Sendable, Equatable, CustomStringConvertible {
  /// The policy's key: `mem_limit`.
  package var limit: String
  package var reason: String

  package init(_ limit: String, _ reason: String) {
    self.limit = limit
    self.reason = reason
  }

  package var description: String { "\(limit): \(reason)" }
}

/// One kernel file that carries (part of) a limit.
struct LimitFile {
  /// The policy's key, `mem_limit`.
  var limit: String
  var controller: Controller
  var file: String
  /// What is written.
  var text: String
  /// Whether the policy asked for it; a file that only takes a limit away may be absent.
  var asked: Bool
  /// What to read for it, if not `text` itself.
  var expected: Expected

  enum Expected {
    /// A number the kernel may round down to a page.
    case bytes(UInt64)
    case exactly(String)
    /// One of the lines of the file.
    case line(String)
    /// No limit; nothing to compare.
    case anything
  }
}

extension AppCgroup {
  /// Writes every limit and the weight; nil takes a limit away. Returns those that could not be had; the others are in force.
  /// Made for a group just created and for a running one alike. `former` are the limits in force before, if any: devices no
  /// longer named are set free.
  package func apply(_ limits: Limits, share: CPUShare, former: Limits? = nil) -> [Shortfall] {
    var shortfalls = unsupported(limits)
    var failed: Set<String> = Set(shortfalls.map(\.limit))
    for entry in files(limits, share, former: former ?? Limits()) {
      guard let place = folder(entry.controller) else { continue }
      do throws(SystemFault) {
        try write(entry, in: place.path)
      } catch {
        guard entry.asked, failed.insert(entry.limit).inserted else { continue }
        shortfalls.append(Shortfall(entry.limit, error.description))
      }
    }
    if limits.memoryReservation != nil || former?.memoryReservation != nil { passProtectionUp() }
    if kind == .native { shortfalls += restrictDevices() }
    return shortfalls
  }

  /// v1 keeps `limit ≤ memsw` at every moment, so which goes first depends on the direction: the second try goes after the
  /// whole list's memsw line was tried too.
  private func write(_ entry: LimitFile, in folder: String) throws(SystemFault) {
    let path = "\(folder)/\(entry.file)"
    do throws(SystemFault) {
      try File.write(path, entry.text)
    } catch  where error.code == EINVAL && entry.file == "memory.limit_in_bytes" {
      try File.write("\(folder)/memory.memsw.limit_in_bytes", "-1")
      try File.write(path, entry.text)
    }
  }

  /// What of `limits` this host cannot hold, found without making anything.
  package func unsupported(_ limits: Limits) -> [Shortfall] {
    var found: [Shortfall] = []
    func need(_ key: String, _ asked: Bool, _ controller: Controller, legacyFile: String? = nil, v2Only: Bool = false) {
      guard asked else { return }
      guard let home = hierarchy.home(of: controller) else {
        found.append(Shortfall(key, hierarchy.missing(controller)))
        return
      }
      guard home.version == .v1 else { return }
      if v2Only {
        found.append(Shortfall(key, "cgroup v1 has no such limit"))
      } else if let legacyFile, !File.exists("\(home.root)/\(legacyFile)") {
        found.append(Shortfall(key, "this kernel has no \(legacyFile)"))
      }
    }
    need("mem_limit", limits.memory != nil, .memory)
    need("mem_high", limits.memoryHigh != nil, .memory, v2Only: true)
    need("mem_reservation", limits.memoryReservation != nil, .memory)
    if limits.memoryReservation != nil, !hierarchy.base.isEmpty {
      found.append(Shortfall("mem_reservation", "the groups above your user's are root's, and protect no memory"))
    }
    if limits.memoryAndSwap != nil, Self.hostHasSwap {
      need("memswap_limit", true, .memory, legacyFile: "memory.memsw.limit_in_bytes")
    }
    need("cpus", limits.cpus != nil, .cpu, legacyFile: "cpu.cfs_quota_us")
    need("cpuset", limits.cpuset != nil, .cpuset)
    need("pids_limit", limits.pids != nil, .pids)
    let block = limits.block
    need("blkio_config.weight", block.weight != nil, .io, legacyFile: "blkio.bfq.weight")
    if block.weight != nil, hierarchy.home(of: .io)?.version == .v2, weightFile == nil {
      found.append(
        Shortfall(
          "blkio_config.weight", "no disk here heeds weights: it needs the bfq scheduler, or iocost (io.cost.qos)"))
    }
    for (key, rates, file) in Self.rates(block) {
      need(key, !rates.isEmpty, .io, legacyFile: "blkio.throttle.\(file)_device")
      for rate in rates where BlockDevice(rate.path) == nil {
        found.append(Shortfall(key, "\(rate.path) is not a block device"))
      }
    }
    return found
  }

  /// The v2 file that some disk heeds: the kernel takes a weight also where none does.
  private var weightFile: String? {
    guard let unified = hierarchy.unified else { return nil }
    // best effort: a kernel without iocost has no such file.
    let costs = (try? File.text("\(unified)/io.cost.qos")) ?? ""
    if costs.split(whereSeparator: \.isWhitespace).contains("enable=1") { return "io.weight" }
    // best effort: a disk that just went is none.
    let disks = (try? Folder(opening: "/sys/block").names()) ?? []
    let weighs = disks.contains {
      (try? File.text("/sys/block/\($0)/queue/scheduler"))?.split(whereSeparator: \.isWhitespace).contains("[bfq]")
        == true
    }
    return weighs ? "io.bfq.weight" : nil
  }

  /// Without swap on the host a swap limit is in force by itself, whether or not the kernel can count swap.
  static var hostHasSwap: Bool {
    guard let text = try? File.text("/proc/swaps") else { return true }
    // A heading, and a line for each.
    return text.utf8.count { $0 == UInt8(ascii: "\n") } > 1
  }

  static func rates(_ block: Limits.BlockLimits) -> [(
    key: String, rates: [Limits.BlockLimits.DeviceRate], file: String
  )] {
    [
      ("blkio_config.device_read_bps", block.readBytesPerSecond, "read_bps"),
      ("blkio_config.device_write_bps", block.writeBytesPerSecond, "write_bps"),
      ("blkio_config.device_read_iops", block.readOperationsPerSecond, "read_iops"),
      ("blkio_config.device_write_iops", block.writeOperationsPerSecond, "write_iops"),
    ]
  }

  // MARK: The table

  /// Every file of every limit that this host has, in the order they are written.
  func files(_ limits: Limits, _ share: CPUShare, former: Limits = Limits()) -> [LimitFile] {
    guard kind != .shims else { return [] }
    var files: [LimitFile] = []
    if let memory = folder(.memory) { files += memoryFiles(limits, memory.version) }
    if hierarchy.home(of: .pids) != nil {
      let text = limits.pids.map { String($0) } ?? "max"
      files.append(
        LimitFile(
          limit: "pids_limit", controller: .pids, file: "pids.max", text: text, asked: limits.pids != nil,
          expected: limits.pids == nil ? .anything : .exactly(text)))
    }
    if let cpu = folder(.cpu) { files += cpuFiles(limits, share, cpu.version) }
    if hierarchy.home(of: .cpuset) != nil, let list = limits.cpuset {
      files.append(
        LimitFile(
          limit: "cpuset", controller: .cpuset, file: "cpuset.cpus", text: list, asked: true,
          expected: .exactly(CPUList(list)?.description ?? list)))
    }
    if let io = folder(.io) { files += ioFiles(limits.block, former.block, io.version) }
    return files
  }

  private func memoryFiles(_ limits: Limits, _ version: CgroupHierarchy.Home.Version) -> [LimitFile] {
    func file(_ limit: String, _ name: String, _ value: UInt64?, none: String, asked: Bool? = nil) -> LimitFile {
      LimitFile(
        limit: limit, controller: .memory, file: name, text: value.map { String($0) } ?? none,
        asked: asked ?? (value != nil), expected: value.map { .bytes($0) } ?? .anything)
    }
    let memory = limits.memory?.count
    let both = limits.memoryAndSwap?.count
    switch version {
    case .v2:
      let swap = both.map { $0 - min($0, memory ?? 0) }
      return [
        file("mem_limit", "memory.max", memory, none: "max"),
        file("mem_high", "memory.high", limits.memoryHigh?.count, none: "max"),
        file("mem_reservation", "memory.low", limits.memoryReservation?.count, none: "0"),
        file("memswap_limit", "memory.swap.max", swap, none: "max", asked: swap != nil && Self.hostHasSwap),
        // Systemd has no such property of a slice, and takes it away when it reloads.
        LimitFile(
          limit: "mem_limit", controller: .memory, file: "memory.oom.group", text: memory == nil ? "0" : "1",
          asked: memory != nil && slice == nil, expected: slice == nil ? .exactly(memory == nil ? "0" : "1") : .anything
        ),
      ]
    case .v1:
      return [
        file("mem_limit", "memory.limit_in_bytes", memory, none: "-1"),
        file("memswap_limit", "memory.memsw.limit_in_bytes", both, none: "-1", asked: both != nil && Self.hostHasSwap),
        file("mem_reservation", "memory.soft_limit_in_bytes", limits.memoryReservation?.count, none: "-1"),
      ]
    }
  }

  private func cpuFiles(_ limits: Limits, _ share: CPUShare, _ version: CgroupHierarchy.Home.Version) -> [LimitFile] {
    func file(_ limit: String, _ name: String, _ text: String, asked: Bool = true) -> LimitFile {
      LimitFile(
        limit: limit, controller: .cpu, file: name, text: text, asked: asked,
        expected: asked ? .exactly(text) : .anything)
    }
    let period: UInt64 = 100_000
    // The kernel takes no quota under 1 ms.
    let quota = limits.cpus.map { max(1000, UInt64(($0 * Double(period)).rounded())) }
    switch version {
    case .v2:
      return [
        file("cpus", "cpu.max", "\(quota.map { String($0) } ?? "max") \(period)", asked: quota != nil),
        file("cpu_shares", "cpu.weight", String(share.weight)),
      ]
    case .v1:
      let ceiling = [
        file("cpus", "cpu.cfs_period_us", String(period), asked: quota != nil),
        file("cpus", "cpu.cfs_quota_us", quota.map { String($0) } ?? "-1", asked: quota != nil),
      ]
      return ceiling + [file("cpu_shares", "cpu.shares", String(share.shares))]
    }
  }

  private func ioFiles(
    _ block: Limits.BlockLimits, _ former: Limits.BlockLimits, _ version: CgroupHierarchy.Home.Version
  ) -> [LimitFile] {
    var files: [LimitFile] = []
    if let weight = block.weight {
      // bfq's files first choice on v1; v2's `io.weight` reads back with `default` in front.
      let text = version == .v2 ? "default \(weight)" : String(weight)
      files.append(
        LimitFile(
          limit: "blkio_config.weight", controller: .io,
          file: version == .v2 ? weightFile ?? "io.weight" : "blkio.bfq.weight",
          text: text, asked: true, expected: .line(text)))
    }
    let old = Self.rates(former)
    for (index, (key, rates, file)) in Self.rates(block).enumerated() {
      let dropped = old[index].rates.filter { gone in !rates.contains { $0.path == gone.path } }
      for rate in rates + dropped.map({ Limits.BlockLimits.DeviceRate(path: $0.path, rate: 0) }) {
        guard let device = BlockDevice(rate.path) else { continue }
        let asked = rate.rate > 0
        switch version {
        case .v2:
          let name =
            ["read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"][file] ?? file
          let value = asked ? String(rate.rate) : "max"
          files.append(
            LimitFile(
              limit: key, controller: .io, file: "io.max", text: "\(device) \(name)=\(value)", asked: asked,
              expected: asked ? .line("\(device) \(name)=\(value)") : .anything))
        case .v1:
          let text = "\(device) \(rate.rate)"
          files.append(
            LimitFile(
              limit: key, controller: .io, file: "blkio.throttle.\(file)_device", text: text, asked: asked,
              expected: asked ? .line(text) : .anything))
        }
      }
    }
    return files
  }

  // MARK: Devices

  /// The nodes a native app's own /dev has, and terminals (devices.rst).
  private static let allowedDevices = [
    "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:2 rwm", "c 136:* rwm",
  ]

  /// Where devices are judged: by v1's controller, or by a program on the v2 group. Nil: by neither, because an ordinary user may set
  /// neither; nor has one a device to give.
  private var deviceGuard: DeviceGuard? {
    if let place = folder(.devices), place.version == .v1 { return .controller(place.path) }
    guard geteuid() == 0, let v2Folder else { return nil }
    return .program(v2Folder)
  }

  private enum DeviceGuard {
    case controller(String)
    case program(String)

    var isSet: Bool {
      get throws(SystemFault) {
        switch self {
        case .controller(let path): try !File.text("\(path)/devices.list").contains("a *:*")
        case .program(let folder): DeviceFilter.isSet(folder)
        }
      }
    }

    /// Takes the place of what was set before.
    func set(_ rules: [String]) throws(SystemFault) {
      switch self {
      case .controller(let path):
        try File.write("\(path)/devices.deny", "a")
        for rule in rules { try File.write("\(path)/devices.allow", rule) }
      case .program(let folder):
        let parsed = rules.compactMap { DeviceFilter.Rule($0) }
        guard parsed.count == rules.count else { throw SystemFault(call: "bpf", subject: folder, code: EINVAL) }
        try DeviceFilter.set(folder, parsed)
      }
    }
  }

  /// Lets a native app use devices beside those, as `c 188:0 rw`, and none that an earlier run in the same group was given.
  package func allow(devices rules: [String]) throws(SystemFault) {
    guard let deviceGuard else { return }
    // A new group has these already.
    if rules.isEmpty, case .controller(let path) = deviceGuard,
      try File.text("\(path)/devices.list").split(separator: "\n").count <= Self.allowedDevices.count
    {
      return
    }
    try deviceGuard.set(Self.allowedDevices + rules)
  }

  /// Once for each group: what was allowed to this app since stays.
  private func restrictDevices() -> [Shortfall] {
    do throws(SystemFault) {
      guard let deviceGuard, try !deviceGuard.isSet else { return [] }
      try deviceGuard.set(Self.allowedDevices)
      return []
    } catch { return [Shortfall("devices", error.description)] }
  }
}

/// A whole disk's number as the io files want it, `254:0`.
struct BlockDevice: CustomStringConvertible {
  let description: String

  /// By its node; a partition stands for its disk, because only disks have limits. Nil for anything but a block device.
  init?(_ path: String) {
    var status = stat()
    guard stat(path, &status) == 0, status.st_mode & S_IFMT == S_IFBLK else { return nil }
    // makedev(3): 12 + 20 bits and 8 + 24 bits, interleaved.
    let device = UInt64(status.st_rdev)
    let major = (device >> 8 & 0xFFF) | (device >> 32 & 0xFFFF_F000)
    let minor = (device & 0xFF) | (device >> 12 & 0xFFFF_FF00)
    let number = "\(major):\(minor)"
    let folder = "/sys/dev/block/\(number)"
    if File.exists("\(folder)/partition"), let disk = try? File.text("\(folder)/../dev") {
      description = String(disk.prefix { $0 != "\n" })
    } else {
      description = number
    }
  }
}

/// A list of CPUs in the kernel's own shortest form: `3,0-1,2` is `0-3`.
struct CPUList: CustomStringConvertible {
  let cpus: [Int]

  /// At most 8192, as many as Linux can have; nil for what is not such a list.
  init?(_ text: String) {
    var found: Set<Int> = []
    for part in text.split(separator: ",") {
      let ends = part.split(separator: "-").map { Int($0) }
      guard let first = ends.first ?? nil, let last = ends.last ?? nil, ends.count <= 2, first <= last, first >= 0,
        last < 8192
      else { return nil }
      found.formUnion(first...last)
    }
    cpus = found.sorted()
  }

  var description: String {
    var ranges: [(first: Int, last: Int)] = []
    for cpu in cpus {
      if let range = ranges.last, range.last == cpu - 1 {
        ranges[ranges.count - 1].last = cpu
      } else {
        ranges.append((cpu, cpu))
      }
    }
    return ranges.map { $0.first == $0.last ? "\($0.first)" : "\($0.first)-\($0.last)" }.joined(separator: ",")
  }
}
