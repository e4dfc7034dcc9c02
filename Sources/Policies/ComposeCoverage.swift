/// What becomes of each key of the Compose specification's services, sorted by key: what `policy check --compose-coverage`
/// prints.
package func composeCoverage() -> [(key: String, verdict: String)] {
  let taken = fieldTable.filter { composeKeys.contains($0.key) }.map { field in
    let isLater = field.status != .supported
    return (key: field.key, verdict: isLater ? "not supported yet" : "taken")
  }
  let renamed = [(key: "command", verdict: "translated to entry")]
  let refused = refusedKeys.filter { composeKeys.contains($0.key) }.map {
    (key: $0.key, verdict: "refused: \($0.value)")
  }
  return (taken + renamed + refused).sorted { $0.key < $1.key }
}

/// The attributes of a service in the Compose specification.
package let composeKeys: Set<String> = [
  "annotations", "attach", "blkio_config", "build", "cap_add", "cap_drop", "cgroup", "cgroup_parent", "command",
  "configs",
  "container_name", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_rt_period", "cpu_rt_runtime",
  "cpu_shares", "cpus", "cpuset",
  "credential_spec", "depends_on", "deploy", "develop", "device_cgroup_rules", "devices", "dns", "dns_opt",
  "dns_search", "domainname",
  "entrypoint", "env_file", "environment", "expose", "extends", "external_links", "extra_hosts", "gpus", "group_add",
  "healthcheck", "hostname",
  "image", "init", "ipc", "isolation", "labels", "links", "logging", "mac_address", "mem_limit", "mem_reservation",
  "mem_swappiness",
  "memswap_limit", "network_mode", "networks", "oom_kill_disable", "oom_score_adj", "pid", "pids_limit", "platform",
  "ports", "post_start",
  "pre_start", "pre_stop", "privileged", "profiles", "pull_policy", "read_only", "restart", "runtime", "scale",
  "secrets", "security_opt", "shm_size",
  "stdin_open", "stop_grace_period", "stop_signal", "storage_opt", "sysctls", "tmpfs", "tty", "ulimits", "user",
  "userns_mode", "uts",
  "volumes", "volumes_from", "working_dir",
]
