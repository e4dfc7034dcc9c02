/// The name of an app, unique in its instance.
///
/// By construction safe as a path component, a cgroup name, a host name and part of a container's name:
/// `[a-z0-9][a-z0-9_-]{0,62}`.
package struct AppID: Hashable, Comparable, Sendable, CustomStringConvertible {
  /// The name as written.
  package let name: String

  /// The longest name, in bytes.
  package static let maximumLength = 63

  /// Nil unless `name` matches `[a-z0-9][a-z0-9_-]{0,62}`; a template's instance (`NAME.1`) is made by `instance`.
  package init?(_ name: String) {
    guard AppID.isWellFormed(name[...]) else { return nil }
    self.name = name
  }

  /// Reads back what `description` wrote, instance suffix included.
  package init?(stored: String) {
    guard let dot = stored.lastIndex(of: ".") else {
      self.init(stored)
      return
    }
    let number = stored[stored.index(after: dot)...]
    guard let value = UInt32(number), value > 0, String(value) == number, let base = AppID(String(stored[..<dot]))
    else { return nil }
    self = base.instance(value)
  }

  private init(unchecked name: String) { self.name = name }

  /// The id of the `number`-th instance of this template: `NAME.number`.
  package func instance(_ number: UInt32) -> AppID { AppID(unchecked: "\(name).\(number)") }

  package var description: String { name }

  package static func < (left: AppID, right: AppID) -> Bool { left.name < right.name }

  private static func isWellFormed(_ name: Substring) -> Bool {
    let bytes = name.utf8
    guard let first = bytes.first, bytes.count <= maximumLength else { return false }
    return isLetterOrDigit(first)
      && bytes.allSatisfy { isLetterOrDigit($0) || $0 == UInt8(ascii: "_") || $0 == UInt8(ascii: "-") }
  }

  private static func isLetterOrDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }
}
