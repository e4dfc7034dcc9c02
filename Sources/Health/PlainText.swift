/// Text that an app wrote, for people: cut, and without what could move a terminal's cursor or break a line.
package enum PlainText {
  /// At most `most` characters of `bytes`, control characters and line ends as blanks, blanks at the ends left out.
  package static func make(_ bytes: some Sequence<UInt8>, most: Int = 200) -> String {
    // A scalar has at most four bytes: what is cut here is never shown.
    let text = String(decoding: Array(bytes.prefix(most * 4)), as: UTF8.self)
    var scalars = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(most) {
      switch scalar.properties.generalCategory {
      case .control, .format, .lineSeparator, .paragraphSeparator, .surrogate, .privateUse, .unassigned:
        scalars.append(" ")
      default: scalars.append(scalar)
      }
    }
    let plain = String(scalars)
    guard let first = plain.firstIndex(where: { $0 != " " }), let last = plain.lastIndex(where: { $0 != " " }) else {
      return ""
    }
    return String(plain[first...last])
  }
}
