internal import Linux
internal import Model

extension LaunchPlan {
  /// The longest plan, in bytes; environment and made files included.
  package static let maximumBytes = 4 << 20
  private static let version: UInt32 = 0x4153_0004

  /// The plan as bytes, for a sealed memfd.
  package var bytes: [UInt8] {
    var out = ByteWriter()
    out.number(Self.version)
    out.text(app)
    out.number(generation)
    out.text(nonce)
    out.list(membership.folder.map { [$0] } ?? []) { $0.text($1) }
    out.list(membership.files) { $0.text($1) }
    out.text(membership.path)
    out.list(membership.outOfMemoryCounter.map { [$0] } ?? []) { $0.text($1) }
    out.flag(membership.namespaceAtClone)
    out.text(places.sockets)
    out.text(places.runs)
    out.text(places.log)
    out.flag(places.logIsShared)
    write(identity, to: &out)
    out.block(walls.filter)
    out.flag(walls.landlock)
    out.flag(walls.noTCP)
    out.flag(walls.readsProcesses)
    out.list(image.map { [$0] } ?? []) {
      $0.list($1.layers) { $0.text($1) }
      $0.number($1.idBase)
      $0.number($1.size)
    }
    out.list(root) { Self.write($1, to: &$0) }
    out.flag(rootReadOnly)
    write(program, to: &out)
    out.flag(streams.input)
    out.flag(streams.terminal)
    out.number(streams.columns)
    out.number(streams.rows)
    out.list(ports) {
      $0.text($1.address)
      $0.number($1.outside)
      $0.number($1.inside)
    }
    out.list(links) {
      $0.text($1.bridge)
      $0.text($1.outer)
      $0.text($1.inner)
      $0.block($1.hardware)
      $0.number($1.address.value)
      $0.number($1.prefix)
      $0.number($1.gateway?.value ?? 0)
      $0.number($1.sends)
      $0.number($1.receives)
    }
    out.number(logMaximumSize)
    out.number(logMaximumFiles)
    out.list(loader.map { [$0.text] } ?? []) { $0.text($1) }
    out.list(ownFolders) { $0.text($1) }
    return out.bytes
  }

  private func write(_ identity: Identity, to out: inout ByteWriter) {
    out.number(identity.namespaces.rawValue)
    for map in [identity.uidMap, identity.gidMap] {
      out.list(map) {
        $0.number($1.inside)
        $0.number($1.outside)
        $0.number($1.count)
      }
    }
    out.number(identity.uid)
    out.number(identity.gid)
    out.list(identity.groups) { $0.number($1) }
    out.text(identity.hostName)
    out.number(identity.outOfMemoryAdjustment)
    out.number(identity.capabilities)
    out.number(identity.bounding)
    out.flag(identity.noNewPrivileges)
  }

  private func write(_ program: Program, to out: inout ByteWriter) {
    out.number(program.bind)
    out.text(program.relative)
    out.text(program.path)
    out.list(program.arguments) { $0.text($1) }
    out.list(program.environment) { $0.text($1) }
    out.text(program.workingFolder)
    out.list(program.limits) {
      $0.number($1.resource)
      $0.number($1.soft)
      $0.number($1.hard)
    }
    out.list(program.instead) { $0.text($1) }
  }

  private static func write(_ item: RootItem, to out: inout ByteWriter) {
    out.text(item.path)
    switch item.kind {
    case .folder(let mode):
      out.number(UInt8(0))
      out.number(mode)
    case .link(let target):
      out.number(UInt8(1))
      out.text(target)
    case .file(let mode, let bytes):
      out.number(UInt8(2))
      out.number(mode)
      out.block(bytes)
    case .bind(let source, let rules, let folder, let follow):
      out.number(UInt8(3))
      out.text(source)
      out.number(rules.rawValue)
      out.flag(folder)
      out.flag(follow)
    case .memory(let size, let mode, let owner, let rules):
      out.number(UInt8(4))
      out.number(size)
      out.number(mode)
      out.number(owner)
      out.number(rules.rawValue)
    case .processes: out.number(UInt8(5))
    case .notifySocket: out.number(UInt8(6))
    case .writable: out.number(UInt8(7))
    }
  }

  /// Reads a plan back; another version, a cut or a longer one is refused.
  package init(bytes: [UInt8]) throws(MalformedBytes) {
    var input = ByteReader(bytes, "launch plan")
    guard bytes.count <= Self.maximumBytes, try input.number(UInt32.self) == Self.version else { throw input.fail() }
    self.init(app: try input.text(), generation: try input.number(), nonce: try input.text())
    membership.folder = try input.list(Self.readText).first
    membership.files = try input.list(Self.readText)
    membership.path = try input.text()
    membership.outOfMemoryCounter = try input.list(Self.readText).first
    membership.namespaceAtClone = try input.flag()
    places.sockets = try input.text()
    places.runs = try input.text()
    places.log = try input.text()
    places.logIsShared = try input.flag()
    identity = try Self.readIdentity(&input)
    walls.filter = try input.block()
    walls.landlock = try input.flag()
    walls.noTCP = try input.flag()
    walls.readsProcesses = try input.flag()
    image =
      try input.list { (input) throws(MalformedBytes) in
        ImageRoot(layers: try input.list(Self.readText), idBase: try input.number(), size: try input.number())
      }.first
    root = try input.list(Self.readItem)
    rootReadOnly = try input.flag()
    program = try Self.readProgram(&input)
    streams.input = try input.flag()
    streams.terminal = try input.flag()
    streams.columns = try input.number()
    streams.rows = try input.number()
    ports = try input.list { (input) throws(MalformedBytes) in
      Port(address: try input.text(), outside: try input.number(), inside: try input.number())
    }
    links = try input.list { (input) throws(MalformedBytes) in
      var link = Link(
        bridge: try input.text(), outer: try input.text(), inner: try input.text(), hardware: try input.block(),
        address: IPv4(try input.number()), prefix: try input.number(), gateway: nil)
      let gateway = IPv4(try input.number())
      link.gateway = gateway.value == 0 ? nil : gateway
      link.sends = try input.number()
      link.receives = try input.number()
      return link
    }
    logMaximumSize = try input.number()
    logMaximumFiles = try input.number()
    if let text = try input.list(Self.readText).first {
      loader = Policy.Loader(text)
      guard loader != nil else { throw input.fail() }
    }
    ownFolders = try input.list(Self.readText)
    let isInImage = image != nil && program.bind == Program.inImage
    guard input.isAtEnd, isInImage || Int(program.bind) < root.count else { throw input.fail() }
  }

  private static func readText(_ input: inout ByteReader) throws(MalformedBytes) -> String { try input.text() }

  private static func readRange(_ input: inout ByteReader) throws(MalformedBytes) -> IDRange {
    IDRange(inside: try input.number(), outside: try input.number(), count: try input.number())
  }

  private static func readIdentity(_ input: inout ByteReader) throws(MalformedBytes) -> Identity {
    var identity = Identity()
    identity.namespaces = NamespaceKinds(rawValue: try input.number())
    identity.uidMap = try input.list(readRange)
    identity.gidMap = try input.list(readRange)
    identity.uid = try input.number()
    identity.gid = try input.number()
    identity.groups = try input.list { (input) throws(MalformedBytes) in try input.number() }
    identity.hostName = try input.text()
    identity.outOfMemoryAdjustment = try input.number()
    identity.capabilities = try input.number()
    identity.bounding = try input.number()
    identity.noNewPrivileges = try input.flag()
    return identity
  }

  private static func readProgram(_ input: inout ByteReader) throws(MalformedBytes) -> Program {
    var program = Program()
    program.bind = try input.number()
    program.relative = try input.text()
    program.path = try input.text()
    program.arguments = try input.list(readText)
    program.environment = try input.list(readText)
    program.workingFolder = try input.text()
    program.limits = try input.list { (input) throws(MalformedBytes) in
      ResourceLimit(try input.number(), soft: try input.number(), hard: try input.number())
    }
    program.instead = try input.list(readText)
    return program
  }

  private static func readItem(_ input: inout ByteReader) throws(MalformedBytes) -> RootItem {
    let path = try input.text()
    // A plan never leaves its own root, whoever wrote it.
    guard !path.isEmpty, !path.hasPrefix("/"), !path.split(separator: "/").contains("..") else { throw input.fail() }
    switch try input.number(UInt8.self) {
    case 0: return RootItem(path, .folder(mode: try input.number()))
    case 1: return RootItem(path, .link(to: try input.text()))
    case 2: return RootItem(path, .file(mode: try input.number(), bytes: try input.block()))
    case 3:
      return RootItem(
        path,
        .bind(
          source: try input.text(), rules: MountRules(rawValue: try input.number()), folder: try input.flag(),
          follow: try input.flag()))
    case 4:
      return RootItem(
        path,
        .memory(
          size: try input.number(), mode: try input.number(), owner: try input.number(),
          rules: MountRules(rawValue: try input.number())))
    case 5: return RootItem(path, .processes)
    case 6: return RootItem(path, .notifySocket)
    case 7: return RootItem(path, .writable)
    default: throw input.fail()
    }
  }
}
