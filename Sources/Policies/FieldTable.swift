internal import Model

/// Every key of a policy file. The order is that of the canonical document; what others depend on is read first.
let fieldTable: [Field] =
  identityFields + runFields + limitFields + lifecycleFields + updateFields + healthFields + networkFields + fileFields
  + secretFields + deviceFields
  + rightsFields
  + laterFields

/// Keys that are read although they are no fields: older manifests' pairs and labels.
let manifestKeys = ["exePath", "arguments", "compat"] + labelKeys

/// Compose's keys that are refused, with what to do instead.
package let refusedKeys: [String: String] = [
  "cpu_quota": "it is microseconds per period: write cpus, in cores (the alias cpuQuota is percent of one core)",
  "cpu_period": "write cpus, in cores", "cpu_percent": "write cpus, in cores", "cpu_count": "write cpus, in cores",
  "cpu_rt_runtime": "real-time scheduling is not given to apps",
  "cpu_rt_period": "real-time scheduling is not given to apps",
  "mem_swappiness": "write memswap_limit",
  "oom_kill_disable": "an app that cannot be ended can stop the host: write oom_score_adj",
  "privileged": "write sandbox: privileged, and list the app in the daemon's config.yaml",
  "pid": "an app never shares the host's or another app's processes",
  "ipc": "an app never shares the host's or another app's memory this way",
  "uts": "an app has a host name of its own: write hostname",
  "userns_mode": "the supervisor chooses the user namespace",
  "cgroup_parent": "the supervisor places each app in a group of its own",
  "cgroup": "the supervisor places each app in a group of its own",
  "container_name": "the name is made from id", "links": "apps on one of networks find each other by id",
  "external_links": "apps on one of networks find each other by id",
  "expose": "apps on one network reach every port", "volumes_from": "name the volume in both apps",
  "devices_cgroup_rules": "write devices",
  "device_cgroup_rules": "write devices", "domainname": "write hostname", "mac_address": "the engine chooses it",
  "sysctls": "kernel parameters are the host's to set",
  "isolation": "it is for Windows", "credential_spec": "it is for Windows", "runtime_class": "write runtime",
  "platform": "images are of the host's platform",
  "init": "the supervisor reaps processes where it must",
  "deploy": "write the limits as mem_limit, cpus and restart_policy",
  "develop": "up --watch follows files", "extends": "YAML anchors and x- keys share values",
  "services": "a policy is one app: import turns a compose file into policies",
  "annotations": "write labels", "scale": "one policy is one app", "attach": "up follows the logs of what it started",
  "gpus": "devices are listed by path",
  "dns_search": "names are resolved as written", "dns_opt": "names are resolved as the host does",
  "storage_opt": "write disk", "post_start": "write pre_start, or a second app",
  "pre_stop": "write stop_signal and stop_grace_period",
]

/// The canonical keys of a policy, in the table's order, and whether each is supported.
package var policyKeys: [(key: String, isSupported: Bool)] {
  fieldTable.map { ($0.key, $0.status == .supported) }
}

/// The names a person may have meant by an unknown key.
var knownKeys: [String] { fieldTable.map(\.key) + aliases.map(\.key) + manifestKeys }
