import Model
import Testing

@testable import Calls

@Suite("what apps may ask people") struct PromptBoundsTests {
  @Test("an app's words are one line that turns nothing and is not long")
  func words() {
    for (text, expected) in [
      ("to read the host's name", "to read the host's name"), ("", ""), (" \n\t ", ""),
      ("a\u{1B}[2Jb\r\nc\u{0}d\u{9B}e", "a [2Jb c d e"), ("x\u{202E}y\u{2066}z\u{200F}", "x y z"),
      ("tag\u{E0041}s \u{FEFF}end\u{2028}", "tag s end"), ("caf\u{E9} \u{1F600}", "caf\u{E9} \u{1F600}"),
    ] { #expect(PromptBounds.clean(text) == expected) }
    #expect(PromptBounds.clean(String(repeating: "a", count: 200)).count == 200)
    let long = PromptBounds.clean(String(repeating: "e\u{301}", count: 100_000))
    #expect(long.unicodeScalars.count == 200 && long.hasSuffix("…"))
  }

  @Test("ten questions a minute, each app by itself, and nothing is kept of the minute before")
  func rate() throws {
    var bounds = PromptBounds()
    let (one, two) = (try #require(AppID("one")), try #require(AppID("two")))
    func admits(_ app: AppID, _ seconds: Double) -> Bool { bounds.admit(app, Int64(seconds * 1e9)) }
    for second in 0..<10 { #expect(admits(one, Double(second))) }
    #expect(!admits(one, 59) && admits(two, 59))
    #expect(admits(one, 60.5) && !admits(one, 60.6))
    #expect(admits(two, 200) && admits(one, 200))
  }

  @Test("a grant for one use is used once, and never where a denial stands")
  func once() throws {
    var set = RightSet()
    let permission = try Permission(parsing: "app.stop:web-*")
    set.grant(permission, .once)
    guard case .allowed(let rule) = set.decide(.stopApp, "web-1") else {
      Issue.record("it is not granted")
      return
    }
    set.spend(rule)
    #expect(set.decide(.stopApp, "web-1") == .denied(nil))
    set.grant(permission, .once)
    set.deny(permission, .policy)
    if case .allowed = set.decide(.stopApp, "web-1") { Issue.record("a denial wins") }
  }
}
