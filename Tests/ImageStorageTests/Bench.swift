import Glibc
import Linux
import Model

@testable import ImageStorage

/// A folder to unpack into, beside one that nothing may touch.
final class Bench {
  let folder: String

  init() throws {
    var template = Array("/tmp/appsup-images-XXXXXX".utf8CString)
    guard mkdtemp(&template) != nil else { throw SystemFault(call: "mkdtemp", subject: "/tmp", code: errno) }
    folder = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    _ = try Folder(making: "\(folder)/outside", mode: 0o755)
    try Folder(opening: "\(folder)/outside").replace("secret", with: Array("untouched".utf8))
  }

  deinit {
    let parts = folder.split(separator: "/")
    _ = try? Tree.remove("tmp", String(parts[1]), in: "/")
  }

  private var count = 0
  private(set) var work = ""

  /// Unpacks an archive into a new folder, `work`.
  func unpack(_ archive: [UInt8], _ limits: ImageLimits = ImageLimits()) throws -> UnpackedArchive {
    count += 1
    work = "\(folder)/work\(count)"
    let made = try Folder(making: work, mode: 0o700)
    try Folder(opening: folder).replace("archive", with: archive)
    let file = SharedDescriptor(try Folder(opening: folder).open("archive", O_RDONLY))
    let place = try made.withRaw { (raw) throws(SystemFault) in
      SharedDescriptor(Descriptor(owning: try check("open") { openat(raw, ".", O_RDONLY | O_DIRECTORY) }))
    }
    var unpacking = Unpacking(into: place)
    unpacking.limits = limits
    return try unpacking.run(file)
  }

  /// Unpacks an image of one layer; the layer's folder.
  func layer(_ tar: Tar, _ limits: ImageLimits = ImageLimits()) throws -> (path: String, result: UnpackedArchive) {
    let result = try unpack(Tar.image([tar.ended]), limits)
    return ("\(work)/layers/\(tar.digest().hex)", result)
  }

  func status(_ path: String) -> stat? {
    var status = stat()
    return lstat(path, &status) == 0 ? status : nil
  }

  /// What lies outside is as it was, and nothing was made there.
  var isUntouched: Bool {
    (try? Folder(opening: "\(folder)/outside").names()) == ["secret"]
      && (try? File.text("\(folder)/outside/secret")) == "untouched"
      && status("\(folder)/outside/secret")?.st_nlink == 1
  }
}

func problem(_ body: () throws -> some Any) -> ImageProblem? {
  do {
    _ = try body()
    return nil
  } catch { return error as? ImageProblem ?? .failed("\(error)") }
}
