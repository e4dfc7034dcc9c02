internal import Glibc
internal import Model

/// Colours, by their ANSI codes.
enum Style: String {
  case good = "32"
  case warning = "33"
  case error = "31"
  case dim = "2"
  case bold = "1"
  case accent = "36"

  /// `text` in this style, if styles are on.
  func on(_ text: String, _ enabled: Bool = Output.style) -> String {
    enabled ? "\u{1B}[\(rawValue)m\(text)\u{1B}[0m" : text
  }
}

/// Standard output and standard error, as this run was told to use them.
enum Output {
  // SAFETY: set once while arguments are read, before anything else runs; the CLI has one thread.
  nonisolated(unsafe) static var json = false
  nonisolated(unsafe) private(set) static var style = false
  nonisolated(unsafe) private(set) static var errorStyle = false

  static func choose(_ ansi: Ansi) {
    let off = getenv("NO_COLOR").map { $0.pointee != 0 } ?? false
    func enabled(_ raw: Int32) -> Bool {
      switch ansi {
      case .always: true
      case .never: false
      case .auto:
        !off && isatty(raw) == 1
          && String(cString: getenv("TERM") ?? UnsafeMutablePointer(mutating: ("dumb" as StaticString).cString))
            != "dumb"
      }
    }
    style = enabled(1)
    errorStyle = enabled(2)
  }

  static var isTerminal: Bool { isatty(1) == 1 }
  static var errorIsTerminal: Bool { isatty(2) == 1 }

  /// The terminal's columns; 0: not a terminal.
  static func columns(_ raw: Int32 = 1) -> Int {
    var size = winsize()
    guard ioctl(raw, UInt(TIOCGWINSZ), &size) == 0 else { return 0 }
    return Int(size.ws_col)
  }

  /// The terminal's rows; 24 where it says nothing.
  static func rows() -> Int {
    var size = winsize()
    guard ioctl(1, UInt(TIOCGWINSZ), &size) == 0, size.ws_row > 0 else { return 24 }
    return Int(size.ws_row)
  }

  static func line(_ text: String) { write(1, text + "\n") }
  static func error(_ text: String) { write(2, text + "\n") }
  static func errorLine(_ text: String) { write(2, text + "\n") }
  static func raw(_ text: String) { write(1, text) }
  static func rawError(_ text: String) { write(2, text) }

  /// Bytes of an app, as they are: only where no terminal could act on them.
  static func bytes(_ raw: Int32, _ bytes: [UInt8]) {
    var rest = bytes[...]
    while !rest.isEmpty {
      let wrote = rest.withUnsafeBytes { Glibc.write(raw, $0.baseAddress, $0.count) }
      // A reader that left (`| head`) ends the verb quietly.
      if wrote < 0 { Glibc.exit(raw == 1 ? 0 : 1) }
      rest = rest.dropFirst(wrote)
    }
  }

  private static func write(_ raw: Int32, _ text: String) { bytes(raw, Array(text.utf8)) }

  /// Text of an app or an engine with everything a terminal would act on shown instead: it can be seen, and does nothing.
  static func escaped(_ text: String, keepingLines: Bool = false) -> String {
    guard text.unicodeScalars.contains(where: { isActive($0) }) else { return text }
    var safe = ""
    for scalar in text.unicodeScalars {
      if !isActive(scalar) || (keepingLines && (scalar == "\n" || scalar == "\t")) {
        safe.unicodeScalars.append(scalar)
      } else {
        safe += "\\u{\(String(scalar.value, radix: 16))}"
      }
    }
    return safe
  }

  /// Controls, and the marks that turn the direction of writing.
  private static func isActive(_ scalar: Unicode.Scalar) -> Bool {
    scalar.value < 0x20 || (0x7F..<0xA0).contains(scalar.value) || (0x202A...0x202E).contains(scalar.value)
      || (0x2066...0x2069).contains(scalar.value) || scalar.value == 0x200E || scalar.value == 0x200F
  }
}

extension StaticString {
  fileprivate var cString: UnsafePointer<CChar> { UnsafeRawPointer(utf8Start).assumingMemoryBound(to: CChar.self) }
}

/// Columns that line up; a cell may be styled without upsetting them.
struct Table {
  struct Cell {
    var text: String
    var style: Style?
    init(_ text: String, _ style: Style? = nil) {
      self.text = Output.escaped(text)
      self.style = style
    }
  }

  private var rows: [[Cell]] = []
  private let header: [String]

  init(_ header: [String]) { self.header = header }

  mutating func add(_ cells: [Cell]) { rows.append(cells) }

  func print() {
    let wanted = header.indices.map { column in
      max(header[column].count, rows.map { $0[column].text.count }.max() ?? 0)
    }
    let (widths, gap) = Self.fit(wanted, headers: header.map(\.count), columns: Output.columns())
    func line(_ cells: [Cell]) -> String {
      let last = cells.lastIndex { !$0.text.isEmpty } ?? 0
      return cells.prefix(last + 1).enumerated().map { place, cell in
        let text = cell.text.count > widths[place] ? cell.text.prefix(widths[place] - 1) + "…" : cell.text
        let styled = cell.style?.on(text) ?? text
        return place == last ? styled : styled + String(repeating: " ", count: widths[place] - text.count + gap)
      }.joined()
    }
    Output.line(line(header.map { Cell($0, .bold) }))
    for row in rows { Output.line(line(row)) }
  }

  /// The columns' widths and the gap between them on a terminal of so many columns (0: no terminal, nothing is cut). The
  /// widest give way first, never the first column and none below its header: a table too wide for that wraps.
  static func fit(_ wanted: [Int], headers: [Int], columns: Int) -> (widths: [Int], gap: Int) {
    let room = { (gap: Int) in columns - gap * (wanted.count - 1) }
    if columns == 0 || wanted.reduce(0, +) <= room(3) { return (wanted, 3) }
    var widths = wanted
    var excess = widths.reduce(0, +) - room(2)
    while excess > 0 {
      let open = widths.indices.dropFirst().filter { widths[$0] > max(headers[$0], 8) }
      guard let widest = open.max(by: { widths[$0] < widths[$1] }) else { return (widths, 2) }
      widths[widest] -= 1
      excess -= 1
    }
    return (widths, 2)
  }
}
