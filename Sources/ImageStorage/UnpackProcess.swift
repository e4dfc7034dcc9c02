internal import Glibc
internal import Linux
internal import Model

/// The process that reads an archive: it holds nothing but the archive, a pipe and the folder it unpacks into, which is its whole root.
///
/// Descriptors: 0 the archive, 1 where it reports (a JSON document a line), 3 the folder. Whoever takes it over by a flaw of the library gets
/// an unprivileged id without network, other files or devices; capabilities over owners and modes are good for that folder alone.
package enum UnpackProcess {
  /// How the daemon starts itself for this.
  package static let argument = "unpack-image"
  /// Names of layers that need not be unpacked, one a line, in the folder.
  static let knownFile = "known"
  /// `HEX/path`, each ended by NUL.
  static let opaqueFile = "opaque"
  /// Chown, DAC override, fowner: to give files the owners and modes that the archive says.
  private static let capabilities: UInt64 = 1 << 0 | 1 << 1 | 1 << 3
  private static let between: Int64 = 100_000_000

  /// Never returns. The caller has one thread.
  package static func run() -> Never {
    let limits = ImageLimits()
    do throws(ImageProblem) {
      do throws(SystemFault) { try confine(limits) } catch {
        throw .failed("the process that unpacks could not be locked in: \(error)")
      }
      let folder = SharedDescriptor(Descriptor(owning: 3))
      var work = Unpacking(into: folder)
      work.limits = limits
      work.known = try known(folder)
      var told: Int64 = 0
      work.heard = { step, done, total in
        let now = Clock.monotonic()
        guard now - told >= between else { return }
        told = now
        report(.object(["step": .string(step), "done": .count(done), "total": .count(total)]))
      }
      let archive = SharedDescriptor(Descriptor(owning: 0))
      let result = try work.run(archive)
      try store(result.opaque, folder)
      report(done(result))
    } catch {
      report(.object(["problem": .string(error.word), "text": .string(error.description)]))
      Children.exitNow(1)
    }
    Children.exitNow(0)
  }

  /// Limits, then the root, then rights, each while what it needs is still there.
  private static func confine(_ limits: ImageLimits) throws(SystemFault) {
    signal(SIGPIPE, SIG_DFL)
    setlocale(LC_CTYPE, "C.UTF-8")
    // RLIMIT_AS, CPU, CORE, NOFILE, NPROC by the kernel's numbers.
    try Privileges.limit(9, soft: limits.memory, hard: limits.memory)
    try Privileges.limit(0, soft: limits.processorSeconds, hard: limits.processorSeconds)
    try Privileges.limit(4, soft: 0, hard: 0)
    try Privileges.limit(7, soft: 64, hard: 64)
    try Namespaces.unshare([.mount, .network, .ipc, .uts])
    try MountView.makePrivate()
    _ = try check("fchdir") { fchdir(3) }
    _ = try check("chroot") { chroot(".") }
    Privileges.setFileMask(0o022)
    // best effort: it is only to be gentle with the apps beside it.
    setpriority(__priority_which_t(PRIO_PROCESS.rawValue), 0, 10)
    try Privileges.lockSecurebits(ambient: false)
    try Privileges.bound(keep: capabilities)
    try Privileges.become(uid: LayerWriter.nobody, gid: LayerWriter.nobody, groups: [])
    try Privileges.setCapabilities(capabilities, ambient: false)
    try Privileges.setNotDumpable()
    try Privileges.setNoNewPrivileges()
    if Landlock.abi > 0 {
      try Landlock.restrict(
        to: [("/", [.readFile, .readFolder, .writeFile, .truncate, .change, .makeCharacterDevice])], noTCP: true)
    }
  }

  private static func known(_ folder: SharedDescriptor) throws(ImageProblem) -> Set<Digest> {
    do throws(SystemFault) {
      let text = try folder.withRaw { (raw) throws(SystemFault) in
        let file = Descriptor(owning: try check("open", knownFile) { openat(raw, knownFile, O_RDONLY | O_NOFOLLOW) })
        return try readAll(file, knownFile, limit: 64 << 20)
      }
      return Set(String(decoding: text, as: UTF8.self).split(separator: "\n").compactMap { Digest($0) })
    } catch { throw .failed("\(error)") }
  }

  private static func store(_ opaque: [Digest: [[UInt8]]], _ folder: SharedDescriptor) throws(ImageProblem) {
    var bytes: [UInt8] = []
    for (layer, paths) in opaque {
      for path in paths { bytes += Array("\(layer.hex)/".utf8) + path + [0] }
    }
    do throws(SystemFault) {
      try folder.withRaw { (raw) throws(SystemFault) in try Place.makeFile(opaqueFile, in: raw, mode: 0o600, bytes) }
    } catch { throw .failed("there is no room left for the list of whiteouts: \(error)") }
  }

  private static func done(_ result: UnpackedArchive) -> JSONValue {
    .object([
      "images": .array(
        result.images.map {
          .object([
            "id": .string($0.id.hex), "names": .array($0.names.map { .string($0) }),
            "layers": .array($0.layers.map { .string($0.hex) }), "size": .count($0.size),
          ])
        }), "left_out": .count(result.leftOut), "foreign_ids": .count(result.foreignIDs),
    ])
  }

  private static func report(_ value: JSONValue) {
    var line: [UInt8] = []
    value.write(to: &line)
    line.append(10)
    // A daemon that is gone ends this process by SIGPIPE; what it leaves is swept by the next one.
    do throws(SystemFault) { try writeAll(1, line[...], "report") } catch { Children.exitNow(1) }
  }
}
