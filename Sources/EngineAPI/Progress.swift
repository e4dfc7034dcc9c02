/// One line of a pull's, push's, load's or build's progress.
package struct Progress: Sendable, Equatable {
  /// A layer's short id; empty for a line about the whole.
  package var item: String
  /// `Downloading`, or a build's output.
  package var status: String
  package var done: UInt64?
  package var total: UInt64?
  /// An id that a build or load has made.
  package var imageID: String?
}
