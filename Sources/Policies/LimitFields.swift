internal import Model

/// What the kernel holds an app to.
let limitFields: [Field] = [
  sizeLimit("mem_limit", "Memory the app may have", \.memory),
  sizeLimit("mem_high", "Memory from which the kernel slows the app and reclaims", \.memoryHigh),
  sizeLimit("mem_reservation", "Memory that is protected while others take theirs", \.memoryReservation),
  Field(
    "memswap_limit", "Memory and swap together; default: mem_limit, so no swap", signedSize, .inPlace,
    read: { node, draft in
      draft.policy.limits.memoryAndSwap = readSize(
        node.text == "-1" ? node.with(text: "0") : node, "memswap_limit", &draft)
    },
    show: { .string($0.limits.memoryAndSwap?.description ?? "0") }),
  Field(
    "cpus", "Hard ceiling in cores; default: a share only", .decimal(0...4096), .inPlace,
    read: { node, draft in
      let cpus = node.text.flatMap { Double($0) } ?? 0
      if cpus > 0, cpus < 0.01 { draft.findings.error(node, "cpus is at least 0.01") }
      draft.policy.limits.cpus = cpus > 0 ? cpus : nil
      if cpus == 0 { draft.unlimited.append("cpus") }
    }, show: { $0.limits.cpus.map { .decimal($0) } }),
  Field(
    "cpu_shares", "Relative share on Docker's scale; default: from priority", .whole(2...262_144), .inPlace,
    read: { $1.policy.limits.cpuShares = $0.text.flatMap { UInt64($0) } },
    show: { $0.limits.cpuShares.map { .count($0) } }),
  Field(
    "cpuset", "Cores the app may run on, as 0-1,3",
    .checked(said: "a list of cores such as 0-1,3", pattern: "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$", isCPUSet),
    .inPlace, read: { $1.policy.limits.cpuset = $0.text }, show: { $0.limits.cpuset.map { .string($0) } }),
  Field(
    "pids_limit", "Tasks (processes and threads) the app may have", .whole(-1...4_194_304), .inPlace,
    read: { node, draft in
      let count = node.text.flatMap { Int64($0) } ?? 0
      draft.policy.limits.pids = count > 0 ? UInt64(count) : nil
      if count <= 0 { draft.unlimited.append("pids_limit") }
    }, show: { .count($0.limits.pids ?? 0) }),
  Field(
    "ulimits", "Limits of each process, as setrlimit(2) has them", ulimitsForm, read: readUlimits, show: showUlimits),
  Field("blkio_config", "Weight and ceilings of block devices", blockForm, .inPlace, read: readBlock, show: showBlock),
  Field(
    "oom_score_adj", "Who is ended first when the host runs out of memory; below 500 only privileged", .whole(0...1000),
    read: { $1.policy.limits.oomScoreAdjustment = $0.text.flatMap { Int32($0) } ?? 500 },
    show: { .count($0.limits.oomScoreAdjustment) }),
  Field(
    "shm_size", "Size of /dev/shm", .size,
    read: { node, draft in
      draft.policy.limits.shmSize = node.text.flatMap { Bytes(parsing: $0) }
      if draft.policy.limits.shmSize?.count == 0 { draft.findings.error(node, "shm_size cannot be 0") }
    }, show: { $0.limits.shmSize.map { .string($0.description) } }),
  Field(
    "max_runtime", "A run is ended after this; 0: never", .duration, .inPlace,
    read: {
      $1.policy.limits.maximumRuntime = $0.text.flatMap { Duration(parsing: $0) }.flatMap { $0 > .zero ? $0 : nil }
    },
    show: { .string($0.limits.maximumRuntime?.compact ?? "0s") }),
  Field(
    "max_cpu_time", "A run is ended after this much CPU time of all its tasks; 0: never", .duration, .inPlace,
    read: { node, draft in
      let time = node.text.flatMap { Duration(parsing: $0) } ?? .zero
      draft.policy.limits.maximumCPUTime = time > .zero ? time : nil
    }, show: { .string($0.limits.maximumCPUTime?.compact ?? "0s") }),
  Field(
    "priority", "CPU class: 0 to 10, or a name", priorityForm, .inPlace,
    read: { $1.policy.priority = readPriority($0.text ?? "") ?? .normal },
    show: { .count($0.priority.value) }),
  Field(
    "scheduling", "How the app shares its cores",
    .either(
      [.word(classes), .object([.init("class", .word(classes), "fair, batch or round-robin", required: true)])],
      said: "a class, or {class: fair}"),
    .inPlace,
    read: { node, draft in
      let word = node.text ?? node["class"]?.text ?? ""
      draft.policy.schedulingClass = Policy.SchedulingClass(rawValue: word) ?? .fair
      if draft.policy.schedulingClass == .roundRobin {
        draft.findings.error(
          node, "scheduling round-robin is not supported yet", hint: "fair and batch work; taking turns comes later")
      }
    }, show: { .object(["class": .string($0.schedulingClass.rawValue)]) }),
]

private let classes = ["fair", "batch", "round-robin"]
private let signedSize = Form.either([.size, .word(["-1"])], said: "a size such as 256m")
/// The Engine refuses less.
let smallestMemory = Bytes.mebibytes(6)

private func sizeLimit(_ key: String, _ doc: String, _ path: any WritableKeyPath<Limits, Bytes?> & Sendable) -> Field {
  Field(
    key, doc, signedSize, .inPlace,
    read: { node, draft in draft.policy.limits[keyPath: path] = readSize(node, key, &draft) },
    show: { policy in
      if let size = policy.limits[keyPath: path] { return .string(size.description) }
      return key == "mem_limit" ? "0" : nil
    })
}

private func readSize(_ node: Written, _ key: String, _ draft: inout Draft) -> Bytes? {
  guard let size = node.text.flatMap({ Bytes(parsing: $0) }) else {
    draft.findings.error(node, "\(key) is a size such as 256m", hint: "0 means unlimited")
    return nil
  }
  guard size.count > 0 else {
    draft.unlimited.append(key)
    return nil
  }
  if size < smallestMemory, key == "mem_limit" || key == "memswap_limit" {
    draft.findings.error(
      node, "\(key) is at least \(smallestMemory)",
      hint: size.count < 4096 ? "a bare number is bytes: did you mean \(size.count)m?" : nil)
  }
  return size
}

/// `0-1,3`: whole numbers below 8192, ranges upwards.
@Sendable func isCPUSet(_ text: String) -> Bool {
  guard !text.isEmpty, text.utf8.count <= 1024 else { return false }
  return text.split(separator: ",", omittingEmptySubsequences: false).allSatisfy { part in
    let ends = part.split(separator: "-", omittingEmptySubsequences: false).map { Form.whole(String($0)) }
    guard let first = ends.first ?? nil, (0..<8192).contains(first), ends.count <= 2 else { return false }
    guard ends.count == 2 else { return true }
    guard let last = ends[1] else { return false }
    return first <= last && last < 8192
  }
}

private let priorityForm = Form.either(
  [.whole(0...10), .word(Priority.names.map(\.name))], said: "0 to 10, or idle, low, normal, high, critical")

private func readPriority(_ text: String) -> Priority? {
  Priority.names.first { $0.name == text }?.value ?? Int(text).flatMap { Priority($0) }
}

private let rlimitNames = [
  "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
  "rttime",
  "sigpending", "stack",
]

private let ulimitsForm: Form = {
  let value = Form.either([.whole(-1 ... .max), .word(["unlimited"])], said: "a whole number, -1 or unlimited")
  let both = Form.object([
    .init("soft", value, "What a process starts with", required: true),
    .init("hard", value, "How far it may raise it", required: true),
  ])
  return .object(
    rlimitNames.map {
      .init($0, .either([value, both], said: "a number, or {soft, hard}"), "RLIMIT_\($0.uppercased())")
    })
}()

private func readRlimit(_ node: Written?) -> UInt64 {
  guard let text = node?.text, let value = Form.whole(text), value >= 0 else { return .max }
  return UInt64(value)
}

@Sendable private func readUlimits(_ node: Written, _ draft: inout Draft) {
  var limits: [Limits.ResourceLimit] = []
  for member in node.members ?? [] where !member.key.hasPrefix("x-") {
    let soft = readRlimit(member.value.text == nil ? member.value["soft"] : member.value)
    let hard = readRlimit(member.value.text == nil ? member.value["hard"] : member.value)
    if soft > hard { draft.findings.error(member.value, "the soft limit is over the hard one") }
    if member.key == "nofile", hard > 1_048_576 { draft.findings.error(member.value, "nofile is at most 1048576") }
    limits.append(Limits.ResourceLimit(name: member.key, soft: soft, hard: hard))
  }
  draft.policy.limits.rlimits = limits.sorted { $0.name < $1.name }
}

@Sendable private func showUlimits(_ policy: Policy) -> JSONValue? {
  func number(_ value: UInt64) -> JSONValue { Int64(exactly: value).map { .integer($0) } ?? .integer(-1) }
  return .map(policy.limits.rlimits.map { ($0.name, .object(["soft": number($0.soft), "hard": number($0.hard)])) })
}

private let blockForm: Form = {
  let path = Form.checked(said: "a device such as /dev/vda", pattern: "^/dev/") {
    $0.hasPrefix("/dev/") && isTarget($0)
  }
  func rates(_ form: Form) -> Form {
    .list(
      .object([.init("path", path, "The device", required: true), .init("rate", form, "A second", required: true)]))
  }
  return .object([
    .init("weight", .whole(10...1000), "Share of the devices"),
    .init("device_read_bps", rates(.size), "Bytes read"),
    .init("device_write_bps", rates(.size), "Bytes written"),
    .init("device_read_iops", rates(.whole(1 ... .max)), "Reads"),
    .init("device_write_iops", rates(.whole(1 ... .max)), "Writes"),
    .init("weight_device", .list(.anything), "Share of one device", later: "a weight for each device"),
  ])
}()

private let blockRates:
  [(
    key: String, path: any WritableKeyPath<Limits.BlockLimits, [Limits.BlockLimits.DeviceRate]> & Sendable, isSize: Bool
  )] = [
    ("device_read_bps", \.readBytesPerSecond, true), ("device_write_bps", \.writeBytesPerSecond, true),
    ("device_read_iops", \.readOperationsPerSecond, false), ("device_write_iops", \.writeOperationsPerSecond, false),
  ]

@Sendable private func readBlock(_ node: Written, _ draft: inout Draft) {
  var block = Limits.BlockLimits()
  block.weight = node["weight"]?.text.flatMap { UInt16($0) }
  for (key, path, _) in blockRates {
    for entry in node[key]?.list ?? [] {
      guard let device = entry["path"]?.text, let rate = entry["rate"]?.text.flatMap({ Bytes(parsing: $0) }) else {
        continue
      }
      if rate.count == 0 { draft.findings.error(entry, "a rate of 0 would stop the app") }
      block[keyPath: path].append(.init(path: device, rate: rate.count))
    }
  }
  draft.policy.limits.block = block
}

@Sendable private func showBlock(_ policy: Policy) -> JSONValue? {
  let block = policy.limits.block
  guard !block.isEmpty else { return nil }
  var object = JSONObject()
  object["weight"] = block.weight.map { .count($0) }
  for (key, path, isSize) in blockRates where !block[keyPath: path].isEmpty {
    object[key] = .array(
      block[keyPath: path].map {
        .object(["path": .string($0.path), "rate": isSize ? .string(Bytes($0.rate).description) : .count($0.rate)])
      })
  }
  return .object(object)
}
