import Model
import Testing

private func parse(_ text: String, _ limits: JSONLimits = .frame) throws -> JSONValue {
  try JSONValue(parsing: Array(text.utf8), limits: limits)
}

@Suite struct JSONTests {
  @Test(
    "what is valid is read and written back the same",
    arguments: [
      "null", "true", "false", "0", "-1", "9223372036854775807", "\"\"", "\"a\\\"b\\\\c\\n\"", "[]", "{}",
      "[1,[2,{\"a\":null}]]", "{\"b\":1,\"a\":{\"c\":[true]}}", "\"\u{e9}\u{1F600}\"",
    ])
  func roundTrip(_ text: String) throws { #expect(try parse(text).text == text) }

  @Test("escapes are read, surrogate pairs included")
  func escapes() throws {
    #expect(try parse(#""\u0041\ud83d\ude00\/\b\f\r\t""#) == .string("A\u{1F600}/\u{8}\u{c}\r\t"))
  }

  @Test("whole numbers stay whole; others become the nearest Double")
  func numbers() throws {
    #expect(try parse("1e3") == .number(1000))
    #expect(try parse("1e3").integerValue == 1000)
    #expect(try parse("9223372036854775808") == .number(9_223_372_036_854_775_808))
    #expect(try parse("1.5").integerValue == nil)
  }

  @Test(
    "what is not valid is refused",
    arguments: [
      "", " ", "{", "[1", "[1,]", "{\"a\":}", "{\"a\" 1}", "{a:1}", "01", "-", "1.", "1e", ".5", "+1", "1e999", "nul",
      "truex", "\"a", "\"\\x\"",
      "\"\\ud800\"", "\"\\ud800\\u0041\"", "\"\\udc00\"", "\"\u{1}\"", "1 2", "{} []", "\u{feff}{}",
      "{\"a\":1,\"a\":2}", "NaN", "'a'",
    ])
  func refused(_ text: String) { #expect(throws: JSONSyntaxError.self) { try parse(text) } }

  @Test(
    "bytes that are not UTF-8 are refused",
    arguments: [[0x22, 0xFF, 0x22], [0x22, 0xC0, 0x80, 0x22], [0x22, 0xED, 0xA0, 0x80, 0x22]] as [[UInt8]])
  func notUTF8(_ bytes: [UInt8]) { #expect(throws: JSONSyntaxError.self) { try JSONValue(parsing: bytes) } }

  @Test("depth and keys are bounded at n and n + 1")
  func limits() throws {
    func nested(_ depth: Int) -> String { String(repeating: "[", count: depth) + String(repeating: "]", count: depth) }
    _ = try parse(nested(64))
    #expect(throws: JSONSyntaxError.self) { try parse(nested(65)) }
    #expect(throws: JSONSyntaxError.self) { try parse(String(repeating: "[", count: 1_000_000)) }
    func keys(_ count: Int) -> String { "{" + (0..<count).map { "\"k\($0)\":0" }.joined(separator: ",") + "}" }
    #expect(try parse(keys(10_000)).objectValue?.count == 10_000)
    #expect(throws: JSONSyntaxError.self) { try parse(keys(10_001)) }
    func elements(_ count: Int) -> String { "[[" + (1..<count).map { _ in "0" }.joined(separator: ",") + "]]" }
    #expect(try parse(elements(100_000)).arrayValue?.first?.arrayValue?.count == 99_999)
    #expect(throws: JSONSyntaxError.self) { try parse(elements(100_001)) }
  }

  @Test("a valid document cut at any byte is refused, never more")
  func cut() throws {
    let text = Array(#"{"a":[1,-2.5e3,"x\u00e9\n",{"b":null}],"c":true}"#.utf8)
    for end in 0..<text.count { #expect(throws: JSONSyntaxError.self) { try JSONValue(parsing: text[..<end]) } }
  }
}

@Suite struct NameAndSizeTests {
  @Test("an app's name is safe as a path and a cgroup by construction")
  func names() {
    for good in ["a", "0", "web-1_x", String(repeating: "a", count: 63)] { #expect(AppID(good) != nil) }
    for bad in ["", "-a", "_a", "A", "a.b", "a/b", "..", "a b", "é", "a\u{0}", String(repeating: "a", count: 64)] {
      #expect(AppID(bad) == nil)
    }
    #expect(AppID("job")?.instance(2).description == "job.2")
    #expect(AppID(stored: "job.2") == AppID("job")?.instance(2))
    for bad in ["job.0", "job.02", "job.x", ".1", "a.b.1"] { #expect(AppID(stored: bad) == nil) }
  }

  @Test(
    "sizes are 1024-based, exact, and bounded",
    arguments: [("64m", 64 << 20), ("1.5g", 3 << 29), ("512kb", 512 << 10), ("7", 7)] as [(String, UInt64)])
  func sizes(_ text: String, _ count: UInt64) { #expect(Bytes(parsing: text)?.count == count) }

  @Test(
    "what is no size is none",
    arguments: ["", "m", "-1", "1x", "1e3", "1..5m", ".5m", "5.", "9223372036854775808", "99999999t"])
  func noSizes(_ text: String) { #expect(Bytes(parsing: text) == nil) }

  @Test("durations add their parts up, and a bare number is none")
  func durations() {
    #expect(Duration(parsing: "1h5m30s20ms") == .milliseconds(3_930_020))
    #expect(Duration(parsing: "0") == .zero)
    for bad in ["", "5", "s", "1q", "-1s", "1s2", "1e300h"] { #expect(Duration(parsing: bad) == nil, "\(bad)") }
    #expect(Duration.milliseconds(3_930_020).compact == "1h5m30s20ms")
  }

  @Test("base64 is read back, and nothing else is", arguments: [0, 1, 2, 3, 255])
  func base64(_ count: Int) {
    let bytes = (0..<count).map { UInt8(truncatingIfNeeded: $0 &* 37) }
    #expect(Base64.decode(Base64.encode(bytes)) == bytes)
    for bad in ["a", "abc", "====", "ab=c", "a b="] { #expect(Base64.decode(bad) == nil) }
  }
}
