internal import Model

/// What must hold between the fields of one policy.
extension Draft {
  /// Decides the runtime and judges the draft as a whole; before presets are filled in.
  mutating func settle() {
    settleRuntime()
    checkSandbox()
    checkWorkingDirectory()
    checkNetwork()
    checkUser()
    checkEngineObjects()
    checkHealth()
    checkUpdate()
  }

  /// Below /proc lie links to what a runtime has open while it starts the app: one of them as working folder leads to the host.
  private mutating func checkWorkingDirectory() {
    guard let folder = policy.workingDirectory, folder == "/proc" || folder.hasPrefix("/proc/") else { return }
    error(at: "working_dir", "working_dir cannot lie below /proc", hint: "name a folder of the app's own files")
  }

  private mutating func settleRuntime() {
    let decided = runtime ?? (policy.image != nil ? .container : .native)
    policy.runtime = decided
    if runtime == nil, decided == .native, policy.entry.first?.hasSuffix(".wasm") == true {
      error(at: "entry", "WebAssembly modules are not supported yet", hint: "say runtime: native if this is a program")
    }
    if isDotnet, let file = policy.entry.first, file != "dotnet" { policy.entry.insert("dotnet", at: 0) }
    switch decided {
    case .container:
      if policy.image == nil { error(at: "runtime", "a container needs image or build") }
      if policy.rootfs != nil, policy.fallback != .native {
        error(at: "rootfs", "rootfs is a native app's", hint: "or add fallback: native")
      }
    case .native:
      if policy.entry.isEmpty, policy.image == nil {
        error(at: "runtime", "there is nothing to run", hint: "set entry to a program, or image to a container's image")
      }
      checkNativeImage()
      if set.contains("fallback"), policy.fallback == .native {
        warning(at: "fallback", "a native app needs no fallback")
        if policy.image != nil { policy.fallback = .none }
      }
      if policy.user == .image, policy.image == nil { error(at: "user", "user: image needs an image") }
    case .wasm: break
    }
    if decided == .container, policy.fallback == .native {
      if policy.entry.isEmpty, policy.rootfs != nil {
        error(at: "fallback", "fallback: native with rootfs needs entry, a program in it")
      }
      for mount in policy.mounts {
        if case .volume(_, external: true) = mount.kind {
          error(at: "fallback", "an external volume exists only in the engine: there is no native fallback with it")
        }
      }
    }
    for (key, value) in [("entry", policy.entry), ("entrypoint", policy.entrypoint ?? ["-"])] where set.contains(key) {
      if value.first?.isEmpty != false {
        error(at: key, "\(key) names no program", hint: "remove it, or write a program")
      }
      if value.contains(where: { $0.utf8.contains(0) }) { error(at: key, "\(key) holds a NUL character") }
    }
  }

  /// A native app may run from an image that the supervisor's own store has; nothing builds or fetches it there.
  private mutating func checkNativeImage() {
    guard policy.image != nil else {
      if set.contains("entrypoint") {
        error(at: "entrypoint", "entrypoint replaces an image's", hint: "a native app's program is its entry")
      }
      return
    }
    if set.contains("build") {
      error(
        at: "build", "only an engine builds images", hint: "build it there, `images adopt` it, and name it by image")
    }
    if case .reference(_, .always)? = policy.image {
      error(
        at: "pull_policy", "only an engine fetches images",
        hint: "remove it: the image is in the supervisor's store or not")
    }
    if policy.rootfs != nil {
      error(at: "rootfs", "the root is the image or a folder, not both", hint: "remove one of them")
    }
    if policy.preset == .privileged {
      error(
        at: "image", "without a user namespace an image's root would be the host's",
        hint: "use sandbox: standard with user: image, or runtime: container")
    }
  }

  private mutating func checkSandbox() {
    let isPrivileged = policy.preset == .privileged
    if isPrivileged, let allowed = rules.privilegedApps, !allowed.contains(policy.id.name) {
      error(
        at: "sandbox", "sandbox: privileged is not allowed for \(policy.id)",
        hint: "add \(policy.id) to privileged_apps in the daemon's config.yaml")
    }
    for key in unlimited where !isPrivileged {
      error(
        at: key, "\(key): 0 means unlimited, which needs sandbox: privileged", hint: "remove it for the preset's value")
    }
    if policy.limits.oomScoreAdjustment < 500, !isPrivileged {
      error(at: "oom_score_adj", "oom_score_adj below 500 needs sandbox: privileged")
    }
    let preset = PresetValues.of(policy.preset)
    let memory = set.contains("mem_limit") ? policy.limits.memory : preset.memory
    guard let memory else { return }
    let whose = set.contains("mem_limit") ? "mem_limit" : "the preset's mem_limit"
    for (key, value) in [("mem_high", policy.limits.memoryHigh), ("mem_reservation", policy.limits.memoryReservation)] {
      if let value, value > memory { error(at: key, "\(key) is over \(whose), \(memory)") }
    }
    if let both = policy.limits.memoryAndSwap, both < memory {
      error(at: "memswap_limit", "memswap_limit is memory and swap together, and below \(whose), \(memory)")
    }
  }

  private mutating func checkNetwork() {
    let network = policy.network
    let written = set.contains("network_mode") ? places["network_mode"]?.text ?? network.mode.rawValue : nil
    if written == "none", !network.ports.isEmpty {
      error(
        at: "network_mode", "network_mode: none contradicts ports", hint: "remove one of the two; ports imply bridge")
    }
    let isNone = written == "none"
    if isNone, network.egress != nil {
      error(
        at: "network_mode", "network_mode: none contradicts egress",
        hint: "remove one of the two; egress implies bridge")
    }
    if isNone || (network.egress == nil && network.ports.isEmpty && written == nil && network.attachments.isEmpty),
      network.bandwidth != Bandwidth()
    {
      error(at: "bandwidth", "bandwidth has no network to limit", hint: "add network_mode: bridge, or networks")
    }
    if written == "host" {
      for key in ["egress", "bandwidth"] where set.contains(key) {
        error(at: key, "network_mode: host is the host's own network: \(key) would hold the host")
      }
      if policy.preset != .privileged { error(at: "network_mode", "network_mode: host needs sandbox: privileged") }
      if !network.ports.isEmpty {
        error(at: "ports", "network_mode: host has the host's own ports: there is nothing to publish")
      }
      if policy.network.hostname != nil { error(at: "hostname", "network_mode: host has the host's own name") }
    }
    if network.bandwidth.egress != nil, policy.capabilities.add.contains("NET_ADMIN") {
      error(
        at: "bandwidth", "an app with NET_ADMIN could take its own bandwidth limit away", hint: "remove one of the two")
    }
    if written != nil, !network.attachments.isEmpty {
      error(at: "network_mode", "network_mode and networks exclude each other", hint: "remove network_mode")
    }
  }

  private mutating func checkUser() {
    guard policy.runtime == .container else { return }
    let isListed = rules.unsafeHostUIDs?.contains(policy.id.name)
    let hint = "add \(policy.id) to unsafe_host_uids in the daemon's config.yaml, or use user: auto"
    switch policy.user {
    case .auto: break
    case .image:
      let writes = policy.mounts.contains { mount in
        if case .bind = mount.kind { !mount.readOnly } else { false }
      }
      if writes, isListed == false {
        warning(at: "user", "user: image can be the host's root, with writable folders of the host", hint: hint)
      }
    case .given(let uid, _):
      guard uid < rules.uidBase, rules.engineRemapsUsers != true, isListed != true else { return }
      if isListed == false, rules.engineRemapsUsers == false {
        error(at: "user", "uid \(uid) is a user of the host: this engine does not map users", hint: hint)
      } else {
        warning(at: "user", "uid \(uid) is a user of the host where the engine does not map users", hint: hint)
      }
    }
  }

  private mutating func checkEngineObjects() {
    for mount in policy.mounts {
      guard case .volume(let name, external: true) = mount.kind else { continue }
      if policy.runtime != .container {
        error(at: "volumes", "the external volume \(name) is the engine's: only containers can use it")
      }
      if let allowed = rules.externalVolumes, !allowed.contains(name) {
        error(
          at: "volumes", "the external volume \(name) is not allowed",
          hint: "add it to external_volumes in the daemon's config.yaml")
      }
    }
  }
}
