internal import Glibc
internal import Linux
internal import Model
internal import RPC

/// log, sys, time, env: what needs nothing but the supervisor itself.
let basicCalls: [Call] = [
  Call(
    name: "log.write", aliases: ["log"],
    arguments: [
      .init("level", .text, required: false), .init("message", .text), .init("fields", .object, required: false),
    ],
    right: .log, summary: "a line in the supervisor's own log"
  ) { (interface, caller, arguments) throws(RPCFailure) in try writeLog(interface, caller, arguments) },
  Call(name: "sys.ping", aliases: ["Ping"], summary: "an answer") { (_, _, _) throws(RPCFailure) in
    .now(.object(["pong": true]))
  },
  Call(
    name: "sys.info", aliases: ["GetSystemInfo"], right: .systemInfo,
    summary: "the host, the supervisor, and the app's limits as asked"
  ) { (interface, caller, _) throws(RPCFailure) in .now(interface.information(caller)) },
  Call(
    name: "sys.uptime", aliases: ["GetUptime"], right: .systemInfo,
    summary: "since the host and the supervisor were started, in milliseconds"
  ) { (interface, _, _) throws(RPCFailure) in
    .now(
      .object([
        "host_ms": .integer(Clock.boot() / 1_000_000),
        "supervisor_ms": .integer((Clock.monotonic() - interface.startedAt) / 1_000_000),
      ]))
  },
  Call(
    name: "time.now", aliases: ["GetCurrentTime", "GetTime"], right: .time,
    summary: "wall clock and monotonic clock, in nanoseconds"
  ) { (_, _, _) throws(RPCFailure) in
    .now(.object(["wall_ns": .integer(Clock.wall().nanoseconds), "monotonic_ns": .integer(Clock.monotonic())]))
  },
  Call(
    name: "time.sleep", aliases: ["Sleep"], arguments: [.init("ms", .number)], right: .time,
    summary: "answers after so many milliseconds, at most 60 000"
  ) { (_, _, arguments) throws(RPCFailure) in
    let time = try arguments.integer("ms") ?? 0
    guard 0...60_000 ~= time else { throw RPCFailure(.invalidParameters, "ms is 0 to 60000") }
    return .later { () throws(RPCFailure) in
      do { try await Task.sleep(for: .milliseconds(time)) } catch { throw RPCFailure(.closed, "cancelled") }
      return .object([:])
    }
  },
  Call(
    name: "env.get", aliases: ["GetEnvironmentVar", "GetEnvVar"], arguments: [.init("name", .text)],
    summary: "one of the app's own variables; null: not set"
  ) { (_, caller, arguments) throws(RPCFailure) in
    .now(.object(["value": .optional(caller.environment[try arguments.text("name") ?? ""])]))
  },
  Call(
    name: "env.set", aliases: ["SetEnvironmentVar"],
    arguments: [.init("name", .text), .init("value", .text, required: false)],
    summary: "set one of the app's own variables, or unset it without a value"
  ) { (_, caller, arguments) throws(RPCFailure) in .now(try setVariable(caller, arguments)) },
  Call(name: "env.list", summary: "the app's own variables") { (_, caller, _) throws(RPCFailure) in
    var object = JSONObject()
    for (name, value) in caller.environment.sorted(by: { $0.key < $1.key }) { object[name] = .string(value) }
    return .now(.object(["variables": .object(object)]))
  },
]

/// How much of one line, and of its fields, is kept.
private let longestLine = 2000
private let mostFields = 16

private func writeLog(_ interface: AppInterface, _ caller: Caller, _ arguments: Arguments) throws(RPCFailure)
  -> RPCAnswer
{
  let given = (try arguments.text("level") ?? "info").lowercased()
  // As older clients write them.
  let level = ["warn": "warning", "fatal": "critical"][given] ?? given
  guard ["trace", "debug", "info", "notice", "warning", "error", "critical"].contains(level) else {
    throw RPCFailure(
      .invalidParameters, "there is no level '\(level.prefix(32))'",
      hint: "there are: trace, debug, info, notice, warning, error, critical")
  }
  let message = try arguments.text("message") ?? ""
  guard message.utf8.count <= longestLine else {
    throw RPCFailure(.tooLarge, "a line has at most \(longestLine) bytes")
  }
  var fields: [String: String] = [:]
  if let object = arguments.object["fields"]?.objectValue {
    guard object.keys.count <= mostFields else {
      throw RPCFailure(.tooLarge, "a line has at most \(mostFields) fields")
    }
    for (key, value) in object {
      let text = value.stringValue ?? value.text
      let isName =
        (1...64).contains(key.utf8.count)
        && key.utf8.allSatisfy { byte in
          (0x30...0x39).contains(byte) || (0x41...0x5A).contains(byte) || (0x61...0x7A).contains(byte) || byte == 0x5F
        }
      guard isName else {
        throw RPCFailure(.invalidParameters, "a field's name has 1 to 64 letters, digits and underscores")
      }
      guard text.utf8.count <= 1024 else { throw RPCFailure(.tooLarge, "a field has at most 1024 bytes") }
      fields[key] = text
    }
  }
  guard caller.mayWriteLine(Clock.wall()) else {
    throw RPCFailure(
      .rate, "an app writes at most \(Caller.mostLines) lines a second here",
      hint: "its standard output takes any amount")
  }
  interface.said(caller.instance.app, level, message, fields)
  return .now(.object([:]))
}

private func setVariable(_ caller: Caller, _ arguments: Arguments) throws(RPCFailure) -> JSONValue {
  let name = try arguments.text("name") ?? ""
  let isName = (1...256).contains(name.utf8.count) && !name.utf8.contains { $0 == UInt8(ascii: "=") || $0 == 0 }
  guard isName else { throw RPCFailure(.invalidParameters, "a variable's name has 1 to 256 bytes and no '='") }
  guard let value = try arguments.text("value") else {
    caller.environment[name] = nil
    return .object([:])
  }
  guard value.utf8.count <= 32_768, !value.utf8.contains(0) else {
    throw RPCFailure(.tooLarge, "a variable's value has at most 32768 bytes, none of them 0")
  }
  guard caller.environment[name] != nil || caller.environment.count < 512 else {
    throw RPCFailure(.quota, "an app has at most 512 variables")
  }
  caller.environment[name] = value
  return .object([:])
}
