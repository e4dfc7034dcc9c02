internal import Glibc
internal import Linux
internal import Model

extension MountTable {
  /// Makes the folders behind volumes and the app's own data, and looks whether every other source is there and is what its
  /// path says. Each step is taken from a pinned folder; no link is followed. Safe to repeat.
  package func prepareSources() throws(MountProblem) {
    for entry in entries where !entry.isOurs {
      guard case .path(let path) = entry.source else { continue }
      if let mode = entry.making {
        try make(path, mode, owner: entry.ownerUID)
      } else {
        // Nothing is shown with its own owner that is to be shown with another.
        guard entry.mapped == nil || entry.named != nil else {
          throw .badSource(path, reason: "owner: app needs a supervisor that runs as root")
        }
        let place = try inspect(entry.named ?? path)
        if entry.named != nil { try pin(place, at: path, entry) }
      }
    }
    try inspectRoot()
  }

  /// A root file system shows an app all that lies in it, so it may not hold what a mount may not show. One beside the instance's
  /// policies is fine. Where there is none, whoever launches says so.
  private func inspectRoot() throws(MountProblem) {
    guard let rootfs, let real = try? Place.resolve(rootfs) else { return }
    guard real != "/" else { throw .forbiddenSource(rootfs, because: "it is the whole host") }
    for place in forbidden {
      let isIn = Self.isInside(real, place.path) && place.path != layout.config
      if real == place.path || isIn || Self.isInside(place.path, real) {
        throw .forbiddenSource(rootfs, because: place.because)
      }
    }
  }

  /// `path` is `state/volumes/NAME` or `state/apps/ID/data`: the first part is ours alone, so it is opened as it is.
  private func make(_ path: String, _ mode: UInt32, owner: UInt32?) throws(MountProblem) {
    do throws(SystemFault) {
      let steps = path.dropFirst(layout.state.count).split(separator: "/").map(String.init)
      try Self.makeSteps(try Folder(making: layout.state, mode: 0o700), steps[...], mode, owner)
    } catch {
      throw .notMade(path, reason: error.description)
    }
  }

  private static func makeSteps(
    _ folder: borrowing Folder, _ steps: ArraySlice<String>, _ mode: UInt32, _ owner: UInt32?
  ) throws(SystemFault) {
    guard let name = steps.first else { return }
    let next = try folder.folder(name, making: 0o700)
    guard steps.count == 1 else { return try makeSteps(next, steps.dropFirst(), mode, owner) }
    // One that holds data keeps its owner: its files would not follow.
    guard try next.isEmpty() else { return }
    let path = next.path
    try next.withRaw { (raw) throws(SystemFault) in
      let uid = owner ?? 0
      try check("chown", path) { fchown(raw, uid, uid) }
      try check("chmod", path) { fchmod(raw, mode) }
    }
  }

  /// What is at the path, open.
  private func inspect(_ path: String) throws(MountProblem) -> Descriptor {
    do throws(SystemFault) {
      let place = try Place.open(path, as: loader, [.noLinks, .noMagicLinks])
      let (identity, kind) = try Self.identity(place, path)
      if kind == S_IFSOCK {
        throw SystemFault(call: forbiddenCall, subject: "a socket gives what listens on it", code: EPERM)
      }
      if kind == S_IFBLK || kind == S_IFCHR {
        throw SystemFault(call: forbiddenCall, subject: "it is a device", code: EPERM)
      }
      for forbidden in forbidden {
        // Best effort: a path that is not there cannot be what was opened. Links count here: /var/run leads to /run.
        guard let other = try? Place.open(forbidden.path, []) else { continue }
        if try Self.identity(other, forbidden.path).identity == identity {
          throw SystemFault(call: forbiddenCall, subject: forbidden.because, code: EPERM)
        }
      }
      return place
    } catch {
      switch error.code {
      case EACCES where loader != nil, EPERM where loader != nil && error.call != forbiddenCall:
        throw .badSource(path, reason: "uid \(loader?.uid ?? 0), who loaded the policy, may not read it")
      case ENOENT, ENOTDIR: throw .missingSource(path)
      case ELOOP: throw .linkedSource(path)
      case _ where error.call == forbiddenCall: throw .forbiddenSource(path, because: error.subject)
      default: throw .badSource(path, reason: error.description)
      }
    }
  }

  private var forbiddenCall: String { "compare" }

  private struct Identity: Equatable {
    var device: UInt64
    var inode: UInt64
  }

  private static func identity(_ place: borrowing Descriptor, _ path: String) throws(SystemFault) -> (
    identity: Identity, kind: mode_t
  ) {
    var status = stat()
    try place.withRaw { (raw) throws(SystemFault) in
      _ = try check("stat", path) { fstat(raw, &status) }
    }
    return (Identity(device: UInt64(status.st_dev), inode: UInt64(status.st_ino)), status.st_mode & S_IFMT)
  }
}
