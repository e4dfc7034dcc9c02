internal import FileSystems
internal import Linux
internal import Model
internal import RPC

private let handle = Call.Argument("handle", .number)

/// fs: open files. A handle belongs to the instance; it ends with the process that opened it, or with the right it was opened under.
let handleCalls: [Call] = [
  Call(
    name: "fs.open", aliases: ["Open"],
    arguments: [
      .init("path", .text), .init("flags", .text, required: false), .init("mode", .number, required: false),
      .init("handle", .flag, required: false),
    ], right: .fileRead, judgesItself: true,
    summary:
      "an open file as a descriptor, or as a number with `handle`; flags r, w, a, x, with + for both (as fopen(3); "
      + "default r; fs.write, fs.create)"
  ) { (interface, caller, arguments) throws(RPCFailure) in try open(interface, caller, arguments) },
  Call(name: "fs.close", aliases: ["Close"], arguments: [handle], summary: "a handle is of no use any more") {
    (_, caller, arguments) throws(RPCFailure) in
    try caller.files.close(try arguments.integer("handle") ?? 0)
    return .now(.object([:]))
  },
  Call(
    name: "fs.dup", aliases: ["Dup"], arguments: [handle],
    summary: "another number for the same open file, with the same place in it"
  ) { (_, caller, arguments) throws(RPCFailure) in
    let known = try caller.files.handle(try arguments.integer("handle") ?? 0)
    return .now(.object(["handle": .integer(try caller.files.add(known))]))
  },
  handleCall(
    "fs.seek", ["Lseek"],
    [handle, .init("offset", .number), .init("whence", .text, required: false)],
    "the place that fs.pread and fs.pwrite without an offset begin at; whence start, current or end"
  ) { (file, arguments) throws(RPCFailure) in
    let offset = try arguments.integer("offset") ?? 0
    let whence = try arguments.text("whence") ?? "start"
    guard let origin = AppFiles.Origin(rawValue: whence) else {
      throw RPCFailure(.invalidParameters, "whence is start, current or end")
    }
    return FileJob([]) { (_) throws(FileProblem) in try AppFiles.seek(file.file, offset, from: origin) }
  },
  handleCall(
    "fs.pread", [],
    [handle, .init("length", .number), .init("offset", .number, required: false)],
    "at most 2 MiB of an open file; without an offset from its place on, which moves"
  ) { (file, arguments) throws(RPCFailure) in
    let length = try arguments.length("length") ?? 0
    let offset = try arguments.place("offset")
    return FileJob([], isLarge: true) { (_) throws(FileProblem) in
      try AppFiles.readOpen(file.file, at: offset, length, "\(file.path)")
    }
  },
  handleCall(
    "fs.pwrite", [],
    [handle, .init("data", .text), encoding, .init("offset", .number, required: false)],
    "into an open file; without an offset at its place, which moves"
  ) { (file, arguments) throws(RPCFailure) in
    let bytes = try arguments.bytes("data")
    let offset = try arguments.place("offset")
    return FileJob([]) { (_) throws(FileProblem) in try AppFiles.writeOpen(file.file, at: offset, bytes, "\(file.path)")
    }
  },
  handleCall("fs.sync", [], [handle], "answered once what was written is on the disk") {
    (file, _) throws(RPCFailure) in
    FileJob([]) { (_) throws(FileProblem) in try AppFiles.sync(file.file, "\(file.path)") }
  },
]

/// A call on an open handle: the right was asked for when it was opened, and it ends with that.
private func handleCall(
  _ name: String, _ aliases: [String], _ arguments: [Call.Argument], _ summary: String,
  _ make: @escaping @Sendable (OpenHandle, Arguments) throws(RPCFailure) -> FileJob
) -> Call {
  fileCall(name, aliases, arguments, nil, summary) { (caller, arguments) throws(RPCFailure) in
    try make(try caller.files.handle(try arguments.integer("handle") ?? 0), arguments)
  }
}

private func open(_ interface: AppInterface, _ caller: Caller, _ arguments: Arguments) throws(RPCFailure) -> RPCAnswer {
  let path = try arguments.path("path", caller)
  let flags = try arguments.text("flags") ?? "r"
  guard let how = AppFiles.Opening(flags) else {
    throw RPCFailure(.invalidParameters, "flags is r, w, a or x, or one of them with +")
  }
  let mode = try arguments.mode("mode", default: 0o644)
  let rules = caller.rights
  let version = caller.version
  let audits = try interface.judge(how.rights.map { ($0, path) }, "fs.open", caller)
  let opened = { @Sendable () async throws(RPCFailure) -> OpenHandle in
    try await interface.keep(audits)
    let (file, real, rights) = try await interface.work("fs.open", path, caller, arguments, rules) {
      (files) throws(FileProblem) in try files.open(path, how, mode: mode)
    }
    // What was taken away meanwhile is taken away from this one, too.
    try await interface.confirm(rights.map { ($0, real) }, since: version, caller)
    return OpenHandle(file: file, path: real, rights: rights, process: arguments.peer.pid)
  }
  if try arguments.flag("handle") {
    return .later { () throws(RPCFailure) in try await interface.hold(try await opened(), caller) }
  }
  return .handing { () throws(RPCFailure) in
    let handle = try await opened()
    var result = JSONObject()
    result["path"] = .string(handle.path.description)
    return RPCHanded(result, handle.file)
  }
}

extension AppInterface {
  fileprivate func hold(_ handle: OpenHandle, _ caller: Caller) throws(RPCFailure) -> JSONValue {
    return .object(["handle": .integer(try caller.files.add(handle)), "path": .string(handle.path.description)])
  }
}
