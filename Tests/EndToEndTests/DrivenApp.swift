import Foundation
import Model
import Testing

/// An app that makes the calls it is told to through the Python SDK, each in a thread of its own, and prints what comes of each.
final class DrivenApp {
  private let instance: Instance
  private let id: String
  private let steps: String
  private var last = 0

  private static let program = """
    import json, sys, threading, time
    sys.path.insert(0, "/app")
    from appsupervisor import Supervisor, SupervisorError
    ways, lock = {}, threading.Lock()
    def say(**what):
        with lock:
            print(json.dumps(what, separators=(",", ":")), flush=True)
    def listen(number, supervisor, names):
        try:
            events = supervisor.events(*names)
            say(n=number, result={})
            for event in events:
                say(heard=number, event=event)
        except SupervisorError as error:
            say(n=number, error=error.code, data=error.data, message=str(error))
    def make(number, call, arguments, supervisor):
        try:
            say(n=number, result=supervisor.call(call, 60, **arguments))
        except SupervisorError as error:
            say(n=number, error=error.code, data=error.data, message=str(error))
    def read():
        with open(sys.argv[1]) as file:
            return [line for line in file if line.endswith("\\n")]
    # What an earlier run was told to do is done.
    done = len(read())
    while True:
        steps = read()
        for number, call, arguments, way in map(json.loads, steps[done:]):
            supervisor = ways.setdefault(way, Supervisor())
            if call == "close":
                supervisor.close()
            elif call == "listen":
                threading.Thread(target=listen, args=(number, supervisor, arguments["names"]), daemon=True).start()
            else:
                threading.Thread(target=make, args=(number, call, arguments, supervisor), daemon=True).start()
        done = len(steps)
        time.sleep(0.02)
    """

  /// Writes the app's policy and what it runs; it is not up yet. `more` are lines of its policy.
  init(_ place: StreamPlace, _ instance: Instance, _ id: String, _ more: String = "") throws {
    self.instance = instance
    self.id = id
    let folder = "\(instance.policies)/app"
    steps = "\(folder)/\(id).steps"
    try FileManager.default.createDirectory(
      atPath: folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o755])
    try Self.program.write(toFile: "\(folder)/driven.py", atomically: true, encoding: .utf8)
    let sdk = try String(contentsOfFile: "\(Instance.sources)/images/sdk/appsupervisor.py", encoding: .utf8)
    try sdk.write(toFile: "\(folder)/appsupervisor.py", atomically: true, encoding: .utf8)
    try "".write(toFile: steps, atomically: false, encoding: .utf8)
    let image = place.rig == nil ? "" : "image: \(Rig.image)\npull_policy: never\n"
    let host = place.rig == nil ? "" : ", \"/usr:/usr:ro\", \"/usr/lib:/lib:ro\", \"/usr/lib64:/lib64:ro\""
    try instance.write(
      id,
      "id: \(id)\n\(image)entry: [/usr/bin/python3, /app/driven.py, /app/\(id).steps]\n"
        + "volumes: [\"./app:/app:ro\"\(host)]\nstop_grace_period: 300ms\n\(more)")
  }

  /// Has it make a call over the connection `way`, and returns at once with the call's number.
  @discardableResult
  func begin(_ call: String, _ arguments: String = "{}", way: String = "") throws -> Int {
    last += 1
    let file = try FileHandle(forWritingTo: URL(fileURLWithPath: steps))
    defer { try? file.close() }
    try file.seekToEnd()
    try file.write(contentsOf: Data("[\(last), \"\(call)\", \(arguments), \"\(way)\"]\n".utf8))
    return last
  }

  /// What it printed of a call: `result`, or `error` with its code.
  func answer(_ number: Int, seconds: Double = 20) -> JSONValue {
    var found: JSONValue?
    eventually("\(id) has an answer to its call \(number)", seconds: seconds) {
      found = said.last { $0["n"]?.integerValue == Int64(number) }
      return found != nil
    }
    return found ?? .null
  }

  /// Whether a call was answered already.
  func isAnswered(_ number: Int) -> Bool { said.contains { $0["n"]?.integerValue == Int64(number) } }

  func call(_ call: String, _ arguments: String = "{}", seconds: Double = 20) throws -> JSONValue {
    answer(try begin(call, arguments), seconds: seconds)
  }

  /// Waits until its program runs, and is heard.
  func awake() {
    eventually("\(id) is heard") {
      guard let number = try? begin("time.now") else { return false }
      for _ in 0..<20 where !isAnswered(number) { usleep(50000) }
      return isAnswered(number) && answer(number)["result"] != nil
    }
  }

  /// The events that came to the `listen` of this number.
  func heard(_ number: Int) -> [JSONValue] {
    said.filter { $0["heard"]?.integerValue == Int64(number) }.compactMap { $0["event"] }
  }

  private var said: [JSONValue] { instance.run("logs", id).lines }
}

extension StreamPlace {
  /// Runs `body` with an instance whose daemon runs.
  func withInstance(_ body: (Instance) throws -> Void) throws {
    if let rig { return try rig.with(body) }
    let instance = try Instance()
    defer { instance.end() }
    try body(instance)
  }
}
