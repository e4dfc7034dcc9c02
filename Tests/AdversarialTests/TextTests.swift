import Foundation
import Model
import Testing

extension Attacks {
  @Suite("by text", .serialized) struct Texts {
    /// What a terminal would act upon: clears, titles, the clipboard, overwriting, reading from right to left.
    private static let nasty =
      "\u{1B}[2J\u{1B}]0;title\u{7}\u{1B}]52;c;cm0gLXJm\u{7}over\rwritten \u{202E}txt.exe\u{9B}31m<script>alert(1)</script>"

    /// As printf(1) takes it.
    private static let octal = nasty.utf8.map { byte in
      let digits = String(byte, radix: 8)
      return "\\" + String(repeating: "0", count: 3 - digits.count) + digits
    }.joined()

    /// In YAML's double quotes.
    private static let quoted = nasty.unicodeScalars.map { scalar in
      scalar.value < 0x20 || (0x7F..<0xA0).contains(scalar.value) || scalar.value == 0x202E
        ? "\\u\(String(format: "%04x", scalar.value))" : String(scalar)
    }.joined()

    @Test(
      "A60: what an app says and is called cannot act upon the terminal of whoever looks", arguments: Ground.available)
    func terminal(_ ground: Ground) throws {
      let arena = try Arena.on(ground)
      let image = ground == .native ? "" : "image: \(Rig.image)\n"
      // A name is for people: controls in it are refused, as in all of a policy, and shown so that they do nothing.
      let named = try arena.instance.write(
        "named", "id: named\n\(image)entry: [/bin/true]\nname: \"\(Self.quoted)\"\n")
      #expect(arena.instance.run("policy", "check", named).code == 2)
      let file = try arena.instance.write(
        "nasty",
        "id: nasty\n\(image)entry: [/bin/sh, -c, 'printf \"\(Self.octal)\\n\" >&2; printf \"\(Self.octal)\\n\"; echo end; exec sleep 1000']\n"
          + "stop_grace_period: 1s\n")
      let up = arena.instance.run("up", "-d", "--wait", "--progress", "quiet", file)
      #expect(up.code == 0, "\(up.err)")
      eventually("it has said all") { arena.instance.run("logs", "nasty").out.contains("end\n") }
      #expect(
        arena.instance.run("logs", "nasty").out.contains(Self.nasty), "a pipe gets the bytes as they were written")
      let broken = try arena.instance.write("broken", "id: broken\n\(Self.nasty.filter { $0 != "\r" })key: 1\n")
      for words in [
        "logs nasty", "logs -t nasty", "ps -a", "status nasty", "explain nasty", "events nasty",
        "config --applied nasty",
        "inspect nasty", "policy check \(broken)", "policy check \(named)", "explain \(file)", "plan \(file)",
      ] {
        // script(1) makes a terminal, whose line ends are CR LF.
        let command = "NO_COLOR= \(Instance.programs)/supervisor \(words) --root \(arena.instance.root)"
        let shown = Shell.run(["script", "-qec", command, "/dev/null"])
        let text = shown.out.replacingOccurrences(of: "\r\n", with: "\n")
        #expect(!text.isEmpty && !text.contains("Usage:"), "\(words): \(text)")
        let found = Self.acting(text)
        #expect(found.isEmpty, "\(words): \(found)")
      }
      for file in [broken, named] { try FileManager.default.removeItem(atPath: file) }
      arena.remove("nasty")
      try arena.check("A60")
    }

    /// Characters of `text` that would do something; colours (`ESC [ … m`) and line ends apart.
    private static func acting(_ text: String) -> [String] {
      var found: [String] = []
      var scalars = Array(text.unicodeScalars)[...]
      while let scalar = scalars.popFirst() {
        if scalar == "\u{1B}", scalars.first == "[" {
          let end = scalars.dropFirst().firstIndex { !("0"..."9").contains($0) && $0 != ";" }
          if let end, scalars[end] == "m" {
            scalars = scalars[(end + 1)...]
            continue
          }
        }
        let isControl = scalar.value < 0x20 && scalar != "\n" && scalar != "\t" || (0x7F..<0xA0).contains(scalar.value)
        let isDirection = (0x202A...0x202E).contains(scalar.value) || (0x2066...0x2069).contains(scalar.value)
        if isControl || isDirection { found.append("U+\(String(scalar.value, radix: 16))") }
      }
      return found
    }
  }
}
