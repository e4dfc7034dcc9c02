internal import Glibc

/// Argument and environment vectors as C wants them.
package enum CStrings {
  /// Lends `strings` as a null-terminated vector for the length of one call.
  package static func with<Result, Failure: Error>(
    _ strings: [String], _ body: (UnsafePointer<UnsafeMutablePointer<CChar>?>) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    var vector = strings.map { strdup($0) }
    vector.append(nil)
    defer { for string in vector { free(string) } }
    return try body(vector)
  }
}
