import Foundation
import Glibc
import Linux
import Model
import Testing

@testable import FileSystems

/// Grants what lies in some folders.
private struct Granted: FileRules {
  var folders: [String]
  func allows(_ right: Right, _ path: String) -> Bool { folders.contains { path == $0 || path.hasPrefix($0 + "/") } }
  func allowsAll(_ right: Right, below folder: String) -> Bool { allows(right, folder) }
}

/// An app's view of a folder, beside which lies what it must never see.
private final class Place {
  static let canary = "CANARY outside"
  let outside: String
  let files: AppFiles
  var inside: String { outside + "/view" }
  var secret: String { outside + "/secret" }

  init(_ granted: [String] = ["/data/a"]) throws {
    let folder = FileManager.default.temporaryDirectory.resolvingSymlinksInPath().path
    outside = "\(folder)/app-files-\(UInt64.random(in: 0 ... .max))"
    for name in ["a/sub", "b"] {
      try FileManager.default.createDirectory(
        atPath: "\(outside)/view/data/\(name)", withIntermediateDirectories: true)
    }
    try Self.canary.write(toFile: "\(outside)/secret", atomically: true, encoding: .utf8)
    try "CANARY beside".write(toFile: "\(outside)/view/data/b/secret", atomically: true, encoding: .utf8)
    try "inside".write(toFile: "\(outside)/view/data/a/f", atomically: true, encoding: .utf8)
    files = AppFiles(try AppView(folder: "\(outside)/view"), Granted(folders: granted))
  }

  deinit { try? FileManager.default.removeItem(atPath: outside) }

  func link(_ name: String, _ target: String) { symlink(target, "\(inside)/data/a/\(name)") }

  /// What reading a path gives: the data, or the failure in a word.
  func read(_ text: String) -> String {
    let path: AppPath
    do { path = try AppPath(text) } catch { return "\(error)" }
    return outcome { () throws(FileProblem) in
      try files.read(path, offset: 0, length: nil)["data"]?.stringValue ?? "nothing"
    }
  }

  func outcome(_ body: () throws(FileProblem) -> String) -> String {
    do throws(FileProblem) { return try body() } catch {
      switch error {
      case .lacks: return "lacks"
      case .system(let fault): return fault.reason
      case .refused(_, let message, _): return message
      case .tooLarge: return "too large"
      }
    }
  }
}

@Suite("files of apps") struct AppFilesTests {
  @Test(
    "a path is made plain by its bytes, and never leads above the root",
    arguments: [
      ("/data/a", "/data/a"), ("//data///a/", "/data/a"), ("/data/./a", "/data/a"), ("/data/x/../a", "/data/a"),
      ("/../../etc", "/etc"), ("..", "/"), (".", "/base"), ("x", "/base/x"), ("../x", "/x"), ("/%2e%2e/x", "/%2e%2e/x"),
      ("/a\u{2215}..", "/a\u{2215}.."), ("/a/\u{301}b", "/a/\u{301}b"), ("/...", "/..."),
    ])
  func plain(written: String, plain: String) throws {
    let path = try AppPath(written, from: AppPath("/base"))
    #expect(path.description.utf8.elementsEqual(plain.utf8))
  }

  @Test("what is no path is refused before anything is looked up")
  func noPaths() throws {
    #expect(throws: AppPath.Problem.empty) { try AppPath("") }
    #expect(throws: AppPath.Problem.hasNul) { try AppPath("/data/a\0b") }
    #expect(throws: AppPath.Problem.tooLong) { try AppPath("/" + String(repeating: "a", count: 256)) }
    #expect(throws: AppPath.Problem.tooLong) { try AppPath(String(repeating: "/a", count: 2048)) }
    #expect(try AppPath(String(repeating: "/a", count: 2047)).steps.count == 2047)
    let base = try AppPath("/" + Array(repeating: "abc", count: 1000).joined(separator: "/"))
    #expect(throws: AppPath.Problem.tooLong) { try AppPath(String(repeating: "x/", count: 100), from: base) }
  }

  @Test(
    "no way of writing a path leads out, or past a right",
    arguments: [
      ("/data/a/f", "inside"), ("//data//a/./f", "inside"), ("/data/a/sub/../f", "inside"), ("/data/a/f/", "inside"),
      ("/data/a/here", "inside"), ("/data/a/rooted", "inside"), ("/secret", "No such file or directory"),
      ("/../secret", "No such file or directory"), ("/data/a/../../../secret", "No such file or directory"),
      ("/data/a/up", "No such file or directory"), ("/data/a/up/", "No such file or directory"),
      ("/data/a/absolute", "No such file or directory"), ("/data/a/magic", "No such file or directory"),
      ("/data/a/%2e%2e/%2e%2e/%2e%2e/secret", "No such file or directory"),
      ("/data/a/\u{2215}..\u{2215}..", "No such file or directory"), ("/data/b/secret", "lacks"),
      ("/data/a/beside", "lacks"), ("/data/a/besides/secret", "lacks"), ("/data/a/../b/secret", "lacks"),
      ("/data/a/loop", "Too many levels of symbolic links"), ("/data/a/sub", "Is a directory"),
      ("/data/a/fifo", "/data/a/fifo is a fifo, not a file"),
      ("/data/a/socket", "/data/a/socket is a socket, not a file"),
      ("/data/a/null", "/data/a/null is a device, not a file"), ("/data/a/sparse", "too large"),
    ])
  func corpus(written: String, expected: String) throws {
    let place = try Place()
    place.link("here", "sub/../f")
    place.link("rooted", "/data/a/f")
    place.link("up", "../../../secret")
    place.link("absolute", place.secret)
    place.link("magic", "/proc/self/root\(place.secret)")
    place.link("beside", "../b/secret")
    place.link("besides", "../b")
    place.link("loop", "loop")
    let folder = "\(place.inside)/data/a"
    mkfifo("\(folder)/fifo", 0o644)
    mknod("\(folder)/socket", S_IFSOCK | 0o644, 0)
    mknod("\(folder)/null", S_IFCHR | 0o644, 0x103)
    touch("\(folder)/sparse")
    truncate("\(folder)/sparse", 1 << 40)
    let start = Clock.monotonic()
    #expect(place.read(written) == expected)
    #expect(Clock.monotonic() - start < 100_000_000)
  }

  @Test("a file of any time is told of, and none ends the teller", arguments: [9_300_000_000, -9_300_000_000, 1 << 40])
  func times(seconds: Int) throws {
    let place = try Place()
    let times = [timespec(tv_sec: seconds, tv_nsec: 5), timespec(tv_sec: seconds, tv_nsec: 999_999_999)]
    #expect(utimensat(AT_FDCWD, "\(place.inside)/data/a/f", times, 0) == 0)
    var status = stat()
    #expect(stat("\(place.inside)/data/a/f", &status) == 0)
    let told = try place.files.look(try AppPath("/data/a/f"), follow: true, uid: 0)
    // What the disk keeps of it.
    let (whole, isOver) = Int64(status.st_mtim.tv_sec).multipliedReportingOverflow(by: 1_000_000_000)
    #expect(
      told["modified_ns"]?.integerValue
        == (isOver ? (status.st_mtim.tv_sec < 0 ? .min : .max) : whole + Int64(status.st_mtim.tv_nsec)))
  }

  @Test("nothing is changed through a link, and nothing made beside a right")
  func writes() throws {
    let place = try Place()
    place.link("out", place.secret)
    place.link("up", "../../../secret")
    place.link("beside", "../b/secret")
    place.link("dangling", "../b/new")
    place.link("folder", "../b")
    var how = AppFiles.Writing()
    how.creating = 0o644
    for name in ["out", "up", "beside", "dangling", "folder/new", "../b/new", "folder/secret"] {
      for atomic in [false, true] {
        how.atomic = atomic
        let asked = how
        let said = place.outcome { () throws(FileProblem) in
          try place.files.write(path("/data/a/\(name)"), [1], asked).text
        }
        #expect(["Too many levels of symbolic links", "lacks"].contains(said), "\(name): \(said)")
      }
      let cut = place.outcome { () throws(FileProblem) in
        try place.files.open(path("/data/a/\(name)"), opening("w+"), mode: 0o644).path.description
      }
      #expect(["Too many levels of symbolic links", "lacks"].contains(cut), "\(name): \(cut)")
    }
    #expect(try String(contentsOfFile: place.secret, encoding: .utf8) == Place.canary)
    #expect(try FileManager.default.contentsOfDirectory(atPath: "\(place.inside)/data/b") == ["secret"])
    // The link itself goes, not what it names.
    _ = try place.files.remove(path("/data/a/beside"))
    #expect(try FileManager.default.contentsOfDirectory(atPath: "\(place.inside)/data/b") == ["secret"])
    let moved = place.outcome { () throws(FileProblem) in
      try place.files.move(path("/data/b/secret"), to: path("/data/a/mine"), replace: false).text
    }
    #expect(moved == "lacks")
  }

  @Test("who flips a file for a link while it is opened never gets what the link names")
  func race() throws {
    let place = try Place()
    let folder = "\(place.inside)/data/a"
    place.link("other", "../b/secret")
    place.link("third", place.secret)
    let flipper = Flipper { turn in
      exchange("\(folder)/f", "\(folder)/\(turn % 2 == 0 ? "other" : "third")")
    }
    var seen: [String: Int] = [:]
    for round in 0..<4000 {
      seen[place.read("/data/a/f"), default: 0] += 1
      if round % 3 == 0 {
        _ = place.outcome { () throws(FileProblem) in
          try place.files.write(path("/data/a/f"), Array("inside".utf8), AppFiles.Writing()).text
        }
      }
      if round % 5 == 0 {
        _ = place.outcome { () throws(FileProblem) in
          "\(try place.files.open(path("/data/a/f"), opening("r+"), mode: 0o644).path)"
        }
      }
    }
    flipper.end()
    #expect(seen.keys.allSatisfy { !$0.contains("CANARY") }, "\(seen)")
    #expect((seen["inside"] ?? 0) > 0 && (seen["lacks"] ?? 0) > 0, "\(seen)")
    #expect(try String(contentsOfFile: place.secret, encoding: .utf8) == Place.canary)
    #expect(try String(contentsOfFile: "\(place.inside)/data/b/secret", encoding: .utf8) == "CANARY beside")
  }

  @Test("a folder that is swapped for a link while all of it is removed takes nothing else with it")
  func removal() throws {
    let place = try Place()
    let folder = "\(place.inside)/data/a"
    place.link("swap", "../../b")
    let flipper = Flipper { _ in exchange("\(folder)/tree/x", "\(folder)/swap") }
    for _ in 0..<300 {
      try? FileManager.default.createDirectory(atPath: "\(folder)/tree/x/y", withIntermediateDirectories: true)
      for name in ["1", "x/2", "x/y/3"] { touch("\(folder)/tree/\(name)") }
      _ = place.outcome { () throws(FileProblem) in
        try place.files.removeFolder(path("/data/a/tree"), recursive: true).text
      }
    }
    flipper.end()
    #expect(try String(contentsOfFile: "\(place.inside)/data/b/secret", encoding: .utf8) == "CANARY beside")
  }

  @Test("deep folders are removed, and more than a call's worth in several")
  func deep() throws {
    let place = try Place()
    var deep = AppPath.root.adding("data").adding("a")
    for _ in 0..<200 { deep = deep.adding("deep") }
    _ = try place.files.makeFolder(deep, parents: true, mode: 0o700)
    _ = try place.files.removeFolder(path("/data/a/deep"), recursive: true)
    #expect(try place.files.exists(path("/data/a/deep"))["exists"] == false)
  }

  @Test("a copy keeps holes, replaces only when asked, and leaves nothing behind when it fails")
  func copies() throws {
    let place = try Place()
    let sparse = "\(place.inside)/data/a/sparse"
    touch(sparse, Data(repeating: 7, count: 4096))
    truncate(sparse, 1 << 40)
    #expect(try copied(place, "/data/a/sparse", "/data/a/copy", replace: false) == 1 << 40)
    var status = Glibc.stat()
    #expect(lstat("\(place.inside)/data/a/copy", &status) == 0 && status.st_size == 1 << 40 && status.st_blocks < 1024)
    #expect(throws: FileProblem.self) { try copied(place, "/data/a/f", "/data/a/copy", replace: false) }
    #expect(try copied(place, "/data/a/f", "/data/a/copy", replace: true) == 6)
    #expect(throws: FileProblem.self) { try copied(place, "/data/a/f", "/data/b/copy", replace: false) }
    #expect(throws: FileProblem.self) { try copied(place, "/data/b/secret", "/data/a/mine", replace: false) }
    let names = try FileManager.default.contentsOfDirectory(atPath: "\(place.inside)/data/a").sorted()
    #expect(names == ["copy", "f", "sparse", "sub"])
  }

  private func copied(_ place: Place, _ from: String, _ to: String, replace: Bool) throws -> Int64 {
    let copy = try FileCopy(place.files, from: path(from), to: path(to), replace: replace)
    while true { if let bytes = try copy.next() { return bytes } }
  }

  @Test("a folder is listed in pages, in the same order each time, whatever its names are")
  func pages() throws {
    let place = try Place()
    for number in 0..<50 { touch("\(place.inside)/data/a/sub/\(number)") }
    let odd: [UInt8] = Array("\(place.inside)/data/a/sub/".utf8) + [0xFF, 0xFE, 0]
    close(creat(odd.map { CChar(bitPattern: $0) }, 0o644))
    var names: [String] = []
    var cursor: String?
    repeat {
      let answer = try place.files.list(path("/data/a/sub"), cursor: cursor, limit: 7)
      let entries = answer["entries"]?.arrayValue ?? []
      #expect(entries.count <= 7)
      names += entries.compactMap { $0["name_base64"]?.stringValue ?? $0["name"]?.stringValue }
      cursor = answer["cursor"]?.stringValue
    } while cursor != nil
    #expect(names == (0..<50).map { "\($0)" }.sorted() + ["//4="])
  }

  @Test("a search finds by name and by text, also across what is read at once, and follows no link")
  func search() throws {
    let place = try Place()
    place.link("beside", "../b")
    touch("\(place.inside)/data/a/sub/big.txt", Data(repeating: 65, count: (1 << 18) - 3) + Data("needle".utf8))
    func found(_ folder: String, _ pattern: String, _ content: String? = nil) throws -> [String] {
      let answer = try place.files.search(path(folder), pattern: pattern, content: content, limit: 10)
      #expect(answer["whole"] == true)
      return answer["found"]?.arrayValue?.compactMap { $0["path"]?.stringValue } ?? []
    }
    #expect(try found("/data/a", "*") == ["/data/a/beside", "/data/a/f", "/data/a/sub", "/data/a/sub/big.txt"])
    #expect(try found("/data/a", "*.t?t") == ["/data/a/sub/big.txt"])
    #expect(try found("/data/a", "*", "needle") == ["/data/a/sub/big.txt"])
    #expect(try found("/data/a", "*", "CANARY") == [])
    #expect(throws: FileProblem.self) { try found("/data", "*") }
    #expect(throws: FileProblem.self) { try found("/data/a/beside", "*") }
  }

  @Test("work of one key runs in its order, and one that waits holds up nobody else")
  func workers() async throws {
    let loop = try EventLoop(name: "test-loop")
    defer { loop.stop() }
    let workers = Workers(name: "test-files", most: 2, on: loop) { () throws(SystemFault) in
      try AppFiles.prepareThread()
    }
    defer { workers.stop() }
    let own = geteuid()
    let held = DispatchSemaphore(value: 0)
    async let waits: Void = workers.run(1) { held.wait() }
    // Whatever happens below, it does not wait for ever.
    defer { held.signal() }
    for number in 0..<20 { #expect(try await workers.run(2) { number } == number) }
    // Root's power over files is gone there.
    let denied = try await workers.run(2) {
      do throws(SystemFault) {
        try AppFiles.assume(uid: 54321, gid: 54321, groups: [])
        return (try? File.read("/etc/shadow")) == nil
      } catch { return geteuid() != 0 }
    }
    #expect(denied)
    // Not even root's own id brings it back: another's file is another's.
    let path = "/tmp/app-files-\(UInt64.random(in: 0 ... .max))"
    touch(path)
    defer { unlink(path) }
    if geteuid() == 0 {
      chown(path, 54321, 54321)
      chmod(path, 0o600)
      let codes = try await workers.run(2) {
        [0, 54321, 0].map { (uid: UInt32) -> Int32 in
          do throws(SystemFault) {
            try AppFiles.assume(uid: uid, gid: uid, groups: [])
            _ = try File.read(path)
            return 0
          } catch { return error.code }
        }
      }
      #expect(codes == [EACCES, 0, EACCES])
    }
    // Nobody who goes on afterwards is somebody else: not on a thread that was made meanwhile either.
    for _ in 0..<200 {
      async let one: Void = workers.run(3) { try? AppFiles.assume(uid: 54321, gid: 54321, groups: []) }
      async let two = geteuid()
      async let three = geteuid()
      try await one
      #expect(await [two, three, geteuid()] == [own, own, own])
    }
    held.signal()
    try await waits
  }
}

private func path(_ text: String) throws(FileProblem) -> AppPath {
  do throws(AppPath.Problem) { return try AppPath(text) } catch { throw .refused(.invalid, "\(error)", hint: nil) }
}

private func opening(_ flags: String) throws(FileProblem) -> AppFiles.Opening {
  guard let how = AppFiles.Opening(flags) else { throw .refused(.invalid, flags, hint: nil) }
  return how
}

private func exchange(_ left: String, _ right: String) {
  // SYS_renameat2 with RENAME_EXCHANGE has no wrapper in Swift; three renames leave a gap that is as good a race.
  let aside = left + ".aside"
  rename(left, aside)
  rename(right, left)
  rename(aside, right)
}

/// A thread that does something over and over.
private final class Flipper: @unchecked Sendable {
  // SAFETY: `isOver` is set once, and read by a thread that may see it late.
  private var isOver = false
  private let done = DispatchSemaphore(value: 0)

  init(_ body: @escaping @Sendable (Int) -> Void) {
    Thread.detachNewThread { [self] in
      var turn = 0
      while !isOver {
        body(turn)
        turn += 1
      }
      done.signal()
    }
  }

  func end() {
    isOver = true
    done.wait()
  }
}

private func touch(_ path: String, _ data: Data = Data()) { try? data.write(to: URL(fileURLWithPath: path)) }
