import Glibc
import Linux
import Model
import Testing

@testable import ImageStorage

private let isRoot = geteuid() == 0

@Suite("archives of images", .enabled(if: isRoot, "files get owners, which needs root"))
struct ArchiveTests {
  let bench: Bench
  init() throws { bench = try Bench() }

  private func small() -> Tar {
    var tar = Tar()
    tar.add("etc/passwd", Tar.file, Array("root:x:0:0:root:/root:/bin/sh\n".utf8))
    return tar
  }

  @Test("an archive that is cut at any byte brings an error or the whole image, never a part")
  func truncated() throws {
    let whole = Tar.image([small().ended])
    for length in stride(from: 0, to: whole.count, by: 97) {
      do {
        let result = try bench.unpack(Array(whole[..<length]))
        #expect(result.images.map(\.layers) == [[small().digest()]])
        #expect(try File.text("\(bench.work)/layers/\(small().digest().hex)/etc/passwd").hasPrefix("root"))
      } catch is ImageProblem {}
    }
  }

  @Test("a layer that is not what the configuration says is refused")
  func wrongDigest() throws {
    var other = small()
    other.add("evil", Tar.file, [1])
    let forged = Tar.image([other.ended], diffs: [small().digest()])
    #expect(problem { try bench.unpack(forged) }?.description.contains("digest") == true)
    var whole = Tar.image([small().ended])
    let place = try #require(Array(whole).firstRange(of: Array("/root:".utf8)))
    whole[place.lowerBound + 1] = UInt8(ascii: "X")
    #expect(problem { try bench.unpack(whole) } != nil)
    var blob = Tar()
    blob.add("blobs/sha256/\(small().digest().hex)", Tar.file, [1, 2, 3])
    #expect(problem { try bench.unpack(blob.ended) }?.description.contains("digest") == true)
  }

  @Test("limits hold at n and refuse n+1, by name")
  func limits() throws {
    var limits = ImageLimits()
    limits.entries = 3
    limits.unpacked = 100_000
    limits.depth = 4
    limits.layers = 2
    var tar = Tar()
    for index in 0..<3 { tar.add("\(index)", Tar.file, [1]) }
    #expect(try bench.layer(tar, limits).result.images.count == 1)
    tar.add("more", Tar.file)
    #expect(problem { try bench.layer(tar, limits) }?.description.contains("3 files") == true)
    var deep = Tar()
    deep.add("a/b/c/d", Tar.file)
    #expect(problem { try bench.layer(deep, limits) } == nil)
    deep = Tar()
    deep.add("a/b/c/d/e", Tar.file)
    #expect(problem { try bench.layer(deep, limits) }?.description.contains("deeper") == true)
    let many = (0..<3).map { index in
      var tar = Tar()
      tar.add("\(index)", Tar.file)
      return tar.ended
    }
    #expect(problem { try bench.unpack(Tar.image(many), limits) }?.description.contains("3 layers") == true)
    #expect(problem { try bench.unpack(Tar.image(Array(many[..<2])), limits) } == nil)
    var big = Tar()
    big.add("big", Tar.file, [UInt8](repeating: 1, count: 120_000))
    #expect(problem { try bench.layer(big, limits) } != nil)
  }

  @Test("a file that says it has a tebibyte is refused before a byte of it is written")
  func sparse() throws {
    var tar = Tar()
    tar.add(pax: "GNU.sparse.major", "1")
    tar.add(pax: "GNU.sparse.minor", "0")
    tar.add("huge", Tar.file, [], size: 1 << 40)
    let found = try #require(problem { try bench.layer(tar) })
    #expect(found.description.contains("GiB") || found.description.contains("cannot be read"))
  }

  @Test("a configuration that would lead out of the app is refused by name")
  func configurations() throws {
    for (config, word) in [
      ("{\"WorkingDir\":\"/proc/self/fd/7\"}", "working folder"), ("{\"WorkingDir\":\"/../..\"}", ".."),
      ("{\"Volumes\":{\"/\":{}}}", "volume"), ("{\"Volumes\":{\"/proc\":{}}}", "volume"),
      ("{\"Volumes\":{\"/a/../..\":{}}}", "volume"), ("{\"Env\":[\"=x\"]}", "NAME=VALUE"),
      ("{\"User\":\"a\\nb\"}", "user"), ("{\"Entrypoint\":\"sh\"}", "Entrypoint"),
      ("{\"Entrypoint\":[1]}", "Entrypoint"),
      (String(repeating: "[", count: 4000), "configuration"),
      ("{" + (0..<200_000).map { "\"\($0)\":1" }.joined(separator: ",") + "}", "configuration"),
    ] {
      let found = problem { try bench.unpack(Tar.image([small().ended], config: config)) }
      #expect(found?.description.contains(word) == true, "\(config.prefix(40)): \(found?.description ?? "taken")")
    }
  }

  @Test("names of images are plain", arguments: ["a\nb:1", "../x", "UPPER case", "-rf", "a:1;rm", ""])
  func badNames(_ name: String) throws {
    let text = name.replacing("\n", with: "\\n")
    #expect(problem { try bench.unpack(Tar.image([small().ended], names: [text])) } != nil)
  }

  @Test("an OCI layout is found by its index, and an index that names itself ends")
  func layouts() throws {
    let layer = small().ended
    let config = Array(
      "{\"os\":\"linux\",\"config\":{\"Cmd\":[\"sh\"]},\"rootfs\":{\"diff_ids\":[\"\(Digest(of: layer))\"]}}".utf8)
    let manifest = Array(
      "{\"config\":{\"digest\":\"\(Digest(of: config))\"},\"layers\":[{\"digest\":\"\(Digest(of: layer))\"}]}".utf8)
    let named =
      "{\"manifests\":[{\"digest\":\"\(Digest(of: manifest))\",\"annotations\":{\"org.opencontainers.image.ref.name\":\"docker.io/library/thing:2\"}}]}"
    func archive(_ index: String, _ blobs: [[UInt8]]) -> [UInt8] {
      var tar = Tar()
      for blob in blobs { tar.add("blobs/sha256/\(Digest(of: blob).hex)", Tar.file, blob) }
      tar.add("index.json", Tar.file, Array(index.utf8))
      return tar.ended
    }
    let result = try bench.unpack(archive(named, [layer, config, manifest]))
    #expect(result.images.map(\.names) == [["thing:2"]])
    #expect(result.images.first?.id == Digest(of: config))
    // Each index names the one before it; more than a few are a way to keep the reader busy.
    var inner = manifest
    var blobs = [layer, config, manifest]
    for _ in 0..<6 {
      inner = Array("{\"manifests\":[{\"digest\":\"\(Digest(of: inner))\"}]}".utf8)
      blobs.append(inner)
    }
    let chain = "{\"manifests\":[{\"digest\":\"\(Digest(of: inner))\"}]}"
    #expect(problem { try bench.unpack(archive(chain, blobs)) }?.description.contains("deep") == true)
    let loop = Tar.image([layer], layerNames: ["a"])
    #expect(problem { try bench.unpack(loop) }?.description.contains("not in the archive") == true)
  }

  @Test("an archive whose links go round in a circle ends")
  func circles() throws {
    var tar = Tar()
    tar.add("manifest.json", Tar.link, to: "b")
    tar.add("b", Tar.link, to: "manifest.json")
    #expect(problem { try bench.unpack(tar.ended) } != nil)
    #expect(problem { try bench.unpack([]) } != nil)
    #expect(problem { try bench.unpack([UInt8](repeating: 0, count: 4096)) } != nil)
    #expect(problem { try bench.unpack((0..<8192).map { UInt8(truncatingIfNeeded: $0 &* 2_654_435_761) }) } != nil)
  }
}

@Suite("what an image's user is")
struct UserTests {
  let bench: Bench
  init() throws { bench = try Bench() }

  private func layers(_ files: [[String: String]]) throws -> [String] {
    try files.enumerated().map { index, files in
      let path = "\(bench.folder)/layer\(index)"
      for (name, text) in files {
        let parts = name.split(separator: "/")
        let folder = try Folder(making: ([path] + parts.dropLast().map(String.init)).joined(separator: "/"))
        try folder.replace(String(parts[parts.count - 1]), with: Array(text.utf8))
      }
      return path
    }
  }

  @Test("names and numbers mean what the topmost passwd and group say")
  func users() throws {
    let layers = try layers([
      [
        "etc/passwd": "root:x:0:0::/root:/bin/sh\nweb:x:33:34::/var/www:/bin/sh\n",
        "etc/group": "www:x:34:\nextra:x:50:web\n",
      ],
      ["etc/passwd": "web:x:99:99::/old:/bin/sh\n"],
    ])
    #expect(try ImageUser("web", layers: layers).uid == 33)
    #expect(try ImageUser("web", layers: layers).groups == [50])
    #expect(try ImageUser("web", layers: layers).home == "/var/www")
    #expect(try ImageUser("33", layers: layers).gid == 34)
    #expect(try ImageUser("7", layers: layers).gid == 0)
    #expect(try ImageUser("", layers: layers).home == "/root")
    #expect(try ImageUser("web:www", layers: layers).groups.isEmpty)
    #expect(problem { try ImageUser("nobody-here", layers: layers) } != nil)
    #expect(problem { try ImageUser("70000", layers: layers) } != nil)
    #expect(problem { try ImageUser("1:none", layers: layers) } != nil)
  }

  @Test("a passwd that is a link, or lies behind one, is not followed")
  func links() throws {
    let layers = try layers([["x": ""]])
    _ = try Folder(making: "\(layers[0])/etc")
    #expect(symlink("/etc/passwd", "\(layers[0])/etc/passwd") == 0)
    #expect(problem { try ImageUser("root", layers: layers) }?.description.contains("link") == true)
    let others = [bench.folder + "/linked"]
    _ = try Folder(making: others[0])
    #expect(symlink("/etc", "\(others[0])/etc") == 0)
    #expect(problem { try ImageUser("root", layers: others) }?.description.contains("link") == true)
  }
}

@Suite("names and digests")
struct NameTests {
  @Test("one image has one spelling")
  func canonical() {
    for name in [
      "busybox", "busybox:latest", "docker.io/library/busybox", "docker.io/busybox:latest", "localhost/busybox",
    ] {
      #expect(ImageName.canonical(name) == "busybox:latest")
    }
    #expect(ImageName.canonical("localhost:5000/a/b") == "localhost:5000/a/b:latest")
    #expect(ImageName.canonical("reg.example/a:1") == "reg.example/a:1")
  }

  @Test("SHA-256 is FIPS 180-4's")
  func digests() {
    #expect(Digest(of: []).hex == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    #expect(Digest(of: Array("abc".utf8)).hex == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    #expect(
      Digest(of: [UInt8](repeating: UInt8(ascii: "a"), count: 1_000_000)).hex
        == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0")
    #expect(Digest("sha256:ABC") == nil && Digest(String(repeating: "g", count: 64)) == nil)
  }
}
