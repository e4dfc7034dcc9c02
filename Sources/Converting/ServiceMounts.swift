internal import Model
internal import Policies

/// A service's volumes, in both forms.
extension ServiceImport {
  mutating func takeVolumes(_ value: Written) {
    var items = self.value("volumes")?.list ?? []
    for item in value.list ?? [] {
      if let mount = item.text.map({ shortVolume($0, item) }) ?? longVolume(item) { items.append(mount) }
    }
    set("volumes", value.made(list: items))
  }

  private mutating func shortVolume(_ text: String, _ node: Written) -> Written? {
    var parts = text.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    if parts.count == 1 {
      let slug = text.map { $0.isLetter || $0.isNumber ? String($0) : "-" }.joined()
      parts = ["\(id)\(slug)", text]
      remark(
        .note, node, "volumes",
        "a volume without a name gets one, so that its data is found again: \(project.name)_\(id)\(slug)")
    }
    guard parts.count <= 3 else { return node }
    let isFolder = ["/", ".", "~"].contains { parts[0].hasPrefix($0) }
    var pairs = mount(isFolder ? "bind" : "volume", parts[0], parts[1], node)
    for option in parts.count == 3 ? parts[2].split(separator: ",") : [] {
      switch option {
      case "ro": pairs.append(("read_only", node.made("true")))
      case "rw", "cached", "delegated", "consistent": break
      case "z", "Z": remark(.dropped, node, "volumes", "SELinux labels are not set: '\(option)' does nothing")
      default: remark(.dropped, node, "volumes", "'\(option)' is not an option of a volume that is supported")
      }
    }
    return node.made(map: pairs)
  }

  private mutating func longVolume(_ node: Written) -> Written? {
    let type = node["type"]?.text ?? "volume"
    guard ["bind", "volume"].contains(type), let source = node["source"] ?? node["src"], let name = source.text else {
      return node
    }
    var pairs = mount(type, name, (node["target"] ?? node["dst"])?.text ?? "", node)
    for member in node.members ?? [] {
      switch member.key {
      case "type", "source", "src", "target", "dst", "consistency": break
      case "bind" where member.value["create_host_path"] != nil:
        let rest = (member.value.members ?? []).filter { $0.key != "create_host_path" }
        if member.value["create_host_path"]?.text == "true" {
          remark(.dropped, member.keyNode, "volumes.bind.create_host_path", "make the folder before the app starts")
        }
        if !rest.isEmpty { pairs.append(("bind", member.value.made(map: rest.map { ($0.key, $0.value) }))) }
      case "read_only" where member.value.isFalse: break
      default: pairs.append((member.key, member.value))
      }
    }
    return node.made(map: pairs)
  }

  private mutating func mount(_ type: String, _ source: String, _ target: String, _ node: Written) -> [(
    String, Written
  )] {
    func bind(_ path: String) -> [(String, Written)] {
      [("type", node.made("bind")), ("source", node.made(project.place(path))), ("target", node.made(target))]
    }
    guard type == "volume" else { return bind(source) }
    switch project.volume(source) {
    case .folder(let path): return bind(path)
    case .ours(let name):
      return [("type", node.made("volume")), ("source", node.made(name)), ("target", node.made(target))]
    case .external(let name):
      remark(.note, node, "volumes", "if \(name) is the engine's own, list it under external_volumes of config.yaml")
      return [
        ("type", node.made("volume")), ("source", node.made(name)), ("target", node.made(target)),
        ("external", node.made("true")),
      ]
    }
  }

  mutating func addMount(_ mount: Written) {
    set("volumes", mount.made(list: (value("volumes")?.list ?? []) + [mount]))
  }

  mutating func addContent(_ file: Import.File) { contents.append(file) }
}
