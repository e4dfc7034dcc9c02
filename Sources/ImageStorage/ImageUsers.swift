internal import CLinux
internal import Glibc
internal import Linux

/// Who an image's user is: by number, or by name in the image's own /etc/passwd and /etc/group, which are read through its layers
/// without following any link.
package struct ImageUser: Sendable, Equatable {
  package var uid: UInt32
  package var gid: UInt32
  /// Supplementary ones, of the user's name; none where the image says a group.
  package var groups: [UInt32] = []
  package var home = "/"

  /// `user` is as in the image's configuration; `layers` are folders, topmost first. A name that is not there is refused.
  package init(_ user: String, layers: [String]) throws(ImageProblem) {
    let parts = user.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false).map(String.init)
    let name = parts.first ?? ""
    let users = try Self.lines("passwd", layers)
    let number = UInt32(name.isEmpty ? "0" : name)
    let row = users.first { $0.count >= 6 && (number != nil ? UInt32($0[2]) == number : $0[0] == name) }
    guard let uid = number ?? row.flatMap({ UInt32($0[2]) }) else {
      throw .refused("the image runs as '\(name)', whom its /etc/passwd does not know")
    }
    self.uid = uid
    gid = row.flatMap { UInt32($0[3]) } ?? 0
    if let home = row?[5], home.hasPrefix("/") { self.home = home }
    if parts.count > 1, !parts[1].isEmpty {
      gid = try Self.group(parts[1], layers)
    } else if let row {
      groups = try Self.lines("group", layers)
        .filter { $0.count >= 4 && $0[3].split(separator: ",").contains { $0 == row[0] } }
        .compactMap { UInt32($0[2]) }.filter { $0 != gid && $0 < 65_536 }
      groups = Array(groups.prefix(32))
    }
    guard self.uid < 65_536, gid < 65_536 else {
      throw .refused("the image runs as \(self.uid):\(gid); an app's ids lie below 65536")
    }
  }

  private static func group(_ text: String, _ layers: [String]) throws(ImageProblem) -> UInt32 {
    if let number = UInt32(text) { return number }
    let row = try lines("group", layers).first { $0.count >= 3 && $0[0] == text }
    guard let id = row.flatMap({ UInt32($0[2]) }) else {
      throw .refused("the image runs as the group '\(text)', which its /etc/group does not know")
    }
    return id
  }

  /// A file of the image's /etc, by colons; empty if there is none.
  private static func lines(_ name: String, _ layers: [String]) throws(ImageProblem) -> [[String]] {
    let text = String(decoding: try LayeredFile.read("etc", name, layers), as: UTF8.self)
    return text.split(separator: "\n").prefix(10_000).map {
      $0.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
    }
  }
}

/// One file of a folder at an image's top, as the overlay of its layers shows it.
enum LayeredFile {
  private static let longest = 1 << 20

  static func read(_ folder: String, _ name: String, _ layers: [String]) throws(ImageProblem) -> [UInt8] {
    for layer in layers {
      do throws(SystemFault) {
        let place = try Folder(opening: layer).folder(folder)
        do throws(SystemFault) { return try place.read(name, limit: longest) } catch  where error.code == ENOENT {
          if place.withRaw({ isOpaque($0) }) { return [] }
        } catch  where error.code == ENXIO {
          // A whiteout, which nobody can open.
          return []
        }
      } catch  where error.code == ENOENT {
        continue
      } catch  where error.code == ENOTDIR {
        // Something else than a folder hides those below: a whiteout, a file; or it is a link.
        if (try? Place.kind("\(layer)/\(folder)", follow: false)) == .other,
          (try? Place.link("\(layer)/\(folder)")) != nil
        {
          throw .refused("the image's /\(folder) is a link: \(name) is not read through it")
        }
        return []
      } catch  where error.code == ELOOP {
        throw .refused("the image's /\(folder)/\(name) is a link, and not followed")
      } catch  where error.code == EFBIG {
        throw .tooMuch("the image's /\(folder)/\(name) is longer than the \(longest >> 20) MiB that are read")
      } catch {
        throw .failed("the image's /\(folder)/\(name) cannot be read: \(error)")
      }
    }
    return []
  }

  private static func isOpaque(_ folder: Int32) -> Bool { cl_is_opaque(folder) == 1 }
}
