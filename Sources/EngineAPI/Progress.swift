internal import Model

/// One line of a pull's, push's, load's or build's progress.
package struct Progress: Sendable, Equatable {
  /// A layer's short id; empty for a line about the whole.
  package var item: String
  /// `Downloading`, or some of a build's output (with its line ends).
  package var status: String
  /// Bytes done and in all.
  package var done: UInt64?
  package var total: UInt64?
  /// The id of an image that a build or import has made.
  package var imageID: String?

  init(_ json: JSONValue) {
    item = json.text("id")
    status = json["status"]?.stringValue ?? json.text("stream")
    let detail = json["progressDetail"]
    done = detail?["current"]?.integerValue.flatMap { UInt64(exactly: $0) }
    total = detail?["total"]?.integerValue.flatMap { UInt64(exactly: $0) }
    // A build says it in `aux`, an import in `status`.
    let made = json["aux"]?["ID"]?.stringValue ?? status
    imageID = Self.isImageID(made) ? made : nil
  }

  private static func isImageID(_ text: String) -> Bool {
    text.hasPrefix("sha256:") && text.utf8.count == 71
  }
}
