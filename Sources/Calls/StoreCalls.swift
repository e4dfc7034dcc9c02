internal import Linux
internal import Model
internal import RPC
internal import Storage

/// store: the app's own small values, durable. No right is needed: nobody else sees them.
let storeCalls: [Call] = [
  Call(
    name: "store.get", aliases: ["RegGet"], arguments: [.init("key", .text)], summary: "a value; null: there is none"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let key = try key(arguments)
    let app = caller.instance.app
    return .later { () throws(RPCFailure) in
      .object([
        "value": .optional(
          try await interface.stored { (store) throws(StorageFailure) in try await store.value(of: app, key) })
      ])
    }
  },
  Call(
    name: "store.set", aliases: ["RegSet"], arguments: [.init("key", .text), .init("value", .text)],
    summary: "keep a value of at most 64 KiB, 10 MiB in all; on the disk when this is answered"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let key = try key(arguments)
    let value = try arguments.text("value") ?? ""
    guard value.utf8.count <= 65_536 else {
      throw RPCFailure(.tooLarge, "a value has at most 65536 bytes", data: .object(["limit": 65_536]))
    }
    let app = caller.instance.app
    try refuseFlood(caller)
    return .later { () throws(RPCFailure) in try await interface.keep(app, key, value) }
  },
  Call(
    name: "store.delete", aliases: ["RegDelete"], arguments: [.init("key", .text)], summary: "forget a value"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let key = try key(arguments)
    let app = caller.instance.app
    try refuseFlood(caller)
    return .later { () throws(RPCFailure) in
      guard try await interface.stored({ (store) throws(StorageFailure) in try await store.removeValue(of: app, key) })
      else {
        throw RPCFailure(.notFound, "there is no value '\(key)'")
      }
      return .object([:])
    }
  },
  Call(
    name: "store.list", aliases: ["RegList"],
    arguments: [
      .init("prefix", .text, required: false), .init("cursor", .text, required: false),
      .init("limit", .number, required: false),
    ], summary: "keys in order; `cursor` of an answer goes on after it, null: that was all"
  ) { (interface, caller, arguments) throws(RPCFailure) in
    let prefix = try arguments.text("prefix") ?? ""
    let cursor = try arguments.text("cursor") ?? ""
    let limit = try arguments.integer("limit") ?? 1000
    guard 1...1000 ~= limit else { throw RPCFailure(.invalidParameters, "limit is 1 to 1000") }
    let app = caller.instance.app
    return .later { () throws(RPCFailure) in
      let keys = try await interface.stored { (store) throws(StorageFailure) in
        try await store.keys(of: app, prefix: prefix, after: cursor, limit: Int(limit))
      }
      return .object([
        "keys": .array(keys.map { .string($0) }), "cursor": keys.count == limit ? .optional(keys.last) : .null,
      ])
    }
  },
]

/// Each change waits for the disk, which all apps and the supervisor's own state share.
private func refuseFlood(_ caller: Caller) throws(RPCFailure) {
  guard caller.mayKeepValue(Clock.wall()) else {
    throw RPCFailure(
      .rate, "an app changes at most \(Caller.mostWrites) values a second", hint: "files in /data have no such limit")
  }
}

private func key(_ arguments: Arguments) throws(RPCFailure) -> String {
  let key = try arguments.text("key") ?? ""
  guard (1...512).contains(key.utf8.count), !key.utf8.contains(0) else {
    throw RPCFailure(.invalidParameters, "a key has 1 to 512 bytes, none of them 0")
  }
  return key
}
