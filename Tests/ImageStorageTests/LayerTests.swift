import CLinux
import Glibc
import Linux
import Model
import Testing

@testable import ImageStorage

private let isRoot = geteuid() == 0

@Suite("the layers of an image", .enabled(if: isRoot, "files get owners, which needs root"))
struct LayerTests {
  let bench: Bench
  init() throws { bench = try Bench() }

  @Test("files, folders, links and their owners are as the layer has them, without setuid")
  func plain() throws {
    var tar = Tar()
    tar.add("bin/", Tar.folder, mode: 0o750, uid: 3, gid: 4)
    tar.add("bin/tool", Tar.file, Array("#!".utf8), mode: 0o6755, uid: 70, gid: 71)
    tar.add("bin/same", Tar.hardLink, to: "bin/tool")
    tar.add("bin/other", Tar.link, to: "/bin/tool")
    tar.add("deep/er/file", Tar.file, [1, 2, 3], mode: 0o600)
    tar.add("tmp", Tar.folder, mode: 0o1777)
    let (path, result) = try bench.layer(tar)
    let tool = try #require(bench.status("\(path)/bin/tool"))
    #expect(tool.st_mode & 0o7777 == 0o755)
    #expect(tool.st_uid == 70 && tool.st_gid == 71)
    #expect(bench.status("\(path)/bin/same")?.st_ino == tool.st_ino)
    #expect(try Place.link("\(path)/bin/other") == "/bin/tool")
    #expect(bench.status("\(path)/bin")?.st_uid == 3)
    #expect(bench.status("\(path)/deep/er")?.st_uid == 0)
    #expect(bench.status("\(path)/tmp").map { $0.st_mode & 0o7777 } == 0o1777)
    #expect(result.images.map(\.names) == [["test/image:1"]])
    #expect(result.images.first?.size == 5)
  }

  @Test("a whiteout becomes overlayfs's own, whatever comes before or after it")
  func whiteouts() throws {
    var tar = Tar()
    tar.add("gone/.wh.file")
    tar.add("etc/.wh..wh..opq")
    tar.add("etc/new", Tar.file, [1])
    tar.add("a/", Tar.folder)
    tar.add(".wh.a")
    tar.add(".wh.b")
    tar.add("b/c", Tar.file, [1])
    tar.add("d", Tar.file, [1])
    tar.add(".wh.d")
    tar.add(".wh..wh.plnk/1.2", Tar.file, [1])
    let (path, result) = try bench.layer(tar)
    let gone = try #require(bench.status("\(path)/gone/file"))
    #expect(gone.st_mode & S_IFMT == S_IFCHR && gone.st_rdev == 0)
    #expect(result.opaque[tar.digest()].map { $0.map { String(decoding: $0, as: UTF8.self) } } == ["a", "b", "etc"])
    #expect(bench.status("\(path)/d").map { $0.st_mode & S_IFMT } == S_IFREG)
    #expect(bench.status("\(path)/b/c") != nil)
  }

  @Test(
    "a whiteout of what is no single file is refused",
    arguments: [".wh.", ".wh..", ".wh...", "etc/.wh..", "etc/.wh...", ".wh..wh..opq"])
  func badWhiteouts(_ name: String) throws {
    var tar = Tar()
    tar.add(name)
    #expect(throws: ImageProblem.self) { try bench.layer(tar) }
  }

  @Test("no path of a layer leads out of it")
  func escapes() throws {
    let outside = "\(bench.folder)/outside"
    var cases: [Tar] = []
    func add(_ make: (inout Tar) -> Void) {
      var tar = Tar()
      make(&tar)
      cases.append(tar)
    }
    add { $0.add("../outside/made") }
    add { $0.add("a/../../../outside/made") }
    add {
      $0.add("out", Tar.link, to: outside)
      $0.add("out/made", Tar.file, [1])
    }
    add {
      $0.add("out", Tar.link, to: "../../../outside")
      $0.add("out/deeper/made", Tar.file, [1])
    }
    add {
      $0.add("out", Tar.link, to: outside)
      $0.add("out", Tar.folder)
      $0.add("out/.wh.secret")
      $0.add("up", Tar.link, to: outside)
      $0.add("up/.wh.secret")
    }
    add { $0.add("stolen", Tar.hardLink, to: "\(outside)/secret") }
    add { $0.add("stolen", Tar.hardLink, to: "../../../outside/secret") }
    add {
      $0.add("out", Tar.link, to: outside)
      $0.add("stolen", Tar.hardLink, to: "out/secret")
    }
    for tar in cases { #expect(problem { try bench.layer(tar) } != nil) }
    #expect(bench.isUntouched)
  }

  @Test("an absolute path is one in the layer, and a file takes the place of a link")
  func absolute() throws {
    var tar = Tar()
    tar.add("\(bench.folder)/outside/secret", Tar.file, Array("new".utf8))
    tar.add("secret", Tar.link, to: "\(bench.folder)/outside/secret")
    tar.add("secret", Tar.file, Array("newer".utf8))
    let (path, _) = try bench.layer(tar)
    #expect(try File.text("\(path)\(bench.folder)/outside/secret") == "new")
    #expect(try File.text("\(path)/secret") == "newer")
    #expect(bench.isUntouched)
  }

  @Test("devices, pipes and sockets are left out and counted; ids of nobody are nobody's")
  func special() throws {
    var tar = Tar()
    tar.add("dev/sda", Tar.block)
    tar.add("dev/mem", Tar.character)
    tar.add("pipe", Tar.pipe)
    tar.add("mine", Tar.file, uid: 100_000)
    let (path, result) = try bench.layer(tar)
    #expect(result.leftOut == 3 && result.foreignIDs == 1)
    #expect(bench.status("\(path)/dev/sda") == nil && bench.status("\(path)/pipe") == nil)
    #expect(bench.status("\(path)/mine")?.st_uid == 65_534)
  }

  @Test("extended attributes of a layer are not set")
  func attributes() throws {
    var tar = Tar()
    tar.add(pax: "SCHILY.xattr.security.capability", "\u{1}\u{2}\u{3}\u{4}")
    tar.add("ping", Tar.file, [1])
    tar.add(pax: "SCHILY.xattr.trusted.overlay.redirect", "/etc")
    tar.add("moved", Tar.folder)
    let (path, _) = try bench.layer(tar)
    for name in ["ping", "moved"] {
      let file = try Folder(opening: path).open(name, O_RDONLY)
      #expect(file.withRaw { cl_count_attributes($0) } == 0)
    }
  }

  @Test("names are bytes: newlines and other scripts stay, and case tells files apart")
  func names() throws {
    var tar = Tar()
    tar.add("a\nb", Tar.file, [1])
    tar.add(pax: "path", "größe/файл")
    tar.add("x", Tar.file, [2])
    tar.add("File", Tar.file, [3])
    tar.add("file", Tar.file, [4])
    let (path, _) = try bench.layer(tar)
    #expect(try Folder(opening: path).names() == ["File", "a\nb", "file", "größe"])
    #expect(try File.read("\(path)/größe/файл") == [2])
  }

  @Test("the last of two entries for one path counts, but no folder with files is replaced")
  func twice() throws {
    var tar = Tar()
    tar.add("a", Tar.file, [1])
    tar.add("a", Tar.file, [2])
    tar.add("a", Tar.folder)
    tar.add("a", Tar.file, [3])
    let (path, _) = try bench.layer(tar)
    #expect(try File.read("\(path)/a") == [3])
    var full = Tar()
    full.add("a/b", Tar.file, [1])
    full.add("a", Tar.file, [2])
    #expect(problem { try bench.layer(full) }?.description.contains("twice") == true)
  }
}
