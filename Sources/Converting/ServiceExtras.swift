internal import Model
internal import Policies

/// A service's `deploy`, secrets and configs.
extension ServiceImport {
  mutating func takeDeploy(_ value: Written) {
    for member in value.members ?? [] where !member.key.hasPrefix("x-") {
      switch member.key {
      case "resources": takeResources(member.value)
      case "restart_policy": takeRestart(member.value)
      case "replicas" where member.value.text == "1": break
      case "mode" where member.value.text == "replicated": break
      case "update_config": takeUpdate(member.value)
      case "replicas":
        remark(
          .dropped, member.keyNode, "deploy.replicas", "one policy is one app: import it again with another prefix")
      default:
        remark(.dropped, member.keyNode, "deploy.\(member.key)", "it is for a cluster: this is one host")
      }
    }
  }

  private mutating func takeUpdate(_ value: Written) {
    var parts: [(String, Written)] = []
    for part in value.members ?? [] where !part.key.hasPrefix("x-") {
      switch part.key {
      case "order" where part.value.text == "start-first":
        remark(
          .dropped, part.keyNode, "deploy.update_config.order",
          "start-first is for apps without ports, networks and writable volumes: write it where that is so")
      case "order", "failure_action", "monitor": parts.append((part.key, part.value))
      default: remark(.dropped, part.keyNode, "deploy.update_config.\(part.key)", "one app is updated at a time")
      }
    }
    if !parts.isEmpty { set("update_config", value.made(map: parts)) }
  }

  private mutating func takeResources(_ value: Written) {
    let limits = [("cpus", "cpus"), ("memory", "mem_limit"), ("pids", "pids_limit")]
    for member in value["limits"]?.members ?? [] {
      if let ours = limits.first(where: { $0.0 == member.key })?.1 {
        set(ours, member.value)
      } else {
        remark(.dropped, member.keyNode, "deploy.resources.limits.\(member.key)", "there is no such limit")
      }
    }
    for member in value["reservations"]?.members ?? [] {
      if member.key == "memory" {
        set("mem_reservation", member.value)
      } else {
        remark(
          .dropped, member.keyNode, "deploy.resources.reservations.\(member.key)",
          member.key == "cpus" ? "shares of the CPU follow priority: write priority or cpu_shares" : "write devices")
      }
    }
  }

  private mutating func takeRestart(_ value: Written) {
    let attempts = value["max_attempts"]
    switch value["condition"]?.text ?? "any" {
    case "none": set("restart", value.made("no"))
    case "on-failure": set("restart", value.made("on-failure" + (attempts?.text.map { ":\($0)" } ?? "")))
    default: set("restart", value.made("always"))
    }
    var pairs: [(String, Written)] = []
    // Zero is no window: attempts are then counted for ever, which on-failure:N says.
    for (theirs, ours) in [("delay", "delay"), ("window", "window")] {
      if let part = value[theirs], part.text != "0s", part.text != "0" { pairs.append((ours, part)) }
    }
    if let attempts, value["condition"]?.text != "on-failure" { pairs.append(("max_attempts", attempts)) }
    if !pairs.isEmpty { set("restart_policy", value.made(map: pairs)) }
  }

  /// Secrets and configs as read-only files where Compose shows them.
  mutating func takeFiles(_ kind: String, _ value: Written) {
    for item in value.list ?? [] {
      let name = item.text ?? item["source"]?.text ?? ""
      let given = item["target"]?.text ?? (kind == "secrets" ? name : "/\(name)")
      let target = given.hasPrefix("/") ? given : "/run/secrets/\(given)"
      let definition = project.root[kind]?[name]
      guard let source = hostFile(kind, name, definition) else {
        let why =
          kind == "secrets"
          ? "only secrets that are files can be given" : "only configs with file or content can be given"
        remark(.dropped, item, "\(kind).\(name)", why)
        continue
      }
      for option in ["uid", "gid", "mode"] where item[option] != nil {
        remark(
          .dropped, item[option] ?? item, "\(kind).\(name).\(option)",
          "the file keeps its owner and mode: set them on the host")
      }
      if kind == "secrets" {
        remark(
          .note, item, "\(kind).\(name)", "the file \(source) is shown as it is: the app's user must be able to read it"
        )
      }
      addMount(
        item.made(map: [
          ("type", item.made("bind")), ("source", item.made(source)), ("target", item.made(target)),
          ("read_only", item.made("true")),
        ]))
    }
  }

  private mutating func hostFile(_ kind: String, _ name: String, _ definition: Written?) -> String? {
    if let file = definition?["file"]?.text { return project.place(file) }
    guard kind == "configs", let content = definition?["content"]?.text, isObjectName(name) else { return nil }
    let file = "\(id)-\(name)"
    addContent(Import.File(name: "files/\(file)", text: content, isPrivate: true))
    return "./files/\(file)"
  }
}
