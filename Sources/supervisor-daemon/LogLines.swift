internal import Glibc
internal import Linux
internal import Logging
internal import Model

/// One line an event on standard error, as journald and people like it: `<6>name key=value …` under systemd, with the time elsewhere.
struct LogLines: LogHandler {
  var metadata: Logger.Metadata = [:]
  var logLevel: Logger.Level = .info
  /// Whether standard error is the journal itself, and not what somebody has put in its place since (systemd.exec(5)).
  private let journal: Bool = {
    guard let named = getenv("JOURNAL_STREAM").map({ String(cString: $0) }) else { return false }
    var status = stat()
    return fstat(2, &status) == 0 && named == "\(status.st_dev):\(status.st_ino)"
  }()

  subscript(metadataKey key: String) -> Logger.Metadata.Value? {
    get { metadata[key] }
    set { metadata[key] = newValue }
  }

  func log(event: LogEvent) {
    var line = journal ? "<\(Self.priority(event.level))>" : "\(Self.time()) \(event.level) "
    line += "\(event.message)"
    for (key, value) in (event.metadata ?? [:]).sorted(by: { $0.key < $1.key }) {
      line += " \(key)=\(Self.plain("\(value)"))"
    }
    line += "\n"
    // Best effort: a full disk must not end the daemon.
    _ = line.utf8.withContiguousStorageIfAvailable { write(2, $0.baseAddress, $0.count) }
  }

  private static func priority(_ level: Logger.Level) -> Int {
    switch level {
    case .trace, .debug: 7
    case .info: 6
    case .notice: 5
    case .warning: 4
    case .error: 3
    case .critical: 2
    }
  }

  private static func time() -> String {
    let now = Clock.wall().nanoseconds
    var seconds = time_t(now / 1_000_000_000)
    var parts = tm()
    gmtime_r(&seconds, &parts)
    func two(_ value: Int32) -> String { value < 10 ? "0\(value)" : "\(value)" }
    return
      "\(1900 + parts.tm_year)-\(two(parts.tm_mon + 1))-\(two(parts.tm_mday))T\(two(parts.tm_hour)):\(two(parts.tm_min)):\(two(parts.tm_sec))Z"
  }

  /// A value on one line, quoted if it could be taken for several, with nothing a terminal would act on.
  private static func plain(_ text: String) -> String {
    var safe = ""
    var needsQuotes = text.isEmpty
    for scalar in text.unicodeScalars.prefix(2000) {
      switch scalar.properties.generalCategory {
      // Format: what turns the direction of text, or has no width.
      case .control, .format, .lineSeparator, .paragraphSeparator, .privateUse, .surrogate, .unassigned:
        safe += "\\u{\(String(scalar.value, radix: 16))}"
      default:
        if scalar == " " || scalar == "=" || scalar == "\"" { needsQuotes = true }
        if scalar == "\"" || scalar == "\\" { safe += "\\" }
        safe.unicodeScalars.append(scalar)
      }
    }
    return needsQuotes ? "\"\(safe)\"" : safe
  }
}
