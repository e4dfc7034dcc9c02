package import Model

/// Looks for a text in a stream of output that arrives in pieces of any size, without keeping it.
package struct LineWatch: Sendable {
  /// An app that has not said it by then will not be read any further.
  package static let maximumBytes = 64 << 20

  private let wanted: [UInt8]
  /// The end of what was seen of each stream, one byte short of the text.
  private var tails: [LogChunk.Stream: [UInt8]] = [:]
  private var seen = 0

  package enum Outcome: Sendable, Equatable { case found, open, tooMuch }

  package init(_ text: String) { wanted = Array(text.utf8) }

  package mutating func take(_ bytes: [UInt8], _ stream: LogChunk.Stream) -> Outcome {
    seen += bytes.count
    let all = (tails[stream] ?? []) + bytes
    if Self.holds(all, wanted) { return .found }
    tails[stream] = Array(all.suffix(max(0, wanted.count - 1)))
    return seen > Self.maximumBytes ? .tooMuch : .open
  }

  private static func holds(_ text: [UInt8], _ wanted: [UInt8]) -> Bool {
    guard let first = wanted.first, text.count >= wanted.count else { return wanted.isEmpty }
    return text.withUnsafeBufferPointer { text in
      var place = 0
      let last = text.count - wanted.count
      while place <= last {
        if text[place] == first {
          var length = 1
          while length < wanted.count, text[place + length] == wanted[length] { length += 1 }
          if length == wanted.count { return true }
        }
        place += 1
      }
      return false
    }
  }
}
