internal import Glibc
internal import Linux
package import Model
package import Scheduling

/// Why the limits of a group with processes in it stay as they were. The text is for the user.
package struct ChangeRefusal: Error, Sendable, CustomStringConvertible {
  /// The policy's key.
  package var limit: String
  package var reason: String
  /// What could not be put back either; empty: everything is as before.
  package var notRestored: [String] = []

  package var description: String {
    let left = notRestored.isEmpty ? "" : "; not put back: \(notRestored.joined(separator: ", "))"
    return "\(limit): \(reason)\(left)"
  }
}

/// What a change of limits wrote, so that all of it can be taken back.
package struct LimitJournal: Sendable {
  struct Entry: Sendable {
    var path: String
    var before: String
  }
  var entries: [Entry] = []

  /// Puts back what was there, last first: the order that was right on the way there is right on the way back. Returns what
  /// could not be put back.
  package func undo() -> [String] {
    var failed: [String] = []
    for entry in entries.reversed() {
      do throws(SystemFault) { try File.write(entry.path, entry.before) } catch { failed.append(error.description) }
    }
    return failed
  }
}

extension AppCgroup {
  /// Changes the limits of a group whose processes run, from `former` to `limits`: all of them, read back from the kernel, or none
  /// of them. Only files whose content differs are written.
  ///
  /// Less memory than the app uses is refused once the kernel has reclaimed what it can; it never ends a process for it. Blocks
  /// while it reclaims.
  @discardableResult
  package func change(to limits: Limits, share: CPUShare, former: Limits) throws(ChangeRefusal) -> LimitJournal {
    if let missing = unsupported(limits).first(where: { !unsupported(former).contains($0) }) {
      throw ChangeRefusal(limit: missing.limit, reason: missing.reason)
    }
    var journal = LimitJournal()
    do throws(ChangeRefusal) {
      try joinControllers(limits, former)
      try reclaim(limits, &journal)
      for file in ordered(files(limits, share, former: former) + released(limits, former)) {
        try write(file, &journal)
      }
      if limits.memoryReservation != former.memoryReservation { passProtectionUp() }
      if let wrong = readBack(limits, share: share).first(where: { $0.status == .missing }) {
        // Under `degrade` some were missing before.
        let before = unsupported(limits).map(\.limit)
        if !before.contains(wrong.name) {
          throw ChangeRefusal(limit: wrong.name, reason: wrong.note ?? "the kernel does not show it")
        }
      }
      return journal
    } catch {
      var refusal = error
      refusal.notRestored = journal.undo()
      throw refusal
    }
  }

  /// The content of a limit's file as it is written back: a file of lines, one for each device, is written a line at a time.
  private func write(_ file: LimitFile, _ journal: inout LimitJournal) throws(ChangeRefusal) {
    guard let place = folder(file.controller) else { return }
    let path = "\(place.path)/\(file.file)"
    let before: String
    do throws(SystemFault) { before = try File.text(path) } catch {
      guard file.asked else { return }
      throw ChangeRefusal(limit: file.limit, reason: error.description)
    }
    if file.holds(before) { return }
    do throws(SystemFault) { try File.write(path, file.text) } catch {
      guard file.asked || error.code != ENOENT else { return }
      throw ChangeRefusal(limit: file.limit, reason: Self.words(error, file, place.path))
    }
    journal.entries.append(.init(path: path, before: file.restoring(before)))
  }

  private static func words(_ fault: SystemFault, _ file: LimitFile, _ folder: String) -> String {
    let isMemory = ["memory.limit_in_bytes", "memory.memsw.limit_in_bytes"].contains(file.file)
    guard fault.code == EBUSY, isMemory, let wanted = UInt64(file.text) else { return fault.description }
    let used = (try? File.text("\(folder)/memory.usage_in_bytes")).flatMap { UInt64($0.filter(\.isNumber)) } ?? 0
    return tooSmall(wanted, used)
  }

  package static func tooSmall(_ wanted: UInt64, _ used: UInt64) -> String {
    "the app uses \(Bytes(used).readable), and the kernel could not reclaim enough of it to fit \(Bytes(wanted).readable);"
      + " give it more, or restart it with the new limit"
  }

  /// v2 ends processes for a `memory.max` below what they use, so they are first slowed to the new limit, which makes the kernel
  /// reclaim, and asked about after that. v1 refuses by itself.
  private func reclaim(_ limits: Limits, _ journal: inout LimitJournal) throws(ChangeRefusal) {
    guard let memory = folder(.memory), memory.version == .v2, let wanted = limits.memory?.count,
      let used = number(memory.path, "memory.current"), used > wanted
    else { return }
    let high = LimitFile(
      limit: "mem_limit", controller: .memory, file: "memory.high", text: String(wanted), asked: true,
      expected: .bytes(wanted))
    try write(high, &journal)
    guard let left = number(memory.path, "memory.current"), left > wanted else { return }
    throw ChangeRefusal(limit: "mem_limit", reason: Self.tooSmall(wanted, left))
  }

  /// v1 keeps memory ≤ memory and swap at every moment: what is more goes first, what is less last.
  func ordered(_ files: [LimitFile]) -> [LimitFile] {
    guard let memory = files.firstIndex(where: { $0.file == "memory.limit_in_bytes" }),
      let both = files.firstIndex(where: { $0.file == "memory.memsw.limit_in_bytes" }), let place = folder(.memory)
    else { return files }
    let now = number(place.path, "memory.memsw.limit_in_bytes") ?? .max
    let wanted = UInt64(files[both].text) ?? .max
    guard LimitOrder.bothFirst(now: now, wanted: wanted) != (both < memory) else { return files }
    var files = files
    files.swapAt(memory, both)
    return files
  }

  /// Files of limits that are no longer asked for, which `files` leaves alone.
  private func released(_ limits: Limits, _ former: Limits) -> [LimitFile] {
    var files: [LimitFile] = []
    if former.cpuset != nil, limits.cpuset == nil, let place = folder(.cpuset) {
      let all = place.version == .v2 ? "\n" : inherited("cpuset.cpus", place.path)
      files.append(
        LimitFile(
          limit: "cpuset", controller: .cpuset, file: "cpuset.cpus", text: all, asked: false, expected: .anything))
    }
    if former.block.weight != nil, limits.block.weight == nil, let place = folder(.io) {
      let isV2 = place.version == .v2
      files.append(
        LimitFile(
          limit: "blkio_config.weight", controller: .io, file: isV2 ? "io.weight" : "blkio.bfq.weight",
          text: isV2 ? "default 100" : "100", asked: false, expected: .anything))
    }
    return files
  }

  private func inherited(_ file: String, _ folder: String) -> String {
    let parent = folder[..<(folder.lastIndex(of: "/") ?? folder.startIndex)]
    return (try? File.text("\(parent)/\(file)"))?.filter { !$0.isWhitespace } ?? "0"
  }

  /// v1 hierarchies that only the new limits need: the group is made there, and what runs moves in. A child takes after its
  /// parent, so once a look finds nobody outside, nobody will be.
  private func joinControllers(_ limits: Limits, _ former: Limits) throws(ChangeRefusal) {
    let added = roots(limits).filter { !roots(former).contains($0) }
    guard !added.isEmpty else { return }
    do throws(SystemFault) {
      try create(limits)
      guard kind == .native else { return }
      for root in added {
        for _ in 0..<64 {
          let inside = Set(try File.text("\(root)\(path)/cgroup.procs").split(separator: "\n"))
          let outside = try processes.filter { !inside.contains(Substring(String($0))) }
          if outside.isEmpty { break }
          for pid in outside {
            do throws(SystemFault) { try File.write("\(root)\(path)/cgroup.procs", String(pid)) } catch
              where error.code == ESRCH
            {}
          }
        }
      }
    } catch { throw ChangeRefusal(limit: "cpuset or blkio_config", reason: error.description) }
  }
}

extension AppCgroup {
  /// Puts every limit in force again that is not: after a change that was cut off, or somebody's hand. Nothing is written where all is
  /// as it should be.
  package func reassert(_ limits: Limits, share: CPUShare) throws(ChangeRefusal) {
    var former = limits
    // What may be there without being asked for.
    if limits.cpuset == nil, let place = folder(.cpuset), File.exists(place.path) { former.cpuset = "0" }
    if limits.block.weight == nil, let place = folder(.io), File.exists(place.path) { former.block.weight = 100 }
    try change(to: limits, share: share, former: former)
  }
}

/// In which order the two limits of memory on v1 are written.
enum LimitOrder {
  /// Whether the one of memory and swap goes first: when it grows. Else the kernel would refuse one of the two.
  static func bothFirst(now: UInt64, wanted: UInt64) -> Bool { wanted >= now }
}

extension LimitFile {
  /// Whether what the kernel says is what is asked, rounding included.
  func matches(_ content: String) -> Bool { AppCgroup.compare(content, self).matches }

  /// Whether the file says already what would be written.
  func holds(_ content: String) -> Bool {
    let value = content.split(separator: "\n", omittingEmptySubsequences: false).first.map(String.init) ?? ""
    switch expected {
    case .bytes(let wanted): return UInt64(value) == wanted
    case .exactly: return value == text
    case .line, .anything:
      // v1 says "no limit" by the largest number of whole pages.
      if text == "-1", let number = UInt64(value) { return number >= UInt64(Int64.max) - 0xFFFF }
      return value == text && isWhole
    }
  }

  /// Whether the file holds one value, and not a line for each device.
  private var isWhole: Bool { !["io.max"].contains(file) && !file.hasSuffix("_device") }

  /// What to write to have `content` again.
  func restoring(_ content: String) -> String {
    guard !isWhole, let device = text.split(separator: " ").first else {
      let value = content.split(separator: "\n").first.map(String.init) ?? ""
      return value.isEmpty ? "\n" : value
    }
    if let line = content.split(separator: "\n").first(where: { $0.split(separator: " ").first == device }) {
      return String(line)
    }
    return file == "io.max" ? "\(device) rbps=max wbps=max riops=max wiops=max" : "\(device) 0"
  }
}

extension Limits {
  /// These limits, but wide enough in CPU time and cores for a child group that has still those of `former`: the kernel lets no child
  /// have more of these than its parent, nor take less from the parent than a child has. Memory and tasks have no such rule.
  package func wide(enoughFor former: Limits) -> Limits {
    var limits = self
    if let own = cpus, let theirs = former.cpus { limits.cpus = max(own, theirs) } else { limits.cpus = nil }
    if let own = cpuset, let theirs = former.cpuset, let union = CPUList("\(own),\(theirs)") {
      limits.cpuset = union.description
    } else {
      limits.cpuset = nil
    }
    return limits
  }
}

extension AppCgroup {
  /// The group that an engine made below this one for the container of this id; nil if it has none.
  package func leaf(named id: String) -> AppCgroup? {
    guard let place = folder(.memory) ?? folder(.pids) ?? v2Folder.map({ ($0, .v2) }),
      // best effort: a group that is gone has no child.
      let child = (try? Self.children(place.path))?.first(where: { $0.contains(id) && !Self.isMonitor($0) })
    else { return nil }
    // crun leaves the unit that systemd made for it as it is, and holds its limits one step below.
    let inner = File.exists("\(child)/container") ? "/container" : ""
    return AppCgroup(
      hierarchy, path: "\(path)/\(child[child.index(after: child.lastIndex(of: "/") ?? child.startIndex)...])\(inner)",
      kind: kind)
  }

  /// The first limit that an engine was asked for and this group does not have, as the kernel says it.
  package func firstDifference(from limits: Limits) -> String? {
    let own: Set<String> = [
      "memory.max", "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "pids.max", "cpu.max", "cpu.cfs_quota_us",
      "cpuset.cpus",
    ]
    for file in files(limits, CPUShare(.normal)) where own.contains(file.file) && file.asked {
      guard let place = folder(file.controller), let text = try? File.text("\(place.path)/\(file.file)") else {
        continue
      }
      if !file.matches(text) { return "\(file.limit): \(file.file) is \(text.filter { $0 != "\n" }), not \(file.text)" }
    }
    return nil
  }
}
