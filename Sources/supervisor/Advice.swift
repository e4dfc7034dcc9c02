internal import Model
internal import RPC

/// The line of a policy that would help, where what happened says so.
///
/// It goes by the kernel's counters, and by what the app wrote last: programs name the call or the path that was refused, and what the
/// policy and the image say tells which line is missing.
struct Advice {
  private let exit: JSONValue
  private let image: JSONValue?
  private let output: [String]
  private var lines: [String] = []

  /// `exit` has the keys of `app.exits`: the run's end, its last output, and of its policy what is given to it.
  static func lines(_ exit: JSONValue, image: JSONValue? = nil) -> [String] {
    var advice = Advice(exit, image)
    advice.memoryAndTasks()
    let rights = advice.capabilities()
    advice.places()
    advice.user()
    advice.settings()
    advice.codes(isExplained: !rights.isEmpty || !advice.lines.isEmpty)
    return advice.lines
  }

  /// What the config of a policy's image says. Best effort: without it advice is less exact.
  static func image(_ policy: JSONValue?, _ client: RPCClient) -> JSONValue? {
    guard let name = policy?["image"]?.stringValue else { return nil }
    return try? client.ask("image.inspect", .object(["reference": .string(name)]))
  }

  private init(_ exit: JSONValue, _ image: JSONValue?) {
    self.exit = exit
    self.image = image
    let text = (exit["output"]?.stringValue ?? "") + "\n" + (exit["reason"]?.stringValue ?? "")
    output = text.split(whereSeparator: \.isNewline).map { String($0) }
  }

  private var policy: JSONValue? { exit["policy"] }
  private func texts(_ value: JSONValue?) -> [String] { value?.arrayValue?.compactMap(\.stringValue) ?? [] }
  private var isImageUser: Bool { policy?["user"]?.stringValue == "image" }
  private var held: Set<String> { Set(texts(policy?["cap_add"])) }
  private var mounted: [String] { texts(policy?["mounts"]) }
  private func whole(_ key: String) -> UInt64 { exit[key]?.integerValue.map { UInt64(clamping: $0) } ?? 0 }

  private mutating func say(_ line: String) { if !lines.contains(line) { lines.append(line) } }

  private func lines(with words: String...) -> [(line: String, lower: String)] {
    output.map { ($0, $0.lowercased()) }.filter { entry in words.contains { entry.1.contains($0) } }
  }

  // MARK: Limits

  private mutating func memoryAndTasks() {
    if exit["oom"]?.boolValue == true || whole("oom_kills") > 0 {
      let limit = whole("memory_limit")
      let more = limit > 0 ? Bytes(limit * 2).compactText : "1g"
      say("It ran out of memory. Give it more: `mem_limit: \(more)`.")
    }
    if whole("pids_refused") > 0 || !lines(with: "resource temporarily unavailable").isEmpty {
      say("It was refused more tasks. Raise `pids_limit`.")
    }
    if !lines(with: "no space left on device").isEmpty {
      say("A place it writes to is full: raise the size of its `tmpfs`, or make it a volume.")
    }
  }

  // MARK: Rights

  /// What a refused call needs; the first that a line names.
  private static let calls = [
    ("setgroups", "SETGID"), ("initgroups", "SETGID"), ("setresgid", "SETGID"), ("setegid", "SETGID"),
    ("setgid", "SETGID"), ("setresuid", "SETUID"), ("seteuid", "SETUID"), ("setuid", "SETUID"), ("chown", "CHOWN"),
    ("changing ownership", "CHOWN"), ("chmod", "FOWNER"), ("changing permissions", "FOWNER"), ("utime", "FOWNER"),
    ("forwarding signal", "KILL"), ("kill(", "KILL"), ("bind()", "NET_BIND_SERVICE"), ("bind(", "NET_BIND_SERVICE"),
    ("raw socket", "NET_RAW"), ("mknod", "MKNOD"), ("chroot", "SYS_CHROOT"), ("sethostname", "SYS_ADMIN"),
    ("mount", "SYS_ADMIN"),
  ]

  private mutating func capabilities() -> [String] {
    var missing: [String] = []
    func add(_ name: String) { if !held.contains(name), !missing.contains(name) { missing.append(name) } }
    for (_, line) in lines(with: "operation not permitted") {
      if let call = Self.calls.first(where: { line.contains($0.0) }) { add(call.1) }
    }
    for (_, line) in lines(with: "permission denied") {
      if line.contains("bind(") {
        add("NET_BIND_SERVICE")
      } else if isImageUser, Self.path(line) != nil || line.contains("'.'") || line.contains("‘.’") {
        // Root without it is held to the modes of what belongs to others.
        add("DAC_OVERRIDE")
      }
    }
    guard !missing.isEmpty else { return [] }
    let all = (held.union(missing)).sorted().joined(separator: ", ")
    say(
      "It asks for what needs \(missing.count == 1 ? "a capability" : "capabilities"), \(missing.joined(separator: " and ")). "
        + "`cap_add: [\(all)]` gives it, if it must have it.")
    return missing
  }

  // MARK: Places

  private mutating func places() {
    var found: [String] = []
    for (line, lower) in lines(with: "read-only file system", "permission denied") {
      let isDenied = !lower.contains("read-only file system")
      // Root is refused by modes, which no place changes.
      guard !isDenied || !isImageUser, found.count < 3, let path = Self.path(line) ?? relative(line) else { continue }
      let place = place(of: path)
      guard !found.contains(place), !mounted.contains(place) || isDenied else { continue }
      found.append(place)
      if isDenied, mounted.contains(where: { path == $0 || path.hasPrefix($0 + "/") }) { continue }
      let isScratch = ["/run", "/tmp", "/var/run", "/var/tmp", "/var/cache", "/var/log"].contains {
        place == $0 || place.hasPrefix($0 + "/")
      }
      let rule =
        isScratch ? "`tmpfs: [\"\(place):size=64m\"]`" : "`volumes: [\"NAME:\(place)\"]`, or `tmpfs`"
      say("It may not write \(place). Give it a place: \(rule).")
    }
  }

  /// The folder that has to be a place of the app's: what the image calls a volume, else the one the path lies in.
  private func place(of path: String) -> String {
    let declared = texts(image?["volumes"]).first { path == $0 || path.hasPrefix($0 + "/") }
    if let declared { return declared }
    let parts = path.split(separator: "/")
    // A file's folder; a folder that is itself named, where that is plain.
    let isFolder = ["/var/run/", "/run/", "/var/lib/", "/var/cache/", "/var/log/"].contains { path.hasPrefix($0) }
    let depth = max(1, min(parts.last?.contains(".") == true || !isFolder ? parts.count - 1 : parts.count, 3))
    return "/" + parts.prefix(depth).joined(separator: "/")
  }

  /// The first path that a line names, whatever it is quoted with.
  private static func path(_ line: String) -> String? {
    let words = line.split { " \"'`:(),‘’“”>".contains($0) }
    return words.first { $0.hasPrefix("/") && $0.count > 1 && !$0.hasPrefix("/proc") }.map(String.init)
  }

  /// What a line calls `.`: where it starts.
  private func relative(_ line: String) -> String? {
    guard line.split(separator: " ").contains(where: { ["'.':", "‘.’:", "'.'", ".:"].contains($0) }) else { return nil }
    return policy?["working_dir"]?.stringValue ?? image?["working_dir"]?.stringValue
  }

  // MARK: Who it is

  private static let strangers = [
    "user does not exist", "no such user", "unknown user", "cannot find name for user", "getpwuid", "no passwd entry",
    "look up effective user id", "uid not found",
  ]

  private mutating func user() {
    guard !isImageUser, exit["runtime"]?.stringValue != "native" else { return }
    let isStranger = output.contains { line in Self.strangers.contains { line.lowercased().contains($0) } }
    let isRefused = lines(with: "permission denied", "operation not permitted").contains { line, lower in
      lower.contains("must be run as root") || Self.path(line) != nil || lower.contains("dir ")
    }
    let mustBeRoot = !lines(with: "must be run as root", "are you root", "need to be root", "requires root").isEmpty
    if isStranger || mustBeRoot || (isRefused && policy?["image"]?.stringValue != nil) {
      say(
        "Its image expects a user of its own, and it runs as one that no image knows. `user: image` lets it be who the image says."
      )
    }
  }

  // MARK: Settings

  private mutating func settings() {
    if !lines(with: "address already in use").isEmpty {
      say("A port is taken: change `ports`, or stop what holds it.")
    }
    for (line, _) in lines(with: "not set", "must specify", "must be set", "is required", "is not specified", ": set ")
    {
      let words = line.split { !($0.isLetter || $0.isNumber || $0 == "_") }
      let name = words.first { word in
        word.contains("_") && word.count > 5 && word.allSatisfy { $0.isUppercase || $0.isNumber || $0 == "_" }
      }
      guard let name else { continue }
      say("It asks for a variable: `environment: {\(name): …}`.")
      return
    }
  }

  /// What a shell's codes say, where nothing else has said more.
  private mutating func codes(isExplained: Bool) {
    guard !isExplained else { return }
    switch exit["exit_code"]?.integerValue {
    case 126: say("126 says that the program may not be executed: see its mode, and `entry`.")
    case 127: say("127 says that a program was not found: see `entry`, and PATH in `environment`.")
    default: break
    }
  }
}

extension Bytes {
  /// As a policy writes it: `64m`.
  fileprivate var compactText: String {
    count >= 1 << 30 && count % (1 << 30) == 0 ? "\(count >> 30)g" : "\(max(1, count >> 20))m"
  }
}
