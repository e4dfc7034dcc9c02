// A small web server: GET / is a page, /healthz says ok, /env shows what an app can see of itself.
//
// One process, one thread, one request per connection. What a client sends is bounded in size and in time, so no
// client can hold it for long. PORT chooses the port (8080). Ends at once on SIGTERM.
import Glibc

let headerLimit = 8 * 1024
let requestSeconds = 5

func say(_ line: String) {
  print(line)
  fflush(nil)
}

func fail(_ what: String) -> Never {
  say("web: \(what): \(String(cString: strerror(errno)))")
  exit(1)
}

/// The request's head, or nil when it is too long, too slow or cut off.
func readHead(_ client: Int32) -> String? {
  var head: [UInt8] = []
  var chunk = [UInt8](repeating: 0, count: 1024)
  let deadline = time(nil) + requestSeconds
  while head.count <= headerLimit, time(nil) <= deadline {
    let count = recv(client, &chunk, chunk.count, 0)
    guard count > 0 else { return nil }
    head += chunk[0..<count]
    // An empty line ends the head; what follows it, a body, is not read.
    let end = head.indices.dropLast(3).first { head[$0...].starts(with: [13, 10, 13, 10]) }
    if let end, end <= headerLimit { return String(decoding: head[..<end], as: UTF8.self) }
  }
  return nil
}

func respond(_ client: Int32, _ status: String, _ body: String, type: String = "text/plain", bodyWanted: Bool = true) {
  var answer = "HTTP/1.1 \(status)\r\nContent-Type: \(type); charset=utf-8\r\n"
  answer += "Content-Length: \(body.utf8.count)\r\nConnection: close\r\n\r\n"
  var rest = Array((answer + (bodyWanted ? body : "")).utf8)[...]
  while !rest.isEmpty {
    let sent = rest.withUnsafeBytes { send(client, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL)) }
    guard sent > 0 else { return }
    rest = rest.dropFirst(sent)
  }
}

func variable(_ name: String) -> String? {
  getenv(name).map { String(cString: $0) }
}

/// One request, answered.
func serve(_ client: Int32) {
  guard let head = readHead(client) else {
    return respond(client, "431 Request Header Fields Too Large", "too long or too slow\n")
  }
  let words = head.prefix { $0 != "\r\n" }.split(separator: " ")
  guard words.count == 3 else { return respond(client, "400 Bad Request", "bad request\n") }
  let (method, path) = (words[0], words[1].prefix { $0 != "?" })
  guard method == "GET" || method == "HEAD" else {
    return respond(client, "405 Method Not Allowed", "only GET and HEAD\n")
  }
  let wanted = method == "GET"
  switch path {
  case "/":
    let page = "<!doctype html><title>web</title><h1>It works</h1><p>Served by an app under appsupervisor.</p>\n"
    respond(client, "200 OK", page, type: "text/html", bodyWanted: wanted)
  case "/healthz":
    respond(client, "200 OK", "ok\n", bodyWanted: wanted)
  case "/env":
    // Chosen names only: an environment often holds secrets.
    let shown = ["PORT", "MODE", "HOSTNAME"].map { "\($0)=\(variable($0) ?? "")\n" }.joined()
    respond(client, "200 OK", "uid=\(getuid())\npid=\(getpid())\n" + shown, bodyWanted: wanted)
  default:
    respond(client, "404 Not Found", "no such page\n", bodyWanted: wanted)
  }
}

guard let port = UInt16(variable("PORT") ?? "8080"), port > 0 else {
  say("web: PORT must be a number from 1 to 65535")
  exit(2)
}

// A handler is enough: there is no state to save. As process 1 of a container the default would be to ignore it.
signal(SIGTERM) { _ in _exit(0) }
signal(SIGINT) { _ in _exit(0) }

let listener = socket(AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
if listener < 0 { fail("socket") }
var yes: Int32 = 1
setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
var address = sockaddr_in()
address.sin_family = sa_family_t(AF_INET)
address.sin_port = port.bigEndian
address.sin_addr.s_addr = 0  // every address of the app's own network
let size = socklen_t(MemoryLayout<sockaddr_in>.size)
let bound = withUnsafePointer(to: &address) {
  $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { bind(listener, $0, size) }
}
if bound != 0 { fail("bind to port \(port)") }
if listen(listener, 64) != 0 { fail("listen") }
say("web: listening on \(port)")

while true {
  let client = accept(listener, nil, nil)
  guard client >= 0 else { continue }
  var patience = timeval(tv_sec: requestSeconds, tv_usec: 0)
  setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
  serve(client)
  close(client)
}
