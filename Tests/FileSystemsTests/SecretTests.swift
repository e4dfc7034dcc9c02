import Foundation
import Model
import Testing

@testable import FileSystems

@Suite("Secrets on this host", .serialized) struct SecretTests {
  /// A folder of this test's own that nobody else can write to.
  private final class Place {
    let root: String
    let layout: InstanceLayout
    init() throws {
      let scratch = ProcessInfo.processInfo.environment["TMPDIR"] ?? "/var/tmp"
      root = "\(scratch)/appsup-secret-\(UInt32.random(in: 0 ... .max))"
      layout = InstanceLayout(
        config: "\(root)/config", state: "\(root)/state", run: "\(root)/run", log: "\(root)/log", name: "t", id: "t")
      for folder in ["", "/config", "/config/secrets", "/state", "/run"] {
        try FileManager.default.createDirectory(
          atPath: root + folder, withIntermediateDirectories: true, attributes: [.posixPermissions: 0o700])
      }
    }
    deinit { try? FileManager.default.removeItem(atPath: root) }

    func write(_ name: String, _ bytes: [UInt8], mode: Int = 0o600) throws -> String {
      let path = "\(root)/\(name)"
      try Data(bytes).write(to: URL(filePath: path))
      chmod(path, mode_t(mode))
      return path
    }

    /// Why a secret of that path is refused; nil: its content can be had.
    func refusal(_ path: String, loader: Policy.Loader? = nil) -> SecretProblem? {
      do throws(SecretProblem) {
        _ = try SecretSource.read(Secret(name: "s", origin: .file(path), target: "s"), layout, loader)
        return nil
      } catch { return error }
    }
  }

  private static func hex(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
  }

  @Test("the digest is HMAC-SHA256: FIPS 180-4 and RFC 4231")
  func digest() {
    #expect(
      Self.hex(SHA256.digest(Array("abc".utf8))) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")
    #expect(
      Self.hex(SHA256.digest([])) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")
    #expect(
      KeyedDigest(key: Array("Jefe".utf8)).text(of: Array("what do ya want for nothing?".utf8))
        == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
  }

  @Test("a file of one's own is read; what others could have put there or read is refused with the way out")
  func judged() throws {
    let place = try Place()
    #expect(place.refusal(try place.write("good", [1, 2, 3])) == nil)
    #expect(place.refusal(try place.write("group", [1], mode: 0o640)) == nil)
    let open = try place.write("open", [1], mode: 0o604)
    #expect(place.refusal(open)?.description.contains("everybody can reach") == true)
    #expect(place.refusal("\(place.root)/none") == .missing(name: "s", path: "\(place.root)/none"))
    let link = "\(place.root)/link"
    symlink("\(place.root)/good", link)
    #expect(place.refusal(link) == .linked(name: "s", path: link))
    symlink(place.root, "\(place.root)/folder")
    #expect(place.refusal("\(place.root)/folder/good") == .linked(name: "s", path: "\(place.root)/folder/good"))
    let fifo = "\(place.root)/fifo"
    mkfifo(fifo, 0o600)
    #expect(place.refusal(fifo) == .notAFile(name: "s", path: fifo))
    #expect(place.refusal("/dev/zero") == .notAFile(name: "s", path: "/dev/zero"))
    #expect(place.refusal("\(place.root)/run") == .notAFile(name: "s", path: "\(place.root)/run"))
    let big = try place.write("big", [UInt8](repeating: 7, count: 2 << 20))
    #expect(place.refusal(big) == .tooBig(name: "s", path: big))
    #expect(place.refusal(try place.write("most", [UInt8](repeating: 7, count: 1 << 20))) == nil)
  }

  @Test("in a folder that others can write to nothing is a secret, whoever owns the file", arguments: [0o777, 0o1777])
  func writable(_ mode: Int) throws {
    let place = try Place()
    let path = try place.write("good", [1])
    chmod(place.root, mode_t(mode))
    #expect(place.refusal(path)?.description.contains("others can write to the folder") == true)
  }

  @Test(
    "a user's secrets are hers: what only root may read is not, and credentials are root's", .enabled(if: getuid() == 0)
  )
  func loader() throws {
    let place = try Place()
    let her = Policy.Loader(uid: 60_001, gid: 60_001, groups: [])
    let roots = try place.write("roots", [1])
    chmod(place.root, 0o755)
    #expect(place.refusal(roots, loader: her) == .denied(name: "s", path: roots, uid: 60_001))
    let own = try place.write("own", [1])
    chown(own, 60_001, 60_001)
    #expect(place.refusal(own, loader: her) == nil)
    #expect(place.refusal(own) != nil, "root's policy takes nothing that a user can change")
    let credential = Secret(name: "c", origin: .credential("c"), target: "c")
    #expect(throws: SecretProblem.notRoots(name: "c")) { try SecretSource.read(credential, place.layout, her) }
  }

  @Test("credentials come from the folder that systemd names")
  func credentials() throws {
    let place = try Place()
    let credential = Secret(name: "c", origin: .credential("c"), target: "c")
    unsetenv("CREDENTIALS_DIRECTORY")
    #expect(throws: SecretProblem.noCredentials(name: "c")) { try SecretSource.read(credential, place.layout, nil) }
    _ = try place.write("c", Array("word".utf8), mode: 0o400)
    setenv("CREDENTIALS_DIRECTORY", place.root, 1)
    defer { unsetenv("CREDENTIALS_DIRECTORY") }
    #expect(try SecretSource.read(credential, place.layout, nil) == Array("word".utf8))
  }

  @Test(
    "a changed content shows by name, an equal one does not, and what is kept holds neither",
    .enabled(if: getuid() == 0))
  func memory() throws {
    let place = try Place()
    let path = try place.write("pass", Array("correct horse".utf8))
    let app = try #require(AppID("a"))
    var policy = Policy(id: app, stack: "s", runtime: .native, baseFolder: "/")
    policy.environment = [.init(name: "P", value: "", secret: "pass")]
    policy.secrets = [Secret(name: "pass", origin: .file(path), target: "pass")]
    let delivery = SecretDelivery(place.layout, policy, .native, run: "a.1", uidBase: 0x20_0000)
    #expect(SecretMemory(place.layout).changed(policy) == [])
    #expect(try delivery.deliver().map(\.value) == ["correct horse"])
    #expect(delivery.isVisible)
    #expect(!FileManager.default.createFile(atPath: "\(delivery.folder)/x", contents: Data()))
    var status = stat()
    #expect(stat("\(delivery.folder)/pass", &status) == 0 && status.st_uid == 0x20_0000 + 1000)
    #expect(status.st_mode & 0o777 == 0o400)
    #expect(SecretMemory(place.layout).changed(policy) == [])
    delivery.takeBack()
    #expect(!FileManager.default.fileExists(atPath: delivery.folder))
    _ = try place.write("pass", Array("battery staple".utf8))
    #expect(SecretMemory(place.layout).changed(policy) == ["pass"])
    let kept = try String(contentsOfFile: "\(place.root)/state/secrets/a", encoding: .utf8)
    #expect(!kept.contains("correct") && kept.hasPrefix("pass "))
    SecretMemory(place.layout).forget(app)
    #expect(SecretMemory(place.layout).changed(policy) == [])
  }

  @Test(
    "what an earlier daemon left visible is taken back, but for what waits to be started", .enabled(if: getuid() == 0))
  func sweep() throws {
    let place = try Place()
    let path = try place.write("pass", [1])
    var policy = Policy(id: try #require(AppID("a")), stack: "s", runtime: .native, baseFolder: "/")
    policy.secrets = [Secret(name: "pass", origin: .file(path), target: "pass")]
    let deliveries = ["a.1", "a.2"].map {
      SecretDelivery(place.layout, policy, .native, run: $0, uidBase: 0x20_0000)
    }
    for delivery in deliveries { _ = try delivery.deliver() }
    SecretDelivery.sweep(place.layout, .native, keeping: ["a.2"])
    #expect(deliveries.map(\.isVisible) == [false, true])
    SecretDelivery.sweep(place.layout, .native, keeping: [])
    #expect(deliveries.map(\.isVisible) == [false, false])
  }
}
