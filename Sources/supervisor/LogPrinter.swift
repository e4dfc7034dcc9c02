internal import Glibc
internal import Model

/// Prints chunks of several apps' output as whole lines, each with its app in front.
final class LogPrinter {
  private let prefixed: Bool
  private let timestamps: Bool
  private let json: Bool
  private var partial: [String: (bytes: [UInt8], time: WallTime)] = [:]
  private var colours: [String: Style] = [:]
  private let palette: [Style] = [.accent, .good, .warning, .bold]

  init(prefixed: Bool, timestamps: Bool, json: Bool) {
    self.prefixed = prefixed
    self.timestamps = timestamps
    self.json = json
  }

  /// Takes one item of `app.logs`.
  func take(_ item: JSONValue) {
    if json {
      Output.line(item.text)
      return
    }
    guard let app = item["app"]?.stringValue else { return }
    let stream = item["stream"]?.stringValue == "stderr" ? Int32(2) : 1
    let time = WallTime(nanoseconds: item["time"]?.integerValue ?? 0)
    let bytes =
      item["text"]?.stringValue.map { Array($0.utf8) } ?? item["base64"]?.stringValue.flatMap { Base64.decode($0) }
      ?? []
    guard prefixed || timestamps || Output.isTerminal else {
      Output.bytes(stream, bytes)
      return
    }
    let key = "\(stream) \(app)"
    var (held, began) = partial[key] ?? ([], time)
    var rest = bytes[...]
    while let end = rest.firstIndex(of: 0x0A) {
      print(app, stream, held + rest[..<end], held.isEmpty ? time : began)
      held = []
      began = time
      rest = rest[(end + 1)...]
    }
    held += rest
    // One endless line is shown in pieces rather than kept.
    if held.count > 1 << 16 {
      print(app, stream, held, began)
      held = []
    }
    partial[key] = held.isEmpty ? nil : (held, began)
  }

  /// Prints what had no line end.
  func finish() {
    for (key, (bytes, time)) in partial.sorted(by: { $0.key < $1.key }) {
      print(String(key.dropFirst(2)), key.hasPrefix("2") ? 2 : 1, bytes, time)
    }
    partial = [:]
  }

  private func print(_ app: String, _ stream: Int32, _ line: [UInt8], _ time: WallTime) {
    var text = ""
    if prefixed {
      let colour = colours[app] ?? palette[colours.count % palette.count]
      colours[app] = colour
      text += colour.on("\(app) |") + " "
    }
    if timestamps { text += LocalTime.text(time) + " " }
    // A terminal is shown an app's colours (SGR) but none of the other controls.
    let body = String(decoding: line, as: UTF8.self)
    text += Output.isTerminal ? Self.onlyColours(body) : body
    Output.bytes(stream, Array((text + "\n").utf8))
  }

  /// `text` with every control escaped but tab and the colour sequences ESC [ … m; colours are dropped where they are off.
  static func onlyColours(_ text: String) -> String {
    guard text.unicodeScalars.contains(where: { $0.value < 0x20 || $0.value >= 0x7F }) else { return text }
    var safe = ""
    var rest = text.unicodeScalars[...]
    var coloured = false
    while let scalar = rest.first {
      if scalar == "\u{1B}", let end = colourEnd(rest) {
        if Output.style {
          safe.unicodeScalars.append(contentsOf: rest[..<end])
          coloured = true
        }
        rest = rest[end...]
        continue
      }
      if scalar == "\t" {
        safe += "\t"
      } else if scalar != "\r" || rest.count > 1 {
        safe += Output.escaped(String(scalar))
      }
      rest = rest.dropFirst()
    }
    return coloured ? safe + "\u{1B}[0m" : safe
  }

  private static func colourEnd(_ text: Substring.UnicodeScalarView) -> Substring.UnicodeScalarView.Index? {
    var index = text.index(after: text.startIndex)
    guard index < text.endIndex, text[index] == "[" else { return nil }
    index = text.index(after: index)
    var length = 0
    while index < text.endIndex, length < 32 {
      if text[index] == "m" { return text.index(after: index) }
      guard ("0"..."9").contains(text[index]) || text[index] == ";" else { return nil }
      index = text.index(after: index)
      length += 1
    }
    return nil
  }
}

/// Times of the wall clock as text.
enum LocalTime {
  /// RFC 3339 with milliseconds, UTC.
  static func text(_ time: WallTime) -> String {
    var seconds = time_t(time.nanoseconds / 1_000_000_000)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
    let milliseconds = String(1000 + time.nanoseconds / 1_000_000 % 1000).dropFirst()
    return
      "\(1900 + parts.tm_year)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec)).\(milliseconds)Z"
  }

  /// RFC 3339 in UTC (`Z`), with or without a fraction.
  static func parse(_ text: String) -> WallTime? {
    let text = text.uppercased()
    guard text.hasSuffix("Z"), text.count >= 20, text.utf8.count == text.count else { return nil }
    let fields = text.prefix(19).split(whereSeparator: { "-T:".contains($0) }).compactMap { Int32($0) }
    guard fields.count == 6, (1...12).contains(fields[1]), (1...31).contains(fields[2]), fields[3] < 24, fields[4] < 60,
      fields[5] < 61
    else { return nil }
    let tail = text.dropFirst(19).dropLast()
    guard tail.isEmpty || tail.hasPrefix("."), let fraction = tail.isEmpty ? 0 : Double("0\(tail)") else { return nil }
    var parts = tm()
    parts.tm_year = fields[0] - 1900
    parts.tm_mon = fields[1] - 1
    parts.tm_mday = fields[2]
    parts.tm_hour = fields[3]
    parts.tm_min = fields[4]
    parts.tm_sec = fields[5]
    return WallTime(nanoseconds: Int64(timegm(&parts)) * 1_000_000_000 + Int64(fraction * 1e9))
  }
}
