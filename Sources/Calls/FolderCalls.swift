internal import FileSystems
internal import Model
internal import RPC

private let path = Call.Argument("path", .text)
private let mode = Call.Argument("mode", .number, required: false)

/// fs: folders, links and names, and what is mounted.
let folderCalls: [Call] = [
  fileCall(
    "fs.list", ["ListDirectory"],
    [path, .init("cursor", .text, required: false), .init("limit", .number, required: false)], .fileList,
    "names in order with type and size; `cursor` of an answer goes on after it, null: that was all"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let cursor = try arguments.text("cursor")
    let limit = try arguments.integer("limit") ?? 1000
    guard 1...1000 ~= limit else { throw RPCFailure(.invalidParameters, "limit is 1 to 1000") }
    let most = max(1, min(Int(limit), 1000 / arguments.call.share))
    return FileJob([(.fileList, path)], isLarge: true) { (files) throws(FileProblem) in
      try files.list(path, cursor: cursor, limit: most)
    }
  },
  fileCall(
    "fs.mkdir", ["CreateDirectory"], [path, .init("parents", .flag, required: false), mode], .fileCreate,
    "a folder; `parents`: also those above it, and one that is there is as good"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let parents = try arguments.flag("parents")
    let mode = try arguments.mode("mode", default: 0o755)
    return FileJob([(.fileCreate, path)]) { (files) throws(FileProblem) in
      try files.makeFolder(path, parents: parents, mode: mode)
    }
  },
  fileCall(
    "fs.rmdir", ["RemoveDirectory"], [path, .init("recursive", .flag, required: false)], .fileDelete,
    "an empty folder; `recursive`: with all it holds, which takes the right for all of it"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let recursive = try arguments.flag("recursive")
    return FileJob([(.fileDelete, path)]) { (files) throws(FileProblem) in
      try files.removeFolder(path, recursive: recursive)
    }
  },
  fileCall(
    "fs.move", ["MoveFile"], [.init("from", .text), .init("to", .text), .init("replace", .flag, required: false)],
    .fileDelete,
    "another name in the same mount (fs.read and fs.delete of the old, fs.create of the new, fs.write to replace)"
  ) { (caller, arguments) throws(RPCFailure) in
    let from = try arguments.path("from", caller)
    let to = try arguments.path("to", caller)
    let replace = try arguments.flag("replace")
    let rights: [(right: Right, path: AppPath)] = [(.fileDelete, from), (.fileRead, from), (.fileCreate, to)]
    return FileJob(rights + (replace ? [(.fileWrite, to)] : [])) { (files) throws(FileProblem) in
      try files.move(from, to: to, replace: replace)
    }
  },
  fileCall(
    "fs.symlink", [], [.init("target", .text), path], .fileCreate,
    "a link with any text; it leads nowhere outside its mount, and gives no right to what it names"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let target = try arguments.text("target") ?? ""
    guard (1...4095).contains(target.utf8.count), !target.utf8.contains(0) else {
      throw RPCFailure(.invalidParameters, "target has 1 to 4095 bytes, none of them 0")
    }
    return FileJob([(.fileCreate, path)]) { (files) throws(FileProblem) in try files.link(path, to: target) }
  },
  fileCall("fs.readlink", [], [path], .fileRead, "what a link says") { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    return FileJob([(.fileRead, path)]) { (files) throws(FileProblem) in try files.readLink(path) }
  },
  Call(
    name: "fs.getcwd", aliases: ["GetWorkingDirectory"],
    summary: "where paths of the app's begin that do not begin with a slash"
  ) { (_, caller, _) throws(RPCFailure) in .now(.object(["path": .string(caller.files.folder.description)])) },
  Call(
    name: "fs.chdir", aliases: ["SetWorkingDirectory"], arguments: [path], right: .fileList, judgesItself: true,
    summary: "from now on they begin there, for all connections of the app; its processes stay where they are"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let audits = try interface.judge([(.fileList, path)], "fs.chdir", caller)
    let rules = caller.rights
    return .later { () throws(RPCFailure) in
      try await interface.keep(audits)
      _ = try await interface.work("fs.chdir", path, caller, arguments, rules) { (files) throws(FileProblem) in
        try files.list(path, cursor: nil, limit: 1)
      }
      return await interface.settle(path, caller)
    }
  },
  fileCall(
    "fs.search", ["SearchFiles", "SearchContent"],
    [
      path, .init("pattern", .text, required: false), .init("content", .text, required: false),
      .init("limit", .number, required: false),
    ], .fileList,
    "things below a folder by name (* and ?) and, with `content`, files that hold a text (fs.read); takes the right for all of it"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("path", caller)
    let pattern = try arguments.text("pattern") ?? "*"
    let content = try arguments.text("content")
    let limit = try arguments.integer("limit") ?? 100
    guard 1...500 ~= limit else { throw RPCFailure(.invalidParameters, "limit is 1 to 500") }
    guard 1...255 ~= pattern.utf8.count, 1...1024 ~= content?.utf8.count ?? 1 else {
      throw RPCFailure(.invalidParameters, "pattern has 1 to 255 bytes, content 1 to 1024")
    }
    let rights: [(right: Right, path: AppPath)] = [(.fileList, path)] + (content == nil ? [] : [(.fileRead, path)])
    let most = max(1, min(Int(limit), 500 / arguments.call.share))
    return FileJob(rights, isLarge: true) { (files) throws(FileProblem) in
      try files.search(path, pattern: pattern, content: content, limit: most)
    }
  },
  fileCall(
    "fs.usage", [], [.init("mount", .text)], nil,
    "room in all and left, in bytes and files, of the mount a path lies in"
  ) { (caller, arguments) throws(RPCFailure) in
    let path = try arguments.path("mount", caller)
    return FileJob([]) { (files) throws(FileProblem) in try files.usage(path) }
  },
  fileCall("fs.mounts", [], [], nil, "what the app's files lie in") { (_, _) throws(RPCFailure) in
    FileJob([]) { (files) throws(FileProblem) in files.mounts() }
  },
]

extension AppInterface {
  fileprivate func settle(_ folder: AppPath, _ caller: Caller) -> JSONValue {
    caller.files.folder = folder
    return .object([:])
  }
}
