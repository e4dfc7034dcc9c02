/// A path as an app writes it, made absolute and plain: no empty, `.` or `..` step, no slash at its end. Nothing is looked up: `..` takes
/// the step before it away, and never leads above the root. Bytes are taken as they are; nothing in them is decoded.
package struct AppPath: Sendable, CustomStringConvertible {
  package static let root = AppPath(steps: [])

  package let steps: [String]
  package let description: String

  package enum Problem: Error, Sendable, Equatable {
    case empty
    case hasNul
    case tooLong
  }

  private init(steps: [String]) {
    self.steps = steps
    description = "/" + steps.joined(separator: "/")
  }

  /// `folder`: where a path that does not begin with a slash begins.
  package init(_ text: String, from folder: AppPath = .root) throws(Problem) {
    guard !text.isEmpty else { throw .empty }
    guard !text.utf8.contains(0) else { throw .hasNul }
    guard text.utf8.count < 4096 else { throw .tooLong }
    var steps = text.utf8.first == UInt8(ascii: "/") ? [] : folder.steps
    // Bytes, not characters: a slash followed by a combining mark is no slash to Swift, and is one to the kernel.
    for part in text.utf8.split(separator: UInt8(ascii: "/")) {
      let step = String(decoding: part, as: UTF8.self)
      switch step {
      case ".": continue
      case "..": _ = steps.popLast()
      default:
        guard step.utf8.count <= 255 else { throw .tooLong }
        steps.append(step)
      }
    }
    self.init(steps: steps)
    guard description.utf8.count < 4096 else { throw .tooLong }
  }

  /// Nil: the root.
  package var name: String? { steps.last }
  package var parent: AppPath { AppPath(steps: steps.dropLast()) }

  /// What `path` is below this; nil: it is elsewhere. Empty: it is this.
  func rest(of path: AppPath) -> String? {
    guard path.steps.count >= steps.count,
      zip(steps, path.steps).allSatisfy({ $0.utf8.elementsEqual($1.utf8) })
    else { return nil }
    return path.steps[steps.count...].joined(separator: "/")
  }

  package func adding(_ name: String) -> AppPath { AppPath(steps: steps + [name]) }
}
