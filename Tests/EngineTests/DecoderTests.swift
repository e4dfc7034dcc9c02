@testable import EngineAPI
import Model
import Testing

@Suite("what is read from and written to an engine")
struct DecoderTests {
  private func frame(_ stream: UInt8, _ text: String) -> [UInt8] {
    let size = text.utf8.count
    return [stream, 0, 0, 0, 0, 0, UInt8(size >> 8), UInt8(size & 255)] + Array(text.utf8)
  }

  private func all(_ decoder: OutputDecoder, _ pieces: [[UInt8]]) throws -> [OutputChunk] {
    var decoder = decoder
    var chunks: [OutputChunk] = []
    for piece in pieces {
      decoder.take(piece)
      while let chunk = try decoder.next() { chunks.append(chunk) }
    }
    while let chunk = try decoder.end() { chunks.append(chunk) }
    return chunks
  }

  @Test("frames come out the same however the bytes are cut")
  func cuts() throws {
    let bytes = frame(1, "out") + frame(2, "") + frame(2, "error\n") + frame(1, String(repeating: "x", count: 300))
    let whole = try all(OutputDecoder(operation: "t", raw: false, frameLimit: 1000), [bytes])
    #expect(whole.map(\.text) == ["out", "error\n", String(repeating: "x", count: 300)])
    for size in 1...20 {
      let pieces = stride(from: 0, to: bytes.count, by: size).map { Array(bytes[$0..<min($0 + size, bytes.count)]) }
      #expect(try all(OutputDecoder(operation: "t", raw: false, frameLimit: 1000), pieces) == whole)
    }
  }

  @Test("a frame of exactly the limit is taken, one byte more is not")
  func frameLimit() throws {
    let decoder = OutputDecoder(operation: "t", raw: false, frameLimit: 300)
    #expect(try all(decoder, [frame(1, String(repeating: "x", count: 300))]).count == 1)
    #expect(throws: EngineFailure.self) { try all(decoder, [frame(1, String(repeating: "x", count: 301))]) }
  }

  @Test("a log read a second time leaves out exactly what was delivered")
  func again() throws {
    let times = ["01", "02", "02", "02", "03", "03"]
    let frames = times.enumerated().map {
      frame($0.offset == 3 ? 2 : 1, "2024-01-01T00:00:\($0.element)Z \($0.offset)")
    }
    for delivered in 0...frames.count {
      var first = OutputDecoder(operation: "t", raw: false, times: .hidden, frameLimit: 1000)
      var texts: [String] = []
      for bytes in frames[..<delivered] {
        first.take(bytes)
        while let chunk = try first.next() { texts.append(chunk.text) }
      }
      let second = try #require(first.again)
      #expect(second.again == nil)
      texts += try all(second, frames).map(\.text)
      #expect(texts == ["0", "1", "2", "3", "4", "5"], "after \(delivered)")
    }
  }

  @Test("JSON lines come out the same however they are cut, within their limit")
  func lines() throws {
    let bytes = Array("{\"a\":1}\r\n\n{\"a\":2}\n{\"a\":3}".utf8)
    for size in 1...bytes.count {
      var decoder = JSONLines<Int64>(operation: "t", lineLimit: 8) { (json) throws(EngineFailure) in json.whole("a") }
      var values: [Int64] = []
      for start in stride(from: 0, to: bytes.count, by: size) {
        decoder.take(Array(bytes[start..<min(start + size, bytes.count)]))
        while let value = try decoder.next() { values.append(value) }
      }
      if let value = try decoder.end() { values.append(value) }
      #expect(values == [1, 2, 3])
    }
    for text in ["{\"a\":1234}\n", "{\"a\":123456", "{\"a\":x}\n"] {
      var decoder = JSONLines<Int64>(operation: "t", lineLimit: 8) { (json) throws(EngineFailure) in json.whole("a") }
      decoder.take(Array(text.utf8))
      let result = Result { try decoder.next() }
      #expect(throws: EngineFailure.self) { try result.get() }
    }
  }

  @Test(
    "times of the engine are read to the nanosecond",
    arguments: [
      ("1970-01-01T00:00:00Z", Int64(0)), ("2024-02-29T12:34:56.123456789Z", 1_709_210_096_123_456_789),
      ("2024-02-29T13:34:56.5+01:00", 1_709_210_096_500_000_000),
      ("2000-03-01T00:00:00-00:30", 951_870_600_000_000_000),
    ])
  func times(_ text: String, _ nanoseconds: Int64) {
    #expect(WallTime(rfc3339: text)?.nanoseconds == nanoseconds)
  }

  @Test(
    "what is not a time is none",
    arguments: [
      "", "0001-01-01T00:00:00Z", "2024-13-01T00:00:00Z", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00",
      "2024-01-01T00:00:00+1:00", "2024-01-01T00:00:00Zx", "9999999999999999999999",
    ])
  func noTimes(_ text: String) { #expect(WallTime(rfc3339: text) == nil) }

  @Test(
    "an image's name is taken apart",
    arguments: [
      ("busybox", "busybox", "latest"), ("busybox:1", "busybox", "1"), ("host:5000/a/b", "host:5000/a/b", "latest"),
      ("host:5000/a/b:2", "host:5000/a/b", "2"), ("a@sha256:ff", "a", "sha256:ff"),
      ("h:1/a:2@sha256:ff", "h:1/a", "sha256:ff"),
    ])
  func references(_ text: String, _ name: String, _ tag: String) {
    let reference = ImageReference(text)
    #expect(reference.name == name && reference.tag == tag)
  }

  @Test("base64url is RFC 4648's")
  func base64() {
    for (text, expected) in [
      ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("\u{ff}\u{fe}", "w7_Dvg=="),
    ] {
      #expect(RegistryCredentials.base64(Array(text.utf8)) == expected)
    }
  }

  @Test("paths and queries are encoded, so that a name cannot change the request")
  func encoding() {
    var request = Request(.get, "/containers/\(Request.encode("a/../b?x=1#\r\n"))/json", "t")
    request.query = [("a b", "c&d=é")]
    #expect(request.target == "/containers/a%2F..%2Fb%3Fx%3D1%23%0D%0A/json?a%20b=c%26d%3D%C3%A9")
  }

  @Test("a spec says nothing it was not told: nil lists stay out of the request")
  func absent() {
    var spec = ContainerSpec(image: "x")
    let plain = spec.json(EngineDifferences(.docker))
    #expect(plain["HostConfig"]?["MaskedPaths"] == nil && plain["HostConfig"]?["ReadonlyPaths"] == nil)
    #expect(plain["Entrypoint"] == nil && plain["HostConfig"]?["Memory"] == nil)
    #expect(plain["HostConfig"]?["Privileged"] == false && plain["HostConfig"]?["Devices"] == [])
    spec.host.maskedPaths = ["/proc/keys"]
    spec.host.seccomp = .profile(json: "{}", file: "/x")
    #expect(spec.json(EngineDifferences(.docker))["HostConfig"]?["MaskedPaths"] == ["/proc/keys"])
    #expect(spec.json(EngineDifferences(.docker))["HostConfig"]?["SecurityOpt"] == ["seccomp={}"])
  }

  @Test("what is asked for does not show its values when it is printed")
  func printed() {
    var container = ContainerSpec(image: "x")
    container.environment = [("A", "hunter2")]
    var exec = ExecSpec(["x", "hunter2"])
    exec.environment = [("A", "hunter2")]
    var build = BuildSpec(tag: ImageReference("x"))
    build.arguments = ["A": "hunter2"]
    for text in ["\(container)\(exec)\(build)", "\([container])", String(reflecting: exec), String(reflecting: build)] {
      #expect(!text.contains("hunter2"))
    }
    var dumped = ""
    dump((container, exec, build), to: &dumped)
    #expect(!dumped.contains("hunter2"))
  }

  @Test("podman is told the same in its own words, or refuses what it cannot hold to")
  func podman() throws {
    let differences = EngineDifferences(.podman)
    var spec = ContainerSpec(image: "x")
    spec.host.maskedPaths = ["/a", "/b"]
    spec.host.seccomp = .profile(json: "{}", file: "/x")
    spec.host.log = LogSpec(driver: "local", options: ["max-size": "1m", "max-file": "2"])
    let adapted = try differences.adapted(spec)
    let json = adapted.json(differences)
    #expect(json["HostConfig"]?["SecurityOpt"] == ["seccomp=/x", "mask=/a:/b"])
    #expect(json["HostConfig"]?["LogConfig"]?["Type"] == "json-file")
    #expect(!differences.losses(spec).isEmpty && EngineDifferences(.docker).losses(spec).isEmpty)
    spec.host.seccomp = .profile(json: "{}", file: nil)
    #expect(throws: EngineFailure.self) { try differences.adapted(spec) }
  }

  @Test("the engine to use is the one named, else the usual places")
  func candidates() {
    let none: (String) -> String? = { _ in nil }
    #expect(EngineEndpoint.candidates(given: "unix:///a", environment: none).map(\.socket) == ["/a"])
    let docker = EngineEndpoint.candidates(given: nil, environment: { $0 == "DOCKER_HOST" ? "/d" : "/c" })
    #expect(docker.map(\.socket) == ["/d"])
    #expect(EngineEndpoint.candidates(given: "tcp://x:2375", environment: none).isEmpty)
    let usual = EngineEndpoint.candidates(given: nil, environment: none, runtimeFolder: "/run/user/7")
    #expect(usual.map(\.socket).suffix(2) == ["/run/docker.sock", "/run/podman/podman.sock"] && usual.count == 4)
  }
}
