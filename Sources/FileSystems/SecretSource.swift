internal import Glibc
internal import Linux
internal import Model

/// Why a secret cannot be given to its app. The text is for the user and never holds any of its content.
package enum SecretProblem: Error, Sendable, Equatable, CustomStringConvertible {
  case missing(name: String, path: String)
  case linked(name: String, path: String)
  case notAFile(name: String, path: String)
  case tooBig(name: String, path: String)
  /// Others than who names it could have put it there, or read it.
  case exposed(name: String, because: String, fix: String)
  case denied(name: String, path: String, uid: UInt32)
  case noCredentials(name: String)
  case notRoots(name: String)
  case notText(name: String)
  case notDelivered(reason: String)

  package var description: String {
    switch self {
    case .missing(let name, let path):
      "the secret \(name) is not there: \(path) does not exist; make it, readable only by its owner"
    case .linked(let name, let path):
      "the secret \(name) is reached through a symbolic link: write the path that \(path) leads to"
    case .notAFile(let name, let path): "the secret \(name) is refused: \(path) is not a regular file"
    case .tooBig(let name, let path):
      "the secret \(name) is refused: \(path) is larger than \(SecretSource.mostBytes >> 10) KiB"
    case .exposed(let name, let because, let fix): "the secret \(name) is refused: \(because): \(fix)"
    case .denied(let name, let path, let uid):
      "the secret \(name) is refused: uid \(uid), who loaded the policy, may not read \(path)"
    case .noCredentials(let name):
      "the secret \(name) is a credential, and systemd gave the daemon none: add LoadCredential= to its unit"
    case .notRoots(let name):
      "the secret \(name) is a credential of the daemon's, which only a policy that root loads may name: use file"
    case .notText(let name):
      "the secret \(name) cannot be a variable: it holds a zero byte, or is longer than 128 KiB; use its file"
    case .notDelivered(let reason): "the secrets could not be put into memory: \(reason)"
    }
  }
}

/// A secret's content, read once through one descriptor that was looked at before.
enum SecretSource {
  /// Of one secret, as systemd's credentials.
  static let mostBytes = 1 << 20

  /// Reads it with the rights of `loader`. Every step of its path is opened on its own, so that each can be judged, and none is a link:
  /// who could change any of them could give another file.
  static func read(_ secret: Secret, _ layout: InstanceLayout, _ loader: Policy.Loader?) throws(SecretProblem)
    -> [UInt8]
  {
    let path = try path(of: secret, layout, loader)
    do throws(SystemFault) {
      return try FileIdentity.with(loader) { () throws(SystemFault) in
        let file = try Judge(secret.name, path, loader).open()
        return try file.withRaw { (raw) throws(SystemFault) in
          try readAll(raw, path, limit: mostBytes)
        }
      }
    } catch {
      throw problem(secret.name, path, loader, error)
    }
  }

  private static func path(of secret: Secret, _ layout: InstanceLayout, _ loader: Policy.Loader?)
    throws(SecretProblem) -> String
  {
    switch secret.origin {
    case .instance: return "\(layout.config)/secrets/\(secret.name)"
    case .file(let path): return path
    case .credential(let name):
      guard loader == nil else { throw .notRoots(name: secret.name) }
      guard let folder = getenv("CREDENTIALS_DIRECTORY").map({ String(cString: $0) }), folder.hasPrefix("/") else {
        throw .noCredentials(name: secret.name)
      }
      return "\(folder)/\(name)"
    }
  }

  private static func problem(_ name: String, _ path: String, _ loader: Policy.Loader?, _ fault: SystemFault)
    -> SecretProblem
  {
    switch fault.code {
    case ENOENT, ENOTDIR: .missing(name: name, path: path)
    case ELOOP: .linked(name: name, path: path)
    case EFBIG: .tooBig(name: name, path: path)
    case ENOTSUP where fault.call == Judge.call: .notAFile(name: name, path: path)
    case EPERM where fault.call == Judge.call:
      .exposed(
        name: name, because: fault.subject,
        fix:
          "it must belong to \(loader == nil ? "root" : "who loads the policy, or root"), and no other write or read it"
      )
    case EACCES: .denied(name: name, path: path, uid: loader?.uid ?? geteuid())
    default: .notDelivered(reason: "\(name): \(fault)")
    }
  }
}

/// Walks to a file and refuses what others than its owner could have chosen.
private struct Judge {
  static let call = "judge"
  let path: String
  let trusted: Set<UInt32>
  let groups: Set<UInt32>

  init(_ name: String, _ path: String, _ loader: Policy.Loader?) {
    self.path = path
    trusted = Set([0, geteuid()] + (loader.map { [$0.uid] } ?? []))
    groups = Set([0] + (loader.map { [$0.gid] } ?? [getegid()]))
  }

  func open() throws(SystemFault) -> Descriptor {
    let steps = path.split(separator: "/").map(String.init)
    var folder = try Place.open("/", [])
    var walked = ""
    for step in steps.dropLast() {
      let isLast = walked.split(separator: "/").count + 2 == steps.count
      let next = try folder.withRaw { (raw) throws(SystemFault) in
        try Place.open(step, in: raw, [.noLinks, .noMagicLinks, .beneath])
      }
      walked += "/\(step)"
      try judgeFolder(next, walked, isLast: isLast)
      folder = next
    }
    let place = try folder.withRaw { (raw) throws(SystemFault) in
      try Place.open(steps.last ?? ".", in: raw, [.noLinks, .noMagicLinks, .beneath])
    }
    try judgeFile(place)
    // The very file that was judged: its name may stand for another by now.
    return try place.withRaw { (raw) throws(SystemFault) in try Place.read("/proc/self/fd/\(raw)", in: AT_FDCWD, []) }
  }

  private func status(_ place: borrowing Descriptor) throws(SystemFault) -> stat {
    var status = stat()
    let path = path
    try place.withRaw { (raw) throws(SystemFault) in _ = try check("fstat", path) { fstat(raw, &status) } }
    return status
  }

  private func refuse(_ why: String) -> SystemFault { SystemFault(call: Self.call, subject: why, code: EPERM) }

  private func judgeFolder(_ place: borrowing Descriptor, _ walked: String, isLast: Bool) throws(SystemFault) {
    let status = try status(place)
    guard status.st_mode & S_IFMT == S_IFDIR else { throw SystemFault(call: "open", subject: path, code: ENOTDIR) }
    guard trusted.contains(status.st_uid) else { throw refuse("the folder \(walked) belongs to uid \(status.st_uid)") }
    let othersWrite = status.st_mode & S_IWOTH != 0
    let groupWrites = status.st_mode & S_IWGRP != 0 && !groups.contains(status.st_gid)
    // In a sticky one above, nobody can rename what is another's; and what is next is judged as well.
    let isHeld = status.st_mode & S_ISVTX != 0 && !isLast
    if othersWrite || groupWrites, !isHeld { throw refuse("others can write to the folder \(walked)") }
  }

  private func judgeFile(_ place: borrowing Descriptor) throws(SystemFault) {
    let status = try status(place)
    guard status.st_mode & S_IFMT == S_IFREG else { throw SystemFault(call: Self.call, subject: path, code: ENOTSUP) }
    guard trusted.contains(status.st_uid) else { throw refuse("\(path) belongs to uid \(status.st_uid)") }
    guard status.st_mode & 0o007 == 0 else { throw refuse("everybody can reach \(path)") }
    guard status.st_mode & S_IWGRP == 0 || groups.contains(status.st_gid) else {
      throw refuse("a group can write to \(path)")
    }
    guard status.st_size <= SecretSource.mostBytes else {
      throw SystemFault(call: "read", subject: path, code: EFBIG)
    }
  }
}
