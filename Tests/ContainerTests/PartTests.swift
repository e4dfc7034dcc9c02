import Cgroups
import EngineAPI
import FileSystems
import Glibc
import Linux
import Model
import Synchronization
import Testing

@testable import ContainerHosting

@Suite("parts of the container host")
struct PartTests {
  func chunk(_ text: String) -> LogChunk {
    LogChunk(time: WallTime(nanoseconds: 1), stream: .output, bytes: Array(text.utf8))
  }

  @Test("the last lines of output in pieces, whatever the pieces", arguments: [1, 2, 3, 5, 100])
  func lastLines(count: Int) {
    let text = (1...9).map { "line \($0)\n" }.joined() + "end"
    let wanted = text.split(separator: "\n").suffix(count).joined(separator: "\n")
    for size in [1, 3, 7, 20, 1000] {
      var last = LastLines(count)
      var rest = text[...]
      while !rest.isEmpty {
        last.add(chunk(String(rest.prefix(size))))
        rest = rest.dropFirst(size)
      }
      #expect(String(decoding: last.chunks.flatMap(\.bytes), as: UTF8.self) == wanted, "\(size)")
      #expect(last.lines == min(count, 10))
    }
  }

  @Test("kept output is cut at its limit in whole files, survives a torn end, and reads back as written")
  func drained() throws {
    var template = Array("/tmp/appsup-dl.XXXXXX".utf8CString)
    let root = String(cString: try #require(mkdtemp(&template)))
    defer { system("rm -rf '\(root)'") }
    var limits = Policy.LogLimits()
    limits.maximumSize = Bytes(500)
    limits.maximumFiles = 2
    let log = DrainedLog("\(root)/log", limits)
    func read() throws -> [String] {
      var texts: [String] = []
      var position: DrainedLog.Position?
      repeat {
        let (chunks, next) = try log.read(LogQuery(), from: position)
        texts += chunks.map { String(decoding: $0.bytes, as: UTF8.self) }
        position = next
      } while position != nil
      return texts
    }
    #expect(try read() == [])
    for number in 10..<40 { try log.append([chunk("line \(number)\n")], run: 1) }
    let names = try Folder(opening: "\(root)/log").names()
    #expect(names.count == 4)
    let kept = try read()
    #expect(kept.last == "line 39\n" && kept.count >= 13 && kept.count < 30)
    // A crash in the middle: bytes without a record, and half a record.
    for name in names.suffix(2) {
      let file = try Folder(opening: "\(root)/log").open(name, O_WRONLY | O_APPEND)
      try file.withRaw { raw in try writeAll(raw, [1, 2, 3], name) }
    }
    #expect(try read() == kept)
    try log.append([chunk("after\n")], run: 2)
    #expect(try read().suffix(2) == ["line 39\n", "after\n"])
  }

  @Test("a .dockerignore decides by its last match, and always leaves the Dockerfile")
  func ignore() {
    let list = IgnoreList(
      "# comment\n*.log\nbuild\n**/cache\n!keep.log\ndocs/**/*.md\n/secret?\nDockerfile\n", keeping: "Dockerfile")
    for path in ["a.log", "build", "build/x/y", "x/y/cache", "x/y/cache/z", "docs/a.md", "docs/a/b.md", "secret1"] {
      #expect(list.covers(path), "\(path)")
    }
    for path in ["keep.log", "x/a.log", "builder", "docs/a.txt", "secret", "Dockerfile", "src/main.c"] {
      #expect(!list.covers(path), "\(path)")
    }
    #expect(!IgnoreList("", keeping: "Dockerfile").covers("anything"))
    // Would take years if every gap were tried with every length of every other.
    let slow = IgnoreList(String(repeating: "a*", count: 64) + "b", keeping: "Dockerfile")
    #expect(!slow.covers(String(repeating: "a", count: 4096)))
    #expect(slow.covers(String(repeating: "a", count: 100) + "b"))
  }

  @Test("a folder becomes a tar that tar reads, long names, links and empty files included")
  func archive() async throws {
    var template = Array("/tmp/appsup-tar.XXXXXX".utf8CString)
    let root = String(cString: try #require(mkdtemp(&template)))
    defer { system("rm -rf '\(root)'") }
    let long = String(repeating: "n", count: 120)
    #expect(
      system(
        """
        cd \(root) && mkdir -p in/sub/\(long) out && cd in && echo hi > Dockerfile && : > empty && head -c 300000 /dev/urandom > sub/big \
        && echo deep > sub/\(long)/file && ln -s ../Dockerfile sub/link && mkfifo pipe && echo x > gone.log && echo '*.log' > .dockerignore \
        && chmod 755 Dockerfile
        """) == 0)
    let stream = try await BuildContext.archive(.path("\(root)/in"), keeping: "Dockerfile")
    var bytes: [UInt8] = []
    while let piece = try await stream.next() { bytes += piece }
    try Folder(opening: root).replace("x.tar", with: bytes)
    #expect(
      system(
        "cd \(root) && tar -xf x.tar -C out && rm in/pipe in/gone.log && diff -r --no-dereference in out && test -x out/Dockerfile"
      )
        == 0)
    await #expect(throws: ContextProblem.self) { try await BuildContext.archive(.path("\(root)/in"), keeping: "none") }
  }

  @Test("single bytes of output do not fill the disk with records of them")
  func drip() throws {
    var template = Array("/tmp/appsup-dl.XXXXXX".utf8CString)
    let root = String(cString: try #require(mkdtemp(&template)))
    defer { system("rm -rf '\(root)'") }
    var limits = Policy.LogLimits()
    limits.maximumSize = Bytes(4096)
    limits.maximumFiles = 2
    let log = DrainedLog("\(root)/log", limits)
    for _ in 0..<20 { try log.append(Array(repeating: chunk("x"), count: 50), run: 1) }
    let folder = try Folder(opening: "\(root)/log")
    let size = try folder.names().reduce(0) { try $0 + folder.read($1).count }
    #expect(size <= 2 * (4096 + 33), "\(size)")
  }

  @Test("a folder of a build that has become a link since it was listed is not followed")
  func swapped() async throws {
    var template = Array("/tmp/appsup-tar.XXXXXX".utf8CString)
    let root = String(cString: try #require(mkdtemp(&template)))
    defer { system("rm -rf '\(root)'") }
    #expect(
      system(
        "cd \(root) && mkdir -p in/sub out && echo FROM > in/Dockerfile && echo x > in/sub/file && echo host > out/file"
      )
        == 0)
    let stream = try await BuildContext.archive(.path("\(root)/in"), keeping: "Dockerfile")
    #expect(system("cd \(root)/in && mv sub old && ln -s ../out sub") == 0)
    await #expect(throws: SystemFault.self) { while try await stream.next() != nil {} }
    // Nor does one that waits for a writer keep the daemon waiting.
    #expect(system("rm \(root)/in/sub && mkfifo \(root)/in/.dockerignore") == 0)
    _ = try await BuildContext.archive(.path("\(root)/in"), keeping: "Dockerfile")
  }

  @Test("output waits for its reader, and ends with it") func pipe() async throws {
    let pipe = LogPipe()
    let put = Mutex(0)
    let writer = Task {
      do {
        for _ in 0..<1000 {
          try await pipe.put(chunk(String(repeating: "x", count: 65_536)))
          put.withLock { $0 += 1 }
        }
        await pipe.end(nil)
      } catch { await pipe.end(error) }
    }
    for number in 1...100 {
      #expect(try await pipe.take()?.bytes.count == 65_536)
      // What is put at most: a mebibyte, and what was taken.
      #expect(put.withLock { $0 } <= number + 17)
    }
    writer.cancel()
    await #expect(throws: CancellationError.self) { while try await pipe.take() != nil {} }
    await writer.value
  }

  @Test(
    "an image's folders that are not its own to name are told from others, however they are spelt",
    arguments: [
      ("/", true), ("//", true), ("/./", true), ("/proc/self/fd/7", true), ("//proc/self/fd/7", true),
      ("/./proc/1/cwd", true), ("/x/../proc", true), ("relative", true), ("/sys", true), ("/dev/shm", true),
      ("/run/supervisor/x", true), ("/run/supervisory", false), ("/process", false), ("/var/lib/x", false),
      ("/run", false),
    ]) func foldersOfImages(_ path: String, _ isMade: Bool)
  {
    #expect((Images.madePlace(path) != nil) == isMade, "\(path)")
  }

  @Test("no named network is an app's own one")
  func ownNetwork() throws {
    let layout = InstanceLayout(config: "/c", state: "/s", run: "/r", log: "/l", name: "i", id: "0123456789abcdef")
    let settings = ContainerSettings(
      endpoint: EngineEndpoint(socket: "/none"), layout: layout, hierarchy: try CgroupHierarchy.detect())
    #expect(settings.ownNetworkName(try #require(AppID("web"))) != settings.networkName("web"))
    #expect(
      settings.isName("/appsup-01234567-web-3") && !settings.isName("/web") && !settings.isName("/x-appsup-01234567-"))
  }

  @Test("what /proc says of a process is read, a dead one is none")
  func processFacts() throws {
    let own = try #require(ProcessFacts(getpid()))
    #expect(own.uids == [geteuid(), geteuid(), geteuid(), geteuid()])
    #expect(own.mounts.contains { $0.target == "/proc" && $0.type == "proc" })
    #expect(own.limits["Max open files"] != nil)
    #expect(ProcessFacts(0) == nil)
    #expect(ProcessFacts.names(ProcessFacts.mask(["CHOWN", "SYS_ADMIN"])) == ["CHOWN", "SYS_ADMIN"])
    #expect(
      ProcessFacts(status: "Name:\tx\nState:\tZ (zombie)\n", cgroup: "", limits: "", mountInfo: "", oomScore: "0")
        == nil)
  }

  @Test("exit codes above 128 are signals, as engines mean them")
  func causes() {
    #expect(ContainerHost.cause(0) == .code(0))
    #expect(ContainerHost.cause(127) == .code(127))
    #expect(ContainerHost.cause(128) == .code(128))
    #expect(ContainerHost.cause(137) == .signal(9))
    #expect(ContainerHost.cause(255) == .code(255))
  }
}
