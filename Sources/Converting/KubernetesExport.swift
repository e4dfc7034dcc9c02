internal import Model
internal import Policies

/// Policies as Kubernetes manifests, one file an app: a Deployment (or a Job, where it is not restarted), with its Service,
/// NetworkPolicy and claims.
enum KubernetesExport {
  static let table: [String: Said] = [
    "stack": .yes, "mem_reservation": .yes,
    "stop_signal": .no("SIGTERM asks a container to end, or what its image says"),
    "memswap_limit": .no("swap is the node's to set"), "cpu_shares": .no("shares follow the request: write one"),
    "cpuset": .no("cores are the node's to give"), "priority": .no("priorities are objects of the cluster"),
    "pids_limit": .no("the number of tasks is the node's to limit"), "ulimits": .no("there are no limits of processes"),
    "blkio_config": .no("block devices are not limited"), "oom_score_adj": .no("it follows from requests and limits"),
    "shm_size": .yes, "max_runtime": .yes, "max_cpu_time": .no("nothing ends a run by its CPU time"),
    "restart_policy": .no("restarts are spaced by the cluster"), "logging": .no("logs are the node's to keep"),
    "profiles": .no("there are none"), "rootfs": .no("a container has an image"), "healthcheck": .yes,
    "ready": .no("write a readinessProbe by hand"), "pre_start": .no("write init containers by hand"),
    "schedule": .no("write a CronJob by hand"), "template": .no("there are no templates"),
    "instances": .no("there are no templates"), "update_config": .yes, "stdin_open": .yes, "tty": .yes,
    "build": .no("images come from a registry: build and push it"),
    "depends_on": .no("there is no order: apps wait for each other by themselves"),
  ]

  static func export(_ sources: [ExportSource]) -> Export {
    var export = Export()
    for source in sources {
      var losses = Losses(source)
      if let obstacle = source.obstacle {
        losses.add(.dropped, "", "the app is left out: \(obstacle)")
      } else {
        let documents = manifests(source.policy, &losses)
        let text = documents.map { plainYAML($0) }.joined(separator: "---\n")
        export.files.append(
          ("\(name(source.policy.id.name)).yaml", "# By `supervisor export --to kubernetes`.\n" + text))
        losses.addUnsaid(table)
      }
      export.remarks += losses.remarks
    }
    return export
  }

  /// A name of RFC 1123: without `_` and capitals.
  static func name(_ text: String) -> String {
    let letters = text.lowercased().map { $0.isASCII && ($0.isLetter || $0.isNumber) ? String($0) : "-" }.joined()
    let trimmed = letters.drop { $0 == "-" }
    return String(trimmed.reversed().drop { $0 == "-" }.reversed())
  }

  /// YAML without the doubled `$` that policies need.
  private static func plainYAML(_ document: JSONValue) -> String {
    // Nothing else in what is written here can hold two of them in a row by itself: each `$` of a value became two.
    var text = ""
    var isSecond = false
    for character in yamlText(document) {
      if character == "$", isSecond {
        isSecond = false
        continue
      }
      isSecond = character == "$"
      text.append(character)
    }
    return text
  }

  private static func manifests(_ policy: Policy, _ losses: inout Losses) -> [JSONValue] {
    let id = name(policy.id.name)
    if id != policy.id.name { losses.add(.changed, "id", "names have no '_': it is \(id)") }
    let labels = JSONValue.object([
      "app.kubernetes.io/name": .string(id), "app.kubernetes.io/part-of": .string(name(policy.stack)),
    ])
    let selector = JSONValue.object(["app.kubernetes.io/name": .string(id)])
    var documents = claims(policy, &losses)
    documents.append(workload(policy, id, labels, selector, &losses))
    if let service = service(policy, id, labels, selector, &losses) { documents.append(service) }
    if policy.network.mode == .none {
      documents.append(
        .object([
          "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata(id, labels),
          "spec": .object([
            "podSelector": .object(["matchLabels": selector]), "policyTypes": .array(["Ingress", "Egress"]),
          ]),
        ]))
      losses.add(.changed, "network_mode", "a NetworkPolicy closes it, where the cluster enforces those")
    }
    return documents
  }

  private static func metadata(_ name: String, _ labels: JSONValue) -> JSONValue {
    .object(["name": .string(name), "labels": labels])
  }

  private static func claims(_ policy: Policy, _ losses: inout Losses) -> [JSONValue] {
    var documents: [JSONValue] = []
    for mount in policy.mounts {
      guard case .volume(let volume, _) = mount.kind else { continue }
      documents.append(
        .object([
          "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": .object(["name": .string(name(volume))]),
          "spec": .object([
            "accessModes": .array(["ReadWriteOnce"]),
            "resources": .object(["requests": .object(["storage": "1Gi"])]),
          ]),
        ]))
      losses.add(.changed, "volumes", "\(volume) is a claim of 1Gi, and empty: set its size and copy the data")
    }
    return documents
  }

  private static func workload(
    _ policy: Policy, _ id: String, _ labels: JSONValue, _ selector: JSONValue, _ losses: inout Losses
  ) -> JSONValue {
    var pod = podSpec(policy, id, &losses)
    let isJob: Bool
    switch policy.restart {
    case .always, .unlessStopped: isJob = false
    case .no, .onFailure: isJob = true
    }
    pod["restartPolicy"] = isJob ? policy.restart == .no ? "Never" : "OnFailure" : "Always"
    if !isJob, let most = policy.limits.maximumRuntime {
      losses.add(.dropped, "max_runtime", "\(most.compact): only jobs are ended by their time")
    }
    let template = JSONValue.object(["metadata": .object(["labels": labels]), "spec": .object(pod)])
    guard isJob else {
      return .object([
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata(id, labels),
        "spec": .object([
          "replicas": 1,
          "strategy": .object(["type": policy.update.order == .startFirst ? "RollingUpdate" : "Recreate"]),
          "selector": .object(["matchLabels": selector]),
          "template": template,
        ]),
      ])
    }
    var most: UInt32 = 0
    if case .onFailure(let maximum) = policy.restart { most = maximum ?? policy.backoff.maximumAttempts }
    return .object([
      "apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(id, labels),
      "spec": .object([
        "backoffLimit": .count(most),
        "activeDeadlineSeconds": policy.limits.maximumRuntime.map { .integer(Int64($0.seconds.rounded(.up))) },
        "template": template,
      ]),
    ])
  }

  private static func podSpec(_ policy: Policy, _ id: String, _ losses: inout Losses) -> JSONObject {
    var volumes: [JSONValue] = []
    var mounts: [JSONValue] = []
    addMounts(policy, &volumes, &mounts, &losses)
    var container = JSONObject()
    container["name"] = .string(id)
    container["image"] = .string(policy.image?.reference ?? "")
    if case .reference(_, let rule)? = policy.image {
      let words: [ImageSource.PullRule: JSONValue] = [.always: "Always", .never: "Never", .missing: "IfNotPresent"]
      container["imagePullPolicy"] = words[rule]
    }
    // $(NAME) would be replaced by the cluster; the first dollar of two keeps it.
    func text(_ value: String) -> JSONValue {
      .string(value.replacing("$(", with: "$$("))
    }
    if let entrypoint = policy.entrypoint { container["command"] = .array(entrypoint.map(text)) }
    if !policy.entry.isEmpty { container["args"] = .array(policy.entry.map(text)) }
    if policy.opensInput { container["stdin"] = true }
    if policy.terminal { container["tty"] = true }
    if let folder = policy.workingDirectory { container["workingDir"] = .string(folder) }
    if !policy.plainEnvironment.isEmpty {
      container["env"] = .array(
        policy.plainEnvironment.map { .object(["name": .string($0.name), "value": text($0.value)]) })
      losses.add(.note, "environment", "values stand in the manifest: move what is secret into a Secret")
    }
    if !policy.network.ports.isEmpty { container["ports"] = .array(policy.network.ports.map(port)) }
    container["resources"] = resources(policy)
    container["securityContext"] = rights(policy, &losses)
    if !mounts.isEmpty { container["volumeMounts"] = .array(mounts) }
    addProbe(effectiveDocument(policy)["healthcheck"], &container, &losses)
    var pod = JSONObject()
    pod["automountServiceAccountToken"] = false
    pod["terminationGracePeriodSeconds"] = .integer(Int64(policy.stopGrace.seconds.rounded(.up)))
    if policy.network.mode == .host { pod["hostNetwork"] = true }
    if let hostname = policy.network.hostname { pod["hostname"] = .string(name(hostname)) }
    if !policy.network.extraHosts.isEmpty {
      pod["hostAliases"] = .array(
        policy.network.extraHosts.map {
          .object(["ip": .string($0.address), "hostnames": .array([.string($0.name)])])
        })
    }
    if !policy.network.dns.isEmpty {
      pod["dnsPolicy"] = "None"
      pod["dnsConfig"] = .object(["nameservers": .array(policy.network.dns.map { .string($0) })])
    }
    if !policy.supplementaryGroups.isEmpty {
      pod["securityContext"] = .object([
        "supplementalGroups": .array(policy.supplementaryGroups.map { .count($0) })
      ])
    }
    pod["containers"] = .array([.object(container)])
    if !volumes.isEmpty { pod["volumes"] = .array(volumes) }
    return pod
  }

  private static func port(_ port: PublishedPort) -> JSONValue {
    .object([
      "containerPort": .count(port.appPort), "protocol": port.transport == .tcp ? "TCP" : "UDP",
      "hostPort": port.hostPort == 0 ? nil : .count(port.hostPort),
      "hostIP": port.hostPort == 0 ? nil : .string(port.hostAddress),
    ])
  }

  private static func resources(_ policy: Policy) -> JSONValue {
    var limits = JSONObject()
    var requests = JSONObject()
    if let memory = policy.limits.memory { limits["memory"] = .string("\(memory.count)") }
    if let cpus = policy.limits.cpus { limits["cpu"] = .string("\(Int((cpus * 1000).rounded()))m") }
    if let memory = policy.limits.memoryReservation { requests["memory"] = .string("\(memory.count)") }
    return .object([
      "limits": limits.isEmpty ? nil : .object(limits), "requests": requests.isEmpty ? nil : .object(requests),
    ])
  }

  private static func rights(_ policy: Policy, _ losses: inout Losses) -> JSONValue {
    var rights = JSONObject()
    rights["readOnlyRootFilesystem"] = .bool(policy.readOnlyRoot)
    rights["allowPrivilegeEscalation"] = .bool(policy.mayGainPrivileges)
    rights["capabilities"] = .object([
      "drop": .array(policy.capabilities.drop.map { .string($0) }),
      "add": policy.capabilities.add.isEmpty ? nil : .array(policy.capabilities.add.map { .string($0) }),
    ])
    rights["seccompProfile"] = .object([
      "type": policy.securityOptions.contains("seccomp=unconfined") ? "Unconfined" : "RuntimeDefault"
    ])
    switch policy.user {
    case .auto: losses.add(.changed, "user", "there are no ids of an app's own: it is the image's user")
    case .image: break
    case .given(let uid, let gid):
      rights["runAsUser"] = .count(uid)
      rights["runAsGroup"] = .count(gid)
    }
    for option in policy.securityOptions where option.hasPrefix("apparmor=") {
      losses.add(.dropped, "security_opt", "\(option): write appArmorProfile by hand")
    }
    return .object(rights)
  }

  private static func addMounts(
    _ policy: Policy, _ volumes: inout [JSONValue], _ mounts: inout [JSONValue], _ losses: inout Losses
  ) {
    var entries = policy.mounts
    if let size = policy.limits.shmSize {
      entries.append(Mount(target: "/dev/shm", kind: .memory(size: size, mode: nil)))
    }
    for (place, mount) in entries.enumerated() {
      let label = "mount-\(place)"
      var source = JSONObject()
      source["name"] = .string(label)
      switch mount.kind {
      case .volume(let volume, _):
        source["persistentVolumeClaim"] = .object(["claimName": .string(name(volume))])
      case .bind(let path):
        source["hostPath"] = .object(["path": .string(path)])
        losses.add(.changed, "volumes", "\(path) is a folder of whichever node the app runs on")
      case .memory(let size, let mode):
        source["emptyDir"] = .object(["medium": "Memory", "sizeLimit": .string("\(size.count)")])
        if let mode, mode != 0o1777, mode != 0o777 {
          losses.add(.changed, "tmpfs", "\(mount.target) has mode 0777 there")
        }
      }
      volumes.append(.object(source))
      mounts.append(
        .object([
          "name": .string(label), "mountPath": .string(mount.target), "readOnly": mount.readOnly ? true : nil,
        ]))
    }
  }

  private static func service(
    _ policy: Policy, _ id: String, _ labels: JSONValue, _ selector: JSONValue, _ losses: inout Losses
  ) -> JSONValue? {
    var aliases: Set<String> = []
    for attachment in policy.network.attachments { aliases.formUnion(attachment.aliases) }
    if !aliases.subtracting([policy.id.name]).isEmpty {
      losses.add(.dropped, "networks", "aliases: an app has its own name only")
    }
    if !policy.network.attachments.isEmpty {
      losses.add(.changed, "networks", "every app of the cluster reaches it: write NetworkPolicies")
    }
    guard policy.network.mode != .none, policy.network.mode != .host else { return nil }
    var spec = JSONObject()
    spec["selector"] = selector
    if policy.network.ports.isEmpty {
      // Without ports it is a name only, which finds the pod itself.
      guard policy.network.mode == .named else { return nil }
      spec["clusterIP"] = "None"
    } else {
      spec["ports"] = .array(
        policy.network.ports.map { port in
          let label = "\(port.transport.rawValue)-\(port.appPort)"
          return .object([
            "name": .string(label), "port": .count(port.appPort), "protocol": port.transport == .tcp ? "TCP" : "UDP",
          ])
        })
    }
    return .object([
      "apiVersion": "v1", "kind": "Service", "metadata": metadata(id, labels), "spec": .object(spec),
    ])
  }

  private static func addProbe(_ check: JSONValue?, _ container: inout JSONObject, _ losses: inout Losses) {
    guard let check = check?.objectValue, !check.isEmpty, check["disable"] != .bool(true) else { return }
    var probe = JSONObject()
    func seconds(_ key: String) -> JSONValue? {
      check[key]?.stringValue.flatMap { Duration(parsing: $0) }.map { .integer(max(1, Int64($0.seconds.rounded(.up)))) }
    }
    if let test = check["test"] {
      let words = test.arrayValue?.compactMap(\.stringValue) ?? [test.stringValue ?? ""]
      let command: [String] =
        switch words.first {
        case "CMD": Array(words.dropFirst())
        case "CMD-SHELL": ["/bin/sh", "-c"] + words.dropFirst()
        default: test.arrayValue == nil ? ["/bin/sh", "-c"] + words : words
        }
      probe["exec"] = .object(["command": .array(command.map { .string($0) })])
    } else if let http = check["http"] {
      probe["httpGet"] = .object(["port": http["port"], "path": http["path"] ?? "/"])
    } else if let tcp = check["tcp"] {
      probe["tcpSocket"] = .object(["port": tcp["port"]])
    } else {
      return
    }
    probe["periodSeconds"] = seconds("interval")
    probe["timeoutSeconds"] = seconds("timeout")
    probe["failureThreshold"] = check["retries"]
    container["readinessProbe"] = .object(probe)
    if check["on_failure"] == "restart" {
      probe["initialDelaySeconds"] = seconds("start_period")
      container["livenessProbe"] = .object(probe)
    } else {
      losses.add(.note, "healthcheck", "it decides readiness; an unhealthy app is not restarted")
    }
  }
}
