internal import FileSystems
internal import Linux
internal import Model
internal import RPC

typealias FileJobMaker = @Sendable (Caller, Arguments) throws(RPCFailure) -> FileJob

/// A call on files, which asks for its rights on what its arguments name.
func fileCall(
  _ name: String, _ aliases: [String] = [], _ arguments: [Call.Argument], _ right: Right?, _ summary: String,
  _ make: @escaping FileJobMaker
) -> Call {
  Call(
    name: name, aliases: aliases, arguments: arguments, right: right, judgesItself: true, summary: summary
  ) { (interface, caller, arguments) throws(RPCFailure) in
    try interface.begin(try make(caller, arguments), name, caller, arguments)
  }
}

private let path = Call.Argument("path", .text)
private let mode = Call.Argument("mode", .number, required: false)
let encoding = Call.Argument("encoding", .text, required: false)

/// fs: what is in files. Paths are the app's own view; one without a slash in front begins at `fs.getcwd`.
let fileCalls: [Call] = [
  fileCall(
    "fs.read", ["ReadFile"],
    [path, .init("offset", .number, required: false), .init("length", .number, required: false)], .fileRead,
    "what is in a file, at most 2 MiB at once; `encoding` of the answer says whether `data` is utf8 or base64"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let offset = try arguments.place("offset") ?? 0
    let length = try arguments.length("length")
    let most = arguments.mostBytes
    return FileJob([(.fileRead, path)], isLarge: true) { (files) throws(FileProblem) in
      try files.read(path, offset: offset, length: length, most: most)
    }
  },
  fileCall(
    "fs.write", ["WriteFile"],
    [
      path, .init("data", .text), encoding, .init("offset", .number, required: false),
      .init("append", .flag, required: false), .init("create", .flag, required: false),
      .init("atomic", .flag, required: false), mode,
    ], .fileWrite,
    "in place of what a file has, or at an offset, or at its end; `create` makes one that is missing (fs.create); "
      + "`atomic`: who reads sees the old or the new", writing
  ),
  fileCall(
    "fs.create", ["CreateFile"], [path, mode], .fileCreate, "a new, empty file; one that is there is a conflict"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let mode = try arguments.mode("mode", default: 0o644)
    return FileJob([(.fileCreate, path)]) { (files) throws(FileProblem) in try files.create(path, mode: mode) }
  },
  fileCall("fs.delete", ["DeleteFile"], [path], .fileDelete, "remove a file, or a link itself") {
    (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    return FileJob([(.fileDelete, path)]) { (files) throws(FileProblem) in try files.remove(path) }
  },
  fileCall("fs.exists", ["FileExists"], [path], .fileRead, "whether there is something, and of what type") {
    (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    return FileJob([(.fileRead, path)]) { (files) throws(FileProblem) in try files.exists(path) }
  },
  fileCall(
    "fs.stat", ["FileStat", "GetFileInfo"], [path, .init("follow", .flag, required: false)], .fileRead,
    "type, size, mode, times; of a link itself unless `follow`"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let follow = try arguments.flag("follow")
    let uid = arguments.peer.uid
    return FileJob([(.fileRead, path)]) { (files) throws(FileProblem) in
      try files.look(path, follow: follow, uid: uid)
    }
  },
  fileCall(
    "fs.truncate", ["TruncateFile"], [path, .init("size", .number, required: false)], .fileWrite,
    "cut or lengthen a file; default 0"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let size = try arguments.place("size") ?? 0
    return FileJob([(.fileWrite, path)]) { (files) throws(FileProblem) in try files.truncate(path, size: size) }
  },
  fileCall(
    "fs.chmod", [], [path, .init("mode", .number)], .fileWrite, "permission bits, as a number: 420 is 0o644"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let mode = try arguments.mode("mode", default: 0)
    return FileJob([(.fileWrite, path)]) { (files) throws(FileProblem) in try files.chmod(path, mode: mode) }
  },
  Call(
    name: "fs.copy", aliases: ["CopyFile"],
    arguments: [.init("from", .text), .init("to", .text), .init("replace", .flag, required: false)], right: .fileRead,
    judgesItself: true, summary: "copy a file, with its holes; shared on the disk where it can be (fs.create, fs.write)"
  ) { (interface, caller, arguments) throws(RPCFailure) in try copy(interface, caller, arguments) },
]

@Sendable private func writing(_ caller: Caller, _ arguments: Arguments) throws(RPCFailure) -> FileJob {
  let path = try arguments.path("path", caller)
  let bytes = try arguments.bytes("data")
  var how = AppFiles.Writing()
  how.offset = try arguments.place("offset")
  how.append = try arguments.flag("append")
  how.atomic = try arguments.flag("atomic")
  let mode = try arguments.mode("mode", default: 0o644)
  if try arguments.flag("create") { how.creating = mode }
  guard [how.offset != nil, how.append, how.atomic].count(where: { $0 }) <= 1 else {
    throw RPCFailure(.invalidParameters, "offset, append and atomic exclude each other")
  }
  let asked = how
  return FileJob([(.fileWrite, path)]) { (files) throws(FileProblem) in try files.write(path, bytes, asked) }
}

/// In steps, between which the app's other calls get their turn.
private func copy(_ interface: AppInterface, _ caller: Caller, _ arguments: Arguments) throws(RPCFailure) -> RPCAnswer {
  let from = try arguments.path("from", caller)
  let to = try arguments.path("to", caller)
  let replace = try arguments.flag("replace")
  let audits = try interface.judge(
    [(.fileRead, from), (.fileCreate, to)] + (replace ? [(.fileWrite, to)] : []), "fs.copy", caller)
  let rules = caller.rights
  return .later { () throws(RPCFailure) in
    try await interface.keep(audits)
    let copy = try await interface.work("fs.copy", from, caller, arguments, rules) { (files) throws(FileProblem) in
      try FileCopy(files, from: from, to: to, replace: replace)
    }
    while true {
      let isCancelled = Task.isCancelled
      let bytes = try await interface.work("fs.copy", to, caller, arguments, rules) {
        (_) throws(FileProblem) -> Int64? in
        if isCancelled {
          copy.abandon()
          throw .refused(.conflict, "fs.copy was cancelled", hint: nil)
        }
        return try copy.next()
      }
      if let bytes { return .object(["bytes": .integer(bytes)]) }
    }
  }
}
