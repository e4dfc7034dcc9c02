internal import Model

/// A key of older manifests or of Compose that stands for one of ours.
struct Alias: Sendable {
  var key: String
  /// The key it stands for.
  var canonical: String
  var doc: String
  var form: Form
  /// The value for the canonical key; nil: nothing is set (a warning may say why).
  var translate: @Sendable (Written, inout Draft) -> Written?
}

let aliases: [Alias] = [
  Alias(key: "command", canonical: "entry", doc: "Compose's name of entry", form: .command) { node, _ in node },
  count("memoryLimitMb", "mem_limit", "mem_limit in MiB", most: 1 << 30) { "\($0)m" },
  count("maxProcesses", "pids_limit", "pids_limit", most: 4_194_304) { "\($0)" },
  Alias(key: "cpuQuota", canonical: "cpus", doc: "cpus in percent of one core", form: .decimal(0...409_600)) {
    node, draft in
    guard let percent = node.text.flatMap({ Double($0) }), percent > 0 else { return presetInstead(node, &draft) }
    if percent <= 1 {
      draft.findings.warning(
        node, "cpuQuota is in percent of one core: \(short(percent)) is very little",
        hint: "one core is 100; or write cpus: \(short(percent))")
    }
    return node.with(text: short(percent / 100))
  },
  Alias(key: "networkAllowed", canonical: "network_mode", doc: "true: network_mode bridge", form: .boolean) { node, _ in
    node.with(text: node.text == "true" ? "bridge" : "none")
  },
  count("maxRuntimeSeconds", "max_runtime", "max_runtime in seconds", most: 1 << 31) { "\($0)s" },
  Alias(key: "sandboxed", canonical: "sandbox", doc: "false: sandbox privileged", form: .boolean) { node, _ in
    node.with(text: node.text == "true" ? "standard" : "privileged")
  },
]

/// Older manifests' keys that are kept for people and programs to read.
let labelKeys = ["background", "tileSize", "minApiVersion"]

private func count(
  _ key: String, _ canonical: String, _ doc: String, most: Int64, _ text: @escaping @Sendable (Int64) -> String
) -> Alias {
  Alias(key: key, canonical: canonical, doc: doc, form: .whole(0...most)) { node, draft in
    guard let count = node.text.flatMap({ Form.whole($0) }), count > 0 else { return presetInstead(node, &draft) }
    return node.with(text: text(count))
  }
}

private func presetInstead(_ node: Written, _ draft: inout Draft) -> Written? {
  draft.findings.warning(node, "0 in an older manifest means the preset's value", hint: "remove the key")
  return nil
}
