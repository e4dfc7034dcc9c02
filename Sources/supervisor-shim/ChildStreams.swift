internal import Glibc
internal import Linux
internal import Model
internal import Sandboxing

/// Both ends of an app's standard streams: pipes, or one terminal.
struct ChildStreams {
  /// The app's. No input: it stays as the shim's is, empty.
  var input: SharedDescriptor?
  var output: SharedDescriptor?
  var errors: SharedDescriptor?
  /// The shim's.
  var readOutput: SharedDescriptor
  var readErrors: SharedDescriptor?
  var writeInput: SharedDescriptor?
  var terminal: SharedDescriptor?
  var relay: SharedDescriptor?

  init(_ plan: LaunchPlan) throws(SystemFault) {
    let (reading, writing) = try Self.pipe()
    readOutput = reading
    guard !plan.streams.terminal else {
      let owner = Self.owner(plan.identity)
      let pair = try PseudoTerminal(
        TerminalSize(columns: plan.streams.columns, rows: plan.streams.rows), owner: owner)
      (input, output, errors) = (pair.slave, pair.slave, pair.slave)
      (terminal, writeInput, relay) = (pair.master, pair.master, writing)
      return
    }
    output = writing
    (readErrors, errors) = try Self.pipe()
    if plan.streams.input {
      var pipe = try Pipe(nonBlockingRead: false)
      guard let reading = pipe.reading.take(), let writing = pipe.writing.take() else {
        throw SystemFault(call: "pipe", subject: "", code: EBADF)
      }
      (input, writeInput) = (SharedDescriptor(reading), SharedDescriptor(writing))
    }
  }

  /// Without the app's ends, whose end the shim waits for.
  consuming func parents() -> ChildStreams {
    (input, output, errors) = (nil, nil, nil)
    return self
  }

  private static func pipe() throws(SystemFault) -> (reading: SharedDescriptor, writing: SharedDescriptor) {
    var pipe = try Pipe(size: 1 << 20, nonBlockingRead: true)
    guard let reading = pipe.reading.take(), let writing = pipe.writing.take() else {
      throw SystemFault(call: "pipe", subject: "", code: EBADF)
    }
    return (SharedDescriptor(reading), SharedDescriptor(writing))
  }

  /// Whom the terminal belongs to on the host, so that a program can open it again by its descriptor's name.
  private static func owner(_ identity: LaunchPlan.Identity) -> (uid: UInt32, gid: UInt32) {
    func outside(_ id: UInt32, _ map: [LaunchPlan.IDRange]) -> UInt32 {
      map.first { $0.inside <= id && id - $0.inside < $0.count }.map { $0.outside + id - $0.inside } ?? id
    }
    return (outside(identity.uid, identity.uidMap), outside(identity.gid, identity.gidMap))
  }
}
