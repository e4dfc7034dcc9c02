package import Model

/// What a preset gives where the file says nothing; nil: unlimited, or the host's default.
package struct PresetValues: Sendable, Equatable {
  package var memory: Bytes
  package var cpuTime: Duration?
  package var openFiles: UInt64
  /// Processes an app may ask the supervisor for.
  package var spawnedProcesses: Int
  package var pids: UInt64
  package var brokeredConnections: Int
  package var readOnlyRoot: Bool
  /// Size of the `/tmp` in memory.
  package var temporary: Bytes?
  package var dropsCapabilities: Bool

  /// The older manifests' preset ended a run after this much CPU time.
  package static let seedCPUTime: Duration = .seconds(60)

  package static func of(_ preset: Policy.Preset) -> PresetValues {
    switch preset {
    case .minimal:
      PresetValues(
        memory: .mebibytes(128), cpuTime: .seconds(30), openFiles: 64, spawnedProcesses: 1, pids: 32,
        brokeredConnections: 0,
        readOnlyRoot: true, temporary: .mebibytes(16), dropsCapabilities: true)
    case .standard:
      PresetValues(
        memory: .mebibytes(512), cpuTime: nil, openFiles: 1024, spawnedProcesses: 10, pids: 256,
        brokeredConnections: 20,
        readOnlyRoot: true, temporary: .mebibytes(64), dropsCapabilities: true)
    case .privileged:
      PresetValues(
        memory: .mebibytes(2048), cpuTime: nil, openFiles: 4096, spawnedProcesses: 50, pids: 2048,
        brokeredConnections: 100,
        readOnlyRoot: false, temporary: nil, dropsCapabilities: false)
    }
  }
}

extension Draft {
  /// Gives every field that the file leaves open the preset's value.
  mutating func fillPreset() {
    let preset = PresetValues.of(policy.preset)
    if !set.contains("mem_limit") { policy.limits.memory = preset.memory }
    if !set.contains("memswap_limit") { policy.limits.memoryAndSwap = policy.limits.memory }
    if !set.contains("pids_limit") { policy.limits.pids = preset.pids }
    if !set.contains("max_cpu_time") {
      policy.limits.maximumCPUTime =
        isSeedCompatible && policy.preset == .standard ? PresetValues.seedCPUTime : preset.cpuTime
    }
    if !set.contains("shm_size") { policy.limits.shmSize = .mebibytes(64) }
    if !policy.limits.rlimits.contains(where: { $0.name == "nofile" }) {
      policy.limits.rlimits.append(.init(name: "nofile", soft: preset.openFiles, hard: preset.openFiles))
      policy.limits.rlimits.sort { $0.name < $1.name }
    }
    if !set.contains("read_only") { policy.readOnlyRoot = preset.readOnlyRoot }
    if !set.contains("cap_drop") { policy.capabilities.drop = preset.dropsCapabilities ? ["ALL"] : [] }
    if let size = preset.temporary, !policy.mounts.contains(where: { $0.target == "/tmp" }) {
      policy.mounts.append(Mount(target: "/tmp", kind: .memory(size: size, mode: 0o1777)))
    }
    if !set.contains("network_mode"), policy.network.attachments.isEmpty,
      !policy.network.ports.isEmpty || policy.network.egress != nil
    {
      policy.network.mode = .bridge
    }
    for permission in presetPermissions(policy.preset) where !policy.permissions.granted.contains(permission) {
      policy.permissions.granted.append(permission)
    }
    if !set.contains("name") { policy.name = policy.id.name }
  }
}

/// What a policy's preset stands for that this build does not enforce yet, a line each.
package func notInForce(_ policy: Policy) -> [String] {
  let preset = PresetValues.of(policy.preset)
  var lines: [String] = []
  lines.append("processes through proc.spawn (\(preset.spawnedProcesses)): the call does not exist yet")
  if preset.brokeredConnections > 0 {
    lines.append("brokered connections (\(preset.brokeredConnections)): connections are not brokered yet")
  }
  return lines
}
