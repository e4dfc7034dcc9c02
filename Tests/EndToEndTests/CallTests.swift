import Foundation
import Model
import Testing

/// One call an app makes, and whether what it gets is right.
private struct Asked: Sendable {
  var call: String
  /// JSON.
  var arguments: String
  /// What the result must contain, as text; nil: any result will do.
  var expected: String?

  init(_ call: String, _ arguments: String = "{}", _ expected: String? = nil) {
    self.call = call
    self.arguments = arguments
    self.expected = expected
  }
}

/// Every call with arguments it takes, in an order that makes sense; a call of the table that is not here fails the test.
private let everyCall: [Asked] = [
  Asked("sys.ping", "{}", #"{"pong":true}"#), Asked("sys.info", "{}", #""app":"asks""#),
  Asked("sys.uptime", "{}", "host_ms"),
  Asked("log.write", #"{"level":"notice","message":"said by asks","fields":{"n":1}}"#),
  Asked("time.now", "{}", "monotonic_ns"), Asked("time.sleep", #"{"ms":5}"#),
  Asked("env.get", #"{"name":"GIVEN"}"#, #"{"value":"by its policy"}"#),
  Asked("env.set", #"{"name":"OWN","value":"x"}"#), Asked("env.get", #"{"name":"OWN"}"#, #"{"value":"x"}"#),
  Asked("env.list", "{}", #""OWN":"x""#), Asked("env.set", #"{"name":"OWN"}"#),
  Asked("env.get", #"{"name":"OWN"}"#, #"{"value":null}"#),
  Asked("perm.request", #"{"capability":"time","reason":"to sleep"}"#, #""granted":true"#),
  Asked("event.subscribe", #"{"names":["app.*","permission.denied"]}"#, #"{"subscription":1}"#),
  Asked("event.unsubscribe", #"{"subscription":1}"#),
  Asked("app.list", "{}", #""id":"asks""#), Asked("app.info", #"{"id":"idle"}"#, #""state":"completed""#),
  Asked("app.launch", #"{"id":"idle","detached":true}"#, #"{"id":"idle"}"#), Asked("app.stop", #"{"id":"idle"}"#),
  Asked("mem.self", "{}", #""memory":"#), Asked("mem.stats", "{}", #""available":"#),
  Asked("mem.reclaim", "{}", #""after":"#), Asked("sys.limits", "{}", #""effective":"#),
  Asked("api_call", #"{"cmd":"GetTime","rid":"a"}"#, #"{"rid":"a","status":0,"data":{"wall_ns":"#),
  Asked("api_call", #"{"cmd":"RegGet","data":{"key":"none"},"rid":2}"#, #""data":{"value":null},"error":null"#),
  Asked("api_call", #"{"cmd":"RegGet","data":{"key":7}}"#, #"{"rid":null,"status":4,"#),
  Asked("api_call", #"{"cmd":"RegDelete","data":{"key":"none"}}"#, #""status":3,"#),
  Asked("api_call", #"{"cmd":"LaunchApp","data":{"id":"asks"}}"#, #""status":2,"data":{"call":"app.launch""#),
  Asked("api_call", #"{"cmd":"ReadPipe"}"#, #""status":7,"#),
  Asked("api_call", #"{"cmd":"api_call","data":{"cmd":"Ping"}}"#, #""status":4,"#),
  Asked("log", #"{"level":"WARN","message":"said by an older client"}"#),
  Asked("perm.check", #"{"capability":"time"}"#, "held"), Asked("perm.list", "{}", "granted"),
  Asked("store.set", #"{"key":"a/1","value":"one"}"#), Asked("store.set", #"{"key":"b","value":"two"}"#),
  Asked("store.get", #"{"key":"a/1"}"#, #"{"value":"one"}"#),
  Asked("store.list", #"{"prefix":"a/"}"#, #""keys":["a/1"]"#),
  Asked("store.list", #"{"limit":1}"#, #""cursor":"a/1""#), Asked("store.delete", #"{"key":"b"}"#),
  Asked("store.get", #"{"key":"b"}"#, #"{"value":null}"#), Asked("perm.drop", #"{"capability":"events"}"#),
  Asked("fs.mkdir", #"{"path":"/data/a/b","parents":true}"#), Asked("fs.create", #"{"path":"/data/a/new"}"#),
  Asked("fs.write", #"{"path":"/data/a/f","data":"one","create":true}"#, #"{"written":3,"created":true}"#),
  Asked("fs.write", #"{"path":"/data/a/f","data":" two","append":true}"#),
  Asked("fs.write", #"{"path":"/data/a/f","data":"T1dP","encoding":"base64","offset":4}"#),
  Asked("fs.read", #"{"path":"/data/a/f"}"#, #"{"data":"one OWO","encoding":"utf8","bytes":7,"size":7,"eof":true}"#),
  Asked("fs.write", #"{"path":"/data/a/f","data":"whole","atomic":true}"#, #""created":false"#),
  Asked("fs.read", #"{"path":"/data/a/./x/../f","offset":1,"length":3}"#, #""data":"hol""#),
  Asked("fs.stat", #"{"path":"/data/a/f"}"#, #""type":"file","size":5,"mode":420,"own":true"#),
  Asked("fs.exists", #"{"path":"/data/a/f"}"#, #"{"exists":true,"type":"file"}"#),
  Asked("fs.exists", #"{"path":"/data/none"}"#, #"{"exists":false}"#),
  Asked(
    "fs.list", #"{"path":"/data/a","limit":2}"#, #"{"name":"b","type":"folder"},{"name":"f","type":"file","size":5}"#),
  Asked(
    "fs.list", #"{"path":"/data/a","cursor":"Zg=="}"#,
    #"{"entries":[{"name":"new","type":"file","size":0}],"cursor":null}"#),
  Asked(
    "fs.search", #"{"path":"/data/a","pattern":"?","content":"hole"}"#,
    #"{"found":[{"path":"/data/a/f","type":"file"}],"whole":true}"#),
  Asked("fs.copy", #"{"from":"/data/a/f","to":"/data/a/copy"}"#, #"{"bytes":5}"#),
  Asked("fs.move", #"{"from":"/data/a/copy","to":"/data/a/b/moved"}"#),
  Asked("fs.truncate", #"{"path":"/data/a/b/moved","size":2}"#),
  Asked("fs.symlink", #"{"target":"b/moved","path":"/data/a/link"}"#),
  Asked("fs.readlink", #"{"path":"/data/a/link"}"#, #"{"target":"b/moved"}"#),
  Asked("fs.read", #"{"path":"/data/a/link"}"#, #""data":"wh""#),
  Asked("fs.chmod", #"{"path":"/data/a/f","mode":384}"#), Asked("fs.stat", #"{"path":"/data/a/f"}"#, #""mode":384"#),
  Asked("fs.open", #"{"path":"/data/a/f","flags":"r+","handle":true}"#, #"{"handle":1,"path":"/data/a/f"}"#),
  Asked("fs.pread", #"{"handle":1,"length":3}"#, #"{"data":"who","encoding":"utf8","bytes":3,"eof":false}"#),
  Asked("fs.dup", #"{"handle":1}"#, #"{"handle":2}"#),
  Asked("fs.pwrite", #"{"handle":1,"data":"LE"}"#, #"{"written":2}"#),
  Asked("fs.seek", #"{"handle":1,"offset":-4,"whence":"end"}"#, #"{"offset":1}"#),
  Asked("fs.pread", #"{"handle":1,"length":9,"offset":0}"#, #""data":"whoLE""#), Asked("fs.sync", #"{"handle":1}"#),
  Asked("fs.close", #"{"handle":1}"#), Asked("fs.open", #"{"path":"/data/a/f"}"#, #""path":"/data/a/f""#),
  Asked("fs.watch", #"{"path":"/data/a","timeout_ms":1}"#, #"{"watch":1}"#),
  Asked("fs.unwatch", #"{"watch":1}"#, #"{"ended":false}"#),
  Asked("fs.usage", #"{"mount":"/data"}"#, #"{"mount":"/data","size":"#),
  Asked("fs.mounts", "{}", #"{"path":"/data","type":"#), Asked("fs.chdir", #"{"path":"/data/a"}"#),
  Asked("fs.getcwd", "{}", #""path":"/"#), Asked("fs.delete", #"{"path":"/data/a/link"}"#),
  Asked("fs.rmdir", #"{"path":"/data/a","recursive":true}"#),
]

/// What ends the caller has a test of its own.
private let lastCall = Asked("app.exit", #"{"code":7}"#)

/// What an app gets of files, its own and others', by name; then it reads on by a handle.
private let filesProgram = """
  import json, os, sys, threading, time
  sys.path.insert(0, "/app")
  from appsupervisor import Supervisor, SupervisorError
  supervisor = Supervisor()
  out = {}
  def said(call, **arguments):
      try:
          return supervisor.call(call, 20, **arguments)
      except SupervisorError as error:
          return error.code
  with supervisor.open_file("/data/f", "x") as file:
      file.write("hello")
  with supervisor.open_file("/data/f") as file:
      out["read"] = file.read()
      try:
          os.write(file.fileno(), b"x")
      except OSError as error:
          out["cannot write"] = error.errno
  out["own"] = os.stat("/data/f").st_uid == os.getuid()
  blob = os.urandom(5 << 20)
  with supervisor.open_file("/data/big", "wb") as file:
      file.write(blob)
  out["big"] = supervisor.read_file("/data/big") == blob
  out["too large"] = said("fs.read", path="/data/big")
  supervisor.write_file("/tmp/t", "in memory", create=True)
  out["tmp"] = open("/tmp/t").read()
  out["read only"] = said("fs.write", path="/app/asks.py", data="x")
  os.mkdir("/data/keys")
  open("/data/keys/k", "w").write("KEY")
  for name, target in [("magic", "/proc/self/root/etc/passwd"), ("absolute", "/etc/passwd"),
                       ("up", "../../../../../etc/passwd"), ("mount", "../tmp/t"), ("key", "keys/k")]:
      os.symlink(target, "/data/" + name)
      out["link " + name] = said("fs.read", path="/data/" + name)
      out["through " + name] = said("fs.write", path="/data/" + name, data="x")
  os.mkfifo("/data/fifo")
  began = time.monotonic()
  out["fifo"] = said("fs.open", path="/data/fifo")
  out["fast"] = time.monotonic() - began < 2
  for path in ["/proc/self/environ", "/proc/1/environ", "/sys/kernel/profiling", "/dev/null",
               "/run/supervisor/app.sock", "/data/../proc/self/status"]:
      out["kernel " + path] = said("fs.read", path=path)
  out["keys"] = said("fs.read", path="/data/x/../keys/k")
  out["tree"] = said("fs.move", **{"from": "/data/keys", "to": "/data/mine"})
  over = []
  def flip():
      while not over:
          for target in ["keys/k", None]:
              try:
                  if target:
                      os.symlink(target, "/data/next")
                  else:
                      open("/data/next", "w").write("mine")
                  os.rename("/data/next", "/data/race")
              except OSError:
                  pass
  flipper = threading.Thread(target=flip)
  flipper.start()
  seen = [said("fs.read", path="/data/race") for _ in range(1500)]
  over.append(1)
  flipper.join()
  out["race"] = any(isinstance(one, dict) and "KEY" in one["data"] for one in seen)
  out["raced"] = any(isinstance(one, dict) for one in seen) and -32001 in seen
  items, begun, ended = [], threading.Event(), []
  def told(item):
      items.append([item.get("event"), item.get("name")])
      begun.set()
  os.mkdir("/data/seen")
  watcher = threading.Thread(target=lambda: ended.append(supervisor.call("fs.watch", 20, told, path="/data/seen")))
  watcher.start()
  begun.wait(10)
  open("/data/seen/one", "w").write("1")
  os.remove("/data/seen/one")
  for _ in range(100):
      if ["removed", "one"] in items:
          break
      time.sleep(0.05)
  out["watched"] = [one for one in items if one[0] in ("created", "written", "removed")]
  out["unwatched"] = said("fs.unwatch", watch=1)
  watcher.join(10)
  out["ended"] = ended
  handles = [said("fs.open", path="/data/f", handle=True) for _ in range(65)]
  out["handles"] = [handles[0]["handle"], handles[63]["handle"], handles[64]]
  print(json.dumps(out), flush=True)
  while True:
      time.sleep(0.1)
      got = said("fs.pread", handle=1, length=5, offset=0)
      print(got if isinstance(got, int) else got["data"], flush=True)
  """

/// An app that makes the calls of `/app/asks.json` through the Python SDK, prints an answer a line, and stays.
private struct Asking {
  let place: StreamPlace

  static let program = """
    import json, sys, time
    sys.path.insert(0, "/app")
    from appsupervisor import Supervisor, SupervisorError
    supervisor = Supervisor()
    for call, arguments in json.load(open("/app/asks.json")):
        try:
            print(json.dumps({"call": call, "result": supervisor.call(call, 20, **arguments)}, separators=(",", ":")))
        except SupervisorError as error:
            print(json.dumps({"call": call, "error": error.code, "data": error.data, "message": str(error)}))
    print("over", flush=True)
    while True:
        time.sleep(0.1)
        try:
            supervisor.call("time.now", 20)
            print("held", flush=True)
        except SupervisorError as error:
            print(error.code, flush=True)
    """

  func policy(_ id: String, _ more: String = "") -> String {
    let image = place.rig == nil ? "" : "image: \(Rig.image)\npull_policy: never\n"
    let host =
      place.rig == nil ? "" : ", \"/usr:/usr:ro\", \"/usr/lib:/lib:ro\", \"/usr/lib64:/lib64:ro\""
    return
      "id: \(id)\n\(image)entry: [/usr/bin/python3, /app/asks.py]\nvolumes: [\"./app:/app:ro\", \"files-\(id):/data\"\(host)]\n"
      + "environment: {GIVEN: by its policy}\nstop_grace_period: 300ms\n\(more)"
  }

  /// Writes what the app runs and asks.
  func prepare(_ instance: Instance, _ asks: [(String, String)]) throws {
    let folder = "\(instance.policies)/app"
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    try Self.program.write(toFile: "\(folder)/asks.py", atomically: true, encoding: .utf8)
    let sdk = try String(contentsOfFile: "\(Instance.sources)/images/sdk/appsupervisor.py", encoding: .utf8)
    try sdk.write(toFile: "\(folder)/appsupervisor.py", atomically: true, encoding: .utf8)
    let list = asks.map { "[\"\($0.0)\", \($0.1)]" }.joined(separator: ",\n")
    try "[\(list)]".write(toFile: "\(folder)/asks.json", atomically: true, encoding: .utf8)
  }

  /// The answers, once all are there.
  func answers(_ instance: Instance, _ app: String) -> [JSONValue] {
    var text = ""
    eventually("\(app) has asked all it asks: \(text)", seconds: 40) {
      text = instance.run("logs", app).out
      return text.contains("over\n")
    }
    return text.split(separator: "\n").compactMap { line in
      line.hasPrefix("{") ? try? JSONValue(parsing: Array(line.utf8)) : nil
    }
  }

  func with(_ body: (Instance) throws -> Void) throws {
    if let rig = place.rig { return try rig.with(body) }
    let instance = try Instance()
    defer { instance.end() }
    try body(instance)
  }
}

@Suite("Calls of apps", .serialized) struct CallTests {
  @Test(
    "every call is answered, denied without its permission, and refused with wrong arguments",
    arguments: StreamPlace.available)
  func table(place: StreamPlace) throws {
    let asking = Asking(place: place)
    try asking.with { instance in
      instance.startDaemon()
      let table = instance.run("calls", "--format", "json").lines
      #expect(
        Set(table.compactMap { $0["call"]?.stringValue })
          == Set((everyCall + [lastCall]).map(\.call)).subtracting(["log"]))
      // Each argument left out, of another type, and one too many.
      var wrong: [(String, String)] = []
      for entry in table {
        let call = entry["call"]?.stringValue ?? ""
        wrong.append((call, #"{"surplus":1}"#))
        for argument in entry["arguments"]?.arrayValue ?? [] {
          let name = argument["name"]?.stringValue ?? ""
          let good = (everyCall + [lastCall]).first { $0.call == call }?.arguments ?? "{}"
          guard var given = try JSONValue(parsing: Array(good.utf8)).objectValue else { continue }
          given[name] = .array([])
          wrong.append((call, JSONValue.object(given).text))
          given[name] = nil
          if argument["required"] == true { wrong.append((call, JSONValue.object(given).text)) }
        }
      }
      try asking.prepare(instance, everyCall.map { ($0.call, $0.arguments) } + wrong)
      let files = ["read", "write", "create", "delete", "list"].map { "\"fs.\($0):/data/**\"" }
      let apps = #""app.inspect:idle", "app.launch:idle", "app.stop:id*""#
      try instance.write(
        "asks", asking.policy("asks", "permissions: [log, time, events, \(apps), \(files.joined(separator: ", "))]\n"))
      try instance.write("idle", "id: idle\nentry: [/bin/true]\n")
      let needs = Set(table.compactMap { $0["capability"]?.stringValue })
      let denials = needs.sorted().map { "\"deny:\($0)\"" }.joined(separator: ", ")
      try instance.write("poor", asking.policy("poor", "permissions: [\(denials)]\n"))
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      let allowed = asking.answers(instance, "asks")
      #expect(allowed.count == everyCall.count + wrong.count)
      for (asked, answer) in zip(everyCall, allowed) {
        let text = answer["result"]?.text
        #expect(text != nil && answer["call"]?.stringValue == asked.call, "\(asked): \(answer.text)")
        if let expected = asked.expected { #expect(text?.contains(expected) == true, "\(asked): \(answer.text)") }
      }
      for (asked, answer) in zip(wrong, allowed.dropFirst(everyCall.count)) {
        #expect(answer["error"] == -32602, "\(asked): \(answer.text)")
      }
      for (asked, answer) in zip(everyCall, asking.answers(instance, "poor")) {
        let entry = table.first {
          $0["call"]?.stringValue == asked.call
            || ($0["aliases"]?.arrayValue ?? []).contains(.string(asked.call))
        }
        let need = entry?["capability"]?.stringValue
        // What is denied within it is in its answer.
        if asked.call == "api_call" { continue }
        guard let need else {
          // What was not to be had is not there to be given back, and what was not opened has no handle.
          if asked.call == "event.unsubscribe" || asked.arguments.contains(#""handle":1"#) {
            #expect(answer["error"] == -32002, "\(asked): \(answer.text)")
            continue
          }
          #expect(answer["error"] == nil, "\(asked): \(answer.text)")
          continue
        }
        let capability = answer["data"]?["capability"]?.stringValue ?? ""
        #expect(
          answer["error"] == -32001 && (capability == need || capability.hasPrefix("\(need):")),
          "\(asked): \(answer.text)")
      }
      // What was denied is in the audit with who, what and the rule; the values of one app are not another's.
      let audit = instance.run("perm", "audit", "poor", "--format", "json").lines
      #expect(
        audit.contains { $0["call"] == "sys.info" && $0["decision"] == "denied" && $0["rule"] == "policy sys.info" })
      #expect(
        instance.run("perm", "audit", "asks", "--format", "json").lines.compactMap { $0["call"] } == ["app.launch"])
      let log = try String(contentsOfFile: "\(instance.root)/log/daemon.log", encoding: .utf8)
      #expect(log.contains("said by asks") && log.contains("said by an older client"))
    }
  }

  @Test("rights change while an app runs, outlive the daemon, and end with the app", arguments: StreamPlace.available)
  func rights(place: StreamPlace) throws {
    let asking = Asking(place: place)
    try asking.with { instance in
      try asking.prepare(
        instance, [("sys.info", "{}"), ("perm.drop", #"{"capability":"sys.info"}"#), ("sys.info", "{}")])
      try instance.write("asks", asking.policy("asks"))
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      let answers = asking.answers(instance, "asks")
      #expect(answers.first?["result"] != nil && answers.last?["error"] == -32001)
      func last() -> String { instance.run("logs", "--tail", "1", "asks").out }
      eventually("it may tell the time") { last() == "held\n" }
      #expect(instance.run("perm", "revoke", "asks", "time").code == 0)
      eventually("it may not any more") { last() == "-32001\n" }
      let pid = instance.pid("asks")
      instance.killDaemon()
      instance.startDaemon()
      eventually("it is heard again, and still denied") { last() == "-32001\n" }
      let rules = instance.run("perm", "list", "asks", "--format", "json").lines.first?["instances"]?.arrayValue?.first
      #expect(
        rules?["denied"]?.text.contains(#"{"capability":"sys.info","by":"dropped"}"#) == true, "\(rules?.text ?? "")")
      #expect(instance.run("perm", "reset", "asks", "time").code == 0)
      eventually("its policy decides again") { last() == "held\n" }
      // A changed policy is in force without a restart.
      try instance.write("asks", asking.policy("asks", "permissions: [\"deny:time\"]\n"))
      #expect(instance.up().code == 0)
      eventually("the changed policy denies it") { last() == "-32001\n" }
      #expect(instance.pid("asks") == pid)
      #expect(instance.run("perm", "grant", "asks", "events").code == 0)
      #expect(instance.run("perm", "grant", "asks", "evnets").code == 2)
      #expect(instance.run("perm", "grant", "nobody", "events").code == 4)
      // Who bears its name later is another.
      #expect(instance.run("down", "--all", "-y").code == 0)
      #expect((try? FileManager.default.contentsOfDirectory(atPath: "\(instance.root)/run/apps")) ?? [] == [])
      #expect(instance.up().code == 0)
      let decided = instance.run("perm", "list", "asks", "--format", "json").lines.first?["decided"]
      #expect(decided == .array([]), "\(decided?.text ?? "")")
    }
  }

  @Test(
    "an app gets its own files as its own user, and nothing by links, races and odd files",
    arguments: StreamPlace.available)
  func files(place: StreamPlace) throws {
    let asking = Asking(place: place)
    try asking.with { instance in
      try asking.prepare(instance, [])
      try filesProgram.write(toFile: "\(instance.policies)/app/asks.py", atomically: true, encoding: .utf8)
      try instance.write(
        "asks",
        asking.policy(
          "asks", "permissions: [fs.read, fs.write, fs.create, fs.delete, \"deny:fs.read:/data/keys/**\"]\n"))
      let up = instance.up()
      #expect(up.code == 0, "\(up.err)")
      var text = ""
      eventually("it has looked at all of them", seconds: 60) {
        text = instance.run("logs", "asks").out
        return text.contains("}\n") || text.contains("Error")
      }
      let line = text.split(separator: "\n").first { $0.hasPrefix("{") } ?? ""
      let out = try #require(try? JSONValue(parsing: Array(line.utf8)), "\(text)")
      var expected: [String: JSONValue] = [
        "read": "hello", "cannot write": .integer(9), "own": true, "big": true, "too large": -32004,
        "tmp": "in memory", "read only": -32001, "fifo": -32602, "fast": true, "keys": -32001, "tree": -32001,
        "race": false, "raced": true, "unwatched": .object(["ended": true]),
        "ended": .array([.object(["watch": 1])]),
        "watched": .array(["created", "written", "removed"].map { .array([.string($0), "one"]) }),
        "handles": .array([1, 64, -32003]),
      ]
      for name in ["magic", "absolute", "up", "mount", "key"] {
        expected["link \(name)"] = name == "key" ? -32001 : -32002
        expected["through \(name)"] = -32002
      }
      for path in out.objectValue?.keys.filter({ $0.hasPrefix("kernel ") }) ?? [] { expected[path] = -32002 }
      #expect(expected.count == out.objectValue?.count)
      for (name, value) in expected.sorted(by: { $0.key < $1.key }) {
        #expect(out[name] == value, "\(name): \(out[name]?.text ?? "nothing")")
      }
      // A right that is taken away ends what was opened under it.
      func last() -> String { instance.run("logs", "--tail", "1", "asks").out }
      eventually("it reads by its handle") { last() == "hello\n" }
      let daemon = try #require(instance.daemon)
      func roots() -> Int {
        let folder = "/proc/\(daemon)/fd"
        return ((try? FileManager.default.contentsOfDirectory(atPath: folder)) ?? []).count {
          ["/", "/data", "/data/f", "/tmp", "/app"].contains(
            (try? FileManager.default.destinationOfSymbolicLink(atPath: "\(folder)/\($0)")) ?? "")
        }
      }
      #expect(roots() > 60)
      #expect(instance.run("perm", "revoke", "asks", "fs.read:/data/f").code == 0)
      eventually("its handle has ended") { last() == "-32008\n" }
      // Nothing of it is held once it has ended.
      #expect(instance.run("down", "--all", "-y").code == 0)
      eventually("what it saw is let go of") { roots() == 0 }
    }
  }

  @Test("an app's socket hears nobody but the app", arguments: StreamPlace.available)
  func strangers(place: StreamPlace) throws {
    let asking = Asking(place: place)
    try asking.with { instance in
      try asking.prepare(instance, [])
      try instance.write("asks", asking.policy("asks"))
      #expect(instance.up().code == 0)
      let apps = "\(instance.root)/run/apps"
      let name = try #require(FileManager.default.contentsOfDirectory(atPath: apps).first)
      let script = """
        use Socket; socket(my $s, AF_UNIX, SOCK_STREAM, 0) or die;
        connect($s, sockaddr_un("\(apps)/\(name)/sock/app.sock")) or die "connect: $!";
        send($s, '{"jsonrpc":"2.0","id":1,"method":"sys.ping"}' . "\\n", MSG_NOSIGNAL); $s->recv(my $got, 1000) if 0;
        my $n = sysread($s, my $text, 1000); print defined $n && $n > 0 ? "heard" : "unheard";
        """
      let stranger = Shell.run(["/usr/bin/perl", "-e", script])
      #expect(stranger.out == "unheard", "\(stranger)")
      // Root alone gets that far.
      let mode = try FileManager.default.attributesOfItem(atPath: apps)[.posixPermissions] as? Int
      #expect(mode == 0o700)
    }
  }
}
