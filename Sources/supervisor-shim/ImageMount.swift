internal import Glibc
internal import Linux
internal import Sandboxing

/// An image's layers as one root: an overlay of the store's folders, with all that is made or written in it in memory of a fixed size.
///
/// It is put together by the shim, while it is the host's root and nothing of the app exists, in a mount namespace that is gone at once;
/// what comes out hangs nowhere. Each layer is a detached copy of a store's folder, read-only and with its owners shown as the app's own
/// ids, so that no file of an image is ever the host's root's in the app's sight, and nothing of the app's reaches the store.
enum ImageMount {
  private static let rules: MountRules = [.readOnly, .noSetuid, .noDevices]

  static func make(_ image: LaunchPlan.ImageRoot) throws(SystemFault) -> DetachedMount {
    let ids = try Namespaces.users(base: image.idBase)
    var layers: [HeldMount] = []
    for path in image.layers {
      let layer = HeldMount(try DetachedMount(copying: Place.open(path, [.noMagicLinks, .noLinks]), rules, path))
      try layer.mount.mapIDs(by: ids, path)
      layers.append(layer)
    }
    let scaffold = HeldMount(
      try DetachedMount(
        new: "tmpfs", [("size", String(image.size)), ("nr_inodes", "65536"), ("mode", "755")],
        [.noSetuid, .noDevices]))
    return try MountView.aside { () throws(SystemFault) in
      // Any folder will do, as for the root of other apps.
      try scaffold.mount.attach(to: Place.open("/usr", [.noMagicLinks]), "/usr")
      try Privileges.changeFolder(scaffold.mount.duplicate(), "/usr")
      try scaffold.mount.withRaw { (raw) throws(SystemFault) in
        for name in ["root", "upper", "work"] { try Place.makeFolder(name, in: raw, mode: 0o755) }
        _ = try check("chown", "upper") { fchownat(raw, "upper", image.idBase, image.idBase, AT_SYMLINK_NOFOLLOW) }
        for (index, layer) in layers.enumerated() {
          try Place.makeFolder("\(index)", in: raw, mode: 0o755)
          try layer.mount.attach(to: Place.open("\(index)", in: raw, [.beneath, .noLinks]), image.layers[index])
        }
      }
      let lower = layers.indices.map { "\($0)" }.joined(separator: ":")
      // What an image could have written into a layer to lead elsewhere is not followed, and not made.
      try MountView.mountOverlay(
        "root", "lowerdir=\(lower),upperdir=upper,workdir=work,redirect_dir=nofollow,metacopy=off,index=off")
      return try DetachedMount(copying: Place.open("root", [.noLinks]), [.noSetuid, .noDevices], "overlay")
    }
  }

  /// Finds and opens the program as the app would: links lead where they do inside. A name without a slash is looked for in PATH.
  static func program(_ program: LaunchPlan.Program, _ image: HeldMount) throws(SystemFault) -> (
    file: SharedDescriptor, path: String
  ) {
    try image.mount.withRaw { (root) throws(SystemFault) in
      guard !program.path.contains("/") else {
        let path = program.path.hasPrefix("/") ? program.path : "\(program.workingFolder)/\(program.path)"
        return (try open(path, root), path)
      }
      let prefix = "PATH="
      let folders = program.environment.first { $0.hasPrefix(prefix) }?.dropFirst(prefix.count) ?? ""
      for folder in folders.split(separator: ":") where folder.hasPrefix("/") {
        let path = "\(folder)/\(program.path)"
        // What is not there, or no program, is passed over as a shell does.
        if let file = try? open(path, root) { return (file, path) }
      }
      throw SystemFault(call: "PATH", subject: "\(program.path) in the image", code: ENOENT)
    }
  }

  private static func open(_ path: String, _ root: Int32) throws(SystemFault) -> SharedDescriptor {
    let file = try Place.read(path, in: root, [.inRoot, .noMagicLinks])
    try file.withRaw { (raw) throws(SystemFault) in
      var status = stat()
      try check("fstat", path) { fstat(raw, &status) }
      guard status.st_mode & S_IFMT == S_IFREG, status.st_mode & 0o111 != 0 else {
        throw SystemFault(call: "open", subject: path, code: EACCES)
      }
    }
    return SharedDescriptor(file)
  }
}
