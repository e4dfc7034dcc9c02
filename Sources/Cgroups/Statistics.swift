internal import Glibc
internal import Linux
package import Model

extension AppCgroup {
  /// What all processes in it use and used, in few reads. Counters of ended processes stay, as long as the group does.
  package func usage() -> Usage {
    var usage = Usage()
    if let memory = folder(.memory) {
      let v2 = memory.version == .v2
      usage.memory = Bytes(number(memory.path, v2 ? "memory.current" : "memory.usage_in_bytes") ?? 0)
      usage.memoryPeak = number(memory.path, v2 ? "memory.peak" : "memory.max_usage_in_bytes").map { Bytes($0) }
      // v1 says "no limit" by the largest number of whole pages.
      let limit = number(memory.path, v2 ? "memory.max" : "memory.limit_in_bytes")
      usage.memoryLimit = limit.flatMap { $0 < UInt64(Int64.max) - 0xFFFF ? Bytes($0) : nil }
    }
    if let pids = folder(.pids) { usage.pids = number(pids.path, "pids.current") ?? 0 }
    readCPU(&usage)
    return usage
  }

  private func readCPU(_ usage: inout Usage) {
    if let place = folder(.cpu) {
      SmallFile.pairs("\(place.path)/cpu.stat") { key, value in
        switch key {
        case "throttled_usec": usage.throttledNanoseconds = value &* 1000
        case "throttled_time": usage.throttledNanoseconds = value
        case "usage_usec": usage.cpuNanoseconds = value &* 1000
        default: break
        }
      }
      if place.version == .v2 { return }
    }
    if let place = folder(.cpuacct), let used = number(place.path, "cpuacct.usage") {
      usage.cpuNanoseconds = used
    } else if let v2Folder {
      SmallFile.pairs("\(v2Folder)/cpu.stat") { key, value in
        if key == "usage_usec" { usage.cpuNanoseconds = value &* 1000 }
      }
    }
  }

  /// The same with all that is counted. `process` is one of the app's, in its own network; 0: it has none.
  package func detailedUsage(network process: Int32) -> Usage {
    var usage = usage()
    var details = UsageDetails()
    if let memory = folder(.memory) { readMemory(memory.path, memory.version == .v2, &details) }
    if let pids = folder(.pids) {
      details.pidsPeak = number(pids.path, "pids.peak")
      details.pidsLimit = number(pids.path, "pids.max")
      SmallFile.pairs("\(pids.path)/pids.events") { key, value in if key == "max" { details.pidsRefused = value } }
    }
    if let cpu = folder(.cpu) {
      readPeriods(cpu.path, &details)
      // A container's own group has the same limit, and either of the two may be where it is held back.
      if kind == .container {
        for child in (try? Self.children(cpu.path)) ?? [] where !Self.isMonitor(child) {
          var own = UsageDetails()
          readPeriods(child, &own)
          guard own.throttledPeriods ?? 0 > details.throttledPeriods ?? 0 else { continue }
          (details.periods, details.throttledPeriods) = (own.periods, own.throttledPeriods)
        }
      }
    }
    if let io = folder(.io) { readBlocks(io.path, io.version == .v2, &details) }
    if let v2Folder {
      details.cpuPressure = SmallFile.pressure("\(v2Folder)/cpu.pressure")
      details.memoryPressure = SmallFile.pressure("\(v2Folder)/memory.pressure")
      details.ioPressure = SmallFile.pressure("\(v2Folder)/io.pressure")
    }
    if process > 0, let (received, sent) = SmallFile.traffic("/proc/\(process)/net/dev") {
      details.received = received
      details.sent = sent
    }
    usage.details = details
    return usage
  }

  private func readPeriods(_ path: String, _ details: inout UsageDetails) {
    SmallFile.pairs("\(path)/cpu.stat") { key, value in
      if key == "nr_periods" { details.periods = value }
      if key == "nr_throttled" { details.throttledPeriods = value }
    }
  }

  private func readMemory(_ path: String, _ v2: Bool, _ details: inout UsageDetails) {
    if v2 {
      SmallFile.pairs("\(path)/memory.events") { key, value in
        if key == "max" { details.memoryAtLimit = value }
        if key == "oom_kill" { details.outOfMemoryKills = value }
      }
      details.swap = number(path, "memory.swap.current").map { Bytes($0) }
    } else {
      details.memoryAtLimit = number(path, "memory.failcnt")
      details.outOfMemoryKills = outOfMemoryKills()
    }
  }

  /// v2: `8:0 rbytes=1 wbytes=2 …`; v1: `8:0 Read 1`, then `Write`, for all below.
  private func readBlocks(_ path: String, _ v2: Bool, _ details: inout UsageDetails) {
    guard let text = try? File.text(v2 ? "\(path)/io.stat" : "\(path)/blkio.throttle.io_service_bytes_recursive") else {
      return
    }
    var read: UInt64 = 0
    var written: UInt64 = 0
    for line in text.split(separator: "\n") {
      let words = line.split(separator: " ")
      if v2 {
        for word in words.dropFirst() {
          if word.hasPrefix("rbytes=") { read &+= UInt64(word.dropFirst(7)) ?? 0 }
          if word.hasPrefix("wbytes=") { written &+= UInt64(word.dropFirst(7)) ?? 0 }
        }
      } else if words.count == 3 {
        if words[1] == "Read" { read &+= UInt64(words[2]) ?? 0 }
        if words[1] == "Write" { written &+= UInt64(words[2]) ?? 0 }
      }
    }
    details.blockRead = read
    details.blockWritten = written
  }
}

/// Small kernel files, read at once and taken apart without making text of them: what is asked for every second of every app.
enum SmallFile {
  /// Lends what a file holds, at most 4 KiB; nil when it cannot be read.
  static func with<Result>(_ path: String, _ body: (UnsafeRawBufferPointer) -> Result?) -> Result? {
    let raw = open(path, O_RDONLY | O_CLOEXEC)
    guard raw >= 0 else { return nil }
    defer { close(raw) }
    return withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 16) { room in
      let got = read(raw, room.baseAddress, room.count)
      return got > 0 ? body(UnsafeRawBufferPointer(rebasing: room[..<got])) : nil
    }
  }

  /// A file of one number; nil for `max`.
  static func number(_ path: String) -> UInt64? { with(path) { number($0) } }

  private static func number(_ bytes: some Sequence<UInt8>) -> UInt64? {
    var value: UInt64 = 0
    var count = 0
    for byte in bytes {
      guard byte >= UInt8(ascii: "0"), byte <= UInt8(ascii: "9") else { break }
      value = value &* 10 &+ UInt64(byte - UInt8(ascii: "0"))
      count += 1
    }
    return count > 0 && count < 21 ? value : nil
  }

  /// A file of `key value` lines.
  static func pairs(_ path: String, _ body: (String, UInt64) -> Void) {
    _ = with(path) { bytes -> Bool? in
      for line in bytes.split(separator: UInt8(ascii: "\n")) {
        guard let space = line.firstIndex(of: UInt8(ascii: " ")), let value = number(line[(space + 1)...]) else {
          continue
        }
        body(String(decoding: line[..<space], as: UTF8.self), value)
      }
      return true
    }
  }

  /// `avg10` of the first line (`some`), in percent.
  static func pressure(_ path: String) -> Double? {
    with(path) { bytes in
      guard let mark = bytes.firstIndex(of: UInt8(ascii: "=")) else { return nil }
      let text = bytes[(mark + 1)...].prefix { $0 != UInt8(ascii: " ") }
      return Double(String(decoding: text, as: UTF8.self))
    }
  }

  /// Received and sent bytes of all interfaces but loopback; nil: there is none.
  static func traffic(_ path: String) -> (UInt64, UInt64)? {
    with(path) { bytes in
      var sums: (UInt64, UInt64)?
      for line in bytes.split(separator: UInt8(ascii: "\n")).dropFirst(2) {
        let words = line.split(whereSeparator: { $0 == UInt8(ascii: " ") || $0 == UInt8(ascii: ":") })
        guard words.count > 9, !words[0].elementsEqual("lo".utf8), let received = number(words[1]),
          let sent = number(words[9])
        else { continue }
        sums = ((sums?.0 ?? 0) &+ received, (sums?.1 ?? 0) &+ sent)
      }
      return sums
    }
  }
}
